//! What is done for a pod that got no node: it waits, and says why.

use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use client::{DeleteOptions, EventType, PatchKind, resources};

use super::Failure;
use crate::Shared;
use crate::diagnosis::Diagnosis;
use crate::framework::{Preemption, Rejection};
use crate::outbox::Letter;
use crate::pod::PodInfo;

/// An event's text is cut at this length.
const NOTE_LIMIT: usize = 1024;

pub(super) fn give_up(shared: &Shared, pod: Arc<PodInfo>, failure: Failure) {
    let patch = match failure {
        Failure::Error(message) => {
            shared.queue.retry(&pod.uid);
            tell(shared, &pod, "SchedulerError", &message, Some(""))
        }
        Failure::Unschedulable { message, plugins, after } => {
            let nominated = after.nominated.clone();
            if let Some(work) = after.work {
                preempt(shared, &pod, work);
            }
            // Queued first: an event during the writes below must find it there.
            shared.queue.failed(&pod.uid, plugins);
            if let Some(node) = &nominated {
                shared.nominator.set(pod.clone(), node);
            }
            tell(shared, &pod, "Unschedulable", &message, nominated.as_deref())
        }
    };
    if let Some(patch) = patch {
        shared.outbox.post(pod, Letter::Tell(patch));
    }
}

/// Binding failed, for a reason that isn't the cluster's state.
pub(super) async fn errored(shared: &Shared, pod: &Arc<PodInfo>, message: String) {
    shared.queue.retry(&pod.uid);
    if let Some(patch) = tell(shared, pod, "SchedulerError", &message, Some("")) {
        write(shared, pod, &patch).await;
    }
}

/// The chosen node was refused after all.
pub(super) async fn refused(shared: &Shared, pod: &Arc<PodInfo>, rejection: Rejection) {
    let mut diagnosis = Diagnosis { nodes: 1, ..Diagnosis::default() };
    let plugin = rejection.plugin;
    diagnosis.rejections.insert(0, rejection);
    shared.queue.failed(&pod.uid, vec![plugin]);
    if let Some(patch) = tell(shared, pod, "Unschedulable", &diagnosis.message(), Some("")) {
        write(shared, pod, &patch).await;
    }
}

/// Records the event; returns what the pod's status must be patched with, if anything.
fn tell(shared: &Shared, pod: &PodInfo, reason: &str, message: &str, nominated: Option<&str>) -> Option<Value> {
    let mut note = message.to_owned();
    if note.len() > NOTE_LIMIT {
        let end = (0..=NOTE_LIMIT - 4).rev().find(|at| note.is_char_boundary(*at)).unwrap_or_default();
        note.truncate(end);
        note.push_str(" ...");
    }
    shared.recorder(pod).event(pod.reference(), EventType::Warning, "FailedScheduling", note);
    let condition = condition(shared, pod, reason, message);
    let nominated = nominated.filter(|node| *node != pod.nominated);
    if condition.is_none() && nominated.is_none() {
        return None;
    }
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], pod.uid.as_str());
    if let Some(condition) = condition {
        patch.set(&["status", "conditions"], vec![condition]);
    }
    if let Some(node) = nominated {
        let node = if node.is_empty() { Value::Null } else { Value::from(node) };
        patch.set(&["status", "nominatedNodeName"], node);
    }
    Some(patch)
}

/// Patches the pod's status.
pub(crate) async fn write(shared: &Shared, pod: &PodInfo, patch: &Value) {
    if let Err(error) = patch_status(shared, &pod.key, patch).await
        && !error.is_not_found()
        && !error.is_conflict()
    {
        tracing::warn!(pod = %pod.key, %error, "patching a pod's status");
    }
}

async fn patch_status(shared: &Shared, pod: &ObjectKey, patch: &Value) -> Result<(), client::Error> {
    shared.client.patch_brief(&resources::PODS, pod, "status", PatchKind::Strategic, patch).await.map(drop)
}

