//! The spec of a volume, also where it stands inside of a VolumeAttachment. Upstream: validation.ValidatePersistentVolumeSpec.

use apimachinery::{FieldError, Quantity, Value};

use super::super::field::{Errors, NOT_POSITIVE, Path, Report, entries, has, items, member, text};
use super::super::persistent_volume_claim::{ACCESS_MODES, VOLUME_MODES, access_modes, basic};
use super::super::pod;
use super::source;

const INLINE: &str = "may not be specified in the context of inline volumes";

/// `inline`: it is no object of its own.
pub(in crate::strategy) fn validate(spec: &Value, name: &str, inline: bool, path: &Path<'_>, errors: &mut Errors) {
    if inline {
        for key in ["claimRef", "capacity"] {
            if has(spec, key) {
                errors.forbidden(&path.child(key), INLINE);
            }
        }
        if !has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified in the context of inline volumes");
        }
    }
    if items(spec, "accessModes").is_empty() {
        errors.required(&path.child("accessModes"), "");
    }
    access_modes(spec, path, &ACCESS_MODES, errors);
    if !inline {
        capacity(spec, path, errors);
    }
    let policy = path.child("persistentVolumeReclaimPolicy");
    match text(spec, "persistentVolumeReclaimPolicy") {
        "" => {}
        "Retain" => {}
        _ if inline => errors.forbidden(&policy, "may only be Retain in the context of inline volumes"),
        other => errors.one_of(&policy, other, &["Delete", "Recycle", "Retain"]),
    }
    let affinity = path.child("nodeAffinity");
    match member(spec, "nodeAffinity").map(|affinity| member(affinity, "required")) {
        None => {}
        Some(_) if inline => errors.forbidden(&affinity, INLINE),
        Some(Some(required)) => pod::scheduling::node_selector(required, &affinity.child("required"), errors),
        Some(None) => errors.required(&affinity.child("required"), "must specify required node constraints"),
    }
    source::validate(spec, name, path, errors);
    let host = spec.str_at(&["hostPath", "path"]).unwrap_or_default();
    let root = !host.is_empty() && host.split('/').all(|part| part.is_empty() || part == ".") && host.starts_with('/');
    if root && text(spec, "persistentVolumeReclaimPolicy") == "Recycle" {
        errors.forbidden(&policy, "may not be 'recycle' for a hostPath mount of '/'");
    }
    match text(spec, "storageClassName") {
        "" => {}
        _ if inline => errors.forbidden(&path.child("storageClassName"), INLINE),
        class => errors.subdomain(&path.child("storageClassName"), class),
    }
    let mode = path.child("volumeMode");
    match spec.str_at(&["volumeMode"]) {
        None | Some("Filesystem") => {}
        Some(_) if inline => {
            errors
                .forbidden(&mode, "may not specify volumeMode other than Filesystem in the context of inline volumes");
        }
        Some(other) => errors.one_of(&mode, other, &VOLUME_MODES),
    }
    if let Some(class) = spec.str_at(&["volumeAttributesClassName"]) {
        match class {
            "" => {
                errors.required(&path.child("volumeAttributesClassName"), "an empty string is disallowed");
            }
            class => errors.subdomain(&path.child("volumeAttributesClassName"), class),
        }
        if !has(spec, "csi") {
            errors.required(&path.child("csi"), "has to be specified when using volumeAttributesClassName");
        }
    }
}

fn capacity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let capacity = path.child("capacity");
    let sizes = entries(spec, "capacity").count();
    if sizes == 0 {
        errors.required(&capacity, "");
    }
    if sizes != 1 || spec.at(&["capacity", "storage"]).is_none() {
        let shown = spec.get("capacity").cloned().unwrap_or_default();
        errors.add(FieldError::not_supported(capacity.to_string(), shown, &["storage"]));
    }
    for (key, size) in entries(spec, "capacity") {
        basic(&capacity.key(key), size, errors);
        if let Some(Ok(size)) = Quantity::from_value(size).filter(|size| matches!(size, Ok(size) if size.sign() <= 0)) {
            errors.invalid(&capacity.key(key), size.to_string(), NOT_POSITIVE);
        }
    }
}
