//! A host port goes to one pod of a node only.

use rules::HostPort;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let ports = cycle.pod.ports.as_slice();
        Ok(if ports.is_empty() { Prepared::Skip } else { Prepared::Filter(Box::new(Filter(ports))) })
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Node(change) => change.is_added(),
            ClusterEvent::Pod(change) if change.is_removed() => {
                change.old.iter().any(|gone| collide(&pod.ports, &gone.ports))
            }
            _ => false,
        }
    }
}

fn collide(wanted: &[HostPort], used: &[HostPort]) -> bool {
    wanted.iter().any(|port| used.iter().any(|other| rules::conflicts(port, other)))
}

struct Filter<'a>(&'a [HostPort]);

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if collide(self.0, node.ports()) {
            return Err(Rejection::because("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::framework::Change;
    use crate::plugins::tests::{Try, node, pod};

    #[test]
    fn a_host_port_is_taken_once() {
        let with_port =
            |port: i32| pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]}));
        let mut node = node(json!({}), json!({}));
        let check = |port, node: &NodeInfo, expect: &str| {
            assert_eq!(Try::new(&NodePorts, with_port(port)).on(node), expect);
        };
        check(80, &node, "");
        node.add(Arc::new(with_port(80)));
        check(80, &node, "node(s) didn't have free ports for the requested pod ports");
        check(81, &node, "");
        let freed = ClusterEvent::Pod(Change::removed(Arc::new(with_port(80))));
        let helps = |port| NodePorts.helps(&with_port(port), &freed, &Cluster::default());
        assert!(helps(80) && !helps(81));
    }
}
