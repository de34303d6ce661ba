//! What the pods of a node need to be attached.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};

use super::{AttachDetach, attachment_name, volume_name};
use crate::meta::{NODE_INDEX, parsed};
use crate::storage::{claims_of, is_terminated};

/// On a node: volumes of ended pods stay attached.
const KEEP_ENDED: &str = "volumes.kubernetes.io/keep-terminated-pod-volumes";

/// A volume that must be attached before it can be mounted.
pub(super) struct Attachable {
    /// The PersistentVolume's.
    pub name: String,
    pub driver: String,
    pub handle: String,
    /// Whether several nodes may have it.
    pub is_shared: bool,
}

/// A volume and those pods of one node that use it.
pub(super) struct Wanted {
    pub volume: Attachable,
    pub pods: Vec<Arc<Object>>,
}

impl Attachable {
    fn of(volume: &Value) -> Option<Attachable> {
        let text = |key| volume.str_at(&["spec", "csi", key]).map(str::to_owned);
        let modes = volume.items_at(&["spec", "accessModes"]);
        let several = |mode: &Value| matches!(mode.as_str(), Some("ReadWriteMany" | "ReadOnlyMany"));
        Some(Attachable {
            name: volume.str_at(&["metadata", "name"])?.to_owned(),
            driver: text("driver")?,
            handle: text("volumeHandle")?,
            is_shared: modes.is_empty() || modes.iter().any(several),
        })
    }

    /// The name of its attachment to `node`.
    pub(super) fn attachment(&self, node: &str) -> String {
        attachment_name(&self.handle, &self.driver, node)
    }

    /// As nodes call it.
    pub(super) fn unique_name(&self) -> String {
        format!("kubernetes.io/csi/{}^{}", self.driver, self.handle)
    }
}

impl AttachDetach {
    /// What must be attached to the node, by the attachment's name.
    pub(super) fn wanted(&self, node: &str) -> BTreeMap<String, Wanted> {
        let keeps = self
            .nodes
            .get(&ObjectKey::cluster(node))
            .is_some_and(|node| node.to_value().str_at(&["metadata", "annotations", KEEP_ENDED]) == Some("true"));
        let mut wanted: BTreeMap<String, Wanted> = BTreeMap::new();
        for pod in self.pods.by_index(NODE_INDEX, node) {
            let claims = claims_of(&pod);
            if claims.is_empty() || !keeps && is_terminated(&parsed(&pod)) {
                continue;
            }
            for volume in claims.iter().filter_map(|claim| self.volume_of(claim)) {
                let entry = wanted.entry(volume.attachment(node));
                entry.or_insert_with(|| Wanted { volume, pods: Vec::new() }).pods.push(pod.clone());
            }
        }
        wanted
    }

    /// The volume that the claim is bound to, if it must be attached.
    fn volume_of(&self, claim: &ObjectKey) -> Option<Attachable> {
        let claim = self.claims.get(claim)?;
        let value = claim.to_value();
        let name = value.str_at(&["spec", "volumeName"]).filter(|name| !name.is_empty())?;
        if value.str_at(&["status", "phase"]) != Some("Bound") {
            return None;
        }
        let volume = self.volumes.get(&ObjectKey::cluster(name))?.to_value();
        if volume.str_at(&["spec", "claimRef", "uid"]) != Some(claim.uid()) {
            return None;
        }
        Attachable::of(&volume).filter(|volume| self.needs_attaching(&volume.driver))
    }

    /// A driver that says nothing needs it.
    fn needs_attaching(&self, driver: &str) -> bool {
        let driver = self.drivers.get(&ObjectKey::cluster(driver));
        driver.is_none_or(|driver| driver.to_value().bool_at(&["spec", "attachRequired"]) != Some(false))
    }

    /// The volume of an attachment, while it exists.
    pub(super) fn attachable_of(&self, attachment: &Object) -> Option<Attachable> {
        let volume = self.volumes.get(&ObjectKey::cluster(volume_name(attachment)?))?;
        Attachable::of(&volume.to_value())
    }
}
