//! A pod's resource claims must exist, be allocated where it goes, and be reserved for it.
//!
//! Allocation itself is left to whoever owns the devices: a claim that nobody has allocated holds the pod back.

use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use client::{PatchKind, resources};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use k8s_openapi::api::resource::v1::ResourceClaim;

use crate::cluster::{Cluster, RESOURCE_CLAIMS};
use crate::framework::{
    ClusterEvent, Cycle, Failed, NodeFilter, Plugin, PostFiltered, Prepared, Rejection, Reservation,
};
use crate::node::NodeInfo;
use crate::plugins::volume_binding::{Io, not_found};
use crate::pod::PodInfo;

pub struct DynamicResources {
    io: Option<Io>,
}

impl DynamicResources {
    pub fn new(io: Option<Io>) -> DynamicResources {
        DynamicResources { io }
    }
}

/// The plugins that are asked before this one and may reject a pod for good.
const BEFORE: [&str; 4] = ["NodeAffinity", "VolumeRestrictions", "VolumeBinding", "VolumeZone"];

/// How many pods may use one claim.
const MAX_USERS: usize = 256;

impl Plugin for DynamicResources {
    fn name(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let pod = cycle.pod;
        if pod.resource_claims.is_empty() {
            return Ok(Prepared::Skip);
        }
        let mut claims = Vec::new();
        for source in &pod.resource_claims {
            let Some(name) = &source.claim else {
                let reason = format!("pod {:?}: ResourceClaim not created yet", pod.key.to_string());
                return Err(Rejection::unresolvable(reason));
            };
            let found = cycle.cluster.resource_claims.get(&ObjectKey::new(&pod.key.namespace, name));
            let claim = found.ok_or_else(|| not_found("resourceclaim.resource.k8s.io", name))?;
            if claim.metadata.deletion_timestamp.is_some() {
                return Err(Rejection::unresolvable(format!("resourceclaim {name:?} is being deleted")));
            }
            if !is_reserved(&claim, pod) && users(&claim) >= MAX_USERS {
                return Err(Rejection::unresolvable("resourceclaim in use"));
            }
            claims.push(claim);
        }
        Ok(Prepared::Filter(Box::new(Filter { plugin: self, pod, cluster: cycle.cluster, claims })))
    }

    fn post_filter(&self, failed: &Failed<'_, '_>) -> Option<PostFiltered> {
        let mut answer = PostFiltered { message: "no new claims to deallocate".into(), ..PostFiltered::default() };
        if failed.filters.is_none() && failed.diagnosis.plugins.iter().any(|plugin| BEFORE.contains(plugin)) {
            // Upstream's fails when it wasn't asked before, and nobody else is asked then.
            answer = PostFiltered { message: "not found".into(), last: true, ..PostFiltered::default() };
        }
        Some(answer)
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::ResourceClaim(change) => change.new.as_ref().or(change.old.as_ref()).is_some_and(|claim| {
                claim.metadata.namespace.as_deref() == Some(&pod.key.namespace)
                    && pod.resource_claims.iter().any(|source| source.claim == claim.metadata.name)
            }),
            ClusterEvent::Own(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => old.resource_claims != new.resource_claims,
                _ => true,
            },
            ClusterEvent::Node(change) => !change.is_removed(),
            _ => false,
        }
    }
}

fn users(claim: &ResourceClaim) -> usize {
    claim.status.as_ref().and_then(|status| status.reserved_for.as_ref()).map_or(0, Vec::len)
}

fn is_reserved(claim: &ResourceClaim, pod: &PodInfo) -> bool {
    let users = claim.status.iter().flat_map(|status| status.reserved_for.iter().flatten());
    users.into_iter().any(|user| user.uid == pod.uid)
}

struct Filter<'a> {
    plugin: &'a DynamicResources,
    pod: &'a PodInfo,
    cluster: &'a Arc<Cluster>,
    claims: Vec<Arc<ResourceClaim>>,
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for claim in &self.claims {
            let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
            let Some(allocation) = allocation else {
                return Err(Rejection::because("cannot allocate all claims"));
            };
            let selector = allocation.node_selector.as_ref();
            if selector.is_some_and(|selector| !rules::matches_node_selector(selector, node.node())) {
                return Err(Rejection::because("resourceclaim not available on the node"));
            }
        }
        Ok(())
    }

    fn reserve(&self, _: &NodeInfo) -> Result<Option<Box<dyn Reservation>>, Rejection> {
        let Some(io) = &self.plugin.io else { return Ok(None) };
        let free = self.claims.iter().filter(|claim| !is_reserved(claim, self.pod));
        let claims: Vec<ObjectKey> = free
            .map(|claim| ObjectKey::new(&self.pod.key.namespace, claim.metadata.name.as_deref().unwrap_or_default()))
            .collect();
        if claims.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(Reserved { io: io.clone(), cluster: self.cluster.clone(), claims })))
    }
}

/// Claims to be marked as used by the pod.
struct Reserved {
    io: Io,
    cluster: Arc<Cluster>,
    claims: Vec<ObjectKey>,
}

impl Reservation for Reserved {
    fn plugin(&self) -> &'static str {
        "DynamicResources"
    }

    fn pre_bind<'a>(&'a self, pod: &'a PodInfo, _: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            for key in &self.claims {
                if self.cluster.resource_claims.get(key).is_some_and(|claim| is_reserved(&claim, pod)) {
                    continue;
                }
                let mut user = Value::object();
                user.set(&["resource"], &*resources::PODS.plural);
                user.set(&["name"], pod.key.name.as_str());
                user.set(&["uid"], pod.uid.as_str());
                let mut patch = Value::object();
                patch.set(&["status", "reservedFor"], vec![user]);
                let client = &self.io.client;
                let written = client.patch_status(&RESOURCE_CLAIMS, key, PatchKind::Strategic, &patch).await;
                written.map_err(|error| format!("reserving claim {key}: {error}"))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn undo(&self, _: &PodInfo) {
        // The claims' controller takes back reservations of pods that have no node.
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, on_node, pod};

    #[test]
    fn claims_are_allocated_where_the_pod_goes() {
        let check = |status: serde_json::Value, expect: [&str; 2]| {
            let spec = json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]});
            let plugin = DynamicResources::new(None);
            let mut tried = Try::new_on(&plugin, pod(spec), &[on_node("n1", "a"), on_node("n2", "b")]);
            if !status.is_null() {
                let claim = json!({"metadata": {"name": "c", "namespace": "ns"}, "spec": {}, "status": status});
                let claim = Arc::new(serde_json::from_value(claim).unwrap());
                tried.cluster.resource_claims.set(ObjectKey::new("ns", "c"), claim, 1);
            }
            assert_eq!(["n1", "n2"].map(|name| tried.on_known(name)), expect);
        };
        check(json!(null), ["resourceclaim.resource.k8s.io \"c\" not found"; 2]);
        check(json!({}), ["cannot allocate all claims"; 2]);
        let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]);
        let allocation = json!({"nodeSelector": {"nodeSelectorTerms": terms}});
        check(json!({"allocation": allocation}), ["resourceclaim not available on the node", ""]);
    }
}
