//! Claims in use, volumes that are bound and classes of attributes in use are not removed: each has a finalizer that goes only
//! when nobody needs it any more. Upstream: pkg/controller/volume/pvcprotection, pvprotection, vacprotection.

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, IgnoreNotFound, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch, resources,
};

use crate::Setup;
use crate::meta::{is_controller, node_of, parsed};
use crate::storage::{
    CLAIM_INDEX, VOLUME_ATTRIBUTES_CLASSES, by_claim, claims_of, ephemeral_claim, is_deletion_candidate, is_ephemeral,
    is_terminated, needs_finalizer,
};

const CLAIM_FINALIZER: &str = "kubernetes.io/pvc-protection";
const VOLUME_FINALIZER: &str = "kubernetes.io/pv-protection";
const ATTRIBUTES_FINALIZER: &str = "kubernetes.io/vac-protection";
/// Claims and volumes by the classes of attributes that they name.
const ATTRIBUTES_INDEX: &str = "attributes-class";

/// Keeps claims that pods use.
pub(crate) struct ClaimProtection {
    claims: Informer,
    pods: Informer,
}

impl ClaimProtection {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(CLAIM_INDEX, by_claim);
        ClaimProtection { claims: setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS), pods }
    }

    /// The informer may not have seen a pod yet, so before a claim counts as unused the server is asked.
    async fn is_used(&self, ctx: &ReconcileContext, claim: &Object) -> Result<bool, ReconcileError> {
        let known = self.pods.by_index(CLAIM_INDEX, &claim.key().to_string());
        if known.iter().any(|pod| uses(pod, claim)) {
            return Ok(true);
        }
        let selection = client::Selection::all().namespace(claim.namespace());
        let pods = ctx.client().list(&resources::PODS, &selection, &client::ListOptions::default()).await?;
        Ok(pods.items.iter().any(|pod| uses(pod, claim)))
    }
}

/// A pod that has no node yet does not keep a claim.
fn uses(pod: &Object, claim: &Object) -> bool {
    if pod.namespace() != claim.namespace() || node_of(pod).is_none() {
        return false;
    }
    let value = parsed(pod);
    let shut_down = pod.is_deleting() && value.i64_at(&["metadata", "deletionGracePeriodSeconds"]) == Some(0);
    value.items_at(&["spec", "volumes"]).iter().any(|volume| {
        let named = volume.str_at(&["persistentVolumeClaim", "claimName"]) == Some(claim.name());
        let made = || {
            is_ephemeral(volume)
                && ephemeral_claim(pod.name(), volume) == claim.name()
                && is_controller(claim.controller(), pod)
        };
        named || !shut_down && made()
    })
}

impl Controller for ClaimProtection {
    fn name(&self) -> &'static str {
        "persistentvolumeclaim-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        // What ends, and what never began, may be the last that kept a claim.
        let of_pod = |event: &Event| {
            let (pod, gone) = (event.object(), matches!(event, Event::Deleted(_)));
            let ends = || gone || node_of(pod).is_none() || is_terminated(&parsed(pod));
            let mut keys = claims_of(pod);
            if !keys.is_empty() && !ends() {
                keys.clear();
            }
            if let Some(old) = event.old().filter(|old| old.uid() != pod.uid()) {
                keys.extend(claims_of(old));
            }
            keys
        };
        let of_claim = |event: &Event| {
            let claim = event.object();
            let value = claim.to_value();
            let look = needs_finalizer(&value, CLAIM_FINALIZER) || is_deletion_candidate(&value, CLAIM_FINALIZER);
            if look { vec![claim.key().clone()] } else { Vec::new() }
        };
        vec![Watch::new(self.claims.clone(), of_claim), Watch::new(self.pods.clone(), of_pod)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(claim) = self.claims.get(key) else { return Ok(Requeue::No) };
        let value = claim.to_value();
        if is_deletion_candidate(&value, CLAIM_FINALIZER) && !self.is_used(ctx, &claim).await? {
            change(ctx, &resources::PERSISTENT_VOLUME_CLAIMS, value, CLAIM_FINALIZER, false).await?;
        } else if needs_finalizer(&value, CLAIM_FINALIZER) {
            change(ctx, &resources::PERSISTENT_VOLUME_CLAIMS, value, CLAIM_FINALIZER, true).await?;
        }
        Ok(Requeue::No)
    }
}

