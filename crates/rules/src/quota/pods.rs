//! What pods use. Upstream: evaluator/core/pods.go, component-helpers resource helpers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::Value;
use jiff::Timestamp;

use super::{Amounts, one};

const RESOURCES: [&str; 11] = [
    "count/pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
];
/// What every container must ask for once a quota limits it. Upstream regrets this, and keeps it.
const REQUIRED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
const HUGE_PAGES: &str = "hugepages-";
const DEVICE_CLASS: &str = "deviceclass.resource.kubernetes.io/";

/// How a pod's amounts are summed up.
#[derive(Clone, Copy, Debug)]
pub struct PodAmounts {
    /// What a resize has not given back yet counts.
    pub with_status: bool,
    pub with_overhead: bool,
}

/// Whether quotas on `name` are about pods.
pub(super) fn is_resource(name: &str) -> bool {
    let Some(requested) = name.strip_prefix("requests.") else {
        return RESOURCES.contains(&name) || name.starts_with(HUGE_PAGES);
    };
    // The name with its prefix is what upstream looks at here.
    RESOURCES.contains(&name)
        || requested.starts_with(HUGE_PAGES)
        || requested.starts_with(DEVICE_CLASS)
        || !is_native(name)
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> Amounts {
    let mut usage = Amounts::default();
    usage.set("count/pods", one());
    if has_ended(pod) || expires(pod).is_some_and(|end| now > end) {
        return usage;
    }
    let how = PodAmounts { with_status: true, with_overhead: true };
    usage.add(&charged(&pod_amounts(pod, "requests", how), &pod_amounts(pod, "limits", how)));
    usage.set("pods", one());
    usage
}

/// Whether the pod ends by itself. Upstream: IsTerminating.
pub fn is_terminating(pod: &Value) -> bool {
    pod.i64_at(&["spec", "activeDeadlineSeconds"]).is_some_and(|seconds| seconds >= 0)
}

fn has_ended(pod: &Value) -> bool {
    matches!(pod.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"))
}

/// When a pod that is being deleted no longer counts, whether it is gone by then or not.
pub fn expires(pod: &Value) -> Option<Timestamp> {
    let deleted: Timestamp = pod.str_at(&["metadata", "deletionTimestamp"])?.parse().ok()?;
    let grace = pod.i64_at(&["metadata", "deletionGracePeriodSeconds"])?;
    deleted.checked_add(Duration::from_secs(grace.max(0) as u64)).ok()
}

/// Requests and limits under the names that quotas have for them. Upstream: podComputeUsageHelper.
fn charged(requests: &Amounts, limits: &Amounts) -> Amounts {
    let mut charged = Amounts::default();
    for (name, amount) in requests.iter() {
        let is_compute = matches!(name, "cpu" | "memory" | "ephemeral-storage");
        if is_compute || name.starts_with(HUGE_PAGES) {
            charged.set(name, amount);
        }
        let is_extended = !is_native(name) && !name.starts_with("requests.") || name.starts_with(DEVICE_CLASS);
        if is_compute || name.starts_with(HUGE_PAGES) || is_extended {
            charged.set(format!("requests.{name}"), amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| matches!(*name, "cpu" | "memory" | "ephemeral-storage")) {
        charged.set(format!("limits.{name}"), amount);
    }
    charged
}

/// `requests` or `limits` of the whole pod: the sum of its containers and sidecars, or the most that starting takes.
pub fn pod_amounts(pod: &Value, list: &str, how: PodAmounts) -> Amounts {
    let mut running = Amounts::default();
    for container in pod.items_at(&["spec", "containers"]) {
        running.add(&container_amounts(pod, container, list, how, "containerStatuses"));
    }
    let (mut sidecars, mut starting) = (Amounts::default(), Amounts::default());
    for init in pod.items_at(&["spec", "initContainers"]) {
        let mut here = Amounts::read(init.at(&["resources", list]));
        if init.str_at(&["restartPolicy"]) == Some("Always") {
            here = container_amounts(pod, init, list, how, "initContainerStatuses");
            running.add(&here);
            sidecars.add(&here);
            here = sidecars.clone();
        } else {
            here.add(&sidecars);
        }
        starting.raise_to(&here);
    }
    running.raise_to(&starting);
    let whole = Amounts::read(pod.at(&["spec", "resources", list]));
    for (name, amount) in whole.iter().filter(|(name, _)| is_pod_level(name)) {
        running.set(name, amount);
    }
    if how.with_overhead {
        let overhead = Amounts::read(pod.at(&["spec", "overhead"]));
        // Without a limit there is none to add to.
        let counted = overhead.only(|name| list == "requests" || running.get(name).is_some_and(|a| !a.is_zero()));
        running.add(&counted);
    }
    running
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with(HUGE_PAGES)
}

fn container_amounts(pod: &Value, container: &Value, list: &str, how: PodAmounts, statuses: &str) -> Amounts {
    let mut amounts = Amounts::read(container.at(&["resources", list]));
    let name = container.str_at(&["name"]);
    let mut statuses = pod.items_at(&["status", statuses]).iter();
    let status = statuses.find(|status| status.str_at(&["name"]) == name && status.get("resources").is_some());
    let Some(status) = status.filter(|_| how.with_status) else { return amounts };
    let infeasible = pod.items_at(&["status", "conditions"]).iter().any(|condition| {
        condition.str_at(&["type"]) == Some("PodResizePending") && condition.str_at(&["reason"]) == Some("Infeasible")
    });
    if infeasible {
        amounts = Amounts::default();
    }
    amounts.raise_to(&Amounts::read(status.at(&["resources", list])));
    if list == "requests" {
        amounts.raise_to(&Amounts::read(status.get("allocatedResources")));
    }
    amounts
}

/// The containers that say nothing about what a quota limits: `cpu for: a,b; memory for: a`.
pub(super) fn missing(restricted: &BTreeSet<&str>, pod: &Value) -> Option<String> {
    let own = pod.at(&["spec", "resources"]);
    if ["requests", "limits"].iter().any(|list| own.is_some_and(|own| !Amounts::read(own.get(list)).is_empty())) {
        return None;
    }
    let required: Vec<&str> = REQUIRED.into_iter().filter(|name| restricted.contains(name)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| pod.items_at(&["spec", list]));
    for container in containers {
        let amounts = |list: &str| Amounts::read(container.at(&["resources", list]));
        let said = charged(&amounts("requests"), &amounts("limits"));
        for name in required.iter().filter(|name| said.get(name).is_none()) {
            missing.entry(name).or_default().insert(container.str_at(&["name"]).unwrap_or_default());
        }
    }
    let told: Vec<String> = missing
        .into_iter()
        .map(|(name, containers)| format!("{name} for: {}", containers.into_iter().collect::<Vec<_>>().join(",")))
        .collect();
    (!told.is_empty()).then(|| told.join("; "))
}
