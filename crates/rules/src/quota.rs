//! What objects count against quotas: the API server charges by it, the quota controller recalculates by it.
//!
//! Upstream: apiserver pkg/quota/v1, plugin/resourcequota, pkg/quota/v1/evaluator/core.

mod amounts;
mod pods;
mod scopes;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use apimachinery::{Quantity, Value};
use jiff::Timestamp;

pub use amounts::Amounts;
pub use pods::{PodAmounts, expires, is_terminating, pod_amounts};
pub use scopes::Scope;

const CLAIM_CLASS: &str = ".storageclass.storage.k8s.io/";
const DEVICES_OF_CLASS: &str = ".deviceclass.resource.k8s.io/devices";
/// What a claim for all devices may get at most. Upstream: AllocationResultsMaxSize.
const MOST_DEVICES: i64 = 32;
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const CLAIM_RESOURCES: [&str; 2] = ["persistentvolumeclaims", "requests.storage"];
const SERVICE_RESOURCES: [&str; 4] = ["count/services", "services", "services.nodeports", "services.loadbalancers"];
/// Kinds that could be counted by their plain name before any kind could.
const OLD_NAMES: [&str; 4] = ["configmaps", "resourcequotas", "replicationcontrollers", "secrets"];

/// A quota, as its status has it.
#[derive(Clone, Debug, Default)]
pub struct Quota {
    pub name: String,
    pub scopes: Vec<Scope>,
    pub hard: Amounts,
    pub used: Amounts,
}

/// What of the object's kind quotas can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resource<'a> {
    pub group: &'a str,
    pub plural: &'a str,
}

/// A write that may have to be charged.
pub struct Request<'a> {
    pub resource: Resource<'a>,
    pub new: &'a Value,
    /// What the object was, for updates.
    pub old: Option<&'a Value>,
    /// Otherwise it is only charged: what has happened already.
    pub enforced: bool,
    pub now: Timestamp,
}

impl Quota {
    /// Reads a ResourceQuota.
    pub fn read(quota: &Value) -> Quota {
        Quota {
            name: quota.str_at(&["metadata", "name"]).unwrap_or_default().to_owned(),
            scopes: Scope::all(quota),
            hard: Amounts::read(quota.at(&["status", "hard"])),
            used: Amounts::read(quota.at(&["status", "used"])),
        }
    }

    /// Whether the quota limits anything of this object. Upstream: generic.Matches.
    fn concerns(&self, resource: Resource<'_>, object: &Value) -> bool {
        self.hard.names().any(|name| resource.has(name)) && self.covers(resource, object)
    }

    /// Whether the object is in the quota's scopes.
    pub fn covers(&self, resource: Resource<'_>, object: &Value) -> bool {
        self.scopes.iter().all(|scope| scope.has(resource, object))
    }
}

impl<'a> Resource<'a> {
    pub fn new(group: &'a str, plural: &'a str) -> Resource<'a> {
        Resource { group, plural }
    }

    /// How any kind can be counted: `count/deployments.apps`.
    pub fn count_name(&self) -> String {
        match self.group {
            "" => format!("count/{}", self.plural),
            group => format!("count/{}.{group}", self.plural),
        }
    }

    /// Whether `name` limits objects of this kind. Upstream: MatchingResources.
    pub fn has(&self, name: &str) -> bool {
        let is_count = || name.strip_prefix("count/").is_some_and(|counted| self.is_counted_as(counted));
        match (self.group, self.plural) {
            ("", "pods") => pods::is_resource(name),
            ("", "services") => SERVICE_RESOURCES.contains(&name),
            ("", "persistentvolumeclaims") => {
                is_count()
                    || CLAIM_RESOURCES.contains(&name)
                    || CLAIM_RESOURCES
                        .iter()
                        .any(|of| name.strip_suffix(of).is_some_and(|class| class.ends_with(CLAIM_CLASS)))
            }
            ("resource.k8s.io", "resourceclaims") => is_count() || name.ends_with(DEVICES_OF_CLASS),
            ("", plural) if OLD_NAMES.contains(&plural) => name == plural || is_count(),
            _ => is_count(),
        }
    }

    fn is_counted_as(&self, counted: &str) -> bool {
        match self.group {
            "" => counted == self.plural,
            group => counted.strip_prefix(self.plural).and_then(|rest| rest.strip_prefix('.')) == Some(group),
        }
    }

    /// What the object uses.
    pub fn usage(&self, object: &Value, now: Timestamp) -> Amounts {
        match (self.group, self.plural) {
            ("", "pods") => pods::usage(object, now),
            ("", "services") => services(object),
            ("", "persistentvolumeclaims") => claims(object),
            (group, plural) => {
                let mut usage = Amounts::default();
                usage.set(self.count_name(), one());
                if (group, plural) == ("resource.k8s.io", "resourceclaims") {
                    usage.add(&devices(object));
                }
                if group.is_empty() && OLD_NAMES.contains(&plural) {
                    usage.set(plural, one());
                }
                usage
            }
        }
    }
}

