//! A host port goes to one pod of a node only.

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection};

pub struct NodePorts;

impl Plugin for NodePorts {
    fn name(&self) -> &'static str {
        "NodePorts"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        let taken = |port| node.pods().any(|other| other.ports.iter().any(|used| rules::conflicts(port, used)));
        if pod.ports.iter().any(taken) {
            return Err(Rejection::because("node(s) didn't have free ports for the requested pod ports"));
        }
        Ok(())
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        match event {
            ClusterEvent::NodeAdded(_) => true,
            ClusterEvent::NodeChanged { .. } => false,
            ClusterEvent::PodRemoved(gone) => {
                gone.ports.iter().any(|freed| pod.ports.iter().any(|wanted| rules::conflicts(wanted, freed)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{node, pod};

    #[test]
    fn a_host_port_is_taken_once() {
        let with_port =
            |port: i32| pod(json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]}));
        let mut node = node(json!({}), json!({}));
        assert!(NodePorts.filter(&with_port(80), &node).is_ok());
        node.add(Arc::new(with_port(80)));
        assert!(NodePorts.filter(&with_port(80), &node).is_err());
        assert!(NodePorts.filter(&with_port(81), &node).is_ok());
        let freed = ClusterEvent::PodRemoved(Arc::new(with_port(80)));
        assert!(NodePorts.helps(&with_port(80), &freed) && !NodePorts.helps(&with_port(81), &freed));
    }
}
