//! Whether a pod that was bound to this node can run on it. Upstream: pkg/kubelet/lifecycle/predicate.go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use rules::Resources;

use crate::spec::spec;

/// Why the pod is refused, as reason and message; `others` are the pods that have been let in.
pub(crate) fn refuse(
    pod: &Pod,
    others: &[Arc<Pod>],
    node: Option<&Node>,
    allocatable: &Resources,
) -> Option<(&'static str, String)> {
    if let Some(node) = node
        && !rules::required_node_affinity(spec(pod), node)
    {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(("NodeAffinity", message.to_owned()));
    }
    let mut used = Resources::default();
    others.iter().for_each(|other| used.add(&rules::pod_requests(spec(other))));
    let requested = rules::pod_requests(spec(pod));
    let insufficient = |reason: &'static str, name: &str, requested: i64, used: i64, capacity: i64| {
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Some((reason, message))
    };
    let count = i64::try_from(others.len()).unwrap_or(i64::MAX);
    if count >= allocatable.get("pods") {
        return insufficient("OutOfpods", "pods", 1, count, allocatable.get("pods"));
    }
    for (reason, name) in
        [("OutOfcpu", "cpu"), ("OutOfmemory", "memory"), ("OutOfephemeral-storage", "ephemeral-storage")]
    {
        let (requested, used, capacity) = (requested.get(name), used.get(name), allocatable.get(name));
        if requested > 0 && requested > capacity - used {
            return insufficient(reason, name, requested, used, capacity);
        }
    }
    let ports = rules::host_ports(spec(pod));
    let taken: Vec<_> = others.iter().flat_map(|other| rules::host_ports(spec(other))).collect();
    if ports.iter().any(|port| taken.iter().any(|taken| rules::conflicts(port, taken))) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Some(("NodePorts", message.to_owned()));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    #[test]
    fn pods_that_do_not_fit_are_refused() {
        let pod = |spec: Json| -> Pod { serde_json::from_value(json!({"spec": spec})).unwrap() };
        let asks = |cpu: &str, port: i32| {
            json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}},
                "ports": [{"containerPort": 1, "hostPort": port}]}]})
        };
        let allocatable =
            Resources { milli_cpu: 1000, others: [("pods".to_owned(), 2)].into(), ..Resources::default() };
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap();
        let check = |wanted: Json, others: Vec<Json>, expect: Option<&str>| {
            let others: Vec<_> = others.into_iter().map(|spec| Arc::new(pod(spec))).collect();
            let refused = refuse(&pod(wanted.clone()), &others, Some(&node), &allocatable);
            assert_eq!(refused.map(|(reason, _)| reason), expect, "{wanted}");
        };
        check(asks("1", 80), vec![], None);
        check(asks("600m", 80), vec![asks("500m", 81)], Some("OutOfcpu"));
        check(asks("500m", 80), vec![asks("500m", 80)], Some("NodePorts"));
        check(asks("1m", 1), vec![asks("1m", 2), asks("1m", 3)], Some("OutOfpods"));
        check(json!({"containers": [], "nodeSelector": {"a": "b"}}), vec![], Some("NodeAffinity"));
    }
}
