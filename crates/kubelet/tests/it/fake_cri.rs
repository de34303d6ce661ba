//! A runtime in memory behind a real CRI socket: containers run until told otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cri::v1::image_service_server::{ImageService, ImageServiceServer};
use cri::v1::runtime_service_server::{RuntimeService, RuntimeServiceServer};
use cri::v1::*;
use env::Env;
use parking_lot::Mutex;
use tokio::net::UnixListener;
use tokio::sync::broadcast;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// The runtime; clones share it.
#[derive(Clone)]
pub struct FakeCri(Arc<Inner>);

struct Inner {
    env: Env,
    state: Mutex<State>,
    events: broadcast::Sender<ContainerEventResponse>,
}

#[derive(Default)]
struct State {
    next: u32,
    sandboxes: BTreeMap<String, PodSandboxStatus>,
    configs: BTreeMap<String, PodSandboxConfig>,
    containers: BTreeMap<String, One>,
    images: BTreeSet<String>,
    pullable: BTreeSet<String>,
    /// How long a pull takes.
    pull_time: Duration,
    /// Containers of this name end at once with this code.
    ends: BTreeMap<String, i32>,
    /// What commands of probes and hooks exit with, by their first word.
    commands: BTreeMap<String, i32>,
    /// The calls that changed something.
    log: Vec<String>,
    pod_cidr: String,
    /// Containers that ignore SIGTERM.
    stubborn: BTreeSet<String>,
    /// Where exec and the like are served.
    streaming: String,
}

struct One {
    sandbox: String,
    config: ContainerConfig,
    status: ContainerStatus,
}

type Answer<T> = Result<Response<T>, Status>;

fn answer<T>(value: T) -> Answer<T> {
    Ok(Response::new(value))
}

impl FakeCri {
    pub fn new(env: Env) -> FakeCri {
        let state = State { images: ["app:1".to_owned()].into(), ..State::default() };
        FakeCri(Arc::new(Inner { env, state: Mutex::new(state), events: broadcast::Sender::new(1024) }))
    }

    /// Serves on the socket; ends with the guard.
    pub fn serve(&self, socket: &Path) -> client::TaskGuard {
        let listener = UnixListener::bind(socket).unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(RuntimeServiceServer::new(self.clone()))
            .add_service(ImageServiceServer::new(self.clone()))
            .serve_with_incoming(UnixListenerStream::new(listener));
        client::TaskGuard::new(self.0.env.spawn(async move { server.await.unwrap() }))
    }