/// What must be written so that the request may be: for each quota (by its place) that changes what it will have used; or why
/// the request is refused. Upstream: CheckRequest.
pub fn check(quotas: &[Quota], request: &Request<'_>) -> Result<Vec<(usize, Amounts)>, String> {
    let Request { resource, new, old, enforced, now } = request;
    let concerned: Vec<(usize, &Quota)> =
        quotas.iter().enumerate().filter(|(_, quota)| quota.concerns(*resource, new)).collect();
    for (_, quota) in &concerned {
        let restricted: BTreeSet<&str> = quota.hard.names().filter(|name| resource.has(name)).collect();
        if let Some(missing) = missing(*resource, &restricted, new) {
            return Err(format!("failed quota: {}: must specify {missing}", quota.name));
        }
        if restricted.iter().any(|name| quota.used.get(name).is_none()) {
            let names: Vec<&str> = restricted.into_iter().collect();
            return Err(format!("status unknown for quota: {}, resources: {}", quota.name, names.join(",")));
        }
    }
    if concerned.is_empty() {
        return Ok(Vec::new());
    }
    let usage = resource.usage(new, *now);
    let negative: Vec<&str> = usage.iter().filter(|(_, amount)| amount.sign() < 0).map(|(name, _)| name).collect();
    if !negative.is_empty() {
        return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
    }
    let before = old.map(|old| resource.usage(old, *now));
    let mut charges = Vec::new();
    for (place, quota) in concerned {
        // What it did not count against before, it counts against in full now.
        let counted = old.is_some_and(|old| quota.concerns(*resource, old));
        let mut delta = match before.as_ref().filter(|_| counted) {
            Some(before) => usage.more_than(before),
            None => usage.clone(),
        };
        delta.retain(|name, amount| !amount.is_zero() && quota.hard.get(name).is_some());
        if delta.is_empty() {
            continue;
        }
        let used = quota.used.plus(&delta);
        let exceeds = |name: &str| *enforced && used.get(name) > quota.hard.get(name);
        let exceeded: BTreeSet<&str> = delta.names().filter(|name| exceeds(name)).collect();
        if !exceeded.is_empty() {
            let shown = |amounts: &Amounts| amounts.only(|name| exceeded.contains(name)).to_string();
            return Err(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                quota.name,
                shown(&delta),
                shown(&quota.used),
                shown(&quota.hard)
            ));
        }
        charges.push((place, used));
    }
    Ok(charges)
}

/// What a pod must say because a quota counts it.
fn missing(resource: Resource<'_>, restricted: &BTreeSet<&str>, new: &Value) -> Option<String> {
    (resource == Resource::new("", "pods")).then(|| pods::missing(restricted, new)).flatten()
}

fn one() -> Quantity {
    Quantity::new(1, apimachinery::Format::DecimalSi)
}

fn number(n: usize) -> Quantity {
    Quantity::new(i64::try_from(n).unwrap_or(i64::MAX), apimachinery::Format::DecimalSi)
}

fn services(service: &Value) -> Amounts {
    let ports = service.items_at(&["spec", "ports"]);
    let allocates = service.bool_at(&["spec", "allocateLoadBalancerNodePorts"]) != Some(false);
    let given = || ports.iter().filter(|port| port.i64_at(&["nodePort"]).is_some_and(|port| port != 0)).count();
    let (node_ports, balancers) = match service.str_at(&["spec", "type"]) {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if allocates => (ports.len(), 1),
        Some("LoadBalancer") => (given(), 1),
        _ => (0, 0),
    };
    let mut usage = Amounts::default();
    usage.set("count/services", one());
    usage.set("services", one());
    usage.set("services.nodeports", number(node_ports));
    usage.set("services.loadbalancers", number(balancers));
    usage
}

fn claims(claim: &Value) -> Amounts {
    let mut usage = Amounts::default();
    usage.set("count/persistentvolumeclaims", one());
    usage.set("persistentvolumeclaims", one());
    let class = claim
        .str_at(&["metadata", "annotations", BETA_CLASS])
        .or_else(|| claim.str_at(&["spec", "storageClassName"]))
        .filter(|class| !class.is_empty());
    if let Some(class) = class {
        usage.set(format!("{class}{CLAIM_CLASS}persistentvolumeclaims"), one());
    }
    let amount = |path: &[&str]| claim.at(path).and_then(Quantity::from_value).and_then(Result::ok);
    let Some(requested) = amount(&["spec", "resources", "requests", "storage"]) else { return usage };
    let allocated = amount(&["status", "allocatedResources", "storage"]);
    let storage = allocated.filter(|allocated| *allocated > requested).unwrap_or(requested);
    // Whole bytes.
    let storage = Quantity::new(storage.value(), storage.format());
    usage.set("requests.storage", storage);
    if let Some(class) = class {
        usage.set(format!("{class}{CLAIM_CLASS}requests.storage"), storage);
    }
    usage
}

/// The devices that a claim asks for, by class: of requests that name alternatives the most that one of them takes of each class.
fn devices(claim: &Value) -> Amounts {
    let of = |asked: &Value| {
        let class = asked.str_at(&["deviceClassName"]).unwrap_or_default();
        let count = match asked.str_at(&["allocationMode"]) {
            Some("ExactCount") => asked.i64_at(&["count"]).unwrap_or_default(),
            Some("All") => MOST_DEVICES,
            _ => 0,
        };
        let mut devices = Amounts::default();
        devices.set(format!("{class}{DEVICES_OF_CLASS}"), Quantity::new(count, apimachinery::Format::DecimalSi));
        devices
    };
    let mut devices = Amounts::default();
    for request in claim.items_at(&["spec", "devices", "requests"]) {
        let mut most = Amounts::default();
        let alternatives = request.items_at(&["firstAvailable"]).iter();
        alternatives.chain(request.get("exactly")).for_each(|asked| most.raise_to(&of(asked)));
        devices.add(&most);
    }
    devices
}

/// The group and plural of the kind that `name` limits, if it is one that can be limited.
pub fn limited(name: &str) -> Option<(&str, &str)> {
    if let Some(counted) = name.strip_prefix("count/") {
        let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
        return Some((group, plural));
    }
    if name.ends_with(DEVICES_OF_CLASS) {
        return Some(("resource.k8s.io", "resourceclaims"));
    }
    let core = ["services", "persistentvolumeclaims", "pods"].into_iter().chain(OLD_NAMES);
    core.map(|plural| ("", plural)).find(|(group, plural)| Resource::new(group, plural).has(name))
}
