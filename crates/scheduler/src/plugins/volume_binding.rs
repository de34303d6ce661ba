//! Claims that wait for their first consumer get a volume that its node can reach.

mod reservation;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::ObjectKey;
use client::Client;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection, Reservation};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::storage::{self, Claim, NO_PROVISIONER, Volume};
use reservation::Reserved;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    bind_timeout_seconds: Option<u64>,
}

pub struct VolumeBinding {
    /// To write with; `None` in tests that only filter.
    io: Option<Io>,
    timeout: Duration,
}

/// What binding talks to.
#[derive(Clone)]
pub struct Io {
    pub client: Client,
    pub changes: Arc<Changes>,
}

/// Wakes those who wait for claims and volumes to change.
#[derive(Debug, Default)]
pub struct Changes(tokio::sync::watch::Sender<u64>);

impl Changes {
    pub fn tell(&self) {
        self.0.send_modify(|count| *count += 1);
    }

    fn follow(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.subscribe()
    }
}

impl VolumeBinding {
    pub fn new(args: Args, io: Option<Io>) -> VolumeBinding {
        VolumeBinding { io, timeout: Duration::from_secs(args.bind_timeout_seconds.unwrap_or(600)) }
    }
}

/// Upstream's words for an object that isn't there.
pub fn not_found(kind: &str, name: &str) -> Rejection {
    Rejection::unresolvable(format!("{kind} {name:?} not found"))
}

/// Whether a claim made for one of the pod's volumes is the pod's own.
pub fn owned_by(pod: &PodInfo, claim: &Claim) -> Result<(), String> {
    if claim.controller == pod.uid {
        return Ok(());
    }
    Err(format!("PVC {} was not created for pod {} (pod is not owner)", claim.key, pod.key))
}

/// The pod's claims, by what is to be done.
#[derive(Default)]
struct Claims {
    bound: Vec<Arc<Claim>>,
    waiting: Vec<Arc<Claim>>,
    /// Others have to bind these first.
    immediate: bool,
}

fn claims_of(pod: &PodInfo, cluster: &Cluster) -> Result<Option<Claims>, Rejection> {
    let mut claims = Claims::default();
    let mut any = false;
    for (name, ephemeral) in pod.claims() {
        any = true;
        let claim = cluster.claims.get(&ObjectKey::new(&pod.key.namespace, name));
        let claim = claim.ok_or_else(|| match ephemeral {
            true => Rejection::unresolvable(format!(
                "waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}"
            )),
            false => not_found("persistentvolumeclaim", name),
        })?;
        if claim.lost {
            let volume = &claim.volume;
            return Err(Rejection::unresolvable(format!(
                "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
            )));
        }
        if claim.deleting {
            return Err(Rejection::unresolvable(format!("persistentvolumeclaim {name:?} is being deleted")));
        }
        if ephemeral {
            owned_by(pod, &claim).map_err(Rejection::unresolvable)?;
        }
        if claim.is_bound() {
            claims.bound.push(claim);
        } else if claim.volume.is_empty() && waits(&claim, cluster)? {
            claims.waiting.push(claim);
        } else {
            claims.immediate = true;
        }
    }
    Ok(any.then_some(claims))
}

/// Whether the claim's class binds only when a pod uses it.
fn waits(claim: &Claim, cluster: &Cluster) -> Result<bool, Rejection> {
    let name = claim.class.as_str();
    let Some(class) = cluster.classes.get(&ObjectKey::cluster(name)).filter(|_| !name.is_empty()) else {
        return Ok(false);
    };
    match class.volume_binding_mode.as_deref() {
        Some(mode) => Ok(mode == "WaitForFirstConsumer"),
        None => Err(Rejection::error(format!("VolumeBindingMode not set for StorageClass {name:?}"))),
    }
}

impl Plugin for VolumeBinding {
    fn name(&self) -> &'static str {
        "VolumeBinding"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let Some(mut claims) = claims_of(cycle.pod, cycle.cluster)? else { return Ok(Prepared::Skip) };
        if claims.immediate {
            return Err(Rejection::unresolvable("pod has unbound immediate PersistentVolumeClaims"));
        }
        claims.waiting.sort_by_key(|claim| claim.size.unwrap_or_default());
        let suiting = |claim: &Arc<Claim>| {
            storage::suiting(claim, cycle.cluster.volumes.list(|_, volume| volume.class == claim.class))
        };
        let volumes = claims.waiting.iter().map(suiting).collect();
        let find = |claim: &Arc<Claim>| cycle.cluster.volumes.get(&ObjectKey::cluster(&claim.volume));
        let bound = claims.bound.iter().map(find).collect();
        Ok(Prepared::Filter(Box::new(Filter { plugin: self, cycle, claims, bound, volumes, plans: Mutex::default() })))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Class(change) => match (&change.old, &change.new) {
                (None, Some(_)) => true,
                (Some(old), Some(new)) => old.allowed_topologies != new.allowed_topologies,
                _ => false,
            },
            ClusterEvent::Claim(change) => change.new.iter().any(|claim| {
                claim.key.namespace == pod.key.namespace && pod.claims().any(|(name, _)| claim.key.name == name)
            }),
            ClusterEvent::Volume(change) => !change.is_removed(),
            ClusterEvent::Node(change) => match (&change.old, &change.new) {
                (None, _) => true,
                (Some(old), Some(new)) => old.labels() != new.labels(),
                _ => false,
            },
            ClusterEvent::CsiNode(change) => change.is_added(),
            ClusterEvent::CsiDriver(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => {
                    old.spec.storage_capacity == Some(true) && new.spec.storage_capacity != Some(true)
                }
                _ => false,
            },
            ClusterEvent::Capacity(change) => match (&change.old, &change.new) {
                (None, Some(_)) => true,
                (Some(old), Some(new)) => limit(new) > limit(old),
                _ => false,
            },
            _ => false,
        }
    }
}

