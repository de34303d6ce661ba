//! Which records Services have. Pure: no clock, no network.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::ObjectKey;
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{LowerName, Name, RData, Record, RecordType};
use serde::{Deserialize, Serialize};

/// Seconds that an answer may be kept.
const TTL: u32 = 30;
/// The version of the specification that the records follow.
const DNS_VERSION: &str = "1.1.0";

/// A Service, as far as DNS tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Service {
    pub kind: ServiceKind,
    pub ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum ServiceKind {
    /// Its own addresses.
    Addresses(Vec<IpAddr>),
    /// Those of its endpoints.
    #[serde(rename_all = "camelCase")]
    Headless { not_ready_too: bool },
    /// Another name.
    External(String),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Port {
    pub name: String,
    /// In lower case.
    pub protocol: String,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub ip: IpAddr,
    pub hostname: Option<String>,
    pub ready: bool,
    pub ports: Vec<Port>,
}

/// What a zone says of a name.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// The records of the type asked for, or the CNAME that stands for all; none: the name exists without such records.
    Records(Vec<Record>),
    /// The zone is ours, the name is not in it.
    NoSuchName,
    /// Not our zone.
    Elsewhere,
}

/// All records of the cluster.
pub(crate) struct Zone {
    domain: Name,
    /// `pod.cluster.local`, under which every address has a name.
    pods: LowerName,
    soa: Record,
    names: HashMap<LowerName, Vec<Record>>,
    /// How many names exist at or below each name: such a name exists even without records.
    below: HashMap<LowerName, usize>,
    by_service: HashMap<ObjectKey, Vec<Record>>,
}

impl Zone {
    /// The zone of a cluster without Services; `None` if `domain` is no name.
    pub(crate) fn new(domain: &str) -> Option<Zone> {
        let domain = Name::from_ascii(domain).ok()?.append_domain(&Name::root()).ok()?;
        let under = |label: &str| Name::from_ascii(label).and_then(|label| label.append_domain(&domain)).ok();
        let ns = under("ns.dns")?;
        let soa = SOA::new(ns.clone(), under("hostmaster")?, 1, 7200, 1800, 86400, 5);
        let soa = Record::from_rdata(domain.clone(), 5, RData::SOA(soa));
        let mut zone = Zone {
            pods: under("pod")?.into(),
            names: HashMap::new(),
            below: HashMap::new(),
            by_service: HashMap::new(),
            soa,
            domain: domain.clone(),
        };
        let version = Record::from_rdata(under("dns-version")?, TTL, RData::TXT(TXT::new(vec![DNS_VERSION.into()])));
        let apex = [zone.soa.clone(), Record::from_rdata(zone.domain.clone(), TTL, RData::NS(NS(ns))), version];
        for record in apex {
            zone.add(record);
        }
        Some(zone)
    }

    pub(crate) fn soa(&self) -> &Record {
        &self.soa
    }

    /// Replaces what the zone says of one Service; `None`: it is gone.
    pub(crate) fn set(&mut self, key: &ObjectKey, service: Option<&Service>, endpoints: &[Endpoint]) {
        for record in self.by_service.remove(key).into_iter().flatten() {
            self.remove(&record);
        }
        let Some(service) = service else { return };
        let records = self.records(key, service, endpoints).unwrap_or_default();
        for record in &records {
            self.add(record.clone());
        }
        self.by_service.insert(key.clone(), records);
    }

    /// Forgets every Service that `keep` doesn't know.
    pub(crate) fn retain(&mut self, keep: &HashSet<ObjectKey>) {
        let gone: Vec<_> = self.by_service.keys().filter(|key| !keep.contains(key)).cloned().collect();
        for key in gone {
            self.set(&key, None, &[]);
        }
    }

    /// What there is for `name` and `kind`.
    pub(crate) fn find(&self, name: &LowerName, kind: RecordType) -> Found {
        if let Some(records) = self.names.get(name) {
            let wanted = |record: &&Record| {
                let has = record.record_type();
                has == kind || has == RecordType::CNAME || kind == RecordType::ANY
            };
            return Found::Records(records.iter().filter(wanted).cloned().collect());
        }
        if self.below.contains_key(name) {
            return Found::Records(Vec::new());
        }
        if let Some(ip) = self.pod_address(name) {
            let record = address_record(Name::from(name.clone()), ip);
            return Found::Records(if record.record_type() == kind { vec![record] } else { Vec::new() });
        }
        if LowerName::from(&self.domain).zone_of(name) { Found::NoSuchName } else { Found::Elsewhere }
    }

