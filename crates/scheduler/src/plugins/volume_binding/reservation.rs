//! Volumes and claims on their way to each other: assumed, written, waited for.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::{PatchKind, resources};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rules::NodeLabels;

use super::{Io, Plan};
use crate::cluster::Cluster;
use crate::framework::Reservation;
use crate::node::{Facts, NodeInfo};
use crate::pod::PodInfo;
use crate::storage::{BOUND_BY_CONTROLLER, Claim, ClaimReference, SELECTED_NODE, Volume};

/// What a pod's claims will have.
pub(super) struct Reserved {
    io: Io,
    cluster: Arc<Cluster>,
    timeout: Duration,
    node: Arc<Facts>,
    bindings: Vec<Bound>,
    /// Claims to be provisioned on the node.
    provisions: Vec<ObjectKey>,
}

/// A volume for a claim.
struct Bound {
    claim: ObjectKey,
    volume: ObjectKey,
    /// What the volume is to say; `None`: it does already.
    patch: Option<Value>,
}

/// The volume as if it were bound to the claim, and the patch that makes it so.
fn bind(volume: &Volume, claim: &Claim) -> Option<(Volume, Value)> {
    let wanted = ClaimReference { key: claim.key.clone(), uid: claim.uid.clone() };
    let by_us = !volume.is_for(claim);
    if volume.claim.as_ref() == Some(&wanted) && (!by_us || volume.by_controller) {
        return None;
    }
    let mut patch = Value::object();
    patch.set(&["metadata", "resourceVersion"], volume.revision.to_string());
    let revision = claim.revision.to_string();
    let reference = [
        ("apiVersion", "v1"),
        ("kind", "PersistentVolumeClaim"),
        ("name", claim.key.name.as_str()),
        ("namespace", claim.key.namespace.as_str()),
        ("uid", claim.uid.as_str()),
        ("resourceVersion", revision.as_str()),
    ];
    reference.into_iter().for_each(|(field, text)| patch.set(&["spec", "claimRef", field], text));
    if by_us {
        patch.set(&["metadata", "annotations", BOUND_BY_CONTROLLER], "yes");
    }
    Some((volume.bound(wanted, by_us || volume.by_controller), patch))
}

impl Reserved {
    /// Takes the plan's volumes and claims, so that no other pod does.
    pub fn assume(
        io: Io,
        cluster: Arc<Cluster>,
        timeout: Duration,
        plan: &Plan,
        node: &NodeInfo,
    ) -> Result<Reserved, String> {
        let mut reserved =
            Reserved { io, cluster, timeout, node: node.facts().clone(), bindings: Vec::new(), provisions: Vec::new() };
        reserved.take(plan).inspect_err(|_| reserved.restore())?;
        Ok(reserved)
    }

    fn take(&mut self, plan: &Plan) -> Result<(), String> {
        for (claim, volume) in &plan.bindings {
            let key = ObjectKey::cluster(&volume.name);
            let mut patch = None;
            if let Some((bound, change)) = bind(volume, claim) {
                if !self.cluster.volumes.assume(&key, volume, Arc::new(bound)) {
                    return Err(format!("persistentvolume {:?} changed", key.name));
                }
                patch = Some(change);
            }
            self.bindings.push(Bound { claim: claim.key.clone(), volume: key, patch });
        }
        for claim in &plan.provisions {
            let key = claim.key.clone();
            let chosen = Arc::new(claim.on(self.node.name()));
            if !self.cluster.claims.assume(&key, claim, chosen) {
                return Err(format!("persistentvolumeclaim {:?} changed", key.name));
            }
            self.provisions.push(key);
        }
        Ok(())
    }

    fn restore(&self) {
        self.bindings.iter().for_each(|bound| self.cluster.volumes.restore(&bound.volume));
        self.provisions.iter().for_each(|claim| self.cluster.claims.restore(claim));
    }

