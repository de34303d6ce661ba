//! Nodes whose CPU and memory would be used alike are preferred.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, PodInfo};

pub struct NodeResourcesBalancedAllocation;

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> Option<i64> {
        // Upstream leaves pods without requests out: they balance nothing.
        if pod.requests.milli_cpu == 0 && pod.requests.memory == 0 {
            return Some(0);
        }
        let fraction = |name: &str| {
            let all = node.allocatable().get(name) as f64;
            let used = (node.requested().get(name) + pod.requests.get(name)) as f64;
            if all == 0.0 { 1.0 } else { (used / all).min(1.0) }
        };
        let spread = (fraction("cpu") - fraction("memory")).abs() / 2.0;
        Some(((1.0 - spread) * MAX_SCORE as f64) as i64)
    }

    fn helps(&self, _: &PodInfo, _: &ClusterEvent) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{node, pod};

    #[test]
    fn even_use_scores_highest() {
        let node = node(json!({}), json!({"cpu": "4", "memory": "4Gi"}));
        let score = |cpu: &str, memory: &str| {
            let pod =
                pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}));
            NodeResourcesBalancedAllocation.score(&pod, &node)
        };
        assert_eq!(score("2", "2Gi"), Some(100));
        assert_eq!(score("4", "0"), Some(50));
    }
}
