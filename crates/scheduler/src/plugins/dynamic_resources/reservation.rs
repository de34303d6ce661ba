//! A pod's claims on their way: promised at once, written before the pod is bound.

use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use client::{Error, PatchKind};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim, ResourceClaimStatus};
use parking_lot::Mutex;
use rules::devices::{CLAIM_FINALIZER, devices_of, is_allocated, is_reserved_for};

use crate::cluster::{Cluster, RESOURCE_CLAIMS, view};
use crate::framework::Reservation;
use crate::plugins::volume_binding::Io;
use crate::pod::PodInfo;

/// How often a write is tried that others get in the way of.
const TRIES: usize = 5;

/// A claim of the pod.
pub(super) struct Reserving {
    key: ObjectKey,
    /// As last seen.
    claim: Mutex<Arc<ResourceClaim>>,
    /// What it is to get; `None`: it has it.
    allocation: Option<AllocationResult>,
}

impl Reserving {
    pub fn new(key: ObjectKey, claim: Arc<ResourceClaim>, allocation: Option<AllocationResult>) -> Reserving {
        Reserving { key, claim: Mutex::new(claim), allocation }
    }
}

pub(super) struct Reserved {
    io: Io,
    cluster: Arc<Cluster>,
    claims: Vec<Reserving>,
}

/// The beginning of a patch that holds for this state of the claim only.
pub(super) fn at_revision(claim: &ResourceClaim) -> Value {
    let mut patch = Value::object();
    patch.set(&["metadata", "uid"], claim.metadata.uid.as_deref().unwrap_or_default());
    patch.set(&["metadata", "resourceVersion"], claim.metadata.resource_version.as_deref().unwrap_or_default());
    patch
}

impl Reserved {
    /// From here on nobody else gets the devices.
    pub fn assume(io: Io, cluster: Arc<Cluster>, claims: Vec<Reserving>) -> Reserved {
        for reserving in &claims {
            if let Some(allocation) = &reserving.allocation {
                let status = ResourceClaimStatus { allocation: Some(allocation.clone()), ..Default::default() };
                let promised = ResourceClaim { status: Some(status), ..ResourceClaim::default() };
                cluster.devices.begin(reserving.key.clone(), devices_of(&promised));
            }
        }
        Reserved { io, cluster, claims }
    }

    /// Writes allocation and reservation. Upstream: bindClaim.
    async fn write(&self, reserving: &Reserving, pod: &PodInfo) -> Result<(), String> {
        let mut claim = reserving.claim.lock().clone();
        let mut tries = 1;
        loop {
            match self.try_write(reserving, &claim, pod).await {
                Ok(()) => return Ok(()),
                Err((error, what)) if error.is_conflict() && tries < TRIES => {
                    tracing::debug!(claim = %reserving.key, what, "a claim changed meanwhile");
                    tries += 1;
                    let fresh = self.io.client.get(&RESOURCE_CLAIMS, &reserving.key).await;
                    let fresh = fresh
                        .map_err(|error| format!("get updated claim {} after conflict: {error}", reserving.key))?;
                    claim = Arc::new(view(&fresh).ok_or("it is no claim")?);
                }
                Err((error, "")) => return Err(error.to_string()),
                Err((error, what)) => return Err(format!("{what} claim {}: {error}", reserving.key)),
            }
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(format!("claim {} got deleted in the meantime", reserving.key));
            }
            if reserving.allocation.is_some() && is_allocated(&claim) {
                return Err(format!("claim {} got allocated elsewhere in the meantime", reserving.key));
            }
        }
    }

    async fn try_write(
        &self,
        reserving: &Reserving,
        claim: &ResourceClaim,
        pod: &PodInfo,
    ) -> Result<(), (Error, &'static str)> {
        let client = &self.io.client;
        let mut patch = at_revision(claim);
        let mut finalizers = claim.metadata.finalizers.clone().unwrap_or_default();
        if reserving.allocation.is_some() && !finalizers.iter().any(|held| held == CLAIM_FINALIZER) {
            finalizers.push(CLAIM_FINALIZER.to_owned());
            let mut finalize = patch.clone();
            finalize.set(&["metadata", "finalizers"], finalizers);
            let written = client.patch(&RESOURCE_CLAIMS, &reserving.key, PatchKind::Merge, &finalize).await;
            let written = written.map_err(|error| (error, "add finalizer to"))?;
            patch.set(&["metadata", "resourceVersion"], written.revision().to_string());
        }
        if let Some(allocation) = &reserving.allocation {
            let allocation = Value::from_serialize(allocation).expect("an allocation is plain data");
            patch.set(&["status", "allocation"], allocation);
        }
        let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref()).into_iter().flatten();
        let mut users: Vec<Value> = users.filter_map(|user| Value::from_serialize(user).ok()).collect();
        let mut user = Value::object();
        user.set(&["resource"], "pods");
        user.set(&["name"], pod.key.name.as_str());
        user.set(&["uid"], pod.uid.as_str());
        users.push(user);
        patch.set(&["status", "reservedFor"], users);
        let what =
            if reserving.allocation.is_some() { "add allocation and reservation to" } else { "add reservation to" };
        let written = client.patch_status(&RESOURCE_CLAIMS, &reserving.key, PatchKind::Merge, &patch).await;
        let written = written.map_err(|error| (error, what))?;
        if let Some(claim) = view::<ResourceClaim>(&written) {
            let claim = Arc::new(claim);
            *reserving.claim.lock() = claim.clone();
            self.cluster.follow_claim(&reserving.key, Some(claim), written.revision());
        }
        Ok(())
    }
}

impl Reservation for Reserved {
    fn plugin(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_bind<'a>(&'a self, pod: &'a PodInfo, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for reserving in &self.claims {
                if is_reserved_for(&reserving.claim.lock(), &pod.uid) {
                    continue;
                }
                let done = self.write(reserving, pod).await;
                self.cluster.devices.end(&reserving.key);
                done?;
            }
            Ok(())
        }
        .boxed()
    }

    fn undo(&self, pod: &PodInfo) {
        for reserving in &self.claims {
            if reserving.allocation.is_some() {
                self.cluster.devices.end(&reserving.key);
            }
            let claim = reserving.claim.lock().clone();
            if !is_allocated(&claim) || !is_reserved_for(&claim, &pod.uid) {
                continue;
            }
            let mut user = Value::object();
            user.set(&["$patch"], "delete");
            user.set(&["uid"], pod.uid.as_str());
            let mut patch = Value::object();
            patch.set(&["metadata", "uid"], claim.metadata.uid.as_deref().unwrap_or_default());
            patch.set(&["status", "reservedFor"], vec![user]);
            let (client, key) = (self.io.client.clone(), reserving.key.clone());
            self.io.client.env().spawn(async move {
                if let Err(error) = client.patch_status(&RESOURCE_CLAIMS, &key, PatchKind::Strategic, &patch).await {
                    tracing::warn!(claim = %key, %error, "taking a reservation back");
                }
            });
        }
    }
}
