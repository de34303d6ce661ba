//! Volumes of CSI drivers are attached to the nodes whose pods use them, and detached when none does. Upstream:
//! pkg/controller/volume/attachdetach, with the CSI plugin's attacher.
//!
//! VolumeAttachments are the record: what a driver attached is there, so a restart loses nothing.

mod pods;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, EventRecorder, IgnoreNotFound, Informer, PatchKind, ReconcileContext,
    ReconcileError, Requeue, Resource, Watch, resources,
};
use env::Env;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::Setup;
use crate::meta::{NODE_INDEX, by_node, created, node_of};
use crate::pod_garbage::{has_out_of_service, is_ready};
use crate::storage::{CLAIM_INDEX, by_claim, claims_of};
use pods::{Attachable, Wanted};

const ATTACHMENTS: Resource = Resource::cluster("storage.k8s.io", "v1", "volumeattachments");
const DRIVERS: Resource = Resource::cluster("storage.k8s.io", "v1", "csidrivers");
/// On a node: its kubelet leaves attaching to this controller.
const MANAGED: &str = "volumes.kubernetes.io/controller-managed-attach-detach";
/// How long a volume may stay mounted on a node that does not report before it is detached all the same.
const MAX_MOUNTED: Duration = Duration::from_secs(360);
/// How long a driver may take before pods are told that it does not attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(120);
/// VolumeAttachments by their node, and by their volume.
const OF_NODE: &str = "node";
const OF_VOLUME: &str = "volume";

pub(crate) struct AttachDetach {
    nodes: Informer,
    pods: Informer,
    claims: Informer,
    volumes: Informer,
    attachments: Informer,
    drivers: Informer,
    events: EventRecorder,
    /// Since when an attachment is wanted no longer, by its name.
    unwanted: Mutex<BTreeMap<String, Instant>>,
    /// What pods were told last, by the name of the attachment.
    told: Mutex<BTreeMap<String, String>>,
}

impl AttachDetach {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.informers.of(&resources::PODS);
        pods.index(NODE_INDEX, by_node);
        pods.index(CLAIM_INDEX, by_claim);
        let attachments = setup.informers.of(&ATTACHMENTS);
        attachments.index(OF_NODE, |attachment| vec![node_name(attachment)]);
        attachments.index(OF_VOLUME, |attachment| volume_name(attachment).into_iter().collect());
        AttachDetach {
            nodes: setup.informers.of(&resources::NODES),
            pods,
            claims: setup.informers.of(&resources::PERSISTENT_VOLUME_CLAIMS),
            volumes: setup.informers.of(&resources::PERSISTENT_VOLUMES),
            attachments,
            drivers: setup.informers.of(&DRIVERS),
            events: setup.recorder("attachdetach-controller", "attachdetach-controller"),
            unwanted: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// How long the volume is still left to its node; `None`: it may go.
    fn wait(
        &self,
        ctx: &ReconcileContext,
        node: Option<&Value>,
        attachment: &str,
        volume: &Attachable,
    ) -> Option<Duration> {
        let now = ctx.env().monotonic();
        let since = *self.unwanted.lock().entry(attachment.to_owned()).or_insert(now);
        let name = volume.unique_name();
        let in_use = node.is_none_or(|node| {
            node.items_at(&["status", "volumesInUse"]).iter().any(|used| used.as_str() == Some(&name))
        });
        if !in_use || node.is_some_and(has_out_of_service) {
            return None;
        }
        // As long as the node is well, it will unmount it, and say so.
        let left = (since + MAX_MOUNTED).saturating_duration_since(now);
        let is_well = node.is_some_and(is_ready);
        match is_well {
            false if left.is_zero() => None,
            true if left.is_zero() => Some(MAX_MOUNTED),
            _ => Some(left),
        }
    }

    /// Asks for a volume that the node is to have; it tells when to look again. What the node's status had `reported` as attached, pods
    /// know.
    async fn attach(
        &self,
        ctx: &ReconcileContext,
        node: &str,
        name: &str,
        wanted: &Wanted,
        reported: bool,
    ) -> Result<Option<Duration>, ReconcileError> {
        let volume = &wanted.volume;
        if let Some(attachment) = self.attachments.get(&ObjectKey::cluster(name)) {
            return Ok(self.tell(ctx.env(), &attachment, wanted, reported));
        }
        if !volume.is_shared {
            let elsewhere = self.attachments.by_index(OF_VOLUME, &volume.name);
            let nodes: Vec<String> =
                elsewhere.iter().map(|other| node_name(other)).filter(|other| other != node).collect();
            if !nodes.is_empty() {
                self.tell_multi_attach(name, wanted, &nodes);
                return Ok(None);
            }
        }
        let mut attachment = Value::object();
        attachment.set(&["apiVersion"], "storage.k8s.io/v1");
        attachment.set(&["kind"], "VolumeAttachment");
        attachment.set(&["metadata", "name"], name);
        attachment.set(&["spec", "attacher"], &*volume.driver);
        attachment.set(&["spec", "nodeName"], node);
        attachment.set(&["spec", "source", "persistentVolumeName"], &*volume.name);
        match ctx.client().create(&ATTACHMENTS, &attachment).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => {
                self.told.lock().remove(name);
                Ok(None)
            }
        }
    }

