//! Typed copies of what plugins look up besides nodes and pods: claims, volumes, classes, namespaces, budgets.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apimachinery::{Object, ObjectKey, Selector};
use client::Resource;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};
use parking_lot::RwLock;

use crate::plugins::dynamic_resources::Devices;
use crate::storage::{Claim, Volume};

pub(crate) const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");
pub(crate) const CSI_NODES: Resource = Resource::cluster("storage.k8s.io", "v1", "csinodes");
pub(crate) const CSI_DRIVERS: Resource = Resource::cluster("storage.k8s.io", "v1", "csidrivers");
pub(crate) const CSI_CAPACITIES: Resource = Resource::namespaced("storage.k8s.io", "v1", "csistoragecapacities");
pub(crate) const ATTACHMENTS: Resource = Resource::cluster("storage.k8s.io", "v1", "volumeattachments");
pub(crate) const RESOURCE_CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");
pub(crate) const DEVICE_CLASSES: Resource = Resource::cluster("resource.k8s.io", "v1", "deviceclasses");
pub(crate) const RESOURCE_SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");

/// Objects of one kind as plugins need them, each with its revision; some in a state that is about to be written.
pub struct Store<T> {
    items: RwLock<HashMap<ObjectKey, Item<T>>>,
    /// Counts what the API told.
    version: AtomicU64,
}

struct Item<T> {
    seen: Arc<T>,
    revision: u64,
    /// 0 where nobody counts.
    generation: i64,
    /// Holds until a newer state is seen.
    assumed: Option<Arc<T>>,
}

impl<T> Default for Store<T> {
    fn default() -> Store<T> {
        Store { items: RwLock::default(), version: AtomicU64::new(1) }
    }
}

impl<T> Store<T> {
    /// The object, as assumed if it is.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<T>> {
        let items = self.items.read();
        let item = items.get(key)?;
        Some(item.assumed.as_ref().unwrap_or(&item.seen).clone())
    }

    /// The object as the API tells it, with its revision.
    pub fn seen(&self, key: &ObjectKey) -> Option<(Arc<T>, u64)> {
        let items = self.items.read();
        items.get(key).map(|item| (item.seen.clone(), item.revision))
    }

    /// All that `keep` keeps, by key.
    pub fn list(&self, keep: impl Fn(&ObjectKey, &T) -> bool) -> Vec<Arc<T>> {
        let items = self.items.read();
        let all = items.iter().map(|(key, item)| (key, item.assumed.as_ref().unwrap_or(&item.seen)));
        let mut found: Vec<_> = all.filter(|(key, item)| keep(key, item)).collect();
        found.sort_unstable_by_key(|(key, _)| *key);
        found.into_iter().map(|(_, item)| item.clone()).collect()
    }

    /// The names of those that `keep` keeps.
    pub fn names(&self, keep: impl Fn(&T) -> bool) -> Vec<String> {
        let items = self.items.read();
        let all = items.iter().map(|(key, item)| (key, item.assumed.as_ref().unwrap_or(&item.seen)));
        all.filter(|(_, item)| keep(item)).map(|(key, _)| key.name.clone()).collect()
    }

    /// Changes with everything that is taken in.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes in what the API tells; returns what it told before.
    pub fn set(&self, key: ObjectKey, value: Arc<T>, revision: u64) -> Option<Arc<T>> {
        self.set_generation(key, value, revision, 0)
    }

    /// Like [`Store::set`], and remembers the generation.
    pub fn set_generation(&self, key: ObjectKey, value: Arc<T>, revision: u64, generation: i64) -> Option<Arc<T>> {
        self.version.fetch_add(1, Ordering::AcqRel);
        let item = Item { seen: value, revision, generation, assumed: None };
        self.items.write().insert(key, item).map(|old| old.seen)
    }

    /// Whether the object is known at this generation already.
    pub fn has_generation(&self, key: &ObjectKey, generation: i64) -> bool {
        generation > 0 && self.items.read().get(key).is_some_and(|item| item.generation == generation)
    }

    pub fn keys(&self) -> Vec<ObjectKey> {
        self.items.read().keys().cloned().collect()
    }

    pub fn remove(&self, key: &ObjectKey) -> Option<Arc<T>> {
        self.version.fetch_add(1, Ordering::AcqRel);
        self.items.write().remove(key).map(|item| item.seen)
    }

    /// Takes `value` for the object's state, if nothing newer than `base` was seen. False: something was.
    pub fn assume(&self, key: &ObjectKey, base: &Arc<T>, value: Arc<T>) -> bool {
        match self.items.write().get_mut(key) {
            Some(item) if Arc::ptr_eq(item.assumed.as_ref().unwrap_or(&item.seen), base) => {
                item.assumed = Some(value);
                true
            }
            _ => false,
        }
    }

    /// Takes back what was assumed.
    pub fn restore(&self, key: &ObjectKey) {
        if let Some(item) = self.items.write().get_mut(key) {
            item.assumed = None;
        }
    }
}

