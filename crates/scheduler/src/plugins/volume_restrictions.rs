//! Disks that pods of a node can't share, and claims that one pod only may use.

use std::collections::BTreeSet;

use apimachinery::ObjectKey;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection};
use crate::node::NodeInfo;
use crate::plugins::volume_binding::not_found;
use crate::pod::{Disk, PodInfo, PodVolume};

pub struct VolumeRestrictions;

impl Plugin for VolumeRestrictions {
    fn name(&self) -> &'static str {
        "VolumeRestrictions"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let pod = cycle.pod;
        let mut exclusive = BTreeSet::new();
        for name in pod.named_claims() {
            let key = ObjectKey::new(&pod.key.namespace, name);
            let claim = cycle.cluster.claims.get(&key).ok_or_else(|| not_found("persistentvolumeclaim", name))?;
            if claim.access_modes.iter().any(|mode| mode == "ReadWriteOncePod") {
                exclusive.insert(name.to_owned());
            }
        }
        let used = |name: &&String| cycle.snapshot.claim_in_use(&format!("{}/{name}", pod.key.namespace));
        let conflicts = exclusive.iter().filter(used).count() as i64;
        if conflicts == 0 && disks(pod).next().is_none() {
            return Ok(Prepared::Skip);
        }
        Ok(Prepared::Filter(Box::new(Filter { pod, exclusive, conflicts })))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Node(change) => change.is_added(),
            ClusterEvent::Pod(change) if change.is_removed() => change.old.iter().any(|gone| {
                gone.key.namespace == pod.key.namespace
                    && (shares_disk(pod, gone) || pod.named_claims().any(|name| gone.named_claims().any(|g| g == name)))
            }),
            ClusterEvent::Claim(change) if change.is_added() => change.new.iter().any(|claim| {
                claim.key.namespace == pod.key.namespace && pod.named_claims().any(|name| claim.key.name == name)
            }),
            _ => false,
        }
    }
}

fn disks(pod: &PodInfo) -> impl Iterator<Item = &Disk> {
    pod.volumes.iter().filter_map(|volume| match volume {
        PodVolume::Disk(disk) => Some(disk),
        PodVolume::Claim { .. } => None,
    })
}

fn shares_disk(a: &PodInfo, b: &PodInfo) -> bool {
    disks(a).any(|mine| disks(b).any(|other| collide(mine, other)))
}

/// Whether two pods can't use these on one node.
fn collide(a: &Disk, b: &Disk) -> bool {
    match (a, b) {
        (Disk::Gce { name, read_only }, Disk::Gce { name: other, read_only: too }) => {
            name == other && !(*read_only && *too)
        }
        (Disk::Aws { id }, Disk::Aws { id: other }) => id == other,
        (Disk::Iscsi { iqn, read_only }, Disk::Iscsi { iqn: other, read_only: too }) => {
            iqn == other && !(*read_only && *too)
        }
        (
            Disk::Rbd { monitors, pool, image, read_only },
            Disk::Rbd { monitors: others, pool: its_pool, image: its_image, read_only: too },
        ) => {
            monitors.iter().any(|monitor| others.contains(monitor))
                && pool == its_pool
                && image == its_image
                && !(*read_only && *too)
        }
        _ => false,
    }
}

#[derive(Clone)]
struct Filter<'a> {
    pod: &'a PodInfo,
    /// The pod's claims that one pod only may use.
    exclusive: BTreeSet<String>,
    /// How often others use them.
    conflicts: i64,
}

impl Filter<'_> {
    fn uses(&self, pod: &PodInfo) -> i64 {
        pod.named_claims().filter(|name| self.exclusive.contains(*name)).count() as i64
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.pods().iter().any(|other| shares_disk(self.pod, other)) {
            return Err(Rejection::because("node(s) had no available disk"));
        }
        if self.conflicts > 0 {
            return Err(Rejection::because(
                "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod",
            ));
        }
        Ok(())
    }

    fn add(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.conflicts += self.uses(pod);
    }

    fn remove(&mut self, pod: &PodInfo, _: &NodeInfo) {
        self.conflicts -= self.uses(pod);
    }

    fn fork<'b>(&self) -> Option<Box<dyn NodeFilter + 'b>>
    where
        Self: 'b,
    {
        Some(Box::new(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, claim, node, pod};

    #[test]
    fn disks_are_shared_only_to_read() {
        let with = |read_only: bool| {
            pod(json!({"volumes": [{"name": "v", "gcePersistentDisk": {"pdName": "d", "readOnly": read_only}}]}))
        };
        let check = |there: bool, new: bool, expect: &str| {
            let mut node = node(json!({}), json!({}));
            node.add(Arc::new(with(there)));
            assert_eq!(Try::new(&VolumeRestrictions, with(new)).on(&node), expect);
        };
        check(true, true, "");
        check(true, false, "node(s) had no available disk");
    }

    #[test]
    fn a_claim_for_one_pod_is_used_once() {
        let with = |uid: &str| PodInfo {
            uid: uid.into(),
            ..pod(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]}))
        };
        let check = |mode: &str, used: bool, expect: &str| {
            let mut node = node(json!({}), json!({}));
            if used {
                node.add(Arc::new(with("other")));
            }
            let mut tried = Try::new(&VolumeRestrictions, with("mine"));
            claim(&tried.cluster, "c", json!({"accessModes": [mode]}), json!({}));
            assert_eq!(tried.on(&node), expect);
        };
        check("ReadWriteOncePod", false, "");
        check("ReadWriteOnce", true, "");
        let reason = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
        check("ReadWriteOncePod", true, reason);
        let missing = Try::new(&VolumeRestrictions, with("mine")).on(&node(json!({}), json!({})));
        assert_eq!(missing, "persistentvolumeclaim \"c\" not found");
    }
}
