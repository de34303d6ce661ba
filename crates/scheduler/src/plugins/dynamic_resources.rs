//! A pod's resource claims must exist and be allocated where it goes; those that aren't yet are given devices there, and are reserved for the pod.
//! Upstream: plugins/dynamicresources.

mod reservation;
mod selectors;
mod tracker;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::PatchKind;
use k8s_openapi::api::resource::v1::{AllocationResult, ResourceClaim};
use parking_lot::Mutex;
use rules::devices::{AllocationError, Allocator, DeviceId, Inventory, MAX_ALTERNATIVES, is_allocated};
use serde::Deserialize;

use crate::cluster::{Cluster, RESOURCE_CLAIMS};
use crate::framework::{
    ClusterEvent, Cycle, Failed, NodeFilter, Plugin, PostFiltered, Prepared, Rejection, Reservation, Scorer,
    normalize_to_max,
};
use crate::node::NodeInfo;
use crate::plugins::volume_binding::Io;
use crate::pod::{ClaimName, PodInfo};
use reservation::{Reserved, Reserving};
use selectors::Cel;
pub(crate) use tracker::Devices;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    /// As Go writes durations; `0s`: no limit.
    filter_timeout: Option<String>,
}

pub struct DynamicResources {
    io: Option<Io>,
    /// What there is before an attempt begins; `None` in tests that only filter.
    cluster: Option<Arc<Cluster>>,
    patience: Option<Duration>,
    cel: Cel,
    /// Made from the slices when they were at this version.
    inventory: Mutex<(u64, Arc<Inventory>)>,
}

/// How long the search on one node may take.
const PATIENCE: Duration = Duration::from_secs(10);

impl DynamicResources {
    pub fn new(args: Args, io: Option<Io>, cluster: Option<Arc<Cluster>>) -> Result<DynamicResources, String> {
        let patience = match args.filter_timeout {
            None => PATIENCE,
            Some(text) => {
                let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| format!("filterTimeout: {error}"))?;
                Duration::try_from(parsed)
                    .map_err(|_| format!("filterTimeout: Invalid value: {text:?}: must be zero or greater"))?
            }
        };
        let patience = Some(patience).filter(|patience| !patience.is_zero());
        Ok(DynamicResources { io, cluster, patience, cel: Cel::default(), inventory: Mutex::default() })
    }

    /// All devices; put in order again only when slices changed.
    fn inventory(&self, cluster: &Cluster) -> Arc<Inventory> {
        let version = cluster.slices.version();
        let mut known = self.inventory.lock();
        if known.0 != version {
            *known = (version, Arc::new(Inventory::new(cluster.slices.list(|_, _| true))));
            self.cel.forget_devices();
        }
        known.1.clone()
    }
}

/// The plugins that are asked before this one and may reject a pod for good.
const BEFORE: [&str; 4] = ["NodeAffinity", "VolumeRestrictions", "VolumeBinding", "VolumeZone"];

/// The pod's claims, or why one of them can't be used. Upstream: foreachPodResourceClaim.
fn claims_of(pod: &PodInfo, cluster: &Cluster) -> Result<Vec<Arc<ResourceClaim>>, String> {
    let mut claims = Vec::new();
    for source in &pod.resource_claims {
        let (name, own) = match &source.claim {
            ClaimName::Unknown => return Err(format!("pod \"{}\": ResourceClaim not created yet", pod.key)),
            ClaimName::Needless => continue,
            ClaimName::Named(name) => (name, false),
            ClaimName::Made(name) => (name, true),
        };
        let key = ObjectKey::new(&pod.key.namespace, name);
        let claim = cluster.resource_claims.get(&key);
        let claim = claim.ok_or_else(|| format!("could not find ResourceClaim \"{key}\""))?;
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("resourceclaim {name:?} is being deleted"));
        }
        let owners = claim.metadata.owner_references.iter().flatten();
        if own && !owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == pod.uid) {
            return Err(format!("ResourceClaim {key} was not created for pod {} (pod is not owner)", pod.key));
        }
        claims.push(claim);
    }
    Ok(claims)
}

