//! Hints by which each zone gets as many endpoints as it has CPUs. Upstream: k8s.io/endpointslice/topologycache.

use std::collections::BTreeMap;

use apimachinery::{Object, ObjectKey, Quantity, Value};
use client::EventType;
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;

use super::ZONE;
use super::pack::Plan;

const MODE: &str = "service.kubernetes.io/topology-mode";
const ELDER_MODE: &str = "service.kubernetes.io/topology-aware-hints";
/// Nodes with one of these are not counted.
const EXCLUDED: [&str; 2] = ["node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master"];
/// How much more than its share a zone's endpoint may get.
const OVERLOAD: f64 = 0.2;

/// How many endpoints each zone has.
type Counts = BTreeMap<String, usize>;
/// Which part of the CPUs each zone has.
type Ratios = BTreeMap<String, f64>;

/// Services that have hints.
#[derive(Default)]
pub(super) struct Topology(Mutex<BTreeMap<ObjectKey, Hinted>>);

#[derive(Default)]
struct Hinted {
    counts: BTreeMap<&'static str, Counts>,
    /// Whether it was told that there are hints, and not yet that they are gone: for all families together.
    told: bool,
}

/// What to tell of a Service.
pub(super) type Told = (EventType, &'static str, String);

/// How many endpoints a zone is to get.
struct Share {
    least: usize,
    most: usize,
    desired: f64,
}

/// Whether the Service asks for hints by zones' sizes.
pub(super) fn is_automatic(service: &Object) -> bool {
    let mode = crate::meta::annotation(service, ELDER_MODE).or_else(|| crate::meta::annotation(service, MODE));
    matches!(mode.as_deref(), Some("Auto" | "auto"))
}

/// What of a node a Service's hints are looked at again for.
pub(super) fn seen(node: &Object) -> (bool, Option<&str>) {
    (crate::pod_garbage::is_ready(&node.to_value()), node.label(ZONE))
}

impl Topology {
    pub(super) fn forget(&self, service: &ObjectKey) {
        self.0.lock().remove(service);
    }

    /// Services of which a zone has too few endpoints for its part of these nodes.
    pub(super) fn overloaded(&self, nodes: impl FnOnce() -> Vec<Node>) -> Vec<ObjectKey> {
        let services = self.0.lock();
        if services.is_empty() {
            return Vec::new();
        }
        let ratios = ratios(&nodes());
        let starves = |hinted: &Hinted| hinted.counts.values().any(|counts| is_overloaded(counts, &ratios));
        services.iter().filter(|(_, hinted)| starves(hinted)).map(|(key, _)| key.clone()).collect()
    }

    /// The Service does not ask for hints: what to tell if it did before.
    pub(super) fn disable(&self, service: &ObjectKey, family: &'static str) -> Option<Told> {
        let told = self.remove(service, family);
        let message = format!("Topology Aware Hints has been disabled, addressType: {family}");
        told.then_some((EventType::Warning, "TopologyAwareHintsDisabled", message))
    }

    fn remove(&self, service: &ObjectKey, family: &'static str) -> bool {
        let mut services = self.0.lock();
        let Some(hinted) = services.get_mut(service) else { return false };
        hinted.counts.remove(family);
        let told = std::mem::take(&mut hinted.told);
        if hinted.counts.is_empty() {
            services.remove(service);
        }
        told
    }

    /// Gives the endpoints of one family hints, or takes them where it cannot be done well.
    pub(super) fn hint(
        &self,
        service: &ObjectKey,
        family: &'static str,
        plan: &mut Plan,
        nodes: &[Node],
    ) -> Option<Told> {
        match assign(plan, &ratios(nodes)) {
            Ok(counts) => {
                let mut services = self.0.lock();
                let hinted = services.entry(service.clone()).or_default();
                hinted.counts.insert(family, counts);
                let new = !std::mem::replace(&mut hinted.told, true);
                let message = format!("Topology Aware Hints has been enabled, addressType: {family}");
                new.then_some((EventType::Normal, "TopologyAwareHintsEnabled", message))
            }
            Err(why) => {
                self.remove(service, family);
                let (made, kept) = (&mut plan.made, &mut plan.kept);
                for slice in kept.iter_mut() {
                    slice.changed |= slice.endpoints.iter().any(|endpoint| endpoint.get("hints").is_some());
                }
                let made = made.iter_mut().flat_map(|made| &mut made.endpoints);
                for endpoint in made.chain(kept.iter_mut().flat_map(|slice| &mut slice.endpoints)) {
                    endpoint.remove(&["hints"]);
                }
                Some((EventType::Warning, "TopologyAwareHintsDisabled", format!("{why}, addressType: {family}")))
            }
        }
    }
}

fn is_overloaded(counts: &Counts, ratios: &Ratios) -> bool {
    let total: usize = counts.values().sum();
    let starves = |(zone, ratio): (&String, &f64)| {
        let least = (total as f64 * ratio / (1.0 + OVERLOAD)).ceil() as usize;
        counts.get(zone).is_none_or(|count| *count < least)
    };
    !counts.is_empty() && (ratios.is_empty() || ratios.iter().any(starves))
}

/// Each zone's part of the ready nodes' CPUs; nothing if that is not known of every node, or there is one zone only.
fn ratios(nodes: &[Node]) -> Ratios {
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

/// What is written anyway gets hints, first for each endpoint's own zone; then zones with too many give to those with too few. It tells
/// how many each zone has. Upstream: topologycache AddHints.
fn assign(plan: &mut Plan, ratios: &Ratios) -> Result<Counts, String> {
    let made = plan.made.iter().map(|made| &made.endpoints);
    let all = made.chain(plan.kept.iter().map(|slice| &slice.endpoints)).flatten();
    let shares = shares(all.filter(|endpoint| is_ready(endpoint)).count(), ratios)?;
    let mut counts = Counts::new();
    for slice in plan.kept.iter_mut().filter(|slice| !slice.changed) {
        match hinted(&slice.endpoints, &counts, &shares) {
            Some(here) => here.into_iter().for_each(|(zone, n)| *counts.entry(zone).or_default() += n),
            None => slice.changed = true,
        }
    }
    let changed = plan.kept.iter_mut().filter(|slice| slice.changed).map(|slice| &mut slice.endpoints);
    let written = plan.made.iter_mut().map(|made| &mut made.endpoints).chain(changed).flatten();
    let mut written: Vec<&mut Value> = written.filter(|endpoint| is_ready(endpoint)).collect();
    for endpoint in &mut written {
        let Some(zone) = zone_of(endpoint) else {
            return Err("One or more endpoints do not have a zone specified".to_owned());
        };
        set_hint(endpoint, &zone);
        *counts.entry(zone).or_default() += 1;
    }
    let (mut giving, mut receiving) = moves(&counts, &shares);
    for endpoint in written {
        let Some(zone) = zone_of(endpoint).filter(|zone| take_one(&mut giving, zone)) else { continue };
        let Some(to) = receiving.keys().next().cloned() else { break };
        take_one(&mut receiving, &to);
        set_hint(endpoint, &to);
        *counts.entry(zone).or_default() -= 1;
        *counts.entry(to).or_default() += 1;
    }
    if counts.is_empty() { Err("No hints allocated for zones".to_owned()) } else { Ok(counts) }
}

/// Takes one from those of `zone`, if any is left.
fn take_one(zones: &mut Counts, zone: &str) -> bool {
    let Some(left) = zones.get_mut(zone) else { return false };
    *left -= 1;
    if *left == 0 {
        zones.remove(zone);
    }
    true
}

/// The hints of a slice that stays as it is, by zone; `None` where it cannot.
fn hinted(endpoints: &[Value], others: &Counts, shares: &BTreeMap<String, Share>) -> Option<Counts> {
    let mut counts = Counts::new();
    for endpoint in endpoints.iter().filter(|endpoint| is_ready(endpoint)) {
        let zones = endpoint.items_at(&["hints", "forZones"]);
        if zones.is_empty() {
            return None;
        }
        for zone in zones.iter().filter_map(|zone| zone.str_at(&["name"])) {
            shares.get(zone)?;
            *counts.entry(zone.to_owned()).or_default() += 1;
        }
    }
    let fits = |(zone, n): (&String, &usize)| {
        let before = others.get(zone).copied().unwrap_or_default();
        shares.get(zone).is_some_and(|share| n + before <= share.most)
    };
    counts.iter().all(fits).then_some(counts)
}

/// How many endpoints which zones give, and which receive. Upstream: getGivingAndReceivingZones.
fn moves(counts: &Counts, shares: &BTreeMap<String, Share>) -> (Counts, Counts) {
    let surplus = |(zone, share): (&String, &Share)| {
        (zone.clone(), counts.get(zone).copied().unwrap_or_default() as f64 - share.desired)
    };
    let mut surplus: BTreeMap<String, f64> = shares.iter().map(surplus).collect();
    let (mut giving, mut receiving) = (Counts::new(), Counts::new());
    loop {
        let rich = surplus.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, n)| (zone.clone(), *n));
        let poor = surplus.iter().min_by(|a, b| a.1.total_cmp(b.1)).map(|(zone, n)| (zone.clone(), -*n));
        let (Some((rich, gives)), Some((poor, lacks))) = (rich, poor) else { break };
        if gives < 0.5 || lacks < 0.5 || gives < 1.0 && lacks < 1.0 {
            break;
        }
        *surplus.entry(rich.clone()).or_default() -= 1.0;
        *surplus.entry(poor.clone()).or_default() += 1.0;
        *giving.entry(rich).or_default() += 1;
        *receiving.entry(poor).or_default() += 1;
    }
    (giving, receiving)
}

