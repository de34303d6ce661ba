//! What would otherwise be counted anew for each pod over all pods of all nodes.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use apimachinery::Selector;
use parking_lot::Mutex;

use super::groups::Groups;
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term};

/// How many queries' answers are kept current: each pod that comes or goes is compared with all of them.
const QUERIES: usize = 16;
/// How many topologies are.
const TOPOLOGIES: usize = 64;

/// Which pods to count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    pub namespaces: Namespaces,
    pub selector: Selector,
    /// Pods being deleted count too.
    pub terminating: bool,
}

/// The namespaces of a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Namespaces {
    All,
    These(BTreeSet<String>),
}

impl Query {
    /// Whether it counts the pod.
    pub(super) fn selects(&self, pod: &PodInfo) -> bool {
        (self.terminating || !pod.terminating)
            && match &self.namespaces {
                Namespaces::All => true,
                Namespaces::These(names) => names.contains(&pod.key.namespace),
            }
            && rules::selects(&self.selector, &pod.labels)
    }
}

/// A place: one value of a topology label. Numbers are dense and never reused.
pub type Domain = u32;

/// Which nodes are one place.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    key: String,
    domains: Vec<Option<Domain>>,
    values: HashMap<String, Domain>,
}

impl Topology {
    /// The place of the node in `slot`; `None`: it lacks the label.
    pub fn domain(&self, slot: u32) -> Option<Domain> {
        self.domains.get(slot as usize).copied().flatten()
    }

    /// The length of tables by domain.
    pub fn size(&self) -> usize {
        self.values.len()
    }

    fn set(&mut self, slot: u32, node: Option<&NodeInfo>) {
        if self.domains.len() <= slot as usize {
            self.domains.resize(slot as usize + 1, None);
        }
        let next = self.values.len() as Domain;
        self.domains[slot as usize] =
            node.and_then(|node| node.label(&self.key)).map(|value| match self.values.get(value) {
                Some(domain) => *domain,
                None => *self.values.entry(value.to_owned()).or_insert(next),
            });
    }
}

/// What a term of a pod on a node is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TermUse {
    /// The pod refuses such neighbours; the weight is how many pods of the node do.
    RequiredAnti,
    /// The pod needs such neighbours.
    Required,
    /// The pod likes (or, below zero, dislikes) such neighbours.
    Preferred,
}

type Terms = HashMap<Arc<Term>, HashMap<u32, i64>>;

#[derive(Default)]
pub(super) struct Index {
    required_anti: Terms,
    required: Terms,
    preferred: Terms,
    groups: Groups,
    memo: Mutex<Memo>,
}

#[derive(Default)]
struct Memo {
    topologies: HashMap<String, Arc<Topology>>,
    /// Most recently used last.
    queries: Vec<(Query, Arc<Vec<u32>>)>,
}

impl Index {
    /// Counts a pod that came to (`by` 1) or left (-1) the node in `slot`.
    pub fn count(&mut self, slot: u32, pod: &Arc<PodInfo>, by: i64) {
        self.groups.count(slot, pod, by as i32);
        let affinity = &pod.affinity;
        for term in &affinity.required_anti {
            put(&mut self.required_anti, term, slot, by);
        }
        for term in &affinity.required {
            put(&mut self.required, term, slot, by);
        }
        for (weight, term) in &affinity.preferred {
            put(&mut self.preferred, term, slot, by * weight);
        }
        for (weight, term) in &affinity.preferred_anti {
            put(&mut self.preferred, term, slot, -by * weight);
        }
        for (query, counts) in &mut self.memo.get_mut().queries {
            if query.selects(pod) {
                let counts = Arc::make_mut(counts);
                if counts.len() <= slot as usize {
                    counts.resize(slot as usize + 1, 0);
                }
                let count = &mut counts[slot as usize];
                *count = count.saturating_add_signed(by as i32);
            }
        }
    }

    /// Takes over labels of the node in `slot`.
    pub fn relabel(&mut self, slot: u32, old: Option<&NodeInfo>, new: Option<&NodeInfo>) {
        if old.map(NodeInfo::labels) == new.map(NodeInfo::labels) {
            return;
        }
        for topology in self.memo.get_mut().topologies.values_mut() {
            Arc::make_mut(topology).set(slot, new);
        }
    }

    pub fn topology(&self, key: &str, slots: &[Option<Arc<NodeInfo>>]) -> Arc<Topology> {
        let mut memo = self.memo.lock();
        if let Some(topology) = memo.topologies.get(key) {
            return topology.clone();
        }
        let mut topology = Topology { key: key.to_owned(), ..Topology::default() };
        for (slot, node) in slots.iter().enumerate() {
            topology.set(slot as u32, node.as_deref());
        }
        let topology = Arc::new(topology);
        if memo.topologies.len() >= TOPOLOGIES {
            memo.topologies.clear();
        }
        memo.topologies.insert(key.to_owned(), topology.clone());
        topology
    }

    pub fn matching(&self, query: &Query, slots: usize) -> Arc<Vec<u32>> {
        let mut memo = self.memo.lock();
        if let Some(at) = memo.queries.iter().position(|(known, _)| known == query) {
            let entry = memo.queries.remove(at);
            let counts = entry.1.clone();
            memo.queries.push(entry);
            return counts;
        }
        let counts = Arc::new(self.groups.matching(query, slots));
        if memo.queries.len() >= QUERIES {
            memo.queries.remove(0);
        }
        memo.queries.push((query.clone(), counts.clone()));
        counts
    }

    pub fn terms(&self, usage: TermUse) -> impl Iterator<Item = (&Arc<Term>, &HashMap<u32, i64>)> {
        match usage {
            TermUse::RequiredAnti => self.required_anti.iter(),
            TermUse::Required => self.required.iter(),
            TermUse::Preferred => self.preferred.iter(),
        }
    }
}

fn put(terms: &mut Terms, term: &Arc<Term>, slot: u32, weight: i64) {
    let slots = terms.entry(term.clone()).or_default();
    let sum = slots.entry(slot).or_default();
    *sum += weight;
    if *sum == 0 {
        slots.remove(&slot);
        if slots.is_empty() {
            terms.remove(term);
        }
    }
}