    /// `10-244-0-7.default.pod.cluster.local` is 10.244.0.7, whether or not there is such a pod.
    fn pod_address(&self, name: &LowerName) -> Option<IpAddr> {
        if !self.pods.zone_of(name) || name.num_labels() != self.pods.num_labels() + 2 {
            return None;
        }
        let labels = Name::from(name.clone());
        let label = std::str::from_utf8(labels.iter().next()?).ok()?;
        let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
        v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
    }

    /// `None` if a part of it is no DNS label, which the API server would not have let in.
    fn records(&self, key: &ObjectKey, service: &Service, endpoints: &[Endpoint]) -> Option<Vec<Record>> {
        let name = self.under(&format!("{}.{}.svc", key.name, key.namespace))?;
        let mut records = Vec::new();
        match &service.kind {
            ServiceKind::External(target) => {
                let target = Name::from_ascii(target).ok()?.append_domain(&Name::root()).ok()?;
                records.push(Record::from_rdata(name, TTL, RData::CNAME(CNAME(target))));
            }
            ServiceKind::Addresses(addresses) => {
                for ip in addresses {
                    records.push(address_record(name.clone(), *ip));
                    records.push(pointer(*ip, &name)?);
                }
                for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
                    records.push(srv(port, &name, &name, 100)?);
                }
            }
            ServiceKind::Headless { not_ready_too } => {
                let shown: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.ready || *not_ready_too).collect();
                let mut seen = BTreeSet::new();
                for endpoint in shown.iter().filter(|endpoint| seen.insert(endpoint.ip)) {
                    let label = endpoint.hostname.clone().unwrap_or_else(|| dashed(endpoint.ip));
                    let host = Name::from_ascii(&label).ok()?.append_domain(&name).ok()?;
                    records.push(address_record(name.clone(), endpoint.ip));
                    records.push(address_record(host.clone(), endpoint.ip));
                    if endpoint.hostname.is_some() {
                        records.push(pointer(endpoint.ip, &host)?);
                    }
                    for port in endpoint.ports.iter().filter(|port| !port.name.is_empty()) {
                        records.push(srv(port, &name, &host, 100 / seen_weight(shown.len()))?);
                    }
                }
            }
        }
        Some(records)
    }

    fn under(&self, labels: &str) -> Option<Name> {
        Name::from_ascii(labels).ok()?.append_domain(&self.domain).ok()
    }

    fn add(&mut self, record: Record) {
        let name = LowerName::from(&record.name);
        let records = self.names.entry(name).or_default();
        if records.is_empty() {
            for parent in parents(&record.name, &self.domain) {
                *self.below.entry(parent).or_default() += 1;
            }
        }
        if !records.contains(&record) {
            records.push(record);
        }
    }

    fn remove(&mut self, record: &Record) {
        let name = LowerName::from(&record.name);
        let Some(records) = self.names.get_mut(&name) else { return };
        records.retain(|other| other != record);
        if records.is_empty() {
            self.names.remove(&name);
            for parent in parents(&record.name, &self.domain) {
                if let Some(count) = self.below.get_mut(&parent) {
                    *count -= 1;
                    if *count == 0 {
                        self.below.remove(&parent);
                    }
                }
            }
        }
    }
}

/// Clients share load by weight: a hundred between all endpoints, at least one each.
fn seen_weight(endpoints: usize) -> u16 {
    endpoints.clamp(1, 100) as u16
}

/// The names above `name`, within the zone or, for reverse names, all.
fn parents(name: &Name, domain: &Name) -> Vec<LowerName> {
    let last = if domain.zone_of(name) { domain.num_labels() } else { 2 };
    let mut above = Vec::new();
    let mut here = name.base_name();
    while here.num_labels() > last {
        above.push(LowerName::from(&here));
        here = here.base_name();
    }
    above
}

fn address_record(name: Name, ip: IpAddr) -> Record {
    let data = match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    };
    Record::from_rdata(name, TTL, data)
}

fn pointer(ip: IpAddr, name: &Name) -> Option<Record> {
    let mut reverse = Name::from(ip);
    reverse.set_fqdn(true);
    Some(Record::from_rdata(reverse, TTL, RData::PTR(PTR(name.clone()))))
}

fn srv(port: &Port, service: &Name, target: &Name, weight: u16) -> Option<Record> {
    let labels = Name::from_ascii(format!("_{}._{}", port.name, port.protocol)).ok()?;
    let name = labels.append_domain(service).ok()?;
    Some(Record::from_rdata(name, TTL, RData::SRV(SRV::new(0, weight, port.port, target.clone()))))
}

