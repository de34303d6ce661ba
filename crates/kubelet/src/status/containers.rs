//! The statuses of containers. Upstream: kubelet_pods.go convertToAPIContainerStatuses.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, LinuxContainerUser, VolumeMount, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Facts;
use crate::runtime;
use crate::spec::{as_container, ephemeral_containers, init_containers, spec};
use crate::worker::restarts::should_restart;

/// What probes say of containers.
pub(crate) trait Readiness {
    /// Whether a running container has passed its startup probe; `true` without one.
    fn started(&self, name: &str, id: &str) -> bool;
    /// Whether a started container passes its readiness probe; `true` without one.
    fn ready(&self, name: &str, id: &str) -> bool;
}

/// The three lists of a status.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    pub(crate) init: Vec<ContainerStatus>,
    pub(crate) containers: Vec<ContainerStatus>,
    pub(crate) ephemeral: Vec<ContainerStatus>,
}

pub(super) fn statuses(facts: &Facts<'_>) -> Lists {
    let of = |containers: &[Container], old: &Option<Vec<ContainerStatus>>, init: bool| -> Vec<ContainerStatus> {
        let old = old.as_deref().unwrap_or_default();
        let one = |container: &Container| {
            let old = old.iter().find(|status| status.name == container.name);
            container_status(facts, container, old, init)
        };
        containers.iter().map(one).collect()
    };
    let (spec, old) = (spec(facts.pod), facts.old);
    let ephemeral: Vec<Container> = ephemeral_containers(facts.pod).iter().map(as_container).collect();
    let mut lists = Lists {
        init: of(init_containers(facts.pod), &old.init_container_statuses, true),
        containers: of(&spec.containers, &old.container_statuses, false),
        ephemeral: of(&ephemeral, &old.ephemeral_container_statuses, false),
    };
    // Upstream orders these two by name, and init containers as they are started.
    lists.containers.sort_by(|a, b| a.name.cmp(&b.name));
    lists.ephemeral.sort_by(|a, b| a.name.cmp(&b.name));
    lists
}

fn container_status(
    facts: &Facts<'_>,
    container: &Container,
    old: Option<&ContainerStatus>,
    init: bool,
) -> ContainerStatus {
    let mut instances = facts.state.containers.iter().filter(|instance| instance.name() == container.name);
    let mut status = match instances.next() {
        Some(newest) => {
            let mut status = convert(facts, newest);
            status.allocated_resources = container.resources.as_ref().and_then(|resources| resources.requests.clone());
            // One that runs has what it was given last.
            let given = facts.actuated.get(&container.name).filter(|_| newest.is_running());
            status.resources = Some(given.or(container.resources.as_ref()).cloned().unwrap_or_default());
            status.user = newest.status.user.as_ref().and_then(user);
            let before = instances.next().map(|previous| state_of(facts, previous));
            status.last_state = before.or_else(|| {
                let same = old.is_some_and(|old| old.restart_count == status.restart_count);
                old.filter(|_| same).and_then(|old| old.last_state.clone())
            });
            status
        }
        None => absent(facts, container, old, init),
    };
    if !(init && facts.state.latest(&container.name).is_some_and(runtime::Container::succeeded))
        && should_restart(facts.pod, container, facts.state)
        && let Some((reason, message)) = facts.waiting.get(&container.name)
    {
        if let Some(ContainerState { terminated: Some(_), .. }) = &status.state {
            status.last_state = status.state.take();
        }
        status.state = Some(waiting(reason, message));
    }
    status.last_state.get_or_insert_default();
    status.volume_mounts = volume_mounts(container);
    status
}

/// Who the first process is. Upstream: convertContainerStatusUser.
fn user(user: &cri::v1::ContainerUser) -> Option<ContainerUser> {
    let linux = user.linux.as_ref()?;
    let groups = (!linux.supplemental_groups.is_empty()).then(|| linux.supplemental_groups.clone());
    Some(ContainerUser {
        linux: Some(LinuxContainerUser { uid: linux.uid, gid: linux.gid, supplemental_groups: groups }),
    })
}

/// How volumes are mounted. What the runtime refuses is no container, so what was asked for is what is.
fn volume_mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let one = |mount: &VolumeMount| {
        let read_only = mount.read_only.filter(|read_only| *read_only);
        let recursive = || match mount.recursive_read_only.as_deref() {
            Some("Enabled" | "IfPossible") => "Enabled".to_owned(),
            _ => "Disabled".to_owned(),
        };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only,
            recursive_read_only: read_only.map(|_| recursive()),
        }
    };
    Some(mounts.iter().map(one).collect())
}

