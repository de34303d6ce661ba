//! CSIDriver, CSINode and VolumeAttachment: what storage drivers register. Upstream: pkg/apis/storage v1 defaults, validation.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, fill_absent, has, items, text};
use super::{Context, Strategy};

const GROUP: &str = "storage.k8s.io";

pub(super) struct CsiDriver;
pub(super) struct CsiNode;
pub(super) struct VolumeAttachment;

impl Strategy for CsiDriver {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "csidrivers")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    /// Upstream: SetDefaults_CSIDriver.
    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "attachRequired", true);
        fill(spec, "fsGroupPolicy", "ReadWriteOnceWithFSType");
        for key in ["podInfoOnMount", "requiresRepublish", "seLinuxMount", "storageCapacity"] {
            fill_absent(spec, key, false);
        }
        if items(spec, "volumeLifecycleModes").is_empty() {
            spec.set(&["volumeLifecycleModes"], vec!["Persistent"]);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let policies = ["File", "None", "ReadWriteOnceWithFSType"];
        errors.one_of(&path.child("fsGroupPolicy"), text(spec, "fsGroupPolicy"), &policies);
        let modes = path.child("volumeLifecycleModes");
        for mode in items(spec, "volumeLifecycleModes").iter().filter_map(Value::as_str) {
            errors.one_of(&modes, mode, &["Ephemeral", "Persistent"]);
        }
    }
}

impl Strategy for CsiNode {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "csinodes")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let drivers = new.items_at(&["spec", "drivers"]);
        let path = Path::new("spec.drivers");
        for (i, driver) in drivers.iter().enumerate() {
            let path = path.index(i);
            let name = text(driver, "name");
            match name {
                "" => errors.required(&path.child("name"), ""),
                name => errors.subdomain(&path.child("name"), &name.to_lowercase()),
            }
            errors.needs(&path, driver, "nodeID");
            if drivers[..i].iter().any(|earlier| text(earlier, "name") == name) {
                errors.duplicate(&path.child("name"), name);
            }
        }
    }
}

impl Strategy for VolumeAttachment {
    fn resource(&self) -> (&'static str, &'static str) {
        (GROUP, "volumeattachments")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        errors.needs(&path, spec, "attacher");
        errors.needs(&path, spec, "nodeName");
        let source = spec.get("source").unwrap_or(&empty);
        match (has(source, "inlineVolumeSpec"), has(source, "persistentVolumeName")) {
            (false, false) => errors.required(
                &path.child("source"),
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ),
            (true, true) => errors.forbidden(
                &path.child("source"),
                "must specify exactly one of inlineVolumeSpec and persistentVolumeName",
            ),
            _ => {}
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource.is_empty() {
            self.validate(ctx, new, errors);
            super::field::immutable(errors, &Path::new("spec"), new.get("spec"), old.get("spec"));
        }
    }
}
