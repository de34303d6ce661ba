//! What becomes of one object. Upstream: attemptToDeleteItem, attemptToOrphanWorker.

use std::sync::Arc;

use apimachinery::{Object, OwnerReference, Value};
use client::{Client, DeleteOptions, Error, PatchKind, Propagation, Resource};

use super::{Collector, FOREGROUND, Item, ORPHAN, has_finalizer, item_of};
use crate::meta::metadata;

/// How many absent owners are remembered: a uid never comes back. As upstream's cache.
const ABSENT: usize = 500;

/// Why an object cannot be judged yet.
#[derive(Debug, thiserror::Error)]
pub(super) enum CollectError {
    #[error("request failed")]
    Request(#[from] Error),
    #[error("the owner's kind {kind} of {api_version} is not served")]
    UnknownKind { api_version: String, kind: String },
    /// Nobody can say by whom it is owned, and trying again does not help.
    #[error("an object of the cluster names an owner in a namespace")]
    OwnerInNamespace,
}

/// The owners that an object names, by what has become of them.
#[derive(Default)]
struct Owners {
    /// There, and to stay.
    solid: Vec<String>,
    /// Gone.
    gone: Vec<String>,
    /// Being deleted, and waiting for their dependents.
    waiting: Vec<String>,
}

impl Collector {
    pub(super) async fn process(&self, item: &Item) -> Result<(), CollectError> {
        let Some(resource) = self.graph.resource(&item.resource) else { return Ok(()) };
        let known = self.graph.known(item).filter(|known| !known.is_deleting());
        if known.as_ref().is_some_and(|known| self.is_well_owned(known)) {
            return Ok(());
        }
        // Every write below holds at the judged revision only: a copy that is behind costs a refusal, after which the server is asked.
        let live = match known.filter(|_| self.queue.failures(item) == 0) {
            Some(known) => Some(known),
            None => self.client.find(&resource, &item.key).await?.filter(|live| live.uid() == item.uid),
        };
        let Some(live) = live else {
            // It never was, or is gone: whoever names it finds that out.
            self.graph.dependents(&item.uid).into_iter().for_each(|item| self.queue.add(item));
            return Ok(());
        };
        if live.is_deleting() {
            if has_finalizer(&live, ORPHAN) {
                return self.orphan_dependents(&resource, &live).await;
            }
            if has_finalizer(&live, FOREGROUND) {
                return self.wait_for_dependents(&resource, &live).await;
            }
            return Ok(());
        }
        if live.owners().is_empty() {
            return Ok(());
        }
        let owners = self.classify(&live).await?;
        if !owners.solid.is_empty() {
            let lost: Vec<&String> = owners.gone.iter().chain(&owners.waiting).collect();
            return match lost.is_empty() {
                true => Ok(()),
                false => Ok(remove_owners(&self.client, &resource, &live, &lost).await?),
            };
        }
        let has_dependents = !self.graph.dependents(live.uid()).is_empty();
        if !owners.waiting.is_empty() && has_dependents {
            self.break_circle(&resource, &live).await?;
            return Ok(delete(&self.client, &resource, &live, Propagation::Foreground).await?);
        }
        let policy = if has_finalizer(&live, ORPHAN) {
            Propagation::Orphan
        } else if has_finalizer(&live, FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        tracing::debug!(kind = live.kind(), key = %live.key(), ?policy, "deleting, as its owners are gone");
        Ok(delete(&self.client, &resource, &live, policy).await?)
    }

    /// Whether the informers know every owner, and that it stays.
    fn is_well_owned(&self, object: &Object) -> bool {
        object
            .owners()
            .iter()
            .all(|owner| self.graph.owner(object, owner).is_some_and(|(_, owner)| !waits_for_dependents(&owner)))
    }

    async fn classify(&self, object: &Object) -> Result<Owners, CollectError> {
        let mut owners = Owners::default();
        for owner in object.owners() {
            let uid = owner.uid.clone();
            match self.find_owner(object, owner).await? {
                None => owners.gone.push(uid),
                Some(found) if waits_for_dependents(&found) => owners.waiting.push(uid),
                Some(_) => owners.solid.push(uid),
            }
        }
        Ok(owners)
    }

    async fn find_owner(&self, object: &Object, owner: &OwnerReference) -> Result<Option<Arc<Object>>, CollectError> {
        let Some((resource, item)) = self.graph.place(object, owner) else {
            return Err(CollectError::UnknownKind { api_version: owner.api_version.clone(), kind: owner.kind.clone() });
        };
        if resource.namespaced && object.namespace().is_empty() {
            // A cluster-scoped object cannot be owned like this: nobody can say by whom. It stays.
            let message = format!(
                "ownerRef [{}/{}, namespace: , name: {}, uid: {}] does not exist in namespace \"\"",
                owner.api_version, owner.kind, owner.name, owner.uid
            );
            self.events.warning(object, "OwnerRefInvalidNamespace", message);
            return Err(CollectError::OwnerInNamespace);
        }
        if let Some(known) = self.graph.known(&item) {
            return Ok(Some(known));
        }
        if self.absent.lock().iter().any(|absent| absent.uid == item.uid && *absent == item) {
            return Ok(None);
        }
        let live = self.client.find(&resource, &item.key).await?.filter(|live| live.uid() == owner.uid);
        if live.is_none() {
            let mut absent = self.absent.lock();
            absent.truncate(ABSENT - 1);
            absent.push_front(item);
        }
        Ok(live)
    }

    /// Lets an object go whose deletion waits for its dependents, once none of these holds it any more.
    async fn wait_for_dependents(&self, resource: &Resource, object: &Arc<Object>) -> Result<(), CollectError> {
        let mut blocked = false;
        for (identity, dependent) in self.graph.dependent_objects(object.uid()) {
            let blocks = |owner: &OwnerReference| owner.uid == object.uid() && owner.block_owner_deletion;
            if dependent.owners().iter().any(blocks) {
                blocked = true;
                if !waits_for_dependents(&dependent) {
                    self.queue.add(item_of(&identity, &dependent));
                }
            }
        }
        if blocked {
            return Ok(());
        }
        Ok(remove_finalizer(&self.client, resource, object, FOREGROUND).await?)
    }

    async fn orphan_dependents(&self, resource: &Resource, object: &Arc<Object>) -> Result<(), CollectError> {
        for (identity, dependent) in self.graph.dependent_objects(object.uid()) {
            if let Some(resource) = self.graph.resource(&identity) {
                let uid = object.uid().to_owned();
                remove_owners(&self.client, &resource, &dependent, &[&uid]).await?;
            }
        }
        Ok(remove_finalizer(&self.client, resource, object, ORPHAN).await?)
    }

    /// Where a dependent also waits for its dependents, each may wait for the other: this one lets its owners go.
    async fn break_circle(&self, resource: &Resource, object: &Arc<Object>) -> Result<(), Error> {
        let dependents = self.graph.dependent_objects(object.uid());
        if !dependents.iter().any(|(_, dependent)| waits_for_dependents(dependent)) {
            return Ok(());
        }
        let mut references = metadata(object).items_at(&["ownerReferences"]).to_vec();
        for reference in &mut references {
            reference.set(&["blockOwnerDeletion"], false);
        }
        patch_metadata(&self.client, resource, object, "ownerReferences", references).await
    }
}

/// Whether the object is being deleted after its dependents.
fn waits_for_dependents(object: &Object) -> bool {
    object.is_deleting() && has_finalizer(object, FOREGROUND)
}

async fn delete(client: &Client, resource: &Resource, object: &Object, propagation: Propagation) -> Result<(), Error> {
    let mut options = DeleteOptions::uid(object.uid()).propagation(propagation);
    // What was judged is what is deleted.
    options.revision = Some(object.revision());
    match client.delete(resource, object.key(), &options).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

async fn remove_owners(client: &Client, resource: &Resource, object: &Object, uids: &[&String]) -> Result<(), Error> {
    let mut references = metadata(object).items_at(&["ownerReferences"]).to_vec();
    references.retain(|reference| !uids.iter().any(|uid| reference.str_at(&["uid"]) == Some(uid)));
    patch_metadata(client, resource, object, "ownerReferences", references).await
}

async fn remove_finalizer(client: &Client, resource: &Resource, object: &Object, name: &str) -> Result<(), Error> {
    let mut finalizers = metadata(object).items_at(&["finalizers"]).to_vec();
    finalizers.retain(|finalizer| finalizer.as_str() != Some(name));
    patch_metadata(client, resource, object, "finalizers", finalizers).await
}

/// Replaces a list in the object's metadata, if the object is still as it was.
async fn patch_metadata(
    client: &Client,
    resource: &Resource,
    object: &Object,
    field: &str,
    list: Vec<Value>,
) -> Result<(), Error> {
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], object.uid());
    patch.set(&["metadata", "resourceVersion"], object.revision().to_string());
    patch.set(&["metadata", field], if list.is_empty() { Value::Null } else { Value::Array(list) });
    match client.patch(resource, object.key(), PatchKind::Merge, &patch).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}
