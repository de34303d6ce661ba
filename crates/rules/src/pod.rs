//! A pod's state, read from its status. Upstream: pkg/api/v1/pod.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};

/// Since when the pod's `Ready` condition is true.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_deref()?;
    let ready = conditions.iter().find(|c| c.type_ == "Ready" && c.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0))
}

/// Whether the `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the pod has been ready for `min_ready` at `now`.
pub fn is_available(pod: &Pod, min_ready: Duration, now: Timestamp) -> bool {
    ready_since(pod).is_some_and(|since| {
        min_ready.is_zero() || since.checked_add(min_ready).is_ok_and(|available| available <= now)
    })
}

/// Whether all containers have ended for good.
pub fn is_terminal(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether the pod is being deleted.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Whether an init container keeps running beside the others.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// The status of the container (of any sort) called `name`.
pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    let all = [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses];
    all.into_iter().flatten().flatten().find(|status| status.name == name)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(ready: &str) -> Pod {
        serde_json::from_value(json!({"status": {"phase": "Running", "conditions":
            [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:10Z"}]}}))
        .unwrap()
    }

    #[test]
    fn availability_takes_time() {
        let at =
            |second: i64| "2026-01-01T00:00:10Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second as u64);
        let check = |ready: &str, min: u64, second: i64, expect: bool| {
            assert_eq!(is_available(&pod(ready), Duration::from_secs(min), at(second)), expect);
        };
        check("True", 0, 0, true);
        check("True", 10, 9, false);
        check("True", 10, 10, true);
        check("False", 0, 10, false);
        assert!(is_ready(&pod("True")) && !is_ready(&pod("Unknown")) && !is_ready(&Pod::default()));
        assert!(!is_terminal(&pod("True")));
    }
}