/// Whether every class that the claim asks for is there.
fn check_classes(claim: &ResourceClaim, cluster: &Cluster) -> Result<(), Rejection> {
    let check = |class: &str, request: String| {
        if class.is_empty() {
            return Err(Rejection::error(format!("request {request}: unsupported request type")));
        }
        match cluster.device_classes.get(&ObjectKey::cluster(class)) {
            Some(_) => Ok(()),
            None => Err(Rejection::unresolvable(format!("request {request}: device class {class} does not exist"))),
        }
    };
    let devices = claim.spec.devices.as_ref();
    for request in devices.and_then(|devices| devices.requests.as_ref()).into_iter().flatten() {
        match (&request.exactly, &request.first_available) {
            (Some(exactly), _) => check(&exactly.device_class_name, request.name.clone())?,
            (None, Some(options)) if !options.is_empty() => {
                for option in options {
                    check(&option.device_class_name, format!("{}/{}", request.name, option.name))?;
                }
            }
            _ => {
                let claim = key_of(claim);
                let reason = format!("resource claim {claim}, request {}: unknown request type", request.name);
                return Err(Rejection::unresolvable(reason));
            }
        }
    }
    Ok(())
}

fn key_of(claim: &ResourceClaim) -> ObjectKey {
    let meta = &claim.metadata;
    ObjectKey::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        match &self.cluster {
            Some(cluster) if !pod.resource_claims.is_empty() => claims_of(pod, cluster).map(drop),
            _ => Ok(()),
        }
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let (pod, cluster) = (cycle.pod, cycle.cluster);
        if pod.resource_claims.is_empty() {
            return Ok(Prepared::Skip);
        }
        // Looked at first: what ends meanwhile shows in the claims.
        let (taken, pending) = cluster.devices.look();
        let claims = claims_of(pod, cluster).map_err(Rejection::unresolvable)?;
        if claims.is_empty() {
            return Ok(Prepared::Skip);
        }
        let mut open = Vec::new();
        for (index, claim) in claims.iter().enumerate().filter(|(_, claim)| !is_allocated(claim)) {
            let key = key_of(claim);
            if pending.contains_key(&key) {
                let reason = format!("resource claim {key} is in the process of being allocated");
                return Err(Rejection::unresolvable(reason));
            }
            check_classes(claim, cluster)?;
            open.push(index);
        }
        let inventory = if open.is_empty() { Arc::default() } else { self.inventory(cluster) };
        let to_allocate = open.iter().map(|index| claims[*index].clone()).collect();
        let promised = pending.values().flatten().cloned().collect();
        let filter = Filter {
            plugin: self,
            pod,
            cluster,
            claims,
            open,
            to_allocate,
            inventory,
            taken,
            promised,
            results: Mutex::default(),
            unavailable: Mutex::default(),
        };
        Ok(Prepared::Filter(Box::new(filter)))
    }

    fn post_filter(&self, failed: &Failed<'_, '_>) -> Option<PostFiltered> {
        let message = |message: &str| PostFiltered { message: message.into(), ..PostFiltered::default() };
        let Some(filters) = failed.filters else {
            // Upstream's fails when it wasn't asked before, and nobody else is asked then.
            let last = failed.diagnosis.plugins.iter().any(|plugin| BEFORE.contains(plugin));
            let text = if last { "not found" } else { "no new claims to deallocate" };
            return Some(PostFiltered { last, ..message(text) });
        };
        match filters.of(self.name()) {
            None => Some(message("no new claims to deallocate")),
            Some(filter) => Some(message(filter.give_back().unwrap_or("still not schedulable"))),
        }
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, cluster: &Cluster) -> bool {
        match event {
            ClusterEvent::ResourceClaim(change) => {
                let Some(new) = &change.new else { return false };
                let Ok(claims) = claims_of(pod, cluster) else { return false };
                if change.old.as_ref().is_some_and(|old| is_allocated(old)) && !is_allocated(new) {
                    // Its devices may be for anybody.
                    return true;
                }
                claims.iter().any(|claim| claim.metadata.uid == new.metadata.uid)
                    && change.old.as_ref().is_none_or(|old| old.status != new.status)
            }
            ClusterEvent::Own(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => old.resource_claims != new.resource_claims && claims_of(new, cluster).is_ok(),
                _ => true,
            },
            ClusterEvent::Node(change) => match (&change.old, &change.new) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(old), Some(new)) => old.labels() != new.labels() || old.allocatable() != new.allocatable(),
            },
            ClusterEvent::DeviceClass(change) => !change.is_removed(),
            ClusterEvent::ResourceSlice(change) => !change.is_removed(),
            _ => false,
        }
    }
}