    /// Whoever waits for the volume is told how its attaching ended, or again and again that it takes too long.
    fn tell(&self, env: &Env, attachment: &Object, wanted: &Wanted, reported: bool) -> Option<Duration> {
        if attachment.is_deleting() {
            return None;
        }
        let value = attachment.to_value();
        let Attachable { name, driver, handle, .. } = &wanted.volume;
        let is_attached = value.bool_at(&["status", "attached"]) == Some(true);
        let (mut waits, mut mark) = (None, String::new());
        let message = match value.str_at(&["status", "attachError", "message"]) {
            // The space at its end is upstream's.
            _ if is_attached => format!("AttachVolume.Attach succeeded for volume {name:?} "),
            Some(why) => format!("AttachVolume.Attach failed for volume {name:?} : {why}"),
            None => {
                let age = env.now().duration_since(created(attachment));
                let age = Duration::try_from(age).unwrap_or_default().as_secs();
                let turns = age / ATTACH_TIMEOUT.as_secs();
                waits = Some(Duration::from_secs((turns + 1) * ATTACH_TIMEOUT.as_secs() - age));
                if turns == 0 {
                    return waits;
                }
                mark = turns.to_string();
                format!(
                    "AttachVolume.Attach failed for volume {name:?} : timed out waiting for external-attacher of {driver} CSI driver to \
                     attach volume {handle}"
                )
            }
        };
        let mark = format!("{message}{mark}");
        let known = self.told.lock().insert(attachment.name().to_owned(), mark.clone());
        if known.as_ref() == Some(&mark) || is_attached && reported {
            return waits;
        }
        for pod in &wanted.pods {
            match is_attached {
                true => self.events.normal(pod, "SuccessfulAttachVolume", message.clone()),
                false => self.events.warning(pod, "FailedAttachVolume", message.clone()),
            }
        }
        waits
    }

    fn tell_multi_attach(&self, attachment: &str, wanted: &Wanted, nodes: &[String]) {
        let users: Vec<_> =
            nodes.iter().flat_map(|node| self.wanted(node).remove(&wanted.volume.attachment(node))).collect();
        let users: Vec<&Arc<Object>> = users.iter().flat_map(|user| &user.pods).collect();
        if self.told.lock().insert(attachment.to_owned(), "multi-attach".to_owned()).as_deref() == Some("multi-attach")
        {
            return;
        }
        for pod in &wanted.pods {
            let (here, others): (Vec<&Arc<Object>>, Vec<&Arc<Object>>) =
                users.iter().copied().partition(|user| user.namespace() == pod.namespace());
            let names: Vec<&str> = here.iter().map(|user| user.name()).collect();
            let why = match (names.is_empty(), others.len()) {
                (true, 0) => {
                    "Volume is already exclusively attached to one node and can't be attached to another".to_owned()
                }
                (true, n) => format!("Volume is already used by {n} pod(s) in different namespaces"),
                (false, 0) => format!("Volume is already used by pod(s) {}", names.join(", ")),
                (false, n) => {
                    format!(
                        "Volume is already used by pod(s) {} and {n} pod(s) in different namespaces",
                        names.join(", ")
                    )
                }
            };
            let message = format!("Multi-Attach error for volume {:?} {why}", wanted.volume.name);
            self.events.warning(pod, "FailedAttachVolume", message);
        }
    }

