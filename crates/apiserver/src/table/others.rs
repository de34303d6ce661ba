//! Everything that is one or two cells. Upstream: pkg/printers/internalversion/printers.go.

use apimachinery::Value;

use super::{NONE, Row, duration, or_none};

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    let number = |path: &[&str]| row.value.i64_at(path).map_or_else(|| NONE.to_owned(), |n| n.to_string());
    Some(
        match (row.object.kind(), column) {
            ("ConfigMap", "Data") => {
                let count = |key: &str| row.value.get(key).and_then(Value::as_object).map_or(0, apimachinery::Map::len);
                return Some(((count("data") + count("binaryData")) as i64).into());
            }
            ("Event", column) => return event(row, column),
            ("RoleBinding" | "ClusterRoleBinding", "Role") => {
                format!("{}/{}", row.text(&["roleRef", "kind"]), row.text(&["roleRef", "name"]))
            }
            ("RoleBinding" | "ClusterRoleBinding", "Users") => subjects(row, "User"),
            ("RoleBinding" | "ClusterRoleBinding", "Groups") => subjects(row, "Group"),
            ("RoleBinding" | "ClusterRoleBinding", "ServiceAccounts") => subjects(row, "ServiceAccount"),
            ("ResourceQuota", "Request") => quota(row, |name| !name.starts_with("limits.")),
            ("ResourceQuota", "Limit") => quota(row, |name| name.starts_with("limits.")),
            ("ComponentStatus", _) => String::new(),
            ("APIService", "Service") => match row.text(&["spec", "service", "name"]) {
                "" => "Local".to_owned(),
                name => format!("{}/{name}", row.text(&["spec", "service", "namespace"])),
            },
            ("APIService", "Available") => availability(row),
            ("NodeMetrics", resource) => row.text(&["usage", resource]).to_owned(),
            ("PodMetrics", resource) => crate::resource_metrics::sum(row.value, resource),
            ("CertificateSigningRequest", "RequestedDuration") => {
                match row.value.i64_at(&["spec", "expirationSeconds"]) {
                    Some(seconds) => duration::human(seconds),
                    None => NONE.to_owned(),
                }
            }
            ("CertificateSigningRequest", "Condition") => signing_condition(row),
            ("ValidatingAdmissionPolicy", "ParamKind") => match row.text(&["spec", "paramKind", "kind"]) {
                "" => "<unset>".to_owned(),
                kind => format!("{}/{kind}", row.text(&["spec", "paramKind", "apiVersion"])),
            },
            ("ValidatingAdmissionPolicyBinding", "ParamRef") => match row.text(&["spec", "paramRef", "name"]) {
                "" if row.value.at(&["spec", "paramRef"]).is_none() => "<unset>".to_owned(),
                "" => "*".to_owned(),
                name => match row.text(&["spec", "paramRef", "namespace"]) {
                    "" => name.to_owned(),
                    namespace => format!("{namespace}/{name}"),
                },
            },
            ("FlowSchema", "DistinguisherMethod") => row.text_or_none(&["spec", "distinguisherMethod", "type"]),
            ("FlowSchema", "MissingPL") => {
                let conditions = row.value.items_at(&["status", "conditions"]);
                let dangling = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some("Dangling"));
                dangling.and_then(|condition| condition.str_at(&["status"])).unwrap_or("?").to_owned()
            }
            ("PriorityLevelConfiguration", "NominalConcurrencyShares") => {
                let limited = row.value.i64_at(&["spec", "limited", "nominalConcurrencyShares"]);
                let exempt = row.value.i64_at(&["spec", "exempt", "nominalConcurrencyShares"]);
                limited.or(exempt).map_or_else(|| NONE.to_owned(), |n| n.to_string())
            }
            ("PriorityLevelConfiguration", "Queues") => {
                number(&["spec", "limited", "limitResponse", "queuing", "queues"])
            }
            ("PriorityLevelConfiguration", "HandSize") => {
                number(&["spec", "limited", "limitResponse", "queuing", "handSize"])
            }
            ("PriorityLevelConfiguration", "QueueLengthLimit") => {
                number(&["spec", "limited", "limitResponse", "queuing", "queueLengthLimit"])
            }
            ("ResourceClaim", "State") => claim_state(row),
            ("ResourceSlice", "Node") => match row.text(&["spec", "nodeName"]) {
                "" if row.value.bool_at(&["spec", "allNodes"]) == Some(true) => "<all>".to_owned(),
                node => node.to_owned(),
            },
            _ => return None,
        }
        .into(),
    )
}

