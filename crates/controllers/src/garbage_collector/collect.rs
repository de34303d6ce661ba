//! What becomes of one object. Upstream: attemptToDeleteItem, attemptToOrphanWorker.

use std::sync::Arc;

use apimachinery::{Object, OwnerReference, Value};
use client::{
    Client, DeleteOptions, Error, EventType, IgnoreNotFound, ObjectReference, PatchKind, Propagation, Resource,
};
use futures_util::{StreamExt, stream};

use super::{Collector, FOREGROUND, Item, Node, ORPHAN, WORKERS};
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
    /// Nobody tells when it goes: it is asked for now and then.
    #[error("the owner is there, but its kind cannot be watched")]
    Unwatched,
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
    /// Whether one of them is of a kind that nobody tells of.
    unwatched: bool,
}

/// What is to become of an object that is not being deleted yet.
enum Verdict {
    Stays,
    /// It stays as long as an owner does that has to be asked for.
    StaysUnwatched,
    /// It stays, without the owners of these uids.
    LosesOwners(Vec<String>),
    /// It goes after its dependents, which may wait for it in turn.
    GoesAfterDependents,
    Goes(Propagation),
}

impl Collector {
    pub(super) async fn process(&self, item: &Arc<Item>) -> Result<(), CollectError> {
        let Some(resource) = self.graph.resource(&item.resource) else { return Ok(()) };
        // A deletion holds for what was judged only: knowledge that is behind costs a refusal, after which the server is asked.
        let known = self.graph.known(item);
        if known.as_ref().is_some_and(|known| known.deleting && !known.orphan && !known.foreground) {
            // It goes without waiting for anything that is done here.
            return Ok(());
        }
        if let Some(known) = known.filter(|known| !known.deleting) {
            if self.is_well_owned(&known) {
                return Ok(());
            }
            if self.queue.failures(item) == 0 {
                match self.judge(&known).await? {
                    Verdict::Stays => return Ok(()),
                    Verdict::StaysUnwatched => return Err(CollectError::Unwatched),
                    Verdict::Goes(propagation) => return self.delete(&resource, &known, propagation).await,
                    // What is to be edited is the server's.
                    Verdict::LosesOwners(_) | Verdict::GoesAfterDependents => {}
                }
            }
        }
        let live = self.client.find(&resource, &item.key).await?.filter(|live| live.uid() == item.uid);
        let Some(live) = live else {
            // It never was, or is gone: whoever names it finds that out.
            self.graph.dependents(&item.uid).iter().for_each(|node| self.queue.add(node.item.clone()));
            return Ok(());
        };
        let node = Node::of(item.clone(), &live);
        if node.deleting {
            return match (node.orphan, node.foreground) {
                (true, _) => self.orphan_dependents(&resource, &live).await,
                (_, true) => self.wait_for_dependents(&resource, &live).await,
                _ => Ok(()),
            };
        }
        match self.judge(&node).await? {
            Verdict::Stays => Ok(()),
            Verdict::StaysUnwatched => Err(CollectError::Unwatched),
            Verdict::LosesOwners(uids) => Ok(remove_owners(&self.client, &resource, &live, &uids).await?),
            Verdict::GoesAfterDependents => {
                self.break_circle(&resource, &live).await?;
                self.delete(&resource, &node, Propagation::Foreground).await
            }
            Verdict::Goes(propagation) => self.delete(&resource, &node, propagation).await,
        }
    }

    /// Whether the graph knows every owner, and that it stays.
    pub(super) fn is_well_owned(&self, node: &Node) -> bool {
        node.owners.iter().all(|owner| self.graph.owner(node, owner).is_some_and(|owner| !owner.waits_for_dependents()))
    }

    async fn judge(&self, node: &Node) -> Result<Verdict, CollectError> {
        if node.owners.is_empty() {
            return Ok(Verdict::Stays);
        }
        let owners = self.classify(node).await?;
        if !owners.solid.is_empty() {
            let lost = [owners.gone, owners.waiting].concat();
            return Ok(match (lost.is_empty(), owners.unwatched) {
                (false, _) => Verdict::LosesOwners(lost),
                (true, false) => Verdict::Stays,
                (true, true) => Verdict::StaysUnwatched,
            });
        }
        if !owners.waiting.is_empty() && !self.graph.dependents(&node.item.uid).is_empty() {
            return Ok(Verdict::GoesAfterDependents);
        }
        Ok(Verdict::Goes(match (node.orphan, node.foreground) {
            (true, _) => Propagation::Orphan,
            (_, true) => Propagation::Foreground,
            _ => Propagation::Background,
        }))
    }

    async fn classify(&self, node: &Node) -> Result<Owners, CollectError> {
        let mut owners = Owners::default();
        for owner in &node.owners {
            let uid = owner.uid.clone();
            match self.find_owner(node, owner).await? {
                None => owners.gone.push(uid),
                Some(found) if found.waits_for_dependents() => owners.waiting.push(uid),
                Some(found) => {
                    owners.unwatched |= !self.graph.is_followed(&found.item.resource);
                    owners.solid.push(uid);
                }
            }
        }
        Ok(owners)
    }