fn is_ready(endpoint: &Value) -> bool {
    endpoint.bool_at(&["conditions", "ready"]) == Some(true)
}

fn zone_of(endpoint: &Value) -> Option<String> {
    endpoint.str_at(&["zone"]).filter(|zone| !zone.is_empty()).map(str::to_owned)
}

fn set_hint(endpoint: &mut Value, zone: &str) {
    let mut named = Value::object();
    named.set(&["name"], zone);
    endpoint.set(&["hints", "forZones"], vec![named]);
}

fn shares(endpoints: usize, ratios: &Ratios) -> Result<BTreeMap<String, Share>, String> {
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
        shares.insert(zone.clone(), Share { least, most: least, desired: desired.max(least as f64) });
    }
    let needed: usize = shares.values().map(|share| share.least).sum();
    if needed > endpoints {
        let why = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold";
        return Err(format!("{why} {of}"));
    }
    for share in shares.values_mut() {
        share.most = share.least + endpoints - needed;
    }
    Ok(shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint_slice::pack::Desired;

    fn endpoint(zone: &str) -> Value {
        Value::parse(format!(r#"{{"conditions":{{"ready":true}},"zone":"{zone}"}}"#).as_bytes()).unwrap()
    }

    /// The hints of endpoints in `zones`, or why there are none.
    fn check(zones: &str, ratios: &[(&str, f64)], expect: &str) {
        let endpoints = zones.split_whitespace().map(endpoint).collect();
        let mut plan = Plan { made: vec![Desired { ports: Vec::new(), endpoints }], ..Plan::default() };
        let ratios = ratios.iter().map(|(zone, ratio)| ((*zone).to_owned(), *ratio)).collect();
        let found = match assign(&mut plan, &ratios) {
            Err(why) => why,
            Ok(counts) => {
                let hint = |endpoint: &Value| {
                    let zones = endpoint.items_at(&["hints", "forZones"]);
                    zones[0].str_at(&["name"]).unwrap().to_owned()
                };
                let hints: Vec<String> = plan.made[0].endpoints.iter().map(hint).collect();
                for (zone, n) in counts {
                    assert_eq!(hints.iter().filter(|hint| **hint == zone).count(), n, "{zone}");
                }
                hints.join(" ")
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
        check("a a a b", &[("a", 0.5), ("b", 0.5)], "b a a b");
        // Less than one endpoint is neither given nor taken.
        check("a a a b b b b", &[("a", 0.5), ("b", 0.5)], "a a a b b b b");
        // A zone without nodes keeps what it has.
        check("x x a a b b", &[("a", 0.5), ("b", 0.5)], "x x a a b b");
    }

    #[test]
    fn services_are_looked_at_again_when_a_zone_starves() {
        let check = |counts: &[(&str, usize)], ratios: &[(&str, f64)], expect: bool| {
            let counts: Counts = counts.iter().map(|(zone, n)| ((*zone).to_owned(), *n)).collect();
            let ratios: Ratios = ratios.iter().map(|(zone, ratio)| ((*zone).to_owned(), *ratio)).collect();
            assert_eq!(is_overloaded(&counts, &ratios), expect, "{counts:?} {ratios:?}");
        };
        let halves = [("a", 0.5), ("b", 0.5)];
        check(&[], &halves, false);
        check(&[("a", 3), ("b", 3)], &halves, false);
        check(&[("a", 3), ("b", 3)], &[], true);
        check(&[("a", 3)], &halves, true);
        check(&[("a", 5), ("b", 1)], &halves, true);
        check(&[("a", 7), ("b", 5)], &halves, false);
    }
}
