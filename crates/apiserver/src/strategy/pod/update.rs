//! What an update may change of a pod.

use apimachinery::Value;
use apimachinery::validation::range_error;

use super::super::field::{Errors, Path, Report, entries, items, items_mut, member, text};
use super::scheduling;

const MIRROR: &str = "kubernetes.io/config.mirror";
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
    `spec.tolerations` (only additions to existing tolerations),\
    `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Upstream: ValidatePodUpdate, after what holds for every pod.
pub(super) fn validate(new: &Value, old: &Value, errors: &mut Errors) {
    annotations(new, old, errors);
    let empty = Value::object();
    let (new, old) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
    let path = Path::new("spec");
    for list in ["containers", "initContainers"] {
        if items(new, list).len() != items(old, list).len() {
            return errors.forbidden(&path.child(list), "pod updates may not add or remove containers");
        }
    }
    if !deadline(new, old, &path.child("activeDeadlineSeconds"), errors) {
        return;
    }
    tolerations(new, old, &path.child("tolerations"), errors);
    gates(new, old, &path.child("schedulingGates"), errors);
    if new == old {
        return;
    }
    let mut munged = new.clone();
    for list in ["containers", "initContainers"] {
        for (container, before) in items_mut(&mut munged, list).zip(items(old, list)) {
            put_back(container, before, "image");
        }
    }
    for key in ["activeDeadlineSeconds", "schedulingGates", "tolerations"] {
        put_back(&mut munged, old, key);
    }
    let grace = |spec: &Value| spec.i64_at(&["terminationGracePeriodSeconds"]);
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(&munged) == Some(1) {
        put_back(&mut munged, old, "terminationGracePeriodSeconds");
    }
    if !items(old, "schedulingGates").is_empty() {
        gated(&mut munged, old, &path, errors);
    }
    if munged != *old {
        let mut why = format!("pod updates may not change fields other than {UPDATABLE}\n");
        differences(&munged, old, "spec", &mut why);
        errors.forbidden(&path, why);
    }
}

/// Annotations that name how the pod came to be stay. Upstream: ValidatePodSpecificAnnotationUpdates.
pub(super) fn annotations(new: &Value, old: &Value, errors: &mut Errors) {
    let metadata = Path::new("metadata");
    let path = metadata.child("annotations");
    let of = |pod: &Value| pod.str_at(&["metadata", "annotations", MIRROR]).map(str::to_owned);
    match (of(new), of(old)) {
        (Some(_), None) => errors.forbidden(&path.key(MIRROR), "may not add mirror pod annotation"),
        (new, Some(old)) if new.as_ref() != Some(&old) => {
            errors.forbidden(&path.key(MIRROR), "may not remove or update mirror pod annotation");
        }
        _ => {}
    }
}

pub(super) fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR]).is_some()
}

fn deadline(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) -> bool {
    let of = |spec: &Value| spec.i64_at(&["activeDeadlineSeconds"]);
    match (of(new), of(old)) {
        (Some(new), _) if !(0..=i64::from(i32::MAX)).contains(&new) => {
            errors.invalid(path, new, range_error(0, i32::MAX.into()));
            false
        }
        (Some(new), Some(old)) if old < new => {
            errors.invalid(path, new, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid(path, Value::Null, "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn tolerations(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let alike =
        |a: &Value, b: &Value| ["key", "operator", "value", "effect"].iter().all(|key| text(a, key) == text(b, key));
    let new = items(new, "tolerations");
    for old in items(old, "tolerations") {
        if !new.iter().any(|new| alike(new, old)) {
            let why = "existing toleration can not be modified except its tolerationSeconds";
            return errors.forbidden(path, why);
        }
    }
    scheduling::tolerations(new, path, errors);
}

fn gates(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, gate) in items(new, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        if !items(old, "schedulingGates").iter().any(|old| text(old, "name") == name) {
            let path = path.index(i);
            let why = format!("only deletion is allowed, but found new scheduling gate '{name}'");
            errors.forbidden(&path.child("name"), why);
        }
    }
}

/// Pods that wait at a gate may have their node selection narrowed.
fn gated(munged: &mut Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    if munged.get("nodeSelector") != old.get("nodeSelector") {
        let kept = entries(old, "nodeSelector").all(|(key, value)| munged.at(&["nodeSelector", key]) == Some(value));
        if !kept {
            let why = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
            let shown = munged.get("nodeSelector").cloned().unwrap_or_else(Value::object);
            errors.invalid(&path.child("nodeSelector"), shown, why);
        }
        put_back(munged, old, "nodeSelector");
    }
    let node_affinity = ["affinity", "nodeAffinity"];
    if munged.at(&node_affinity) == old.at(&node_affinity) {
        return;
    }
    affinity_only_grows(munged, old, path, errors);
    match old.at(&node_affinity) {
        Some(before) => munged.set(&node_affinity, before),
        None => {
            munged.remove(&node_affinity);
            let emptied = member(munged, "affinity").and_then(Value::as_object).is_some_and(|map| map.is_empty());
            if emptied && member(old, "affinity").is_none() {
                munged.remove(&["affinity"]);
            }
        }
    }
}

/// Upstream: validateNodeAffinityMutation.
fn affinity_only_grows(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    const TERMS: [&str; 4] =
        ["affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"];
    let (new, old) = (new.items_at(&TERMS), old.items_at(&TERMS));
    let affinity = path.child(TERMS[0]);
    let node = affinity.child(TERMS[1]);
    let required = node.child(TERMS[2]);
    let path = required.child(TERMS[3]);
    if old.is_empty() {
        return;
    }
    if old.len() != new.len() {
        let why = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errors.invalid(&path, new.to_vec(), why);
    }
    for (i, (new, old)) in new.iter().zip(old).enumerate() {
        let lists = ["matchExpressions", "matchFields"];
        let was_empty = lists.iter().all(|list| items(old, list).is_empty());
        let is_empty = lists.iter().all(|list| items(new, list).is_empty());
        let grown = lists.iter().all(|list| items(new, list).starts_with(items(old, list)));
        if was_empty && !is_empty || !grown {
            errors.invalid(&path.index(i), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

fn put_back(new: &mut Value, old: &Value, key: &str) {
    super::super::keep(new, old, &[key]);
}

/// One line for each member that differs.
fn differences(new: &Value, old: &Value, path: &str, out: &mut String) {
    match (new, old) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&str> = a.keys().chain(b.keys()).collect();
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let null = Value::Null;
                let (a, b) = (a.get(key).unwrap_or(&null), b.get(key).unwrap_or(&null));
                differences(a, b, &format!("{path}.{key}"), out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                differences(a, b, &format!("{path}[{i}]"), out);
            }
        }
        (a, b) if a == b => {}
        (a, b) => out.push_str(&format!("- {path}: {b}\n+ {path}: {a}\n")),
    }
}
