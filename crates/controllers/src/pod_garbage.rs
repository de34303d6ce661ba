//! Pods that nobody else will take away: on nodes that are gone, being deleted without ever having had a node, or ended and
//! too many. Upstream: pkg/controller/podgc.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, IgnoreNotFound, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue,
    Watch, resources,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Setup;
use crate::meta::{NODE_INDEX, by_node, created, node_of, parsed};
use crate::taint_eviction::mark_disrupted;

/// How long a node may be missing: it may only be registering anew.
const QUARANTINE: Duration = Duration::from_secs(40);
/// How many ended pods are kept.
const MAX_ENDED: usize = 12_500;
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";
const ENDED_INDEX: &str = "ended";

pub(crate) struct PodGarbage {
    nodes: Informer,
    pods: Informer,
    /// Since when a node that pods name is missing.
    missing: Mutex<BTreeMap<String, Instant>>,
}

impl PodGarbage {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(NODE_INDEX, by_node);
        pods.index(ENDED_INDEX, |pod| if is_ended(pod) { vec![String::new()] } else { Vec::new() });
        PodGarbage { nodes: setup.informers.of(&resources::NODES), pods, missing: Mutex::default() }
    }

    /// `disrupted`: what the pod's condition says, if it is no fault of its own.
    async fn force_delete(
        &self,
        ctx: &ReconcileContext,
        pod: &Object,
        disrupted: Option<&str>,
    ) -> Result<(), ReconcileError> {
        match disrupted {
            _ if is_ended(pod) => {}
            Some(message) => mark_disrupted(ctx, pod, ("DeletionByPodGC", message), Some("Failed")).await?,
            None => mark_failed(ctx, pod).await?,
        }
        let options = DeleteOptions::uid(pod.uid()).grace(0);
        Ok(ctx.client().delete(&resources::PODS, pod.key(), &options).await.ignore_not_found()?)
    }

    /// Deletes the oldest ended pods beyond what is kept.
    async fn delete_surplus(&self, ctx: &ReconcileContext) -> Result<(), ReconcileError> {
        let mut ended = self.pods.by_index(ENDED_INDEX, "");
        let Some(surplus) = ended.len().checked_sub(MAX_ENDED).filter(|n| *n > 0) else { return Ok(()) };
        let is_evicted = |pod: &Object| pod.to_value().str_at(&["status", "reason"]) == Some("Evicted");
        ended.sort_by_cached_key(|pod| (!is_evicted(pod), created(pod), pod.name().to_owned()));
        for pod in ended.iter().take(surplus) {
            self.force_delete(ctx, pod, None).await?;
        }
        Ok(())
    }
}

fn is_ended(pod: &Object) -> bool {
    let is = |phase: &str| matches!(phase, "Succeeded" | "Failed");
    match pod.field("status.phase") {
        Some(phase) => is(phase),
        None => parsed(pod).str_at(&["status", "phase"]).is_some_and(is),
    }
}

async fn mark_failed(ctx: &ReconcileContext, pod: &Object) -> Result<(), ReconcileError> {
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], pod.uid());
    patch.set(&["status", "phase"], "Failed");
    if pod.generation() > 0 {
        patch.set(&["status", "observedGeneration"], pod.generation());
    }
    Ok(ctx.client().patch_status(&resources::PODS, pod.key(), PatchKind::Merge, &patch).await.ignore_not_found()?)
}

/// Somebody says that the node is gone for good, and it does not report.
fn is_out_of_service(node: &Object) -> bool {
    let value = node.to_value();
    !is_ready(&value) && has_out_of_service(&value)
}

/// Whether the node says that it is ready.
pub(crate) fn is_ready(node: &Value) -> bool {
    let is_ready = |c: &Value| c.str_at(&["type"]) == Some("Ready") && c.str_at(&["status"]) == Some("True");
    node.items_at(&["status", "conditions"]).iter().any(is_ready)
}

/// Whether somebody says that the node is gone for good.
pub(crate) fn has_out_of_service(node: &Value) -> bool {
    node.items_at(&["spec", "taints"]).iter().any(|taint| taint.str_at(&["key"]) == Some(OUT_OF_SERVICE))
}

impl Controller for PodGarbage {
    fn name(&self) -> &'static str {
        "pod-garbage-collector-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_pod = |event: &Event| match event {
            Event::Added(pod) => vec![pod.key().clone()],
            Event::Modified { old, new } => {
                let news = !old.is_deleting() && new.is_deleting()
                    || node_of(old) != node_of(new)
                    || !is_ended(old) && is_ended(new);
                if news { vec![new.key().clone()] } else { Vec::new() }
            }
            Event::Deleted(_) => Vec::new(),
        };
        let pods = self.pods.clone();
        let of_node = move |event: &Event| {
            let look = matches!(event, Event::Deleted(_)) || is_out_of_service(event.object());
            let here = if look { pods.by_index(NODE_INDEX, event.object().name()) } else { Vec::new() };
            here.iter().map(|pod| pod.key().clone()).collect()
        };
        vec![Watch::new(self.pods.clone(), of_pod), Watch::new(self.nodes.clone(), of_node)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pod) = self.pods.get(key) else { return Ok(Requeue::No) };
        let Some(node) = node_of(&pod) else {
            if pod.is_deleting() {
                self.force_delete(ctx, &pod, None).await?;
            }
            return Ok(Requeue::No);
        };
        let node_key = ObjectKey::cluster(&*node);
        if let Some(node) = self.nodes.get(&node_key) {
            self.missing.lock().remove(node.name());
            if pod.is_deleting() && is_out_of_service(&node) {
                self.force_delete(ctx, &pod, None).await?;
            } else if is_ended(&pod) {
                self.delete_surplus(ctx).await?;
            }
            return Ok(Requeue::No);
        }
        let now = ctx.env().monotonic();
        let due = *self.missing.lock().entry(node.clone()).or_insert(now) + QUARANTINE;
        if now < due {
            return Ok(Requeue::After(due - now));
        }
        if ctx.client().find(&resources::NODES, &node_key).await?.is_none() {
            self.force_delete(ctx, &pod, Some("PodGC: node no longer exists")).await?;
            if self.pods.by_index(NODE_INDEX, &node).len() <= 1 {
                self.missing.lock().remove(&node);
            }
        }
        Ok(Requeue::No)
    }
}
