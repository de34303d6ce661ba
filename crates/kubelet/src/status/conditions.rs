//! The conditions that the kubelet owns. Upstream: pkg/kubelet/status/generate.go.

use k8s_openapi::api::core::v1::{ContainerStatus, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Facts;
use super::containers::Lists;
use super::phase::has_started;
use crate::spec::{host_network, init_containers, spec};

/// The types of conditions that a kubelet writes.
pub(super) const OWNED: [&str; 7] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
    "PodScheduled",
    "PodResizePending",
    "PodResizeInProgress",
];

/// Whether a condition holds, and if not, why.
struct Verdict {
    status: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn yes() -> Verdict {
        Verdict { status: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Verdict {
        Verdict { status: false, reason, message }
    }
}

/// Every condition: those of others as they are, and the kubelet's.
pub(super) fn conditions(facts: &Facts<'_>, lists: &Lists, phase: &str) -> Vec<PodCondition> {
    let known = facts.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let mut all: Vec<_> = known.iter().filter(|c| !OWNED.contains(&c.type_.as_str())).cloned().collect();
    let containers_ready = containers_ready(facts, lists, phase);
    let ready = ready(facts, &containers_ready);
    let sandbox = facts.state.ready_sandbox();
    let can_start = sandbox.is_some() && (host_network(facts.pod) || !facts.state.ips().is_empty());
    let ready_to_start = Verdict { status: can_start, reason: "", message: String::new() };
    let verdicts = [ready_to_start, initialized(facts, lists, phase), ready, containers_ready, Verdict::yes()];
    all.extend(OWNED.into_iter().zip(verdicts).map(|(name, verdict)| condition(facts, name, verdict)));
    if let Some(pending) = &facts.resize.pending {
        let verdict = Verdict { status: true, reason: pending.reason, message: pending.message.clone() };
        let generation = Some(pending.generation);
        all.push(PodCondition { observed_generation: generation, ..condition(facts, "PodResizePending", verdict) });
    }
    if let Some(progress) = &facts.resize.progress {
        let reason = if progress.error.is_some() { "Error" } else { "" };
        let verdict = Verdict { status: true, reason, message: progress.error.clone().unwrap_or_default() };
        let generation = Some(progress.generation);
        all.push(PodCondition { observed_generation: generation, ..condition(facts, "PodResizeInProgress", verdict) });
    }
    all
}

fn condition(facts: &Facts<'_>, name: &str, verdict: Verdict) -> PodCondition {
    let status = if verdict.status { "True" } else { "False" };
    let old = facts.old.conditions.iter().flatten().find(|old| old.type_ == name && old.status == status);
    let text = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: text(verdict.reason),
        message: text(&verdict.message),
        observed_generation: facts.pod.metadata.generation,
        last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(facts.now))),
        last_probe_time: None,
    }
}

fn find<'a>(list: &'a [ContainerStatus], name: &str) -> Option<&'a ContainerStatus> {
    list.iter().find(|status| status.name == name)
}

/// Two lists of names in upstream's words.
fn complaint(unknown: &[&str], wrong: &[&str], what: &str) -> String {
    let listed = |names: &[&str]| format!("[{}]", names.join(" "));
    let mut messages = Vec::new();
    if !unknown.is_empty() {
        messages.push(format!("containers with unknown status: {}", listed(unknown)));
    }
    if !wrong.is_empty() {
        messages.push(format!("containers with {what} status: {}", listed(wrong)));
    }
    messages.join(", ")
}

fn containers_ready(facts: &Facts<'_>, lists: &Lists, phase: &str) -> Verdict {
    let (mut unknown, mut unready) = (Vec::new(), Vec::new());
    let sidecars = init_containers(facts.pod).iter().filter(|container| rules::is_sidecar(container));
    let wanted = sidecars.map(|sidecar| (&sidecar.name, find(&lists.init, &sidecar.name)));
    let main = spec(facts.pod).containers.iter().map(|c| (&c.name, find(&lists.containers, &c.name)));
    for (name, status) in wanted.chain(main) {
        match status {
            None => unknown.push(name.as_str()),
            Some(status) if !status.ready => unready.push(name.as_str()),
            Some(_) => {}
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict::no("PodCompleted", String::new());
    }
    if phase == "Failed" {
        return Verdict::no("PodFailed", String::new());
    }
    match complaint(&unknown, &unready, "unready") {
        message if message.is_empty() => Verdict::yes(),
        message => Verdict::no("ContainersNotReady", message),
    }
}

fn ready(facts: &Facts<'_>, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.status {
        return Verdict::no(containers_ready.reason, containers_ready.message.clone());
    }
    let conditions = facts.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let gates = spec(facts.pod).readiness_gates.iter().flatten();
    let wrong = gates.filter_map(|gate| {
        let name = &gate.condition_type;
        match conditions.iter().find(|condition| condition.type_ == *name) {
            None => Some(format!("corresponding condition of pod readiness gate {name:?} does not exist.")),
            Some(condition) if condition.status != "True" => {
                Some(format!("the status of pod readiness gate {name:?} is not \"True\", but {}", condition.status))
            }
            Some(_) => None,
        }
    });
    match wrong.collect::<Vec<_>>().join(", ") {
        message if message.is_empty() => Verdict::yes(),
        message => Verdict::no("ReadinessGatesNotReady", message),
    }
}

fn initialized(facts: &Facts<'_>, lists: &Lists, phase: &str) -> Verdict {
    let (mut unknown, mut incomplete) = (Vec::new(), Vec::new());
    for container in init_containers(facts.pod) {
        match find(&lists.init, &container.name) {
            None => unknown.push(container.name.as_str()),
            Some(status) => {
                let done = if rules::is_sidecar(container) { status.started == Some(true) } else { status.ready };
                if !done {
                    incomplete.push(container.name.as_str());
                }
            }
        }
    }
    if phase == "Succeeded" && unknown.is_empty() {
        return Verdict { reason: "PodCompleted", ..Verdict::yes() };
    }
    if lists.containers.iter().any(has_started) {
        return Verdict::yes();
    }
    match complaint(&unknown, &incomplete, "incomplete") {
        message if message.is_empty() => Verdict::yes(),
        message => Verdict::no("ContainersNotInitialized", message),
    }
}
