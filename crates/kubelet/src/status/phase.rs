//! A pod's phase. Upstream: kubelet_pods.go getPhase.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::containers::Lists;
use crate::spec::{init_containers, spec};
use crate::worker::restarts::restarts_after;

/// Whether nothing comes after this phase.
pub(crate) fn is_final(phase: &str) -> bool {
    matches!(phase, "Succeeded" | "Failed")
}

/// What a container's status counts as.
enum Stage {
    Unknown,
    Waiting,
    Running,
    /// It ended with this code, and may wait to be run again.
    Stopped(i32),
}

fn stage(status: Option<&ContainerStatus>) -> Stage {
    let Some(status) = status else { return Stage::Unknown };
    match &status.state {
        Some(ContainerState { running: Some(_), .. }) => Stage::Running,
        Some(ContainerState { terminated: Some(end), .. }) => Stage::Stopped(end.exit_code),
        Some(ContainerState { waiting: Some(_), .. }) => {
            let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            last.map_or(Stage::Waiting, |end| Stage::Stopped(end.exit_code))
        }
        _ => Stage::Unknown,
    }
}

/// The phase that the containers' statuses make; `ended` if none of them comes again.
pub(crate) fn phase(pod: &Pod, lists: &Lists, ended: bool) -> &'static str {
    let spec = spec(pod);
    let init = |name: &str| lists.init.iter().find(|status| status.name == name);
    let (mut pending, mut pending_sidecars, mut failed) = (0, 0, 0);
    let (mut unknown, mut running, mut waiting) = (0, 0, 0);
    let (mut stopped, mut succeeded, mut restarting) = (0, 0, 0);
    for container in init_containers(pod) {
        let status = init(&container.name);
        if rules::is_sidecar(container) {
            match stage(status) {
                Stage::Running => {
                    running += 1;
                    pending_sidecars += usize::from(status.is_none_or(|status| status.started != Some(true)));
                }
                Stage::Waiting => {
                    pending_sidecars += 1;
                    waiting += 1;
                }
                Stage::Unknown => {
                    pending_sidecars += 1;
                    unknown += 1;
                }
                Stage::Stopped(_) => {}
            }
            continue;
        }
        match stage(status) {
            Stage::Stopped(0) => {}
            Stage::Stopped(_) => failed += 1,
            Stage::Unknown | Stage::Running | Stage::Waiting => pending += 1,
        }
    }
    for container in &spec.containers {
        match stage(lists.containers.iter().find(|status| status.name == container.name)) {
            Stage::Unknown => unknown += 1,
            Stage::Running => running += 1,
            Stage::Waiting => waiting += 1,
            Stage::Stopped(code) => {
                stopped += 1;
                succeeded += usize::from(code == 0);
                restarting += usize::from(!ended && restarts_after(pod, container, code));
            }
        }
    }
    if failed > 0 && spec.restart_policy.as_deref() == Some("Never") {
        return "Failed";
    }
    let initialized = lists.containers.iter().any(has_started);
    if pending > 0 || failed > 0 && !initialized && !ended || pending_sidecars > 0 && !initialized || waiting > 0 {
        return "Pending";
    }
    match (running > 0, stopped > 0, unknown == 0) {
        (true, _, true) => "Running",
        (false, true, true) if restarting > 0 => "Running",
        (false, true, true) if stopped == succeeded => "Succeeded",
        (false, true, true) => "Failed",
        _ => "Pending",
    }
}

/// Whether the container runs or ran.
pub(super) fn has_started(status: &ContainerStatus) -> bool {
    let ran = |state: &Option<ContainerState>| {
        state.as_ref().is_some_and(|state| state.running.is_some() || state.terminated.is_some())
    };
    ran(&status.state) || ran(&status.last_state)
}
