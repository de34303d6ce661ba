//! Shares, quotas and limits. Upstream: pkg/kubelet/cm helpers_linux.go, pkg/kubelet/qos.

use std::path::PathBuf;

use cri::v1::{HugepageLimit, LinuxContainerResources};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use linux::cgroup::{Limits, Version};
use rules::{QosClass, Resources};

use super::{spec, uid};
use crate::config::Config;

const PERIOD: i64 = 100_000;
const MIN_QUOTA: i64 = 1000;
const MIN_SHARES: i64 = 2;
const MAX_SHARES: i64 = 262_144;

/// From this priority on a pod is critical to its node.
const NODE_CRITICAL: i32 = 2_000_001_000;

/// The pod's control group, which its containers' lie in.
pub(crate) fn pod_cgroup(config: &Config, pod: &Pod) -> PathBuf {
    let folder = match rules::qos_class(spec(pod)) {
        QosClass::Guaranteed => "kubelet",
        QosClass::Burstable => "kubelet/burstable",
        QosClass::BestEffort => "kubelet/besteffort",
    };
    config.scope.cgroup(folder).join(format!("pod{}", uid(pod)))
}

/// The limits of the pod's own group: its requests as weight; the pod's own limits, or the sum of its containers' where every one has
/// one. What the pod itself costs is added.
pub(crate) fn pod_limits(spec: &PodSpec) -> Limits {
    let requests = rules::pod_requests(spec);
    let of_pod = spec.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    let (of_pod, overhead) = (Resources::from_list(of_pod), Resources::from_list(spec.overhead.as_ref()));
    let limit = |name: &str| {
        if of_pod.get(name) > 0 {
            return Some(of_pod.get(name) + overhead.get(name));
        }
        let all = spec.containers.iter().chain(spec.init_containers.iter().flatten().filter(|c| rules::is_sidecar(c)));
        let limits = all.map(|container| amounts(container, true).get(name));
        let running: Option<i64> = limits.map(|limit| (limit > 0).then_some(limit)).sum();
        let init = spec.init_containers.iter().flatten().map(|container| amounts(container, true).get(name));
        let init: Option<i64> = init
            .map(|limit| (limit > 0).then_some(limit))
            .try_fold(0, |most, limit| limit.map(|limit: i64| limit.max(most)));
        Some(running?.max(init?) + overhead.get(name))
    };
    let cpu_limit = limit("cpu");
    let best_effort = rules::qos_class(spec) == QosClass::BestEffort;
    let weight = if best_effort { MIN_SHARES } else { shares(requests.milli_cpu.max(0)) };
    Limits {
        cpu_shares: u64::try_from(weight).ok(),
        cpu_quota: cpu_limit.map(quota),
        cpu_period: cpu_limit.and(u64::try_from(PERIOD).ok()),
        memory: limit("memory"),
        ..Limits::default()
    }
}

/// What a container may use.
pub(crate) fn container_resources(
    pod: &Pod,
    container: &Container,
    memory_capacity: i64,
    version: Version,
) -> LinuxContainerResources {
    let (requests, limits) = (amounts(container, false), amounts(container, true));
    let has_request =
        container.resources.as_ref().and_then(|r| r.requests.as_ref()).is_some_and(|r| r.contains_key("cpu"));
    let cpu = if !has_request && limits.milli_cpu > 0 { limits.milli_cpu } else { requests.milli_cpu };
    let mut resources = LinuxContainerResources {
        cpu_shares: shares(cpu),
        cpu_period: PERIOD,
        memory_limit_in_bytes: limits.memory,
        oom_score_adj: oom_score_adj(spec(pod), &requests, memory_capacity),
        ..Default::default()
    };
    if limits.milli_cpu > 0 {
        resources.cpu_quota = quota(limits.milli_cpu);
    }
    if version == Version::V2 {
        // A container's processes are killed together.
        resources.unified.insert("memory.oom.group".to_owned(), "1".to_owned());
    }
    for (name, bytes) in &limits.others {
        if let (Some(size), Ok(limit)) = (name.strip_prefix("hugepages-"), u64::try_from(*bytes)) {
            resources
                .hugepage_limits
                .push(HugepageLimit { page_size: format!("{}B", size.trim_end_matches('i')), limit });
        }
    }
    resources
}

/// Bytes; 0 without a limit.
pub(crate) fn memory_limit(resources: Option<&ResourceRequirements>) -> i64 {
    Resources::from_list(resources.and_then(|resources| resources.limits.as_ref())).memory
}

fn amounts(container: &Container, limits: bool) -> Resources {
    let of = container.resources.as_ref();
    Resources::from_list(of.and_then(|of| if limits { of.limits.as_ref() } else { of.requests.as_ref() }))
}

fn shares(milli_cpu: i64) -> i64 {
    (milli_cpu * 1024 / 1000).clamp(MIN_SHARES, MAX_SHARES)
}

fn quota(milli_cpu: i64) -> i64 {
    (milli_cpu * PERIOD / 1000).max(MIN_QUOTA)
}

/// How readily the kernel kills the container when memory runs out. Upstream: `GetContainerOOMScoreAdjust`.
fn oom_score_adj(spec: &PodSpec, requests: &Resources, memory_capacity: i64) -> i64 {
    if spec.priority.is_some_and(|priority| priority >= NODE_CRITICAL) {
        return -997;
    }
    match rules::qos_class(spec) {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = i128::from(requests.memory) * 1000 / i128::from(memory_capacity.max(1));
            i64::try_from(1000 - share).unwrap_or(3).clamp(3, 999)
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn pod(resources: Json) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resources": resources}]}})).unwrap()
    }

    #[test]
    fn resources_become_limits() {
        let check = |resources: Json, expect: (i64, i64, i64, i64)| {
            let pod = pod(resources.clone());
            let found = container_resources(&pod, &spec(&pod).containers[0], 1 << 30, Version::V1);
            let found = (found.cpu_shares, found.cpu_quota, found.memory_limit_in_bytes, found.oom_score_adj);
            assert_eq!(found, expect, "{resources}");
        };
        check(json!({}), (2, 0, 0, 1000));
        check(json!({"requests": {"cpu": "500m", "memory": "512Mi"}}), (512, 0, 0, 500));
        check(json!({"limits": {"cpu": "2", "memory": "64Mi"}}), (2048, 200_000, 64 << 20, -997));
        check(json!({"limits": {"cpu": "1m"}}), (2, 1000, 0, 999));
        check(json!({"requests": {"cpu": "0", "memory": "1Gi"}, "limits": {"cpu": "1"}}), (2, 100_000, 0, 3));
    }

    #[test]
    fn pods_have_limits_where_all_containers_have() {
        let check = |spec: Json, expect: (Option<u64>, Option<i64>, Option<i64>)| {
            let found = pod_limits(&serde_json::from_value(spec.clone()).unwrap());
            assert_eq!((found.cpu_shares, found.cpu_quota, found.memory), expect, "{spec}");
        };
        let both =
            |a: Json, b: Json| json!({"containers": [{"name": "a", "resources": a}, {"name": "b", "resources": b}]});
        check(both(json!({}), json!({})), (Some(2), None, None));
        check(
            both(json!({"limits": {"memory": "1Mi"}}), json!({"limits": {"memory": "2Mi"}})),
            (Some(2), None, Some(3 << 20)),
        );
        check(both(json!({"limits": {"memory": "1Mi"}}), json!({})), (Some(2), None, None));
        check(
            both(
                json!({"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}),
                json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}),
            ),
            (Some(2048), Some(200_000), None),
        );
    }
}
