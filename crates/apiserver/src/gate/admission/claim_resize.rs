//! Only bound claims grow, and only where their class lets them. Upstream: plugin/pkg/admission/storage/persistentvolume/resize.

use apimachinery::{ObjectKey, Quantity, Status, Value};

use super::{Plugin, Write};

pub(super) struct PersistentVolumeClaimResize;

impl Plugin for PersistentVolumeClaimResize {
    fn validate(&self, write: &Write<'_>, new: Option<&Value>, old: Option<&Value>) -> Result<(), Status> {
        let concerns = write.is_of("", "persistentvolumeclaims") && write.subresource.is_empty();
        let (Some(claim), Some(old)) = (new.filter(|_| concerns), old) else { return Ok(()) };
        if size(claim) <= size(old) {
            return Ok(());
        }
        if old.str_at(&["status", "phase"]) != Some("Bound") {
            return Err(write.forbidden(new, "Only bound persistent volume claims can be expanded"));
        }
        let class = class(claim);
        let allows = !class.is_empty()
            && class == self::class(old)
            && write
                .objects
                .get("storage.k8s.io", "storageclasses", &ObjectKey::cluster(class))
                .is_some_and(|class| class.to_value().bool_at(&["allowVolumeExpansion"]) == Some(true));
        if !allows {
            let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
            return Err(write.forbidden(new, why));
        }
        Ok(())
    }
}

fn size(claim: &Value) -> Quantity {
    let size = claim.at(&["spec", "resources", "requests", "storage"]);
    size.and_then(Quantity::from_value).and_then(Result::ok).unwrap_or_default()
}

fn class(claim: &Value) -> &str {
    let legacy = claim.str_at(&["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"]);
    legacy.or(claim.str_at(&["spec", "storageClassName"])).unwrap_or_default()
}
