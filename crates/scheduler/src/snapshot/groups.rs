//! Pods that no selector tells apart are counted together: a query looks at each kind of pod that is about right, not at each pod.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use apimachinery::{Operator, Requirement, Selector};

use super::Query;
use crate::pod::PodInfo;

/// The pods on all nodes, by kind.
#[derive(Default)]
pub(super) struct Groups {
    groups: HashMap<u64, Group>,
    ids: HashMap<Kind, u64>,
    /// Groups by the hash of a label that their pods have.
    labelled: HashMap<u64, Vec<u64>>,
    next: u64,
}

struct Group {
    kind: Kind,
    /// Slots of nodes, in order, and how many of these pods each has.
    places: Vec<(u32, u32)>,
}

/// A pod, as an example of those that are like it for selectors.
#[derive(Clone)]
struct Kind(Arc<PodInfo>);

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        let (one, other) = (&self.0, &other.0);
        one.terminating == other.terminating
            && one.key.namespace == other.key.namespace
            && (Arc::ptr_eq(&one.template, &other.template) || one.labels == other.labels)
    }
}

impl Eq for Kind {}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.0.terminating, &self.0.key.namespace, &self.0.labels).hash(state);
    }
}

impl Groups {
    /// Counts a pod that came to (`by` 1) or left (-1) the node in `slot`.
    pub fn count(&mut self, slot: u32, pod: &Arc<PodInfo>, by: i32) {
        let kind = Kind(pod.clone());
        let id = self.ids.get(&kind).copied().unwrap_or_else(|| self.open(kind));
        let Some(Group { places, .. }) = self.groups.get_mut(&id) else { return };
        match places.binary_search_by_key(&slot, |(slot, _)| *slot) {
            Ok(at) => {
                let pods = &mut places[at].1;
                *pods = pods.saturating_add_signed(by);
                if *pods == 0 {
                    places.remove(at);
                }
            }
            Err(at) if by > 0 => places.insert(at, (slot, by as u32)),
            Err(_) => {}
        }
        if places.is_empty() {
            self.close(id);
        }
    }

    fn open(&mut self, kind: Kind) -> u64 {
        self.next += 1;
        for label in labels(&kind.0) {
            self.labelled.entry(label).or_default().push(self.next);
        }
        self.ids.insert(kind.clone(), self.next);
        self.groups.insert(self.next, Group { kind, places: Vec::new() });
        self.next
    }

    fn close(&mut self, id: u64) {
        let Some(Group { kind, .. }) = self.groups.remove(&id) else { return };
        self.ids.remove(&kind);
        for label in labels(&kind.0) {
            if let Some(ids) = self.labelled.get_mut(&label) {
                ids.retain(|known| *known != id);
                if ids.is_empty() {
                    self.labelled.remove(&label);
                }
            }
        }
    }

    /// How many pods of each node the query selects, by slot.
    pub fn matching(&self, query: &Query, slots: usize) -> Vec<u32> {
        let mut counts = vec![0; slots];
        let count = |group: &Group| {
            if query.selects(&group.kind.0) {
                group.places.iter().for_each(|(slot, pods)| counts[*slot as usize] += pods);
            }
        };
        match self.narrowest(&query.selector) {
            Some(labels) => {
                let ids = labels.iter().filter_map(|label| self.labelled.get(label)).flatten();
                ids.filter_map(|id| self.groups.get(id)).for_each(count);
            }
            None => self.groups.values().for_each(count),
        }
        counts
    }

    /// Hashes of labels of which a pod that is selected has one: those that the fewest groups have.
    fn narrowest(&self, selector: &Selector) -> Option<Vec<u64>> {
        let names = |r: &&Requirement| matches!(r.operator, Operator::In | Operator::Equals | Operator::DoubleEquals);
        let named = selector.requirements().iter().filter(names);
        let labels = named.map(|r| distinct(r.values.iter().map(|value| label(&r.key, value)).collect()));
        labels.min_by_key(|labels| {
            labels.iter().filter_map(|label| self.labelled.get(label)).map(Vec::len).sum::<usize>()
        })
    }
}

/// The hashes of a pod's labels.
fn labels(pod: &PodInfo) -> Vec<u64> {
    distinct(pod.labels.iter().map(|(key, value)| label(key, value)).collect())
}

/// Two labels of one hash do no harm: groups that are found are asked what they are.
fn label(key: &str, value: &str) -> u64 {
    let mut hash = DefaultHasher::new();
    (key, value).hash(&mut hash);
    hash.finish()
}

/// Nothing is to be found twice.
fn distinct(mut hashes: Vec<u64>) -> Vec<u64> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}
