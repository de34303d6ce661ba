//! The plugins, one file each.

mod balanced_allocation;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_fit;
mod node_unschedulable;
mod scheduling_gates;
mod taint_toleration;

use crate::framework::Plugin;

/// Every plugin, in the order in which nodes are filtered.
pub fn all() -> Vec<Box<dyn Plugin>> {
    vec![
        Box::new(scheduling_gates::SchedulingGates),
        Box::new(node_unschedulable::NodeUnschedulable),
        Box::new(node_name::NodeName),
        Box::new(taint_toleration::TaintToleration),
        Box::new(node_affinity::NodeAffinity),
        Box::new(node_ports::NodePorts),
        Box::new(node_resources_fit::NodeResourcesFit),
        Box::new(balanced_allocation::NodeResourcesBalancedAllocation),
    ]
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::{Value, json};

    use crate::cache::NodeInfo;
    use crate::framework::PodInfo;

    /// A pod with this `spec`.
    pub(crate) fn pod(mut spec: Value) -> PodInfo {
        if spec.get("containers").is_none() {
            spec["containers"] = json!([]);
        }
        let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": spec});
        PodInfo::new(serde_json::from_value(pod).unwrap())
    }

    /// A node called `n1` with these `spec` and `status.allocatable`.
    pub(crate) fn node(spec: Value, allocatable: Value) -> NodeInfo {
        let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}, "spec": spec,
            "status": {"allocatable": allocatable}});
        NodeInfo::new(serde_json::from_value(node).unwrap())
    }
}
