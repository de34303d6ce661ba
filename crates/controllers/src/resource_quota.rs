//! What a quota says is used is counted anew when objects go or change, or the quota does. Upstream: pkg/controller/resourcequota.
//!
//! The API server charges what is created in the same transaction. Here nothing is written unless the objects were seen at least
//! as new as the quota, and the quota is still that one: so a count never undoes a charge.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Quantity, Value};
use client::{
    Client, Controller, Event, Informer, Informers, ListOptions, ReconcileContext, ReconcileError, Requeue, Resource,
    Selection, Subscription, Watch, Workqueue, discover,
};
use env::Env;
use jiff::Timestamp;
use parking_lot::Mutex;
use rules::quota::{self, Amounts, Quota};
use serde::Deserialize;

use crate::Setup;
use crate::meta::{between, parsed, write_status_at};

const QUOTAS: Resource = Resource::namespaced("", "v1", "resourcequotas");

/// Objects mostly go in groups.
const GONE: Duration = Duration::from_millis(100);
/// What was charged is looked at again, in case it came to nothing.
const CHARGED: Duration = Duration::from_secs(2);
/// A kind that nobody serves may be served later.
const NOT_SERVED: Duration = Duration::from_secs(30);

pub(crate) struct ResourceQuotas {
    quotas: Informer,
    informers: Informers,
    client: Client,
    queue: Arc<OnceLock<Workqueue<ObjectKey>>>,
    followed: Mutex<BTreeMap<Kind, Followed>>,
}

/// Group and plural.
type Kind = (String, String);

#[derive(Clone)]
struct Followed {
    informer: Informer,
    _subscription: Arc<Subscription>,
}

/// What is limited, and to how much.
#[derive(Deserialize)]
struct View {
    #[serde(default)]
    spec: Hard,
    #[serde(default)]
    status: Hard,
}

#[derive(Deserialize, Default, PartialEq)]
#[serde(default)]
struct Hard {
    hard: Value,
    used: Value,
}

/// What was counted.
struct Count {
    used: Amounts,
    /// When some of it ceases to count by itself.
    expires: Option<Timestamp>,
    complete: bool,
}

impl ResourceQuotas {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ResourceQuotas {
            quotas: setup.informers.of(&QUOTAS),
            informers: setup.informers.clone(),
            client: setup.client.clone(),
            queue: Arc::default(),
            followed: Mutex::default(),
        }
    }

    /// As the server has it; controllers may list quotas, and not get one.
    async fn newest(&self, key: &ObjectKey) -> Result<Option<Arc<Object>>, ReconcileError> {
        let selection = Selection::all().namespace(&*key.namespace).fields(format!("metadata.name={}", key.name));
        let list = self.client.list(&QUOTAS, &selection, &ListOptions::default()).await?;
        Ok(list.items.into_iter().next())
    }

    /// Counts what the quota limits.
    async fn count(
        &self,
        object: &Object,
        scoped: &Quota,
        limits: &Amounts,
        now: Timestamp,
    ) -> Result<Count, ReconcileError> {
        let kinds: BTreeSet<Kind> = limits
            .names()
            .filter_map(|name| quota::limited(name).map(|(group, plural)| (group.to_owned(), plural.to_owned())))
            .collect();
        let mut count = Count { used: Amounts::default(), expires: None, complete: true };
        for kind in kinds {
            let Some(followed) = self.follow(&kind).await? else {
                count.complete = false;
                continue;
            };
            let resource = quota::Resource::new(&kind.0, &kind.1);
            let limited: BTreeSet<&str> = limits.names().filter(|name| resource.has(name)).collect();
            let mut used = Amounts::default();
            limited.iter().for_each(|name| used.set(*name, Quantity::default()));
            for found in self.objects(&followed.informer, object).await? {
                let value = found.to_value();
                if !scoped.covers(resource, &value) {
                    continue;
                }
                used.add(&resource.usage(&value, now).only(|name| limited.contains(name)));
                if resource == quota::Resource::new("", "pods")
                    && let Some(end) = quota::expires(&value).filter(|end| *end >= now)
                {
                    count.expires = Some(count.expires.map_or(end, |known| known.min(end)));
                }
            }
            count.used.add(&used);
        }
        Ok(count)
    }

    /// The objects of the quota's namespace, not older than the quota.
    async fn objects(&self, informer: &Informer, quota: &Object) -> Result<Vec<Arc<Object>>, ReconcileError> {
        if informer.has_synced() && informer.revision() >= quota.revision() {
            return Ok(informer.list(quota.namespace()));
        }
        let selection = Selection::all().namespace(quota.namespace());
        Ok(self.client.list(informer.resource(), &selection, &ListOptions::default()).await?.items)
    }

    /// Follows a kind, if it is served.
    async fn follow(&self, kind: &Kind) -> Result<Option<Followed>, ReconcileError> {
        if let Some(followed) = self.followed.lock().get(kind) {
            return Ok(Some(followed.clone()));
        }
        let Some(resource) = self.served(kind).await? else { return Ok(None) };
        let informer = self.informers.of(&resource);
        let (queue, quotas, kind_of) = (self.queue.clone(), self.quotas.clone(), kind.clone());
        let env = self.client.env().clone();
        let subscription = informer.on_event(move |event| {
            let Some(queue) = queue.get() else { return };
            let namespace = event.object().namespace();
            let limited = quotas.list(namespace);
            if namespace.is_empty() || limited.is_empty() {
                return;
            }
            let Some(pause) = pause(event, quota::Resource::new(&kind_of.0, &kind_of.1), &env) else { return };
            limited.iter().for_each(|quota| queue.add_after(quota.key().clone(), pause));
        });
        let followed = Followed { informer, _subscription: Arc::new(subscription) };
        Ok(Some(self.followed.lock().entry(kind.clone()).or_insert(followed).clone()))
    }

    async fn served(&self, (group, plural): &Kind) -> Result<Option<Resource>, ReconcileError> {
        if group.is_empty() {
            let known = [
                "configmaps",
                "persistentvolumeclaims",
                "pods",
                "replicationcontrollers",
                "resourcequotas",
                "secrets",
                "services",
            ];
            if let Some(plural) = known.into_iter().find(|known| known == plural) {
                return Ok(Some(Resource::namespaced("", "v1", plural)));
            }
        }
        let (found, _) = discover(&self.client).await?;
        let found = found.into_iter().find(|api| api.resource.group == *group && api.resource.plural == *plural);
        Ok(found.filter(|api| api.resource.namespaced && api.can("list") && api.can("watch")).map(|api| api.resource))
    }
}