/// Keeps volumes that are bound.
pub(crate) struct VolumeProtection {
    volumes: Informer,
}

impl VolumeProtection {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        VolumeProtection { volumes: setup.informers.of(&resources::PERSISTENT_VOLUMES) }
    }
}

impl Controller for VolumeProtection {
    fn name(&self) -> &'static str {
        "persistentvolume-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::objects(self.volumes.clone())]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(volume) = self.volumes.get(key) else { return Ok(Requeue::No) };
        let value = volume.to_value();
        let bound = value.str_at(&["status", "phase"]) == Some("Bound");
        if is_deletion_candidate(&value, VOLUME_FINALIZER) && !bound {
            change(ctx, &resources::PERSISTENT_VOLUMES, value, VOLUME_FINALIZER, false).await?;
        } else if needs_finalizer(&value, VOLUME_FINALIZER) {
            change(ctx, &resources::PERSISTENT_VOLUMES, value, VOLUME_FINALIZER, true).await?;
        }
        Ok(Requeue::No)
    }
}

/// Keeps classes of attributes that claims or volumes name.
pub(crate) struct AttributesProtection {
    classes: Informer,
    claims: Informer,
    volumes: Informer,
}

impl AttributesProtection {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let (claims, volumes) = (
            setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
            setup.informers.of(&resources::PERSISTENT_VOLUMES),
        );
        claims.index(ATTRIBUTES_INDEX, attributes_of);
        volumes.index(ATTRIBUTES_INDEX, attributes_of);
        AttributesProtection { classes: setup.informers.of(&VOLUME_ATTRIBUTES_CLASSES), claims, volumes }
    }
}

fn attributes_of(object: &Object) -> Vec<String> {
    let value = object.to_value();
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    let mut names: Vec<String> = paths.iter().filter_map(|path| value.str_at(path)).map(str::to_owned).collect();
    names.retain(|name| !name.is_empty());
    names.dedup();
    names
}

impl Controller for AttributesProtection {
    fn name(&self) -> &'static str {
        "volumeattributesclass-protection-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        // Only what no longer names a class may set it free.
        let users = |event: &Event| {
            let before = match event {
                Event::Deleted(object) => attributes_of(object),
                _ => event.old().map(|old| attributes_of(old)).unwrap_or_default(),
            };
            before.into_iter().map(ObjectKey::cluster).collect()
        };
        vec![
            Watch::objects(self.classes.clone()),
            Watch::new(self.claims.clone(), users),
            Watch::new(self.volumes.clone(), users),
        ]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(class) = self.classes.get(key) else { return Ok(Requeue::No) };
        let value = class.to_value();
        let used = [&self.claims, &self.volumes]
            .iter()
            .any(|informer| !informer.by_index(ATTRIBUTES_INDEX, class.name()).is_empty());
        if is_deletion_candidate(&value, ATTRIBUTES_FINALIZER) && !used {
            change(ctx, &VOLUME_ATTRIBUTES_CLASSES, value, ATTRIBUTES_FINALIZER, false).await?;
        } else if needs_finalizer(&value, ATTRIBUTES_FINALIZER) {
            change(ctx, &VOLUME_ATTRIBUTES_CLASSES, value, ATTRIBUTES_FINALIZER, true).await?;
        }
        Ok(Requeue::No)
    }
}

/// Adds or takes away `finalizer` at the object's revision.
async fn change(
    ctx: &ReconcileContext,
    resource: &Resource,
    mut value: Value,
    finalizer: &str,
    add: bool,
) -> Result<(), ReconcileError> {
    let mut finalizers = value.items_at(&["metadata", "finalizers"]).to_vec();
    finalizers.retain(|held| held.as_str() != Some(finalizer));
    if add {
        finalizers.push(finalizer.into());
    }
    match finalizers.is_empty() {
        true => drop(value.remove(&["metadata", "finalizers"])),
        false => value.set(&["metadata", "finalizers"], finalizers),
    }
    Ok(ctx.client().update(resource, &value).await.ignore_not_found()?)
}
