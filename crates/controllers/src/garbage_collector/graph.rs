//! Who owns whom, as the informers have it.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, OwnerReference};
use client::{ApiResource, Informer, Resource};
use parking_lot::RwLock;

use super::{Item, identity, item_of};

const OWNER_INDEX: &str = "owner";

/// The informers of all followed resources.
#[derive(Default)]
pub(super) struct Graph(RwLock<BTreeMap<(String, String), Node>>);

#[derive(Clone)]
struct Node {
    resource: Resource,
    kind: String,
    informer: Informer,
}

impl Graph {
    pub(super) fn add(&self, api: &ApiResource, informer: &Informer) {
        informer.index(OWNER_INDEX, |object| {
            let mut uids: Vec<String> = object.owners().iter().map(|owner| owner.uid.clone()).collect();
            uids.sort();
            uids.dedup();
            uids
        });
        let node = Node { resource: api.resource.clone(), kind: api.kind.clone(), informer: informer.clone() };
        self.0.write().insert(identity(api), node);
    }

    pub(super) fn retain(&self, keep: impl Fn(&(String, String)) -> bool) {
        self.0.write().retain(|identity, _| keep(identity));
    }

    pub(super) async fn synced(&self) {
        let informers: Vec<Informer> = self.0.read().values().map(|node| node.informer.clone()).collect();
        for informer in informers {
            informer.synced().await;
        }
    }

    pub(super) fn resource(&self, identity: &(String, String)) -> Option<Resource> {
        self.0.read().get(identity).map(|node| node.resource.clone())
    }

    /// The object as its informer has it.
    pub(super) fn known(&self, item: &Item) -> Option<Arc<Object>> {
        let nodes = self.0.read();
        nodes.get(&item.resource)?.informer.get(&item.key).filter(|object| object.uid() == item.uid)
    }

    /// The objects that name `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Item> {
        self.dependent_objects(uid).iter().map(|(identity, object)| item_of(identity, object)).collect()
    }

    pub(super) fn dependent_objects(&self, uid: &str) -> Vec<((String, String), Arc<Object>)> {
        let nodes = self.0.read();
        let of_node = |(identity, node): (&(String, String), &Node)| {
            let objects = node.informer.by_index(OWNER_INDEX, uid);
            let identity = identity.clone();
            objects.into_iter().map(move |object| (identity.clone(), object))
        };
        nodes.iter().flat_map(of_node).collect()
    }

    /// Where the owner of `dependent` is to be found; `None` if its kind is not followed.
    pub(super) fn place(&self, dependent: &Object, owner: &OwnerReference) -> Option<(Resource, Item)> {
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        let nodes = self.0.read();
        let (identity, node) = nodes.iter().find(|((_, g), node)| g == group && node.kind == owner.kind)?;
        let namespace = if node.resource.namespaced { dependent.namespace() } else { "" };
        let key = ObjectKey::new(namespace, &*owner.name);
        Some((node.resource.clone(), Item { resource: identity.clone(), key, uid: owner.uid.clone() }))
    }

    /// The owner as its informer has it.
    pub(super) fn owner(&self, dependent: &Object, owner: &OwnerReference) -> Option<(Item, Arc<Object>)> {
        let (_, item) = self.place(dependent, owner)?;
        let object = self.known(&item)?;
        Some((item, object))
    }
}
