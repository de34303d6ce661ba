//! A node must have what a pod requests, and the emptier one is preferred.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, MAX_SCORE, Plugin, PodInfo, Rejection};

pub struct NodeResourcesFit;

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let mut reasons = Vec::new();
        // Even an empty node has not enough.
        let mut unresolvable = false;
        if node.pods().count() as i64 + 1 > node.allocatable().get("pods") {
            reasons.push("Too many pods".to_owned());
        }
        let others = pod.requests.others.keys().map(String::as_str);
        for name in ["cpu", "memory", "ephemeral-storage"].into_iter().chain(others) {
            let (wanted, all) = (pod.requests.get(name), node.allocatable().get(name));
            if wanted > 0 && wanted > all - node.requested().get(name) {
                reasons.push(format!("Insufficient {name}"));
                unresolvable |= wanted > all;
            }
        }
        if reasons.is_empty() { Ok(()) } else { Err(Rejection { reasons, unresolvable }) }
    }

    /// The free share of CPU and memory, in percent.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> Option<i64> {
        let free = |name: &str| {
            let all = node.allocatable().get(name);
            let used = node.scored_requests().get(name) + pod.scored_requests.get(name);
            if all == 0 || used > all { 0 } else { (all - used) * MAX_SCORE / all }
        };
        Some((free("cpu") + free("memory")) / 2)
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(node) => self.filter(pod, node).is_ok(),
            ClusterEvent::NodeChanged { old, new } => {
                old.allocatable() != new.allocatable() && self.filter(pod, new).is_ok()
            }
            // Its place among the node's pods is free at least.
            ClusterEvent::PodRemoved(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{node, pod};

    fn asking(cpu: &str, memory: &str) -> PodInfo {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    #[test]
    fn what_is_taken_is_missing() {
        let mut node = node(json!({}), json!({"cpu": "2", "memory": "1Gi", "pods": "2"}));
        let check = |pod: PodInfo, node: &NodeInfo, reasons: &[&str]| match NodeResourcesFit.filter(&pod, node) {
            Ok(()) => assert!(reasons.is_empty(), "{reasons:?}"),
            Err(rejection) => assert_eq!(rejection.reasons, reasons),
        };
        check(asking("2", "1Gi"), &node, &[]);
        check(asking("2001m", "2Gi"), &node, &["Insufficient cpu", "Insufficient memory"]);
        node.add(Arc::new(asking("1500m", "1Mi")));
        check(asking("500m", "1Mi"), &node, &[]);
        check(asking("501m", "1Mi"), &node, &["Insufficient cpu"]);
        let mut full = crate::plugins::tests::node(json!({}), json!({"cpu": "2", "memory": "1Gi", "pods": "1"}));
        full.add(Arc::new(pod(json!({}))));
        check(pod(json!({})), &full, &["Too many pods"]);
    }

    #[test]
    fn the_emptier_node_scores_higher() {
        let empty = node(json!({}), json!({"cpu": "4", "memory": "4Gi", "pods": "110"}));
        let mut busy = empty.clone();
        busy.add(Arc::new(asking("2", "2Gi")));
        let score = |node| NodeResourcesFit.score(&asking("1", "1Gi"), node).unwrap();
        assert_eq!((score(&empty), score(&busy)), (75, 25));
    }
}
