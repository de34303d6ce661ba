//! Pods with scheduling gates wait until the last one is removed.

use crate::framework::{ClusterEvent, Plugin, PodInfo};

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        let gates: Vec<&str> = pod.spec().scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
        if gates.is_empty() { Ok(()) } else { Err(format!("waiting for scheduling gates: [{}]", gates.join(" "))) }
    }

    fn helps(&self, _: &PodInfo, _: &ClusterEvent) -> bool {
        // Only an update of the pod itself removes a gate.
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::pod;

    #[test]
    fn gates_hold_a_pod_back() {
        assert_eq!(SchedulingGates.pre_enqueue(&pod(json!({}))), Ok(()));
        let gated = pod(json!({"schedulingGates": [{"name": "a"}, {"name": "b"}]}));
        assert_eq!(SchedulingGates.pre_enqueue(&gated).unwrap_err(), "waiting for scheduling gates: [a b]");
    }
}
