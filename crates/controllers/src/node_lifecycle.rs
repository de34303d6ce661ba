//! Nodes that no longer report are marked and tainted, so that nothing new comes and what runs there is replaced.
//! Upstream: pkg/controller/nodelifecycle.

mod health;
mod labels;
mod taints;
mod zones;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Client, Controller, Event, EventRecorder, EventType, IgnoreNotFound, Informer, ObjectReference, PatchKind,
    ReconcileContext, ReconcileError, Requeue, Selection, Watch, Workqueue, resources,
};
use env::Env;
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::{Condition, NODE_INDEX, by_node, created, now};
use health::Health;
use zones::Zones;

const LEASE_NAMESPACE: &str = "kube-node-lease";

/// The key that stands for the zones: no node is called like this.
fn all_zones() -> ObjectKey {
    ObjectKey::cluster("")
}

pub(crate) struct NodeLifecycle {
    nodes: Informer,
    leases: Informer,
    pods: Informer,
    events: EventRecorder,
    /// What was seen of each node, by name.
    health: Mutex<BTreeMap<String, Health>>,
    zones: Arc<Mutex<Zones>>,
    env: Env,
    queue: OnceLock<Workqueue<ObjectKey>>,
}

impl NodeLifecycle {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(NODE_INDEX, by_node);
        let leases = Selection::all().namespace(LEASE_NAMESPACE);
        NodeLifecycle {
            nodes: setup.informers.of(&resources::NODES),
            leases: setup.informers.selected(&resources::LEASES, leases),
            pods,
            events: setup.recorder("node-controller", "node-controller"),
            health: Mutex::default(),
            zones: Arc::default(),
            env: setup.client.env().clone(),
            queue: OnceLock::new(),
        }
    }

    /// Sets the taints that follow from the conditions. Returns when an eviction may be tried again that must wait now.
    async fn taint(
        &self,
        client: &Client,
        node: &Arc<Object>,
        ready: Option<&str>,
    ) -> Result<Option<Duration>, ReconcileError> {
        let mut wanted = taints::no_schedule(node);
        let mut pause = None;
        let evict = match ready {
            Some("False") => Some(taints::NOT_READY),
            Some("Unknown") => Some(taints::UNREACHABLE),
            // One that never reported has its time yet.
            _ => None,
        };
        let already = taints::has_no_execute(node);
        if let Some(taint) = evict {
            match self.zones.lock().may_evict(node, self.env.monotonic(), already) {
                zones::Verdict::Evict => wanted.push((taint.to_owned(), "NoExecute")),
                zones::Verdict::Not => {}
                zones::Verdict::Later(wait) => pause = Some(wait),
            }
        }
        let begins = !already && wanted.iter().any(|(_, effect)| *effect == "NoExecute");
        let applied = taints::apply(client, node, &wanted).await;
        if applied.is_err() && begins {
            self.zones.lock().give_back(node, self.env.monotonic());
        }
        applied?;
        Ok(pause)
    }

    /// Has the zones judged anew if the node is not what they were judged by. Returns whether it was silent then.
    fn note_silent(&self, node: &Object, expired: bool) -> bool {
        let mut zones = self.zones.lock();
        let known = zones.is_silent(node);
        if known != (expired || health::ready(node).as_deref() != Some("True")) {
            zones.changed(self.env.monotonic());
            if let Some(queue) = self.queue.get() {
                queue.add(all_zones());
            }
        }
        known
    }

    /// Judges the zones if it is time, and has the nodes looked at that this concerns.
    fn judge(&self) -> Requeue {
        let now = self.env.monotonic();
        let mut zones = self.zones.lock();
        let Some(due) = zones.due() else { return Requeue::No };
        if now < due {
            return Requeue::After(due - now);
        }
        let health = self.health.lock();
        let expired = |node: &Object| health.get(node.name()).is_some_and(|health| health.expires() <= now);
        let unready = zones.judge(&self.nodes.list(""), expired, now);
        if let Some(queue) = self.queue.get() {
            unready.into_iter().for_each(|key| queue.add(key));
        }
        Requeue::No
    }

    /// Tells that a node came or went; it may be gone.
    fn tell(&self, key: &ObjectKey, uid: &str, reason: &'static str, what: String) {
        let about = ObjectReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: key.name.to_string(),
            uid: uid.to_owned(),
            ..ObjectReference::default()
        };
        self.events.event(about, EventType::Normal, reason, format!("Node {} event: {what}", key.name));
    }

    /// Notes whether the node's pods are still to be told, and returns whether they were.
    fn note_untold(&self, key: &ObjectKey, untold: bool) -> bool {
        let mut health = self.health.lock();
        health.get_mut(&key.name).is_some_and(|health| std::mem::replace(&mut health.untold, untold))
    }

    /// The pods of a node that nobody hears of do not serve.
    async fn tell_not_ready(&self, client: &Client, node: &Object) -> Result<(), ReconcileError> {
        let message = format!("Node {} status is now: NodeNotReady", node.name());
        self.events.normal(node, "NodeNotReady", message);
        for pod in self.pods.by_index(NODE_INDEX, node.name()) {
            let value = pod.to_value();
            let conditions = value.at(&["status", "conditions"]).map(Value::view::<Vec<Value>>).transpose()?;
            let mut conditions = conditions.unwrap_or_default();
            let is_ready = |condition: &&mut Value| {
                condition.str_at(&["type"]) == Some("Ready") && condition.str_at(&["status"]) == Some("True")
            };
            let Some(ready) = conditions.iter_mut().find(is_ready) else { continue };
            ready.set(&["status"], "False");
            ready.set(&["lastTransitionTime"], now(client.env()));
            self.events.warning(&pod, "NodeNotReady", "Node is not ready");
            let mut patch = Value::object();
            patch.set(&["metadata", "uid"], pod.uid());
            patch.set(&["metadata", "resourceVersion"], pod.revision().to_string());
            patch.set(&["status", "conditions"], Value::Array(conditions));
            client.patch_status(&resources::PODS, pod.key(), PatchKind::Merge, &patch).await.ignore_not_found()?;
        }
        Ok(())
    }
}