/// How soon the quotas of the object's namespace are counted anew.
fn pause(event: &Event, resource: quota::Resource<'_>, env: &Env) -> Option<Duration> {
    match event {
        Event::Deleted(_) => Some(GONE),
        // It was charged when it was made, unless the quota came at the same time.
        Event::Added(_) => Some(CHARGED),
        Event::Modified { old, new } => {
            let counts_more = matches!(resource.plural, "pods" | "services" | "persistentvolumeclaims");
            if !resource.group.is_empty() || !counts_more {
                return None;
            }
            let (old, new, now) = (parsed(old), parsed(new), env.now());
            let deleted = |value: &Value| value.at(&["metadata", "deletionTimestamp"]).is_some();
            let scoped = |value: &Value| value.at(&["spec", "activeDeadlineSeconds"]).cloned();
            let differs = deleted(&old) != deleted(&new)
                || scoped(&old) != scoped(&new)
                || resource.usage(&old, now) != resource.usage(&new, now);
            differs.then_some(GONE)
        }
    }
}

fn view(object: &Object) -> Option<View> {
    serde_json::from_slice(object.body()).ok()
}

impl Controller for ResourceQuotas {
    fn name(&self) -> &'static str {
        "resourcequota-controller"
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        let _ = self.queue.set(queue.clone());
    }

    fn watches(&self) -> Vec<Watch> {
        let queue = self.queue.clone();
        let of_quota = move |event: &Event| {
            let key = event.object().key().clone();
            let is_charge = || {
                let (old, new) = (view(event.old()?)?, view(event.object())?);
                let limits_same = new.spec.hard == old.spec.hard && new.spec.hard == new.status.hard;
                (limits_same && new.status.used != old.status.used).then_some(())
            };
            match (event, is_charge(), queue.get()) {
                (Event::Deleted(_), ..) => Vec::new(),
                (_, Some(()), Some(queue)) => {
                    queue.add_after(key, CHARGED);
                    Vec::new()
                }
                _ => vec![key],
            }
        };
        vec![Watch::new(self.quotas.clone(), of_quota)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if self.quotas.get(key).is_none() {
            return Ok(Requeue::No);
        }
        // The newest there is: what the informer has may be before charges.
        let Some(object) = self.newest(key).await? else { return Ok(Requeue::No) };
        if object.is_deleting() {
            return Ok(Requeue::No);
        }
        let value = object.to_value();
        let hard = value.at(&["spec", "hard"]).cloned().unwrap_or_else(Value::object);
        let limits = Amounts::read(Some(&hard));
        let count = self.count(&object, &Quota::read(&value), &limits, ctx.env().now()).await?;
        let known = Quota::read(&value);
        let same = known.hard == limits && known.used == count.used && value.at(&["status", "used"]).is_some();
        if !same {
            let mut fields = Value::object();
            fields.set(&["hard"], hard);
            fields.set(&["used"], count.used.to_value());
            write_status_at(ctx.client(), &QUOTAS, &object, &fields).await?;
        }
        let expires = count.expires.map(|time| between(ctx.env().now(), time));
        let again = expires.map(|left| left + GONE).into_iter().chain((!count.complete).then_some(NOT_SERVED)).min();
        Ok(again.map_or(Requeue::No, Requeue::After))
    }
}
