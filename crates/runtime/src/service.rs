//! CRI's two services: each call finds its objects, has the work done, and answers.

mod images;
pub(crate) mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio_stream::StreamExt;
use tokio_stream::wrappers::BroadcastStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use cri::v1::runtime_service_server::RuntimeService;
use cri::v1::*;

use crate::container::{self, exec};
use crate::error::Error;
use crate::sandbox;
use crate::state::Daemon;
use crate::stats;
use crate::streaming::{self, Purpose};

/// The version that Version answers (upstream: `kubeAPIVersion`).
const API_VERSION: &str = "v1";
const RUNTIME_NAME: &str = "oxikube";

#[derive(Clone)]
pub(crate) struct Service(pub(crate) Arc<Daemon>);

type Answer<T> = Result<Response<T>, Status>;

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

impl Service {
    /// Work that must be finished once begun goes on when the caller hangs up.
    async fn detached<T, F>(&self, work: impl FnOnce(Arc<Daemon>) -> F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Error>> + Send + 'static,
    {
        let task = self.0.env.spawn(work(self.0.clone()));
        match task.await {
            Ok(result) => Ok(result?),
            Err(error) => Err(Status::unknown(format!("the request was given up: {error}"))),
        }
    }
}

#[tonic::async_trait]
impl RuntimeService for Service {
    async fn version(&self, _: Request<VersionRequest>) -> Answer<VersionResponse> {
        Ok(Response::new(VersionResponse {
            version: "0.1.0".to_owned(),
            runtime_name: RUNTIME_NAME.to_owned(),
            runtime_version: env!("CARGO_PKG_VERSION").to_owned(),
            runtime_api_version: API_VERSION.to_owned(),
        }))
    }

    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusResponse> {
        Ok(Response::new(status::runtime_status(&self.0)))
    }

    async fn run_pod_sandbox(&self, request: Request<RunPodSandboxRequest>) -> Answer<RunPodSandboxResponse> {
        let request = request.into_inner();
        let config = request.config.unwrap_or_default();
        let work = async |daemon: Arc<Daemon>| sandbox::run(&daemon, config, request.runtime_handler).await;
        let pod_sandbox_id = self.detached(work).await?;
        Ok(Response::new(RunPodSandboxResponse { pod_sandbox_id }))
    }

    async fn stop_pod_sandbox(&self, request: Request<StopPodSandboxRequest>) -> Answer<StopPodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.detached(async move |daemon: Arc<Daemon>| sandbox::stop(&daemon, &id).await).await?;
        Ok(Response::new(StopPodSandboxResponse {}))
    }

    async fn remove_pod_sandbox(&self, request: Request<RemovePodSandboxRequest>) -> Answer<RemovePodSandboxResponse> {
        let id = request.into_inner().pod_sandbox_id;
        self.detached(async move |daemon: Arc<Daemon>| sandbox::remove(&daemon, &id).await).await?;
        Ok(Response::new(RemovePodSandboxResponse {}))
    }

