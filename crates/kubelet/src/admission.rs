//! Whether a pod that was bound to this node can run on it. Upstream: pkg/kubelet/lifecycle/predicate.go.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod};
use rules::Resources;

use crate::spec::spec;

/// The kernel parameters that a pod may set without harm to others: each belongs to a namespace of the pod's own. Upstream:
/// pkg/kubelet/sysctl SafeSysctlAllowlist.
const SAFE_SYSCTLS: &[(&str, Namespace)] = &[
    ("kernel.shm_rmid_forced", Namespace::Ipc),
    ("net.ipv4.ip_local_port_range", Namespace::Net),
    ("net.ipv4.tcp_syncookies", Namespace::Net),
    ("net.ipv4.ping_group_range", Namespace::Net),
    ("net.ipv4.ip_unprivileged_port_start", Namespace::Net),
    ("net.ipv4.ip_local_reserved_ports", Namespace::Net),
    ("net.ipv4.tcp_keepalive_time", Namespace::Net),
    ("net.ipv4.tcp_fin_timeout", Namespace::Net),
    ("net.ipv4.tcp_keepalive_intvl", Namespace::Net),
    ("net.ipv4.tcp_keepalive_probes", Namespace::Net),
    ("net.ipv4.tcp_rmem", Namespace::Net),
    ("net.ipv4.tcp_wmem", Namespace::Net),
];

#[derive(Clone, Copy)]
enum Namespace {
    Ipc,
    Net,
}

/// Why the pod is refused, as reason and message; `others` are the pods that have been let in.
pub(crate) fn refuse(
    pod: &Pod,
    others: &[Arc<Pod>],
    node: Option<&Node>,
    allocatable: &Resources,
) -> Option<(&'static str, String)> {
    if let Some(why) = forbidden_sysctl(pod) {
        return Some(("SysctlForbidden", format!("forbidden sysctl: {why}")));
    }
    if spec(pod).os.as_ref().is_some_and(|os| os.name != "linux") {
        return Some(("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS".to_owned()));
    }
    if let Some(node) = node
        && !rules::required_node_affinity(spec(pod), node)
    {
        let message = "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector";
        return Some(("NodeAffinity", message.to_owned()));
    }
    refuse_amounts(pod, others, allocatable).or_else(|| taken_port(pod, others))
}

/// Why the pod, admitted long ago, can't have what it asks for now: `Infeasible` or `Deferred`, and the message. Upstream: canResizePod.
pub(crate) fn refuse_resize(pod: &Pod, others: &[Arc<Pod>], allocatable: &Resources) -> Option<(&'static str, String)> {
    let requested = rules::pod_requests(spec(pod));
    for name in ["cpu", "memory"] {
        let (requested, capacity) = (requested.get(name), allocatable.get(name));
        if requested > capacity {
            let amounts = format!("requested: {requested}, capacity: {capacity}");
            return Some(("Infeasible", format!("Node didn't have enough capacity: {name}, {amounts}")));
        }
    }
    refuse_amounts(pod, others, allocatable).map(|(_, message)| ("Deferred", message))
}

/// Why the pod doesn't fit beside the others.
fn refuse_amounts(pod: &Pod, others: &[Arc<Pod>], allocatable: &Resources) -> Option<(&'static str, String)> {
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
    None
}

fn taken_port(pod: &Pod, others: &[Arc<Pod>]) -> Option<(&'static str, String)> {
    let ports = rules::host_ports(spec(pod));
    let taken: Vec<_> = others.iter().flat_map(|other| rules::host_ports(spec(other))).collect();
    if ports.iter().any(|port| taken.iter().any(|taken| rules::conflicts(port, taken))) {
        let message = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        return Some(("NodePorts", message.to_owned()));
    }
    None
}

/// What is wrong with the first kernel parameter that the pod may not set.
fn forbidden_sysctl(pod: &Pod) -> Option<String> {
    let spec = spec(pod);
    let wanted = spec.security_context.as_ref()?.sysctls.as_ref()?;
    wanted.iter().find_map(|sysctl| {
        let name = dotted(&sysctl.name);
        let Some((_, namespace)) = SAFE_SYSCTLS.iter().find(|(safe, _)| *safe == name) else {
            return Some(format!("{name:?} not allowlisted"));
        };
        let (shared, shown) = match namespace {
            Namespace::Ipc => (spec.host_ipc, "IPC"),
            Namespace::Net => (spec.host_network, "Net"),
        };
        shared.unwrap_or_default().then(|| format!("{name:?} not allowed with host {shown} enabled"))
    })
}

/// The name with its parts separated by dots; where slashes do that, a dot belongs to a part.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).map(|at| name.as_bytes()[at]) {
        Some(b'/') => name
            .chars()
            .map(|c| match c {
                '/' => '.',
                '.' => '/',
                c => c,
            })
            .collect(),
        _ => name.to_owned(),
    }
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
        check(json!({"containers": [], "os": {"name": "linux"}}), vec![], None);
        check(json!({"containers": [], "os": {"name": "windows"}}), vec![], Some("PodOSNotSupported"));
    }

    #[test]
    fn kernel_parameters_are_the_pods_own() {
        let check = |name: &str, host: bool, expect: Option<&str>| {
            let spec = json!({"containers": [], "hostNetwork": host, "hostIPC": host,
                "securityContext": {"sysctls": [{"name": name, "value": "1"}]}});
            let pod: Pod = serde_json::from_value(json!({"spec": spec})).unwrap();
            assert_eq!(forbidden_sysctl(&pod).as_deref(), expect, "{name}");
        };
        check("kernel.shm_rmid_forced", false, None);
        check("kernel/shm_rmid_forced", false, None);
        check("kernel.shm_rmid_forced", true, Some("\"kernel.shm_rmid_forced\" not allowed with host IPC enabled"));
        check("net.ipv4.tcp_rmem", true, Some("\"net.ipv4.tcp_rmem\" not allowed with host Net enabled"));
        check("kernel.msgmax", false, Some("\"kernel.msgmax\" not allowlisted"));
        check("net/ipv4/conf/eth0.1/rp_filter", false, Some("\"net.ipv4.conf.eth0/1.rp_filter\" not allowlisted"));
    }
}
