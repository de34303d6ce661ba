//! A namespace that is being deleted loses its content, then its finalizer. Upstream: pkg/controller/namespace.

mod content;

use std::sync::OnceLock;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Client, Controller, Event, IgnoreNotFound, Informer, ReconcileContext, ReconcileError, Requeue, Watch, Workqueue,
    WriteOptions, resources,
};

use crate::Setup;
use crate::meta::{Condition, between, list, now, time, written_status};
use content::Remains;

/// What the namespace holds as long as this controller has work there.
const FINALIZER: &str = "kubernetes";
/// What failed is tried again after this at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

pub(crate) struct Namespaces {
    namespaces: Informer,
    pods: Informer,
    queue: OnceLock<Workqueue<ObjectKey>>,
}

impl Namespaces {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        Namespaces {
            namespaces: setup.informers.of(&resources::NAMESPACES),
            pods: setup.informers.of(&resources::PODS),
            queue: OnceLock::new(),
        }
    }

    /// Writes the conditions.
    async fn tell(
        &self,
        client: &Client,
        namespace: &std::sync::Arc<Object>,
        remains: &Remains,
    ) -> Result<std::sync::Arc<Object>, ReconcileError> {
        let value = namespace.to_value();
        let known: Vec<Condition> =
            value.at(&["status", "conditions"]).map(Value::view).transpose()?.unwrap_or_default();
        let mut conditions = known.clone();
        for mut new in remains.conditions() {
            let old = conditions.iter_mut().find(|condition| condition.r#type == new.r#type);
            let same =
                |old: &Condition| old.status == new.status && old.reason == new.reason && old.message == new.message;
            match old {
                Some(old) if same(old) => {}
                Some(old) => {
                    let kept = old.last_transition_time.clone().filter(|_| old.status == new.status);
                    new.last_transition_time = kept.or_else(|| Some(now(client.env())));
                    *old = new;
                }
                None => {
                    new.last_transition_time = Some(now(client.env()));
                    conditions.push(new);
                }
            }
        }
        let mut fields = Value::object();
        fields.set(&["conditions"], list(&conditions));
        Ok(written_status(client, &resources::NAMESPACES, namespace, fields).await?)
    }
}

fn holds_finalizer(namespace: &Object) -> bool {
    !namespace.to_value().items_at(&["spec", "finalizers"]).is_empty()
}

/// Gives the namespace free.
async fn finalize(client: &Client, namespace: &Object) -> Result<(), client::Error> {
    let mut value = namespace.to_value();
    let mut finalizers = value.items_at(&["spec", "finalizers"]).to_vec();
    finalizers.retain(|finalizer| finalizer.as_str() != Some(FINALIZER));
    value.set(&["spec", "finalizers"], Value::Array(finalizers));
    let written = client.update_subresource(&resources::NAMESPACES, "finalize", &value, &WriteOptions::default()).await;
    written.ignore_not_found()
}

impl Controller for Namespaces {
    fn name(&self) -> &'static str {
        "namespace-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let deleting = |event: &Event| match event {
            Event::Deleted(_) => Vec::new(),
            event if event.object().is_deleting() => vec![event.object().key().clone()],
            _ => Vec::new(),
        };
        // The last pod gone is what a deletion mostly waits for.
        let (namespaces, pods) = (self.namespaces.clone(), self.pods.clone());
        let emptied = move |event: &Event| match event {
            Event::Deleted(pod) => {
                let key = ObjectKey::cluster(pod.namespace());
                let deleting = namespaces.get(&key).is_some_and(|namespace| namespace.is_deleting());
                if deleting && pods.list(pod.namespace()).is_empty() { vec![key] } else { Vec::new() }
            }
            _ => Vec::new(),
        };
        vec![Watch::new(self.namespaces.clone(), deleting), Watch::new(self.pods.clone(), emptied)]
    }

    fn workers(&self) -> usize {
        10
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        let _ = self.queue.set(queue.clone());
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if self.namespaces.get(key).is_none_or(|namespace| !namespace.is_deleting()) {
            return Ok(Requeue::No);
        }
        let client = ctx.client();
        let Some(mut namespace) = client.find(&resources::NAMESPACES, key).await? else { return Ok(Requeue::No) };
        if !namespace.is_deleting() || !holds_finalizer(&namespace) {
            return Ok(Requeue::No);
        }
        let mut fields = Value::object();
        fields.set(&["phase"], "Terminating");
        namespace = written_status(client, &resources::NAMESPACES, &namespace, fields).await?;
        let deleted = time(namespace.deletion_timestamp());
        let age = between(deleted, client.env().now());
        let remains = content::delete_all(client, &key.name, age).await;
        let namespace = self.tell(client, &namespace, &remains).await?;
        if let Some(failure) = remains.failure {
            // However often it failed before.
            if let Some(queue) = self.queue.get() {
                queue.add_after(key.clone(), LONGEST_PAUSE);
            }
            return Err(failure);
        }
        if let Some(estimate) = remains.estimate {
            return Ok(Requeue::After(Duration::from_secs(estimate.as_secs() / 2 + 1)));
        }
        finalize(client, &namespace).await?;
        Ok(Requeue::No)
    }
}
