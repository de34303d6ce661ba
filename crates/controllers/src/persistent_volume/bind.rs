//! The writes of a binding: volume, its phase, claim, its status, in this order. Each only where something changes.

use apimachinery::Value;
use client::{Error, ReconcileContext, resources};

use super::Binder;
use crate::storage::{BIND_COMPLETED, BOUND_BY_CONTROLLER, Claim, MIGRATED_TO, Volume, csi_successor};

/// Upstream: volume util AnnPreResizeCapacity.
const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

impl Binder {
    /// Binds both to each other. Upstream: pv_controller bind.
    pub(super) async fn bind(&self, ctx: &ReconcileContext, volume: Volume, claim: Claim) -> Result<(), Error> {
        let volume = self.bind_volume(ctx, volume, &claim).await?;
        let volume = self.set_phase(ctx, volume, "Bound", "").await?;
        let claim = self.bind_claim(ctx, claim, &volume).await?;
        self.set_claim_status(ctx, claim, "Bound", Some(&volume)).await?;
        Ok(())
    }

    async fn bind_volume(&self, ctx: &ReconcileContext, volume: Volume, claim: &Claim) -> Result<Volume, Error> {
        let mut value = volume.value.clone();
        if !volume.is_for(claim) {
            value.set(&["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
        }
        let bound = volume
            .claim_ref()
            .is_some_and(|reference| reference.key() == *claim.object.key() && reference.uid == claim.object.uid());
        if !bound {
            value.set(&["spec", "claimRef"], reference(claim));
        }
        update_volume(ctx, volume, value).await
    }

    async fn bind_claim(&self, ctx: &ReconcileContext, claim: Claim, volume: &Volume) -> Result<Claim, Error> {
        let mut value = claim.value.clone();
        if claim.volume_name() != volume.name() {
            value.set(&["spec", "volumeName"], volume.name());
            if claim.annotation(BOUND_BY_CONTROLLER).is_none() {
                value.set(&["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
            }
        }
        if !claim.is_bind_completed() {
            value.set(&["metadata", "annotations", BIND_COMPLETED], "yes");
        }
        update_claim(ctx, claim, value).await
    }

    /// Takes a volume back from a claim that got another: one that a person keeps for the claim stays kept. Upstream:
    /// pv_controller unbindVolume.
    pub(super) async fn unbind(&self, ctx: &ReconcileContext, volume: Volume) -> Result<(), Error> {
        let mut value = volume.value.clone();
        if volume.annotation(BOUND_BY_CONTROLLER).is_some() {
            value.remove(&["spec", "claimRef"]);
            value.remove(&["metadata", "annotations", BOUND_BY_CONTROLLER]);
        } else {
            value.remove(&["spec", "claimRef", "uid"]);
        }
        let volume = update_volume(ctx, volume, value).await?;
        self.set_phase(ctx, volume, "Available", "").await.map(drop)
    }

    pub(super) async fn set_phase(
        &self,
        ctx: &ReconcileContext,
        volume: Volume,
        phase: &str,
        message: &str,
    ) -> Result<Volume, Error> {
        if volume.phase() == phase {
            return Ok(volume);
        }
        let mut value = volume.value.clone();
        value.set(&["status", "phase"], phase);
        match message {
            "" => drop(value.remove(&["status", "message"])),
            message => value.set(&["status", "message"], message),
        }
        ctx.client().update_status(&resources::PERSISTENT_VOLUMES, &value).await.map(Volume::of)
    }

    /// Like [`Binder::set_phase`]; a change is told.
    pub(super) async fn fail_volume(
        &self,
        ctx: &ReconcileContext,
        volume: Volume,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        if volume.phase() != "Failed" {
            let volume = self.set_phase(ctx, volume, "Failed", message).await?;
            self.recorder.warning(&volume.object, reason, message);
        }
        Ok(())
    }

    /// The claim's phase, and what it has of its volume. Upstream: pv_controller updateClaimStatus.
    pub(super) async fn set_claim_status(
        &self,
        ctx: &ReconcileContext,
        claim: Claim,
        phase: &str,
        volume: Option<&Volume>,
    ) -> Result<Claim, Error> {
        let mut value = claim.value.clone();
        if claim.phase() != phase {
            value.set(&["status", "phase"], phase);
        }
        match volume {
            None => {
                for key in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
                    value.remove(&["status", key]);
                }
            }
            Some(volume) => {
                value.set(&["status", "accessModes"], volume.modes().to_vec());
                // A claim that is bound already may have less than its volume: a file system that has not grown yet.
                if claim.phase() != phase {
                    let capacity = volume.value.at(&["spec", "capacity"]).cloned().unwrap_or_default();
                    match volume.annotation(PRE_RESIZE_CAPACITY) {
                        Some(before) => value.set(&["status", "capacity", "storage"], before),
                        None if volume.capacity() != claim.capacity() => value.set(&["status", "capacity"], capacity),
                        None => {}
                    }
                }
                if claim.phase() == "Pending" && phase == "Bound" {
                    let class = ["status", "currentVolumeAttributesClassName"];
                    match volume.attributes_class() {
                        "" => drop(value.remove(&class)),
                        name => value.set(&class, name),
                    }
                }
            }
        }
        if value == claim.value {
            return Ok(claim);
        }
        ctx.client().update_status(&resources::PERSISTENT_VOLUME_CLAIMS, &value).await.map(Claim::of)
    }

    /// The claim has lost its volume for good; told once.
    pub(super) async fn lose_claim(
        &self,
        ctx: &ReconcileContext,
        claim: Claim,
        reason: &'static str,
        message: &str,
    ) -> Result<(), Error> {
        if claim.phase() != "Lost" {
            let claim = self.set_claim_status(ctx, claim, "Lost", None).await?;
            self.recorder.warning(&claim.object, reason, message);
        }
        Ok(())
    }
}

pub(super) async fn update_volume(ctx: &ReconcileContext, volume: Volume, value: Value) -> Result<Volume, Error> {
    if value == volume.value {
        return Ok(volume);
    }
    ctx.client().update(&resources::PERSISTENT_VOLUMES, &value).await.map(Volume::of)
}

pub(super) async fn update_claim(ctx: &ReconcileContext, claim: Claim, value: Value) -> Result<Claim, Error> {
    if value == claim.value {
        return Ok(claim);
    }
    ctx.client().update(&resources::PERSISTENT_VOLUME_CLAIMS, &value).await.map(Claim::of)
}

/// Notes the CSI driver that took over from `provisioner`, or that there is none. Upstream: pv_controller_base
/// updateMigrationAnnotations.
pub(super) fn set_migrated(value: &mut Value, provisioner: &str) {
    let path = ["metadata", "annotations", MIGRATED_TO];
    match csi_successor(provisioner) {
        Some(driver) => value.set(&path, driver),
        None if value.str_at(&path).is_some_and(|driver| !driver.is_empty()) => drop(value.remove(&path)),
        None => {}
    }
}

fn reference(claim: &Claim) -> Value {
    let mut reference = Value::object();
    reference.set(&["apiVersion"], "v1");
    reference.set(&["kind"], "PersistentVolumeClaim");
    reference.set(&["namespace"], claim.object.namespace());
    reference.set(&["name"], claim.object.name());
    reference.set(&["uid"], claim.object.uid());
    reference.set(&["resourceVersion"], claim.object.revision().to_string());
    reference
}
