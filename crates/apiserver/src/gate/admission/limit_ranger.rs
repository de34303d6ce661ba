//! Pods and claims keep within the limit ranges of their namespace, and get the defaults that these have. Upstream:
//! plugin/pkg/admission/limitranger.

use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::{Object, Quantity, Status, Value};
use rules::quota::{Amounts, PodAmounts, pod_amounts};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct LimitRanger;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";
/// Larger amounts are compared in whole units, smaller ones in thousandths.
const MAX_MILLI: i64 = i64::MAX / 1000;

impl Plugin for LimitRanger {
    fn admit(&self, write: &Write<'_>, new: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        if concerns(write, old) && write.resource == "pods" {
            for range in ranges(write) {
                set_defaults(&range.to_value(), new);
            }
        }
        Ok(())
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
        let Some(object) = new.filter(|_| concerns(write, old)) else { return Ok(()) };
        for range in ranges(write) {
            let range = range.to_value();
            let mut broken = Vec::new();
            for limit in range.items_at(&["spec", "limits"]) {
                match (write.resource, limit.str_at(&["type"]).unwrap_or_default()) {
                    ("pods", "Container") => check_containers(limit, object, &mut broken),
                    ("pods", "Pod") => check_pod(limit, object, &mut broken),
                    ("persistentvolumeclaims", "PersistentVolumeClaim") => check_claim(limit, object, &mut broken),
                    _ => {}
                }
            }
            let mut told = BTreeSet::new();
            broken.retain(|why| told.insert(why.clone()));
            let why = match &broken[..] {
                [] => continue,
                [one] => one.clone(),
                several => format!("[{}]", several.join(", ")),
            };
            return Err(write.forbidden(new, &why));
        }
        Ok(())
    }
}

/// New pods and claims, claims that change, and pods that are resized.
pub(super) fn concerns(write: &Write<'_>, old: Option<&Value>) -> bool {
    if old.is_some_and(|old| old.at(&["metadata", "deletionTimestamp"]).is_some()) {
        return false;
    }
    match (write.operation, write.subresource) {
        (Operation::Create, "") => write.is_of("", "pods") || write.is_of("", "persistentvolumeclaims"),
        (Operation::Update, "") => write.is_of("", "persistentvolumeclaims"),
        (Operation::Update, "resize") => write.is_of("", "pods"),
        _ => false,
    }
}

fn ranges(write: &Write<'_>) -> Vec<Arc<Object>> {
    write.objects.list("", "limitranges", write.namespace)
}

