//! Hints by which each zone gets as many endpoints as it has CPUs. Upstream: k8s.io/endpointslice/topologycache.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Object, ObjectKey, Quantity, Value};
use client::EventType;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;

use super::{Desired, ZONE};

const MODE: &str = "service.kubernetes.io/topology-mode";
const ELDER_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes with one of these are not counted.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more than its share a zone's endpoint may get.
const OVERLOAD: f64 = 0.2;

/// Services that have hints, with the address types that have.
#[derive(Default)]
pub(super) struct Topology(Mutex<BTreeMap<ObjectKey, BTreeSet<&'static str>>>);

/// What to tell of a Service.
pub(super) type Told = (EventType, &'static str, String);

/// How many endpoints a zone is to get.
struct Share {
    least: usize,
    desired: f64,
}

/// Whether the Service asks for hints by zones' sizes.
pub(super) fn is_automatic(service: &Object) -> bool {
    let mode = crate::meta::annotation(service, MODE).or_else(|| crate::meta::annotation(service, ELDER_MODE));
    matches!(mode.as_deref(), Some("Auto" | "auto"))
}

impl Topology {
    pub(super) fn forget(&self, service: &ObjectKey) {
        self.0.lock().remove(service);
    }

    /// The Service does not ask for hints: what to tell if it did before.
    pub(super) fn disable(&self, service: &ObjectKey, family: &'static str) -> Option<Told> {
        let had = self.remove(service, family);
        let message = format!("Topology Aware Hints has been disabled, addressType: {family}");
        had.then_some((EventType::Warning, "TopologyAwareHintsDisabled", message))
    }

    fn remove(&self, service: &ObjectKey, family: &'static str) -> bool {
        let mut services = self.0.lock();
        let Some(families) = services.get_mut(service) else { return false };
        let had = families.remove(family);
        if families.is_empty() {
            services.remove(service);
        }
        had
    }

    /// Gives the endpoints of one family hints, or takes them where it cannot be done well.
    pub(super) fn hint(
        &self,
        service: &ObjectKey,
        family: &'static str,
        desired: &mut [Desired],
        nodes: &[Node],
    ) -> Option<Told> {
        match assign(desired, &ratios(nodes)) {
            Ok(()) => {
                let new = self.0.lock().entry(service.clone()).or_default().insert(family);
                let message = format!("Topology Aware Hints has been enabled, addressType: {family}");
                new.then_some((EventType::Normal, "TopologyAwareHintsEnabled", message))
            }
            Err(why) => {
                self.remove(service, family);
                for endpoint in desired.iter_mut().flat_map(|desired| &mut desired.endpoints) {
                    endpoint.remove(&["hints"]);
                }
                Some((EventType::Warning, "TopologyAwareHintsDisabled", format!("{why}, addressType: {family}")))
            }
        }
    }
}

/// Each zone's part of the ready nodes' CPUs; nothing if that is not known of every node, or there is one zone only.
fn ratios(nodes: &[Node]) -> BTreeMap<String, f64> {
    let mut by_zone: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes {
        let labels = node.metadata.labels.as_ref();
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
        if !ready || EXCLUDED.iter().any(|label| labels.is_some_and(|labels| labels.contains_key(*label))) {
            continue;
        }
        let zone = labels.and_then(|labels| labels.get(ZONE)).filter(|zone| !zone.is_empty());
        let cpu = status.and_then(|status| status.allocatable.as_ref()?.get("cpu")?.0.parse::<Quantity>().ok());
        let cpu = cpu.map(|cpu| cpu.milli_value() as f64).filter(|cpu| *cpu > 0.0);
        let (Some(zone), Some(cpu)) = (zone, cpu) else { return BTreeMap::new() };
        *by_zone.entry(zone.clone()).or_default() += cpu;
    }
    let total: f64 = by_zone.values().sum();
    if by_zone.len() < 2 {
        return BTreeMap::new();
    }
    by_zone.into_iter().map(|(zone, cpu)| (zone, cpu / total)).collect()
}

fn assign(desired: &mut [Desired], ratios: &BTreeMap<String, f64>) -> Result<(), String> {
    let is_ready = |endpoint: &Value| endpoint.bool_at(&["conditions", "ready"]) != Some(false);
    let mut endpoints: Vec<&mut Value> = desired.iter_mut().flat_map(|desired| &mut desired.endpoints).collect();
    endpoints.retain(|endpoint| is_ready(endpoint));
    let shares = shares(endpoints.len(), ratios)?;
    let mut by_zone: BTreeMap<String, Vec<&mut Value>> = BTreeMap::new();
    for endpoint in endpoints {
        let Some(zone) = endpoint.str_at(&["zone"]).filter(|zone| !zone.is_empty()).map(str::to_owned) else {
            return Err("One or more endpoints do not have a zone specified".to_owned());
        };
        by_zone.entry(zone).or_default().push(endpoint);
    }
    if by_zone.is_empty() {
        return Err("No hints allocated for zones".to_owned());
    }
    // One after the other goes from the zone with the most too many to that with the most too few.
    loop {
        let count = |zone: &str| by_zone.get(zone).map_or(0, Vec::len);
        let surplus = |zone: &str| count(zone) as f64 - shares.get(zone).map_or(0.0, |share| share.desired);
        let mut zones: Vec<&String> = shares.keys().chain(by_zone.keys()).collect();
        zones.sort_by(|a, b| surplus(a).total_cmp(&surplus(b)));
        let (Some(poor), Some(rich)) = (zones.first(), zones.last()) else { break };
        let starves = count(poor) < shares.get(*poor).map_or(0, |share| share.least);
        let gives = count(rich) > shares.get(*rich).map_or(0, |share| share.least);
        if !gives || !(starves || surplus(poor) <= -0.5 && surplus(rich) >= 0.5) {
            break;
        }
        let (poor, rich) = ((*poor).clone(), (*rich).clone());
        let Some(moved) = by_zone.get_mut(&rich).and_then(Vec::pop) else { break };
        by_zone.entry(poor).or_default().push(moved);
    }
    for (zone, endpoints) in by_zone {
        for endpoint in endpoints {
            let mut named = Value::object();
            named.set(&["name"], &zone);
            endpoint.set(&["hints", "forZones"], vec![named]);
        }
    }
    Ok(())
}

fn shares(endpoints: usize, ratios: &BTreeMap<String, f64>) -> Result<BTreeMap<String, Share>, String> {
    let of = format!("({endpoints} endpoints, {} zones)", ratios.len());
    if ratios.is_empty() {
        let why = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes";
        return Err(why.to_owned());
    }
    if ratios.len() > endpoints {
        return Err(format!("Insufficient number of endpoints {of}"));
    }
    let mut shares = BTreeMap::new();
    for (zone, ratio) in ratios {
        let desired = ratio * endpoints as f64;
        let least = (desired / (1.0 + OVERLOAD)).ceil() as usize;
        shares.insert(zone.clone(), Share { least, desired: desired.max(least as f64) });
    }
    if shares.values().map(|share| share.least).sum::<usize>() > endpoints {
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {of}"));
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(zone: &str) -> Value {
        Value::parse(format!(r#"{{"conditions":{{"ready":true}},"zone":"{zone}"}}"#).as_bytes()).unwrap()
    }

    /// The hints of endpoints in `zones`, or why there are none.
    fn check(zones: &str, ratios: &[(&str, f64)], expect: &str) {
        let endpoints = zones.split_whitespace().map(endpoint).collect();
        let mut desired = [Desired { ports: Vec::new(), endpoints }];
        let ratios = ratios.iter().map(|(zone, ratio)| ((*zone).to_owned(), *ratio)).collect();
        let found = match assign(&mut desired, &ratios) {
            Err(why) => why,
            Ok(()) => {
                let hint = |endpoint: &Value| {
                    let zones = endpoint.items_at(&["hints", "forZones"]);
                    zones[0].str_at(&["name"]).unwrap().to_owned()
                };
                desired[0].endpoints.iter().map(hint).collect::<Vec<_>>().join(" ")
            }
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn zones_get_endpoints_by_their_size() {
        let thirds = [("a", 1.0 / 3.0), ("b", 1.0 / 3.0), ("c", 1.0 / 3.0)];
        check("a a b b c c", &thirds, "a a b b c c");
        check("a b", &thirds, "Insufficient number of endpoints (2 endpoints, 3 zones)");
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        check("a b c a", &thirds, &format!("{why} (4 endpoints, 3 zones)"));
        check("a b", &[], "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes");
        check("a a a b", &[("a", 0.5), ("b", 0.5)], "a a b b");
    }
}