fn availability(row: &Row<'_>) -> String {
    let conditions = row.value.items_at(&["status", "conditions"]);
    let found = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some("Available"));
    let text = |name: &str| found.and_then(|found| found.str_at(&[name])).unwrap_or_default();
    match (text("status"), text("reason")) {
        ("", _) => "Unknown".to_owned(),
        (status @ "True", _) | (status, "") => status.to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

fn event(row: &Row<'_>, column: &str) -> Option<Value> {
    let first = |paths: &[&[&str]]| {
        paths.iter().map(|path| row.text(path)).find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    Some(match column {
        "Last Seen" => last_seen(row).into(),
        "First Seen" => {
            let paths: &[&[&str]] = &[&["firstTimestamp"], &["deprecatedFirstTimestamp"], &["eventTime"]];
            match paths.iter().find(|path| !row.text(path).is_empty()) {
                Some(path) => row.since(path),
                None => "<unknown>".to_owned(),
            }
            .into()
        }
        "Object" => {
            let part = |key: &str| first(&[&["involvedObject", key], &["regarding", key]]);
            let (kind, name) = (part("kind").to_ascii_lowercase(), part("name"));
            if name.is_empty() { kind } else { format!("{kind}/{name}") }.into()
        }
        "Subobject" => first(&[&["involvedObject", "fieldPath"], &["regarding", "fieldPath"]]).into(),
        "Source" => {
            let component = first(&[
                &["source", "component"],
                &["deprecatedSource", "component"],
                &["reportingComponent"],
                &["reportingController"],
            ]);
            let host = first(&[&["source", "host"], &["deprecatedSource", "host"], &["reportingInstance"]]);
            if host.is_empty() { component } else { format!("{component}, {host}") }.into()
        }
        "Message" => first(&[&["message"], &["note"]]).trim().to_owned().into(),
        "Count" => {
            let paths: &[&[&str]] = &[&["series", "count"], &["count"], &["deprecatedCount"]];
            paths.iter().find_map(|path| row.value.i64_at(path)).unwrap_or(1).max(1).into()
        }
        _ => return None,
    })
}

fn last_seen(row: &Row<'_>) -> String {
    let paths: &[&[&str]] =
        &[&["series", "lastObservedTime"], &["lastTimestamp"], &["deprecatedLastTimestamp"], &["eventTime"]];
    match paths.iter().find(|path| !row.text(path).is_empty()) {
        Some(path) => row.since(path),
        None => row.since(&["metadata", "creationTimestamp"]),
    }
}

fn subjects(row: &Row<'_>, kind: &str) -> String {
    let subjects = row.value.items_at(&["subjects"]).iter().filter(|subject| subject.str_at(&["kind"]) == Some(kind));
    let names: Vec<String> = subjects
        .map(|subject| {
            let name = subject.str_at(&["name"]).unwrap_or_default();
            match subject.str_at(&["namespace"]) {
                Some(namespace) if kind == "ServiceAccount" => format!("{namespace}/{name}"),
                _ => name.to_owned(),
            }
        })
        .collect();
    names.join(", ")
}

fn quota(row: &Row<'_>, wanted: impl Fn(&str) -> bool) -> String {
    let hard = row.value.at(&["status", "hard"]).and_then(Value::as_object).into_iter().flat_map(|map| map.iter());
    let texts: Vec<String> = hard
        .filter(|(name, _)| wanted(name))
        .map(|(name, hard)| {
            let used = row.value.str_at(&["status", "used", name]).unwrap_or("0");
            format!("{name}: {used}/{}", hard.as_str().unwrap_or_default())
        })
        .collect();
    texts.join(", ")
}

fn signing_condition(row: &Row<'_>) -> String {
    let conditions = row.value.items_at(&["status", "conditions"]);
    let has = |kind: &str| conditions.iter().any(|condition| condition.str_at(&["type"]) == Some(kind));
    let mut words = Vec::new();
    match (has("Denied"), has("Approved")) {
        (true, _) => words.push("Denied"),
        (false, true) => words.push("Approved"),
        (false, false) => words.push("Pending"),
    }
    if has("Failed") {
        words.push("Failed");
    }
    if !row.text(&["status", "certificate"]).is_empty() {
        words.push("Issued");
    }
    words.join(",")
}

fn claim_state(row: &Row<'_>) -> String {
    let mut states = Vec::new();
    if row.object.is_deleting() {
        states.push("deleted");
    }
    if row.value.at(&["status", "allocation"]).is_none_or(Value::is_null) {
        if !row.object.is_deleting() {
            states.push("pending");
        }
    } else {
        states.push("allocated");
        states.push(if row.value.items_at(&["status", "reservedFor"]).is_empty() { "" } else { "reserved" });
    }
    states.retain(|state| !state.is_empty());
    or_none(states.join(","))
}
