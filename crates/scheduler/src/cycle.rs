//! One attempt to find a node for one pod.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::Value;
use client::{Error, EventType, PatchKind, resources};

use crate::Shared;
use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection};
use crate::watch::wake;

/// Finds a node and begins to bind, or records why there is none.
pub(crate) async fn schedule(shared: &Arc<Shared>, pod: Arc<PodInfo>) {
    let chosen = {
        let mut cache = shared.cache.lock();
        let nodes: Vec<Arc<NodeInfo>> = cache.nodes().cloned().collect();
        let chosen = choose(&shared.plugins, &pod, &nodes, |n| shared.env.random_below(n));
        if let Ok(node) = &chosen {
            // From here on its resources are taken, also for the next pod, while the binding is under way.
            cache.place(pod.clone(), node);
        }
        chosen
    };
    match chosen {
        Ok(node) => {
            let shared = shared.clone();
            shared.env.clone().spawn(async move { bind(&shared, pod, &node).await });
        }
        Err(failure) => give_up(shared, &pod, &failure).await,
    }
}

/// Why no node suits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Upstream's sentence.
    pub message: String,
    /// The plugins that rejected nodes.
    pub plugins: Vec<&'static str>,
}

/// The best node's name; ties are broken by `random(n)`, a number below `n`.
pub(crate) fn choose(
    plugins: &[Box<dyn Plugin>],
    pod: &PodInfo,
    nodes: &[Arc<NodeInfo>],
    random: impl Fn(u64) -> u64,
) -> Result<String, Failure> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut rejecting = BTreeSet::new();
    let mut feasible = Vec::new();
    for node in nodes {
        match filter(plugins, pod, node) {
            Ok(()) => feasible.push(node),
            Err((plugin, rejection)) => {
                rejecting.insert(plugin);
                for reason in rejection.reasons {
                    *counts.entry(reason).or_default() += 1;
                }
            }
        }
    }
    match feasible.as_slice() {
        [] => Err(Failure { message: message(nodes.len(), &counts), plugins: waiting_for(nodes, rejecting) }),
        [only] => Ok(only.name().to_owned()),
        several => {
            let totals = score(plugins, pod, several);
            let best = totals.iter().copied().max().unwrap_or_default();
            let ties: Vec<_> = several.iter().zip(&totals).filter(|(_, total)| **total == best).collect();
            Ok(ties[random(ties.len() as u64) as usize].0.name().to_owned())
        }
    }
}