/// The `PodScheduled` condition; `None`: the pod has it already.
fn condition(shared: &Shared, pod: &PodInfo, reason: &str, message: &str) -> Option<Value> {
    let now = shared.env.now();
    let mut since = now;
    if let Some(scheduled) = &pod.scheduled
        && scheduled.status == "False"
    {
        if scheduled.message == message {
            return None;
        }
        since = scheduled.since.unwrap_or(now);
    }
    let mut condition = Value::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "False");
    condition.set(&["reason"], reason);
    condition.set(&["message"], message);
    condition.set(&["lastProbeTime"], Value::Null);
    condition.set(&["lastTransitionTime"], since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if pod.generation > 0 {
        condition.set(&["observedGeneration"], pod.generation);
    }
    Some(condition)
}

/// Writes which node the pod is to have.
pub(super) async fn nominate(shared: &Shared, pod: &PodInfo, node: &str) {
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], pod.uid.as_str());
    patch.set(&["status", "nominatedNodeName"], node);
    write(shared, pod, &patch).await;
}

/// Has the victims removed; the pod is held back until the last one is on its way out.
fn preempt(shared: &Shared, pod: &Arc<PodInfo>, work: Preemption) {
    if !work.victims.iter().all(|victim| victim.terminating) {
        shared.preempting.begin(&pod.uid);
        shared.outbox.post(pod.clone(), Letter::Preempt(work));
    }
}

/// Removes the victims.
pub(crate) async fn make_room(shared: &Shared, pod: &PodInfo, work: Preemption) {
    for other in shared.nominator.promises().outranked(&work.node, pod) {
        // It must not be in the way of what comes: it is tried elsewhere.
        shared.nominator.remove(&other.uid);
        if !other.nominated.is_empty() {
            let mut patch = Value::object();
            patch.set(&["status", "nominatedNodeName"], Value::Null);
            write(shared, &other, &patch).await;
        }
    }
    let victims: Vec<_> = work.victims.iter().filter(|victim| !victim.terminating).collect();
    let mut failed = false;
    for (i, victim) in victims.iter().enumerate() {
        if i + 1 == victims.len() {
            // Its deletion is the event that the pod waits for.
            shared.preempting.end(&pod.uid);
        }
        if let Err(error) = remove(shared, pod, victim, &work.node).await {
            tracing::warn!(pod = %pod.key, victim = %victim.key, %error, "removing a pod for another");
            failed = true;
            break;
        }
    }
    shared.preempting.end(&pod.uid);
    if failed {
        shared.queue.activate(&pod.uid);
    }
}

async fn remove(shared: &Shared, pod: &PodInfo, victim: &PodInfo, node: &str) -> Result<(), client::Error> {
    let mut condition = Value::object();
    condition.set(&["type"], "DisruptionTarget");
    condition.set(&["status"], "True");
    condition.set(&["reason"], "PreemptionByScheduler");
    condition.set(&["message"], format!("{}: preempting to accommodate a higher priority pod", pod.scheduler));
    condition.set(&["lastProbeTime"], Value::Null);
    condition.set(&["lastTransitionTime"], shared.env.now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    if victim.generation > 0 {
        condition.set(&["observedGeneration"], victim.generation);
    }
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], victim.uid.as_str());
    patch.set(&["status", "conditions"], vec![condition]);
    let gone = |error: &client::Error| error.is_not_found();
    match patch_status(shared, &victim.key, &patch).await {
        Err(error) if gone(&error) => return Ok(()),
        answer => drop(answer?),
    }
    match shared.client.delete(&resources::PODS, &victim.key, &DeleteOptions::uid(&victim.uid)).await {
        Err(error) if gone(&error) => return Ok(()),
        answer => drop(answer?),
    }
    let message = format!("Preempted by pod {} on node {node}", pod.uid);
    shared.recorder(pod).event(victim.reference(), EventType::Normal, "Preempted", message);
    Ok(())
}
