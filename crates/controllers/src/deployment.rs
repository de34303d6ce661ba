//! A Deployment moves its pods from one ReplicaSet to the next. Upstream: pkg/controller/deployment.

mod hash;
mod history;
mod new_replica_set;
mod recreate;
mod rolling;
mod scale;
mod status;
mod view;

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Selector, Value};
use client::{
    Client, Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, owner_key,
    resources,
};

use crate::Setup;
use crate::claim::Claim;
use crate::meta::{CONTROLLER_INDEX, by_controller, count, write_status};
use crate::replica_set::owners_of;
use view::{Deployment, ReplicaSet};

pub(crate) struct Deployments {
    deployments: Informer,
    replica_sets: Informer,
    pods: Informer,
    events: EventRecorder,
}

/// One reconcile of one Deployment: what is known, brought up to date by each write.
struct Rollout<'a> {
    client: &'a Client,
    events: &'a EventRecorder,
    pods: &'a Informer,
    deployment: Deployment,
    /// Those of other templates, oldest first.
    old: Vec<ReplicaSet>,
    /// That of the current template.
    new: Option<ReplicaSet>,
    /// The revision or a condition waits for the next write of the status.
    untold: bool,
}

impl Deployments {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let replica_sets = setup.informers.of(&resources::REPLICA_SETS);
        replica_sets.index(CONTROLLER_INDEX, by_controller);
        let pods = setup.informers.of(&resources::PODS);
        pods.index(CONTROLLER_INDEX, by_controller);
        Deployments {
            deployments: setup.informers.of(&resources::DEPLOYMENTS),
            replica_sets,
            pods,
            events: setup.recorder("deployment-controller", "deployment-controller"),
        }
    }

    async fn refuse_everything(
        &self,
        client: &Client,
        object: &Arc<Object>,
        deployment: &Deployment,
    ) -> Result<Requeue, ReconcileError> {
        let message = "This deployment is selecting all pods. A non-empty selector is required.";
        self.events.warning(object, "SelectingAll", message);
        if deployment.status.observed_generation < object.generation() {
            let mut fields = Value::object();
            fields.set(&["observedGeneration"], count(object.generation()));
            write_status(client, &resources::DEPLOYMENTS, object, fields).await?;
        }
        Ok(Requeue::No)
    }
}

impl Rollout<'_> {
    async fn sync(&mut self) -> Result<Requeue, ReconcileError> {
        if self.deployment.object.is_deleting() {
            self.find_new_replica_set().await?;
            return self.write_plain_status().await;
        }
        self.tell_paused().await?;
        if !self.deployment.spec.paused
            && let Some(revision) = history::rollback_to(&self.deployment)
        {
            self.roll_back(revision).await?;
            return Ok(Requeue::No);
        }
        if self.deployment.spec.paused || self.is_scaling() {
            self.find_new_replica_set().await?;
            self.scale().await?;
            if self.deployment.spec.paused && history::rollback_to(&self.deployment).is_none() {
                self.clean_up().await?;
            }
            return self.write_plain_status().await;
        }
        if self.deployment.is_rolling() { self.roll().await } else { self.recreate().await }
    }

    /// Finds the oldest set of the current template among `sets`, which are sorted by age.
    fn sort_out(&mut self, sets: Vec<ReplicaSet>) {
        let wanted = view::comparable(&self.deployment.spec.template);
        for set in sets {
            if self.new.is_none() && view::comparable(&set.template) == wanted {
                self.new = Some(set);
            } else {
                self.old.push(set);
            }
        }
    }

    /// Whether the Deployment was given another size since its sets were.
    fn is_scaling(&self) -> bool {
        let active = self.all().filter(|set| set.replicas > 0);
        active.filter_map(|set| set.desired()).any(|desired| desired != self.deployment.spec.replicas)
    }

    fn all(&self) -> impl Iterator<Item = &ReplicaSet> {
        self.old.iter().chain(&self.new)
    }
}

fn is_namespace_terminating(error: &ReconcileError) -> bool {
    error.downcast_ref::<client::Error>().is_some_and(client::Error::is_namespace_terminating)
}

impl Controller for Deployments {
    fn name(&self) -> &'static str {
        "deployment-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let deployments = self.deployments.clone();
        let of_set = move |event: &Event| owners_of(event, &deployments, &resources::DEPLOYMENTS, "Deployment");
        let (deployments, sets) = (self.deployments.clone(), self.replica_sets.clone());
        // Recreate waits until the last old pod is gone.
        let of_gone_pod = move |event: &Event| {
            let Event::Deleted(pod) = event else { return Vec::new() };
            let set = owner_key(pod, "apps", "ReplicaSet").and_then(|key| sets.get(&key));
            let key = set.and_then(|set| owner_key(&set, "apps", "Deployment"));
            let recreates = |key: &ObjectKey| {
                let deployment = deployments.get(key).map(|deployment| deployment.to_value());
                deployment.is_some_and(|d| d.str_at(&["spec", "strategy", "type"]) == Some("Recreate"))
            };
            key.into_iter().filter(recreates).collect()
        };
        vec![
            Watch::objects(self.deployments.clone()),
            Watch::new(self.replica_sets.clone(), of_set),
            Watch::new(self.pods.clone(), of_gone_pod),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.deployments.get(key) else { return Ok(Requeue::No) };
        let deployment = Deployment::read(&object)?;
        let selector = Selector::from_label_selector(Some(&deployment.spec.selector))?;
        if selector.is_everything() {
            return self.refuse_everything(ctx.client(), &object, &deployment).await;
        }
        let claim = Claim {
            client: ctx.client(),
            owner: &object,
            owner_resource: &resources::DEPLOYMENTS,
            selector: &selector,
            dependents: &self.replica_sets,
            wanted: &|_| true,
        };
        let mut sets = claim.claim().await?.into_iter().map(ReplicaSet::read).collect::<Result<Vec<_>, _>>()?;
        sets.sort_by(|a, b| (a.created, &a.object.key().name).cmp(&(b.created, &b.object.key().name)));
        let mut rollout = Rollout {
            client: ctx.client(),
            events: &self.events,
            pods: &self.pods,
            deployment,
            old: Vec::new(),
            new: None,
            untold: false,
        };
        rollout.sort_out(sets);
        let result = rollout.sync().await;
        // What a rollout that failed found out is told all the same.
        if result.is_err()
            && let Err(error) = rollout.write_untold().await
        {
            let error = error.as_ref() as &dyn std::error::Error;
            tracing::debug!(%key, error, "a failed rollout's revision could not be told");
        }
        match result {
            // Nothing can be made there any more, and nothing need be.
            Err(error) if is_namespace_terminating(&error) => Ok(Requeue::No),
            result => result,
        }
    }
}
