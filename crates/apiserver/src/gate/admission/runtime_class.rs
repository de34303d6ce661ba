//! Pods take over what their runtime class costs and where it runs.

use apimachinery::{ObjectKey, Status, Value};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct RuntimeClass;

const OVERHEAD_DIFFERS: &str = "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead";
const OVERHEAD_ALONE: &str = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";

impl Plugin for RuntimeClass {
    fn admit(&self, write: &Write<'_>, pod: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        if !concerns(write) {
            return Ok(());
        }
        let Some(class) = class(write, pod)? else { return Ok(()) };
        if let Some(overhead) = class.at(&["overhead", "podFixed"]) {
            if overhead_of(pod).is_some_and(|own| own != overhead) {
                return Err(write.forbidden(Some(pod), OVERHEAD_DIFFERS));
            }
            pod.set(&["spec", "overhead"], overhead);
        }
        schedule(write, pod, &class)
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, _old: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = new.filter(|_| concerns(write)) else { return Ok(()) };
        let class = class(write, pod)?;
        let why = match (class.as_ref().and_then(|class| class.at(&["overhead", "podFixed"])), overhead_of(pod)) {
            (None, Some(_)) => OVERHEAD_ALONE,
            (Some(defined), own) if own != Some(defined) => OVERHEAD_DIFFERS,
            _ => return Ok(()),
        };
        Err(write.forbidden(new, why))
    }
}

fn concerns(write: &Write<'_>) -> bool {
    write.operation == Operation::Create && write.is_of("", "pods") && write.subresource.is_empty()
}

fn overhead_of(pod: &Value) -> Option<&Value> {
    pod.at(&["spec", "overhead"]).filter(|own| own.as_object().is_some_and(|own| !own.is_empty()))
}

/// The class that the pod names.
fn class(write: &Write<'_>, pod: &Value) -> Result<Option<Value>, Status> {
    let Some(name) = pod.str_at(&["spec", "runtimeClassName"]) else { return Ok(None) };
    match write.objects.get("node.k8s.io", "runtimeclasses", &ObjectKey::cluster(name)) {
        Some(class) => Ok(Some(class.to_value())),
        None => Err(write.forbidden(Some(pod), &format!("pod rejected: RuntimeClass \"{name}\" not found"))),
    }
}

/// Adds the class's node selector and tolerations.
fn schedule(write: &Write<'_>, pod: &mut Value, class: &Value) -> Result<(), Status> {
    let selector = class.at(&["scheduling", "nodeSelector"]).and_then(Value::as_object);
    for (key, value) in selector.into_iter().flat_map(|selector| selector.iter()) {
        let own = pod.str_at(&["spec", "nodeSelector", key]);
        let wanted = value.as_str().unwrap_or_default();
        if let Some(own) = own.filter(|own| *own != wanted) {
            let why = format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; pod.spec.nodeSelector[{key}] = {own}"
            );
            return Err(write.forbidden(Some(pod), &why));
        }
        pod.set(&["spec", "nodeSelector", key], wanted);
    }
    let added = class.items_at(&["scheduling", "tolerations"]);
    if !added.is_empty() {
        let all = [pod.items_at(&["spec", "tolerations"]), added].concat();
        pod.set(&["spec", "tolerations"], merged(&all));
    }
    Ok(())
}

/// The tolerations without those that another one covers; of equal ones the first stays. Upstream:
/// pkg/util/tolerations MergeTolerations.
fn merged(all: &[Value]) -> Vec<Value> {
    let mut merged: Vec<Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let later = || all[i + 1..].iter().any(|other| other != toleration && covers(other, toleration));
        if !merged.iter().any(|other| covers(other, toleration)) && !later() {
            merged.push(toleration.clone());
        }
    }
    merged
}

/// Whether whatever `narrow` tolerates `wide` does too.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let text = |toleration: &Value, name: &str| toleration.str_at(&[name]).unwrap_or_default().to_owned();
    let differ = |name: &str| text(wide, name) != text(narrow, name);
    let exists = text(wide, "operator") == "Exists";
    if differ("key") && !(exists && text(wide, "key").is_empty()) {
        return false;
    }
    if differ("effect") && !text(wide, "effect").is_empty() {
        return false;
    }
    let seconds = |toleration: &Value| toleration.i64_at(&["tolerationSeconds"]);
    if let Some(limit) = seconds(wide).filter(|_| text(wide, "effect") == "NoExecute")
        && seconds(narrow).is_none_or(|narrow| narrow > limit)
    {
        return false;
    }
    exists || (["Equal", ""].contains(&&*text(narrow, "operator")) && !differ("value"))
}
