//! Node selectors and node affinity.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection, normalize_to_max};

pub struct NodeAffinity;

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if rules::required_node_affinity(pod.spec(), node.node()) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> Option<i64> {
        Some(rules::preferred_node_score(pod.spec(), node.node()))
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, false);
    }

    fn weight(&self) -> i64 {
        2
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        event.node().is_some_and(|node| self.filter(pod, node).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{node, pod};

    #[test]
    fn selectors_filter() {
        let check = |zone: &str, fits: bool| {
            let pod = pod(json!({"nodeSelector": {"zone": zone}}));
            assert_eq!(NodeAffinity.filter(&pod, &node(json!({}), json!({}))).is_ok(), fits);
        };
        check("a", true);
        check("b", false);
    }
}
