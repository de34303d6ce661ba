//! A StatefulSet keeps pods with names, one for each ordinal, and claims that outlive them. Upstream: pkg/controller/statefulset.

mod claims;
mod control;
mod pod;
mod revisions;
mod status;
mod view;

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Selector};
use client::{
    Client, Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, resources,
};
use jiff::Timestamp;

use crate::Setup;
use crate::claim::Claim;
use crate::history::Revision;
use crate::meta::{CONTROLLER_INDEX, by_controller, is_controller};
use crate::pod_view::Pods;
use crate::replica_set::owners_of;
use view::{Replica, StatefulSet};

pub(crate) struct StatefulSets {
    sets: Informer,
    revisions: Informer,
    claims: Informer,
    pods: Pods,
    events: EventRecorder,
    /// Whether `maxUnavailable` is obeyed.
    max_unavailable: bool,
}

/// One reconcile of one set.
struct Sync<'a> {
    client: &'a Client,
    events: &'a EventRecorder,
    claims: &'a Informer,
    set: &'a StatefulSet,
    max_unavailable: bool,
    now: Timestamp,
}

/// Why a set's pods or claims are not as they should be; as events tell it.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("failed to create PVC {name}: {source}")]
    CreateClaim { name: String, source: client::Error },
    #[error("pvc {name} is being deleted")]
    ClaimIsDeleted { name: String },
    #[error("could not update claim {name} for delete policy ownerRefs: {source}")]
    OwnClaim { name: String, source: client::Error },
    #[error("[{}]", list(.0))]
    Several(Vec<Failure>),
    #[error(transparent)]
    Client(#[from] client::Error),
}

fn list(failures: &[Failure]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Failure {
    fn all(mut failures: Vec<Failure>) -> Result<(), Failure> {
        match failures.len() {
            0 => Ok(()),
            1 => Err(failures.remove(0)),
            _ => Err(Failure::Several(failures)),
        }
    }
}

impl StatefulSets {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.pods.clone();
        pods.informer.index(CONTROLLER_INDEX, by_controller);
        let revisions = setup.informers.of(&resources::CONTROLLER_REVISIONS);
        revisions.index(CONTROLLER_INDEX, by_controller);
        StatefulSets {
            sets: setup.informers.of(&resources::STATEFUL_SETS),
            revisions,
            claims: setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
            pods,
            events: setup.recorder("statefulset-controller", "statefulset-controller"),
            max_unavailable: setup.config.features.max_unavailable_stateful_set,
        }
    }

    async fn claim_revisions(
        &self,
        client: &Client,
        owner: &Arc<Object>,
        selector: &Selector,
    ) -> Result<Vec<Revision>, client::Error> {
        let claim = Claim {
            client,
            owner,
            owner_resource: &resources::STATEFUL_SETS,
            selector,
            dependents: &self.revisions,
            // Those of other labels are left alone, not released.
            wanted: &|revision| selector.matches(revision),
        };
        Ok(claim.claim().await?.into_iter().map(Revision::read).collect())
    }

    async fn claim_pods(
        &self,
        client: &Client,
        set: &StatefulSet,
        selector: &Selector,
    ) -> Result<Vec<Replica>, client::Error> {
        let owner = &set.object;
        let claim = Claim {
            client,
            owner,
            owner_resource: &resources::STATEFUL_SETS,
            selector,
            dependents: &self.pods.informer,
            wanted: &|pod| is_controller(pod.controller(), owner) || set.is_member(pod),
        };
        let mut replicas = Vec::new();
        for pod in claim.claim().await? {
            if set.is_member(&pod) {
                replicas.push(Replica::known(pod.clone(), self.pods.view(&pod)));
            } else if !owner.is_deleting() {
                claim.release(&pod).await?;
            }
        }
        Ok(replicas)
    }
}

impl Controller for StatefulSets {
    fn name(&self) -> &'static str {
        "statefulset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let sets = self.sets.clone();
        let of_pod = move |event: &Event| owners_of(event, &sets, &resources::STATEFUL_SETS, "StatefulSet");
        let sets = self.sets.clone();
        // A claim that went may hold up a pod, or be missing to one.
        let of_gone_claim = move |event: &Event| {
            let Event::Deleted(claim) = event else { return Vec::new() };
            let sets = sets.list(claim.namespace()).into_iter();
            let named = sets.filter(|set| claim.name().contains(&format!("-{}-", set.name())));
            named.map(|set| set.key().clone()).collect()
        };
        vec![
            Watch::objects(self.sets.clone()),
            Watch::new(self.pods.informer.clone(), of_pod),
            Watch::new(self.claims.clone(), of_gone_claim),
            Watch::only(self.revisions.clone()),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.sets.get(key) else { return Ok(Requeue::No) };
        let set = StatefulSet::read(&object)?;
        let selector = match Selector::from_label_selector(Some(&set.spec.selector)) {
            Ok(selector) => selector,
            Err(error) => {
                tracing::warn!(stateful_set = %key, %error, "a selector that says nothing");
                return Ok(Requeue::No);
            }
        };
        let mut history = self.claim_revisions(ctx.client(), &object, &selector).await?;
        let pods = self.claim_pods(ctx.client(), &set, &selector).await?;
        let sync = Sync {
            client: ctx.client(),
            events: &self.events,
            claims: &self.claims,
            set: &set,
            max_unavailable: self.max_unavailable,
            now: ctx.env().now(),
        };
        let live: Vec<String> = pods.iter().map(|pod| pod.revision.clone()).collect();
        let next = pods.iter().filter_map(|pod| pod.available_in(set.min_ready(), sync.now)).min();
        let Some(chosen) = sync.choose_revisions(&mut history).await? else { return Ok(Requeue::No) };
        let (status, managed) = sync.manage(pods, &chosen).await;
        let written = sync.write_status(&status).await;
        sync.forget_revisions(&history, &chosen, &live).await?;
        managed?;
        written?;
        Ok(match next.filter(|_| status.ready != status.available) {
            Some(pause) => Requeue::After(pause + std::time::Duration::from_millis(1)),
            None => Requeue::No,
        })
    }
}
