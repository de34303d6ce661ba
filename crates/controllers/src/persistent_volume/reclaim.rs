//! What becomes of a volume whose claim is gone. Upstream: pv_controller reclaimVolume.

use client::{DeleteOptions, IgnoreNotFound, ReconcileContext, ReconcileError, Requeue, resources};

use super::Binder;
use super::bind::update_volume;
use super::volume::IN_TREE_FINALIZER;
use crate::storage::{HOST_PATH, MIGRATED_TO, NFS, PROVISIONED_BY, Volume};

impl Binder {
    pub(super) async fn reclaim(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Requeue, ReconcileError> {
        if volume.annotation(MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
            return Ok(Requeue::No);
        }
        match volume.reclaim_policy() {
            "Retain" => {}
            "Delete" => match is_storage_gone(&volume) {
                Ok(true) => self.delete(ctx, volume).await?,
                Ok(false) => {}
                Err(why) => self.fail_volume(ctx, volume, "VolumeFailedDelete", &why).await?,
            },
            "Recycle" => return self.recycle(ctx, volume).await,
            _ => {
                let why = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                self.fail_volume(ctx, volume, "VolumeUnknownReclaimPolicy", why).await?;
            }
        }
        Ok(Requeue::No)
    }

    /// The object follows its storage.
    async fn delete(&self, ctx: &ReconcileContext, volume: Volume) -> Result<(), ReconcileError> {
        let mut value = volume.value.clone();
        let mut finalizers = value.items_at(&["metadata", "finalizers"]).to_vec();
        let held = finalizers.len();
        finalizers.retain(|finalizer| finalizer.as_str() != Some(IN_TREE_FINALIZER));
        if finalizers.len() != held {
            value.set(&["metadata", "finalizers"], finalizers);
        }
        let volume = update_volume(ctx, volume, value).await?;
        if volume.object.is_deleting() {
            return Ok(());
        }
        let options = DeleteOptions::uid(volume.object.uid());
        let key = volume.object.key();
        Ok(ctx.client().delete(&resources::PERSISTENT_VOLUMES, key, &options).await.ignore_not_found()?)
    }
}

/// Whether nothing is behind the volume any more; `false`: whoever made it sees it released and deletes it. Upstream: pv_controller
/// findDeletablePlugin.
fn is_storage_gone(volume: &Volume) -> Result<bool, String> {
    let is = |source: &str| volume.value.at(&["spec", source]).is_some_and(|source| !source.is_null());
    let on_host = match volume.annotation(PROVISIONED_BY).filter(|name| !name.is_empty()) {
        Some(name) if !name.starts_with("kubernetes.io/") => return Ok(false),
        Some(NFS) => return Err("no deletable volume plugin matched".to_owned()),
        Some(name) if name != HOST_PATH => return Err(format!("no volume plugin matched name: {name}")),
        None if volume.annotation(MIGRATED_TO).is_some() || is("csi") => return Ok(false),
        named => named.is_some() || is("hostPath"),
    };
    if !on_host {
        let which = if is("nfs") { "deletable " } else { "" };
        return Err(format!(
            "error getting deleter volume plugin for volume {:?}: no {which}volume plugin matched",
            volume.name()
        ));
    }
    // Upstream's manager deletes the folder in its own file system, which is no node's: there is none here.
    let path = volume.value.str_at(&["spec", "hostPath", "path"]).unwrap_or_default();
    match path.split_once("/tmp/") {
        Some((_, below)) if !below.is_empty() => Ok(true),
        _ => Err(format!("host_path deleter only supports /tmp/.+ but received provided {path}")),
    }
}