/// One pod's claims, during one attempt.
struct Filter<'a> {
    plugin: &'a DynamicResources,
    pod: &'a PodInfo,
    cluster: &'a Arc<Cluster>,
    claims: Vec<Arc<ResourceClaim>>,
    /// Those that have no devices yet.
    open: Vec<usize>,
    to_allocate: Vec<Arc<ResourceClaim>>,
    inventory: Arc<Inventory>,
    /// Devices of allocated claims.
    taken: Arc<HashMap<DeviceId, u32>>,
    /// Devices of claims whose allocation is being written.
    promised: HashSet<DeviceId>,
    /// What the open claims would get, by node.
    results: Mutex<HashMap<String, Arc<Vec<AllocationResult>>>>,
    /// Allocated claims that some node doesn't reach.
    unavailable: Mutex<BTreeSet<usize>>,
}

impl Filter<'_> {
    fn allocate(&self, node: &NodeInfo) -> Result<Option<Vec<AllocationResult>>, AllocationError> {
        let clock = self.plugin.io.as_ref().map(|io| io.client.env());
        let deadline = clock.zip(self.plugin.patience).map(|(env, patience)| env.monotonic() + patience);
        let late = || clock.zip(deadline).is_some_and(|(env, deadline)| env.monotonic() > deadline);
        let allocator = Allocator {
            inventory: &self.inventory,
            taken: &|id| self.taken.contains_key(id) || self.promised.contains(id),
            class: &|name| self.cluster.device_classes.get(&ObjectKey::cluster(name)),
            selectors: &self.plugin.cel,
            late: &late,
        };
        allocator.allocate(node, &self.to_allocate)
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let far = |claim: &ResourceClaim| {
            let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
            let selector = allocation.and_then(|allocation| allocation.node_selector.as_ref());
            selector.is_some_and(|selector| !rules::matches_node_selector(selector, node))
        };
        let unavailable: Vec<usize> = (0..self.claims.len()).filter(|index| far(&self.claims[*index])).collect();
        let mut results = None;
        if !self.open.is_empty() {
            match self.allocate(node) {
                Ok(Some(found)) => results = Some(found),
                Ok(None) => return Err(Rejection::unresolvable("cannot allocate all claims")),
                Err(error @ AllocationError::Broken(_)) => return Err(Rejection::error(error.to_string())),
                Err(error) => return Err(Rejection::unresolvable(error.to_string())),
            }
        }
        if !unavailable.is_empty() {
            self.unavailable.lock().extend(unavailable);
            return Err(Rejection::unresolvable("resourceclaim not available on the node"));
        }
        if let Some(results) = results {
            self.results.lock().insert(node.name().to_owned(), Arc::new(results));
        }
        Ok(())
    }

    fn scorer(&self) -> Option<Box<dyn Scorer + '_>> {
        let options = |claim: &Arc<ResourceClaim>| {
            let devices = claim.spec.devices.as_ref();
            let mut requests = devices.and_then(|devices| devices.requests.as_ref()).into_iter().flatten();
            requests.any(|request| request.first_available.as_ref().is_some_and(|options| !options.is_empty()))
        };
        self.to_allocate.iter().any(options).then(|| Box::new(Alternatives(self)) as Box<dyn Scorer + '_>)
    }

    fn give_back(&self) -> Option<&'static str> {
        let unavailable = self.unavailable.lock();
        let mine = |claim: &&Arc<ResourceClaim>| {
            let users = claim.status.as_ref().and_then(|status| status.reserved_for.as_deref()).unwrap_or_default();
            matches!(users, []) || matches!(users, [only] if only.uid == self.pod.uid)
        };
        let claim = unavailable.iter().map(|index| &self.claims[*index]).find(mine)?;
        if let Some(io) = &self.plugin.io {
            deallocate(io, claim);
        }
        Some("deallocation of ResourceClaim completed")
    }

    fn allocations(&self, node: &NodeInfo) -> Vec<(ObjectKey, AllocationResult)> {
        let results = self.results.lock().get(node.name()).cloned().unwrap_or_default();
        self.to_allocate.iter().map(|claim| key_of(claim)).zip(results.iter().cloned()).collect()
    }

    fn reserve(&self, node: &NodeInfo) -> Result<Option<Box<dyn Reservation>>, Rejection> {
        let Some(io) = &self.plugin.io else { return Ok(None) };
        let mut results = Vec::new();
        if !self.open.is_empty() {
            let found = self.results.lock().remove(node.name());
            let found = found.ok_or_else(|| Rejection::error("claim allocation not found for node"))?;
            results = Arc::unwrap_or_clone(found);
        }
        let mut allocations: HashMap<usize, AllocationResult> = self.open.iter().copied().zip(results).collect();
        let reserving = |(index, claim): (usize, &Arc<ResourceClaim>)| {
            Reserving::new(key_of(claim), claim.clone(), allocations.remove(&index))
        };
        let claims = self.claims.iter().enumerate().map(reserving).collect();
        Ok(Some(Box::new(Reserved::assume(io.clone(), self.cluster.clone(), claims))))
    }
}

