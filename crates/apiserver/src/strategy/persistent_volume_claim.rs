//! PersistentVolumeClaim. Upstream: pkg/registry/core/persistentvolumeclaim, validation.ValidatePersistentVolumeClaim.

use apimachinery::validation::{dns1123_subdomain, validate_label_selector};
use apimachinery::{FieldError, Quantity, Value};

use super::field::{Errors, NOT_POSITIVE, Path, Report, entries, fill, fill_absent, immutable, items, member, text};
use super::{Context, Strategy, keep};

pub(super) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

pub(super) struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "persistentvolumeclaims")
    }

    fn default(&self, value: &mut Value) {
        default_claim(value);
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        let mut status = Value::object();
        status.set(&["phase"], "Pending");
        new.set(&["status"], status);
        data_source(new);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["status"]);
        data_source(new);
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(new.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return;
        }
        self.validate(ctx, new, errors);
        update(new, old, errors);
    }
}

/// A claim, also inside of a template.
pub(super) fn default_claim(value: &mut Value) {
    if let Some(spec) = value.get_mut("spec") {
        fill_absent(spec, "volumeMode", "Filesystem");
    }
    if let Some(status) = value.get_mut("status").filter(|status| !status.is_null()) {
        fill(status, "phase", "Pending");
    } else {
        value.set(&["status", "phase"], "Pending");
    }
}

/// `dataSource` and `dataSourceRef` say the same. Upstream: NormalizeDataSources.
fn data_source(claim: &mut Value) {
    let source = claim.at(&["spec", "dataSource"]).filter(|value| !value.is_null()).cloned();
    let reference = claim.at(&["spec", "dataSourceRef"]).filter(|value| !value.is_null()).cloned();
    match (source, reference) {
        (Some(source), None) => claim.set(&["spec", "dataSourceRef"], source),
        (None, Some(reference)) if text(&reference, "namespace").is_empty() => {
            let group = text(&reference, "apiGroup");
            let core = group.is_empty() && text(&reference, "kind") == "PersistentVolumeClaim";
            if core || group == "snapshot.storage.k8s.io" && text(&reference, "kind") == "VolumeSnapshot" {
                claim.set(&["spec", "dataSource"], reference);
            }
        }
        _ => {}
    }
}

/// Upstream: ValidatePersistentVolumeClaimSpec.
pub(super) fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let modes = items(spec, "accessModes");
    let modes_path = path.child("accessModes");
    if modes.is_empty() {
        errors.required(&modes_path, "at least 1 access mode is required");
    }
    if let Some(selector) = member(spec, "selector") {
        errors.extend(validate_label_selector(selector, &path.child("selector").to_string(), false));
    }
    for mode in modes.iter().filter_map(Value::as_str) {
        errors.one_of(&modes_path, mode, &ACCESS_MODES);
    }
    let known = modes.iter().filter_map(Value::as_str).all(|mode| ACCESS_MODES.contains(&mode));
    if known && modes.len() > 1 && modes.iter().any(|mode| mode.as_str() == Some("ReadWriteOncePod")) {
        errors.forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes");
    }
    let resources = path.child("resources");
    let requests = resources.child("requests");
    match spec.at(&["resources", "requests", "storage"]).map(|size| (size, Quantity::from_value(size))) {
        None => errors.required(&resources.key("storage"), ""),
        Some((_, Some(Ok(size)))) if size.sign() <= 0 => {
            errors.invalid(&resources.key("storage"), size.to_string(), NOT_POSITIVE);
        }
        Some((size, Some(Err(problem)))) => errors.invalid(&requests.key("storage"), size, problem.to_string()),
        Some(_) => {}
    }
    for key in ["storageClassName", "volumeAttributesClassName"] {
        if let Some(name) = spec.str_at(&[key]).filter(|name| !name.is_empty()) {
            errors.problems(&path.child(key), name, dns1123_subdomain(name));
        }
    }
    if let Some(mode) = spec.str_at(&["volumeMode"]) {
        errors.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    if let Some(source) = member(spec, "dataSource") {
        let path = path.child("dataSource");
        errors.needs(&path, source, "name");
        errors.needs(&path, source, "kind");
        if text(source, "apiGroup").is_empty() && text(source, "kind") != "PersistentVolumeClaim" {
            errors.invalid(
                &path,
                text(source, "kind"),
                "must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            );
        }
    }
}

/// Upstream: ValidatePersistentVolumeClaimUpdate.
fn update(new: &Value, old: &Value, errors: &mut Errors) {
    let size = |claim: &Value| {
        let size = claim.at(&["spec", "resources", "requests", "storage"]);
        size.and_then(Quantity::from_value).and_then(Result::ok).unwrap_or_default()
    };
    let spec = Path::new("spec");
    let mut munged = new.get("spec").cloned().unwrap_or_default();
    let before = old.get("spec").cloned().unwrap_or_default();
    // A claim's volume is filled in once, a class that nobody chose may be chosen later.
    if text(&before, "volumeName").is_empty() {
        keep(&mut munged, &before, &["volumeName"]);
    }
    if member(&before, "storageClassName").is_none() {
        keep(&mut munged, &before, &["storageClassName"]);
    }
    if new.str_at(&["status", "phase"]) == Some("Bound") {
        keep(&mut munged, &before, &["resources", "requests", "storage"]);
        keep(&mut munged, &before, &["volumeAttributesClassName"]);
    }
    if munged != before {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";
        let changed: Vec<String> = entries(new, "spec")
            .filter(|(key, value)| old.at(&["spec", key]) != Some(value))
            .map(|(key, value)| format!("+ {key}: {value}\n"))
            .collect();
        errors.forbidden(&spec, format!("{why}{}", changed.concat()));
    }
    if size(new) < size(old) {
        let capacity = old.at(&["status", "capacity", "storage"]).and_then(Quantity::from_value).and_then(Result::ok);
        if size(new) <= capacity.unwrap_or_default() {
            let resources = spec.child("resources");
            let requests = resources.child("requests");
            errors.forbidden(&requests.child("storage"), "field can not be less than status.capacity");
        }
    }
    let mode = ["spec", "volumeMode"];
    immutable(errors, &Path::new("volumeMode"), new.at(&mode), old.at(&mode));
}
