//! Volumes of the deprecated policy `Recycle` are scrubbed by a pod and may be claimed again. Upstream: pv_controller
//! recycleVolumeOperation, pkg/volume/util/recyclerclient.

use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{DeleteOptions, IgnoreNotFound, ReconcileContext, ReconcileError, Requeue, resources};

use super::Binder;
use crate::storage::{CLAIM_INDEX, Volume, is_terminated};

/// Where scrubbing pods run, and how they are called.
const NAMESPACE: &str = "default";
const PREFIX: &str = "recycler-for-";
const IMAGE: &str = "registry.k8s.io/build-image/debian-base:bookworm-v1.0.6";
const SCRUB: &str = r#"test -e /scrub && find /scrub -mindepth 1 -delete && test -z "$(ls -A /scrub)" || exit 1"#;
/// Kinds of volumes that can be scrubbed: the seconds that a pod has at least, and for each GiB.
const RECYCLABLE: [(&str, i64, i64); 2] = [("hostPath", 60, 30), ("nfs", 300, 30)];
/// What failed is tried again after this, then twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LAST_PAUSE: Duration = Duration::from_secs(122);

/// The volume that a scrubbing pod is for.
pub(super) fn volume_of(pod: &Object) -> Option<ObjectKey> {
    let name = pod.name().strip_prefix(PREFIX).filter(|_| pod.namespace() == NAMESPACE)?;
    Some(ObjectKey::cluster(name))
}

impl Binder {
    pub(super) async fn recycle(&self, ctx: &ReconcileContext, volume: Volume) -> Result<Requeue, ReconcileError> {
        let name = volume.name().to_owned();
        let pod_key = ObjectKey::new(NAMESPACE, format!("{PREFIX}{name}"));
        if let Some(pod) = self.pods.get(&pod_key) {
            return self.scrubbed(ctx, volume, &pod).await;
        }
        let users = self.users(&volume);
        if !users.is_empty() {
            let why = format!("Volume is used by pods: {}", users.join(","));
            self.recorder.normal(&volume.object, "VolumeFailedRecycle", why);
            return Ok(Requeue::After(Duration::from_secs(15)));
        }
        let spec = volume.value.get("spec");
        let source = RECYCLABLE.iter().find_map(|kind| {
            let source = spec?.get(kind.0).filter(|source| !source.is_null())?;
            Some((kind, source.clone()))
        });
        let Some(((kind, least, per_gib), source)) = source else {
            let why = "No recycler plugin found for the volume!";
            self.fail_volume(ctx, volume, "VolumeFailedRecycle", why).await?;
            return Ok(Requeue::No);
        };
        let now = ctx.env().monotonic();
        if let Some((due, _)) = self.recycling.lock().get(&name).filter(|(due, _)| *due > now) {
            return Ok(Requeue::After(*due - now));
        }
        let gib = volume.capacity().value() / (1 << 30);
        let seconds = (gib * per_gib).max(*least);
        let scrubber = scrubber(&pod_key, kind, source, seconds);
        match ctx.client().create(&resources::PODS, &scrubber).await {
            Err(error) if error.is_already_exists() => Ok(Requeue::After(FIRST_PAUSE)),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(Requeue::No),
        }
    }

    /// Looks how far the pod is.
    async fn scrubbed(&self, ctx: &ReconcileContext, volume: Volume, pod: &Object) -> Result<Requeue, ReconcileError> {
        let value = pod.to_value();
        let outcome = match value.str_at(&["status", "phase"]) {
            _ if pod.is_deleting() => return Ok(Requeue::No),
            Some("Succeeded") => Ok(()),
            Some("Failed") => {
                let why = value.str_at(&["status", "message"]).filter(|why| !why.is_empty());
                Err(why.unwrap_or("pod failed, pod.Status.Message unknown").to_owned())
            }
            _ => return Ok(Requeue::No),
        };
        let name = volume.name().to_owned();
        if let Err(why) = outcome {
            let now = ctx.env().monotonic();
            {
                let mut recycling = self.recycling.lock();
                let (due, pause) = recycling.entry(name.clone()).or_insert((now, FIRST_PAUSE / 2));
                *pause = (*pause * 2).min(LAST_PAUSE);
                *due = now + *pause;
            }
            self.fail_volume(
                ctx,
                volume,
                "VolumeFailedRecycle",
                &format!("Recycle failed: failed to recycle volume: {why}"),
            )
            .await?;
            self.remove(ctx, pod).await?;
            return Ok(Requeue::No);
        }
        self.recycling.lock().remove(&name);
        // Before the volume may be claimed again: a pod that has ended speaks for one scrubbing only.
        self.remove(ctx, pod).await?;
        self.recorder.normal(&volume.object, "VolumeRecycled", "Volume recycled");
        self.unbind(ctx, volume).await?;
        Ok(Requeue::No)
    }

    async fn remove(&self, ctx: &ReconcileContext, pod: &Object) -> Result<(), ReconcileError> {
        Ok(ctx.client().delete(&resources::PODS, pod.key(), &DeleteOptions::uid(pod.uid())).await.ignore_not_found()?)
    }

    /// Pods that still use the claim which the volume was for. Where there is another claim of that name, they use that one's volume.
    fn users(&self, volume: &Volume) -> Vec<String> {
        let gone = volume.claim_ref().filter(|claim| self.claims.get(&claim.key()).is_none());
        let Some(claim) = gone else { return Vec::new() };
        let pods = self.pods.by_index(CLAIM_INDEX, &claim.key().to_string());
        pods.iter().filter(|pod| !is_terminated(&pod.to_value())).map(|pod| pod.key().to_string()).collect()
    }
}

fn scrubber(key: &ObjectKey, kind: &str, source: Value, seconds: i64) -> Value {
    let mut volume = Value::object();
    volume.set(&["name"], "vol");
    volume.set(&[kind], source);
    let mut mount = Value::object();
    mount.set(&["name"], "vol");
    mount.set(&["mountPath"], "/scrub");
    let mut container = Value::object();
    container.set(&["name"], "pv-recycler");
    container.set(&["image"], IMAGE);
    container.set(&["command"], vec!["/bin/sh"]);
    container.set(&["args"], vec!["-c", SCRUB]);
    container.set(&["volumeMounts"], vec![mount]);
    let mut pod = Value::object();
    pod.set(&["apiVersion"], "v1");
    pod.set(&["kind"], "Pod");
    pod.set(&["metadata", "name"], &*key.name);
    pod.set(&["metadata", "namespace"], &*key.namespace);
    pod.set(&["spec", "activeDeadlineSeconds"], seconds);
    pod.set(&["spec", "restartPolicy"], "Never");
    pod.set(&["spec", "volumes"], vec![volume]);
    pod.set(&["spec", "containers"], vec![container]);
    pod
}
