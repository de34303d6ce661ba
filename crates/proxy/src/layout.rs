//! The table's static part, and how virtual addresses are written as elements.
//!
//! A packet's `address . protocol . port` is looked up in `services` (or, for addresses of the node, `protocol . port` in
//! `node-ports`), which says by what code `chains` leads to a chain for that number of endpoints. It draws a number and finds the
//! endpoint in `endpoints` under `address . protocol . port . number`. So no Service has a rule of its own, and none is a
//! verdict: the kernel walks over all verdicts of a table with each change of one, looking for loops.

mod chain;
mod elements;

use std::net::IpAddr;

use ipnet::IpNet;
use linux::nft::{Batch, ChainKind, Element, Family, Field, Hook, Rule, Set, reg};

pub(crate) use chain::Chain;
pub(crate) use elements::{SetName, elements, shared};

use crate::driver::Network;

/// Chains for so many endpoints are always there.
const READY_MADE: u32 = 64;
/// Remembers which endpoint a client was led to; rules write it.
pub(crate) const AFFINITY: &str = "affinity";

/// From the code of a chain to the chain.
pub(crate) const CHAINS: &str = "chains";

const DISPATCH: &str = "dispatch";
const REJECT: &str = "reject";
const DROP: &str = "drop";
const CHECK_SOURCE: &str = "check-source";
const UNKNOWN: &str = "unknown";

const PRIORITY_RAW: i32 = -300;
/// Before translation.
const PRIORITY_REFUSE: i32 = -110;
const PRIORITY_TRANSLATE: i32 = -100;
/// After translation.
const PRIORITY_UNKNOWN: i32 = -90;
const PRIORITY_SOURCE: i32 = 100;

/// A table without Services, in the place of one that may exist.
pub(crate) fn table(family: Family, table: &str, network: &Network) -> Batch {
    let mut batch = Batch::new(family, table);
    batch.replace_table();
    sets(&mut batch);
    for chain in [DISPATCH, REJECT, DROP, CHECK_SOURCE, UNKNOWN] {
        batch.chain(chain);
    }
    batch.rule(REJECT, |rule| {
        rule.reject();
    });
    batch.rule(DROP, |rule| {
        rule.drop_packet();
    });
    for chain in ready_made() {
        chain.write(&mut batch, network);
    }
    dispatch_rules(&mut batch, network);
    source_rules(&mut batch, network);
    refusal_rules(&mut batch, network);
    loopback_rules(&mut batch);
    batch
}

/// The chains that are there from the beginning and stay.
pub(crate) fn ready_made() -> impl Iterator<Item = Chain> {
    let plain = (1..=READY_MADE).map(|count| Chain::balance(false, false, None, count));
    plain.chain((1..=READY_MADE).map(|count| Chain::balance(true, true, None, count)))
}

fn sets(batch: &mut Batch) {
    let address = batch.family().address();
    let vip = [address, Field::Protocol, Field::Port];
    let with = |more: &[Field]| [&vip[..], more].concat();
    let endpoint = [address, Field::Port];
    batch.set(&Set::verdicts(CHAINS, &Chain::CODE));
    batch.set(&Set::map(SetName::Services.name(), &vip, &Chain::CODE));
    batch.set(&Set::map(SetName::NodePorts.name(), &[Field::Protocol, Field::Port], &Chain::CODE));
    batch.set(&Set::new(SetName::Rejected.name(), &vip));
    batch.set(&Set::new(SetName::Dropped.name(), &vip));
    batch.set(&Set::new(SetName::Guarded.name(), &vip));
    batch.set(&Set::map(SetName::Endpoints.name(), &with(&[Field::Number]), &endpoint));
    batch.set(&Set::new(SetName::Sticky.name(), &with(&endpoint)));
    batch.set(&Set::new(SetName::StickyInternal.name(), &with(&endpoint)));
    batch.set(&Set::new(SetName::Hairpin.name(), &[address, address]));
    batch.set(&Set::new(SetName::ClusterIps.name(), &[address]));
    batch.set(&Set::new(SetName::Sources.name(), &with(&[address])).intervals());
    batch.set(&Set::map(AFFINITY, &[&[address], &vip[..]].concat(), &endpoint).dynamic());
}