    /// Says in the node's status what is attached to it.
    async fn report(&self, ctx: &ReconcileContext, node: &Value, attached: Vec<String>) -> Result<(), ReconcileError> {
        let before = node.items_at(&["status", "volumesAttached"]);
        let is_csi =
            |volume: &Value| volume.str_at(&["name"]).is_some_and(|name| name.starts_with("kubernetes.io/csi/"));
        let mut after: Vec<Value> = before.iter().filter(|volume| !is_csi(volume)).cloned().collect();
        let mut names: Vec<String> = attached;
        names.sort();
        after.extend(names.into_iter().map(|name| {
            let mut volume = Value::object();
            volume.set(&["name"], name);
            volume.set(&["devicePath"], "");
            volume
        }));
        if after == before {
            return Ok(());
        }
        let name = node.str_at(&["metadata", "name"]).unwrap_or_default();
        let mut patch = Value::object();
        patch.set(&["status", "volumesAttached"], if after.is_empty() { Value::Null } else { Value::Array(after) });
        let key = ObjectKey::cluster(name);
        Ok(ctx.client().patch_status(&resources::NODES, &key, PatchKind::Merge, &patch).await.ignore_not_found()?)
    }
}

fn node_name(attachment: &Object) -> String {
    attachment.to_value().str_at(&["spec", "nodeName"]).unwrap_or_default().to_owned()
}

fn volume_name(attachment: &Object) -> Option<String> {
    attachment.to_value().str_at(&["spec", "source", "persistentVolumeName"]).map(str::to_owned)
}

