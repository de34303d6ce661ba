//! A node and the pods on it.

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use rules::{HostPort, NodeLabels, Resources};

pub use common::Common;

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

/// What the node itself says, as far as plugins ask: shared by its states with other pods.
#[derive(Debug, Default)]
pub struct Facts {
    name: Arc<str>,
    /// Sorted by key.
    labels: Box<[Label]>,
    allocatable: Arc<Resources>,
    capacity: i64,
    taints: Vec<Taint>,
    unschedulable: bool,
    /// Name and size of the images that the node has, sorted.
    images: Box<[(Arc<str>, i64)]>,
    /// As the API tells it, if somebody asks.
    whole: Option<Arc<Node>>,
}

/// Key and value.
type Label = (Arc<str>, Arc<str>);

impl Facts {
    fn new(node: &Node, common: &mut Common) -> Facts {
        let allocatable = common.amounts(rules::allocatable(node));
        let labels = node.metadata.labels.iter().flatten();
        let labels = labels.map(|(key, value)| (common.text(key), common.text(value))).collect();
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let images: BTreeMap<&str, i64> = images
            .flat_map(|image| {
                let size = image.size_bytes.unwrap_or_default();
                image.names.iter().flatten().map(move |name| (name.as_str(), size))
            })
            .collect();
        let spec = node.spec.as_ref();
        Facts {
            name: common.text(node.name()),
            labels,
            capacity: allocatable.get("pods"),
            allocatable,
            taints: spec.and_then(|spec| spec.taints.clone()).unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or_default(),
            images: images.into_iter().map(|(name, size)| (common.text(name), size)).collect(),
            whole: None,
        }
    }
}

impl NodeLabels for Facts {
    fn name(&self) -> &str {
        &self.name
    }

    fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|(known, _)| (**known).cmp(key)).ok()?;
        Some(&self.labels[at].1)
    }
}

impl NodeLabels for NodeInfo {
    fn name(&self) -> &str {
        self.facts.name()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.facts.label(key)
    }
}

impl NodeInfo {
    /// A node that isn't known yet, to be [`NodeInfo::set`].
    pub fn in_slot(slot: u32) -> NodeInfo {
        NodeInfo { slot, ..NodeInfo::default() }
    }

    #[cfg(test)]
    pub fn new(node: Node) -> NodeInfo {
        let mut info = NodeInfo::default();
        info.set(&node, &mut Common::default());
        info
    }

    /// Takes in the node's new state; its pods stay.
    pub fn set(&mut self, node: &Node, common: &mut Common) {
        self.facts = Arc::new(Facts::new(node, common));
    }

    /// Keeps the node as the API tells it beside what was just [`NodeInfo::set`].
    pub fn keep_whole(&mut self, node: Node) {
        if let Some(facts) = Arc::get_mut(&mut self.facts) {
            facts.whole = Some(Arc::new(node));
        }
    }

    /// What the node itself says.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// As the API tells it, if it was kept.
    pub fn whole(&self) -> Option<&Node> {
        self.facts.whole.as_deref()
    }

    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// The name, to keep.
    pub fn shared_name(&self) -> &Arc<str> {
        &self.facts.name
    }

    /// Keys and values, sorted.
    pub fn labels(&self) -> &[Label] {
        &self.facts.labels
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.facts.label(key)
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

    /// Name and size of the images that the node has.
    pub fn images(&self) -> &[(Arc<str>, i64)] {
        &self.facts.images
    }

    /// The size of an image, if the node has it.
    pub fn image(&self, name: &str) -> Option<i64> {
        let at = self.images().binary_search_by(|(known, _)| (**known).cmp(name)).ok()?;
        Some(self.images()[at].1)
    }

    /// In the order in which they came.
    pub fn pods(&self) -> &[Arc<PodInfo>] {
        &self.pods
    }

    /// The host ports that its pods take.
    pub fn ports(&self) -> &[HostPort] {
        &self.ports
    }

    /// Puts the pod on this node, in place of an earlier state of it: snapshots compare pods by their places.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        let Some(at) = self.find(&pod.uid) else { return self.put(pod) };
        if Arc::ptr_eq(&self.pods[at].template, &pod.template) {
            self.pods[at] = pod;
        } else {
            self.take(at);
            self.put(pod);
            self.pods[at..].rotate_right(1);
        }
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
        let at = self.find(uid)?;
        Some(self.take(at))
    }

    /// The pod, if it is here.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        self.find(uid).map(|at| &self.pods[at])
    }

    /// Mostly something happens to those that came last.
    fn find(&self, uid: &str) -> Option<usize> {
        self.pods.iter().rposition(|pod| pod.uid == uid)
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
