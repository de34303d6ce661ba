//! From informers' events to the cache, the cluster's copies and the queue.

use std::sync::Arc;

use apimachinery::Object;
use client::{Event, Resource, Subscription, resources};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::Shared;
use crate::cluster::{self, Cluster, Kept, LabelMap, Store, view};
use crate::framework::{Change, ClusterEvent};
use crate::pod::PodInfo;

/// Begins to follow everything; returns when all there is is known.
pub(crate) async fn subscribe(shared: &Arc<Shared>) -> Vec<Subscription> {
    use ClusterEvent as E;
    let mut all = vec![
        keep(shared, &resources::PERSISTENT_VOLUME_CLAIMS, |c| &c.claims, E::Claim).await,
        keep(shared, &resources::PERSISTENT_VOLUMES, |c| &c.volumes, E::Volume).await,
        keep(shared, &cluster::STORAGE_CLASSES, |c| &c.classes, E::Class).await,
        keep(shared, &cluster::CSI_NODES, |c| &c.csi_nodes, E::CsiNode).await,
        keep(shared, &cluster::CSI_DRIVERS, |c| &c.csi_drivers, E::CsiDriver).await,
        keep(shared, &cluster::CSI_CAPACITIES, |c| &c.csi_capacities, E::Capacity).await,
        keep(shared, &cluster::ATTACHMENTS, |c| &c.attachments, E::Attachment).await,
        keep(shared, &cluster::DEVICE_CLASSES, |c| &c.device_classes, E::DeviceClass).await,
        keep(shared, &cluster::RESOURCE_SLICES, |c| &c.slices, E::ResourceSlice).await,
        keep_resource_claims(shared).await,
        keep_quietly(shared, &resources::POD_DISRUPTION_BUDGETS, |c| &c.budgets, Kept::read).await,
        keep_quietly(shared, &resources::NAMESPACES, |c| &c.namespaces, LabelMap::labels).await,
        keep_quietly(shared, &resources::SERVICES, |c| &c.services, LabelMap::selector).await,
        keep_quietly(shared, &resources::REPLICATION_CONTROLLERS, |c| &c.replication_controllers, LabelMap::selector)
            .await,
        keep_quietly(shared, &resources::REPLICA_SETS, |c| &c.replica_sets, cluster::set_selector).await,
        keep_quietly(shared, &resources::STATEFUL_SETS, |c| &c.stateful_sets, cluster::set_selector).await,
    ];
    let nodes = shared.informers.of(&resources::NODES);
    nodes.synced().await;
    let handler = shared.clone();
    all.push(nodes.on_event(move |event| on_node(&handler, event)));
    let pods = shared.informers.of(&resources::PODS);
    pods.synced().await;
    let handler = shared.clone();
    all.push(pods.on_event(move |event| on_pod(&handler, event)));
    all
}

type Of<T> = fn(&Cluster) -> &Store<T>;

/// Follows a resource whose changes may help waiting pods.
async fn keep<T: Kept>(
    shared: &Arc<Shared>,
    resource: &Resource,
    store: Of<T>,
    event: fn(Change<T>) -> ClusterEvent,
) -> Subscription {
    let informer = shared.informers.of(resource);
    informer.synced().await;
    let shared = shared.clone();
    informer.on_event(move |change| {
        let (old, new) = take_in(store(&shared.cluster), change, T::read);
        shared.changes.tell();
        if old.is_some() || new.is_some() {
            shared.queue.wake(&event(Change { old, new }));
        }
    })
}

/// Follows a resource that is looked up only.
async fn keep_quietly<T: Send + Sync + 'static>(
    shared: &Arc<Shared>,
    resource: &Resource,
    store: Of<T>,
    read: fn(&Object) -> Option<T>,
) -> Subscription {
    let informer = shared.informers.of(resource);
    informer.synced().await;
    let shared = shared.clone();
    informer.on_event(move |change| {
        // A status says nothing that is looked up, except a budget's, whose generation isn't enough.
        if let Event::Modified { old, new } = change
            && old.generation() == new.generation()
            && new.generation() > 0
            && new.kind() != "PodDisruptionBudget"
        {
            return;
        }
        take_in(store(&shared.cluster), change, read);
    })
}

/// Follows resource claims, of which the scheduler's own writes are known before their events come.
async fn keep_resource_claims(shared: &Arc<Shared>) -> Subscription {
    let informer = shared.informers.of(&cluster::RESOURCE_CLAIMS);
    informer.synced().await;
    let shared = shared.clone();
    informer.on_event(move |event| {
        let object = event.object();
        let new = if matches!(event, Event::Deleted(_)) { None } else { view(object).map(Arc::new) };
        let (old, new) = shared.cluster.follow_claim(object.key(), new, object.revision());
        if old.is_some() || new.is_some() {
            shared.queue.wake(&ClusterEvent::ResourceClaim(Change { old, new }));
        }
    })
}

