//! Claims get their volumes: those that are there already, or the wish that a provisioner makes one; and what becomes of a
//! volume whose claim is gone. Upstream: pkg/controller/volume/persistentvolume.
//!
//! Claims and volumes are keys of one queue: a key without namespace is a volume. Each side of a binding is written on its own,
//! the volume first; whatever is left half done, the next look at either side completes.

mod bind;
mod claim;
mod matching;
mod reclaim;
mod recycle;
mod volume;

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, resources};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Setup;
use crate::meta::node_of;
use crate::storage::{CLAIM_INDEX, Claim, STORAGE_CLASSES, Volume, by_claim, claims_of, is_default_class};

/// The service account.
const ACCOUNT: &str = "persistent-volume-binder";
/// Volumes, and claims that are not bound yet, by class.
const CLASS_INDEX: &str = "class";
/// Volumes by the claim that they belong to or are kept for.
const CLAIM_REF_INDEX: &str = "claim-ref";
/// Claims by the volume that they name.
const VOLUME_INDEX: &str = "volume";

pub(crate) struct Binder {
    claims: Informer,
    volumes: Informer,
    classes: Informer,
    pods: Informer,
    recorder: EventRecorder,
    /// When scrubbing may be tried again that failed, and after which pause, by the volume's name.
    recycling: Mutex<BTreeMap<String, (Instant, Duration)>>,
}

impl Binder {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let (claims, volumes) = (
            setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
            setup.informers.of(&resources::PERSISTENT_VOLUMES),
        );
        let pods = setup.informers.of(&resources::PODS);
        claims.index(CLASS_INDEX, unbound_by_class);
        claims.index(VOLUME_INDEX, claims_by_volume);
        volumes.index(CLASS_INDEX, volumes_by_class);
        volumes.index(CLAIM_REF_INDEX, volumes_by_claim);
        pods.index(CLAIM_INDEX, by_claim);
        let recorder = setup.recorder(ACCOUNT, "persistentvolume-controller");
        Binder {
            claims,
            volumes,
            classes: setup.informers.of(&STORAGE_CLASSES),
            pods,
            recorder,
            recycling: Mutex::default(),
        }
    }

    fn volume(&self, name: &str) -> Option<Volume> {
        self.volumes.get(&ObjectKey::cluster(name)).map(Volume::of)
    }
}

fn unbound_by_class(claim: &Object) -> Vec<String> {
    let value = claim.to_value();
    let bound = value.at(&["metadata", "annotations", crate::storage::BIND_COMPLETED]).is_some();
    if bound { Vec::new() } else { vec![crate::storage::class_of(&value).to_owned()] }
}

fn claims_by_volume(claim: &Object) -> Vec<String> {
    let value = claim.to_value();
    let name = value.str_at(&["spec", "volumeName"]).filter(|name| !name.is_empty());
    name.into_iter().map(str::to_owned).collect()
}

fn volumes_by_class(volume: &Object) -> Vec<String> {
    vec![crate::storage::class_of(&volume.to_value()).to_owned()]
}

fn volumes_by_claim(volume: &Object) -> Vec<String> {
    let value = volume.to_value();
    let part = |key: &str| value.str_at(&["spec", "claimRef", key]).map(str::to_owned);
    let key = part("name").map(|name| ObjectKey::new(part("namespace").unwrap_or_default(), name));
    key.iter().map(ToString::to_string).collect()
}

impl Controller for Binder {
    fn name(&self) -> &'static str {
        "persistentvolume-binder-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let volumes = self.volumes.clone();
        let of_claim = move |event: &Event| {
            let claim = event.object();
            let mut keys = vec![claim.key().clone()];
            if matches!(event, Event::Added(_) | Event::Deleted(_)) {
                let ours = volumes.by_index(CLAIM_REF_INDEX, &claim.key().to_string());
                keys.extend(ours.iter().map(|volume| volume.key().clone()));
            }
            let names = [Some(claim), event.old()].map(|claim| {
                claim.map(|claim| claim.to_value().str_at(&["spec", "volumeName"]).unwrap_or_default().to_owned())
            });
            if !matches!(event, Event::Modified { .. }) || names[0] != names[1] {
                let names = names.into_iter().flatten().filter(|name| !name.is_empty());
                keys.extend(names.map(ObjectKey::cluster));
            }
            keys
        };
        let claims = self.claims.clone();
        let of_volume = move |event: &Event| {
            let mut keys = vec![event.object().key().clone()];
            let naming = claims.by_index(VOLUME_INDEX, event.object().name());
            keys.extend(naming.iter().map(|claim| claim.key().clone()));
            let states = [Some(event.object()), event.old()].into_iter().flatten().map(|volume| volume.to_value());
            for state in states {
                if let Some(name) = state.str_at(&["spec", "claimRef", "name"]) {
                    let namespace = state.str_at(&["spec", "claimRef", "namespace"]).unwrap_or_default();
                    keys.push(ObjectKey::new(namespace, name));
                } else if state.str_at(&["status", "phase"]) == Some("Available") {
                    let waiting = claims.by_index(CLASS_INDEX, crate::storage::class_of(&state));
                    keys.extend(waiting.iter().map(|claim| claim.key().clone()));
                }
            }
            keys.dedup();
            keys
        };
        let claims = self.claims.clone();
        let of_class = move |event: &Event| {
            let mut waiting = claims.by_index(CLASS_INDEX, event.object().name());
            if is_default_class(event.object()) {
                waiting.extend(claims.by_index(CLASS_INDEX, ""));
            }
            waiting.iter().map(|claim| claim.key().clone()).collect()
        };
        let claims = self.claims.clone();
        let of_pod = move |event: &Event| {
            let news = match event {
                Event::Added(_) | Event::Deleted(_) => true,
                Event::Modified { old, new } => node_of(old) != node_of(new) || !old.is_deleting() && new.is_deleting(),
            };
            let mut keys = if news { claims_of(event.object()) } else { Vec::new() };
            // A volume waits for the pod that scrubs it.
            let scrubbed = recycle::volume_of(event.object());
            keys.retain(|key| claims.get(key).is_some_and(|claim| !Claim::of(claim).is_bind_completed()));
            keys.extend(scrubbed);
            keys
        };
        vec![
            Watch::new(self.claims.clone(), of_claim),
            Watch::new(self.volumes.clone(), of_volume),
            Watch::new(self.classes.clone(), of_class),
            Watch::new(self.pods.clone(), of_pod),
        ]
    }

    /// Of two claims at once, both might want the same volume; the second would only fail.
    fn workers(&self) -> usize {
        2
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if key.namespace.is_empty() {
            return match self.volumes.get(key) {
                Some(volume) => self.sync_volume(ctx, Volume::of(volume)).await,
                None => {
                    self.recycling.lock().remove(&key.name);
                    Ok(Requeue::No)
                }
            };
        }
        match self.claims.get(key) {
            Some(claim) => self.sync_claim(ctx, Claim::of(claim)).await,
            None => Ok(Requeue::No),
        }
    }
}
