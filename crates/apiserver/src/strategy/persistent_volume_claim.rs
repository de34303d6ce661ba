//! PersistentVolumeClaim. Upstream: pkg/registry/core/persistentvolumeclaim, validation.ValidatePersistentVolumeClaim.

use apimachinery::validation::validate_label_selector;
use apimachinery::{FieldError, Quantity, Value};

use super::field::{
    Errors, NOT_POSITIVE, Path, Report, entries, fill, fill_absent, has, immutable, items, member, text,
};
use super::{Context, Strategy, keep};

pub(super) const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];
pub(super) const VOLUME_MODES: [&str; 2] = ["Block", "Filesystem"];

/// Where a class was named before there was a field for it.
pub(super) const LEGACY_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const ANNOTATION: [&str; 3] = ["metadata", "annotations", LEGACY_CLASS];

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
        data_source(new, None);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["status"]);
        data_source(new, Some(old));
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        validate_spec(new.get("spec").unwrap_or(&Value::Null), &Path::new("spec"), errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return status(new, errors);
        }
        self.validate(ctx, new, errors);
        update(new, old, errors);
    }

    /// Upstream: pkg/api/persistentvolumeclaim GetWarningsForPersistentVolumeClaim.
    fn warnings(&self, ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        // Who writes the status can't help it.
        if !ctx.subresource.is_empty() {
            return warnings;
        }
        if new.at(&["metadata", "annotations", LEGACY_CLASS]).is_some() {
            warnings.push(format!(
                "metadata.annotations[{LEGACY_CLASS}]: deprecated since v1.8; use \"storageClassName\" attribute instead"
            ));
        }
        for key in ["requests", "limits"] {
            let size = new.at(&["spec", "resources", key, "storage"]).and_then(Quantity::from_value);
            if let Some(Ok(size)) = size.filter(|size| matches!(size, Ok(size) if size.milli_value() % 1000 != 0)) {
                let path = format!("spec.resources.{key}[storage]");
                warnings.push(format!("{path}: fractional byte value \"{size}\" is invalid, must be an integer"));
            }
        }
        warnings
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

/// Drops what no volume is ever filled from, and makes `dataSource` and `dataSourceRef` say the same. Upstream:
/// pkg/api/persistentvolumeclaim DropDisabledFields, EnforceDataSourceBackwardsCompatibility, NormalizeDataSources.
fn data_source(claim: &mut Value, old: Option<&Value>) {
    let old = old.and_then(|old| old.get("spec")).unwrap_or(&Value::Null);
    let Some(spec) = claim.get_mut("spec") else { return };
    let elsewhere = |spec: &Value| spec.str_at(&["dataSourceRef", "namespace"]).is_some_and(|name| !name.is_empty());
    if elsewhere(spec) && !has(old, "dataSourceRef") {
        spec.remove(&["dataSourceRef"]);
    }
    let had = has(old, "dataSource") || has(old, "dataSourceRef");
    if !had && !has(spec, "dataSourceRef") {
        let known = member(spec, "dataSource").is_some_and(|source| {
            let origin = (text(source, "apiGroup"), text(source, "kind"));
            matches!(origin, ("", "PersistentVolumeClaim") | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
        });
        if !known {
            spec.remove(&["dataSource"]);
        }
    }
    match (member(spec, "dataSource").cloned(), member(spec, "dataSourceRef").cloned()) {
        (Some(source), None) => spec.set(&["dataSourceRef"], source),
        (None, Some(mut reference)) if !elsewhere(spec) => {
            reference.remove(&["namespace"]);
            spec.set(&["dataSource"], reference);
        }
        _ => {}
    }
}

/// Upstream: the same lines of ValidatePersistentVolumeSpec and ValidatePersistentVolumeClaimSpec.
pub(super) fn access_modes(spec: &Value, path: &Path<'_>, supported: &[&str], errors: &mut Errors) {
    let modes_path = path.child("accessModes");
    let modes = || items(spec, "accessModes").iter().filter_map(Value::as_str);
    for mode in modes() {
        errors.one_of(&modes_path, mode, supported);
    }
    let alone = modes().any(|mode| mode == "ReadWriteOncePod");
    if alone && modes().any(|mode| mode != "ReadWriteOncePod" && supported.contains(&mode)) {
        errors.forbidden(&modes_path, "may not use ReadWriteOncePod with other access modes");
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
    access_modes(spec, path, &ACCESS_MODES, errors);
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
    let class = |key: &str, errors: &mut Errors| {
        if !text(spec, key).is_empty() {
            errors.subdomain(&path.child(key), text(spec, key));
        }
    };
    class("storageClassName", errors);
    if let Some(mode) = spec.str_at(&["volumeMode"]) {
        errors.one_of(&path.child("volumeMode"), mode, &VOLUME_MODES);
    }
    let (source, reference) = (member(spec, "dataSource"), member(spec, "dataSourceRef"));
    for (key, source) in [("dataSource", source), ("dataSourceRef", reference)] {
        if let Some(source) = source {
            validate_source(source, &path.child(key), errors);
        }
    }
    if let (Some(source), Some(reference)) = (source, reference) {
        // Upstream shows a path without members.
        let field = Value::object();
        if !text(reference, "namespace").is_empty() {
            errors.invalid(path, field, "may not be specified when dataSourceRef.namespace is specified");
        } else if ["apiGroup", "kind", "name"].iter().any(|key| source.get(key) != reference.get(key)) {
            errors.invalid(path, field, "must match dataSourceRef");
        }
    }
    class("volumeAttributesClassName", errors);
}

fn validate_source(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.needs(path, source, "name");
    errors.needs(path, source, "kind");
    match text(source, "apiGroup") {
        "" if text(source, "kind") != "PersistentVolumeClaim" => {
            let why = "must be 'PersistentVolumeClaim' when referencing the default apiGroup";
            errors.invalid(path, text(source, "kind"), why);
        }
        "" => {}
        group => errors.subdomain(&path.child("apiGroup"), group),
    }
    if !text(source, "namespace").is_empty() {
        errors.label(&path.child("namespace"), text(source, "namespace"));
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
    let (legacy, old_legacy) = (new.str_at(&ANNOTATION), old.str_at(&ANNOTATION));
    let chosen = member(&munged, "storageClassName").and_then(Value::as_str).map(str::to_owned);
    let may_choose = !has(&before, "storageClassName") && chosen.is_some();
    let moved = may_choose && old_legacy.is_some() && chosen.as_deref() == old_legacy;
    if may_choose && (old_legacy.is_none() || moved) {
        keep(&mut munged, &before, &["storageClassName"]);
    }
    let left = moved && legacy.is_none();
    if legacy != old_legacy && !left {
        let path = Path::new("metadata.annotations");
        errors.invalid(&path.child(LEGACY_CLASS), legacy.unwrap_or_default(), "field is immutable");
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
    let class = ["spec", "volumeAttributesClassName"];
    if new.at(&class) != old.at(&class) && old.at(&["status", "currentVolumeAttributesClassName"]).is_some() {
        let path = Path::new("spec.volumeAttributesClassName");
        let applied = "is forbidden when status.currentVolumeAttributesClassName is not nil";
        match new.str_at(&class) {
            None => errors.forbidden(&path, format!("update to nil {applied}")),
            Some("") => errors.forbidden(&path, format!("update to empty string {applied}")),
            Some(_) => {}
        }
    }
}

/// Upstream: ValidatePersistentVolumeClaimStatusUpdate.
fn status(new: &Value, errors: &mut Errors) {
    const PHASES: [&str; 5] = [
        "ControllerResizeInProgress",
        "ControllerResizeInfeasible",
        "NodeResizePending",
        "NodeResizeInProgress",
        "NodeResizeInfeasible",
    ];
    let path = Path::new("status");
    let Some(status) = new.get("status") else { return };
    let capacity = path.child("capacity");
    for (key, size) in entries(status, "capacity") {
        basic(&capacity.key(key), size, errors);
    }
    let statuses = path.child("allocatedResourceStatuses");
    for (key, phase) in entries(status, "allocatedResourceStatuses") {
        resource_key(&statuses, key, errors);
        if !phase.as_str().is_some_and(|phase| PHASES.contains(&phase)) {
            let mut sorted = PHASES;
            sorted.sort_unstable();
            errors.not_supported(&statuses, key, &sorted);
        }
    }
    let allocated = path.child("allocatedResources");
    for (key, size) in entries(status, "allocatedResources") {
        if resource_key(&allocated, key, errors) {
            basic(&allocated.key(key), size, errors);
        }
    }
}

/// Upstream: validateBasicResource.
pub(super) fn basic(path: &Path<'_>, size: &Value, errors: &mut Errors) {
    if let Some(Ok(size)) = Quantity::from_value(size).filter(|size| matches!(size, Ok(size) if size.sign() < 0)) {
        errors.invalid(path, size.value(), "must be a valid resource quantity");
    }
}

/// Of the names without a foreign domain only `storage` is one. Returns whether it is good.
fn resource_key(path: &Path<'_>, key: &str, errors: &mut Errors) -> bool {
    let before = errors.len();
    errors.qualified(path, key);
    let native = !key.contains('/') || key.contains("kubernetes.io/");
    if errors.len() == before && native && key != "storage" {
        errors.not_supported(path, key, &["storage"]);
    }
    errors.len() == before
}