    /// The calls that changed something, as `verb name`; forgotten once asked for.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.0.state.lock().log)
    }

    pub fn pod_cidr(&self) -> String {
        self.0.state.lock().pod_cidr.clone()
    }

    pub fn can_pull(&self, image: &str) {
        self.0.state.lock().pullable.insert(image.to_owned());
    }

    /// From now on a pull takes this long.
    pub fn pulls_take(&self, time: Duration) {
        self.0.state.lock().pull_time = time;
    }

    /// Containers called `name` end as soon as they are started.
    pub fn ends(&self, name: &str, code: Option<i32>) {
        let mut state = self.0.state.lock();
        match code {
            Some(code) => state.ends.insert(name.to_owned(), code),
            None => state.ends.remove(name),
        };
    }

    pub fn command(&self, word: &str, code: i32) {
        self.0.state.lock().commands.insert(word.to_owned(), code);
    }

    pub fn stubborn(&self, name: &str) {
        self.0.state.lock().stubborn.insert(name.to_owned());
    }

    pub fn streaming(&self, url: &str) {
        self.0.state.lock().streaming = url.to_owned();
    }

    /// The running container called `name` ends.
    pub fn end(&self, name: &str, code: i32) {
        let id = self.find(name, true).expect("the container runs");
        self.exit(&id, code);
    }

    /// The newest container called `name`, that runs if `running`.
    fn find(&self, name: &str, running: bool) -> Option<String> {
        let state = self.0.state.lock();
        let mut found = state.containers.values().rev().filter(|one| {
            let runs = one.status.state() == ContainerState::ContainerRunning;
            one.config.metadata.as_ref().unwrap().name == name && (runs || !running)
        });
        found.next().map(|one| one.status.id.clone())
    }

    pub fn is_running(&self, name: &str) -> bool {
        self.find(name, true).is_some()
    }

    /// How the newest container called `name` was made.
    pub fn config(&self, name: &str) -> ContainerConfig {
        let id = self.find(name, false).expect("the container was made");
        self.0.state.lock().containers[&id].config.clone()
    }

    pub fn sandbox_config(&self) -> PodSandboxConfig {
        self.0.state.lock().configs.values().next_back().expect("a sandbox was made").clone()
    }

    pub fn counts(&self) -> (usize, usize) {
        let state = self.0.state.lock();
        (state.sandboxes.len(), state.containers.len())
    }

    /// The newest sandbox breaks, and its containers with it.
    pub fn break_sandbox(&self) {
        let (id, containers) = {
            let state = self.0.state.lock();
            let id = state.sandboxes.keys().next_back().unwrap().clone();
            let of = state.containers.values().filter(|one| one.sandbox == id).map(|one| one.status.id.clone());
            (id.clone(), of.collect::<Vec<_>>())
        };
        containers.iter().for_each(|container| self.exit(container, 137));
        let mut state = self.0.state.lock();
        state.sandboxes.get_mut(&id).unwrap().state = PodSandboxState::SandboxNotready.into();
        drop(state);
        self.announce(&id, &id, ContainerEventType::ContainerStoppedEvent);
    }

    fn now(&self) -> i64 {
        i64::try_from(self.0.env.now().as_nanosecond()).unwrap()
    }

    fn exit(&self, id: &str, code: i32) {
        let now = self.now();
        let mut state = self.0.state.lock();
        let Some(one) = state.containers.get_mut(id) else { return };
        if one.status.state() != ContainerState::ContainerRunning {
            return;
        }
        one.status.state = ContainerState::ContainerExited.into();
        one.status.exit_code = code;
        one.status.finished_at = now;
        one.status.reason = if code == 0 { "Completed" } else { "Error" }.into();
        let sandbox = one.sandbox.clone();
        drop(state);
        self.announce(id, &sandbox, ContainerEventType::ContainerStoppedEvent);
    }

    fn announce(&self, id: &str, sandbox: &str, kind: ContainerEventType) {
        let state = self.0.state.lock();
        let event = ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            pod_sandbox_status: state.sandboxes.get(sandbox).cloned(),
            ..Default::default()
        };
        drop(state);
        let _ = self.0.events.send(event);
    }
}

