//! From what the API tells to the cache, the cluster's copies and the queue.

mod pods;

use std::sync::Arc;

use apimachinery::{Object, ObjectKey};
use client::{Resource, TaskGuard, resources};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::Shared;
use crate::cluster::{self, Cluster, Kept, LabelMap, Store, view};
use crate::framework::{Change, ClusterEvent};
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
        pods::subscribe(shared).await,
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