/// Everything that plugins look up.
#[derive(Default)]
pub struct Cluster {
    pub claims: Store<Claim>,
    pub volumes: Store<Volume>,
    pub classes: Store<StorageClass>,
    pub csi_nodes: Store<CSINode>,
    pub csi_drivers: Store<CSIDriver>,
    pub csi_capacities: Store<CSIStorageCapacity>,
    pub attachments: Store<VolumeAttachment>,
    pub budgets: Store<Budget>,
    pub resource_claims: Store<ResourceClaim>,
    pub device_classes: Store<DeviceClass>,
    pub slices: Store<ResourceSlice>,
    /// Which devices claims have.
    pub devices: Devices,
    /// Labels of namespaces.
    pub namespaces: Store<BTreeMap<String, String>>,
    /// Selectors of Services that have one.
    pub services: Store<BTreeMap<String, String>>,
    /// Selectors of the controllers whose pods are spread, by kind.
    pub replication_controllers: Store<BTreeMap<String, String>>,
    pub replica_sets: Store<Selector>,
    pub stateful_sets: Store<Selector>,
}

impl Cluster {
    /// Takes in a claim's state, unless a newer one is known; returns the one before and the one taken in.
    pub fn follow_claim(&self, key: &ObjectKey, claim: Option<Arc<ResourceClaim>>, revision: u64) -> Followed {
        if self.resource_claims.seen(key).is_some_and(|(_, known)| known > revision) {
            return (None, None);
        }
        self.devices.follow(key, claim.as_deref());
        match claim {
            Some(claim) => (self.resource_claims.set(key.clone(), claim.clone(), revision), Some(claim)),
            None => (self.resource_claims.remove(key), None),
        }
    }

    /// The labels of a namespace; none if it isn't known.
    pub fn namespace_labels(&self, name: &str) -> Arc<BTreeMap<String, String>> {
        self.namespaces.get(&ObjectKey::cluster(name)).unwrap_or_default()
    }
}

/// A claim's states before and after.
pub type Followed = (Option<Arc<ResourceClaim>>, Option<Arc<ResourceClaim>>);

/// A PodDisruptionBudget, as far as preemption looks at it.
pub struct Budget {
    pub namespace: String,
    pub selector: Selector,
    pub allowed: i32,
    /// Pods whose eviction is counted already.
    pub disrupted: Vec<String>,
}

/// What a store keeps of an object.
pub(crate) trait Kept: Sized + Send + Sync + 'static {
    fn read(object: &Object) -> Option<Self>;
}

/// Decodes, and tells the log of what is no such object.
pub(crate) fn view<T: for<'de> k8s_openapi::serde::Deserialize<'de>>(object: &Object) -> Option<T> {
    object
        .view()
        .inspect_err(|error| tracing::error!(?object, %error, "the API server sent what is no such object"))
        .ok()
}

macro_rules! kept_whole {
    ($($kind:ty),*) => {
        $(impl Kept for $kind {
            fn read(object: &Object) -> Option<Self> {
                view(object)
            }
        })*
    };
}

kept_whole!(
    StorageClass,
    CSINode,
    CSIDriver,
    CSIStorageCapacity,
    VolumeAttachment,
    ResourceClaim,
    DeviceClass,
    ResourceSlice
);

impl Kept for Budget {
    fn read(object: &Object) -> Option<Budget> {
        let budget: PodDisruptionBudget = view(object)?;
        let status = budget.status.unwrap_or_default();
        Some(Budget {
            namespace: object.namespace().to_owned(),
            selector: rules::label_selector(budget.spec.as_ref().and_then(|spec| spec.selector.as_ref())),
            allowed: status.disruptions_allowed,
            disrupted: status.disrupted_pods.into_iter().flatten().map(|(name, _)| name).collect(),
        })
    }
}

/// The labels of a namespace, or the plain selector of a Service or ReplicationController.
pub(crate) struct LabelMap;

impl LabelMap {
    pub fn labels(object: &Object) -> Option<BTreeMap<String, String>> {
        Some(object.labels().iter().cloned().collect())
    }

    pub fn selector(object: &Object) -> Option<BTreeMap<String, String>> {
        let value = object.to_value();
        let selector = value.at(&["spec", "selector"])?.as_object()?;
        Some(selector.iter().filter_map(|(key, value)| Some((key.to_owned(), value.as_str()?.to_owned()))).collect())
    }
}

/// The `LabelSelector` in `spec.selector`.
pub(crate) fn set_selector(object: &Object) -> Option<Selector> {
    Selector::from_label_selector(object.to_value().at(&["spec", "selector"])).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_assumed_holds_until_something_newer_is_seen() {
        let store = Store::default();
        let key = ObjectKey::cluster("a");
        store.set(key.clone(), Arc::new(1), 10);
        let base = store.get(&key).unwrap();
        assert!(store.assume(&key, &base, Arc::new(2)));
        assert_eq!((*store.get(&key).unwrap(), *store.seen(&key).unwrap().0), (2, 1));
        assert!(!store.assume(&key, &base, Arc::new(3)));
        store.restore(&key);
        assert_eq!(*store.get(&key).unwrap(), 1);
        let base = store.get(&key).unwrap();
        store.assume(&key, &base, Arc::new(4));
        store.set(key.clone(), Arc::new(5), 11);
        assert_eq!(*store.get(&key).unwrap(), 5);
        assert_eq!(store.list(|_, value| *value > 4).len(), 1);
    }
}
