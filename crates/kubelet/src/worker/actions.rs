//! What a pod needs done, as a pure function of what is. Upstream: kuberuntime_manager.go computePodActions.

use cri::v1::{ContainerState, NamespaceMode, PodSandboxState};
use k8s_openapi::api::core::v1::{Container, Pod};

use super::restarts::{restarts_on_failure, should_restart};
use crate::probe::{Kind, Outcome};
use crate::runtime::{self, PodState, labels};
use crate::spec::container::hash;
use crate::spec::{ephemeral_containers, host_network, init_containers, spec};

/// What is to be done, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Actions {
    /// End everything.
    pub(crate) kill_pod: bool,
    pub(crate) create_sandbox: bool,
    /// How many sandboxes there were before a new one.
    pub(crate) attempt: u32,
    pub(crate) kill: Vec<Kill>,
    /// Positions in `ephemeralContainers`.
    pub(crate) ephemeral: Vec<usize>,
    /// Positions in `initContainers`.
    pub(crate) init: Vec<usize>,
    /// Positions in `containers`.
    pub(crate) containers: Vec<usize>,
}

/// A container to be ended, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) message: String,
    /// The probe that failed; its grace period counts.
    pub(crate) probe: Option<Kind>,
}

/// The last verdict of a probe on a container's instance.
pub(crate) type Verdicts<'a> = &'a dyn Fn(&str, Kind) -> Option<Outcome>;

pub(crate) fn compute(pod: &Pod, state: &PodState, verdicts: Verdicts<'_>) -> Actions {
    let mut actions = Actions::default();
    if let Some(attempt) = changed_sandbox(pod, state) {
        actions.kill_pod = true;
        actions.attempt = attempt;
        begin_anew(pod, state, &mut actions);
        return actions;
    }
    let ephemeral = ephemeral_containers(pod).iter().enumerate();
    let fresh = ephemeral.filter(|(_, ephemeral)| state.latest(&ephemeral.name).is_none());
    actions.ephemeral = fresh.map(|(at, _)| at).collect();
    let initialized = init_actions(pod, state, verdicts, &mut actions);
    if actions.kill_pod || !initialized {
        return actions;
    }
    let mut kept = 0;
    for (at, container) in spec(pod).containers.iter().enumerate() {
        let running = state.latest(&container.name).filter(|instance| instance.is_running());
        let Some(instance) = running else {
            if should_restart(pod, container, state) {
                actions.containers.push(at);
                let unknown = state.latest(&container.name).filter(|c| c.state() == ContainerState::ContainerUnknown);
                actions.kill.extend(unknown.map(|instance| {
                    let why = "Container is in \"Unknown\" state, try killing it before restart";
                    kill(instance, why.to_owned(), None)
                }));
            }
            continue;
        };
        let failed = |kind: Kind| verdicts(instance.id(), kind) == Some(Outcome::Failure);
        let mut restart = restarts_on_failure(pod);
        let (message, probe) = if changed(container, instance) {
            restart = true;
            (format!("Container {} definition changed", container.name), None)
        } else if failed(Kind::Liveness) {
            (format!("Container {} failed liveness probe", container.name), Some(Kind::Liveness))
        } else if failed(Kind::Startup) {
            (format!("Container {} failed startup probe", container.name), Some(Kind::Startup))
        } else {
            kept += 1;
            continue;
        };
        let message = if restart { format!("{message}, will be restarted") } else { message };
        if restart {
            actions.containers.push(at);
        }
        actions.kill.push(kill(instance, message, probe));
    }
    if kept == 0 && actions.containers.is_empty() && actions.kill.is_empty() {
        actions.kill_pod = true;
        actions.init.clear();
    }
    actions
}

fn kill(instance: &runtime::Container, message: String, probe: Option<Kind>) -> Kill {
    Kill { id: instance.id().to_owned(), name: instance.name().to_owned(), message, probe }
}

fn changed(container: &Container, instance: &runtime::Container) -> bool {
    instance.status.annotations.get(labels::HASH).is_some_and(|known| *known != hash(container))
}

/// The number of the sandbox to make, if the newest one can't be used. Upstream: PodSandboxChanged.
fn changed_sandbox(pod: &Pod, state: &PodState) -> Option<u32> {
    let Some(newest) = state.sandboxes.first() else { return Some(0) };
    let next = Some(newest.metadata.as_ref().map_or(0, |metadata| metadata.attempt) + 1);
    let ready = state.sandboxes.iter().filter(|sandbox| sandbox.state() == PodSandboxState::SandboxReady).count();
    if ready != 1 || newest.state() != PodSandboxState::SandboxReady {
        return next;
    }
    let options = newest.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    let network = options.map_or(NamespaceMode::Pod, |options| options.network());
    if (network == NamespaceMode::Node) != host_network(pod) {
        return next;
    }
    (!host_network(pod) && state.ips().is_empty()).then_some(next).flatten()
}

