//! The APIServices of what this server answers for itself. Upstream: pkg/controlplane/apiserver/aggregator.go.

use serde_json::{Value, json};

/// The label that says who made an APIService, and how long it is kept.
pub(super) const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

/// Groups in the order clients prefer them, and versions within their group.
const PRIORITIES: &[(&str, &str, i64, i64)] = &[
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("storagemigration.k8s.io", "v1beta1", 15_800, 9),
];

/// Those of the built-in group versions.
pub(crate) fn local_services() -> Vec<Value> {
    let served = |(group, version, ..): &&(&str, &str, i64, i64)| {
        api::kinds().iter().any(|kind| kind.group == *group && kind.version == *version)
    };
    let service = |(group, version, of_group, of_version): &(&str, &str, i64, i64)| {
        service(group, version, *of_group, *of_version, "onstart")
    };
    PRIORITIES.iter().filter(served).map(service).collect()
}

/// That of a group version of custom resources, which go behind what is built in.
pub(super) fn custom_service(group: &str, version: &str) -> Value {
    service(group, version, 1000, 100, "true")
}

fn service(group: &str, version: &str, of_group: i64, of_version: i64, managed: &str) -> Value {
    let mut service = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": { "name": format!("{version}.{group}"), "labels": { MANAGED: managed } },
        "spec": { "version": version, "groupPriorityMinimum": of_group, "versionPriority": of_version },
    });
    if !group.is_empty() {
        service["spec"]["group"] = group.into();
    }
    service
}

/// How a group stands among the others, for groups that have no APIService.
pub(super) fn of_group(group: &str) -> i64 {
    let known = PRIORITIES.iter().find(|(known, ..)| *known == group);
    match known {
        Some((_, _, priority, _)) => *priority,
        None if group == super::GROUP => 17_900,
        None => 1000,
    }
}
