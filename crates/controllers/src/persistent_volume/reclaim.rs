//! What becomes of a volume whose claim is gone. Upstream: pv_controller reclaimVolume.

use client::{ReconcileContext, ReconcileError, Requeue};

use super::Binder;
use crate::storage::{MIGRATED_TO, PROVISIONED_BY, Volume};

impl Binder {
    pub(super) async fn reclaim(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Requeue, ReconcileError> {
        if volume.annotation(MIGRATED_TO).is_some_and(|driver| !driver.is_empty()) {
            return Ok(Requeue::No);
        }
        match volume.reclaim_policy() {
            "Retain" => {}
            "Delete" if is_deleted_by_others(&volume) => {}
            "Delete" => {
                let why = match volume.annotation(PROVISIONED_BY).filter(|name| !name.is_empty()) {
                    Some(name) => format!("no volume plugin matched name: {name}"),
                    None => format!(
                        "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                        volume.name()
                    ),
                };
                self.fail_volume(ctx, volume, "VolumeFailedDelete", &why).await?;
            }
            "Recycle" => return self.recycle(ctx, volume).await,
            _ => {
                let why = "Volume has unrecognized PersistentVolumeReclaimPolicy";
                self.fail_volume(ctx, volume, "VolumeUnknownReclaimPolicy", why).await?;
            }
        }
        Ok(Requeue::No)
    }
}

/// Whoever made the volume sees it released and deletes it.
fn is_deleted_by_others(volume: &Volume) -> bool {
    match volume.annotation(PROVISIONED_BY).filter(|name| !name.is_empty()) {
        Some(name) => !name.starts_with("kubernetes.io/"),
        None => volume.value.at(&["spec", "csi"]).is_some_and(|csi| !csi.is_null()),
    }
}
