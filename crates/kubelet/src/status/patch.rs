//! The smallest strategic merge patch that tells a status.

use k8s_openapi::api::core::v1::PodStatus;
use serde_json::{Map, Value as Json, json};

use super::conditions::OWNED;

/// What of a status the kubelet writes. The rest belongs to others.
const FIELDS: [&str; 14] = [
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "hostIP",
    "hostIPs",
    "initContainerStatuses",
    "message",
    "observedGeneration",
    "phase",
    "podIP",
    "podIPs",
    "qosClass",
    "reason",
    "startTime",
];

/// The patch from `old` to `new`, for the incarnation `uid`; `None` if there is nothing to tell.
pub(super) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Json> {
    let (old, new) = (fields(old), fields(new));
    let mut changed = Map::new();
    for field in FIELDS {
        let (before, after) = (old.get(field), new.get(field));
        if before == after {
            continue;
        }
        let value = match field {
            "conditions" => merged_conditions(before, after),
            "podIPs" | "hostIPs" => merged_ips(before, after),
            _ => after.cloned().unwrap_or(Json::Null),
        };
        changed.insert(field.to_owned(), value);
    }
    if changed.is_empty() { None } else { Some(json!({"metadata": {"uid": uid}, "status": changed})) }
}

/// The status as the API server would hold it: only the kubelet's fields and conditions, nothing empty.
fn fields(status: &PodStatus) -> Map<String, Json> {
    let Ok(Json::Object(mut all)) = serde_json::to_value(status) else { return Map::new() };
    all.retain(|field, value| FIELDS.contains(&field.as_str()) && !is_empty(value));
    if let Some(Json::Array(conditions)) = all.get_mut("conditions") {
        conditions.retain(|condition| condition["type"].as_str().is_some_and(|name| OWNED.contains(&name)));
        conditions.sort_by_key(|condition| condition["type"].as_str().map(str::to_owned));
        for condition in conditions {
            if let Some(condition) = condition.as_object_mut() {
                // Upstream's server keeps it as null; it says nothing.
                condition.remove("lastProbeTime");
            }
        }
    }
    all.retain(|_, value| !is_empty(value));
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for status in all.get_mut(list).and_then(Json::as_array_mut).into_iter().flatten() {
            let Some(status) = status.as_object_mut() else { continue };
            for state in ["state", "lastState"] {
                if let Some(inner) = status.get_mut(state).and_then(Json::as_object_mut) {
                    inner.values_mut().filter_map(Json::as_object_mut).for_each(|inner| {
                        inner.retain(|_, value| !is_empty(value));
                    });
                }
            }
        }
    }
    all
}

fn is_empty(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::String(text) => text.is_empty(),
        Json::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Conditions are merged by type: what one no longer says has to be taken back.
fn merged_conditions(before: Option<&Json>, after: Option<&Json>) -> Json {
    let list = |of: Option<&Json>| of.and_then(Json::as_array).cloned().unwrap_or_default();
    let (before, mut after) = (list(before), list(after));
    for condition in &mut after {
        let old = before.iter().find(|old| old["type"] == condition["type"]);
        let said = old.and_then(Json::as_object).into_iter().flatten().map(|(key, _)| key);
        if let Some(condition) = condition.as_object_mut() {
            for key in said {
                condition.entry(key.clone()).or_insert(Json::Null);
            }
        }
    }
    let gone = before.iter().filter(|old| after.iter().all(|new| new["type"] != old["type"]));
    let gone: Vec<Json> = gone.map(|old| json!({"$patch": "delete", "type": old["type"]})).collect();
    after.extend(gone);
    Json::Array(after)
}

/// These lists are merged by address: those that are gone have to be named.
fn merged_ips(before: Option<&Json>, after: Option<&Json>) -> Json {
    let list = |of: Option<&Json>| of.and_then(Json::as_array).cloned().unwrap_or_default();
    let after = list(after);
    let mut all = after.clone();
    for gone in list(before).into_iter().filter(|entry| !after.contains(entry)) {
        all.push(json!({"$patch": "delete", "ip": gone["ip"]}));
    }
    Json::Array(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let check = |old: Json, new: Json, expect: Option<Json>| {
            let status = |json: &Json| serde_json::from_value::<PodStatus>(json.clone()).unwrap();
            let found = patch("u", &status(&old), &status(&new));
            let expect = expect.map(|status| json!({"metadata": {"uid": "u"}, "status": status}));
            assert_eq!(found, expect, "{old} {new}");
        };
        check(json!({"phase": "Running"}), json!({"phase": "Running"}), None);
        check(json!({"phase": "Pending"}), json!({"phase": "Running"}), Some(json!({"phase": "Running"})));
        check(json!({"reason": "x", "nominatedNodeName": "n"}), json!({}), Some(json!({"reason": null})));
        check(
            json!({"podIPs": [{"ip": "1.1.1.1"}]}),
            json!({"podIPs": [{"ip": "1.1.1.2"}]}),
            Some(json!({"podIPs": [{"ip": "1.1.1.2"}, {"$patch": "delete", "ip": "1.1.1.1"}]})),
        );
        let condition = |status: &str| json!({"type": "Ready", "status": status});
        let others = json!({"type": "x/y", "status": "True"});
        check(
            json!({"conditions": [condition("True"), others]}),
            json!({"conditions": [condition("False")]}),
            Some(json!({"conditions": [condition("False")]})),
        );
        check(json!({"conditions": [others]}), json!({"conditions": []}), None);
        let unready = json!({"type": "Ready", "status": "False", "reason": "r", "message": "m"});
        check(
            json!({"conditions": [condition("True"), {"type": "PodResizePending", "status": "True"}]}),
            json!({"conditions": [condition("True")]}),
            Some(json!({"conditions": [condition("True"), {"$patch": "delete", "type": "PodResizePending"}]})),
        );
        check(
            json!({"conditions": [unready]}),
            json!({"conditions": [condition("True")]}),
            Some(json!({"conditions": [{"type": "Ready", "status": "True", "reason": null, "message": null}]})),
        );
    }
}
