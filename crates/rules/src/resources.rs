//! What a pod asks of a node. Upstream: component-helpers resource PodRequests.

use std::collections::BTreeMap;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{Container, Node, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

/// Amounts by resource name: CPU in thousandths of a core, all others in whole units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    pub milli_cpu: i64,
    pub memory: i64,
    pub ephemeral_storage: i64,
    /// Extended resources, huge pages and `pods`.
    pub others: BTreeMap<String, i64>,
}

/// A quantity from a stored object; the API server has checked it, so anything else counts as nothing.
pub fn parse_quantity(text: &Text) -> Quantity {
    text.0.parse().unwrap_or_default()
}

impl Resources {
    /// Reads a `ResourceList`.
    pub fn from_list(list: Option<&BTreeMap<String, Text>>) -> Resources {
        let mut resources = Resources::default();
        for (name, text) in list.into_iter().flatten() {
            let quantity = parse_quantity(text);
            match name.as_str() {
                "cpu" => resources.milli_cpu = quantity.milli_value(),
                "memory" => resources.memory = quantity.value(),
                "ephemeral-storage" => resources.ephemeral_storage = quantity.value(),
                _ => drop(resources.others.insert(name.clone(), quantity.value())),
            }
        }
        resources
    }

    /// The amount of one resource, 0 where there is none.
    pub fn get(&self, name: &str) -> i64 {
        match name {
            "cpu" => self.milli_cpu,
            "memory" => self.memory,
            "ephemeral-storage" => self.ephemeral_storage,
            _ => self.others.get(name).copied().unwrap_or_default(),
        }
    }

    pub fn add(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_add);
    }

    pub fn subtract(&mut self, other: &Resources) {
        self.combine(other, i64::saturating_sub);
    }

    /// The larger amount of each resource.
    pub fn raise_to(&mut self, other: &Resources) {
        self.combine(other, i64::max);
    }

    fn combine(&mut self, other: &Resources, by: fn(i64, i64) -> i64) {
        self.milli_cpu = by(self.milli_cpu, other.milli_cpu);
        self.memory = by(self.memory, other.memory);
        self.ephemeral_storage = by(self.ephemeral_storage, other.ephemeral_storage);
        for (name, amount) in &other.others {
            let mine = self.others.entry(name.clone()).or_default();
            *mine = by(*mine, *amount);
        }
    }
}

/// What scheduling reserves for the pod: the sum of its containers and sidecars, or the most that starting takes, and its overhead.
pub fn pod_requests(spec: &PodSpec) -> Resources {
    requests_by(spec, |container| requested(container.resources.as_ref()))
}

/// What a pod holds of its node: like [`pod_requests`], where a container counts with the most of what its spec asks for, what its status says it
/// has, and what the kubelet promised it, until a resize is done.
pub fn placed_pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    requests_by(spec, |container| held(pod, container))
}

/// Like [`placed_pod_requests`], where a container that requests no CPU or memory counts as 100m and 200Mi: what nodes are compared by.
pub fn placed_scored_pod_requests(pod: &Pod) -> Resources {
    let Some(spec) = &pod.spec else { return Resources::default() };
    requests_by(spec, |container| with_least(container, held(pod, container)))
}

fn held(pod: &Pod, container: &Container) -> Resources {
    let mut most = requested(container.resources.as_ref());
    let Some(status) = crate::container_status(pod, &container.name) else { return most };
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if conditions.iter().any(|c| c.type_ == "PodResizePending" && c.reason.as_deref() == Some("Infeasible")) {
        most = Resources::default();
    }
    most.raise_to(&requested(status.resources.as_ref()));
    most.raise_to(&Resources::from_list(status.allocated_resources.as_ref()));
    most
}

fn with_least(container: &Container, mut request: Resources) -> Resources {
    let asks = |name: &str| {
        let list = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        list.is_some_and(|list| list.contains_key(name))
    };
    if !asks("cpu") {
        request.milli_cpu = 100;
    }
    if !asks("memory") {
        request.memory = 200 << 20;
    }
    request
}

fn requests_by(spec: &PodSpec, request: impl Fn(&Container) -> Resources) -> Resources {
    let mut running = Resources::default();
    for container in &spec.containers {
        running.add(&request(container));
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for init in spec.init_containers.iter().flatten() {
        let mut here = request(init);
        if crate::is_sidecar(init) {
            running.add(&here);
            sidecars.add(&here);
            here = sidecars.clone();
        } else {
            here.add(&sidecars);
        }
        starting.raise_to(&here);
    }
    running.raise_to(&starting);
    override_with_pod_level(&mut running, spec.resources.as_ref());
    running.add(&Resources::from_list(spec.overhead.as_ref()));
    running
}

/// What a node has for pods.
pub fn allocatable(node: &Node) -> Resources {
    Resources::from_list(node.status.as_ref().and_then(|status| status.allocatable.as_ref()))
}

/// Requests as stored: defaulting has already put limits where requests were left out.
fn requested(resources: Option<&ResourceRequirements>) -> Resources {
    Resources::from_list(resources.and_then(|resources| resources.requests.as_ref()))
}

/// A resource that the pod as a whole requests replaces the sum of its containers.
fn override_with_pod_level(sum: &mut Resources, pod: Option<&ResourceRequirements>) {
    let Some(list) = pod.and_then(|pod| pod.requests.as_ref()) else { return };
    let whole = Resources::from_list(Some(list));
    for name in list.keys() {
        match name.as_str() {
            "cpu" => sum.milli_cpu = whole.milli_cpu,
            "memory" => sum.memory = whole.memory,
            "ephemeral-storage" => {}
            name => drop(sum.others.insert(name.to_owned(), whole.get(name))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn starting_and_running_are_compared() {
        let container = |name: &str, cpu: &str, restart: Option<&str>| json!({"name": name, "restartPolicy": restart, "resources": {"requests": {"cpu": cpu, "memory": "1Mi"}}});
        let check = |init: Vec<serde_json::Value>, expect: i64| {
            let spec = json!({"initContainers": init, "overhead": {"cpu": "10m"},
                "containers": [container("a", "100m", None), container("b", "200m", None)]});
            assert_eq!(pod_requests(&serde_json::from_value(spec).unwrap()).milli_cpu, expect);
        };
        check(vec![], 310);
        check(vec![container("i", "1", None)], 1010);
        check(vec![container("s", "50m", Some("Always"))], 360);
        check(vec![container("s", "50m", Some("Always")), container("i", "1", None)], 1060);
        check(vec![container("i", "1", None), container("s", "50m", Some("Always"))], 1010);
    }

    #[test]
    fn a_resize_under_way_holds_the_most() {
        let check = |conditions: serde_json::Value, expect: i64| {
            let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}]},
                "status": {"conditions": conditions, "containerStatuses": [{"name": "a", "ready": true, "image": "",
                    "imageID": "", "restartCount": 0, "resources": {"requests": {"cpu": "1"}}, "allocatedResources": {"cpu": "2"}}]}});
            assert_eq!(placed_pod_requests(&serde_json::from_value(pod).unwrap()).milli_cpu, expect);
        };
        check(json!([]), 3000);
        check(json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]), 2000);
    }

    #[test]
    fn a_pods_own_requests_replace_the_sum() {
        let spec = json!({"resources": {"requests": {"cpu": "2"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Ki", "x.y/z": "2"}}}]});
        let requests = pod_requests(&serde_json::from_value(spec).unwrap());
        assert_eq!((requests.milli_cpu, requests.memory, requests.get("x.y/z")), (2000, 1024, 2));
    }
}
