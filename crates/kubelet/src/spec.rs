//! From a pod to what the runtime is asked for. Pure, but for the files of [`files`].

pub(crate) mod container;
mod dns;
pub(crate) mod files;
pub(crate) mod mounts;
mod resources;
pub(crate) mod sandbox;
mod security;
pub(crate) mod sub_paths;

use std::borrow::Cow;

use k8s_openapi::api::core::v1::{Container, EphemeralContainer, Pod, PodSpec};

pub(crate) use resources::{container_resources, memory_limit, pod_cgroup, pod_limits};

/// Why a container's configuration can't be made; shown as `CreateContainerConfigError`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SpecError {
    #[error(transparent)]
    Environment(#[from] crate::environment::EnvironmentError),
    #[error("container has runAsNonRoot and image will run as root (pod: {pod:?}, container: {container})")]
    ImageRunsAsRoot { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: {pod:?}, container: {container})")]
    UserBreaksPolicy { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: {pod:?}, container: {container})"
    )]
    UserUnknown { user: String, pod: String, container: String },
    #[error("volume {0:?} is not mounted")]
    NoVolume(String),
    #[error("failed to prepare subPath for volumeMount {mount:?} of container {container:?}")]
    SubPath { mount: String, container: String },
}

/// The spec; an API server stores no pod without one.
pub(crate) fn spec(pod: &Pod) -> &PodSpec {
    static NONE: std::sync::OnceLock<PodSpec> = std::sync::OnceLock::new();
    pod.spec.as_ref().unwrap_or_else(|| NONE.get_or_init(PodSpec::default))
}

pub(crate) fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

pub(crate) fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as upstream's messages name pods.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(pod), namespace(pod), uid(pod))
}

pub(crate) fn host_network(pod: &Pod) -> bool {
    spec(pod).host_network == Some(true)
}

pub(crate) fn init_containers(pod: &Pod) -> &[Container] {
    spec(pod).init_containers.as_deref().unwrap_or_default()
}

pub(crate) fn ephemeral_containers(pod: &Pod) -> &[EphemeralContainer] {
    spec(pod).ephemeral_containers.as_deref().unwrap_or_default()
}

/// An ephemeral container in the words of the others.
pub(crate) fn as_container(ephemeral: &EphemeralContainer) -> Container {
    Container {
        args: ephemeral.args.clone(),
        command: ephemeral.command.clone(),
        env: ephemeral.env.clone(),
        env_from: ephemeral.env_from.clone(),
        image: ephemeral.image.clone(),
        image_pull_policy: ephemeral.image_pull_policy.clone(),
        name: ephemeral.name.clone(),
        security_context: ephemeral.security_context.clone(),
        stdin: ephemeral.stdin,
        stdin_once: ephemeral.stdin_once,
        termination_message_path: ephemeral.termination_message_path.clone(),
        termination_message_policy: ephemeral.termination_message_policy.clone(),
        tty: ephemeral.tty,
        volume_mounts: ephemeral.volume_mounts.clone(),
        working_dir: ephemeral.working_dir.clone(),
        ..Container::default()
    }
}

/// Init containers, containers and ephemeral containers.
pub(crate) fn all_containers(pod: &Pod) -> impl Iterator<Item = Cow<'_, Container>> {
    let ephemeral = ephemeral_containers(pod).iter().map(|ephemeral| Cow::Owned(as_container(ephemeral)));
    init_containers(pod).iter().chain(&spec(pod).containers).map(Cow::Borrowed).chain(ephemeral)
}

/// The container called `name`, of whichever sort.
pub(crate) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<Cow<'a, Container>> {
    all_containers(pod).find(|container| container.name == name)
}

/// `spec.containers{web}`, for events.
pub(crate) fn field_path(pod: &Pod, name: &str) -> String {
    let list = if spec(pod).containers.iter().any(|container| container.name == name) {
        "containers"
    } else if init_containers(pod).iter().any(|container| container.name == name) {
        "initContainers"
    } else {
        "ephemeralContainers"
    };
    format!("spec.{list}{{{name}}}")
}
