//! One look at a volume. Upstream: pv_controller syncVolume.

use client::{ReconcileContext, ReconcileError, Requeue, resources};

use super::Binder;
use super::bind::{set_migrated, update_volume};
use crate::storage::{Claim, PROVISIONED_BY, Volume, csi_successor};

/// Keeps the objects of volumes that upstream's own plugins made until the storage behind them is gone.
pub(super) const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";
/// The same, of other provisioners.
const PROVISIONER_FINALIZER: &str = "external-provisioner.volume.kubernetes.io/finalizer";

impl Binder {
    pub(super) async fn sync_volume(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Requeue, ReconcileError> {
        let volume = follow_provisioner(ctx, volume).await?;
        let Some(reference) = volume.claim_ref() else {
            self.set_phase(ctx, volume, "Available", "").await?;
            return Ok(Requeue::No);
        };
        if reference.uid.is_empty() {
            // Kept for a claim whose own turn completes the binding.
            self.set_phase(ctx, volume, "Available", "").await?;
            return Ok(Requeue::No);
        }
        let Some(claim) = self.claim_behind(ctx, &volume).await? else {
            let volume = self.release(ctx, volume).await?;
            return self.reclaim(ctx, volume).await;
        };
        if claim.volume_name().is_empty() {
            if claim.volume_mode() != volume.volume_mode() {
                self.tell_modes_differ(&volume, &claim);
            }
            // The claim's turn completes the binding: every event of a volume is one for its claim too.
            return Ok(Requeue::No);
        }
        if claim.volume_name() == volume.name() {
            self.set_phase(ctx, volume, "Bound", "").await?;
            return Ok(Requeue::No);
        }
        // The claim got another volume.
        if volume.annotation(PROVISIONED_BY).is_some() && volume.reclaim_policy() == "Delete" {
            let volume = self.release(ctx, volume).await?;
            return self.reclaim(ctx, volume).await;
        }
        self.unbind(ctx, volume).await?;
        Ok(Requeue::No)
    }

    /// The claim that the volume belongs to, unless it is gone; before it counts as gone the server is asked.
    async fn claim_behind(&self, ctx: &ReconcileContext, volume: &Volume) -> Result<Option<Claim>, ReconcileError> {
        let Some(reference) = volume.claim_ref() else { return Ok(None) };
        let is_it = |claim: &Claim| claim.object.uid() == reference.uid;
        let known = self.claims.get(&reference.key()).map(Claim::of);
        let ended = matches!(volume.phase(), "Released" | "Failed");
        match known {
            Some(claim) if is_it(&claim) => Ok(Some(claim)),
            None if ended => Ok(None),
            _ => {
                let found = ctx.client().find(&resources::PERSISTENT_VOLUME_CLAIMS, &reference.key()).await?;
                Ok(found.map(Claim::of).filter(is_it))
            }
        }
    }

    /// A failure stays to be seen.
    async fn release(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Volume, ReconcileError> {
        if matches!(volume.phase(), "Released" | "Failed") {
            return Ok(volume);
        }
        Ok(self.set_phase(ctx, volume, "Released", "").await?)
    }

    fn tell_modes_differ(&self, volume: &Volume, claim: &Claim) {
        let of_volume = format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
            claim.object.name()
        );
        self.recorder.warning(&volume.object, "VolumeMismatch", of_volume);
        let of_claim = format!(
            "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
            volume.name()
        );
        self.recorder.warning(&claim.object, "VolumeMismatch", of_claim);
    }
}

/// Notes on the volume who took over from the plugin that made it, and keeps the finalizer of upstream's own plugins; other
/// provisioners keep one of their own. Upstream: pv_controller_base updateVolumeMigrationAnnotationsAndFinalizers.
async fn follow_provisioner(ctx: &ReconcileContext, volume: Volume) -> Result<Volume, ReconcileError> {
    let Some(provisioner) = volume.annotation(PROVISIONED_BY) else { return Ok(volume) };
    let mut value = volume.value.clone();
    set_migrated(&mut value, provisioner);
    let before = value.items_at(&["metadata", "finalizers"]).to_vec();
    let mut finalizers = before.clone();
    let mut drop_finalizer = |dropped: &str| finalizers.retain(|held| held.as_str() != Some(dropped));
    if csi_successor(provisioner).is_some() {
        drop_finalizer(IN_TREE_FINALIZER);
    } else if provisioner.starts_with("kubernetes.io/") {
        drop_finalizer(PROVISIONER_FINALIZER);
        match volume.reclaim_policy() {
            "Retain" | "Recycle" => drop_finalizer(IN_TREE_FINALIZER),
            "Delete"
                if !volume.object.is_deleting()
                    && !finalizers.iter().any(|held| held.as_str() == Some(IN_TREE_FINALIZER)) =>
            {
                finalizers.push(IN_TREE_FINALIZER.into());
            }
            _ => {}
        }
    }
    if finalizers != before {
        value.set(&["metadata", "finalizers"], finalizers);
    }
    Ok(update_volume(ctx, volume, value).await?)
}
