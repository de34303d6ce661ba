//! A node and the pods on it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use rules::{HostPort, Resources};

use crate::pod::PodInfo;

/// A node, the pods on it (those assumed among them) and what they take.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    facts: Arc<Facts>,
    /// Its place in the tables that the snapshot's indexes are.
    pub slot: u32,
    requested: Resources,
    /// Like `requested`, with least amounts for pods that request nothing.
    scored_requests: Resources,
    pods: Vec<Arc<PodInfo>>,
    ports: Vec<HostPort>,
}

/// What the node itself says: shared by its states with other pods.
#[derive(Debug, Default)]
struct Facts {
    node: Arc<Node>,
    allocatable: Resources,
    capacity: i64,
    taints: Vec<Taint>,
    unschedulable: bool,
    /// Size by name, of the images that the node has.
    images: HashMap<String, i64>,
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
        let allocatable = rules::allocatable(&node);
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let names = images.flat_map(|image| {
            let size = image.size_bytes.unwrap_or_default();
            image.names.iter().flatten().map(move |name| (name.clone(), size))
        });
        self.facts = Arc::new(Facts {
            images: names.collect(),
            capacity: allocatable.get("pods"),
            allocatable,
            taints: node.spec.as_ref().and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default(),
            node: Arc::new(node),
        });
    }

    /// Forgets of a status just [`NodeInfo::set`] what plugins don't ask for.
    pub fn forget_status(&mut self) {
        if let Some(node) = Arc::get_mut(&mut self.facts).and_then(|facts| Arc::get_mut(&mut facts.node)) {
            node.status = None;
        }
    }

    pub fn node(&self) -> &Arc<Node> {
        &self.facts.node
    }

    pub fn name(&self) -> &str {
        self.facts.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.facts.node.metadata.labels.as_ref().unwrap_or(&NONE)
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels().get(key).map(String::as_str)
    }

    pub fn taints(&self) -> &[Taint] {
        &self.facts.taints
    }

    pub fn unschedulable(&self) -> bool {
        self.facts.unschedulable
    }

    pub fn allocatable(&self) -> &Resources {
        &self.facts.allocatable
    }

    /// How many pods it takes.
    pub fn capacity(&self) -> i64 {
        self.facts.capacity
    }

    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    pub fn scored_requests(&self) -> &Resources {
        &self.scored_requests
    }

    pub fn images(&self) -> &HashMap<String, i64> {
        &self.facts.images
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
        self.put(pod);
    }

    /// Puts a pod on this node that isn't there.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.scored_requests.add(&pod.scored_requests);
        self.ports.extend(pod.ports.iter().cloned());
        self.pods.push(pod);
    }

    /// Takes the pod off this node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let at = self.pods.iter().position(|pod| pod.uid == uid)?;
        Some(self.take(at))
    }

    /// Takes off the pod that was put there last.
    pub fn pop(&mut self) {
        if let Some(last) = self.pods.len().checked_sub(1) {
            self.take(last);
        }
    }

    /// Takes off the pod at this place in [`NodeInfo::pods`].
    pub fn take(&mut self, at: usize) -> Arc<PodInfo> {
        let pod = self.pods.remove(at);
        self.requested.subtract(&pod.requests);
        self.scored_requests.subtract(&pod.scored_requests);
        // As upstream's: of two that were put on one port past the scheduler, the first that leaves frees it.
        self.ports.retain(|used| !pod.ports.contains(used));
        pod
    }

    /// What other nodes' states must not differ in for pods to be placed alike: labels, taints, capacity, cordon.
    pub fn same_for_pods(&self, other: &NodeInfo) -> bool {
        Arc::ptr_eq(&self.facts, &other.facts)
            || self.allocatable() == other.allocatable()
                && self.labels() == other.labels()
                && self.taints() == other.taints()
                && self.unschedulable() == other.unschedulable()
    }
}