    /// Writes; returns the revisions after which the copies here know of it.
    async fn write(&self, node: &str) -> Result<Vec<(ObjectKey, bool, u64)>, client::Error> {
        let mut written = Vec::new();
        for bound in &self.bindings {
            if let Some(patch) = &bound.patch {
                let client = &self.io.client;
                let object =
                    client.patch(&resources::PERSISTENT_VOLUMES, &bound.volume, PatchKind::Merge, patch).await?;
                written.push((bound.volume.clone(), true, object.revision()));
            }
        }
        for key in &self.provisions {
            let mut patch = Value::object();
            if let Some((_, revision)) = self.cluster.claims.seen(key) {
                patch.set(&["metadata", "resourceVersion"], revision.to_string());
            }
            patch.set(&["metadata", "annotations", SELECTED_NODE], node);
            let claims = &resources::PERSISTENT_VOLUME_CLAIMS;
            let object = self.io.client.patch(claims, key, PatchKind::Merge, &patch).await?;
            written.push((key.clone(), false, object.revision()));
        }
        Ok(written)
    }

    /// Whether all is bound; an error: it won't be.
    fn is_done(&self, node: &str, written: &[(ObjectKey, bool, u64)]) -> Result<bool, String> {
        for (key, volume, revision) in written {
            let known = if *volume {
                self.cluster.volumes.seen(key).map(|(_, revision)| revision)
            } else {
                self.cluster.claims.seen(key).map(|(_, revision)| revision)
            };
            match known {
                None => {
                    let kind = if *volume { "persistentvolume" } else { "persistentvolumeclaim" };
                    return Err(format!("failed to check binding: could not find {kind} {:?}", key.name));
                }
                Some(known) if known < *revision => return Ok(false),
                Some(_) => {}
            }
        }
        for bound in &self.bindings {
            let name = &bound.volume.name;
            let (volume, _) =
                self.cluster.volumes.seen(&bound.volume).ok_or("failed to check binding: volume is gone")?;
            self.reachable(&volume, node)?;
            if volume.claim.as_ref().is_none_or(|reference| reference.uid.is_empty()) {
                return Err(format!("ClaimRef got reset for pv {name:?}"));
            }
            let claim = self.cluster.claims.seen(&bound.claim);
            let (claim, _) = claim.ok_or("failed to check binding: claim is gone")?;
            if !claim.is_bound() {
                return Ok(false);
            }
        }
        for key in &self.provisions {
            let found = self.cluster.claims.seen(key);
            let (claim, _) = found.ok_or("failed to check provisioning pvc: claim is gone")?;
            match claim.selected_node.as_deref() {
                Some(chosen) if chosen == node => {}
                Some(_) => return Err(format!("provisioning failed for PVC {:?}", key.name)),
                None if !claim.annotated => {
                    return Err(format!("selectedNode annotation reset for PVC {:?}", key.name));
                }
                None => return Err(format!("provisioning failed for PVC {:?}", key.name)),
            }
            if !claim.volume.is_empty() {
                let Some((volume, _)) = self.cluster.volumes.seen(&ObjectKey::cluster(&claim.volume)) else {
                    return Ok(false);
                };
                self.reachable(&volume, node)?;
            }
            if !claim.is_bound() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn reachable(&self, volume: &Volume, node: &str) -> Result<(), String> {
        if volume.reaches(&*self.node) {
            return Ok(());
        }
        let name = &volume.name;
        Err(format!("pv {name:?} node affinity doesn't match node {node:?}: no matching NodeSelectorTerms"))
    }

    async fn wait(&self, node: &str, written: &[(ObjectKey, bool, u64)]) -> Result<(), String> {
        let mut changes = self.io.changes.follow();
        loop {
            changes.mark_unchanged();
            if self.is_done(node, written)? {
                return Ok(());
            }
            if changes.changed().await.is_err() {
                return Err("the scheduler ends".into());
            }
        }
    }
}

impl Reservation for Reserved {
    fn plugin(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_bind<'a>(&'a self, _: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            let written = self.write(node).await.map_err(|error| error.to_string())?;
            match self.io.client.env().timeout(self.timeout, self.wait(node, &written)).await {
                Some(done) => done.map_err(|error| format!("binding volumes: {error}")),
                None => Err("binding volumes: context deadline exceeded".into()),
            }
        }
        .boxed()
    }

    fn undo(&self, _: &PodInfo) {
        self.restore();
    }
}
