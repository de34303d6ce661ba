//! The pod network's packet rules: host ports, and the node's address for what leaves the cluster.

use std::net::IpAddr;

use ipnet::IpNet;
use linux::nft::{Batch, ChainKind, Element, Family, Field, Hook, Set, Value, reg};

use super::ipam::Sandbox;

/// What the static rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ranges {
    /// The node's pods.
    pub(crate) node: Vec<IpNet>,
    /// All pods; empty: the node's.
    pub(crate) cluster: Vec<IpNet>,
}

const PORTS: &str = "host-ports";
const ADDRESSES: &str = "host-addresses";
const HAIRPIN: &str = "hairpin";
/// Services come first: their table translates at -100.
const PRIORITY_TRANSLATE: i32 = -99;
const PRIORITY_SOURCE: i32 = 100;
const PRIORITY_RAW: i32 = -300;

/// The whole table, in the place of one that may exist.
pub(crate) fn table<'a>(
    family: Family,
    table: &str,
    ranges: &Ranges,
    sandboxes: impl Iterator<Item = &'a Sandbox>,
) -> Batch {
    let address = family.address();
    let mut batch = Batch::new(family, table);
    batch.replace_table();
    let target = [address, Field::Port];
    batch.set(&Set::map(PORTS, &[Field::Protocol, Field::Port], &target));
    batch.set(&Set::map(ADDRESSES, &[address, Field::Protocol, Field::Port], &target));
    batch.set(&Set::new(HAIRPIN, &[address, address]));
    for (chain, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        batch.base_chain(chain, ChainKind::Nat, hook, PRIORITY_TRANSLATE);
        let value = reg(family.registers() + 2);
        batch.rule(chain, |rule| {
            rule.destination(reg(0), false).map(ADDRESSES, reg(0), value).translate_destination(value);
        });
        batch.rule(chain, |rule| {
            rule.destination_is_local(reg(0)).protocol(reg(0)).destination_port(reg(1));
            rule.map(PORTS, reg(0), value).translate_destination(value);
        });
    }
    source_rules(&mut batch, ranges);
    loopback_rules(&mut batch);
    for sandbox in sandboxes {
        add(&mut batch, sandbox);
    }
    batch
}

/// Adds a sandbox's elements.
pub(crate) fn add(batch: &mut Batch, sandbox: &Sandbox) {
    let elements = Elements::of(sandbox, batch.family());
    batch.add_elements(HAIRPIN, elements.hairpin);
    batch.add_elements(PORTS, elements.ports);
    batch.add_elements(ADDRESSES, elements.addresses);
}

/// Removes a sandbox's elements, which must be there.
pub(crate) fn remove(batch: &mut Batch, sandbox: &Sandbox) {
    let elements = Elements::of(sandbox, batch.family());
    batch.delete_elements(HAIRPIN, elements.hairpin);
    batch.delete_elements(PORTS, elements.ports);
    batch.delete_elements(ADDRESSES, elements.addresses);
}

/// Who needs another source address to get answers.
fn source_rules(batch: &mut Batch, ranges: &Ranges) {
    let family = batch.family();
    let of_family = |nets: &[IpNet]| -> Vec<IpNet> {
        nets.iter().filter(|net| Family::of(net.addr()) == family).copied().collect()
    };
    let node = of_family(&ranges.node);
    let cluster = if ranges.cluster.is_empty() { node.clone() } else { of_family(&ranges.cluster) };
    let chain = "postrouting";
    batch.base_chain(chain, ChainKind::Nat, Hook::Postrouting, PRIORITY_SOURCE);
    // A pod that reached itself through a port of the node would answer itself directly.
    batch.rule(chain, |rule| {
        rule.destination_was_translated(reg(0)).source_address(reg(0)).destination_address(reg(family.registers()));
        rule.lookup(HAIRPIN, reg(0)).masquerade();
    });
    // A pod can't answer to the node's 127.0.0.1.
    batch.rule(chain, |rule| {
        rule.destination_was_translated(reg(0)).source_address(reg(0)).in_range(reg(0), &loopback(family), false);
        rule.masquerade();
    });
    // Nobody outside knows the way to a pod.
    for net in &node {
        batch.rule(chain, |rule| {
            rule.source_address(reg(0)).in_range(reg(0), net, false);
            for other in &cluster {
                rule.destination_address(reg(0)).in_range(reg(0), other, true);
            }
            rule.masquerade();
        });
    }
}

/// `route_localnet` lets replies to 127.0.0.1 in; nothing else may come that way.
fn loopback_rules(batch: &mut Batch) {
    let range = loopback(batch.family());
    batch.base_chain("raw", ChainKind::Filter, Hook::Prerouting, PRIORITY_RAW);
    batch.rule("raw", |rule| {
        rule.from_loopback(reg(0), true).destination_address(reg(0)).in_range(reg(0), &range, false).drop_packet();
    });
    batch.rule("raw", |rule| {
        rule.from_loopback(reg(0), true).source_address(reg(0)).in_range(reg(0), &range, false).drop_packet();
    });
}

fn loopback(family: Family) -> IpNet {
    match family {
        Family::Ip => IpNet::new_assert([127, 0, 0, 0].into(), 8),
        Family::Ip6 => IpNet::new_assert(IpAddr::V6(std::net::Ipv6Addr::LOCALHOST), 128),
    }
}

struct Elements {
    hairpin: Vec<Element>,
    ports: Vec<Element>,
    addresses: Vec<Element>,
}

impl Elements {
    fn of(sandbox: &Sandbox, family: Family) -> Elements {
        let mut elements = Elements { hairpin: Vec::new(), ports: Vec::new(), addresses: Vec::new() };
        let Some(pod) = sandbox.addresses.iter().copied().find(|ip| Family::of(*ip) == family) else { return elements };
        elements.hairpin.push(Element::key(Value::new().address(pod).address(pod)));
        for port in &sandbox.ports {
            let target = Value::new().address(pod).port(port.container_port);
            let (protocol, number) = (port.protocol.number(), port.host_port);
            match port.only_address() {
                None => {
                    elements.ports.push(Element::value(Value::new().protocol(protocol).port(number), target));
                }
                Some(ip) if Family::of(ip) == family => {
                    let key = Value::new().address(ip).protocol(protocol).port(number);
                    elements.addresses.push(Element::value(key, target));
                }
                Some(_) => {}
            }
        }
        elements
    }
}
