//! From what the API tells to the cache, the cluster's copies and the queue.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey};
use client::{Resource, TaskGuard, resources};
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::Shared;
use crate::cluster::{self, Cluster, Kept, LabelMap, Store, view};
use crate::framework::{Change, ClusterEvent};
use crate::pod::PodInfo;
use crate::source::{Reader, There, follow};

/// Begins to follow everything; returns when all there is is known. Pods come last: what they ask for is known then.
pub(crate) async fn subscribe(shared: &Arc<Shared>) -> Vec<TaskGuard> {
    use ClusterEvent as E;
    vec![
        keep(shared, &resources::PERSISTENT_VOLUME_CLAIMS, |c| &c.claims, E::Claim).await,
        keep(shared, &resources::PERSISTENT_VOLUMES, |c| &c.volumes, E::Volume).await,
        keep(shared, &cluster::STORAGE_CLASSES, |c| &c.classes, E::Class).await,
        keep(shared, &cluster::CSI_NODES, |c| &c.csi_nodes, E::CsiNode).await,
        keep(shared, &cluster::CSI_DRIVERS, |c| &c.csi_drivers, E::CsiDriver).await,
        keep(shared, &cluster::CSI_CAPACITIES, |c| &c.csi_capacities, E::Capacity).await,
        keep(shared, &cluster::ATTACHMENTS, |c| &c.attachments, E::Attachment).await,
        keep(shared, &cluster::DEVICE_CLASSES, |c| &c.device_classes, E::DeviceClass).await,
        keep(shared, &cluster::RESOURCE_SLICES, |c| &c.slices, E::ResourceSlice).await,
        follow(&shared.reader, &cluster::RESOURCE_CLAIMS, ResourceClaims(shared.clone())).await,
        keep_quietly(shared, &resources::POD_DISRUPTION_BUDGETS, |c| &c.budgets, Kept::read).await,
        keep_quietly(shared, &resources::NAMESPACES, |c| &c.namespaces, LabelMap::labels).await,
        keep_quietly(shared, &resources::SERVICES, |c| &c.services, LabelMap::selector).await,
        keep_quietly(shared, &resources::REPLICATION_CONTROLLERS, |c| &c.replication_controllers, LabelMap::selector)
            .await,
        keep_quietly(shared, &resources::REPLICA_SETS, |c| &c.replica_sets, cluster::set_selector).await,
        keep_quietly(shared, &resources::STATEFUL_SETS, |c| &c.stateful_sets, cluster::set_selector).await,
        follow(&shared.reader, &resources::NODES, Nodes(shared.clone())).await,
        follow(&shared.reader, &resources::PODS, Pods(shared.clone())).await,
    ]
}

/// Follows a resource whose changes may help waiting pods.
async fn keep<T: Kept>(
    shared: &Arc<Shared>,
    resource: &Resource,
    store: fn(&Cluster) -> &Store<T>,
    event: fn(Change<T>) -> ClusterEvent,
) -> TaskGuard {
    let keeper = Keeper { shared: shared.clone(), store, read: T::read, event: Some(event) };
    follow(&shared.reader, resource, keeper).await
}

/// Follows a resource that is looked up only.
async fn keep_quietly<T: Send + Sync + 'static>(
    shared: &Arc<Shared>,
    resource: &Resource,
    store: fn(&Cluster) -> &Store<T>,
    read: fn(&Object) -> Option<T>,
) -> TaskGuard {
    follow(&shared.reader, resource, Keeper { shared: shared.clone(), store, read, event: None }).await
}

/// Keeps what `read` makes of objects.
struct Keeper<T: 'static> {
    shared: Arc<Shared>,
    store: fn(&Cluster) -> &Store<T>,
    read: fn(&Object) -> Option<T>,
    /// What waiting pods are told.
    event: Option<fn(Change<T>) -> ClusterEvent>,
}

impl<T> Keeper<T> {
    fn store(&self) -> &Store<T> {
        (self.store)(&self.shared.cluster)
    }

    fn tell(&self, old: Option<Arc<T>>, new: Option<Arc<T>>) {
        let Some(event) = self.event else { return };
        self.shared.changes.tell();
        if old.is_some() || new.is_some() {
            self.shared.queue.wake(&event(Change { old, new }));
        }
    }
}

