//! A volume with zone labels is used on nodes of its zone.

use apimachinery::ObjectKey;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::plugins::volume_binding::not_found;
use crate::pod::PodInfo;
use crate::storage::Volume;

/// The labels that count, each with its newer name.
const LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];

pub struct VolumeZone;

impl Plugin for VolumeZone {
    fn name(&self) -> &'static str {
        "VolumeZone"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let mut wanted = Vec::new();
        for name in cycle.pod.named_claims() {
            let key = ObjectKey::new(&cycle.pod.key.namespace, name);
            let claim = cycle.cluster.claims.get(&key).ok_or_else(|| not_found("persistentvolumeclaim", name))?;
            let volume = claim.volume.as_str();
            if volume.is_empty() {
                let class = claim.class.as_str();
                if class.is_empty() {
                    return Err(Rejection::unresolvable("PersistentVolumeClaim had no pv name and storageClass name"));
                }
                let found = cycle.cluster.classes.get(&ObjectKey::cluster(class));
                let found = found.ok_or_else(|| not_found("storageclass.storage.k8s.io", class))?;
                match found.volume_binding_mode.as_deref() {
                    Some("WaitForFirstConsumer") => continue,
                    Some(_) => return Err(Rejection::unresolvable("PersistentVolume had no name")),
                    None => {
                        let reason = format!("VolumeBindingMode not set for StorageClass {class:?}");
                        return Err(Rejection::unresolvable(reason));
                    }
                }
            }
            let found = cycle.cluster.volumes.get(&ObjectKey::cluster(volume));
            wanted.extend(zones(&*found.ok_or_else(|| not_found("persistentvolume", volume))?));
        }
        Ok(if wanted.is_empty() { Prepared::Skip } else { Prepared::Filter(Box::new(Filter(wanted))) })
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Class(change) => {
                change.is_added()
                    && change.new.iter().any(|c| c.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"))
            }
            ClusterEvent::Node(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => old.labels() != new.labels(),
                (None, _) => true,
                _ => false,
            },
            ClusterEvent::Claim(change) => change.new.iter().any(|claim| {
                claim.key.namespace == pod.key.namespace && pod.named_claims().any(|name| claim.key.name == name)
            }),
            ClusterEvent::Volume(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => zones(old) != zones(new),
                (None, _) => true,
                _ => false,
            },
            _ => false,
        }
    }
}

/// The labels that a node must have, each with the values that do.
fn zones(volume: &Volume) -> Vec<(&'static str, &'static str, Vec<String>)> {
    let of = |(name, newer): &(&'static str, &'static str)| {
        let value = volume.labels.get(*name)?;
        let values: Vec<String> = value.split("__").map(str::to_owned).collect();
        (!values.iter().any(String::is_empty)).then_some((*name, *newer, values))
    };
    LABELS.iter().filter_map(of).collect()
}

struct Filter(Vec<(&'static str, &'static str, Vec<String>)>);

impl NodeFilter for Filter {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        // A node that isn't in any zone is as if zones didn't exist.
        if !LABELS.iter().any(|(name, _)| node.label(name).is_some()) {
            return Ok(());
        }
        for (name, newer, values) in &self.0 {
            let here = node.label(name).or_else(|| node.label(newer));
            if !here.is_some_and(|here| values.iter().any(|value| value == here)) {
                return Err(Rejection::unresolvable("node(s) had no available volume zone"));
            }
        }
        Ok(())
    }

    fn by_pods(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, claim, pod, volume};

    #[test]
    fn a_volume_stays_in_its_zones() {
        let check = |zone: &str, node: serde_json::Value, expect: &str| {
            let spec = json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]});
            let mut tried = Try::new(&VolumeZone, pod(spec));
            claim(&tried.cluster, "c", json!({"volumeName": "pv"}), json!({}));
            volume(&tried.cluster, "pv", json!({}), json!({"topology.kubernetes.io/zone": zone}));
            let node = json!({"metadata": {"name": "n", "labels": node}});
            assert_eq!(tried.on(&NodeInfo::new(serde_json::from_value(node).unwrap())), expect);
        };
        const NO: &str = "node(s) had no available volume zone";
        check("a", json!({"topology.kubernetes.io/zone": "a"}), "");
        check("a", json!({"topology.kubernetes.io/zone": "b"}), NO);
        check("a__b", json!({"topology.kubernetes.io/zone": "b"}), "");
        check("a", json!({}), "");
    }
}
