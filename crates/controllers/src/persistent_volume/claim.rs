//! One look at a claim. Upstream: pv_controller syncClaim.

use std::time::Duration;

use apimachinery::ObjectKey;
use client::{ReconcileContext, ReconcileError, Requeue, resources};

use super::bind::{set_migrated, update_claim};
use super::{Binder, CLAIM_REF_INDEX, CLASS_INDEX, matching};
use crate::storage::{
    BETA_PROVISIONER, BOUND_BY_CONTROLLER, CLAIM_INDEX, Claim, HOST_PATH, NFS, PROVISIONER, SELECTED_NODE, Volume,
    csi_successor, default_class, is_terminated,
};

/// Events last an hour: one that says why a claim waits is told again before it is forgotten.
const TELL_AGAIN: Duration = Duration::from_secs(45 * 60);

type Done = Result<Requeue, ReconcileError>;

impl Binder {
    pub(super) async fn sync_claim(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        let claim = match claim.annotation(PROVISIONER).or(claim.annotation(BETA_PROVISIONER)) {
            Some(provisioner) => {
                let mut value = claim.value.clone();
                set_migrated(&mut value, provisioner);
                update_claim(ctx, claim, value).await?
            }
            None => claim,
        };
        match (claim.is_bind_completed(), claim.volume_name().is_empty()) {
            (false, true) => self.find_volume(ctx, claim).await,
            (false, false) => self.bind_named(ctx, claim).await,
            (true, _) => self.check_bound(ctx, claim).await,
        }
    }

    /// The claim takes any volume that fits.
    async fn find_volume(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        let delayed = self.is_delayed(&claim);
        let mut candidates = self.volumes.by_index(CLASS_INDEX, claim.class());
        let kept = self.volumes.by_index(CLAIM_REF_INDEX, &claim.object.key().to_string());
        candidates.extend(kept.into_iter().filter(|kept| crate::storage::class_of(&kept.to_value()) != claim.class()));
        let candidates: Vec<Volume> = candidates.into_iter().map(Volume::of).collect();
        if let Some(volume) = matching::best(&claim, &candidates, delayed)? {
            self.bind(ctx, volume.clone(), claim).await?;
            return Ok(Requeue::No);
        }
        if let Some(class) = default_class(&self.classes.list("")).filter(|_| !claim.has_class()) {
            let mut value = claim.value.clone();
            value.set(&["spec", "storageClassName"], class.name());
            update_claim(ctx, claim, value).await?;
            return Ok(Requeue::No);
        }
        if delayed && claim.annotation(SELECTED_NODE).is_none() {
            self.tell_what_it_waits_for(&claim);
        } else if !claim.class().is_empty() {
            return self.provision(ctx, claim).await;
        } else {
            let message = "no persistent volumes available for this claim and no storage class is set";
            self.recorder.normal(&claim.object, "FailedBinding", message);
        }
        self.wait(ctx, claim).await
    }

    /// The claim names its volume.
    async fn bind_named(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        let Some(volume) = self.volume(claim.volume_name()) else { return self.wait(ctx, claim).await };
        if volume.claim_ref().is_none() {
            if let Some(why) = matching::mismatch(&volume, &claim) {
                let message = format!("Cannot bind to requested volume {:?}: {why}", volume.name());
                self.recorder.warning(&claim.object, "VolumeMismatch", message);
                return self.wait(ctx, claim).await;
            }
        } else if !volume.is_for(&claim) {
            let message = format!("volume {:?} already bound to a different claim.", volume.name());
            self.recorder.warning(&claim.object, "FailedBinding", message);
            if claim.annotation(BOUND_BY_CONTROLLER).is_some() {
                // Somebody took the mark of a completed binding away.
                return Ok(Requeue::After(TELL_AGAIN));
            }
            return self.wait(ctx, claim).await;
        }
        self.bind(ctx, volume, claim).await?;
        Ok(Requeue::No)
    }

