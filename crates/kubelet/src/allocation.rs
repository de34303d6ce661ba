//! What containers were promised of the node, and what they were given: the two differ while a pod is resized in place. Upstream:
//! pkg/kubelet/allocation.
//!
//! Three amounts exist for each container: what its spec asks for, what the kubelet *allocated* to it when it fitted, and what the
//! runtime last *actuated*. The last two are kept in the pod's folder, for a kubelet that begins again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::spec::{init_containers, spec};

const FILE: &str = "allocation.json";

/// Resources by container.
pub(crate) type ByContainer = BTreeMap<String, ResourceRequirements>;

/// What one pod's containers were promised and given.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Allocation {
    pub(crate) allocated: ByContainer,
    pub(crate) actuated: ByContainer,
}

/// How far a resize is.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Resize {
    pub(crate) pending: Option<Pending>,
    pub(crate) progress: Option<Progress>,
}

/// A resize that was not allocated.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pending {
    /// `Deferred` or `Infeasible`.
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) generation: i64,
}

/// A resize that was allocated and is not done yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Progress {
    pub(crate) generation: i64,
    pub(crate) error: Option<String>,
}

impl Allocation {
    /// What the spec asks for, promised.
    pub(crate) fn of(pod: &Pod) -> Allocation {
        let own = |container: &Container| (container.name.clone(), container.resources.clone().unwrap_or_default());
        Allocation { allocated: resizable(pod).map(own).collect(), actuated: ByContainer::new() }
    }

    /// What an earlier kubelet kept in the pod's folder.
    pub(crate) fn load(folder: &Path) -> Option<Allocation> {
        serde_json::from_slice(&fs::read(folder.join(FILE)).ok()?).ok()
    }

    /// Keeps it in the pod's folder, where a power cut leaves the old one or this.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let fresh = folder.join(format!(".{FILE}"));
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_data()?;
        fs::rename(fresh, folder.join(FILE))
    }

    /// The pod with what was allocated to it; `None` if that is what it asks for.
    pub(crate) fn apply(&self, pod: &Pod) -> Option<Pod> {
        replaced(pod, &self.allocated)
    }

    /// The pod with what it was given.
    pub(crate) fn applied(&self, pod: &Pod) -> Option<Pod> {
        replaced(pod, &self.actuated)
    }

    /// Whether the container was given something else than was allocated to it.
    pub(crate) fn differs(&self, name: &str) -> bool {
        match (self.allocated.get(name), self.actuated.get(name)) {
            (Some(allocated), Some(actuated)) => !same(allocated, actuated),
            _ => false,
        }
    }
}

/// The containers that can be resized: all but those that end before the pod runs.
pub(crate) fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    init_containers(pod).iter().filter(|container| rules::is_sidecar(container)).chain(&spec(pod).containers)
}

fn replaced(pod: &Pod, by: &ByContainer) -> Option<Pod> {
    let differs = |container: &Container| {
        let own = container.resources.clone().unwrap_or_default();
        by.get(&container.name).is_some_and(|other| !same(other, &own))
    };
    if !resizable(pod).any(differs) {
        return None;
    }
    let mut pod = pod.clone();
    let spec = pod.spec.as_mut()?;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(resources) = by.get(&container.name) {
            container.resources = Some(resources.clone());
        }
    }
    Some(pod)
}

/// Whether both ask for the same amounts, however these are written.
pub(crate) fn same(a: &ResourceRequirements, b: &ResourceRequirements) -> bool {
    let list = |list: &Option<BTreeMap<String, _>>| -> BTreeMap<String, apimachinery::Quantity> {
        list.iter().flatten().map(|(name, amount)| (name.clone(), rules::parse_quantity(amount))).collect()
    };
    list(&a.requests) == list(&b.requests) && list(&a.limits) == list(&b.limits)
}

/// Whether the container is to be started again to be given what it is allocated.
pub(crate) fn needs_restart(container: &Container, old: &ResourceRequirements) -> bool {
    let new = container.resources.clone().unwrap_or_default();
    let amount = |of: &ResourceRequirements, limit: bool, name: &str| {
        let list = if limit { &of.limits } else { &of.requests };
        list.as_ref().and_then(|list| list.get(name)).map(rules::parse_quantity)
    };
    let changed =
        |name: &str| [true, false].into_iter().any(|limit| amount(old, limit, name) != amount(&new, limit, name));
    let policies = container.resize_policy.iter().flatten();
    policies.filter(|policy| policy.restart_policy == "RestartContainer").any(|policy| changed(&policy.resource_name))
}

/// What events of a resize say. Upstream: pkg/kubelet/events podResizeMessage.
pub(crate) fn message(prefix: &str, pod: &Pod, generation: i64, error: &str) -> String {
    let list = |containers: &[Container]| -> Json {
        let one = |c: &Container| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
        containers.iter().map(one).collect()
    };
    let mut text = format!("{prefix}: {{");
    if !init_containers(pod).is_empty() {
        text.push_str(&format!("\"initContainers\":{},", list(init_containers(pod))));
    }
    text.push_str(&format!("\"containers\":{},\"generation\":{generation}", list(&spec(pod).containers)));
    if !error.is_empty() {
        text.push_str(&format!(",\"error\":{}", Json::from(error)));
    }
    text + "}"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(cpu: &str, policy: Json) -> Pod {
        serde_json::from_value(json!({"spec": {"containers": [{"name": "c", "resizePolicy": policy,
            "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}}]}}))
        .unwrap()
    }

    #[test]
    fn amounts_are_compared_not_texts() {
        let allocation = Allocation::of(&pod("1", json!([])));
        assert_eq!(allocation.apply(&pod("1000m", json!([]))), None);
        let held = allocation.apply(&pod("2", json!([]))).unwrap();
        assert_eq!(held, pod("1", json!([])));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Allocation::load(folder.path()), None);
        allocation.save(folder.path()).unwrap();
        assert_eq!(Allocation::load(folder.path()), Some(allocation));
    }

    #[test]
    fn policies_ask_for_restarts() {
        let check = |resource: &str, restart: &str, expect: bool| {
            let policy = json!([{"resourceName": resource, "restartPolicy": restart}]);
            let old = pod("1", json!([])).spec.unwrap().containers[0].resources.clone().unwrap();
            assert_eq!(
                needs_restart(&pod("2", policy).spec.unwrap().containers[0], &old),
                expect,
                "{resource} {restart}"
            );
        };
        check("cpu", "RestartContainer", true);
        check("cpu", "NotRequired", false);
        check("memory", "RestartContainer", false);
    }

    #[test]
    fn events_tell_amounts() {
        assert_eq!(
            message("Pod resize started", &pod("1", json!([])), 3, ""),
            r#"Pod resize started: {"containers":[{"name":"c","resources":{"requests":{"cpu":"1","memory":"64Mi"}}}],"generation":3}"#
        );
    }
}