    async fn pod_sandbox_status(&self, request: Request<PodSandboxStatusRequest>) -> Answer<PodSandboxStatusResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        let containers = self.0.containers_of(&sandbox.id);
        Ok(Response::new(PodSandboxStatusResponse {
            status: Some(status::sandbox_status(&sandbox)),
            info: if request.verbose { status::sandbox_info(&self.0, &sandbox) } else { Default::default() },
            containers_statuses: containers.iter().map(|one| status::container_status(&self.0, one)).collect(),
            timestamp: self.0.now(),
        }))
    }

    async fn list_pod_sandbox(&self, request: Request<ListPodSandboxRequest>) -> Answer<ListPodSandboxResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let items = self.0.sandboxes().into_iter().map(|sandbox| status::sandbox(&sandbox));
        let items = items.filter(|item| status::sandbox_matches(item, &filter)).collect();
        Ok(Response::new(ListPodSandboxResponse { items }))
    }

    async fn create_container(&self, request: Request<CreateContainerRequest>) -> Answer<CreateContainerResponse> {
        let request = request.into_inner();
        let (sandbox, config) = (request.pod_sandbox_id, request.config.unwrap_or_default());
        let work = async move |daemon: Arc<Daemon>| container::create(&daemon, &sandbox, config).await;
        let container_id = self.detached(work).await?;
        Ok(Response::new(CreateContainerResponse { container_id }))
    }

    async fn start_container(&self, request: Request<StartContainerRequest>) -> Answer<StartContainerResponse> {
        let id = request.into_inner().container_id;
        self.detached(async move |daemon: Arc<Daemon>| container::start(&daemon, &id).await).await?;
        Ok(Response::new(StartContainerResponse {}))
    }

    async fn stop_container(&self, request: Request<StopContainerRequest>) -> Answer<StopContainerResponse> {
        let request = request.into_inner();
        // The kubelet takes a container that is gone for stopped, as upstream's runtimes do.
        let container = match self.0.container(&request.container_id) {
            Err(Error::NotFound { .. }) => return Ok(Response::new(StopContainerResponse {})),
            found => found?,
        };
        container::stop(&self.0, &container, seconds(request.timeout)).await?;
        Ok(Response::new(StopContainerResponse {}))
    }

    async fn remove_container(&self, request: Request<RemoveContainerRequest>) -> Answer<RemoveContainerResponse> {
        let container = match self.0.container(&request.into_inner().container_id) {
            Err(Error::NotFound { .. }) => return Ok(Response::new(RemoveContainerResponse {})),
            found => found?,
        };
        self.detached(async move |daemon: Arc<Daemon>| container::remove(&daemon, &container).await).await?;
        Ok(Response::new(RemoveContainerResponse {}))
    }

    async fn list_containers(&self, request: Request<ListContainersRequest>) -> Answer<ListContainersResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let items = self.0.containers().into_iter().map(|container| status::container(&container));
        let containers = items.filter(|item| status::container_matches(item, &filter)).collect();
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn container_status(&self, request: Request<ContainerStatusRequest>) -> Answer<ContainerStatusResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        Ok(Response::new(ContainerStatusResponse {
            status: Some(status::container_status(&self.0, &container)),
            info: if request.verbose { status::container_info(&self.0, &container) } else { Default::default() },
        }))
    }

    async fn update_container_resources(
        &self,
        request: Request<UpdateContainerResourcesRequest>,
    ) -> Answer<UpdateContainerResourcesResponse> {
        let request = request.into_inner();
        let container = self.0.container(&request.container_id)?;
        container::update(&self.0, &container, request.linux.unwrap_or_default()).await?;
        Ok(Response::new(UpdateContainerResourcesResponse {}))
    }

    async fn reopen_container_log(
        &self,
        request: Request<ReopenContainerLogRequest>,
    ) -> Answer<ReopenContainerLogResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        container::reopen_log(&container).await?;
        Ok(Response::new(ReopenContainerLogResponse {}))
    }

    async fn exec_sync(&self, request: Request<ExecSyncRequest>) -> Answer<ExecSyncResponse> {
        let request = request.into_inner();
        let (container, _) = container::running(&self.0, &request.container_id)?;
        let output = exec::run(&self.0, &container, &request.cmd, seconds(request.timeout)).await?;
        Ok(Response::new(ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code }))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Answer<ExecResponse> {
        let request = request.into_inner();
        let (container, _) = container::running(&self.0, &request.container_id)?;
        if request.tty && request.stderr {
            return Err(Status::invalid_argument("tty and stderr cannot both be true"));
        }
        if !(request.stdin || request.stdout || request.stderr) {
            return Err(Status::invalid_argument("one of stdin, stdout, or stderr must be set"));
        }
        let url = streaming::url(&self.0, "exec", Purpose::Exec { container: container.id.clone(), request })?;
        Ok(Response::new(ExecResponse { url }))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Answer<AttachResponse> {
        let request = request.into_inner();
        let (container, _) = container::running(&self.0, &request.container_id)?;
        if request.tty && request.stderr {
            return Err(Status::invalid_argument("tty and stderr cannot both be true"));
        }
        if !(request.stdin || request.stdout || request.stderr) {
            return Err(Status::invalid_argument("one of stdin, stdout, and stderr must be set"));
        }
        let url = streaming::url(&self.0, "attach", Purpose::Attach { container: container.id.clone(), request })?;
        Ok(Response::new(AttachResponse { url }))
    }

    async fn port_forward(&self, request: Request<PortForwardRequest>) -> Answer<PortForwardResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        if !sandbox.is_ready() {
            return Err(Error::State(format!("sandbox container {:?} is not running", sandbox.id)).into());
        }
        let purpose = Purpose::PortForward { sandbox: sandbox.id.clone(), ports: request.port };
        Ok(Response::new(PortForwardResponse { url: streaming::url(&self.0, "portforward", purpose)? }))
    }

    async fn container_stats(&self, request: Request<ContainerStatsRequest>) -> Answer<ContainerStatsResponse> {
        let container = self.0.container(&request.into_inner().container_id)?;
        let stats = stats::container(&self.0, &container).await?;
        Ok(Response::new(ContainerStatsResponse { stats: Some(stats) }))
    }

    async fn list_container_stats(
        &self,
        request: Request<ListContainerStatsRequest>,
    ) -> Answer<ListContainerStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let filter = ContainerFilter {
            id: filter.id,
            pod_sandbox_id: filter.pod_sandbox_id,
            label_selector: filter.label_selector,
            state: None,
        };
        let mut all = Vec::new();
        for container in self.0.containers() {
            if status::container_matches(&status::container(&container), &filter) {
                // One that ended a moment ago has nothing to tell.
                all.extend(stats::container(&self.0, &container).await.ok());
            }
        }
        Ok(Response::new(ListContainerStatsResponse { stats: all }))
    }

    async fn pod_sandbox_stats(&self, request: Request<PodSandboxStatsRequest>) -> Answer<PodSandboxStatsResponse> {
        let sandbox = self.0.sandbox(&request.into_inner().pod_sandbox_id)?;
        let stats = stats::sandbox(&self.0, &sandbox).await?;
        Ok(Response::new(PodSandboxStatsResponse { stats: Some(stats) }))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<ListPodSandboxStatsRequest>,
    ) -> Answer<ListPodSandboxStatsResponse> {
        let filter = request.into_inner().filter.unwrap_or_default();
        let filter = PodSandboxFilter { id: filter.id, label_selector: filter.label_selector, state: None };
        let mut all = Vec::new();
        for sandbox in self.0.sandboxes() {
            if status::sandbox_matches(&status::sandbox(&sandbox), &filter) {
                all.extend(stats::sandbox(&self.0, &sandbox).await.ok());
            }
        }
        Ok(Response::new(ListPodSandboxStatsResponse { stats: all }))
    }

    async fn update_runtime_config(
        &self,
        request: Request<UpdateRuntimeConfigRequest>,
    ) -> Answer<UpdateRuntimeConfigResponse> {
        let config = request.into_inner().runtime_config.unwrap_or_default();
        let pod_cidr = config.network_config.unwrap_or_default().pod_cidr;
        if !pod_cidr.is_empty() {
            self.0
                .network
                .set_pod_cidr(&pod_cidr)
                .await
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
        }
        Ok(Response::new(UpdateRuntimeConfigResponse {}))
    }

    async fn get_container_events(&self, _: Request<GetEventsRequest>) -> Answer<BoxStream<ContainerEventResponse>> {
        let events = BroadcastStream::new(self.0.events.subscribe());
        let events = events.map(|event| event.map_err(|_| Status::data_loss("container events were lost: list again")));
        Ok(Response::new(Box::pin(events)))
    }

    async fn runtime_config(&self, _: Request<RuntimeConfigRequest>) -> Answer<RuntimeConfigResponse> {
        let linux = LinuxRuntimeConfiguration { cgroup_driver: CgroupDriver::Cgroupfs.into() };
        Ok(Response::new(RuntimeConfigResponse { linux: Some(linux) }))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<UpdatePodSandboxResourcesRequest>,
    ) -> Answer<UpdatePodSandboxResourcesResponse> {
        let request = request.into_inner();
        let sandbox = self.0.sandbox(&request.pod_sandbox_id)?;
        sandbox::update(&self.0, &sandbox, request.resources.unwrap_or_default()).await?;
        Ok(Response::new(UpdatePodSandboxResourcesResponse {}))
    }
}