impl<T: Send + Sync + 'static> Reader for Keeper<T> {
    fn take(&self, object: &Object) {
        let (key, generation) = (object.key(), object.generation());
        // A status says nothing that is looked up, except a budget's, whose generation isn't enough.
        let quiet = self.event.is_none() && object.kind() != "PodDisruptionBudget";
        if quiet && self.store().has_generation(key, generation) {
            return;
        }
        match (self.read)(object).map(Arc::new) {
            Some(new) => {
                let old = self.store().set_generation(key.clone(), new.clone(), object.revision(), generation);
                self.tell(old, Some(new));
            }
            None => self.tell(self.store().remove(key), None),
        }
    }

    fn gone(&self, object: &Object) {
        self.tell(self.store().remove(object.key()), None);
    }

    fn sweep(&self, there: &There) {
        for key in self.store().keys().iter().filter(|key| !there.has(key)) {
            self.tell(self.store().remove(key), None);
        }
    }
}

/// Follows resource claims, of which the scheduler's own writes are known before their events come.
struct ResourceClaims(Arc<Shared>);

impl ResourceClaims {
    fn follow(&self, object: &Object, new: Option<Arc<ResourceClaim>>) {
        let (old, new) = self.0.cluster.follow_claim(object.key(), new, object.revision());
        self.tell(old, new);
    }

    fn tell(&self, old: Option<Arc<ResourceClaim>>, new: Option<Arc<ResourceClaim>>) {
        if old.is_some() || new.is_some() {
            self.0.queue.wake(&ClusterEvent::ResourceClaim(Change { old, new }));
        }
    }
}

impl Reader for ResourceClaims {
    fn take(&self, object: &Object) {
        self.follow(object, view(object).map(Arc::new));
    }

    fn gone(&self, object: &Object) {
        self.follow(object, None);
    }

    fn sweep(&self, there: &There) {
        for key in self.0.cluster.resource_claims.keys().iter().filter(|key| !there.has(key)) {
            let (old, new) = self.0.cluster.follow_claim(key, None, u64::MAX);
            self.tell(old, new);
        }
    }
}

struct Nodes(Arc<Shared>);

impl Nodes {
    fn leave(&self, name: &str) {
        let gone = self.0.cache.lock().remove_node(name);
        if let Some(gone) = gone {
            self.0.queue.wake(&ClusterEvent::Node(Change::removed(gone)));
        }
    }
}

impl Reader for Nodes {
    fn take(&self, object: &Object) {
        let Some(node) = view::<Node>(object) else { return };
        let (old, new) = self.0.cache.lock().set_node(node);
        // Heartbeats change conditions and images only; no plugin rejects pods for these.
        if old.as_ref().is_some_and(|old| old.same_for_pods(&new)) {
            return;
        }
        self.0.queue.wake(&ClusterEvent::Node(Change { old, new: Some(new) }));
    }

    fn gone(&self, object: &Object) {
        self.leave(object.name());
    }

    fn sweep(&self, there: &There) {
        let known: Vec<_> = self.0.cache.lock().node_names().cloned().collect();
        known.iter().filter(|name| !there.has(&ObjectKey::cluster(&***name))).for_each(|name| self.leave(name));
    }
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
    if uninteresting(shared, object) {
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

/// Most events of a placed pod report its status, which takes nothing from the node.
fn uninteresting(shared: &Shared, new: &Object) -> bool {
    let phase = new.field("status.phase");
    let Some(node) = new.field("spec.nodeName").filter(|node| !node.is_empty()) else { return false };
    if shared.whole || new.generation() == 0 || matches!(phase, Some("Succeeded" | "Failed")) {
        return false;
    }
    let mut cache = shared.cache.lock();
    let Some(old) = cache.pod(new.uid()) else { return false };
    let labels = new.labels().iter().map(|(key, value)| (key, value));
    if old.generation != new.generation() || old.terminating != new.is_deleting() || !old.labels.iter().eq(labels) {
        return false;
    }
    // What a pod was seen to hold grows and shrinks by resizes, which have generations of their own; what it started with doesn't.
    let running = phase == Some("Running");
    if old.running != running || old.node == node && running && (old.stirring || stirring(new)) {
        return false;
    }
    cache.confirm(new.uid(), node) && {
        drop(cache);
        shared.queue.remove(new.uid());
        shared.nominator.remove(new.uid());
        true
    }
}

/// Whether the pod's status tells of a resize or of an end that others wait for: rare, so any doubt counts.
fn stirring(pod: &Object) -> bool {
    let words: [&[u8]; 2] = [b"PodResize", b"PreemptionByScheduler"];
    words.iter().any(|word| pod.body().windows(word.len()).any(|window| window == *word))
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
