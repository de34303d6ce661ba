//! From a released volume to free space. Upstream: sig-storage-lib-external-provisioner deleteVolumeOperation.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use client::{Controller, DeleteOptions, ReconcileContext, ReconcileError, Requeue, Watch, resources};

use super::{FINALIZER, PROVISIONED_BY, PROVISIONER, Shared};

pub(super) struct Remove(pub(super) Arc<Shared>);

impl Controller for Remove {
    fn name(&self) -> &'static str {
        "local-provisioner-removal"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.0.volumes.clone())]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.0.volumes.get(key) else { return Ok(Requeue::No) };
        let volume = object.to_value();
        if !self.is_own(&volume) {
            return Ok(Requeue::No);
        }
        let deletes = volume.str_at(&["spec", "persistentVolumeReclaimPolicy"]) == Some("Delete");
        match volume.str_at(&["status", "phase"]) {
            Some("Released") if deletes => return self.remove(ctx, &object, &volume).await,
            Some("Bound") => self.link(&volume).await,
            _ => {}
        }
        if deletes {
            if volume.str_at(&["status", "phase"]) == Some("Bound") && !object.is_deleting() {
                self.hold(ctx, &volume, true).await?;
            }
        } else {
            // What stays needs nobody who removes it.
            self.hold(ctx, &volume, false).await?;
        }
        Ok(Requeue::No)
    }
}

impl Remove {
    /// Whether it is a folder of this node that this provisioner made.
    fn is_own(&self, volume: &Value) -> bool {
        let name = volume.str_at(&["metadata", "name"]).unwrap_or_default();
        let path = volume.str_at(&["spec", "local", "path"]).unwrap_or_default();
        let terms = volume.items_at(&["spec", "nodeAffinity", "required", "nodeSelectorTerms"]);
        let here = |term: &Value| {
            term.items_at(&["matchExpressions"]).iter().any(|expression| {
                expression.items_at(&["values"]).iter().any(|value| value.as_str() == Some(self.0.node.as_str()))
            })
        };
        volume.str_at(&["metadata", "annotations", PROVISIONED_BY]) == Some(PROVISIONER)
            && name.starts_with("pvc-")
            && self.0.folders.path(name) == std::path::Path::new(path)
            && terms.iter().any(here)
    }

    /// A volume that is bound again is found under its new claim's name too.
    async fn link(&self, volume: &Value) {
        let claim = |member: &str| volume.str_at(&["spec", "claimRef", member]).unwrap_or_default().to_owned();
        let (namespace, claim) = (claim("namespace"), claim("name"));
        let name = volume.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
        let folders = self.0.folders.clone();
        let linked = tokio::task::spawn_blocking(move || folders.link(&namespace, &claim, &name)).await;
        if let Err(error) = linked.map_err(std::io::Error::other).and_then(|linked| linked) {
            tracing::warn!(%error, "a volume can't be linked to");
        }
    }

    /// The folder first, then the object, then what holds it: after a crash in between, the rest is done.
    async fn remove(&self, ctx: &ReconcileContext, object: &Object, volume: &Value) -> Result<Requeue, ReconcileError> {
        let (folders, name) = (self.0.folders.clone(), object.name().to_owned());
        let removed = tokio::task::spawn_blocking(move || folders.remove(&name)).await?;
        if let Err(error) = removed {
            self.0.recorder.warning(object, "VolumeFailedDelete", error.to_string());
            return Err(error.into());
        }
        ctx.env().failpoint("provisioner.folder-removed")?;
        match ctx.client().delete(&resources::PERSISTENT_VOLUMES, object.key(), &DeleteOptions::uid(object.uid())).await
        {
            Err(error) if error.is_not_found() => return Ok(Requeue::No),
            Err(error) => {
                self.0.recorder.warning(object, "VolumeFailedDelete", error.to_string());
                return Err(error.into());
            }
            Ok(_) => {}
        }
        self.hold(ctx, volume, false).await?;
        Ok(Requeue::No)
    }

    /// Puts the finalizer on the volume, or takes it off.
    async fn hold(&self, ctx: &ReconcileContext, volume: &Value, hold: bool) -> Result<(), ReconcileError> {
        let held = |volume: &Value| {
            let finalizers = volume.items_at(&["metadata", "finalizers"]);
            finalizers.iter().any(|finalizer| finalizer.as_str() == Some(FINALIZER))
        };
        if held(volume) == hold {
            return Ok(());
        }
        let key = ObjectKey::cluster(volume.str_at(&["metadata", "name"]).unwrap_or_default());
        // The newest: the deletion just before may have changed it.
        let Some(current) = ctx.client().find(&resources::PERSISTENT_VOLUMES, &key).await? else { return Ok(()) };
        let mut value = current.to_value();
        if current.uid() != volume.str_at(&["metadata", "uid"]).unwrap_or_default() || held(&value) == hold {
            return Ok(());
        }
        let mut finalizers = value.items_at(&["metadata", "finalizers"]).to_vec();
        finalizers.retain(|finalizer| finalizer.as_str() != Some(FINALIZER));
        if hold {
            finalizers.push(Value::from(FINALIZER));
        }
        value.set(&["metadata", "finalizers"], finalizers);
        match ctx.client().update(&resources::PERSISTENT_VOLUMES, &value).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}
