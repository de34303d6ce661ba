//! `status`, `ephemeralcontainers` and `resize`: what each owns of a pod, and what it must not become.

use apimachinery::Value;
use apimachinery::validation::{dns1123_subdomain, ip_legacy};

use super::super::field::{Errors, Path, Report, immutable, int, items, items_mut, text};
use super::super::keep;
use super::{resources, update};

/// Keeps all but what the status update owns. Upstream: podStatusStrategy.PrepareForUpdate.
pub(super) fn prepare_status(new: &mut Value, old: &Value) {
    keep(new, old, &["spec"]);
    keep(new, old, &["metadata", "ownerReferences"]);
    if new.str_at(&["status", "qosClass"]).unwrap_or_default().is_empty() {
        keep(new, old, &["status", "qosClass"]);
    }
    if int(new.get("status").unwrap_or(&Value::Null), "observedGeneration") == 0 {
        keep(new, old, &["status", "observedGeneration"]);
    }
    let Some(status) = new.get_mut("status") else { return };
    for condition in items_mut(status, "conditions").filter(|condition| int(condition, "observedGeneration") == 0) {
        let kind = text(condition, "type").to_owned();
        let before = old.items_at(&["status", "conditions"]).iter().find(|before| text(before, "type") == kind);
        if let Some(generation) = before.and_then(|before| before.i64_at(&["observedGeneration"])) {
            condition.set(&["observedGeneration"], generation);
        }
    }
}

/// Keeps all but the ephemeral containers.
pub(super) fn prepare_ephemeral(new: &mut Value, old: &Value) {
    let list = new.at(&["spec", "ephemeralContainers"]).cloned();
    keep_but_revision(new, old);
    match list {
        Some(list) => new.set(&["spec", "ephemeralContainers"], list),
        None => drop(new.remove(&["spec", "ephemeralContainers"])),
    }
}

/// Keeps all but resources and resize policies. Containers that were added, removed or renamed stay for validation to refuse.
pub(super) fn prepare_resize(new: &mut Value, old: &Value) {
    let mut lists: Vec<(&str, Vec<Value>)> = Vec::new();
    for list in ["containers", "initContainers"] {
        let (theirs, ours) = (new.items_at(&["spec", list]), old.items_at(&["spec", list]));
        let same =
            theirs.len() == ours.len() && theirs.iter().zip(ours).all(|(a, b)| text(a, "name") == text(b, "name"));
        if !same {
            return;
        }
        let mut merged = ours.to_vec();
        for (container, theirs) in merged.iter_mut().zip(theirs) {
            keep(container, theirs, &["resources"]);
            keep(container, theirs, &["resizePolicy"]);
        }
        if !merged.is_empty() {
            lists.push((list, merged));
        }
    }
    let resources = new.at(&["spec", "resources"]).cloned();
    keep_but_revision(new, old);
    for (list, merged) in lists {
        new.set(&["spec", list], merged);
    }
    if let Some(resources) = resources {
        new.set(&["spec", "resources"], resources);
    }
}

fn keep_but_revision(new: &mut Value, old: &Value) {
    let metadata = new.remove(&["metadata"]);
    *new = old.clone();
    if let Some(revision) = metadata.as_ref().and_then(|metadata| metadata.get("resourceVersion")) {
        new.set(&["metadata", "resourceVersion"], revision);
    }
}

/// Upstream: ValidatePodStatusUpdate.
pub(super) fn validate_status(new: &Value, old: &Value, errors: &mut Errors) {
    update::annotations(new, old, errors);
    let empty = Value::object();
    let (status, before) = (new.get("status").unwrap_or(&empty), old.get("status").unwrap_or(&empty));
    let metadata = Path::new("metadata");
    let conditions = metadata.child("conditions");
    for (i, condition) in items(status, "conditions").iter().enumerate() {
        let kind = text(condition, "type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            let path = conditions.index(i);
            errors.qualified(&path.child("Type"), kind);
        }
    }
    let path = Path::new("status");
    let nominated = text(status, "nominatedNodeName");
    if !nominated.is_empty() && nominated != text(before, "nominatedNodeName") {
        errors.problems(&path.child("nominatedNodeName"), nominated, dns1123_subdomain(nominated));
    }
    immutable(errors, &path.child("qosClass"), status.get("qosClass"), before.get("qosClass"));
    let policy = old.str_at(&["spec", "restartPolicy"]).unwrap_or_default();
    for (list, policy) in
        [("containerStatuses", policy), ("initContainerStatuses", policy), ("ephemeralContainerStatuses", "Never")]
    {
        transitions(items(status, list), items(before, list), policy, old, &path.child(list), errors);
    }
    resource_claims(status, new, &path.child("resourceClaimStatuses"), errors);
    addresses(status, &path, errors);
}

