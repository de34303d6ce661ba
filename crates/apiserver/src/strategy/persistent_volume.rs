//! PersistentVolume. Upstream: pkg/registry/core/persistentvolume.

use apimachinery::{FieldError, Value};

use super::field::{NOT_POSITIVE, Path, Report, entries, fill, fill_absent, immutable, items, member, text};
use super::persistent_volume_claim::{ACCESS_MODES, VOLUME_MODES};
use super::{Context, Strategy, keep, pod};

/// Members of the spec that are no source of the volume.
const NO_SOURCE: [&str; 9] = [
    "accessModes",
    "capacity",
    "claimRef",
    "mountOptions",
    "nodeAffinity",
    "persistentVolumeReclaimPolicy",
    "storageClassName",
    "volumeAttributesClassName",
    "volumeMode",
];

pub(super) struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "persistentvolumes")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        fill(value.make_object().entry("status"), "phase", "Pending");
        let Some(spec) = value.get_mut("spec") else { return };
        fill(spec, "persistentVolumeReclaimPolicy", "Retain");
        fill_absent(spec, "volumeMode", "Filesystem");
        if let Some(host) = spec.get_mut("hostPath").filter(|host| !host.is_null()) {
            fill_absent(host, "type", "");
        }
    }

    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        let mut status = Value::object();
        status.set(&["phase"], "Pending");
        status.set(&["lastPhaseTransitionTime"], crate::registry::timestamp(ctx.env.now()));
        new.set(&["status"], status);
    }

    fn prepare_subresource(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
        let phase = ["status", "phase"];
        if new.str_at(&phase) != old.str_at(&phase) {
            let time = ["status", "lastPhaseTransitionTime"];
            if new.at(&time).is_none() || new.at(&time) == old.at(&time) {
                new.set(&time, crate::registry::timestamp(ctx.env.now()));
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let modes = items(spec, "accessModes");
        let modes_path = path.child("accessModes");
        if modes.is_empty() {
            errors.required(&modes_path, "");
        }
        for mode in modes.iter().filter_map(Value::as_str) {
            errors.one_of(&modes_path, mode, &ACCESS_MODES);
        }
        let capacity = path.child("capacity");
        let sizes = entries(spec, "capacity").count();
        if sizes == 0 {
            errors.required(&capacity, "");
        }
        if sizes != 1 || spec.at(&["capacity", "storage"]).is_none() {
            let shown = spec.get("capacity").cloned().unwrap_or_default();
            errors.add(FieldError::not_supported("spec.capacity", shown, &["storage"]));
        }
        if let Some(size) = spec.at(&["capacity", "storage"]) {
            let quantity = pod::resources::amount(&capacity.key("storage"), "storage", size, errors);
            if quantity.is_zero() {
                errors.invalid(&capacity.key("storage"), quantity.to_string(), NOT_POSITIVE);
            }
        }
        let policy = text(spec, "persistentVolumeReclaimPolicy");
        errors.one_of(&path.child("persistentVolumeReclaimPolicy"), policy, &["Delete", "Recycle", "Retain"]);
        let affinity_path = path.child("nodeAffinity");
        match member(spec, "nodeAffinity").map(|affinity| member(affinity, "required")) {
            Some(Some(required)) => pod::scheduling::node_selector(required, &affinity_path.child("required"), errors),
            Some(None) => {
                errors.required(&affinity_path.child("required"), "must specify required node constraints");
            }
            None => {}
        }
        if let Some(host) = member(spec, "hostPath") {
            errors.needs(&path.child("hostPath"), host, "path");
            if text(host, "path").split('/').any(|part| part == "..") {
                let host_path = path.child("hostPath");
                errors.invalid(&host_path.child("path"), text(host, "path"), "must not contain '..'");
            }
        }
        let members = spec.as_object().into_iter().flat_map(|map| map.iter());
        let sources: Vec<&str> =
            members.filter(|(key, value)| !NO_SOURCE.contains(key) && !value.is_null()).map(|(key, _)| key).collect();
        match sources.as_slice() {
            [] => errors.required(&path, "must specify a volume type"),
            [_] => {}
            [_, more @ ..] => {
                for key in more {
                    errors.forbidden(&path.child(key), "may not specify more than 1 volume type");
                }
            }
        }
        let class = text(spec, "storageClassName");
        if !class.is_empty() {
            errors.subdomain(&path.child("storageClassName"), class);
        }
        if let Some(mode) = spec.str_at(&["volumeMode"]) {
            errors.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return;
        }
        self.validate(ctx, new, errors);
        let sources = |volume: &Value| -> Vec<(String, Value)> {
            let spec = volume.get("spec").and_then(Value::as_object);
            let members = spec.into_iter().flat_map(|map| map.iter());
            members
                .filter(|(key, _)| !NO_SOURCE.contains(key))
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect()
        };
        if sources(new) != sources(old) {
            let path = Path::new("spec.persistentvolumesource");
            errors.forbidden(&path, "spec.persistentvolumesource is immutable after creation");
        }
        let mode = ["spec", "volumeMode"];
        immutable(errors, &Path::new("spec.volumeMode"), new.at(&mode), old.at(&mode));
    }
}