/// Takes its devices from a claim that nobody else uses: they are where the pod can't go.
fn deallocate(io: &Io, claim: &ResourceClaim) {
    let mut patch = reservation::at_revision(claim);
    for field in ["allocation", "reservedFor", "devices"] {
        patch.set(&["status", field], Value::Null);
    }
    let (client, key) = (io.client.clone(), key_of(claim));
    io.client.env().spawn(async move {
        if let Err(error) = client.patch_status(&RESOURCE_CLAIMS, &key, PatchKind::Merge, &patch).await {
            tracing::warn!(claim = %key, %error, "deallocating a claim");
        }
    });
}

/// Nodes where earlier alternatives can be had are better.
struct Alternatives<'f>(&'f Filter<'f>);

impl Scorer for Alternatives<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let Some(results) = self.0.results.lock().get(node.name()).cloned() else { return 0 };
        let pairs = self.0.to_allocate.iter().zip(&*results);
        pairs.map(|(claim, result)| points(claim, result)).sum()
    }

    fn normalize(&self, scores: &mut [i64], _: &[&NodeInfo]) {
        normalize_to_max(scores, false);
    }
}

fn points(claim: &ResourceClaim, result: &AllocationResult) -> i64 {
    let results = result.devices.iter().flat_map(|devices| devices.results.iter().flatten());
    let chosen: HashSet<&str> = results.map(|result| result.request.as_str()).collect();
    let devices = claim.spec.devices.as_ref();
    let requests = devices.and_then(|devices| devices.requests.as_ref()).into_iter().flatten();
    let of_request = |request: &k8s_openapi::api::resource::v1::DeviceRequest| {
        let options = request.first_available.iter().flatten().enumerate();
        let chosen = options.filter(|(_, option)| chosen.contains(&*format!("{}/{}", request.name, option.name)));
        chosen.map(|(i, _)| MAX_ALTERNATIVES as i64 - i as i64).sum::<i64>()
    };
    requests.map(of_request).sum()
}

#[cfg(test)]
mod tests;
