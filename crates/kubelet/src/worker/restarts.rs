//! Which containers are to be run again. Upstream: kubecontainer.ShouldContainerBeRestarted.

use k8s_openapi::api::core::v1::{Container, Pod};

use cri::v1::ContainerState;

use crate::runtime::PodState;
use crate::spec::spec;

/// Whether the container is to be started, now or after a pause.
pub(crate) fn should_restart(pod: &Pod, container: &Container, state: &PodState) -> bool {
    if pod.metadata.deletion_timestamp.is_some() {
        return false;
    }
    let Some(latest) = state.latest(&container.name) else { return true };
    match latest.state() {
        ContainerState::ContainerRunning => false,
        ContainerState::ContainerCreated | ContainerState::ContainerUnknown => true,
        ContainerState::ContainerExited => restarts_after(pod, container, latest.status.exit_code),
    }
}

/// Whether the container runs again after it ended with this code.
pub(crate) fn restarts_after(pod: &Pod, container: &Container, code: i32) -> bool {
    for rule in container.restart_policy_rules.iter().flatten() {
        let Some(codes) = &rule.exit_codes else { continue };
        let listed = codes.values.iter().flatten().any(|value| *value == code);
        let applies = if codes.operator == "NotIn" { !listed } else { listed };
        if applies && rule.action == "Restart" {
            return true;
        }
    }
    match policy(pod, container) {
        "Never" => false,
        "OnFailure" => code != 0,
        _ => true,
    }
}

/// The container's own restart policy, or its pod's.
fn policy<'a>(pod: &'a Pod, container: &'a Container) -> &'a str {
    container.restart_policy.as_deref().or(spec(pod).restart_policy.as_deref()).unwrap_or("Always")
}

/// Whether failures of the pod's containers are tried again at all.
pub(crate) fn restarts_on_failure(pod: &Pod) -> bool {
    spec(pod).restart_policy.as_deref() != Some("Never")
}