fn take_in<T>(store: &Store<T>, event: &Event, read: fn(&Object) -> Option<T>) -> (Option<Arc<T>>, Option<Arc<T>>) {
    let object = event.object();
    let new = if matches!(event, Event::Deleted(_)) { None } else { read(object).map(Arc::new) };
    match new {
        Some(new) => (store.set(object.key().clone(), new.clone(), object.revision()), Some(new)),
        None => (store.remove(object.key()), None),
    }
}

fn on_node(shared: &Shared, event: &Event) {
    if let Event::Deleted(object) = event {
        let gone = shared.cache.lock().remove_node(object.name());
        if let Some(gone) = gone {
            shared.queue.wake(&ClusterEvent::Node(Change::removed(gone)));
        }
        return;
    }
    let Some(node) = view::<Node>(event.object()) else { return };
    let (old, new) = shared.cache.lock().set_node(node);
    // Heartbeats change conditions and images only; no plugin rejects pods for these.
    if old.as_ref().is_some_and(|old| old.same_for_pods(&new)) {
        return;
    }
    shared.queue.wake(&ClusterEvent::Node(Change { old, new: Some(new) }));
}

fn on_pod(shared: &Shared, event: &Event) {
    let object = event.object();
    if let Event::Deleted(_) = event {
        shared.queue.remove(object.uid());
        shared.nominator.remove(object.uid());
        return leave(shared, object.uid());
    }
    if uninteresting(shared, event) {
        return;
    }
    let Some(pod) = view::<Pod>(object) else { return };
    let terminal = rules::is_terminal(&pod);
    let info = PodInfo::new(&pod);
    drop(pod);
    let info = Arc::new(shared.templates.lock().share(info));
    if terminal || !info.node.is_empty() {
        shared.queue.remove(&info.uid);
        shared.nominator.remove(&info.uid);
    }
    if terminal {
        leave(shared, &info.uid);
    } else if !info.node.is_empty() {
        place(shared, info);
    } else if shared.profiles.contains_key(&info.scheduler) && !info.terminating {
        waits(shared, event, info);
    } else {
        shared.queue.remove(&info.uid);
        shared.nominator.remove(&info.uid);
    }
}

/// Most events of a placed pod report its status, which takes nothing from the node.
fn uninteresting(shared: &Shared, event: &Event) -> bool {
    let Event::Modified { old, new } = event else { return false };
    let Some(node) = new.field("spec.nodeName").filter(|node| !node.is_empty()) else { return false };
    if old.generation() != new.generation()
        || new.generation() == 0
        || old.is_deleting() != new.is_deleting()
        || old.labels() != new.labels()
        || matches!(new.field("status.phase"), Some("Succeeded" | "Failed"))
    {
        return false;
    }
    // What a pod was seen to hold grows and shrinks by resizes, which have generations of their own; what it started with doesn't.
    let started = |object: &Object| object.field("status.phase") == Some("Running");
    if started(old) != started(new) || old.field("spec.nodeName") == Some(node) && started(new) && resizing(old, new) {
        return false;
    }
    shared.cache.lock().confirm(new.uid(), node) && {
        shared.queue.remove(new.uid());
        shared.nominator.remove(new.uid());
        true
    }
}

/// Whether the pod's status tells of a resize or of an end that others wait for: rare, so any doubt counts.
fn resizing(old: &Object, new: &Object) -> bool {
    let mentions = |object: &Object, word: &[u8]| object.body().windows(word.len()).any(|window| window == word);
    let words: [&[u8]; 2] = [b"PodResize", b"PreemptionByScheduler"];
    words.iter().any(|word| mentions(old, word) || mentions(new, word))
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
fn waits(shared: &Shared, event: &Event, info: Arc<PodInfo>) {
    if shared.cache.lock().placed(&info.uid).is_some() {
        // Assumed: the binding is under way.
        return;
    }
    if let Event::Modified { .. } = event {
        shared.nominator.refresh(&info);
    } else if !info.nominated.is_empty() {
        shared.nominator.set(info.clone(), &info.nominated.clone());
    }
    shared.queue.put(info);
}

/// The pod takes nothing from its node any more.
fn leave(shared: &Shared, uid: &str) {
    let gone = shared.cache.lock().remove(uid);
    if let Some(pod) = gone {
        shared.queue.wake(&ClusterEvent::Pod(Change::removed(pod)));
    }
}
