//! Each node gets a part of the cluster's range for its pods. Upstream: pkg/controller/nodeipam, range allocator.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, EventRecorder, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue, Watch, resources,
};
use ipnet::IpNet;
use parking_lot::Mutex;

use crate::{BuildError, Setup};

pub(crate) struct NodeIpam {
    nodes: Informer,
    events: EventRecorder,
    ranges: Vec<(IpNet, u8)>,
    given: Mutex<Given>,
}

#[derive(Default)]
struct Given {
    /// Given away, perhaps before the informer knows.
    by_node: BTreeMap<String, Vec<IpNet>>,
    /// Where the search begins, for each range: what a node gave back is the last to be given again.
    next: Vec<usize>,
}

/// Every part of a cluster range is in use.
#[derive(Debug, thiserror::Error)]
#[error("no free range for node {node}: all of {range} is in use")]
struct Exhausted {
    node: String,
    range: IpNet,
}

/// Whether nodes' ranges fit into the cluster's.
pub(crate) fn check(ranges: &[IpNet], prefixes: (u8, u8)) -> Result<(), BuildError> {
    for range in ranges {
        let prefix = prefix_of(range, prefixes);
        if range.prefix_len() > prefix || prefix > range.max_prefix_len() {
            return Err(BuildError::NodePrefix { range: *range, prefix });
        }
    }
    match ranges {
        [a, b, ..] if a.max_prefix_len() == b.max_prefix_len() => Err(BuildError::SameFamily(*a, *b)),
        _ => Ok(()),
    }
}

fn prefix_of(range: &IpNet, prefixes: (u8, u8)) -> u8 {
    if matches!(range, IpNet::V4(_)) { prefixes.0 } else { prefixes.1 }
}

impl NodeIpam {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let with_prefix = |range: &IpNet| (range.trunc(), prefix_of(range, setup.config.node_prefixes));
        NodeIpam {
            nodes: setup.informers.of(&resources::NODES),
            events: setup.recorder("node-controller", "cidrAllocator"),
            ranges: setup.config.cluster_cidrs.iter().map(with_prefix).collect(),
            given: Mutex::default(),
        }
    }

    /// The next free range of each family, the same ones when asked again.
    fn give(&self, node: &str) -> Result<Vec<IpNet>, Exhausted> {
        let mut given = self.given.lock();
        if let Some(known) = given.by_node.get(node) {
            return Ok(known.clone());
        }
        let of_nodes = self.nodes.list("").into_iter().flat_map(|node| ranges_of(&node));
        let used: BTreeSet<IpNet> = of_nodes.chain(given.by_node.values().flatten().copied()).collect();
        given.next.resize(self.ranges.len(), 0);
        let mut found = Vec::new();
        for ((range, prefix), next) in self.ranges.iter().zip(&mut given.next) {
            let (at, free) =
                free(range, *prefix, *next, &used).ok_or_else(|| Exhausted { node: node.to_owned(), range: *range })?;
            *next = at + 1;
            found.push(free);
        }
        given.by_node.insert(node.to_owned(), found.clone());
        Ok(found)
    }
}

/// The first part of `range` from the one of number `next` on that overlaps with nothing in use, and its number; after the last one the
/// first follows. Upstream: cidrset AllocateNext.
fn free(range: &IpNet, prefix: u8, next: usize, used: &BTreeSet<IpNet>) -> Option<(usize, IpNet)> {
    let overlaps = |candidate: &IpNet| {
        used.contains(candidate) || used.iter().any(|used| used.contains(candidate) || candidate.contains(used))
    };
    let all = || range.subnets(prefix).into_iter().flatten().enumerate();
    all().skip(next).chain(all().take(next)).find(|(_, candidate)| !overlaps(candidate))
}

fn ranges_of(node: &Object) -> Vec<IpNet> {
    let value = node.to_value();
    let several = value.items_at(&["spec", "podCIDRs"]).iter().filter_map(Value::as_str);
    let texts: BTreeSet<&str> = several.chain(value.str_at(&["spec", "podCIDR"])).collect();
    texts.into_iter().filter_map(|text| text.parse().ok()).collect()
}

impl Controller for NodeIpam {
    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let needs = |event: &Event| match event {
            Event::Modified { new, .. } if !ranges_of(new).is_empty() => Vec::new(),
            event => vec![event.object().key().clone()],
        };
        vec![Watch::new(self.nodes.clone(), needs)]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(node) = self.nodes.get(key) else {
            self.given.lock().by_node.remove(&key.name);
            return Ok(Requeue::No);
        };
        if self.ranges.is_empty() || node.is_deleting() || !ranges_of(&node).is_empty() {
            return Ok(Requeue::No);
        }
        let given = match self.give(&key.name) {
            Ok(given) => given,
            Err(error) => {
                let message = format!("Node {} status is now: CIDRNotAvailable", key.name);
                self.events.normal(&node, "CIDRNotAvailable", message);
                return Err(error.into());
            }
        };
        let texts: Vec<String> = given.iter().map(IpNet::to_string).collect();
        let mut patch = Value::object();
        patch.set(&["metadata", "uid"], node.uid());
        patch.set(&["spec", "podCIDR"], &texts[0]);
        patch.set(&["spec", "podCIDRs"], texts);
        match ctx.client().patch(&resources::NODES, key, PatchKind::Merge, &patch).await {
            Ok(_) => Ok(Requeue::No),
            Err(error) => {
                // Where the outcome is unknown the range stays given, and is offered to the node again.
                if !error.is_unknown_outcome() {
                    self.given.lock().by_node.remove(&key.name);
                }
                let message = format!("Node {} status is now: CIDRAssignmentFailed", key.name);
                self.events.normal(&node, "CIDRAssignmentFailed", message);
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_go_round() {
        let check = |next: usize, used: &[&str], expect: Option<(usize, &str)>| {
            let range = "10.0.0.0/22".parse().unwrap();
            let used = used.iter().map(|used| used.parse().unwrap()).collect();
            let found = free(&range, 24, next, &used).map(|(at, free)| (at, free.to_string()));
            assert_eq!(found, expect.map(|(at, free)| (at, free.to_owned())), "{next} {used:?}");
        };
        check(0, &[], Some((0, "10.0.0.0/24")));
        check(2, &[], Some((2, "10.0.2.0/24")));
        check(2, &["10.0.2.0/24", "10.0.3.0/25"], Some((0, "10.0.0.0/24")));
        check(4, &[], Some((0, "10.0.0.0/24")));
        check(0, &["10.0.0.0/23"], Some((2, "10.0.2.0/24")));
        check(3, &["10.0.0.0/16"], None);
    }
}
