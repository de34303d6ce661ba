//! Volumes grow when their claims ask for more. Upstream: pkg/controller/volume/expand.
//!
//! The volumes of the nodes' own provisioner are folders, which have the room of their disk: there is nothing to do but to say so
//! in the objects. Every other volume is grown by somebody else, who is told by an event.

use apimachinery::{ObjectKey, Quantity, Value};
use client::{
    Controller, EventRecorder, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue, Watch, resources,
};

use crate::Setup;
use crate::meta::now;
use crate::storage::{Claim, LOCAL_PROVISIONER, PROVISIONED_BY, Volume, migrated_plugin};

const ACCOUNT: &str = "expand-controller";
const RESIZER: &str = "volume.kubernetes.io/storage-resizer";
/// The conditions that this controller alone sets and takes away.
const RESIZING: [&str; 4] = ["Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"];

pub(crate) struct VolumeExpand {
    claims: Informer,
    recorder: EventRecorder,
}

impl VolumeExpand {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let recorder = setup.recorder(ACCOUNT, "volume_expand");
        VolumeExpand { claims: setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS), recorder }
    }

    /// Each step is seen in the objects, so whoever comes after a crash goes on from there.
    async fn expand(&self, ctx: &ReconcileContext, claim: Claim, volume: Volume) -> Result<(), ReconcileError> {
        let size = claim.requested();
        let claim = self.mark(ctx, claim, Some(size)).await?;
        if volume.capacity() < size {
            let mut patch = Value::object();
            patch.set(&["metadata", "uid"], volume.object.uid());
            patch.set(&["spec", "capacity", "storage"], size.to_string());
            ctx.client().patch(&resources::PERSISTENT_VOLUMES, volume.object.key(), PatchKind::Merge, &patch).await?;
        }
        let claim = self.mark(ctx, claim, None).await?;
        let message = format!("ExpandVolume succeeded for volume {}", claim.object.key());
        self.recorder.normal(&claim.object, "VolumeResizeSuccessful", message);
        Ok(())
    }

    /// Names the driver that is to grow the claim.
    async fn name_resizer(&self, ctx: &ReconcileContext, claim: &Claim, driver: &str) -> Result<(), client::Error> {
        if claim.annotation(RESIZER) == Some(driver) {
            return Ok(());
        }
        let mut patch = Value::object();
        patch.set(&["metadata", "resourceVersion"], claim.object.revision().to_string());
        patch.set(&["metadata", "annotations", RESIZER], driver);
        let resource = &resources::PERSISTENT_VOLUME_CLAIMS;
        ctx.client().patch_status(resource, claim.object.key(), PatchKind::Merge, &patch).await.map(drop)
    }

    /// Says in the claim's status that it grows to `to`, or that it has grown. Others write the status too: only at its revision.
    async fn mark(&self, ctx: &ReconcileContext, claim: Claim, to: Option<Quantity>) -> Result<Claim, ReconcileError> {
        let mut patch = Value::object();
        patch.set(&["metadata", "resourceVersion"], claim.object.revision().to_string());
        let mut conditions = claim.value.items_at(&["status", "conditions"]).to_vec();
        conditions.retain(|condition| condition.str_at(&["type"]).is_none_or(|name| !RESIZING.contains(&name)));
        let statuses = ["status", "allocatedResourceStatuses", "storage"];
        match to {
            Some(size) => {
                let mut condition = Value::object();
                condition.set(&["type"], "Resizing");
                condition.set(&["status"], "True");
                condition.set(&["lastTransitionTime"], now(ctx.env()));
                conditions.push(condition);
                patch.set(&["metadata", "annotations", RESIZER], LOCAL_PROVISIONER);
                patch.set(&statuses, "ControllerResizeInProgress");
                patch.set(&["status", "allocatedResources", "storage"], size.to_string());
            }
            None => {
                patch.set(&statuses[..2], Value::Null);
                patch.set(&["status", "capacity", "storage"], claim.requested().to_string());
            }
        }
        patch.set(&["status", "conditions"], if conditions.is_empty() { Value::Null } else { conditions.into() });
        let resource = &resources::PERSISTENT_VOLUME_CLAIMS;
        let patched = ctx.client().patch_status(resource, claim.object.key(), PatchKind::Merge, &patch).await?;
        Ok(Claim::of(patched))
    }
}

fn wants_more(claim: &Claim) -> bool {
    claim.phase() == "Bound" && claim.requested() > claim.capacity()
}

impl Controller for VolumeExpand {
    fn name(&self) -> &'static str {
        "persistentvolume-expander-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::new(self.claims.clone(), |event| {
            let claim = Claim::of(event.object().clone());
            let old = event.old().map(|old| Claim::of(old.clone()));
            let grew = |old: Claim| claim.requested() > old.requested() || claim.capacity() > old.capacity();
            let news = wants_more(&claim) && old.is_none_or(grew);
            if news { vec![claim.object.key().clone()] } else { Vec::new() }
        })]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(claim) = self.claims.get(key).map(Claim::of).filter(wants_more) else { return Ok(Requeue::No) };
        let volume = ObjectKey::cluster(claim.volume_name());
        let Some(volume) = ctx.client().find(&resources::PERSISTENT_VOLUMES, &volume).await?.map(Volume::of) else {
            return Ok(Requeue::No);
        };
        if volume.claim_ref().is_none_or(|reference| reference.uid != claim.object.uid()) {
            // Both sides change when this is put right.
            return Ok(Requeue::No);
        }
        if let Some((plugin, driver)) = migrated_plugin(&volume.value) {
            let message = format!("CSI migration enabled for {plugin}; waiting for external resizer to expand the pvc");
            self.recorder.normal(&claim.object, "ExternalExpanding", message);
            return Ok(self.name_resizer(ctx, &claim, driver).await.map(|()| Requeue::No)?);
        }
        if volume.annotation(PROVISIONED_BY) != Some(LOCAL_PROVISIONER) {
            let message = "waiting for an external controller to expand this PVC";
            self.recorder.normal(&claim.object, "ExternalExpanding", message);
            return Ok(Requeue::No);
        }
        self.expand(ctx, claim, volume).await?;
        Ok(Requeue::No)
    }
}
