//! Pods' generic ephemeral volumes get their claims, which go with the pod. Upstream: pkg/controller/volume/ephemeral.

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch, owner_key, resources,
};

use crate::Setup;
use crate::meta::{controller_reference, is_controller, mentions, parsed};
use crate::storage::{CLAIM_INDEX, by_claim, ephemeral_claim, is_ephemeral};

const ACCOUNT: &str = "ephemeral-volume-controller";

pub(crate) struct EphemeralVolumes {
    pods: Informer,
    claims: Informer,
    recorder: EventRecorder,
}

/// Why a pod's claim cannot be its own.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("PVC {claim} was not created for pod {pod} (pod is not owner)")]
    NotOwner { claim: ObjectKey, pod: ObjectKey },
    #[error("create PVC {name}: {source}")]
    Create { name: String, source: client::Error },
}

impl EphemeralVolumes {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(CLAIM_INDEX, by_claim);
        EphemeralVolumes {
            pods,
            claims: setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
            recorder: setup.recorder(ACCOUNT, "ephemeral_volume"),
        }
    }

    async fn make_claim(&self, ctx: &ReconcileContext, pod: &Object, volume: &Value) -> Result<(), Problem> {
        let key = ObjectKey::new(pod.namespace(), ephemeral_claim(pod.name(), volume));
        if let Some(claim) = self.claims.get(&key) {
            return match is_controller(claim.controller(), pod) {
                true => Ok(()),
                false => Err(Problem::NotOwner { claim: key, pod: pod.key().clone() }),
            };
        }
        let mut claim = Value::object();
        claim.set(&["apiVersion"], "v1");
        claim.set(&["kind"], "PersistentVolumeClaim");
        claim.set(&["metadata", "name"], &*key.name);
        claim.set(&["metadata", "namespace"], pod.namespace());
        claim.set(&["metadata", "ownerReferences"], vec![controller_reference(pod)]);
        let template = |path: &[&str]| volume.at(&[&["ephemeral", "volumeClaimTemplate"], path].concat());
        for map in ["annotations", "labels"] {
            if let Some(entries) = template(&["metadata", map]) {
                claim.set(&["metadata", map], entries);
            }
        }
        if let Some(spec) = template(&["spec"]) {
            claim.set(&["spec"], spec);
        }
        match ctx.client().create(&resources::PERSISTENT_VOLUME_CLAIMS, &claim).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(source) => Err(Problem::Create { name: key.name.to_string(), source }),
        }
    }
}

impl Controller for EphemeralVolumes {
    fn name(&self) -> &'static str {
        "ephemeral-volume-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_pod = |event: &Event| {
            let news = matches!(event, Event::Added(_)) && has_ephemeral(event.object());
            if news { vec![event.object().key().clone()] } else { Vec::new() }
        };
        let pods = self.pods.clone();
        // A claim that is gone may be made again, and no longer be in the way of another.
        let of_claim = move |event: &Event| {
            let Event::Deleted(claim) = event else { return Vec::new() };
            let mut keys: Vec<ObjectKey> = owner_key(claim, "", "Pod").into_iter().collect();
            let users = pods.by_index(CLAIM_INDEX, &claim.key().to_string());
            keys.extend(users.iter().filter(|pod| has_ephemeral(pod)).map(|pod| pod.key().clone()));
            keys
        };
        vec![Watch::new(self.pods.clone(), of_pod), Watch::new(self.claims.clone(), of_claim)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pod) = self.pods.get(key).filter(|pod| !pod.is_deleting()) else { return Ok(Requeue::No) };
        let value = pod.to_value();
        for volume in value.items_at(&["spec", "volumes"]).iter().filter(|volume| is_ephemeral(volume)) {
            if let Err(problem) = self.make_claim(ctx, &pod, volume).await {
                let name = volume.str_at(&["name"]).unwrap_or_default();
                self.recorder.warning(&pod, "FailedBinding", format!("ephemeral volume {name}: {problem}"));
                return Err(problem.into());
            }
        }
        Ok(Requeue::No)
    }
}

fn has_ephemeral(pod: &Object) -> bool {
    mentions(pod, "\"ephemeral\"") && parsed(pod).items_at(&["spec", "volumes"]).iter().any(is_ephemeral)
}
