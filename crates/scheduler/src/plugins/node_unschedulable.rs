//! Cordoned nodes take only pods that tolerate it.

use k8s_openapi::api::core::v1::Taint;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeUnschedulable;

impl Plugin for NodeUnschedulable {
    fn name(&self) -> &'static str {
        "NodeUnschedulable"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        // One that tolerates it has nothing to fear on any node.
        Ok(if tolerates(cycle.pod) { Prepared::Skip } else { Prepared::Filter(Box::new(Filter)) })
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Node(change) => {
                let cordoned = |node: &NodeInfo| node.unschedulable();
                change.new.as_deref().is_some_and(|node| !cordoned(node)) && change.old.as_deref().is_none_or(cordoned)
            }
            ClusterEvent::Own(_) => tolerates(pod),
            _ => false,
        }
    }
}

fn tolerates(pod: &PodInfo) -> bool {
    let taint =
        Taint { key: "node.kubernetes.io/unschedulable".into(), effect: "NoSchedule".into(), ..Taint::default() };
    pod.tolerations.iter().any(|toleration| rules::tolerates(toleration, &taint))
}

struct Filter;

impl NodeFilter for Filter {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.unschedulable() { Err(Rejection::unresolvable("node(s) were unschedulable")) } else { Ok(()) }
    }

    fn by_pods(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, node, pod};

    #[test]
    fn cordoned_nodes_are_left_out() {
        let check = |pod_spec: serde_json::Value, node_spec: serde_json::Value, expect: &str| {
            let answer = Try::new(&NodeUnschedulable, pod(pod_spec)).on(&node(node_spec, json!({})));
            assert_eq!(answer, expect);
        };
        check(json!({}), json!({"unschedulable": true}), "node(s) were unschedulable");
        check(json!({}), json!({}), "");
        let tolerations = json!([{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}]);
        check(json!({"tolerations": tolerations}), json!({"unschedulable": true}), "");
    }
}
