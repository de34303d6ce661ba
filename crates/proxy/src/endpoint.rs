//! Endpoints of a Service, and which of them get traffic.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::Object;
use k8s_openapi::api::discovery::v1;

use crate::service::protocol;

/// One address that can answer for a port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Address and port.
    pub address: Option<(IpAddr, u16)>,
    /// It shall get traffic.
    pub ready: bool,
    /// It can answer.
    pub serving: bool,
    /// It is being stopped.
    pub terminating: bool,
    /// The node it is on.
    pub node: String,
    /// The zones that shall use it; empty: no hint.
    pub for_zones: Vec<String>,
    /// The nodes that shall use it; empty: no hint.
    pub for_nodes: Vec<String>,
}

/// A Service's endpoints by port name and protocol.
pub type Endpoints = BTreeMap<(String, u8), Vec<Endpoint>>;

/// Where this proxy stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Locality {
    /// The node's name.
    pub node: String,
    /// Its `topology.kubernetes.io/zone`, or empty.
    pub zone: String,
}

/// Adds the endpoints of an EndpointSlice.
pub(crate) fn read(slice: &Object, endpoints: &mut Endpoints) {
    let slice: v1::EndpointSlice = match slice.view() {
        Ok(slice) => slice,
        Err(error) => return tracing::warn!(slice = %slice.key(), %error, "unreadable EndpointSlice"),
    };
    if slice.address_type == "FQDN" {
        return;
    }
    for port in slice.ports.iter().flatten() {
        let (Some(protocol), Some(number)) = (protocol(port.protocol.as_deref()), port.port) else { continue };
        let Ok(number) = u16::try_from(number) else { continue };
        let list = endpoints.entry((port.name.clone().unwrap_or_default(), protocol)).or_default();
        list.extend(slice.endpoints.iter().filter_map(|endpoint| read_one(endpoint, number)));
    }
}

fn read_one(endpoint: &v1::Endpoint, port: u16) -> Option<Endpoint> {
    // Further addresses have no meaning upstream either.
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.clone().unwrap_or_default();
    let ready = conditions.ready.unwrap_or(true);
    let hints = endpoint.hints.clone().unwrap_or_default();
    Some(Endpoint {
        address: Some((ip, port)),
        ready,
        serving: conditions.serving.unwrap_or(ready),
        terminating: conditions.terminating.unwrap_or(false),
        node: endpoint.node_name.clone().unwrap_or_default(),
        for_zones: hints.for_zones.unwrap_or_default().into_iter().map(|zone| zone.name).collect(),
        for_nodes: hints.for_nodes.unwrap_or_default().into_iter().map(|node| node.name).collect(),
    })
}

/// Who gets the traffic of clients anywhere: the ready ones, as far as hints want this node to use them; if there are none,
/// those that still answer while they stop. Sorted, without duplicates.
///
/// Upstream: pkg/proxy/topology.go CategorizeEndpoints
pub(crate) fn usable(endpoints: &[&Endpoint], here: &Locality) -> Vec<(IpAddr, u16)> {
    let ready: Vec<&Endpoint> = endpoints.iter().copied().filter(|endpoint| endpoint.ready).collect();
    let hinted = hinted(&ready, here);
    addresses(if ready.is_empty() { stopping(endpoints) } else { hinted })
}

/// Like [`usable`], of this node's own endpoints; hints don't count.
pub(crate) fn usable_here(endpoints: &[&Endpoint], here: &Locality) -> Vec<(IpAddr, u16)> {
    let local: Vec<&Endpoint> = endpoints.iter().copied().filter(|endpoint| endpoint.node == here.node).collect();
    let ready: Vec<&Endpoint> = local.iter().copied().filter(|endpoint| endpoint.ready).collect();
    addresses(if ready.is_empty() { stopping(&local) } else { ready })
}

fn stopping<'a>(endpoints: &[&'a Endpoint]) -> Vec<&'a Endpoint> {
    endpoints.iter().copied().filter(|endpoint| endpoint.serving && endpoint.terminating).collect()
}

/// Hints count only if every endpoint has one and at least one is for us: else too few might get all the traffic.
fn hinted<'a>(ready: &[&'a Endpoint], here: &Locality) -> Vec<&'a Endpoint> {
    let choose = |hints: fn(&Endpoint) -> &[String], me: &str| -> Option<Vec<&'a Endpoint>> {
        let complete = !me.is_empty() && ready.iter().all(|endpoint| !hints(endpoint).is_empty());
        let mine = ready.iter().copied().filter(|endpoint| hints(endpoint).iter().any(|hint| hint == me));
        let mine: Vec<_> = mine.collect();
        (complete && !mine.is_empty()).then_some(mine)
    };
    choose(|endpoint| &endpoint.for_nodes, &here.node)
        .or_else(|| choose(|endpoint| &endpoint.for_zones, &here.zone))
        .unwrap_or_else(|| ready.to_vec())
}