/// Where connections to virtual addresses are led to their endpoints.
fn dispatch_rules(batch: &mut Batch, network: &Network) {
    let family = batch.family();
    // Clients from elsewhere can't be answered by a pod that doesn't know the way back.
    let pods: Vec<IpNet> = network.pods(family).collect();
    for range in network.services(family).filter(|_| !pods.is_empty()) {
        batch.rule(DISPATCH, |rule| {
            rule.destination_address(reg(0)).in_range(reg(0), &range, false);
            for pods in &pods {
                rule.source_address(reg(0)).in_range(reg(0), pods, true);
            }
            mark(rule, network);
        });
    }
    batch.rule(DISPATCH, |rule| {
        rule.destination(reg(0), false).lookup(SetName::Guarded.name(), reg(0)).jump(CHECK_SOURCE);
    });
    batch.rule(DISPATCH, |rule| {
        let code = reg(family.registers() + 2);
        rule.destination(reg(0), false).map(SetName::Services.name(), reg(0), code).verdict_map(CHAINS, code);
    });
    batch.rule(DISPATCH, |rule| {
        rule.destination_is_local(reg(0)).protocol(reg(0)).destination_port(reg(1));
        rule.map(SetName::NodePorts.name(), reg(0), reg(2)).verdict_map(CHAINS, reg(2));
    });
    batch.rule(CHECK_SOURCE, |rule| {
        rule.destination(reg(0), false).source_address(reg(family.registers() + 2));
        rule.lookup(SetName::Sources.name(), reg(0)).go_back();
    });
    batch.rule(CHECK_SOURCE, |rule| {
        rule.goto(DROP);
    });
    for (chain, hook) in [("nat-prerouting", Hook::Prerouting), ("nat-output", Hook::Output)] {
        batch.base_chain(chain, ChainKind::Nat, hook, PRIORITY_TRANSLATE);
        batch.rule(chain, |rule| {
            rule.jump(DISPATCH);
        });
    }
}

/// Whose address is replaced by the node's.
fn source_rules(batch: &mut Batch, network: &Network) {
    let chain = "nat-postrouting";
    let other = reg(batch.family().registers());
    batch.base_chain(chain, ChainKind::Nat, Hook::Postrouting, PRIORITY_SOURCE);
    // A pod that reaches itself through a Service would answer itself directly.
    batch.rule(chain, |rule| {
        rule.destination_was_translated(reg(0)).source_address(reg(0)).destination_address(other);
        rule.lookup(SetName::Hairpin.name(), reg(0)).masquerade();
    });
    batch.rule(chain, |rule| {
        rule.has_mark(reg(0), network.mark_mask, network.mark).set_mark(reg(0), network.mark_mask, 0).masquerade();
    });
}

/// What becomes of packets for virtual addresses that lead nowhere.
fn refusal_rules(batch: &mut Batch, network: &Network) {
    let family = batch.family();
    for (chain, hook, local) in [
        ("filter-input", Hook::Input, true),
        ("filter-forward", Hook::Forward, false),
        ("filter-output", Hook::Output, true),
    ] {
        batch.base_chain(chain, ChainKind::Filter, hook, PRIORITY_REFUSE);
        for (set, end) in [(SetName::Rejected, REJECT), (SetName::Dropped, DROP)] {
            batch.rule(chain, |rule| {
                rule.connection_is_new(reg(0)).destination(reg(0), false).lookup(set.name(), reg(0)).goto(end);
            });
            if local {
                batch.rule(chain, |rule| {
                    rule.connection_is_new(reg(0)).destination_is_local(reg(0));
                    rule.destination(reg(0), true).lookup(set.name(), reg(0)).goto(end);
                });
            }
        }
    }
    // Another port of a cluster address is refused, an address that nobody has is silent.
    batch.rule(UNKNOWN, |rule| {
        rule.destination_address(reg(0)).lookup(SetName::ClusterIps.name(), reg(0)).goto(REJECT);
    });
    batch.rule(UNKNOWN, |rule| {
        rule.drop_packet();
    });
    batch.base_chain("filter-translated", ChainKind::Filter, Hook::Output, PRIORITY_UNKNOWN);
    for range in network.services(family) {
        for chain in ["filter-forward", "filter-translated"] {
            batch.rule(chain, |rule| {
                rule.destination_address(reg(0)).in_range(reg(0), &range, false).goto(UNKNOWN);
            });
        }
    }
}

/// `route_localnet` lets answers to 127.0.0.1 in; nothing else may come that way.
fn loopback_rules(batch: &mut Batch) {
    if batch.family() == Family::Ip6 {
        return;
    }
    let range = IpNet::new_assert(IpAddr::V4([127, 0, 0, 0].into()), 8);
    let chain = "raw-prerouting";
    batch.base_chain(chain, ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW);
    batch.rule(chain, |rule| {
        rule.from_loopback(reg(0), true).destination_address(reg(0)).in_range(reg(0), &range, false).drop_packet();
    });
    batch.rule(chain, |rule| {
        rule.from_loopback(reg(0), true).source_address(reg(0)).in_range(reg(0), &range, false).drop_packet();
    });
}

/// Asks for another source address on the way out.
fn mark(rule: &mut Rule, network: &Network) {
    rule.set_mark(reg(0), network.mark_mask, network.mark);
}

/// An element of the affinity map that an earlier table had, if it fits this one.
pub(crate) fn affinity(family: Family, elements: Vec<Element>) -> impl Iterator<Item = Element> {
    let length = 8 + 8 * family.registers() as usize;
    elements.into_iter().filter(move |element| element.expiry.is_some() && element.key.bytes().len() == length)
}

#[cfg(test)]
mod tests;