/// The name of the attachment of a volume, known to its driver by `handle`, to a node.
fn attachment_name(handle: &str, driver: &str, node: &str) -> String {
    let sum = Sha256::digest(format!("{handle}{driver}{node}"));
    sum.iter().fold("csi-".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

impl Controller for AttachDetach {
    fn name(&self) -> &'static str {
        "persistentvolume-attach-detach-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_pod = |event: &Event| {
            let states = [Some(event.object()), event.old()].into_iter().flatten();
            let users = states.filter(|pod| !claims_of(pod).is_empty());
            let mut nodes: Vec<_> = users.filter_map(|pod| node_of(pod)).map(ObjectKey::cluster).collect();
            nodes.dedup();
            nodes
        };
        let users = {
            let pods = self.pods.clone();
            move |claim: &ObjectKey| {
                let pods = pods.by_index(CLAIM_INDEX, &claim.to_string());
                pods.iter().filter_map(|pod| node_of(pod)).map(ObjectKey::cluster).collect::<Vec<_>>()
            }
        };
        let of_claim = {
            let users = users.clone();
            move |event: &Event| users(event.object().key())
        };
        let of_volume = {
            let users = users.clone();
            move |event: &Event| claim_of(event.object()).map(|claim| users(&claim)).unwrap_or_default()
        };
        // When one node gives a volume up, another may wait for it.
        let of_attachment = {
            let volumes = self.volumes.clone();
            move |event: &Event| {
                let mut nodes = vec![ObjectKey::cluster(node_name(event.object()))];
                if matches!(event, Event::Deleted(_)) {
                    let volume = volume_name(event.object()).and_then(|name| volumes.get(&ObjectKey::cluster(name)));
                    nodes.extend(
                        volume.and_then(|volume| claim_of(&volume)).map(|claim| users(&claim)).unwrap_or_default(),
                    );
                }
                nodes
            }
        };
        let of_driver = {
            let pods = self.pods.clone();
            move |_: &Event| {
                let users = pods.list("").into_iter().filter(|pod| !claims_of(pod).is_empty());
                let mut nodes: Vec<_> = users.filter_map(|pod| node_of(&pod)).map(ObjectKey::cluster).collect();
                nodes.sort();
                nodes.dedup();
                nodes
            }
        };
        let of_node = |event: &Event| {
            let same = event.old().is_some_and(|old| seen(old) == seen(event.object()));
            if same { Vec::new() } else { vec![event.object().key().clone()] }
        };
        vec![
            Watch::new(self.nodes.clone(), of_node),
            Watch::new(self.pods.clone(), of_pod),
            Watch::new(self.claims.clone(), of_claim),
            Watch::new(self.volumes.clone(), of_volume),
            Watch::new(self.attachments.clone(), of_attachment),
            Watch::new(self.drivers.clone(), of_driver),
        ]
    }

    /// Brings the attachments of one node nearer to what its pods use.
    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let node = self.nodes.get(key);
        let value = node.as_ref().map(|node| node.to_value());
        let managed =
            value.as_ref().is_none_or(|node| node.str_at(&["metadata", "annotations", MANAGED]) == Some("true"));
        if !managed {
            return Ok(Requeue::No);
        }
        let wanted = if node.is_some() { self.wanted(&key.name) } else { BTreeMap::new() };
        let mut attached = Vec::new();
        let mut next: Option<Duration> = None;
        let mut going = Vec::new();
        for attachment in self.attachments.by_index(OF_NODE, &key.name) {
            let Some(volume) = self.attachable_of(&attachment).filter(|v| v.attachment(&key.name) == attachment.name())
            else {
                continue;
            };
            let status = attachment.to_value();
            let is_attached = status.bool_at(&["status", "attached"]) == Some(true);
            if wanted.contains_key(attachment.name()) && !attachment.is_deleting() {
                self.unwanted.lock().remove(attachment.name());
                if is_attached {
                    attached.push(volume.unique_name());
                }
                continue;
            }
            if attachment.is_deleting() {
                continue;
            }
            match self.wait(ctx, value.as_ref(), attachment.name(), &volume) {
                Some(left) => {
                    next = [next, Some(left)].into_iter().flatten().min();
                    if is_attached {
                        attached.push(volume.unique_name());
                    }
                }
                None => going.push(attachment),
            }
        }
        // What is taken away is no longer told as attached before it is.
        if let Some(node) = &value {
            self.report(ctx, node, attached).await?;
        }
        for attachment in going {
            let outcome =
                ctx.client().delete(&ATTACHMENTS, attachment.key(), &DeleteOptions::uid(attachment.uid())).await;
            if let Err(error) = outcome
                && !error.is_not_found()
                && !error.is_conflict()
            {
                return Err(error.into());
            }
            self.unwanted.lock().remove(attachment.name());
        }
        let known = value.as_ref().map(|node| node.items_at(&["status", "volumesAttached"])).unwrap_or_default();
        for (name, wanted) in &wanted {
            let unique = wanted.volume.unique_name();
            let reported = known.iter().any(|volume| volume.str_at(&["name"]) == Some(&unique));
            let waits = self.attach(ctx, &key.name, name, wanted, reported).await?;
            next = [next, waits].into_iter().flatten().min();
        }
        Ok(next.map_or(Requeue::No, Requeue::After))
    }
}

/// What this controller looks at in a node.
fn seen(node: &Object) -> (bool, bool, Vec<Value>, Vec<Value>, Option<String>) {
    let value = node.to_value();
    let list = |key| value.items_at(&["status", key]).to_vec();
    let managed = value.str_at(&["metadata", "annotations", MANAGED]).map(str::to_owned);
    (is_ready(&value), has_out_of_service(&value), list("volumesInUse"), list("volumesAttached"), managed)
}

/// The claim that the volume is bound to.
fn claim_of(volume: &Object) -> Option<ObjectKey> {
    let value = volume.to_value();
    let text = |key| value.str_at(&["spec", "claimRef", key]);
    Some(ObjectKey::new(text("namespace")?, text("name")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_called_as_upstream_calls_them() {
        // echo -n "handledrivernode" | sha256sum
        let expect = "csi-fdef298eb16db6fa42906ef1ff09a93a7f3028f8290cc9d71628ff91c237bfa7";
        assert_eq!(attachment_name("handle", "driver", "node"), expect);
    }
}
