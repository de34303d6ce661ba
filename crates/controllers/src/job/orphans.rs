//! Pods that carry a Job's finalizer and no longer have a Job to count them lose it. Upstream: syncOrphanPod.

use apimachinery::{Object, ObjectKey};
use client::{Controller, Event, Informer, ReconcileContext, ReconcileError, Requeue, Watch};
use serde::Deserialize;

use super::pod::FINALIZER;
use super::view::View;
use super::{JOBS, track};
use crate::Setup;
use crate::meta::{CONTROLLER_INDEX, by_controller, is_controller};

pub(crate) struct OrphanedPods {
    jobs: Informer,
    pods: Informer,
}

impl OrphanedPods {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.pods.informer.clone();
        pods.index(CONTROLLER_INDEX, by_controller);
        OrphanedPods { jobs: setup.informers.of(&JOBS), pods }
    }
}

/// Whether the pod is tracked, and nobody will count it.
fn is_orphan(jobs: &Informer, pod: &Object) -> bool {
    if !is_tracked(pod) {
        return false;
    }
    let Some(owner) = pod.controller() else { return true };
    if owner.kind != "Job" || owner.api_version != "batch/v1" {
        return false;
    }
    let job = jobs.get(&ObjectKey::new(pod.namespace(), &*owner.name));
    let Some(job) = job.filter(|job| is_controller(Some(owner), job)) else { return true };
    match serde_json::from_slice::<View>(job.body()) {
        Ok(view) => view.status.is_finished() && !view.spec.is_managed_elsewhere(),
        Err(_) => false,
    }
}

fn is_tracked(pod: &Object) -> bool {
    #[derive(Deserialize)]
    struct Metadata {
        #[serde(default)]
        finalizers: Vec<String>,
    }
    pod.has_finalizers()
        && serde_json::from_slice::<Metadata>(pod.metadata_json())
            .is_ok_and(|metadata| metadata.finalizers.iter().any(|finalizer| finalizer == FINALIZER))
}

impl Controller for OrphanedPods {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn workers(&self) -> usize {
        1
    }

    fn watches(&self) -> Vec<Watch> {
        let (jobs, pods) = (self.jobs.clone(), self.pods.clone());
        let of_pod = move |event: &Event| match event {
            Event::Deleted(_) => Vec::new(),
            event if is_orphan(&jobs, event.object()) => vec![event.object().key().clone()],
            _ => Vec::new(),
        };
        // A Job that is gone, or was replaced by another one, leaves its pods.
        let of_job = move |event: &Event| {
            let states = [Some(event.object()), event.old()];
            let mut keys: Vec<ObjectKey> = states
                .into_iter()
                .flatten()
                .flat_map(|job| pods.by_index(CONTROLLER_INDEX, job.uid()))
                .filter(|pod| pod.has_finalizers())
                .map(|pod| pod.key().clone())
                .collect();
            keys.dedup();
            keys
        };
        vec![Watch::new(self.pods.clone(), of_pod), Watch::new(self.jobs.clone(), of_job)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if let Some(pod) = self.pods.get(key).filter(|pod| is_orphan(&self.jobs, pod)) {
            track::remove_finalizer(ctx.client(), &pod).await?;
        }
        Ok(Requeue::No)
    }
}
