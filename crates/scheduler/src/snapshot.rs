//! The nodes as one attempt sees them, and indexes over the pods on them. Only what changed is taken over between attempts.

mod groups;
mod index;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use index::Index;
pub use index::{Namespaces, Query, TermUse, Topology};

use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// All nodes. A node keeps its slot for as long as it exists; tables of the indexes are ordered by slot.
#[derive(Default)]
pub struct Snapshot {
    slots: Vec<Option<Arc<NodeInfo>>>,
    by_name: HashMap<Arc<str>, u32>,
    /// The order in which nodes are tried: zones in turn.
    order: Vec<u32>,
    index: Index,
    /// How many nodes have an image, by its name.
    images: HashMap<String, usize>,
    /// How many pods use a claim, by `namespace/name`.
    claims: HashMap<String, usize>,
}

impl Snapshot {
    /// Takes over nodes that changed, came or (`None`) went.
    pub fn update(&mut self, changes: Vec<(Arc<str>, Option<Arc<NodeInfo>>)>) {
        let mut reorder = false;
        // First those whose slots others may have by now.
        for (name, node) in &changes {
            if let Some(slot) = self.by_name.get(name).copied()
                && node.as_ref().is_none_or(|node| node.slot != slot)
            {
                self.by_name.remove(name);
                reorder |= self.replace(slot, None);
            }
        }
        for (name, node) in changes {
            let Some(node) = node else { continue };
            let slot = node.slot;
            self.slots.resize(self.slots.len().max(slot as usize + 1), None);
            self.by_name.insert(name, slot);
            reorder |= self.replace(slot, Some(node));
        }
        if reorder {
            self.reorder();
        }
    }

    /// Puts a node's new state into a slot; whether the order of nodes depends on what changed.
    fn replace(&mut self, slot: u32, new: Option<Arc<NodeInfo>>) -> bool {
        let old = std::mem::replace(&mut self.slots[slot as usize], new.clone());
        let (old, new) = (old.as_deref(), new.as_deref());
        self.count_images(old, new);
        let (gone, came) = difference(old, new);
        for at in 0..gone.len().max(came.len()) {
            let (gone, came) = (gone.get(at), came.get(at));
            if !gone.zip(came).is_some_and(|(gone, came)| counted_alike(gone, came)) {
                gone.into_iter().for_each(|pod| self.count(slot, pod, -1));
                came.into_iter().for_each(|pod| self.count(slot, pod, 1));
            }
        }
        self.index.relabel(slot, old, new);
        old.map(zone) != new.map(zone)
    }

    /// Counts a pod that came to (`by` 1) or left (-1) the node in `slot`.
    fn count(&mut self, slot: u32, pod: &Arc<PodInfo>, by: isize) {
        for claim in pod.named_claims() {
            add(&mut self.claims, &format!("{}/{claim}", pod.key.namespace), by);
        }
        self.index.count(slot, pod, by as i64);
    }

    fn count_images(&mut self, old: Option<&NodeInfo>, new: Option<&NodeInfo>) {
        let images = |node: Option<&NodeInfo>| node.map(|node| std::ptr::from_ref(node.images()));
        if images(old) == images(new) {
            return;
        }
        for (node, by) in [(old, -1), (new, 1)] {
            for (name, _) in node.into_iter().flat_map(NodeInfo::images) {
                add(&mut self.images, name, by);
            }
        }
    }

    /// Takes nodes of different zones in turn, so that a search that ends early has looked at all zones.
    fn reorder(&mut self) {
        let mut zones: BTreeMap<(&str, &str), Vec<(&str, u32)>> = BTreeMap::new();
        for node in self.slots.iter().flatten() {
            zones.entry(zone(node)).or_default().push((node.name(), node.slot));
        }
        for nodes in zones.values_mut() {
            nodes.sort_unstable();
        }
        let longest = zones.values().map(Vec::len).max().unwrap_or_default();
        let order = (0..longest).flat_map(|i| zones.values().filter_map(move |nodes| nodes.get(i)));
        let order = order.map(|(_, slot)| *slot).collect();
        self.order = order;
    }

    pub fn len(&self) -> usize {
        self.order.len()
    }

    /// The node at a place of the order, which wraps round.
    pub fn at(&self, place: usize) -> &NodeInfo {
        let slot = self.order[place % self.order.len()];
        self.slots[slot as usize].as_deref().expect("the order names nodes that are there")
    }

    /// In order.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeInfo> {
        (0..self.len()).map(|place| self.at(place))
    }

    pub fn get(&self, name: &str) -> Option<&NodeInfo> {
        let slot = self.by_name.get(name)?;
        self.slots[*slot as usize].as_deref()
    }

    /// The node in a slot.
    pub fn slot(&self, slot: u32) -> Option<&NodeInfo> {
        self.slots.get(slot as usize)?.as_deref()
    }

    /// The length of tables by slot.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Which nodes are one place by the label `key`.
    pub fn topology(&self, key: &str) -> Arc<Topology> {
        self.index.topology(key, &self.slots)
    }

    /// How many pods of each node the query selects, by slot.
    pub fn matching(&self, query: &Query) -> Arc<Vec<u32>> {
        self.index.matching(query, self.slots.len())
    }

    /// The distinct terms of the pods on nodes, of one use, each with its weight by slot.
    pub fn terms(&self, usage: TermUse) -> impl Iterator<Item = (&Arc<crate::pod::Term>, &HashMap<u32, i64>)> {
        self.index.terms(usage)
    }

    /// How many nodes have the image.
    pub fn nodes_with_image(&self, image: &str) -> usize {
        self.images.get(image).copied().unwrap_or_default()
    }

    /// Whether a pod on some node names the claim (`namespace/name`).
    pub fn claim_in_use(&self, claim: &str) -> bool {
        self.claims.contains_key(claim)
    }
}

fn add(counts: &mut HashMap<String, usize>, key: &str, by: isize) {
    match counts.get_mut(key) {
        Some(count) => {
            *count = count.saturating_add_signed(by);
            if *count == 0 {
                counts.remove(key);
            }
        }
        None if by > 0 => drop(counts.insert(key.to_owned(), 1)),
        None => {}
    }
}

fn zone(node: &NodeInfo) -> (&str, &str) {
    let label = |name, old| node.label(name).or_else(|| node.label(old)).unwrap_or_default();
    (
        label("topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"),
        label("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"),
    )
}

type Pods<'a> = &'a [Arc<PodInfo>];

/// Whether one may take the other's place without anything that is counted here: mostly a pod that runs now.
fn counted_alike(one: &Arc<PodInfo>, other: &Arc<PodInfo>) -> bool {
    Arc::ptr_eq(&one.template, &other.template)
        && one.terminating == other.terminating
        && one.key.namespace == other.key.namespace
        && one.volumes == other.volumes
}

/// The pods that left and came: all but those that both lists begin and end with.
fn difference<'a>(old: Option<&'a NodeInfo>, new: Option<&'a NodeInfo>) -> (Pods<'a>, Pods<'a>) {
    let (mut old, mut new): (Pods, Pods) = (old.map_or(&[], NodeInfo::pods), new.map_or(&[], NodeInfo::pods));
    while let (Some((a, rest)), Some((b, others))) = (old.split_first(), new.split_first())
        && Arc::ptr_eq(a, b)
    {
        (old, new) = (rest, others);
    }
    while let (Some((a, rest)), Some((b, others))) = (old.split_last(), new.split_last())
        && Arc::ptr_eq(a, b)
    {
        (old, new) = (rest, others);
    }
    (old, new)
}

#[cfg(test)]
mod tests;