    /// The claim was bound once.
    async fn check_bound(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        if claim.volume_name().is_empty() {
            let message = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
            self.lose_claim(ctx, claim, "ClaimLost", message).await?;
            return Ok(Requeue::No);
        }
        let volume = match self.volume(claim.volume_name()) {
            Some(volume) => Some(volume),
            // The two informers need not be equally new, and this must not be a mistake.
            None => {
                let key = ObjectKey::cluster(claim.volume_name());
                ctx.client().find(&resources::PERSISTENT_VOLUMES, &key).await?.map(Volume::of)
            }
        };
        let Some(volume) = volume else {
            let message = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
            self.lose_claim(ctx, claim, "ClaimLost", message).await?;
            return Ok(Requeue::No);
        };
        if volume.claim_ref().is_some_and(|reference| reference.uid != claim.object.uid()) {
            let message = "Two claims are bound to the same volume, this one is bound incorrectly";
            self.lose_claim(ctx, claim, "ClaimMisbound", message).await?;
            return Ok(Requeue::No);
        }
        self.bind(ctx, volume, claim).await?;
        Ok(Requeue::No)
    }

    async fn wait(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        self.set_claim_status(ctx, claim, "Pending", None).await?;
        Ok(Requeue::After(TELL_AGAIN))
    }

    fn is_delayed(&self, claim: &Claim) -> bool {
        let class = self.classes.get(&ObjectKey::cluster(claim.class()));
        class.is_some_and(|class| class.to_value().str_at(&["volumeBindingMode"]) == Some("WaitForFirstConsumer"))
    }

    /// Upstream: pv_controller emitEventForUnboundDelayBindingClaim.
    fn tell_what_it_waits_for(&self, claim: &Claim) {
        let pods = self.pods.by_index(CLAIM_INDEX, &claim.object.key().to_string());
        let unscheduled = pods.iter().filter(|pod| {
            let value = pod.to_value();
            value.str_at(&["spec", "nodeName"]).is_none_or(str::is_empty) && !is_terminated(&value)
        });
        let names: Vec<&str> = unscheduled.map(|pod| pod.name()).collect();
        let (reason, message) = match names.as_slice() {
            [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
            [one] => ("WaitForPodScheduled", format!("waiting for pod {one} to be scheduled")),
            many => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", many.join(","))),
        };
        self.recorder.normal(&claim.object, reason, message);
    }

    /// Asks the class's provisioner for a volume; all of them are somebody else. Upstream: pv_controller provisionClaim.
    async fn provision(&self, ctx: &ReconcileContext, claim: Claim) -> Done {
        let failed = |message: String| {
            self.recorder.warning(&claim.object, "ProvisioningFailed", message);
            Ok(Requeue::After(TELL_AGAIN))
        };
        let Some(class) = self.classes.get(&ObjectKey::cluster(claim.class())) else {
            return failed(format!("storageclass.storage.k8s.io {:?} not found", claim.class()));
        };
        let class = class.to_value();
        let named = class.str_at(&["provisioner"]).unwrap_or_default();
        match csi_successor(named) {
            Some(_) => {}
            None if named == NFS => return failed("no provisionable volume plugin matched".to_owned()),
            None if named.starts_with("kubernetes.io/") && named != HOST_PATH => {
                return failed(format!("no volume plugin matched name: {named}"));
            }
            None => {}
        }
        let provisioner = csi_successor(named).unwrap_or(named);
        let mut value = claim.value.clone();
        if claim.annotation(PROVISIONER) != Some(provisioner) {
            value.set(&["metadata", "annotations", PROVISIONER], provisioner);
            value.set(&["metadata", "annotations", BETA_PROVISIONER], provisioner);
            set_migrated(&mut value, provisioner);
        }
        let claim = update_claim(ctx, claim.clone(), value).await?;
        if provisioner == HOST_PATH {
            return failed(format!(
                "Failed to create provisioner: provisioning in volume plugin {HOST_PATH:?} is disabled"
            ));
        }
        let message = format!(
            "Waiting for a volume to be created either by the external provisioner '{provisioner}' or manually by the system \
             administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered."
        );
        self.recorder.normal(&claim.object, "ExternalProvisioning", message);
        Ok(Requeue::After(TELL_AGAIN))
    }
}
