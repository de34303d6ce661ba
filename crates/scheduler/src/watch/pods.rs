//! From what the API tells of pods to the cache and the queue.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use apimachinery::Object;
use client::{TaskGuard, resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::Shared;
use crate::cluster::view;
use crate::framework::{Change, ClusterEvent};
use crate::pod::PodInfo;
use crate::source::{Reader, There, follow};

/// Begins to follow pods; returns when all there are are known.
pub(super) async fn subscribe(shared: &Arc<Shared>) -> TaskGuard {
    let glance = {
        let shared = shared.clone();
        // What can't be told at a glance, for whatever reason, is read as a whole.
        move |json: &[u8]| catch_unwind(AssertUnwindSafe(|| glance(&shared, json, 0))).unwrap_or_default()
    };
    follow(&shared.reader.glancing(Arc::new(glance)), &resources::PODS, Pods(shared.clone())).await
}

struct Pods(Arc<Shared>);

impl Reader for Pods {
    fn take(&self, object: &Object) {
        on_pod(&self.0, object);
    }

    fn gone(&self, object: &Object) {
        forget(&self.0, object.uid());
    }

    fn sweep(&self, there: &There) {
        let mut known = self.0.queue.pods();
        known.extend(self.0.cache.lock().pods().cloned());
        let gone = known.iter().filter(|pod| !there.is(&pod.key, &pod.uid));
        gone.for_each(|pod| forget(&self.0, &pod.uid));
    }
}

fn on_pod(shared: &Shared, object: &Object) {
    let placed = shared.cache.lock().placed(object.uid()).is_some();
    if placed && glance(shared, object.body(), object.revision()).is_some() {
        return;
    }
    let Some(pod) = view::<Pod>(object) else { return };
    let terminal = rules::is_terminal(&pod);
    let info = PodInfo::new(&pod);
    drop(pod);
    let mut info = shared.templates.lock().share(info);
    if shared.whole {
        info.whole = Some(Arc::new(object.clone()));
    }
    let info = Arc::new(info);
    if terminal || !info.node.is_empty() {
        shared.queue.remove(&info.uid);
        shared.nominator.remove(&info.uid);
    }
    if terminal {
        leave(shared, &info.uid);
    } else if !info.node.is_empty() {
        place(shared, info);
    } else if shared.profiles.contains_key(&info.scheduler) {
        waits(shared, info);
    }
}

/// What is looked at of a placed pod before it is read as a whole.
#[derive(Deserialize)]
struct Glimpse<'a> {
    #[serde(borrow)]
    metadata: Metadata<'a>,
    #[serde(borrow)]
    spec: Spec<'a>,
    #[serde(borrow)]
    status: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    uid: &'a str,
    generation: i64,
    /// Not in bodies that aren't from the wire.
    #[serde(default)]
    resource_version: &'a str,
    deletion_timestamp: Option<IgnoredAny>,
    #[serde(borrow, default)]
    labels: BTreeMap<&'a str, &'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    node_name: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status<'a> {
    #[serde(default)]
    phase: &'a str,
    start_time: Option<&'a str>,
}

/// Takes in a placed pod of which nothing changed but its status, and there nothing but that it runs; returns its revision. `None`: it must be
/// read as a whole. Most events are of such pods, and this costs a tenth. `revision`: unless the JSON names it.
fn glance(shared: &Shared, json: &[u8], revision: u64) -> Option<u64> {
    if shared.whole {
        return None;
    }
    let Glimpse { metadata, spec, status: text } = serde_json::from_slice(json).ok()?;
    let status: Status = serde_json::from_str(text.get()).ok()?;
    let revision = metadata.resource_version.parse().unwrap_or(revision);
    if spec.node_name.is_empty() || matches!(status.phase, "Succeeded" | "Failed") {
        return None;
    }
    let mut cache = shared.cache.lock();
    let old = cache.pod(metadata.uid)?;
    let labels = old.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    if old.generation != metadata.generation
        || old.terminating != metadata.deletion_timestamp.is_some()
        || !labels.eq(metadata.labels.iter().map(|(key, value)| (*key, *value)))
    {
        return None;
    }
    let running = status.phase == "Running";
    let (arrives, begins) = (old.node.is_empty(), running && !old.running);
    if !arrives && old.node != spec.node_name {
        return None;
    }
    let news = if arrives || begins {
        // What a pod holds is what it asks for until its status says otherwise.
        if old.started.is_some() || old.stirring || mentions(text, &STIRRING) || mentions(text, &HOLDING) {
            return None;
        }
        let started = status.start_time.map(str::parse::<Timestamp>).transpose().ok()?;
        let node = spec.node_name.to_owned();
        Some(PodInfo { revision, node, started, running, nominated: String::new(), scheduled: None, ..(**old).clone() })
    } else {
        // What a pod was seen to hold grows and shrinks by resizes, which have generations of their own; what it started with doesn't.
        let same = old.node == spec.node_name
            && old.running == running
            && !(running && (old.stirring || mentions(text, &STIRRING)));
        if !same || !cache.confirm(metadata.uid, spec.node_name) {
            return None;
        }
        None
    };
    drop(cache);
    shared.queue.remove(metadata.uid);
    shared.nominator.remove(metadata.uid);
    if let Some(news) = news {
        place(shared, Arc::new(news));
    }
    Some(revision)
}

/// What a status says of a resize, or of an end that others wait for: rare, so any doubt counts.
const STIRRING: [&str; 2] = ["PodResize", "PreemptionByScheduler"];
/// What it says of amounts that containers have, or of claims made for the pod.
const HOLDING: [&str; 2] = ["esources\"", "resourceClaimStatuses"];

fn mentions(status: &RawValue, words: &[&str]) -> bool {
    words.iter().any(|word| status.get().contains(word))
}

/// The pod is on a node.
fn place(shared: &Shared, info: Arc<PodInfo>) {
    let node = info.node.clone();
    let old = {
        let mut cache = shared.cache.lock();
        let old = cache.pod(&info.uid).cloned();
        cache.place(info.clone(), &node);
        old
    };
    // One that was assumed here has been told nobody yet.
    let old = old.filter(|old| !old.node.is_empty());
    shared.queue.wake(&ClusterEvent::Pod(Change { old, new: Some(info) }));
}

/// The pod needs a node.
fn waits(shared: &Shared, info: Arc<PodInfo>) {
    let assumed = shared.cache.lock().pod(&info.uid).cloned();
    if let Some(assumed) = assumed {
        // The binding is under way. It will fail if the pod is to go: its place is free for others now.
        shared.queue.refresh(&info);
        if info.terminating && !assumed.terminating {
            leave(shared, &info.uid);
        }
        return;
    }
    shared.nominator.refresh(&info);
    shared.queue.put(info);
}

/// The pod takes nothing from its node any more.
fn leave(shared: &Shared, uid: &str) {
    let gone = shared.cache.lock().remove(uid);
    if let Some(pod) = gone {
        shared.queue.wake(&ClusterEvent::Pod(Change::removed(pod)));
    }
}

fn forget(shared: &Shared, uid: &str) {
    shared.queue.remove(uid);
    shared.nominator.remove(uid);
    leave(shared, uid);
}

#[cfg(test)]
mod tests;