    async fn find_owner(&self, node: &Node, owner: &OwnerReference) -> Result<Option<Arc<Node>>, CollectError> {
        let Some((resource, item)) = self.graph.place(node, owner) else {
            return Err(CollectError::UnknownKind { api_version: owner.api_version.clone(), kind: owner.kind.clone() });
        };
        if resource.namespaced && node.item.key.namespace.is_empty() {
            // A cluster-scoped object cannot be owned like this: nobody can say by whom. It stays.
            return Err(CollectError::OwnerInNamespace);
        }
        if let Some(known) = self.graph.known(&item) {
            return Ok(Some(known));
        }
        if self.absent.lock().iter().any(|absent| absent.uid == item.uid && *absent == item) {
            return Ok(None);
        }
        let live = self.client.find(&resource, &item.key).await?.filter(|live| live.uid() == owner.uid);
        let Some(live) = live else {
            let mut absent = self.absent.lock();
            absent.truncate(ABSENT - 1);
            absent.push_front(item);
            return Ok(None);
        };
        Ok(Some(Arc::new(Node::of(Arc::new(item), &live))))
    }

    /// Tells that the owner lives in another namespace, where it owns nothing of this one.
    pub(super) fn tell_abroad(&self, dependent: &Node, owner: &OwnerReference) {
        let namespace = &dependent.item.key.namespace;
        let message = format!(
            "ownerRef [{}/{}, namespace: {namespace}, name: {}, uid: {}] does not exist in namespace {namespace:?}",
            owner.api_version, owner.kind, owner.name, owner.uid
        );
        self.events.event(self.reference(dependent), EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    fn reference(&self, node: &Node) -> ObjectReference {
        let (resource, kind) = self.graph.kind(&node.item.resource).unzip();
        ObjectReference {
            api_version: resource.map(|resource| resource.group_version().to_string()).unwrap_or_default(),
            kind: kind.unwrap_or_default(),
            namespace: node.item.key.namespace.clone(),
            name: node.item.key.name.clone(),
            uid: node.item.uid.clone(),
            ..ObjectReference::default()
        }
    }

    /// Lets an object go whose deletion waits for its dependents, once none of these holds it any more.
    async fn wait_for_dependents(&self, resource: &Resource, object: &Object) -> Result<(), CollectError> {
        let mut blocked = false;
        for dependent in self.graph.dependents(object.uid()) {
            if dependent.owners.iter().any(|owner| owner.uid == object.uid() && owner.block_owner_deletion) {
                blocked = true;
                if !dependent.waits_for_dependents() {
                    self.queue.add(dependent.item.clone());
                }
            }
        }
        if blocked {
            return Ok(());
        }
        Ok(remove_finalizer(&self.client, resource, object, FOREGROUND).await?)
    }

    async fn orphan_dependents(&self, resource: &Resource, object: &Object) -> Result<(), CollectError> {
        let uids = [object.uid().to_owned()];
        let orphan = |dependent: Arc<Node>| {
            let uids = &uids;
            async move {
                let item = &dependent.item;
                let Some(resource) = self.graph.resource(&item.resource) else { return Ok(()) };
                match self.client.find(&resource, &item.key).await?.filter(|live| live.uid() == item.uid) {
                    Some(live) => remove_owners(&self.client, &resource, &live, uids).await,
                    None => Ok(()),
                }
            }
        };
        let dependents = stream::iter(self.graph.dependents(object.uid()).into_iter().map(orphan));
        // One that can't be let go keeps none of the others.
        let results: Vec<Result<(), Error>> = dependents.buffer_unordered(WORKERS).collect().await;
        results.into_iter().collect::<Result<(), _>>()?;
        Ok(remove_finalizer(&self.client, resource, object, ORPHAN).await?)
    }

    /// Where a dependent also waits for its dependents, each may wait for the other: this one lets its owners go.
    async fn break_circle(&self, resource: &Resource, object: &Object) -> Result<(), Error> {
        if !self.graph.dependents(object.uid()).iter().any(|dependent| dependent.waits_for_dependents()) {
            return Ok(());
        }
        let mut references = metadata(object).items_at(&["ownerReferences"]).to_vec();
        let blocks = |reference: &Value| reference.bool_at(&["blockOwnerDeletion"]) == Some(true);
        for reference in references.iter_mut().filter(|reference| blocks(reference)) {
            reference.set(&["blockOwnerDeletion"], false);
        }
        patch_metadata(&self.client, resource, object, "ownerReferences", references).await
    }

    async fn delete(&self, resource: &Resource, node: &Node, propagation: Propagation) -> Result<(), CollectError> {
        tracing::debug!(resource = %resource.group_resource(), key = %node.item.key, ?propagation, "deleting, as its owners are gone");
        let mut options = DeleteOptions::uid(&*node.item.uid).propagation(propagation);
        // What was judged is what is deleted.
        options.revision = Some(node.revision());
        match self.client.delete(resource, &node.item.key, &options).await {
            Err(error) if error.is_conflict() => {
                let live = self.client.find(resource, &node.item.key).await?.filter(|live| live.uid() == node.item.uid);
                let Some(live) = live else { return Ok(()) };
                if live.revision() == node.revision() || !node.is_judged_as(&live) {
                    return Err(error.into());
                }
                // What changes all the time goes all the same.
                options.revision = None;
                Ok(self.client.delete(resource, &node.item.key, &options).await.ignore_not_found()?)
            }
            result => Ok(result.ignore_not_found()?),
        }
    }
}

async fn remove_owners(client: &Client, resource: &Resource, object: &Object, uids: &[String]) -> Result<(), Error> {
    let mut references = metadata(object).items_at(&["ownerReferences"]).to_vec();
    references.retain(|reference| !uids.iter().any(|uid| reference.str_at(&["uid"]) == Some(&**uid)));
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
    client.patch(resource, object.key(), PatchKind::Merge, &patch).await.ignore_not_found()
}
