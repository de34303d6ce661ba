//! A driver attaches only so many volumes to a node.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::ObjectKey;
use k8s_openapi::api::storage::v1::CSINode;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::plugins::volume_binding::owned_by;
use crate::pod::PodInfo;
use crate::storage::Claim;

pub struct NodeVolumeLimits;

impl Plugin for NodeVolumeLimits {
    fn name(&self) -> &'static str {
        "NodeVolumeLimits"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        if cycle.pod.claims().next().is_none() {
            return Ok(Prepared::Skip);
        }
        let filter = Filter { cluster: cycle.cluster, wanted: volumes(cycle.cluster, cycle.pod, true) };
        if filter.wanted.as_ref().is_ok_and(BTreeSet::is_empty) {
            return Ok(Prepared::Skip);
        }
        Ok(Prepared::Filter(Box::new(filter)))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::CsiNode(change) => match (&change.old, &change.new) {
                (None, Some(_)) => true,
                (Some(old), Some(new)) => {
                    let before = limits(old);
                    limits(new).iter().any(|(driver, limit)| *limit > before.get(driver).copied().unwrap_or_default())
                }
                _ => false,
            },
            ClusterEvent::Pod(change) if change.is_removed() => {
                change.old.iter().any(|gone| gone.claims().next().is_some())
            }
            ClusterEvent::Claim(change) if change.is_added() => change.new.iter().any(|claim| {
                claim.key.namespace == pod.key.namespace && pod.claims().any(|(name, _)| claim.key.name == name)
            }),
            ClusterEvent::Attachment(change) => change.is_removed() && pod.named_claims().next().is_some(),
            _ => false,
        }
    }
}

fn limits(node: &CSINode) -> BTreeMap<String, i64> {
    let drivers = node.spec.drivers.iter();
    let limit = |d: &k8s_openapi::api::storage::v1::CSINodeDriver| Some(i64::from(d.allocatable.as_ref()?.count?));
    drivers.filter_map(|driver| Some((driver.name.clone(), limit(driver)?))).collect()
}

/// The driver of a claim's volume and what names the volume to it, made up where there is none yet.
fn driver_of(cluster: &Cluster, claim: &Claim) -> Option<(String, String)> {
    let name = claim.volume.as_str();
    let volume = cluster.volumes.get(&ObjectKey::cluster(name)).filter(|_| !name.is_empty());
    if let Some(volume) = volume {
        return volume.csi.clone();
    }
    let class = claim.class.as_str();
    let class = cluster.classes.get(&ObjectKey::cluster(class)).filter(|_| !class.is_empty())?;
    let handle = format!("?{}", claim.key);
    (!class.provisioner.is_empty()).then(|| (class.provisioner.clone(), handle))
}

/// Driver and handle of volumes.
type Volumes = BTreeSet<(String, String)>;

struct Filter<'a> {
    cluster: &'a Cluster,
    /// Those of the pod, or why they aren't known.
    wanted: Result<Volumes, Rejection>,
}

/// The pod's volumes. `new`: all its claims must be there.
fn volumes(cluster: &Cluster, pod: &PodInfo, new: bool) -> Result<Volumes, Rejection> {
    let mut found = BTreeSet::new();
    for (name, ephemeral) in pod.claims() {
        let key = ObjectKey::new(&pod.key.namespace, name);
        let Some(claim) = cluster.claims.get(&key) else {
            if new {
                let reason =
                    format!("looking up PVC {}/{name}: persistentvolumeclaim {name:?} not found", key.namespace);
                return Err(Rejection::unresolvable(reason));
            }
            continue;
        };
        if ephemeral {
            owned_by(pod, &claim).map_err(Rejection::error)?;
        }
        found.extend(driver_of(cluster, &claim));
    }
    Ok(found)
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let wanted = self.wanted.as_ref().map_err(Rejection::clone)?;
        let csi_node = self.cluster.csi_nodes.get(&ObjectKey::cluster(node.name()));
        let limits = csi_node.as_deref().map(limits).unwrap_or_default();
        if limits.is_empty() {
            return Ok(());
        }
        let mut attached = BTreeSet::new();
        for pod in node.pods() {
            attached.extend(volumes(self.cluster, pod, false)?);
        }
        for attachment in self.cluster.attachments.list(|_, a| a.spec.node_name == node.name()) {
            let Some(volume) = &attachment.spec.source.persistent_volume_name else { continue };
            let volume = self.cluster.volumes.get(&ObjectKey::cluster(volume));
            let csi = volume.as_ref().and_then(|volume| volume.csi.as_ref());
            attached.extend(csi.map(|(_, handle)| (attachment.spec.attacher.clone(), handle.clone())));
        }
        let wanted: Volumes = wanted.difference(&attached).cloned().collect();
        let count = |volumes: &Volumes, driver: &str| volumes.iter().filter(|(of, _)| of == driver).count() as i64;
        for (driver, _) in &wanted {
            if let Some(limit) = limits.get(driver)
                && count(&attached, driver) + count(&wanted, driver) > *limit
            {
                return Err(Rejection::because("node(s) exceed max volume count"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, claim, node, pod, volume};

    #[test]
    fn volumes_are_counted_once() {
        let using = |uid: &str, name: &str| PodInfo {
            uid: uid.into(),
            ..pod(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": name}}]}))
        };
        let check = |name: &str, limit: i32, expect: &str| {
            let mut tried = Try::new(&NodeVolumeLimits, using("new", name));
            for i in ["1", "2", "3"] {
                claim(&tried.cluster, &format!("c{i}"), json!({"volumeName": format!("v{i}")}), json!({}));
                let csi = json!({"csi": {"driver": "d", "volumeHandle": i}});
                volume(&tried.cluster, &format!("v{i}"), csi, json!({}));
            }
            let csi = json!({"metadata": {"name": "n1"}, "spec": {"drivers":
                [{"name": "d", "nodeID": "n1", "allocatable": {"count": limit}}]}});
            let csi: CSINode = serde_json::from_value(csi).unwrap();
            tried.cluster.csi_nodes.set(ObjectKey::cluster("n1"), Arc::new(csi), 1);
            let mut node = node(json!({}), json!({}));
            node.add(Arc::new(using("a", "c1")));
            node.add(Arc::new(using("b", "c2")));
            assert_eq!(tried.on(&node), expect);
        };
        check("c3", 3, "");
        check("c3", 2, "node(s) exceed max volume count");
        check("c1", 2, "");
    }
}
