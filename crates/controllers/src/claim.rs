//! Which objects a controlling object manages: it adopts orphans that its selector matches and releases those that it no longer
//! matches. Upstream: pkg/controller/controller_ref_manager.

use std::sync::Arc;

use apimachinery::{Object, Selector, Status, Value};
use client::{Client, Error, Informer, PatchKind, Resource};

use crate::meta::{CONTROLLER_INDEX, controller_reference, is_controller, metadata, orphans_of};

/// Who claims what.
pub(crate) struct Claim<'a> {
    pub client: &'a Client,
    pub owner: &'a Arc<Object>,
    pub owner_resource: &'a Resource,
    pub selector: &'a Selector,
    pub dependents: &'a Informer,
    /// Dependents that are of no interest are neither adopted nor released.
    pub wanted: &'a (dyn Fn(&Object) -> bool + Sync),
}

impl Claim<'_> {
    /// The dependents that are the owner's after adoptions and releases.
    pub(crate) async fn claim(&self) -> Result<Vec<Arc<Object>>, Error> {
        self.claim_all(None).await
    }

    /// The same, where the owner's dependents carry a finalizer of its controller: those adopted get it, those released lose it.
    pub(crate) async fn claim_with_finalizer(&self, finalizer: &str) -> Result<Vec<Arc<Object>>, Error> {
        self.claim_all(Some(finalizer)).await
    }

    /// An error is told once every dependent has been asked for.
    async fn claim_all(&self, finalizer: Option<&str>) -> Result<Vec<Arc<Object>>, Error> {
        let (mut claimed, mut failed) = (Vec::new(), Ok(()));
        for dependent in self.dependents.by_index(CONTROLLER_INDEX, self.owner.uid()) {
            let here = dependent.namespace() == self.owner.namespace() && (self.wanted)(&dependent);
            if !here || !is_controller(dependent.controller(), self.owner) {
                continue;
            }
            if self.selector.matches(&dependent) {
                claimed.push(dependent);
            } else if !self.owner.is_deleting() {
                failed = failed.and(self.set_free(&dependent, finalizer).await);
            }
        }
        if self.owner.is_deleting() || self.selector.is_everything() {
            return failed.map(|()| claimed);
        }
        let orphans = self.dependents.by_index(CONTROLLER_INDEX, &orphans_of(self.owner.namespace())).into_iter();
        let mut wanted = orphans
            .filter(|orphan| !orphan.is_deleting() && (self.wanted)(orphan) && self.selector.matches(orphan))
            .peekable();
        if wanted.peek().is_some() {
            self.check_owner_lives().await?;
        }
        for orphan in wanted {
            match self.adopt(&orphan, finalizer).await {
                Ok(adopted) => claimed.extend(adopted),
                Err(error) => failed = failed.and(Err(error)),
            }
        }
        failed.map(|()| claimed)
    }

    /// Asks the server, lest an owner that is already being deleted adopts. Such an owner makes no new dependents either: its old
    /// ones may just have been orphaned.
    async fn check_owner_lives(&self) -> Result<(), Error> {
        let (resource, owner) = (self.owner_resource, self.owner);
        let fresh = self.client.find(resource, owner.key()).await?;
        if fresh.is_some_and(|fresh| fresh.uid() == owner.uid() && !fresh.is_deleting()) {
            return Ok(());
        }
        Err(Status::conflict(&resource.group_resource(), owner.name(), "it has just been deleted and adopts nothing")
            .into())
    }

    async fn adopt(&self, orphan: &Object, finalizer: Option<&str>) -> Result<Option<Arc<Object>>, Error> {
        let before = metadata(orphan);
        let mut references = before.items_at(&["ownerReferences"]).to_vec();
        references.push(controller_reference(self.owner));
        let finalizers = finalizer.map(|finalizer| {
            let mut finalizers = before.items_at(&["finalizers"]).to_vec();
            if !finalizers.iter().any(|known| known.as_str() == Some(finalizer)) {
                finalizers.push(finalizer.into());
            }
            finalizers
        });
        self.set_references(orphan, references, finalizers).await
    }

    /// Gives the dependent up.
    pub(crate) async fn release(&self, dependent: &Object) -> Result<(), Error> {
        self.set_free(dependent, None).await
    }

    async fn set_free(&self, dependent: &Object, finalizer: Option<&str>) -> Result<(), Error> {
        let before = metadata(dependent);
        let mut references = before.items_at(&["ownerReferences"]).to_vec();
        references.retain(|reference| reference.str_at(&["uid"]) != Some(self.owner.uid()));
        let finalizers = finalizer.map(|finalizer| {
            let kept = before.items_at(&["finalizers"]).iter().filter(|known| known.as_str() != Some(finalizer));
            kept.cloned().collect()
        });
        self.set_references(dependent, references, finalizers).await.map(drop)
    }

    /// `None` when the dependent is gone or another's by now.
    async fn set_references(
        &self,
        dependent: &Object,
        references: Vec<Value>,
        finalizers: Option<Vec<Value>>,
    ) -> Result<Option<Arc<Object>>, Error> {
        let mut patch = Value::object();
        patch.set(&["metadata", "uid"], dependent.uid());
        patch.set(&["metadata", "resourceVersion"], dependent.revision().to_string());
        patch.set(&["metadata", "ownerReferences"], Value::Array(references));
        if let Some(finalizers) = finalizers {
            patch.set(&["metadata", "finalizers"], Value::Array(finalizers));
        }
        let resource = self.dependents.resource();
        match self.client.patch(resource, dependent.key(), PatchKind::Merge, &patch).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() || error.is_invalid() => Ok(None),
            Err(error) => Err(error),
        }
    }
}
