//! New claims, volumes and classes of attributes carry the finalizer that keeps them while they are used. Upstream:
//! plugin/pkg/admission/storage/storageobjectinuseprotection.

use apimachinery::{Status, Value};

use super::{Plugin, Write, push};
use crate::registry::Operation;

pub(super) struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn admit(&self, write: &Write<'_>, new: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        if write.operation != Operation::Create || !write.subresource.is_empty() {
            return Ok(());
        }
        let finalizer = match (write.group, write.resource) {
            ("", "persistentvolumeclaims") => "kubernetes.io/pvc-protection",
            ("", "persistentvolumes") => "kubernetes.io/pv-protection",
            ("storage.k8s.io", "volumeattributesclasses") => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        let path = ["metadata", "finalizers"];
        if !new.items_at(&path).iter().any(|held| held.as_str() == Some(finalizer)) {
            push(new, &path, finalizer.into());
        }
        Ok(())
    }
}
