//! Nodes. Upstream: printNode.

use apimachinery::Value;

use super::{Row, or_none};

const ROLE_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    Some(match column {
        "Status" => status(row).into(),
        "Roles" => roles(row).into(),
        "Internal-IP" => address(row, "InternalIP").into(),
        "External-IP" => address(row, "ExternalIP").into(),
        "OS-Image" => fact(row, "osImage").into(),
        "Kernel-Version" => fact(row, "kernelVersion").into(),
        "Container-Runtime" => fact(row, "containerRuntimeVersion").into(),
        _ => return None,
    })
}

fn status(row: &Row<'_>) -> String {
    let ready = row.value.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("Ready"));
    let mut words = vec![match ready.and_then(|condition| condition.str_at(&["status"])) {
        Some("True") => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    }];
    if row.value.bool_at(&["spec", "unschedulable"]) == Some(true) {
        words.push("SchedulingDisabled");
    }
    words.join(",")
}

fn roles(row: &Row<'_>) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in row.object.labels() {
        match key.strip_prefix(ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or_none(roles.join(","))
}

/// What the node says of itself.
fn fact(row: &Row<'_>, key: &str) -> String {
    match row.text(&["status", "nodeInfo", key]) {
        "" => "<unknown>".to_owned(),
        text => text.to_owned(),
    }
}

fn address(row: &Row<'_>, kind: &str) -> String {
    let addresses = row.value.items_at(&["status", "addresses"]);
    let found = addresses.iter().find(|address| address.str_at(&["type"]) == Some(kind));
    or_none(found.and_then(|address| address.str_at(&["address"])).unwrap_or_default().to_owned())
}