/// Fills in what containers leave out, and notes that in an annotation.
fn set_defaults(range: &Value, pod: &mut Value) {
    let (mut limits, mut requests) = (Vec::new(), Vec::new());
    let containers = range.items_at(&["spec", "limits"]).iter().filter(|l| l.str_at(&["type"]) == Some("Container"));
    for limit in containers {
        for (from, to) in [("default", &mut limits), ("defaultRequest", &mut requests)] {
            let amounts = limit.get(from).and_then(Value::as_object).into_iter().flat_map(|list| list.iter());
            to.extend(amounts.map(|(name, amount)| (name.to_owned(), amount.clone())));
        }
    }
    let mut notes = Vec::new();
    for (list, what) in [("containers", "container"), ("initContainers", "init container")] {
        for container in pod.at_mut(&["spec", list]).and_then(Value::as_array_mut).into_iter().flatten() {
            let name = container.str_at(&["name"]).unwrap_or_default().to_owned();
            for (key, shown, defaults) in [("requests", "request", &requests), ("limits", "limit", &limits)] {
                let mut set: Vec<&str> = Vec::new();
                for (resource, amount) in defaults {
                    if container.at(&["resources", key, resource]).is_none() {
                        container.set(&["resources", key, resource], amount);
                        set.push(resource);
                    }
                }
                set.sort_unstable();
                if !set.is_empty() {
                    notes.push(format!("{} {shown} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        pod.set(&["metadata", "annotations", ANNOTATION], note);
    }
}

fn check_containers(limit: &Value, pod: &Value, broken: &mut Vec<String>) {
    let containers = ["containers", "initContainers"].into_iter().flat_map(|list| pod.items_at(&["spec", list]));
    for container in containers {
        let amounts = |list: &str| Amounts::read(container.at(&["resources", list]));
        check(limit, "Container", &amounts("requests"), &amounts("limits"), broken);
    }
}

fn check_pod(limit: &Value, pod: &Value, broken: &mut Vec<String>) {
    let amounts = |list: &str| pod_amounts(pod, list, PodAmounts { with_status: false, with_overhead: false });
    check(limit, "Pod", &amounts("requests"), &amounts("limits"), broken);
}

fn check(limit: &Value, kind: &str, requests: &Amounts, limits: &Amounts, broken: &mut Vec<String>) {
    let each = |list: &str| Amounts::read(limit.get(list));
    for (name, least) in each("min").iter() {
        broken.extend(below(kind, name, least, requests.get(name), limits.get(name)));
    }
    for (name, most) in each("max").iter() {
        broken.extend(above(kind, name, most, requests.get(name), limits.get(name)));
    }
    for (name, most) in each("maxLimitRequestRatio").iter() {
        broken.extend(too_far_apart(kind, name, most, requests.get(name), limits.get(name)));
    }
}

/// Only what a claim requests counts.
fn check_claim(limit: &Value, claim: &Value, broken: &mut Vec<String>) {
    const KIND: &str = "PersistentVolumeClaim";
    let requests = Amounts::read(claim.at(&["spec", "resources", "requests"]));
    for (name, least) in Amounts::read(limit.get("min")).iter() {
        broken.extend(below(KIND, name, least, requests.get(name), None));
    }
    for (name, most) in Amounts::read(limit.get("max")).iter() {
        let is = format!("maximum {name} usage per {KIND} is {most}");
        match requests.get(name) {
            None => broken.push(format!("{is}.  No request is specified")),
            Some(request) if larger(request, most) => broken.push(format!("{is}, but request is {request}")),
            Some(_) => {}
        }
    }
}

fn below(
    kind: &str,
    name: &str,
    least: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let is = format!("minimum {name} usage per {kind} is {least}");
    let Some(request) = request else { return Some(format!("{is}.  No request is specified")) };
    if larger(least, request) {
        return Some(format!("{is}, but request is {request}"));
    }
    let limit = limit.filter(|limit| larger(least, *limit))?;
    Some(format!("{is}, but limit is {limit}"))
}

fn above(kind: &str, name: &str, most: Quantity, request: Option<Quantity>, limit: Option<Quantity>) -> Option<String> {
    let is = format!("maximum {name} usage per {kind} is {most}");
    let Some(limit) = limit else { return Some(format!("{is}.  No limit is specified")) };
    if larger(limit, most) {
        return Some(format!("{is}, but limit is {limit}"));
    }
    let request = request.filter(|request| larger(*request, most))?;
    Some(format!("{is}, but request is {request}"))
}

fn too_far_apart(
    kind: &str,
    name: &str,
    most: Quantity,
    request: Option<Quantity>,
    limit: Option<Quantity>,
) -> Option<String> {
    let is = format!("{name} max limit to request ratio per {kind} is {most}");
    let Some(request) = request.filter(|request| !request.is_zero()) else {
        return Some(format!("{is}, but no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|limit| !limit.is_zero()) else {
        return Some(format!("{is}, but no limit is specified or limit is 0"));
    };
    let (request, limit) = alike(request, limit);
    let ratio = limit as f64 / request as f64;
    (ratio * 1000.0 > most.milli_value() as f64).then(|| format!("{is}, but provided ratio is {ratio:.6}"))
}

fn larger(a: Quantity, b: Quantity) -> bool {
    let (a, b) = alike(a, b);
    a > b
}

/// Both in thousandths, or, where that is too much, in whole units.
fn alike(a: Quantity, b: Quantity) -> (i64, i64) {
    match a.value().max(b.value()) <= MAX_MILLI {
        true => (a.milli_value(), b.milli_value()),
        false => (a.value(), b.value()),
    }
}