/// A cluster without nodes waits for the first one: every plugin may call that helpful.
fn waiting_for(nodes: &[Arc<NodeInfo>], rejecting: BTreeSet<&'static str>) -> Vec<&'static str> {
    if nodes.is_empty() { vec!["NodeResourcesFit"] } else { rejecting.into_iter().collect() }
}

fn filter(plugins: &[Box<dyn Plugin>], pod: &PodInfo, node: &NodeInfo) -> Result<(), (&'static str, Rejection)> {
    plugins.iter().try_for_each(|plugin| plugin.filter(pod, node).map_err(|rejection| (plugin.name(), rejection)))
}

fn score(plugins: &[Box<dyn Plugin>], pod: &PodInfo, nodes: &[&Arc<NodeInfo>]) -> Vec<i64> {
    let mut totals = vec![0; nodes.len()];
    for plugin in plugins {
        let Some(mut scores) = nodes.iter().map(|node| plugin.score(pod, node)).collect::<Option<Vec<i64>>>() else {
            continue;
        };
        plugin.normalize(&mut scores);
        for (total, score) in totals.iter_mut().zip(scores) {
            *total += score * plugin.weight();
        }
    }
    totals
}

/// Upstream: framework.FitError.
fn message(nodes: usize, counts: &BTreeMap<String, usize>) -> String {
    if nodes == 0 {
        return "no nodes available to schedule pods".into();
    }
    let mut reasons: Vec<String> = counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    reasons.sort();
    format!("0/{nodes} nodes are available: {}.", reasons.join(", "))
}

async fn bind(shared: &Shared, pod: Arc<PodInfo>, node: &str) {
    match shared.client.bind(&pod.key, &pod.uid, node).await {
        Ok(()) => {
            shared.queue.remove(&pod.uid);
            let message = format!("Successfully assigned {} to {node}", pod.key);
            shared.recorder.event(pod.reference(), EventType::Normal, "Scheduled", message);
        }
        // Gone, or bound by somebody else: its own events say what becomes of it.
        Err(error) if error.is_not_found() || error.is_conflict() => {
            unassume(shared, &pod);
            if error.is_conflict() {
                shared.queue.retry(&pod.uid);
            } else {
                shared.queue.remove(&pod.uid);
            }
        }
        Err(error) => {
            tracing::warn!(pod = %pod.key, node, %error, "binding failed");
            unassume(shared, &pod);
            let message = format!("running Bind plugin \"DefaultBinder\": {error}");
            shared.recorder.event(pod.reference(), EventType::Warning, "FailedScheduling", message);
            shared.queue.retry(&pod.uid);
        }
    }
}

/// Takes back what the attempt assumed, unless the pod was seen on a node meanwhile.
fn unassume(shared: &Shared, pod: &PodInfo) {
    let seen = shared.informers.of(&resources::PODS).get(&pod.key).and_then(|object| {
        let node = object.field("spec.nodeName").map(str::to_owned);
        node.filter(|node| !node.is_empty())
    });
    if seen.is_none() {
        let gone = shared.cache.lock().remove(&pod.uid);
        if let Some(pod) = gone {
            wake(shared, &ClusterEvent::PodRemoved(pod));
        }
    }
}

async fn give_up(shared: &Shared, pod: &PodInfo, failure: &Failure) {
    // Queued first: an event during the writes below must find it there.
    shared.queue.failed(&pod.uid, failure.plugins.clone());
    shared.recorder.event(pod.reference(), EventType::Warning, "FailedScheduling", failure.message.clone());
    if let Err(error) = set_unschedulable(shared, pod, &failure.message).await
        && !error.is_not_found()
    {
        tracing::warn!(pod = %pod.key, %error, "setting the PodScheduled condition");
    }
}

async fn set_unschedulable(shared: &Shared, pod: &PodInfo, message: &str) -> Result<(), Error> {
    let conditions = pod.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let current = conditions.iter().find(|condition| condition.type_ == "PodScheduled");
    if current.is_some_and(|c| c.status == "False" && c.message.as_deref() == Some(message)) {
        return Ok(());
    }
    let since = current
        .filter(|c| c.status == "False")
        .and_then(|c| c.last_transition_time.as_ref())
        .map_or_else(|| shared.env.now(), |time| time.0);
    let mut condition = Value::object();
    condition.set(&["type"], "PodScheduled");
    condition.set(&["status"], "False");
    condition.set(&["reason"], "Unschedulable");
    condition.set(&["message"], message);
    condition.set(&["lastProbeTime"], Value::Null);
    condition.set(&["lastTransitionTime"], since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], pod.uid.as_str());
    patch.set(&["status", "conditions"], vec![condition]);
    shared.client.patch_status(&resources::PODS, &pod.key, PatchKind::Strategic, &patch).await.map(drop)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::plugins;
    use crate::plugins::tests::pod;

    fn node(name: &str, spec: Json, cpu: &str) -> Arc<NodeInfo> {
        let node = json!({"metadata": {"name": name}, "spec": spec,
            "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}});
        Arc::new(NodeInfo::new(serde_json::from_value(node).unwrap()))
    }

    fn check(spec: Json, nodes: &[Arc<NodeInfo>], expect: Result<&str, &str>) {
        let chosen = choose(&plugins::all(), &pod(spec.clone()), nodes, |_| 0);
        let chosen = chosen.as_deref().map_err(|failure| failure.message.as_str());
        assert_eq!(chosen, expect, "{spec}");
    }

    #[test]
    fn the_best_node_is_chosen() {
        let asks = |cpu: &str| json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]});
        let small = node("small", json!({}), "2");
        let large = node("large", json!({}), "16");
        let tainted = node("tainted", json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}), "64");
        let cordoned = node("cordoned", json!({"unschedulable": true}), "64");
        check(asks("1"), &[small.clone(), large.clone()], Ok("large"));
        check(asks("32"), &[], Err("no nodes available to schedule pods"));
        check(
            asks("32"),
            &[small, large, tainted, cordoned],
            Err("0/4 nodes are available: 1 node(s) had untolerated taint {k: }, 1 node(s) were unschedulable, \
                 2 Insufficient cpu."),
        );
    }
}
