//! The taints that follow from a node's conditions.

use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{Client, Error, PatchKind, resources};

use super::conditions;
use crate::meta::now;

pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
pub(super) const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";

/// Condition, the status that taints, and the taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The `NoSchedule` taints that the node should have.
pub(super) fn no_schedule(node: &Object) -> Vec<(String, &'static str)> {
    let conditions = conditions(node);
    let is = |r#type: &str, status: &str| conditions.iter().any(|c| c.r#type == r#type && c.status == status);
    let by_condition = BY_CONDITION.iter().filter(|(r#type, status, _)| is(r#type, status)).map(|(.., key)| *key);
    let cordoned = node.to_value().bool_at(&["spec", "unschedulable"]).unwrap_or_default();
    by_condition.chain(cordoned.then_some(UNSCHEDULABLE)).map(|key| (key.to_owned(), "NoSchedule")).collect()
}

/// Whether the node's pods are being evicted already.
pub(super) fn has_no_execute(node: &Object) -> bool {
    let value = node.to_value();
    let taints = value.items_at(&["spec", "taints"]);
    taints.iter().any(|taint| {
        taint.str_at(&["effect"]) == Some("NoExecute")
            && matches!(taint.str_at(&["key"]), Some(NOT_READY | UNREACHABLE))
    })
}

/// Whether this controller sets and removes the taint.
fn is_ours(taint: &Value) -> bool {
    let key = taint.str_at(&["key"]).unwrap_or_default();
    match taint.str_at(&["effect"]) {
        Some("NoExecute") => matches!(key, NOT_READY | UNREACHABLE),
        Some("NoSchedule") => key == UNSCHEDULABLE || BY_CONDITION.iter().any(|(.., ours)| *ours == key),
        _ => false,
    }
}

/// Makes the node's taints those of others and `wanted`.
pub(super) async fn apply(client: &Client, node: &Arc<Object>, wanted: &[(String, &'static str)]) -> Result<(), Error> {
    let value = node.to_value();
    let before = value.items_at(&["spec", "taints"]);
    let is = |taint: &Value, (key, effect): &(String, &str)| {
        taint.str_at(&["key"]) == Some(key) && taint.str_at(&["effect"]) == Some(effect)
    };
    let keep = |taint: &&Value| !is_ours(taint) || wanted.iter().any(|wanted| is(taint, wanted));
    let mut after: Vec<Value> = before.iter().filter(keep).cloned().collect();
    for wanted in wanted {
        if !after.iter().any(|taint| is(taint, wanted)) {
            let mut taint = Value::object();
            taint.set(&["key"], &wanted.0);
            taint.set(&["effect"], wanted.1);
            taint.set(&["timeAdded"], now(client.env()));
            after.push(taint);
        }
    }
    if after == before {
        return Ok(());
    }
    let mut patch = Value::object();
    // Others taint too: theirs must not be lost.
    patch.set(&["metadata", "resourceVersion"], node.revision().to_string());
    patch.set(&["metadata", "uid"], node.uid());
    patch.set(&["spec", "taints"], if after.is_empty() { Value::Null } else { Value::Array(after) });
    client.patch(&resources::NODES, node.key(), PatchKind::Merge, &patch).await.map(drop)
}
