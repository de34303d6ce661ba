//! Cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection};

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        if !node.unschedulable() {
            return Ok(());
        }
        let taint =
            Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
        let tolerations = pod.spec().tolerations.as_deref().unwrap_or_default();
        if tolerations.iter().any(|toleration| rules::tolerates(toleration, &taint)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) were unschedulable"))
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
    fn cordoned_nodes_are_left_out() {
        let cordoned = node(json!({"unschedulable": true}), json!({}));
        let rejection = NodeUnschedulable.filter(&pod(json!({})), &cordoned).unwrap_err();
        assert_eq!(rejection, Rejection::unresolvable("node(s) were unschedulable"));
        let tolerant = pod(json!({"tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]}));
        assert!(NodeUnschedulable.filter(&tolerant, &cordoned).is_ok());
        assert!(NodeUnschedulable.filter(&pod(json!({})), &node(json!({}), json!({}))).is_ok());
    }
}
