//! Pods with scheduling gates wait until the last one is removed.

use crate::framework::Plugin;
use crate::pod::PodInfo;

pub struct SchedulingGates;

impl Plugin for SchedulingGates {
    fn name(&self) -> &'static str {
        "SchedulingGates"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        if pod.gates.is_empty() {
            return Ok(());
        }
        Err(format!("waiting for scheduling gates: [{}]", pod.gates.join(" ")))
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
