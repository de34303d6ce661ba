//! A ReplicaSet keeps as many pods as it asks for, and so does its elder, the ReplicationController. Upstream:
//! pkg/controller/replicaset, pkg/controller/replication.

mod rank;
mod scale;
mod status;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Selector, SelectorError, Value};
use client::{
    Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch, owner_key,
    resources,
};
use serde::Deserialize;

use crate::Setup;
use crate::claim::Claim;
use crate::meta::{CONTROLLER_INDEX, Condition, by_controller, one};
use crate::pod_view::{PodView, Pods};

pub(crate) use scale::pod_from;

pub(crate) struct ReplicaSets {
    flavour: &'static Flavour,
    replica_sets: Informer,
    pods: Pods,
    events: EventRecorder,
}

/// What ReplicaSets and ReplicationControllers differ in.
struct Flavour {
    kind: &'static str,
    resource: Resource,
    /// The controller's name and its service account's.
    controller: &'static str,
    account: &'static str,
    /// Whether its status says how many pods are ending.
    tells_terminating: bool,
}

static REPLICA_SET: Flavour = Flavour {
    kind: "ReplicaSet",
    resource: resources::REPLICA_SETS,
    controller: "replicaset-controller",
    account: "replicaset-controller",
    tells_terminating: true,
};

static REPLICATION_CONTROLLER: Flavour = Flavour {
    kind: "ReplicationController",
    resource: resources::REPLICATION_CONTROLLERS,
    controller: "replication-controller",
    account: "replication-controller",
    tells_terminating: false,
};

/// What is read of a ReplicaSet.
#[derive(Deserialize)]
struct View {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default = "one")]
    replicas: i64,
    #[serde(default)]
    min_ready_seconds: u64,
    selector: Value,
    #[serde(default)]
    template: Value,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Status {
    conditions: Vec<Condition>,
}

/// A pod of the set.
struct Member {
    object: Arc<Object>,
    view: Arc<PodView>,
}

impl ReplicaSets {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ReplicaSets::of(&REPLICA_SET, setup)
    }

    /// The same for ReplicationControllers.
    pub(crate) fn replication_controllers(setup: &Setup<'_>) -> Self {
        ReplicaSets::of(&REPLICATION_CONTROLLER, setup)
    }

    fn of(flavour: &'static Flavour, setup: &Setup<'_>) -> Self {
        let pods = setup.pods.clone();
        pods.informer.index(CONTROLLER_INDEX, by_controller);
        let replica_sets = setup.informers.of(&flavour.resource);
        replica_sets.index(CONTROLLER_INDEX, by_controller);
        ReplicaSets { flavour, replica_sets, pods, events: setup.recorder(flavour.account, flavour.controller) }
    }

    /// How many of its pods are being deleted and have not ended.
    fn terminating(&self, object: &Object, selector: &Selector) -> i64 {
        let pods = self.pods.informer.by_index(CONTROLLER_INDEX, object.uid());
        let ending = |pod: &&Arc<Object>| pod.is_deleting() && selector.matches(pod) && !self.pods.view(pod).is_ended();
        pods.iter().filter(ending).count() as i64
    }

    /// The ReplicaSets of the same controller: their pods count when nodes are compared. Those of a set that nobody controls don't.
    fn siblings(&self, object: &Object) -> Vec<Arc<Object>> {
        let owner = object.controller();
        owner.map(|owner| self.replica_sets.by_index(CONTROLLER_INDEX, &owner.uid)).unwrap_or_default()
    }
}

/// The selector of an object that has pods: a ReplicationController's is a plain map.
fn selector_of(owner: &Object, selector: Option<&Value>) -> Result<Selector, SelectorError> {
    if owner.kind() != REPLICATION_CONTROLLER.kind {
        return Selector::from_label_selector(selector);
    }
    let labels = selector.and_then(Value::as_object).into_iter().flat_map(|labels| labels.iter());
    Ok(Selector::from_labels(labels.filter_map(|(key, value)| Some((key, value.as_str()?)))))
}

/// The keys of the owners that an orphan's labels match.
pub(crate) fn matching_owners(owners: &Informer, orphan: &Object) -> Vec<ObjectKey> {
    if orphan.controller().is_some() || orphan.is_deleting() {
        return Vec::new();
    }
    let matches = |owner: &Arc<Object>| {
        let value = owner.to_value();
        let selector = selector_of(owner, value.at(&["spec", "selector"]));
        selector.is_ok_and(|selector| !selector.is_everything() && selector.matches(orphan))
    };
    owners.list(orphan.namespace()).into_iter().filter(matches).map(|owner| owner.key().clone()).collect()
}

/// The owners that a change of a dependent concerns: its controller before and after, or those that might adopt it.
pub(crate) fn owners_of(
    event: &Event,
    owners: &Informer,
    owner_resource: &Resource,
    kind: &'static str,
) -> Vec<ObjectKey> {
    let states = [Some(event.object()), event.old()];
    let mut keys: Vec<_> =
        states.into_iter().flatten().filter_map(|o| owner_key(o, &owner_resource.group, kind)).collect();
    keys.dedup();
    let relabelled = event
        .old()
        .is_none_or(|old| old.labels() != event.object().labels() || old.controller() != event.object().controller());
    if relabelled {
        keys.extend(matching_owners(owners, event.object()));
    }
    keys
}

impl Controller for ReplicaSets {
    fn name(&self) -> &'static str {
        self.flavour.controller
    }

    fn watches(&self) -> Vec<Watch> {
        let (owners, flavour) = (self.replica_sets.clone(), self.flavour);
        let of_pod = move |event: &Event| owners_of(event, &owners, &flavour.resource, flavour.kind);
        vec![Watch::objects(self.replica_sets.clone()), Watch::new(self.pods.informer.clone(), of_pod)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.replica_sets.get(key) else { return Ok(Requeue::No) };
        let view: View = serde_json::from_slice(object.body())?;
        let selector = selector_of(&object, Some(&view.spec.selector))?;
        let claim = Claim {
            client: ctx.client(),
            owner: &object,
            owner_resource: &self.flavour.resource,
            selector: &selector,
            dependents: &self.pods.informer,
            wanted: &|pod| self.pods.is_active(pod),
        };
        let claimed = claim.claim().await?.into_iter();
        let members: Vec<_> = claimed.map(|object| Member { view: self.pods.view(&object), object }).collect();
        let managed = if object.is_deleting() {
            Ok(0)
        } else {
            scale::manage(self, ctx.client(), &object, &view, &members).await
        };
        if let Ok(1..scale::BURST) = managed {
            // All of it is done, and what the status says of it is seen in a moment: then it is told once.
            return Ok(Requeue::After(Duration::ZERO));
        }
        let mut counts = status::count(&view, &members, ctx.env().now());
        counts.terminating = self.flavour.tells_terminating.then(|| self.terminating(&object, &selector));
        status::write(
            ctx.client(),
            &self.flavour.resource,
            &object,
            &view,
            &counts,
            members.len(),
            managed.as_ref().err(),
        )
        .await?;
        managed?;
        Ok(match counts.next_available_in {
            Some(pause) => Requeue::After(pause + Duration::from_millis(1)),
            None => Requeue::No,
        })
    }
}
