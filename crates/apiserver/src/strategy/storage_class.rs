//! StorageClass. Upstream: pkg/apis/storage v1 defaults, validation.

use apimachinery::validation::qualified_name;
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, entries, fill, text};
use super::{Context, Strategy};

pub(super) struct StorageClass;

impl Strategy for StorageClass {
    fn resource(&self) -> (&'static str, &'static str) {
        ("storage.k8s.io", "storageclasses")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        fill(value, "reclaimPolicy", "Delete");
        fill(value, "volumeBindingMode", "Immediate");
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        match text(new, "provisioner") {
            "" => errors.required(&Path::new("provisioner"), ""),
            name => errors.problems(&Path::new("provisioner"), name, qualified_name(&name.to_lowercase())),
        }
        for (name, _) in entries(new, "parameters").filter(|(name, _)| name.is_empty()) {
            errors.invalid(&Path::new("parameters"), name, "field can not be empty.");
        }
        let policy = text(new, "reclaimPolicy");
        errors.one_of(&Path::new("reclaimPolicy"), policy, &["Delete", "Retain"]);
        let mode = text(new, "volumeBindingMode");
        errors.needs_one_of(&Path::new("volumeBindingMode"), mode, &["Immediate", "WaitForFirstConsumer"]);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        for (key, plural) in [
            ("parameters", "updates to parameters are forbidden."),
            ("provisioner", "updates to provisioner are forbidden."),
            ("reclaimPolicy", "updates to reclaimPolicy are forbidden."),
        ] {
            if new.get(key) != old.get(key) {
                errors.forbidden(&Path::new(key), plural);
            }
        }
        let path = Path::new("volumeBindingMode");
        super::field::immutable(errors, &path, new.get("volumeBindingMode"), old.get("volumeBindingMode"));
        self.validate(ctx, new, errors);
    }
}