/// A node's conditions.
fn conditions(node: &Object) -> Vec<Condition> {
    let value = node.to_value();
    value.at(&["status", "conditions"]).and_then(|conditions| conditions.view().ok()).unwrap_or_default()
}

impl Controller for NodeLifecycle {
    fn name(&self) -> &'static str {
        "node-lifecycle-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let (zones, env) = (self.zones.clone(), self.env.clone());
        let of_node = move |event: &Event| {
            let node = event.object().key().clone();
            if matches!(event, Event::Modified { old, new } if !zones::concerns(old, new)) {
                return vec![node];
            }
            zones.lock().changed(env.monotonic());
            vec![node, all_zones()]
        };
        let of_lease = |event: &Event| vec![ObjectKey::cluster(event.object().name())];
        vec![
            Watch::new(self.nodes.clone(), of_node),
            Watch::new(self.leases.clone(), of_lease),
            Watch::only(self.pods.clone()),
        ]
    }

    fn workers(&self) -> usize {
        8
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        // Of several runs the first one's is as good: the others' controllers are new.
        let _ = self.queue.set(queue.clone());
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if *key == all_zones() {
            return Ok(self.judge());
        }
        let Some(mut node) = self.nodes.get(key) else {
            let forgotten = self.health.lock().remove(&key.name);
            if let Some(health) = forgotten {
                self.tell(key, &health.uid, "RemovingNode", format!("Removing Node {} from Controller", key.name));
            }
            return Ok(Requeue::No);
        };
        let client = ctx.client();
        labels::complete(client, &node).await?;
        let lease = self.leases.get(&ObjectKey::new(LEASE_NAMESPACE, &*key.name));
        if !self.health.lock().contains_key(&key.name) {
            self.tell(key, node.uid(), "RegisteredNode", format!("Registered Node {} in Controller", key.name));
        }
        let left = {
            let mut health = self.health.lock();
            let begun = || {
                let age = ctx.env().now().duration_since(created(&node));
                Health::new(&node, Duration::try_from(age).unwrap_or_default(), ctx.env().monotonic())
            };
            let health = health.entry(key.name.clone()).or_insert_with(begun);
            health.observe(&node, lease.as_deref(), ctx.env().monotonic());
            health.expires().saturating_duration_since(ctx.env().monotonic())
        };
        // A kubelet that says itself that it is not ready tells its pods itself.
        let mut untold = false;
        let known_silent = self.note_silent(&node, left.is_zero());
        if left.is_zero() && known_silent {
            untold = health::ready(&node).as_deref() == Some("True");
            node = health::mark_unknown(client, &node).await?;
        }
        let ready = health::ready(&node);
        untold |= self.note_untold(key, untold) && ready.as_deref() != Some("True");
        if untold {
            self.tell_not_ready(client, &node).await?;
            self.note_untold(key, false);
        }
        let pause = self.taint(client, &node, ready.as_deref()).await?;
        let next = [Some(left).filter(|left| !left.is_zero()), pause].into_iter().flatten().min();
        Ok(next.map_or(Requeue::No, |pause| Requeue::After(pause + Duration::from_millis(10))))
    }
}