/// Everything is to begin again, unless there is nothing left to do.
fn begin_anew(pod: &Pod, state: &PodState, actions: &mut Actions) {
    let made_before = !state.containers.is_empty();
    if !restarts_on_failure(pod) && actions.attempt != 0 && made_before {
        return;
    }
    let on_failure = spec(pod).restart_policy.as_deref() == Some("OnFailure");
    let done = |c: &Container| on_failure && state.latest(&c.name).is_some_and(runtime::Container::succeeded);
    let wanted = spec(pod).containers.iter().enumerate().filter(|(_, container)| !done(container));
    let wanted: Vec<usize> = wanted.map(|(at, _)| at).collect();
    if wanted.is_empty() {
        return;
    }
    actions.create_sandbox = true;
    if init_containers(pod).is_empty() {
        actions.containers = wanted;
    } else {
        actions.init = vec![0];
    }
}

/// Finds the init containers to start; returns whether initialization is over.
fn init_actions(pod: &Pod, state: &PodState, verdicts: Verdicts<'_>, actions: &mut Actions) -> bool {
    let all = init_containers(pod);
    if all.is_empty() {
        return true;
    }
    let started = |container: &Container| {
        let current = state.current(&container.name);
        // One that ended proves as much: it is of this very sandbox.
        current.is_some_and(|current| current.state() != ContainerState::ContainerUnknown)
    };
    let mut initialized = spec(pod).containers.iter().any(started);
    let mut previous = initialized;
    for (at, container) in all.iter().enumerate().rev() {
        let sidecar = rules::is_sidecar(container);
        let Some(instance) = state.current(&container.name) else {
            if previous && sidecar {
                actions.init.push(at);
            }
            continue;
        };
        if previous && !sidecar {
            continue;
        }
        let step = Step { at, last: at + 1 == all.len(), previous, container, instance };
        match instance.state() {
            ContainerState::ContainerCreated => actions.init.push(at),
            ContainerState::ContainerRunning if sidecar => initialized |= running_sidecar(&step, verdicts, actions),
            ContainerState::ContainerRunning => {}
            ContainerState::ContainerExited if sidecar => actions.init.push(at),
            ContainerState::ContainerExited if instance.succeeded() => {
                if step.last {
                    initialized = true;
                } else {
                    actions.init.push(at + 1);
                }
            }
            ContainerState::ContainerExited | ContainerState::ContainerUnknown => {
                let again = sidecar || restarts_init(pod, container, instance);
                if !again {
                    actions.kill_pod = true;
                    actions.init.clear();
                    return false;
                }
                if instance.state() == ContainerState::ContainerUnknown {
                    let why = "Init container is in \"Unknown\" state, try killing it before restart";
                    actions.kill.push(kill(instance, why.to_owned(), None));
                }
                actions.init.push(at);
            }
        }
        previous = true;
    }
    if !previous {
        actions.init.push(0);
    }
    actions.init.sort_unstable();
    actions.init.dedup();
    initialized
}

/// An init container fails for good only in a pod that never restarts, unless its own rules say otherwise.
fn restarts_init(pod: &Pod, container: &Container, instance: &runtime::Container) -> bool {
    match (&container.restart_policy, &container.restart_policy_rules) {
        (None, None) => restarts_on_failure(pod),
        _ => super::restarts::restarts_after(pod, container, instance.status.exit_code),
    }
}

/// An init container under inspection.
struct Step<'a> {
    at: usize,
    last: bool,
    /// Whether it was initialized before: what comes after it has been started.
    previous: bool,
    container: &'a Container,
    instance: &'a runtime::Container,
}

/// A sidecar that runs: once it has started, the next init container comes; if it fails its probes, it is restarted. Returns
/// whether it was the last one and has started.
fn running_sidecar(step: &Step<'_>, verdicts: Verdicts<'_>, actions: &mut Actions) -> bool {
    let Step { container, instance, .. } = step;
    let name = &container.name;
    let mut restart = |message: String, probe: Option<Kind>| {
        actions.kill.push(kill(instance, message, probe));
        actions.init.push(step.at);
    };
    if container.startup_probe.is_some() {
        match verdicts(instance.id(), Kind::Startup) {
            Some(Outcome::Success) => {}
            Some(Outcome::Failure) => {
                restart(format!("Init container {name} failed startup probe"), Some(Kind::Startup));
                return false;
            }
            _ => return false,
        }
    }
    if changed(container, instance) {
        restart(format!("Container {name} definition changed, will be restarted"), None);
    } else if container.liveness_probe.is_some() && verdicts(instance.id(), Kind::Liveness) == Some(Outcome::Failure) {
        restart(format!("Init container {name} failed liveness probe"), Some(Kind::Liveness));
    }
    match (step.last, step.previous) {
        (true, _) => true,
        (false, false) => {
            actions.init.push(step.at + 1);
            false
        }
        (false, true) => false,
    }
}

#[cfg(test)]
mod tests;
