//! A DaemonSet keeps one pod on each node that suits it. Upstream: pkg/controller/daemon.

mod backoff;
mod manage;
mod revisions;
mod rolling;
mod status;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Selector, Value};
use client::{
    Client, Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, owner_key,
    resources,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use crate::Setup;
use crate::claim::Claim;
use crate::meta::{CONTROLLER_INDEX, NODE_INDEX, by_controller, by_node};
use crate::pod_view::Pods;
use crate::replica_set::owners_of;
use backoff::FailedPods;
use view::{Daemon, DaemonSet};

pub(crate) struct DaemonSets {
    sets: Informer,
    revisions: Informer,
    nodes: Informer,
    pods: Pods,
    events: EventRecorder,
    failed: FailedPods,
}

/// One reconcile of one set.
struct Sync<'a> {
    client: &'a Client,
    events: &'a EventRecorder,
    failed: &'a FailedPods,
    set: &'a DaemonSet,
    nodes: &'a [Node],
    /// The set's pods by the node that each runs on or is meant for.
    pods: BTreeMap<String, Vec<Daemon>>,
    /// That of the current template.
    hash: String,
    now: Timestamp,
}

impl DaemonSets {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.pods.clone();
        pods.informer.index(CONTROLLER_INDEX, by_controller);
        pods.informer.index(NODE_INDEX, by_node);
        let revisions = setup.informers.of(&resources::CONTROLLER_REVISIONS);
        revisions.index(CONTROLLER_INDEX, by_controller);
        DaemonSets {
            sets: setup.informers.of(&resources::DAEMON_SETS),
            revisions,
            nodes: setup.informers.of(&resources::NODES),
            pods,
            events: setup.recorder("daemon-set-controller", "daemonset-controller"),
            failed: FailedPods::default(),
        }
    }

    /// The pods that are the set's.
    async fn claim(
        &self,
        client: &Client,
        owner: &Arc<Object>,
        selector: &Selector,
    ) -> Result<Vec<Daemon>, client::Error> {
        let claim = Claim {
            client,
            owner,
            owner_resource: &resources::DAEMON_SETS,
            selector,
            dependents: &self.pods.informer,
            wanted: &|_| true,
        };
        Ok(claim.claim().await?.into_iter().map(|pod| Daemon::of(pod, &self.pods)).collect())
    }
}

/// Those that ended and are going are the garbage collector's.
fn by_target(pods: &[Daemon]) -> BTreeMap<String, Vec<Daemon>> {
    let mut by_target: BTreeMap<String, Vec<Daemon>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !(pod.view.is_ended() && pod.is_going())) {
        if let Some(node) = pod.target() {
            by_target.entry(node).or_default().push(pod.clone());
        }
    }
    by_target
}

impl Controller for DaemonSets {
    fn name(&self) -> &'static str {
        "daemonset-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let owners =
            |sets: Informer| move |event: &Event| owners_of(event, &sets, &resources::DAEMON_SETS, "DaemonSet");
        // One that is new and has an owner is that owner's own work, or can wait.
        let of_set = owners(self.sets.clone());
        let of_revision = move |event: &Event| match event {
            Event::Added(revision) if revision.controller().is_some() => Vec::new(),
            event => of_set(event),
        };
        let (sets, pods) = (self.sets.clone(), self.pods.informer.clone());
        vec![
            Watch::objects(self.sets.clone()),
            Watch::new(self.pods.informer.clone(), owners(self.sets.clone())),
            Watch::new(self.revisions.clone(), of_revision),
            Watch::new(self.nodes.clone(), move |event| concerned(event, &sets, &pods)),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.sets.get(key) else { return Ok(Requeue::No) };
        let set = DaemonSet::read(&object)?;
        let selector = Selector::from_label_selector(Some(&set.spec.selector))?;
        if selector.is_everything() {
            let message = "This daemon set is selecting all pods. A non-empty selector is required.";
            self.events.warning(&object, "SelectingAll", message);
            return Ok(Requeue::No);
        }
        if object.is_deleting() {
            return Ok(Requeue::No); // its revisions may be gone, and with them what its pods are
        }
        let client = ctx.client();
        let claimed = self.claim(client, &object, &selector).await?;
        let history = self.history(client, &set, &selector, &claimed).await?;
        let nodes: Vec<Node> = self.nodes.list("").iter().filter_map(|node| node.view().ok()).collect();
        let sync = Sync {
            client,
            events: &self.events,
            failed: &self.failed,
            set: &set,
            nodes: &nodes,
            pods: by_target(&claimed),
            hash: history.current.object.label(view::REVISION).unwrap_or_default().to_owned(),
            now: ctx.env().now(),
        };
        let managed = sync.manage().await;
        let forgotten = match &managed {
            Ok(_) => revisions::forget(client, &set, &history.old, &claimed).await,
            Err(_) => Ok(()),
        };
        let status = sync.status();
        status.write(client, &set).await?;
        let retry = managed?;
        forgotten?;
        let ready = status.next_available_in(&sync);
        Ok(retry.into_iter().chain(ready).min().map_or(Requeue::No, Requeue::After))
    }
}

/// The sets that a change of a node concerns.
fn concerned(event: &Event, sets: &Informer, pods: &Informer) -> Vec<ObjectKey> {
    if let Event::Modified { old, new } = event
        && old.labels() == new.labels()
        && taints(old) == taints(new)
    {
        return Vec::new();
    }
    let keys = |sets: Vec<Arc<Object>>| sets.iter().map(|set| set.key().clone()).collect();
    if let Event::Deleted(_) = event {
        return keys(sets.list(""));
    }
    let Ok(node) = event.object().view::<Node>() else { return Vec::new() };
    let here = pods.by_index(NODE_INDEX, event.object().name());
    let owners: Vec<ObjectKey> = here.iter().filter_map(|pod| owner_key(pod, "apps", "DaemonSet")).collect();
    let is_concerned = |object: &Arc<Object>| {
        let Ok(set) = DaemonSet::read(object) else { return false };
        let (starts, stays) = set.fits(&node);
        let is_here = owners.contains(object.key());
        if is_here { !stays || set.status.number_misscheduled > 0 } else { starts }
    };
    keys(sets.list("").into_iter().filter(is_concerned).collect())
}

fn taints(node: &Object) -> Value {
    node.to_value().at(&["spec", "taints"]).cloned().unwrap_or_default()
}

/// The shorter of two pauses.
fn sooner(a: Option<Duration>, b: Duration) -> Option<Duration> {
    Some(a.map_or(b, |a| a.min(b)))
}
