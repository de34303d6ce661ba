//! Pods leave devices whose `NoExecute` taints their claims do not tolerate, or no longer. Upstream: pkg/controller/devicetainteviction, without
//! DeviceTaintRules; runs only where devices have taints (upstream's gate DRADeviceTaints, off by default).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Object, ObjectKey};
use client::{
    Controller, Event, EventRecorder, EventType, Informer, ObjectReference, ReconcileContext, ReconcileError, Requeue,
    Resource, Watch, resources,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::resource::v1::{
    DeviceRequestAllocationResult, DeviceTaint, ResourceClaim as Claim, ResourceSlice as Slice,
};
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::{between, is_controller, node_of, parsed};
use crate::resource_claim::{CLAIMS, entries, has_claims, is_reserved};
use crate::taint_eviction::evict;

const SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");
/// Slices, and claims that have devices, by `driver/pool`.
const POOL_INDEX: &str = "device-pools";
const REASON: &str = "DeviceTaintManagerEviction";
const NAME: &str = "device-taint-eviction-controller";

pub(crate) struct DeviceTaintEviction {
    pods: Informer,
    claims: Informer,
    slices: Informer,
    events: EventRecorder,
    /// The uids of pods that are to leave.
    leaving: Mutex<BTreeMap<ObjectKey, String>>,
}

impl DeviceTaintEviction {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let claims = setup.informers.of(&CLAIMS);
        claims.index(POOL_INDEX, pools_of_claim);
        let slices = setup.informers.of(&SLICES);
        slices.index(POOL_INDEX, |slice| vec![pool_of(slice)]);
        DeviceTaintEviction {
            pods: setup.informers.of(&resources::PODS),
            claims,
            slices,
            events: setup.recorder(NAME, NAME),
            leaving: Mutex::default(),
        }
    }

    /// When the pod has to leave. Upstream: podEvictionTime.
    fn due(&self, pod: &Object) -> Result<Option<Timestamp>, ReconcileError> {
        let mut due: Option<Timestamp> = None;
        let value = parsed(pod);
        for (name, own) in entries(&value).filter_map(|entry| entry.claim().map(|(name, own)| (name.to_owned(), own))) {
            let Some(claim) = self.claims.get(&ObjectKey::new(pod.namespace(), name)) else { continue };
            if own && !is_controller(claim.controller(), pod) || !is_reserved(&parsed(&claim), pod) {
                continue;
            }
            let allocation = claim.view::<Claim>()?.status.and_then(|status| status.allocation);
            let devices = allocation.and_then(|allocation| allocation.devices);
            for device in devices.iter().flat_map(|devices| devices.results.iter().flatten()) {
                let leaves = self.taints(device)?.into_iter().filter_map(|taint| leaves_at(device, &taint)).min();
                due = due.into_iter().chain(leaves).min();
            }
        }
        Ok(due)
    }

    /// As upstream, of the pod whatever its revision.
    fn tell(&self, pod: &Object, message: &str) {
        let about = ObjectReference { resource_version: String::new(), ..ObjectReference::to(pod) };
        self.events.event(about, EventType::Normal, REASON, message);
    }

    /// Deletes the pod as it is now, unless that is another one, or is going already.
    async fn evict(&self, ctx: &ReconcileContext, pod: &Object) -> Result<(), ReconcileError> {
        let live = ctx.client().find(&resources::PODS, pod.key()).await?;
        let Some(live) = live.filter(|live| live.uid() == pod.uid() && !live.is_deleting()) else { return Ok(()) };
        self.tell(&live, "Marking for deletion");
        let why = ("DeletionByDeviceTaintManager", "Device Taint manager: deleting due to NoExecute taint");
        evict(ctx, &live, why).await
    }

    /// The device's taints, as the newest slices of its pool tell them.
    fn taints(&self, device: &DeviceRequestAllocationResult) -> Result<Vec<DeviceTaint>, ReconcileError> {
        let pool = format!("{}/{}", device.driver, device.pool);
        let slices = self.slices.by_index(POOL_INDEX, &pool);
        let slices = slices.iter().map(|slice| slice.view::<Slice>()).collect::<Result<Vec<_>, _>>()?;
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        let current = slices.into_iter().filter(|slice| Some(slice.spec.pool.generation) == newest);
        let mut devices = current.flat_map(|slice| slice.spec.devices.unwrap_or_default());
        let found = devices.find(|found| found.name == device.device);
        Ok(found.and_then(|found| found.taints).unwrap_or_default())
    }
}

/// The pods that use the claim.
fn users(claim: &Object) -> Vec<ObjectKey> {
    let value = parsed(claim);
    let users = value.items_at(&["status", "reservedFor"]).iter();
    let pods = users.filter(|user| user.str_at(&["resource"]) == Some("pods"));
    pods.filter_map(|user| Some(ObjectKey::new(claim.namespace(), user.str_at(&["name"])?))).collect()
}

