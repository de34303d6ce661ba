//! Which virtual addresses a Service has on this node, and where they lead. Pure.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use linux::nft::Family;

use crate::endpoint::{Endpoint, Endpoints, Locality, usable, usable_here};
use crate::service::{Service, ServicePort};

/// A virtual address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vip {
    /// The address family.
    pub family: Family,
    /// The address; `None`: every address of the node.
    pub address: Option<IpAddr>,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port.
    pub port: u16,
}

/// Where a virtual address leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// Sorted; what happens if it is empty says `empty`.
    pub endpoints: Vec<(IpAddr, u16)>,
    /// Where clients on this node and in pods are led instead, if not to the same.
    pub internal: Option<Vec<(IpAddr, u16)>>,
    /// Of all of these, the ones on this node.
    pub local: Vec<(IpAddr, u16)>,
    /// Clients' addresses are replaced by the node's, so that answers come back through it.
    pub masquerade: bool,
    /// How long a client stays with its endpoint.
    pub affinity: Option<Duration>,
    /// What happens without endpoints.
    pub empty: Empty,
    /// Who may use it; empty: everybody.
    pub sources: Vec<IpNet>,
    /// It is a cluster address.
    pub cluster_ip: bool,
}

/// What happens to packets for a virtual address without endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Empty {
    /// The sender is told that nobody is there.
    Reject,
    /// Nothing is said: other nodes have endpoints.
    Drop,
}

/// The virtual addresses of `service`, of the given families.
///
/// Upstream: pkg/proxy/nftables/proxier.go syncProxyRules
pub fn plan(service: &Service, endpoints: &Endpoints, here: &Locality, families: &[Family]) -> Vec<(Vip, Balance)> {
    let mut vips = Vec::new();
    for port in &service.ports {
        let of_port = endpoints.get(&(port.name.clone(), port.protocol)).map(Vec::as_slice).unwrap_or_default();
        for family in families {
            let of_family = |ip: &&IpAddr| Family::of(**ip) == *family;
            let cluster_ips: Vec<_> = service.cluster_ips.iter().filter(of_family).copied().collect();
            if cluster_ips.is_empty() {
                continue;
            }
            let backends = Backends::of(of_port, *family, here);
            let mut add = |address: Option<IpAddr>, number: u16, balance: Balance| {
                vips.push((Vip { family: *family, address, protocol: port.protocol, port: number }, balance));
            };
            for address in cluster_ips {
                add(Some(address), port.port, internal(service, &backends));
            }
            for address in service.external_ips.iter().filter(of_family) {
                add(Some(*address), port.port, external(service, &backends));
            }
            for address in service.load_balancer_ips.iter().filter(of_family) {
                add(Some(*address), port.port, guarded(service, external(service, &backends), *family));
            }
            if let ServicePort { node_port: Some(number), .. } = port {
                add(None, *number, external(service, &backends));
            }
        }
    }
    vips
}

struct Backends {
    anywhere: Vec<(IpAddr, u16)>,
    here: Vec<(IpAddr, u16)>,
    /// On this node, whether usable or not.
    local: Vec<(IpAddr, u16)>,
}

impl Backends {
    fn of(endpoints: &[Endpoint], family: Family, here: &Locality) -> Backends {
        let of_family = |endpoint: &&Endpoint| endpoint.address.is_some_and(|(ip, _)| Family::of(ip) == family);
        let endpoints: Vec<&Endpoint> = endpoints.iter().filter(of_family).collect();
        let local = endpoints.iter().filter(|endpoint| endpoint.node == here.node);
        Backends {
            anywhere: usable(&endpoints, here),
            here: usable_here(&endpoints, here),
            local: local.filter_map(|endpoint| endpoint.address).collect(),
        }
    }

    fn balance(&self, endpoints: &[(IpAddr, u16)], service: &Service) -> Balance {
        let used = |address: &&(IpAddr, u16)| endpoints.contains(address) || self.anywhere.contains(address);
        let mut local: Vec<_> = self.local.iter().filter(used).copied().collect();
        local.sort_unstable();
        local.dedup();
        Balance {
            endpoints: endpoints.to_vec(),
            internal: None,
            local,
            masquerade: false,
            affinity: service.affinity,
            empty: Empty::Reject,
            sources: Vec::new(),
            cluster_ip: false,
        }
    }
}

fn internal(service: &Service, backends: &Backends) -> Balance {
    let balance = match service.internal_local {
        false => backends.balance(&backends.anywhere, service),
        true => Balance { empty: empty(&backends.anywhere), ..backends.balance(&backends.here, service) },
    };
    Balance { cluster_ip: true, ..balance }
}

fn external(service: &Service, backends: &Backends) -> Balance {
    match service.external_local {
        false => Balance { masquerade: true, ..backends.balance(&backends.anywhere, service) },
        true if backends.here.is_empty() && backends.anywhere.is_empty() => backends.balance(&[], service),
        true => Balance {
            internal: Some(backends.anywhere.clone()),
            empty: empty(&backends.anywhere),
            ..backends.balance(&backends.here, service)
        },
    }
}

fn guarded(service: &Service, balance: Balance, family: Family) -> Balance {
    let of_family = |range: &&IpNet| Family::of(range.addr()) == family;
    Balance { sources: service.load_balancer_sources.iter().filter(of_family).copied().collect(), ..balance }
}

/// Silence if only this node has nobody: the client shall try another.
fn empty(anywhere: &[(IpAddr, u16)]) -> Empty {
    if anywhere.is_empty() { Empty::Reject } else { Empty::Drop }
}

#[cfg(test)]
mod tests;
