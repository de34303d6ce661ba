//! The chains that choose an endpoint: one for each number of endpoints and manner of choosing.

use std::time::Duration;

use linux::nft::{Batch, Element, Family, Field, Value, Verdict, reg};

use super::elements::{INTERNAL, SetName};
use super::{AFFINITY, CHAINS, DROP, mark};
use crate::driver::Network;
use crate::plan::{Balance, Vip};

/// A chain that virtual addresses lead to. A later one may lead to an earlier one, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Chain {
    /// Leads to one of `count` endpoints.
    Balance {
        /// The virtual address is that of the node: endpoints are found under zeros.
        node: bool,
        /// Of the endpoints for clients in the cluster.
        internal: bool,
        masquerade: bool,
        affinity: Option<Duration>,
        count: u32,
    },
    /// Leads clients in the cluster to one of `internal` endpoints, others to one of `count`.
    Split { node: bool, affinity: Option<Duration>, count: u32, internal: u32 },
}

impl Chain {
    pub(super) fn balance(node: bool, masquerade: bool, affinity: Option<Duration>, count: u32) -> Chain {
        Chain::Balance { node, internal: false, masquerade, affinity, count }
    }

    /// The fields of a [`Chain::code`].
    pub(super) const CODE: [Field; 3] = [Field::Number; 3];

    /// What `services` and `chains` know it by.
    pub(crate) fn code(&self) -> Value {
        let seconds = |life: Option<Duration>| life.map_or(0, |life| life.as_secs() as u32);
        let (manner, count, internal) = match *self {
            Chain::Balance { node, internal, masquerade, affinity, count } => {
                let flags = (node as u32) << 1 | (internal as u32) << 2 | (masquerade as u32) << 3;
                (flags | seconds(affinity) << 8, count, 0)
            }
            Chain::Split { node, affinity, count, internal } => {
                (1 | (node as u32) << 1 | seconds(affinity) << 8, count, internal)
            }
        };
        Value::new().number(manner).number(count).number(internal)
    }

    /// The chain that the virtual address leads to; `None` if nobody is there.
    pub(crate) fn of(vip: &Vip, balance: &Balance) -> Option<Chain> {
        let (node, affinity, count) = (vip.address.is_none(), balance.affinity, balance.endpoints.len() as u32);
        match &balance.internal {
            Some(internal) if !internal.is_empty() => {
                Some(Chain::Split { node, affinity, count, internal: internal.len() as u32 })
            }
            _ => (count > 0).then(|| Chain::balance(node, balance.masquerade, affinity, count)),
        }
    }

    /// The chains that this one leads to.
    pub(crate) fn needs(&self) -> Vec<Chain> {
        let Chain::Split { node, affinity, count, internal } = *self else { return Vec::new() };
        let inside = |masquerade| Chain::Balance { node, internal: true, masquerade, affinity, count: internal };
        let outside = (count > 0).then(|| Chain::balance(node, false, affinity, count));
        [inside(false), inside(true)].into_iter().chain(outside).collect()
    }

    pub(crate) fn name(&self) -> String {
        let mut name = String::new();
        let (kind, node, affinity) = match self {
            Chain::Balance { node, affinity, .. } => ("lb", node, affinity),
            Chain::Split { node, affinity, .. } => ("split", node, affinity),
        };
        name.push_str(kind);
        if *node {
            name.push_str("-node");
        }
        if let Some(life) = affinity {
            name.push_str(&format!("-affinity{}", life.as_secs()));
        }
        match self {
            Chain::Balance { internal, masquerade, count, .. } => {
                name.push_str(if *internal { "-internal" } else { "" });
                name.push_str(if *masquerade { "-masquerade" } else { "" });
                name.push_str(&format!("-{count}"));
            }
            Chain::Split { count, internal, .. } => name.push_str(&format!("-{count}-{internal}")),
        }
        name
    }

    /// Removes the chain. Nothing may lead to it any more.
    pub(crate) fn remove(&self, batch: &mut Batch) {
        batch.delete_elements(CHAINS, [Element::key(self.code())]);
        batch.delete_chain(&self.name());
    }

    /// Makes the chain and its rules.
    pub(crate) fn write(&self, batch: &mut Batch, network: &Network) {
        let name = self.name();
        batch.chain(&name);
        batch.add_elements(CHAINS, [Element::verdict(self.code(), Verdict::Goto(name.clone()))]);
        match *self {
            Chain::Balance { node, internal, masquerade, affinity, count } => {
                if masquerade {
                    batch.rule(&name, |rule| mark(rule, network));
                }
                let offset = if internal { INTERNAL } else { 0 };
                match affinity {
                    None => plain_rule(batch, &name, node, count, offset),
                    Some(life) => affinity_rules(batch, &name, node, count, offset, life),
                }
            }
            Chain::Split { count, .. } => {
                let mut needs = self.needs().into_iter();
                let (from_pod, from_node) = (needs.next(), needs.next());
                for pods in network.pods(batch.family()) {
                    batch.rule(&name, |rule| {
                        rule.source_address(reg(0)).in_range(reg(0), &pods, false);
                        rule.goto(&from_pod.map(|chain| chain.name()).unwrap_or_default());
                    });
                }
                batch.rule(&name, |rule| {
                    rule.source_is_local(reg(0)).goto(&from_node.map(|chain| chain.name()).unwrap_or_default());
                });
                batch.rule(&name, |rule| {
                    let outside = needs.next().filter(|_| count > 0).map(|chain| chain.name());
                    rule.goto(outside.as_deref().unwrap_or(DROP));
                });
            }
        }
    }
}

fn plain_rule(batch: &mut Batch, chain: &str, node: bool, count: u32, offset: u32) {
    let number = reg(batch.family().registers() + 2);
    let endpoint = number.plus(1);
    batch.rule(chain, |rule| {
        rule.destination(reg(0), node).random(number, count, offset);
        rule.map(SetName::Endpoints.name(), reg(0), endpoint).translate_destination(endpoint);
    });
}

/// The client's address is followed by the virtual one, and that by the endpoint: so the same registers, read from different
/// places, are the key of `affinity` and that of the set of endpoints that are still there.
fn affinity_rules(batch: &mut Batch, chain: &str, node: bool, count: u32, offset: u32, life: Duration) {
    let width = Family::registers(batch.family());
    let (client, vip) = (reg(0), reg(width));
    let known = reg(2 * width + 2);
    let sticky = if offset == 0 { SetName::Sticky } else { SetName::StickyInternal };
    batch.rule(chain, |rule| {
        rule.source_address(client).destination(vip, node).map(AFFINITY, client, known);
        rule.lookup(sticky.name(), vip).map_update(AFFINITY, client, known, life).translate_destination(known);
    });
    let (number, endpoint) = (known, known.plus(1));
    batch.rule(chain, |rule| {
        rule.source_address(client).destination(vip, node).random(number, count, offset);
        rule.map(SetName::Endpoints.name(), vip, endpoint);
        // An update keeps what an entry leads to, so it must go first.
        rule.map_remove(AFFINITY, client, endpoint).map_update(AFFINITY, client, endpoint, life);
        rule.translate_destination(endpoint);
    });
}