fn addresses(endpoints: Vec<&Endpoint>) -> Vec<(IpAddr, u16)> {
    let mut addresses: Vec<_> = endpoints.into_iter().filter_map(|endpoint| endpoint.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `last-octet[@node] flags [zones]`: r ready, s serving, t terminating.
    fn endpoint(text: &str) -> Endpoint {
        let mut words = text.split(' ');
        let (last, node) = words.next().unwrap().split_once('@').unwrap();
        let flags = words.next().unwrap();
        Endpoint {
            address: Some(([10, 0, 0, last.parse().unwrap()].into(), 80)),
            ready: flags.contains('r'),
            serving: flags.contains('s'),
            terminating: flags.contains('t'),
            node: node.to_owned(),
            for_zones: words.clone().filter_map(|word| word.strip_prefix("zone=")).map(str::to_owned).collect(),
            for_nodes: words.filter_map(|word| word.strip_prefix("node=")).map(str::to_owned).collect(),
        }
    }

    #[test]
    fn traffic_goes_to_those_that_can_take_it() {
        let here = Locality { node: "me".into(), zone: "z1".into() };
        let check = |texts: &[&str], anywhere: &[u8], local: &[u8]| {
            let endpoints: Vec<_> = texts.iter().map(|text| endpoint(text)).collect();
            let endpoints: Vec<_> = endpoints.iter().collect();
            let expect = |last: &[u8]| last.iter().map(|last| ([10, 0, 0, *last].into(), 80)).collect::<Vec<_>>();
            assert_eq!(usable(&endpoints, &here), expect(anywhere), "{texts:?}");
            assert_eq!(usable_here(&endpoints, &here), expect(local), "{texts:?} here");
        };
        check(&[], &[], &[]);
        check(&["2@you rs", "1@me rs", "1@me rs"], &[1, 2], &[1]);
        check(&["1@me -", "2@you rs"], &[2], &[]);
        // Stopping ones only where there is nothing better.
        check(&["1@me st", "2@you rs"], &[2], &[1]);
        check(&["1@me st", "2@you st", "3@you t"], &[1, 2], &[1]);
        check(&["1@me s", "2@me t"], &[], &[]);
        // Zones: complete, and with one for us.
        check(&["1@me rs zone=z1", "2@you rs zone=z2"], &[1], &[1]);
        check(&["1@me rs zone=z1", "2@you rs"], &[1, 2], &[1]);
        check(&["1@me rs zone=z3", "2@you rs zone=z2"], &[1, 2], &[1]);
        check(&["1@me rs zone=z2", "2@you rs zone=z2 zone=z1"], &[2], &[1]);
        // Nodes come before zones.
        check(&["1@me rs zone=z2 node=me", "2@you rs zone=z1 node=you"], &[1], &[1]);
        check(&["1@me rs zone=z2 node=x", "2@you rs zone=z1 node=you"], &[2], &[1]);
    }

    #[test]
    fn a_slice_is_read_by_port() {
        let slice = r#"{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"name":"web-1"},"addressType":"IPv4",
            "ports":[{"name":"http","port":8080,"protocol":"TCP"},{"name":"dns","port":53,"protocol":"UDP"},{"name":"any"}],
            "endpoints":[{"addresses":["10.0.0.1","10.0.0.9"],"nodeName":"me","conditions":{"ready":true},
                          "hints":{"forZones":[{"name":"z1"}],"forNodes":[{"name":"me"}]}},
                         {"addresses":["10.0.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true}},
                         {"addresses":["10.0.0.3"]}]}"#;
        let mut endpoints = Endpoints::new();
        read(&Object::parse(slice.as_bytes()).unwrap(), &mut endpoints);
        let keys: Vec<_> = endpoints.keys().cloned().collect();
        assert_eq!(keys, [("dns".to_owned(), 17), ("http".to_owned(), 6)]);
        let mut expect = [endpoint("1@me rs zone=z1 node=me"), endpoint("2@ st"), endpoint("3@ rs")];
        for (endpoint, port) in expect.iter_mut().zip([8080; 3]) {
            endpoint.address = endpoint.address.map(|(ip, _)| (ip, port));
        }
        assert_eq!(endpoints[&("http".to_owned(), 6)], expect);
    }
}
