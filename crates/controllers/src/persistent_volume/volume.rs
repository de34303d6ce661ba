//! One look at a volume. Upstream: pv_controller syncVolume.

use client::{ReconcileContext, ReconcileError, Requeue, resources};

use super::Binder;
use super::bind::update_volume;
use crate::storage::{Claim, PROVISIONED_BY, Volume};

/// Keeps the objects of volumes that upstream's own plugins made until the storage behind them is gone.
const IN_TREE_FINALIZER: &str = "kubernetes.io/pv-controller";

impl Binder {
    pub(super) async fn sync_volume(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Requeue, ReconcileError> {
        let volume = self.keep_finalizer(ctx, volume).await?;
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

    /// Upstream: pv_controller_base modifyDeletionFinalizers; other provisioners keep a finalizer of their own.
    async fn keep_finalizer(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Volume, ReconcileError> {
        let provisioner = volume.annotation(PROVISIONED_BY).unwrap_or_default();
        if !provisioner.starts_with("kubernetes.io/") {
            return Ok(volume);
        }
        let migrated = crate::storage::csi_successor(provisioner).is_some();
        let wanted = !migrated && volume.reclaim_policy() == "Delete";
        let mut finalizers = volume.value.items_at(&["metadata", "finalizers"]).to_vec();
        let held = finalizers.iter().any(|held| held.as_str() == Some(IN_TREE_FINALIZER));
        if wanted == held || wanted && volume.object.is_deleting() {
            return Ok(volume);
        }
        match wanted {
            true => finalizers.push(IN_TREE_FINALIZER.into()),
            false => finalizers.retain(|held| held.as_str() != Some(IN_TREE_FINALIZER)),
        }
        let mut value = volume.value.clone();
        value.set(&["metadata", "finalizers"], finalizers);
        Ok(update_volume(ctx, volume, value).await?)
    }
}