/// When a claim's users have to leave because of this taint; `None`: never. Upstream: claimEvictionTime.
fn leaves_at(device: &DeviceRequestAllocationResult, taint: &DeviceTaint) -> Option<Timestamp> {
    if taint.effect != "NoExecute" {
        return None;
    }
    let since = taint.time_added.as_ref()?.0;
    let all = device.tolerations.iter().flatten();
    // One that is for any effect doesn't count here.
    let meant = all.filter(|one| one.effect.as_deref() == Some("NoExecute"));
    let mut shortest: Option<i64> = None;
    for toleration in meant.filter(|one| rules::devices::tolerates(one, taint)) {
        let seconds = toleration.toleration_seconds?.max(0);
        shortest = Some(shortest.map_or(seconds, |known| known.min(seconds)));
    }
    let stay = SignedDuration::from_secs(shortest.unwrap_or_default());
    Some(since.checked_add(stay).unwrap_or(Timestamp::MAX))
}

fn pool_of(slice: &Object) -> String {
    let value = parsed(slice);
    let text = |path: &[&str]| value.str_at(path).unwrap_or_default().to_owned();
    format!("{}/{}", text(&["spec", "driver"]), text(&["spec", "pool", "name"]))
}

fn pools_of_claim(claim: &Object) -> Vec<String> {
    let value = parsed(claim);
    let results = value.items_at(&["status", "allocation", "devices", "results"]).iter();
    let pool =
        |result: &apimachinery::Value| Some(format!("{}/{}", result.str_at(&["driver"])?, result.str_at(&["pool"])?));
    let pools: BTreeSet<String> = results.filter_map(pool).collect();
    pools.into_iter().collect()
}

impl Controller for DeviceTaintEviction {
    fn name(&self) -> &'static str {
        NAME
    }

    fn watches(&self) -> Vec<Watch> {
        let told = |pod: &Object| parsed(pod).at(&["status", "resourceClaimStatuses"]).cloned();
        let of_pod = move |event: &Event| match event {
            Event::Modified { old, new } if node_of(old) == node_of(new) && told(old) == told(new) => Vec::new(),
            event if !has_claims(event.object()) => Vec::new(),
            event => vec![event.object().key().clone()],
        };
        let of_claim = |event: &Event| match event {
            Event::Modified { old, new } => [users(old), users(new)].concat(),
            event => users(event.object()),
        };
        let claims = self.claims.clone();
        let of_slice = move |event: &Event| {
            let claims = claims.by_index(POOL_INDEX, &pool_of(event.object()));
            claims.iter().flat_map(|claim| users(claim)).collect()
        };
        vec![
            Watch::new(self.pods.clone(), of_pod),
            Watch::new(self.claims.clone(), of_claim),
            Watch::new(self.slices.clone(), of_slice),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pod) = self.pods.get(key) else {
            self.leaving.lock().remove(key);
            return Ok(Requeue::No);
        };
        let due = if node_of(&pod).is_some() { self.due(&pod)? } else { None };
        let Some(due) = due else {
            if self.leaving.lock().remove(key).is_some_and(|uid| uid == pod.uid()) {
                self.tell(&pod, "Cancelling deletion");
            }
            return Ok(Requeue::No);
        };
        self.leaving.lock().insert(key.clone(), pod.uid().to_owned());
        let now = ctx.env().now();
        if due > now {
            return Ok(Requeue::After(between(now, due)));
        }
        self.evict(ctx, &pod).await?;
        self.leaving.lock().remove(key);
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn taints_drive_pods_out_in_time() {
        let check = |effect: &str, tolerations: serde_json::Value, expect: Option<i64>| {
            let device = json!({"request": "r", "driver": "d", "pool": "p", "device": "x", "tolerations": tolerations});
            let taint = json!({"key": "k", "value": "v", "effect": effect, "timeAdded": "1970-01-01T00:01:40Z"});
            let (device, taint) = (serde_json::from_value(device).unwrap(), serde_json::from_value(taint).unwrap());
            assert_eq!(leaves_at(&device, &taint).map(Timestamp::as_second), expect);
        };
        let one = |seconds: Option<i64>, effect: &str| json!([{"key": "k", "operator": "Exists", "effect": effect, "tolerationSeconds": seconds}]);
        check("NoExecute", json!([]), Some(100));
        check("NoSchedule", json!([]), None);
        check("NoExecute", one(None, "NoExecute"), None);
        check("NoExecute", one(Some(30), "NoExecute"), Some(130));
        check("NoExecute", one(Some(-5), "NoExecute"), Some(100));
        check("NoExecute", one(None, ""), Some(100));
        check("NoExecute", json!([{"key": "other", "operator": "Exists", "effect": "NoExecute"}]), Some(100));
        let both = json!([{"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60},
            {"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute", "tolerationSeconds": 20}]);
        check("NoExecute", both, Some(120));
    }
}
