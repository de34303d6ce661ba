//! A pod that names its node goes there or nowhere.

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let wanted = cycle.pod.node.as_str();
        Ok(if wanted.is_empty() { Prepared::Skip } else { Prepared::Filter(Box::new(Filter(wanted))) })
    }

    fn helps(&self, _: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        matches!(event, ClusterEvent::Node(change) if change.is_added())
    }
}

struct Filter<'a>(&'a str);

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.name() == self.0 {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match the requested node name"))
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
    fn only_the_named_node_fits() {
        let check = |spec, expect: &str| {
            assert_eq!(Try::new(&NodeName, pod(spec)).on(&node(json!({}), json!({}))), expect);
        };
        check(json!({}), "");
        check(json!({"nodeName": "n1"}), "");
        check(json!({"nodeName": "n2"}), "node(s) didn't match the requested node name");
    }
}