fn matches(
    labels: &std::collections::HashMap<String, String>,
    wanted: &std::collections::HashMap<String, String>,
) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[tonic::async_trait]
impl RuntimeService for FakeCri {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        answer(VersionResponse { runtime_name: "fake".into(), runtime_version: "1".into(), ..Default::default() })
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        let network = !self.0.state.lock().pod_cidr.is_empty();
        let condition = |kind: &str, status: bool| RuntimeCondition {
            r#type: kind.into(),
            status,
            reason: if status { "" } else { "NoPodRange" }.into(),
            message: if status { "" } else { "no range yet" }.into(),
        };
        let conditions = vec![condition("RuntimeReady", true), condition("NetworkReady", network)];
        answer(StatusResponse { status: Some(RuntimeStatus { conditions }), ..Default::default() })
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let network = request.into_inner().runtime_config.unwrap().network_config.unwrap();
        self.0.state.lock().pod_cidr = network.pod_cidr;
        answer(UpdateRuntimeConfigResponse {})
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap();
        let created_at = self.now();
        let mut state = self.0.state.lock();
        if !request.runtime_handler.is_empty() {
            state.log.push(format!("handler {}", request.runtime_handler));
        }
        state.next += 1;
        let id = format!("sandbox-{:04}", state.next);
        let metadata = config.metadata.clone().unwrap();
        state.log.push(format!("sandbox {} {}", metadata.name, metadata.attempt));
        let options =
            config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone());
        let host = options.as_ref().is_some_and(|options| options.network() == NamespaceMode::Node);
        let ip = if host { String::new() } else { format!("10.1.0.{}", state.next) };
        let status = PodSandboxStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: PodSandboxState::SandboxReady.into(),
            created_at,
            network: Some(PodSandboxNetworkStatus { ip, additional_ips: Vec::new() }),
            linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options }) }),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            ..Default::default()
        };
        state.sandboxes.insert(id.clone(), status);
        state.configs.insert(id.clone(), config);
        drop(state);
        self.announce(&id, &id, ContainerEventType::ContainerStartedEvent);
        answer(RunPodSandboxResponse { pod_sandbox_id: id })
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let running: Vec<String> = {
            let mut state = self.0.state.lock();
            if let Some(sandbox) = state.sandboxes.get_mut(&id) {
                sandbox.state = PodSandboxState::SandboxNotready.into();
            }
            state.containers.values().filter(|one| one.sandbox == id).map(|one| one.status.id.clone()).collect()
        };
        running.iter().for_each(|container| self.exit(container, 137));
        answer(StopPodSandboxResponse {})
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let mut state = self.0.state.lock();
        state.sandboxes.remove(&id);
        state.configs.remove(&id);
        state.containers.retain(|_, one| one.sandbox != id);
        state.log.push("remove sandbox".to_owned());
        answer(RemovePodSandboxResponse {})
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let id = request.into_inner().pod_sandbox_id;
        let state = self.0.state.lock();
        let status = state.sandboxes.get(&id).cloned().ok_or_else(|| Status::not_found("no such sandbox"))?;
        let of = state.containers.values().filter(|one| one.sandbox == id).map(|one| one.status.clone());
        let containers_statuses = of.collect();
        answer(PodSandboxStatusResponse { status: Some(status), containers_statuses, ..Default::default() })
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.0.state.lock();
        let items = state.sandboxes.values().filter(|sandbox| matches(&sandbox.labels, &wanted));
        let items = items.map(|sandbox| PodSandbox {
            id: sandbox.id.clone(),
            metadata: sandbox.metadata.clone(),
            state: sandbox.state,
            labels: sandbox.labels.clone(),
            ..Default::default()
        });
        answer(ListPodSandboxResponse { items: items.collect() })
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let (sandbox, config) = (request.pod_sandbox_id, request.config.unwrap());
        let created_at = self.now();
        let mut state = self.0.state.lock();
        if state.sandboxes.get(&sandbox).is_none_or(|sandbox| sandbox.state() != PodSandboxState::SandboxReady) {
            return Err(Status::unknown("sandbox is not ready"));
        }
        state.next += 1;
        let id = format!("container-{:04}", state.next);
        let log_directory = &state.configs[&sandbox].log_directory;
        let log_path = Path::new(log_directory).join(&config.log_path);
        std::fs::write(&log_path, "2026-01-01T00:00:00Z stdout F hello\n")
            .map_err(|e| Status::unknown(e.to_string()))?;
        let metadata = config.metadata.clone().unwrap();
        state.log.push(format!("create {} {}", metadata.name, metadata.attempt));
        let status = ContainerStatus {
            id: id.clone(),
            metadata: config.metadata.clone(),
            state: ContainerState::ContainerCreated.into(),
            created_at,
            image: Some(ImageSpec { image: "app:1".into(), ..Default::default() }),
            image_ref: "sha256:app".into(),
            labels: config.labels.clone(),
            annotations: config.annotations.clone(),
            mounts: config.mounts.clone(),
            log_path: log_path.to_string_lossy().into_owned(),
            ..Default::default()
        };
        state.containers.insert(id.clone(), One { sandbox, config, status });
        answer(CreateContainerResponse { container_id: id })
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        let now = self.now();
        let mut state = self.0.state.lock();
        let one = state.containers.get_mut(&id).unwrap();
        one.status.state = ContainerState::ContainerRunning.into();
        one.status.started_at = now;
        let (name, sandbox) = (one.config.metadata.as_ref().unwrap().name.clone(), one.sandbox.clone());
        state.log.push(format!("start {name}"));
        let ends = state.ends.get(&name).copied();
        drop(state);
        self.announce(&id, &sandbox, ContainerEventType::ContainerStartedEvent);
        if let Some(code) = ends {
            self.exit(&id, code);
        }
        answer(StartContainerResponse {})
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        let stubborn = {
            let mut state = self.0.state.lock();
            let Some(one) = state.containers.get(&request.container_id) else {
                return answer(StopContainerResponse {});
            };
            let name = one.config.metadata.as_ref().unwrap().name.clone();
            state.log.push(format!("stop {name} {}", request.timeout));
            state.stubborn.contains(&name)
        };
        if stubborn {
            self.0.env.sleep(Duration::from_secs(request.timeout as u64)).await;
        }
        self.exit(&request.container_id, if stubborn { 137 } else { 0 });
        answer(StopContainerResponse {})
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let mut state = self.0.state.lock();
        let one = state.containers.get_mut(&request.container_id).ok_or_else(|| Status::not_found("no container"))?;
        one.config.linux.get_or_insert_default().resources = request.linux;
        answer(UpdateContainerResourcesResponse {})
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let id = request.into_inner().container_id;
        self.0.state.lock().containers.remove(&id);
        answer(RemoveContainerResponse {})
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let wanted = request.into_inner().filter.unwrap_or_default().label_selector;
        let state = self.0.state.lock();
        let found = state.containers.values().filter(|one| matches(&one.config.labels, &wanted));
        let containers = found.map(|one| Container {
            id: one.status.id.clone(),
            pod_sandbox_id: one.sandbox.clone(),
            metadata: one.status.metadata.clone(),
            state: one.status.state,
            labels: one.status.labels.clone(),
            ..Default::default()
        });
        answer(ListContainersResponse { containers: containers.collect() })
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let id = request.into_inner().container_id;
        let state = self.0.state.lock();
        let one = state.containers.get(&id).ok_or_else(|| Status::not_found("no such container"))?;
        answer(ContainerStatusResponse { status: Some(one.status.clone()), ..Default::default() })
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let word = request.into_inner().cmd.first().cloned().unwrap_or_default();
        let mut state = self.0.state.lock();
        state.log.push(format!("exec {word}"));
        let exit_code = state.commands.get(&word).copied().unwrap_or(0);
        answer(ExecSyncResponse { exit_code, stdout: b"said".to_vec(), stderr: Vec::new() })
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let state = self.0.state.lock();
        std::fs::write(&state.containers[&request.into_inner().container_id].status.log_path, "").unwrap();
        answer(ReopenContainerLogResponse {})
    }

    async fn exec(&self, _: Request<ExecRequest>) -> Answer<ExecResponse> {
        answer(ExecResponse { url: self.0.state.lock().streaming.clone() })
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<BoxStream<ContainerEventResponse>> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        let events = events.map(|event| event.map_err(|_| Status::data_loss("events were lost")));
        Ok(Response::new(Box::pin(events)))
    }

    async fn list_pod_sandbox_stats(
        &self,
        _: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        answer(ListPodSandboxStatsResponse::default())
    }
}

