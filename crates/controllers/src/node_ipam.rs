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
    /// Given away, perhaps before the informer knows.
    given: Mutex<BTreeMap<String, Vec<IpNet>>>,
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

    /// The lowest free range of each family, the same ones when asked again.
    fn give(&self, node: &str) -> Result<Vec<IpNet>, Exhausted> {
        let mut given = self.given.lock();
        if let Some(known) = given.get(node) {
            return Ok(known.clone());
        }
        let of_nodes = self.nodes.list("").into_iter().flat_map(|node| ranges_of(&node));
        let used: BTreeSet<IpNet> = of_nodes.chain(given.values().flatten().copied()).collect();
        let free = |(range, prefix): &(IpNet, u8)| {
            let overlaps = |candidate: &IpNet| {
                used.contains(candidate) || used.iter().any(|used| used.contains(candidate) || candidate.contains(used))
            };
            let mut candidates = range.subnets(*prefix).into_iter().flatten();
            candidates
                .find(|candidate| !overlaps(candidate))
                .ok_or_else(|| Exhausted { node: node.to_owned(), range: *range })
        };
        let found = self.ranges.iter().map(free).collect::<Result<Vec<_>, _>>()?;
        given.insert(node.to_owned(), found.clone());
        Ok(found)
    }
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
            self.given.lock().remove(&key.name);
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
                    self.given.lock().remove(&key.name);
                }
                Err(error.into())
            }
        }
    }
}
