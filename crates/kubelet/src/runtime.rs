//! The runtime as the kubelet sees it: its calls with limits in time, and what it knows of one pod.

mod events;

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use cri::v1::*;
use env::Env;
use tonic::Status;

pub(crate) use events::follow;

/// Labels and annotations that the kubelet finds its sandboxes and containers by.
pub(crate) mod labels {
    pub(crate) const POD_NAME: &str = "io.kubernetes.pod.name";
    pub(crate) const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
    pub(crate) const POD_UID: &str = "io.kubernetes.pod.uid";
    pub(crate) const CONTAINER_NAME: &str = "io.kubernetes.container.name";
    pub(crate) const HASH: &str = "io.kubernetes.container.hash";
    pub(crate) const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
    pub(crate) const MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
    pub(crate) const MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
    pub(crate) const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
}

const LIMIT: Duration = Duration::from_secs(120);

/// The runtime's two services.
#[derive(Clone)]
pub(crate) struct Runtime {
    client: cri::Client,
    env: Env,
}

/// What the runtime knows of a pod; the newest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct PodState {
    pub(crate) sandboxes: Vec<PodSandboxStatus>,
    pub(crate) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Container {
    pub(crate) sandbox: String,
    pub(crate) status: ContainerStatus,
}

impl Container {
    pub(crate) fn id(&self) -> &str {
        &self.status.id
    }

    pub(crate) fn name(&self) -> &str {
        let label = self.status.labels.get(labels::CONTAINER_NAME);
        let metadata = self.status.metadata.as_ref().map(|metadata| &metadata.name);
        label.or(metadata).map(String::as_str).unwrap_or_default()
    }

    pub(crate) fn state(&self) -> ContainerState {
        self.status.state()
    }

    pub(crate) fn is_running(&self) -> bool {
        self.state() == ContainerState::ContainerRunning
    }

    pub(crate) fn is_exited(&self) -> bool {
        self.state() == ContainerState::ContainerExited
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.is_exited() && self.status.exit_code == 0
    }

    pub(crate) fn restart_count(&self) -> i32 {
        let annotated = self.status.annotations.get(labels::RESTART_COUNT).and_then(|count| count.parse().ok());
        let attempt = self.status.metadata.as_ref().map_or(0, |metadata| metadata.attempt);
        annotated.unwrap_or_else(|| i32::try_from(attempt).unwrap_or(i32::MAX))
    }
}

impl PodState {
    /// The newest instance of a container, in whichever sandbox.
    pub(crate) fn latest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name() == name)
    }

    /// The newest instance of a container in the newest sandbox.
    pub(crate) fn current(&self, name: &str) -> Option<&Container> {
        let sandbox = self.sandboxes.first().map(|sandbox| sandbox.id.as_str());
        self.containers.iter().find(|container| container.name() == name && Some(container.sandbox.as_str()) == sandbox)
    }

    pub(crate) fn running(&self) -> impl Iterator<Item = &Container> {
        self.containers.iter().filter(|container| container.is_running())
    }

    /// The newest sandbox, if it is ready.
    pub(crate) fn ready_sandbox(&self) -> Option<&PodSandboxStatus> {
        self.sandboxes.first().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady)
    }

    /// The addresses of the newest sandbox.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        let network = self.ready_sandbox().and_then(|sandbox| sandbox.network.as_ref());
        let all = network.into_iter().flat_map(|network| {
            std::iter::once(&network.ip).chain(network.additional_ips.iter().map(|additional| &additional.ip))
        });
        all.filter_map(|ip| ip.parse().ok()).collect()
    }

    fn sort(&mut self) {
        self.sandboxes.sort_by_key(|sandbox| {
            std::cmp::Reverse((sandbox.created_at, sandbox.metadata.as_ref().map_or(0, |metadata| metadata.attempt)))
        });
        self.containers
            .sort_by_key(|container| std::cmp::Reverse((container.status.created_at, container.restart_count())));
    }
}