#[tonic::async_trait]
impl ImageService for FakeCri {
    async fn list_images(&self, _: Request<ListImagesRequest>) -> Answer<ListImagesResponse> {
        let images = self.0.state.lock().images.iter().map(|name| image(name)).collect();
        answer(ListImagesResponse { images })
    }

    async fn image_status(&self, request: Request<ImageStatusRequest>) -> Answer<ImageStatusResponse> {
        let name = request.into_inner().image.unwrap().image;
        let known = self.0.state.lock().images.contains(&name);
        answer(ImageStatusResponse { image: known.then(|| image(&name)), ..Default::default() })
    }

    async fn pull_image(&self, request: Request<PullImageRequest>) -> Answer<PullImageResponse> {
        let request = request.into_inner();
        let name = request.image.unwrap().image;
        let user = request.auth.map(|auth| auth.username).unwrap_or_default();
        let time = self.0.state.lock().pull_time;
        self.0.env.sleep(time).await;
        let mut state = self.0.state.lock();
        state.log.push(format!("pull {name} {user}").trim_end().to_owned());
        if !state.pullable.contains(&name) {
            return Err(Status::not_found(format!("no such image: {name}")));
        }
        state.images.insert(name.clone());
        answer(PullImageResponse { image_ref: name })
    }
}

fn image(name: &str) -> Image {
    Image { id: name.to_owned(), repo_tags: vec![name.to_owned()], size: 1234, ..Default::default() }
}