/// The status of a container that the runtime does not know: not made yet, or gone.
fn absent(facts: &Facts<'_>, container: &Container, old: Option<&ContainerStatus>, init: bool) -> ContainerStatus {
    let mut status = ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(waiting(creating(facts), "")),
        ..ContainerStatus::default()
    };
    let Some(old) = old else { return status };
    let state = old.state.clone().unwrap_or_default();
    if let Some(end) = &state.terminated {
        let done = end.exit_code == 0 && init && !rules::is_sidecar(container);
        if done || facts.ended || !should_restart(facts.pod, container, facts.state) {
            return ContainerStatus { ready: false, started: None, ..old.clone() };
        }
    }
    status.restart_count = old.restart_count;
    status.last_state.clone_from(&old.last_state);
    let lost = |when: &str| ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: 137,
            reason: Some("ContainerStatusUnknown".into()),
            message: Some(format!(
                "The container could not be located when the pod was {when}.  The container used to be Running"
            )),
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    };
    if state.terminated.is_some() {
        status.last_state = Some(state);
    } else if state.running.is_some() {
        if facts.ended {
            status.state = Some(lost("terminated"));
        } else {
            status.last_state = Some(lost("deleted"));
            if facts.pod.metadata.deletion_timestamp.is_none() {
                status.restart_count += 1;
            }
        }
    }
    status
}

fn convert(facts: &Facts<'_>, instance: &runtime::Container) -> ContainerStatus {
    let cri = &instance.status;
    ContainerStatus {
        name: instance.name().to_owned(),
        container_id: Some(container_id(facts, instance)),
        image: cri.image.as_ref().map(|image| image.image.clone()).unwrap_or_default(),
        image_id: cri.image_ref.clone(),
        restart_count: instance.restart_count(),
        state: Some(state_of(facts, instance)),
        ..ContainerStatus::default()
    }
}

fn container_id(facts: &Facts<'_>, instance: &runtime::Container) -> String {
    format!("{}://{}", facts.runtime_name, instance.id())
}

fn state_of(facts: &Facts<'_>, instance: &runtime::Container) -> ContainerState {
    let cri = &instance.status;
    let time = |nanoseconds: i64| Timestamp::from_nanosecond(i128::from(nanoseconds)).ok().map(Time);
    match instance.state() {
        cri::v1::ContainerState::ContainerRunning => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(cri.started_at) }),
            ..ContainerState::default()
        },
        cri::v1::ContainerState::ContainerExited => {
            let message = facts.messages.get(instance.id()).unwrap_or(&cri.message);
            let text = |text: &String| if text.is_empty() { None } else { Some(text.clone()) };
            let end = ContainerStateTerminated {
                container_id: Some(container_id(facts, instance)),
                exit_code: cri.exit_code,
                finished_at: time(cri.finished_at),
                started_at: time(cri.started_at),
                reason: text(&cri.reason),
                message: text(message),
                signal: None,
            };
            ContainerState { terminated: Some(end), ..ContainerState::default() }
        }
        // It will run in a moment, and nobody need see a difference.
        _ => waiting(creating(facts), ""),
    }
}

/// Why a container that nothing went wrong with doesn't run yet.
fn creating(facts: &Facts<'_>) -> &'static str {
    if init_containers(facts.pod).is_empty() { "ContainerCreating" } else { "PodInitializing" }
}

fn waiting(reason: &str, message: &str) -> ContainerState {
    let text = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
    ContainerState {
        waiting: Some(ContainerStateWaiting { reason: text(reason), message: text(message) }),
        ..ContainerState::default()
    }
}

/// Sets `started` and `ready`. Upstream: prober manager UpdatePodStatus.
pub(super) fn set_readiness(facts: &Facts<'_>, lists: &mut Lists) {
    let id = |status: &ContainerStatus| {
        let id = status.container_id.as_deref().unwrap_or_default();
        id.split_once("://").map_or(id, |(_, id)| id).to_owned()
    };
    let is_running = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
    let set = |status: &mut ContainerStatus| {
        let started = is_running(status) && facts.readiness.started(&status.name, &id(status));
        status.started = Some(started);
        status.ready = started && facts.readiness.ready(&status.name, &id(status));
    };
    lists.containers.iter_mut().for_each(set);
    for status in &mut lists.init {
        let sidecar = init_containers(facts.pod).iter().any(|c| c.name == status.name && rules::is_sidecar(c));
        if sidecar {
            set(status);
        } else {
            let end = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            status.ready = end.is_some_and(|end| end.exit_code == 0);
            status.started = Some(is_running(status));
        }
    }
}
