//! A node and the pods on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use rules::{HostPort, Resources};

use crate::pod::PodInfo;

/// A node, the pods on it (those assumed among them) and what they take.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    node: Arc<Node>,
    /// Its place in the tables that the snapshot's indexes are.
    pub slot: u32,
    allocatable: Resources,
    /// How many pods it takes.
    pub capacity: i64,
    requested: Resources,
    /// Like `requested`, with least amounts for pods that request nothing.
    scored_requests: Resources,
    pods: Vec<Arc<PodInfo>>,
    ports: Vec<HostPort>,
    /// Size by name, of the images that the node has.
    images: Arc<HashMap<String, i64>>,
}

impl NodeInfo {
    /// A node that isn't known yet, to be [`NodeInfo::set`].
    pub fn in_slot(slot: u32) -> NodeInfo {
        NodeInfo { slot, ..NodeInfo::default() }
    }

    #[cfg(test)]
    pub fn new(node: Node) -> NodeInfo {
        let mut info = NodeInfo::default();
        info.set(node);
        info
    }

    /// Takes in the node's new state; its pods stay.
    pub fn set(&mut self, node: Node) {
        self.allocatable = rules::allocatable(&node);
        self.capacity = self.allocatable.get("pods");
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let names = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        self.images = Arc::new(names.collect());
        self.node = Arc::new(node);
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    pub fn unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default()
    }

    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    pub fn scored_requests(&self) -> &Resources {
        &self.scored_requests
    }

    pub fn images(&self) -> &HashMap<String, i64> {
        &self.images
    }

    /// In the order in which they came.
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.pods
    }

    /// The host ports that its pods take.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    /// Puts the pod on this node, in place of an earlier state of it.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(&pod.uid);
        self.requested.add(&pod.requests);
        self.scored_requests.add(&pod.scored_requests);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes the pod off this node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid == uid)?;
        let pod = self.pods.remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_requests.subtract(&pod.scored_requests);
        // As upstream's: of two that were put on one port past the scheduler, the first that leaves frees it.
        self.ports.retain(|used| !pod.ports.contains(used));
        Some(pod)
    }

    /// What other nodes' states must not differ in for pods to be placed alike: labels, taints, capacity, cordon.
    pub fn same_for_pods(&self, other: &NodeInfo) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
            || self.allocatable == other.allocatable
                && self.labels() == other.labels()
                && self.taints() == other.taints()
                && self.unschedulable() == other.unschedulable()
    }
}
