//! What the plugins' tests share.

use std::sync::Arc;

use apimachinery::ObjectKey;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::framework::{Cycle, Plugin, Prepared};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::storage::{Claim, Volume};

/// A pod with this `spec`.
pub(crate) fn pod(spec: Value) -> PodInfo {
    labelled("", spec)
}

/// A pod with the label `app`, if it isn't empty.
pub(crate) fn labelled(app: &str, mut spec: Value) -> PodInfo {
    if spec.get("containers").is_none() {
        spec["containers"] = json!([]);
    }
    let labels = if app.is_empty() { json!({}) } else { json!({"app": app}) };
    let pod = json!({"metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": labels}, "spec": spec});
    PodInfo::new(&serde_json::from_value(pod).unwrap())
}

/// A node called `n1` in zone `a`.
pub(crate) fn node(spec: Value, allocatable: Value) -> NodeInfo {
    let node = json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}, "spec": spec,
        "status": {"allocatable": allocatable}});
    NodeInfo::new(serde_json::from_value(node).unwrap())
}

/// A node in the zone of its own name.
pub(crate) fn named(name: &str, spec: Value) -> NodeInfo {
    let node = json!({"metadata": {"name": name, "labels": {"zone": name}}, "spec": spec});
    NodeInfo::new(serde_json::from_value(node).unwrap())
}

/// A node in a zone (empty: in none), with its name as the label `host`.
pub(crate) fn on_node(name: &str, zone: &str) -> NodeInfo {
    let mut labels = json!({"host": name});
    if !zone.is_empty() {
        labels["zone"] = json!(zone);
    }
    let node = json!({"metadata": {"name": name, "labels": labels}});
    NodeInfo::new(serde_json::from_value(node).unwrap())
}

/// Puts a claim into the namespace of the tests' pods.
pub(crate) fn claim(cluster: &Cluster, name: &str, spec: Value, annotations: Value) {
    let claim =
        json!({"metadata": {"name": name, "namespace": "ns", "uid": name, "annotations": annotations}, "spec": spec});
    cluster.claims.set(ObjectKey::new("ns", name), Arc::new(Claim::of(claim)), 1);
}

pub(crate) fn volume(cluster: &Cluster, name: &str, spec: Value, labels: Value) {
    let volume = json!({"metadata": {"name": name, "labels": labels}, "spec": spec, "status": {"phase": "Available"}});
    cluster.volumes.set(ObjectKey::cluster(name), Arc::new(Volume::of(volume)), 1);
}

/// Asks one plugin about one pod.
pub(crate) struct Try<'p> {
    plugin: &'p dyn Plugin,
    pod: Arc<PodInfo>,
    pub cluster: Arc<Cluster>,
    snapshot: Snapshot,
}

impl<'p> Try<'p> {
    pub fn new(plugin: &'p dyn Plugin, pod: PodInfo) -> Try<'p> {
        Try { plugin, pod: Arc::new(pod), cluster: Arc::default(), snapshot: Snapshot::default() }
    }

    pub fn new_on(plugin: &'p dyn Plugin, pod: PodInfo, nodes: &[NodeInfo]) -> Try<'p> {
        let mut tried = Try::new(plugin, pod);
        tried.know(nodes.iter());
        tried
    }

    fn know<'n>(&mut self, nodes: impl Iterator<Item = &'n NodeInfo>) {
        for node in nodes {
            let mut node = node.clone();
            node.slot = self.snapshot.get(node.name()).map_or(self.snapshot.slots() as u32, |known| known.slot);
            self.snapshot.update(vec![(node.shared_name().clone(), Some(Arc::new(node)))]);
        }
    }

    fn cycle(&self) -> Cycle<'_> {
        Cycle { pod: &self.pod, snapshot: &self.snapshot, cluster: &self.cluster }
    }

    /// The reasons against the node, if any, in a cluster of this node.
    pub fn on(&mut self, node: &NodeInfo) -> String {
        self.know([node].into_iter());
        self.on_known(node.name())
    }

    /// The same for a node that is known.
    pub fn on_known(&mut self, name: &str) -> String {
        let node = self.snapshot.get(name).unwrap();
        let answer = match self.plugin.pre_filter(self.cycle()) {
            Ok(Prepared::Skip) => Ok(()),
            Ok(Prepared::Among(names, _)) if !names.contains(name) => return "not among".into(),
            Ok(Prepared::Filter(filter) | Prepared::Among(_, filter)) => filter.filter(node),
            Err(rejection) => Err(rejection),
        };
        answer.err().map(|rejection| rejection.message()).unwrap_or_default()
    }

    /// The reasons against `name`, supposing that the pod on `at` is gone.
    pub fn without(&mut self, name: &str, at: &str, gone: &PodInfo) -> String {
        let Ok(Prepared::Filter(filter)) = self.plugin.pre_filter(self.cycle()) else { panic!("it filters") };
        let mut fork = filter.fork().expect("suppositions matter");
        fork.remove(gone, self.snapshot.get(at).unwrap());
        let node = self.snapshot.get(name).unwrap();
        fork.filter(node).err().map(|rejection| rejection.message()).unwrap_or_default()
    }

    /// The normalised scores; none if the plugin doesn't score this pod.
    pub fn scores(&mut self, nodes: &[&NodeInfo]) -> Vec<i64> {
        // Nodes of one name are compared one by one, each in a cluster of its own: normalisation doesn't matter then.
        let names: std::collections::BTreeSet<&str> = nodes.iter().map(|node| node.name()).collect();
        if names.len() == nodes.len() {
            self.know(nodes.iter().copied());
            return self.scores_of(&nodes.iter().map(|node| node.name()).collect::<Vec<_>>());
        }
        let one = |node: &&NodeInfo| {
            self.know([*node].into_iter());
            self.scores_of(&[node.name()])
        };
        nodes.iter().flat_map(one).collect()
    }

    /// The same for all known nodes, in the order of their slots.
    pub fn scores_known(&mut self) -> Vec<i64> {
        let slots = 0..self.snapshot.slots() as u32;
        let names: Vec<&str> = slots.filter_map(|slot| self.snapshot.slot(slot)).map(NodeInfo::name).collect();
        self.scores_of(&names)
    }

    fn scores_of(&self, names: &[&str]) -> Vec<i64> {
        let nodes: Vec<&NodeInfo> = names.iter().map(|name| self.snapshot.get(name).unwrap()).collect();
        let Some(scorer) = self.plugin.pre_score(self.cycle(), &nodes) else { return Vec::new() };
        let mut scores: Vec<i64> = nodes.iter().map(|node| scorer.score(node)).collect();
        scorer.normalize(&mut scores, &nodes);
        scores
    }
}