/// The largest volume that the capacity promises.
fn limit(capacity: &k8s_openapi::api::storage::v1::CSIStorageCapacity) -> Option<apimachinery::Quantity> {
    capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref()).map(rules::parse_quantity)
}

/// How the waiting claims would be satisfied on one node.
#[derive(Clone, Default)]
struct Plan {
    bindings: Vec<(Arc<Claim>, Arc<Volume>)>,
    provisions: Vec<Arc<Claim>>,
}

struct Filter<'a> {
    plugin: &'a VolumeBinding,
    cycle: Cycle<'a>,
    claims: Claims,
    /// The volume of each bound claim, if it is there.
    bound: Vec<Option<Arc<Volume>>>,
    /// For each waiting claim those that it might have, best first.
    volumes: Vec<Vec<Arc<Volume>>>,
    plans: Mutex<HashMap<String, Plan>>,
}

const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NO_VOLUME: &str = "node(s) didn't find available persistent volumes to bind";
const NO_SPACE: &str = "node(s) did not have enough free storage";
const VOLUME_GONE: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";

impl Filter<'_> {
    /// The first bound claim whose volume is out of reach decides.
    fn bound_reason(&self, node: &NodeInfo) -> Option<&'static str> {
        self.bound.iter().find_map(|volume| match volume {
            None => Some(VOLUME_GONE),
            Some(volume) => (!volume.reaches(node)).then_some(NODE_CONFLICT),
        })
    }

    fn plan(&self, node: &NodeInfo) -> Result<Plan, Rejection> {
        let mut plan = Plan::default();
        let mut taken = BTreeSet::new();
        let mut to_provision = Vec::new();
        for (claim, volumes) in self.claims.waiting.iter().zip(&self.volumes) {
            match claim.selected_node.as_deref() {
                Some(chosen) if chosen != node.name() => return Err(Rejection::unresolvable(NO_VOLUME)),
                Some(_) => to_provision.push(claim),
                None => {
                    let free = |volume: &&Arc<Volume>| !taken.contains(volume.name.as_str()) && volume.reaches(node);
                    match volumes.iter().find(free) {
                        Some(volume) => {
                            taken.insert(volume.name.as_str());
                            plan.bindings.push((claim.clone(), volume.clone()));
                        }
                        None => to_provision.push(claim),
                    }
                }
            }
        }
        for claim in to_provision {
            self.can_provision(claim, node)?;
            plan.provisions.push(claim.clone());
        }
        Ok(plan)
    }

    fn can_provision(&self, claim: &Claim, node: &NodeInfo) -> Result<(), Rejection> {
        let name = claim.class.as_str();
        let class = self.cycle.cluster.classes.get(&ObjectKey::cluster(name));
        let class = class.ok_or_else(|| Rejection::error(format!("failed to find storage class {name:?}")))?;
        let allowed = class.allowed_topologies.as_deref().unwrap_or_default();
        if class.provisioner.is_empty() || class.provisioner == NO_PROVISIONER || !storage::allows(allowed, node) {
            return Err(Rejection::unresolvable(NO_VOLUME));
        }
        if self.has_space(&class.provisioner, name, claim, node) {
            return Ok(());
        }
        Err(Rejection::unresolvable(NO_SPACE))
    }

    /// Only drivers that publish capacities are asked.
    fn has_space(&self, driver: &str, class: &str, claim: &Claim, node: &NodeInfo) -> bool {
        let Some(size) = claim.size else { return true };
        let found = self.cycle.cluster.csi_drivers.get(&ObjectKey::cluster(driver));
        if found.and_then(|driver| driver.spec.storage_capacity) != Some(true) {
            return true;
        }
        let enough = self.cycle.cluster.csi_capacities.list(|_, capacity| {
            capacity.storage_class_name == class
                && limit(capacity).is_some_and(|limit| limit >= size)
                && capacity
                    .node_topology
                    .as_ref()
                    .is_some_and(|topology| rules::label_selector(Some(topology)).matches_with(|key| node.label(key)))
        });
        !enough.is_empty()
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let bound = self.bound_reason(node);
        let planned = if self.claims.waiting.is_empty() { Ok(Plan::default()) } else { self.plan(node) };
        match (bound, planned) {
            (None, Ok(plan)) => {
                if !self.claims.waiting.is_empty() {
                    self.plans.lock().insert(node.name().to_owned(), plan);
                }
                Ok(())
            }
            (Some(reason), Ok(_)) => Err(Rejection::unresolvable(reason)),
            (None, Err(rejection)) => Err(rejection),
            (Some(reason), Err(mut rejection)) => {
                // Upstream names them in this order.
                let at = if reason == NODE_CONFLICT { 0 } else { rejection.reasons.len() };
                rejection.reasons.insert(at, reason.into());
                Err(rejection)
            }
        }
    }

    fn by_pods(&self) -> bool {
        false
    }

    fn reserve(&self, node: &NodeInfo) -> Result<Option<Box<dyn Reservation>>, Rejection> {
        let plan = self.plans.lock().get(node.name()).cloned().unwrap_or_default();
        if plan.bindings.is_empty() && plan.provisions.is_empty() {
            return Ok(None);
        }
        let Some(io) = &self.plugin.io else { return Ok(None) };
        let reserved = Reserved::assume(io.clone(), self.cycle.cluster.clone(), self.plugin.timeout, &plan, node)
            .map_err(Rejection::error)?;
        Ok(Some(Box::new(reserved)))
    }
}

#[cfg(test)]
mod tests;
