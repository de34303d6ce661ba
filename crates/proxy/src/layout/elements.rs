//! A virtual address as elements.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use linux::nft::{Element, Family, Value};

use super::chain::Chain;
use crate::plan::{Balance, Empty, Vip};

/// The sets and maps whose elements follow Services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SetName {
    Services,
    NodePorts,
    Rejected,
    Dropped,
    Guarded,
    Endpoints,
    Sticky,
    StickyInternal,
    Hairpin,
    ClusterIps,
    Sources,
}

impl SetName {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SetName::Services => "services",
            SetName::NodePorts => "node-ports",
            SetName::Rejected => "rejected",
            SetName::Dropped => "dropped",
            SetName::Guarded => "guarded",
            SetName::Endpoints => "endpoints",
            SetName::Sticky => "sticky",
            SetName::StickyInternal => "sticky-internal",
            SetName::Hairpin => "hairpin",
            SetName::ClusterIps => "cluster-ips",
            SetName::Sources => "sources",
        }
    }
}

/// Where the numbers of endpoints for clients in the cluster begin.
pub(super) const INTERNAL: u32 = 1 << 20;

/// The elements that are this virtual address's alone.
pub(crate) fn elements(vip: &Vip, balance: &Balance) -> Vec<(SetName, Element)> {
    let mut elements = Vec::with_capacity(balance.endpoints.len() + 1);
    match Chain::of(vip, balance) {
        Some(chain) => elements.push(entry(vip, chain)),
        None if balance.empty == Empty::Reject => elements.push((SetName::Rejected, Element::key(key(vip)))),
        None => elements.push((SetName::Dropped, Element::key(key(vip)))),
    }
    let internal = balance.internal.as_deref().unwrap_or_default();
    for (list, offset, sticky) in
        [(&balance.endpoints[..], 0, SetName::Sticky), (internal, INTERNAL, SetName::StickyInternal)]
    {
        for ((ip, port), number) in list.iter().zip(offset..) {
            let value = Value::new().address(*ip).port(*port);
            elements.push((SetName::Endpoints, Element::value(key(vip).number(number), value)));
            if balance.affinity.is_some() {
                elements.push((sticky, Element::key(key(vip).address(*ip).port(*port))));
            }
        }
    }
    if !balance.sources.is_empty() && vip.address.is_some() {
        elements.push((SetName::Guarded, Element::key(key(vip))));
        // Ranges within others say nothing new, and the kernel refuses overlaps.
        for range in IpNet::aggregate(&balance.sources) {
            let (first, last) = (key(vip).address(range.network()), key(vip).address(range.broadcast()));
            elements.push((SetName::Sources, Element::range(first, last)));
        }
    }
    elements
}

/// The elements that other virtual addresses may want as well.
pub(crate) fn shared(vip: &Vip, balance: &Balance) -> Vec<(SetName, Value)> {
    let mut shared = Vec::new();
    if let Some(address) = vip.address.filter(|_| balance.cluster_ip) {
        shared.push((SetName::ClusterIps, Value::new().address(address)));
    }
    let mut local: Vec<IpAddr> = balance.local.iter().map(|(ip, _)| *ip).collect();
    local.dedup();
    shared.extend(local.into_iter().map(|ip| (SetName::Hairpin, Value::new().address(ip).address(ip))));
    shared
}

fn entry(vip: &Vip, chain: Chain) -> (SetName, Element) {
    match vip.address {
        Some(_) => (SetName::Services, Element::value(key(vip), chain.code())),
        None => {
            let key = Value::new().protocol(vip.protocol).port(vip.port);
            (SetName::NodePorts, Element::value(key, chain.code()))
        }
    }
}

/// `address . protocol . port`, with zeros for the node's addresses.
fn key(vip: &Vip) -> Value {
    let address = vip.address.unwrap_or(match vip.family {
        Family::Ip => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ip6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    });
    Value::new().address(address).protocol(vip.protocol).port(vip.port)
}
