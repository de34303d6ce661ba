//! A pod that names its node fits no other.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection};

pub struct NodeName;

impl Plugin for NodeName {
    fn name(&self) -> &'static str {
        "NodeName"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match pod.spec().node_name.as_deref() {
            None | Some("") => Ok(()),
            Some(name) if name == node.name() => Ok(()),
            Some(_) => Err(Rejection::unresolvable("node(s) didn't match the requested node name")),
        }
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
    fn only_the_named_node_fits() {
        let check = |spec, fits: bool| {
            assert_eq!(NodeName.filter(&pod(spec), &node(json!({}), json!({}))).is_ok(), fits);
        };
        check(json!({}), true);
        check(json!({"nodeName": "n1"}), true);
        check(json!({"nodeName": "n2"}), false);
    }
}