/// Makes one call, within a time.
macro_rules! calls {
    ($($(#[$doc:meta])* $service:ident.$name:ident($request:ty) -> $answer:ty;)*) => {
        impl Runtime {$(
            $(#[$doc])*
            pub(crate) async fn $name(&self, request: $request) -> Result<$answer, Status> {
                let mut client = self.client.$service.clone();
                self.within(LIMIT, Box::pin(async move { client.$name(request).await.map(tonic::Response::into_inner) })).await
            }
        )*}
    };
}

calls! {
    runtime.version(VersionRequest) -> VersionResponse;
    runtime.status(StatusRequest) -> StatusResponse;
    runtime.update_runtime_config(UpdateRuntimeConfigRequest) -> UpdateRuntimeConfigResponse;
    runtime.run_pod_sandbox(RunPodSandboxRequest) -> RunPodSandboxResponse;
    runtime.stop_pod_sandbox(StopPodSandboxRequest) -> StopPodSandboxResponse;
    runtime.remove_pod_sandbox(RemovePodSandboxRequest) -> RemovePodSandboxResponse;
    runtime.list_pod_sandbox(ListPodSandboxRequest) -> ListPodSandboxResponse;
    runtime.list_containers(ListContainersRequest) -> ListContainersResponse;
    runtime.create_container(CreateContainerRequest) -> CreateContainerResponse;
    runtime.start_container(StartContainerRequest) -> StartContainerResponse;
    runtime.update_container_resources(UpdateContainerResourcesRequest) -> UpdateContainerResourcesResponse;
    runtime.container_stats(ContainerStatsRequest) -> ContainerStatsResponse;
    runtime.remove_container(RemoveContainerRequest) -> RemoveContainerResponse;
    runtime.container_status(ContainerStatusRequest) -> ContainerStatusResponse;
    runtime.pod_sandbox_status(PodSandboxStatusRequest) -> PodSandboxStatusResponse;
    runtime.exec(ExecRequest) -> ExecResponse;
    runtime.attach(AttachRequest) -> AttachResponse;
    runtime.port_forward(PortForwardRequest) -> PortForwardResponse;
    runtime.reopen_container_log(ReopenContainerLogRequest) -> ReopenContainerLogResponse;
    runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest) -> ListPodSandboxStatsResponse;
    images.image_status(ImageStatusRequest) -> ImageStatusResponse;
    images.list_images(ListImagesRequest) -> ListImagesResponse;
}

impl Runtime {
    pub(crate) fn new(client: cri::Client, env: Env) -> Runtime {
        Runtime { client, env }
    }

    async fn within<T>(&self, limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let late = || Status::deadline_exceeded("context deadline exceeded");
        self.env.timeout(limit, call).await.unwrap_or_else(|| Err(late()))
    }

    /// Asks the container to end, kills it after `grace`, and returns when it has ended.
    pub(crate) async fn stop_container(&self, id: &str, grace: i64) -> Result<(), Status> {
        let mut client = self.client.runtime.clone();
        let request = StopContainerRequest { container_id: id.to_owned(), timeout: grace };
        let limit = LIMIT + Duration::from_secs(u64::try_from(grace).unwrap_or(0));
        self.within(limit, Box::pin(async move { client.stop_container(request).await.map(drop) })).await
    }

    /// Runs a command to its end; `limit` is the command's.
    pub(crate) async fn exec_sync(
        &self,
        id: &str,
        cmd: Vec<String>,
        limit: Option<Duration>,
    ) -> Result<ExecSyncResponse, Status> {
        let mut client = self.client.runtime.clone();
        let timeout = limit.map_or(0, |limit| i64::try_from(limit.as_secs()).unwrap_or(i64::MAX));
        let request = ExecSyncRequest { container_id: id.to_owned(), cmd, timeout };
        let call = Box::pin(async move { client.exec_sync(request).await.map(tonic::Response::into_inner) });
        match limit {
            Some(limit) => self.within(limit + Duration::from_secs(5), call).await,
            None => call.await,
        }
    }

    /// Fetches an image; takes as long as it takes.
    pub(crate) async fn pull_image(&self, request: PullImageRequest) -> Result<String, Status> {
        let mut client = self.client.images.clone();
        Box::pin(client.pull_image(request)).await.map(|answer| answer.into_inner().image_ref)
    }

    pub(crate) async fn container_events(&self) -> Result<tonic::Streaming<ContainerEventResponse>, Status> {
        let mut client = self.client.runtime.clone();
        Box::pin(client.get_container_events(GetEventsRequest {})).await.map(tonic::Response::into_inner)
    }

    /// Every sandbox that a kubelet made.
    pub(crate) async fn sandboxes(&self) -> Result<Vec<PodSandbox>, Status> {
        let all = self.list_pod_sandbox(ListPodSandboxRequest { filter: None }).await?.items;
        Ok(all.into_iter().filter(|sandbox| sandbox.labels.contains_key(labels::POD_UID)).collect())
    }

    /// All about the pod with this uid.
    pub(crate) async fn pod(&self, uid: &str) -> Result<PodState, Status> {
        let label_selector: HashMap<_, _> = [(labels::POD_UID.to_owned(), uid.to_owned())].into();
        let filter = PodSandboxFilter { label_selector: label_selector.clone(), ..Default::default() };
        let sandboxes = self.list_pod_sandbox(ListPodSandboxRequest { filter: Some(filter) }).await?.items;
        let mut state = PodState::default();
        let mut complete = true;
        for sandbox in sandboxes {
            let request = PodSandboxStatusRequest { pod_sandbox_id: sandbox.id.clone(), verbose: false };
            let answer = match self.pod_sandbox_status(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => continue,
                answer => answer?,
            };
            complete &= !answer.containers_statuses.is_empty();
            let of_sandbox = answer.containers_statuses.into_iter();
            state.containers.extend(of_sandbox.map(|status| Container { sandbox: sandbox.id.clone(), status }));
            state.sandboxes.extend(answer.status);
        }
        if !complete {
            // Some runtimes don't tell containers with their sandbox.
            self.add_containers(&mut state, label_selector).await?;
        }
        state.sort();
        Ok(state)
    }

    async fn add_containers(
        &self,
        state: &mut PodState,
        label_selector: HashMap<String, String>,
    ) -> Result<(), Status> {
        let filter = ContainerFilter { label_selector, ..Default::default() };
        let containers = self.list_containers(ListContainersRequest { filter: Some(filter) }).await?.containers;
        for container in containers {
            if state.containers.iter().any(|known| known.id() == container.id) {
                continue;
            }
            let request = ContainerStatusRequest { container_id: container.id, verbose: false };
            match self.container_status(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => {}
                answer => state.containers.extend(
                    answer?.status.map(|status| Container { sandbox: container.pod_sandbox_id.clone(), status }),
                ),
            }
        }
        Ok(())
    }
}