/// Which claims were made for the pod. Upstream: validatePodResourceClaimStatuses.
fn resource_claims(status: &Value, pod: &Value, path: &Path<'_>, errors: &mut Errors) {
    let told = items(status, "resourceClaimStatuses");
    for (i, one) in told.iter().enumerate() {
        let path = path.index(i);
        let (path, name) = (path.child("name"), text(one, "name"));
        if !pod.items_at(&["spec", "resourceClaims"]).iter().any(|claim| text(claim, "name") == name) {
            errors.invalid(&path, name, "must match the name of an entry in `spec.resourceClaims`");
        }
        if told[..i].iter().any(|earlier| text(earlier, "name") == name) {
            errors.duplicate(&path, name);
        }
        if let Some(claim) = one.get("resourceClaimName").and_then(Value::as_str) {
            errors.problems(&path, claim, dns1123_subdomain(claim));
        }
    }
}

/// A container that ended for good does not begin again. Upstream: ValidateContainerStateTransition.
fn transitions(new: &[Value], old: &[Value], policy: &str, pod: &Value, path: &Path<'_>, errors: &mut Errors) {
    if policy == "Always" {
        return;
    }
    for (i, before) in old.iter().enumerate() {
        let Some(ended) = before.at(&["state", "terminated"]).filter(|ended| !ended.is_null()) else { continue };
        let name = text(before, "name");
        let own_policy = ["containers", "initContainers"]
            .iter()
            .flat_map(|list| pod.items_at(&["spec", list]))
            .find(|container| text(container, "name") == name)
            .map(|container| (text(container, "restartPolicy"), !items(container, "restartPolicyRules").is_empty()));
        let may_restart = match own_policy {
            Some(("Always", _) | (_, true)) => true,
            Some(("OnFailure", _)) => int(ended, "exitCode") != 0,
            Some(("Never", _)) => false,
            _ => policy == "OnFailure" && int(ended, "exitCode") != 0,
        };
        let begins =
            |now: &&Value| text(now, "name") == name && now.at(&["state", "terminated"]).is_none_or(Value::is_null);
        if !may_restart && new.iter().any(|now| begins(&now)) {
            let path = path.index(i);
            errors.forbidden(&path.child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

fn addresses(status: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (list, single) in [("podIPs", "podIP"), ("hostIPs", "hostIP")] {
        let path = path.child(list);
        let addresses = items(status, list);
        if single == "hostIP"
            && let Some(first) = addresses.first()
            && text(first, "ip") != text(status, "hostIP")
        {
            let path = path.index(0);
            errors.invalid(&path.child("ip"), text(first, "ip"), "must be equal to `hostIP`");
        }
        for (i, address) in addresses.iter().enumerate() {
            let address = text(address, "ip");
            errors.problems(&path.index(i), address, ip_legacy(address));
        }
        let sixes = addresses.iter().filter(|address| text(address, "ip").contains(':')).count();
        if addresses.len() > 2 || addresses.len() == 2 && sixes != 1 {
            let why = "may specify no more than one IP for each IP family";
            errors.invalid(&path, addresses.to_vec(), why);
        }
    }
}

/// Upstream: ValidatePodEphemeralContainersUpdate, after what holds for every pod.
pub(super) fn validate_ephemeral(new: &Value, old: &Value, errors: &mut Errors) {
    if update::is_mirror(old) {
        errors.clear();
        return errors.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
    }
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let list = new.items_at(&["spec", "ephemeralContainers"]);
    for before in old.items_at(&["spec", "ephemeralContainers"]) {
        let name = text(before, "name");
        match list.iter().rev().find(|now| text(now, "name") == name) {
            None => errors.forbidden(&path, format!("existing ephemeral containers {name:?} may not be removed\n")),
            Some(now) if now != before => {
                let why = format!("existing ephemeral containers {name:?} may not be changed\n- {before}\n+ {now}\n");
                errors.forbidden(&path, why);
            }
            Some(_) => {}
        }
    }
}

/// Upstream: ValidatePodResize, after what holds for every pod.
pub(super) fn validate_resize(new: &Value, old: &Value, errors: &mut Errors) {
    if update::is_mirror(old) {
        errors.clear();
        return errors.forbidden(&Path::new(""), "static pods cannot be resized");
    }
    if old.str_at(&["spec", "os", "name"]) == Some("windows") {
        errors.clear();
        return errors.forbidden(&Path::new(""), "windows pods cannot be resized");
    }
    let empty = Value::object();
    let (new, old_spec) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
    let whole = |spec: &Value| {
        let list =
            |key: &str| spec.at(&["resources", key]).and_then(Value::as_object).is_some_and(|map| !map.is_empty());
        list("requests") || list("limits")
    };
    if whole(new) || whole(old_spec) {
        errors.clear();
        return errors.forbidden(&Path::new(""), "pods with pod-level resources cannot be resized");
    }
    let path = Path::new("spec");
    let class = resources::qos(new).as_str();
    if let Some(before) = old.str_at(&["status", "qosClass"]).filter(|before| *before != class) {
        errors.invalid(&path, before, "Pod QOS Class may not change as a result of resizing");
    }
    if !knows_resizes(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let mut old_spec = old_spec.clone();
    ["containers", "initContainers"].iter().for_each(|list| items_mut(&mut old_spec, list).for_each(drop_empty));
    let old_spec = &old_spec;
    let mut stripped = new.clone();
    for (list, immutable_resources) in [("containers", false), ("initContainers", true)] {
        let here = path.child(list);
        for (i, (container, before)) in items_mut(&mut stripped, list).zip(items(old_spec, list)).enumerate() {
            if immutable_resources && text(before, "restartPolicy") != "Always" {
                drop_empty(container);
                if container != before {
                    errors.forbidden(&path, "resources for non-sidecar init containers are immutable");
                }
                continue;
            }
            let here = here.index(i);
            one_resize(container, before, &here.child("resources"), errors);
            for key in ["requests", "limits"] {
                for name in ["cpu", "memory"] {
                    keep(container, before, &["resources", key, name]);
                }
            }
            keep(container, before, &["resizePolicy"]);
            drop_empty(container);
        }
    }
    if errors.is_empty() && stripped != *old_spec {
        errors.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// An empty list of amounts is none.
fn drop_empty(container: &mut Value) {
    let is_empty = |value: Option<&Value>| value.and_then(Value::as_object).is_some_and(|map| map.is_empty());
    for key in ["requests", "limits"] {
        if is_empty(container.at(&["resources", key])) {
            container.remove(&["resources", key]);
        }
    }
    if is_empty(container.get("resources")) {
        container.remove(&["resources"]);
    }
}

/// Whether the pod's kubelet tells what containers have, as each does that can change it. Upstream: isPodResizeRequestSupported.
fn knows_resizes(pod: &Value) -> bool {
    let statuses = pod.items_at(&["status", "containerStatuses"]);
    let running = |status: &&Value| status.at(&["state", "running"]).is_some_and(|running| !running.is_null());
    statuses.iter().find(running).is_none_or(|status| status.get("resources").is_some())
}

/// Upstream: validateContainerResize.
fn one_resize(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, why) in
        [("requests", "resource requests cannot be removed"), ("limits", "resource limits cannot be removed")]
    {
        let before = old.at(&["resources", key]).and_then(Value::as_object);
        let names = before.into_iter().flat_map(|map| map.keys());
        if names.into_iter().any(|name| new.at(&["resources", key, name]).is_none()) {
            errors.forbidden(&path.child(key), why);
        }
    }
}