fn dashed(ip: IpAddr) -> String {
    ip.to_string().replace(['.', ':'], "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.into(), protocol: "tcp".into(), port: number }
    }

    fn endpoint(ip: &str, hostname: Option<&str>, ready: bool) -> Endpoint {
        let hostname = hostname.map(str::to_owned);
        Endpoint { ip: ip.parse().unwrap(), hostname, ready, ports: vec![port("http", 8080)] }
    }

    fn zone() -> Zone {
        let mut zone = Zone::new("cluster.local").unwrap();
        let mut set = |name: &str, kind, endpoints: &[Endpoint]| {
            let service = Service { kind, ports: vec![port("http", 80), port("", 81)] };
            zone.set(&ObjectKey::new("ns", name), Some(&service), endpoints);
        };
        set("web", ServiceKind::Addresses(vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()]), &[]);
        let endpoints = [
            endpoint("10.244.0.2", Some("db-0"), true),
            endpoint("10.244.0.3", None, true),
            endpoint("10.244.0.4", None, false),
        ];
        set("db", ServiceKind::Headless { not_ready_too: false }, &endpoints);
        set("early", ServiceKind::Headless { not_ready_too: true }, &endpoints);
        set("out", ServiceKind::External("www.example.com".into()), &[]);
        zone
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType) -> String {
        match zone.find(&LowerName::from(Name::from_ascii(name).unwrap()), kind) {
            Found::NoSuchName => "no such name".into(),
            Found::Elsewhere => "elsewhere".into(),
            Found::Records(records) => {
                let mut shown: Vec<String> = records.iter().map(|record| record.data.to_string()).collect();
                shown.sort();
                shown.join(" | ")
            }
        }
    }

    #[test]
    fn services_have_their_records() {
        let zone = zone();
        let check = |name: &str, kind, expect: &str| assert_eq!(ask(&zone, name, kind), expect, "{name} {kind}");
        use RecordType as T;
        check("web.ns.svc.cluster.local.", T::A, "10.96.0.7");
        check("WEB.ns.svc.Cluster.local.", T::AAAA, "fd00::7");
        check("web.ns.svc.cluster.local.", T::TXT, "");
        check("_http._tcp.web.ns.svc.cluster.local.", T::SRV, "0 100 80 web.ns.svc.cluster.local.");
        check("_tcp.web.ns.svc.cluster.local.", T::A, "");
        check("7.0.96.10.in-addr.arpa.", T::PTR, "web.ns.svc.cluster.local.");
        check("db.ns.svc.cluster.local.", T::A, "10.244.0.2 | 10.244.0.3");
        check("db-0.db.ns.svc.cluster.local.", T::A, "10.244.0.2");
        check("10-244-0-3.db.ns.svc.cluster.local.", T::A, "10.244.0.3");
        check("early.ns.svc.cluster.local.", T::A, "10.244.0.2 | 10.244.0.3 | 10.244.0.4");
        check(
            "_http._tcp.db.ns.svc.cluster.local.",
            T::SRV,
            "0 50 8080 10-244-0-3.db.ns.svc.cluster.local. | 0 50 8080 db-0.db.ns.svc.cluster.local.",
        );
        check("out.ns.svc.cluster.local.", T::A, "www.example.com.");
        check("nothing.ns.svc.cluster.local.", T::A, "no such name");
        check("ns.svc.cluster.local.", T::A, "");
        check("10-244-9-9.ns.pod.cluster.local.", T::A, "10.244.9.9");
        check("x.ns.pod.cluster.local.", T::A, "no such name");
        check("dns-version.cluster.local.", T::TXT, "1.1.0");
        check("www.example.com.", T::A, "elsewhere");
        check("9.0.96.10.in-addr.arpa.", T::PTR, "elsewhere");
    }

    #[test]
    fn a_snapshot_forgets_the_rest() {
        let mut zone = zone();
        zone.retain(&[ObjectKey::new("ns", "web")].into());
        assert_eq!(ask(&zone, "web.ns.svc.cluster.local.", RecordType::A), "10.96.0.7");
        assert_eq!(ask(&zone, "db.ns.svc.cluster.local.", RecordType::A), "no such name");
    }

    #[test]
    fn what_is_gone_leaves_nothing() {
        let mut zone = zone();
        for name in ["web", "db", "early", "out"] {
            zone.set(&ObjectKey::new("ns", name), None, &[]);
        }
        let empty = Zone::new("cluster.local").unwrap();
        assert_eq!(zone.names.len(), empty.names.len());
        assert_eq!(zone.below, empty.below);
        assert_eq!(ask(&zone, "db.ns.svc.cluster.local.", RecordType::A), "no such name");
    }
}
