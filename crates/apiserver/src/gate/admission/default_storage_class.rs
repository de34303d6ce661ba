//! Claims that name no class get the default one. Upstream: plugin/pkg/admission/storage/storageclass/setdefault.

use apimachinery::{Status, Value};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct DefaultStorageClass;

const LEGACY: [&str; 3] = ["metadata", "annotations", "volume.beta.kubernetes.io/storage-class"];
const DEFAULT: [&str; 2] =
    ["storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"];

impl Plugin for DefaultStorageClass {
    fn admit(&self, write: &Write<'_>, claim: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let concerns = write.operation == Operation::Create
            && write.is_of("", "persistentvolumeclaims")
            && write.subresource.is_empty();
        let class = ["spec", "storageClassName"];
        if !concerns || claim.at(&LEGACY).is_some() || claim.str_at(&class).is_some() {
            return Ok(());
        }
        if let Some(name) = default_class(write) {
            claim.set(&class, name);
        }
        Ok(())
    }
}

/// Of several default classes the newest, of equally old ones the first by name.
fn default_class(write: &Write<'_>) -> Option<String> {
    let classes = write.objects.list("storage.k8s.io", "storageclasses", "").into_iter();
    let defaults = classes
        .map(|class| class.to_value())
        .filter(|class| DEFAULT.iter().any(|key| class.str_at(&["metadata", "annotations", key]) == Some("true")));
    let text = |class: &Value, key: &str| class.str_at(&["metadata", key]).unwrap_or_default().to_owned();
    let age = |class: &Value| (std::cmp::Reverse(text(class, "creationTimestamp")), text(class, "name"));
    defaults.min_by_key(age).map(|class| text(&class, "name"))
}
