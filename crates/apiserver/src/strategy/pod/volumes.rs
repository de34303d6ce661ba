//! Volumes and their sources.

use apimachinery::{Quantity, Value};

use super::super::field::{Errors, Path, Report, has, int, items, member, text};
use super::environment::{field_selector, resource_selector};

const FILE_MODE: &str = "must be a number between 0 and 0777 (octal), both inclusive";
const FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
const HOST_PATH_TYPES: [&str; 8] =
    ["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// Member, path under which its fields are named, members it must have.
const SOURCES: [(&str, &str, &[&str]); 30] = [
    ("emptyDir", "emptyDir", &[]),
    ("hostPath", "hostPath", &[]),
    ("gitRepo", "gitRepo", &["repository"]),
    ("gcePersistentDisk", "persistentDisk", &["pdName"]),
    ("awsElasticBlockStore", "awsElasticBlockStore", &["volumeID"]),
    ("secret", "secret", &["secretName"]),
    ("nfs", "nfs", &["server", "path"]),
    ("iscsi", "iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", "glusterfs", &["endpoints", "path"]),
    ("flocker", "flocker", &[]),
    ("persistentVolumeClaim", "persistentVolumeClaim", &["claimName"]),
    ("rbd", "rbd", &["monitors", "image"]),
    ("cinder", "cinder", &["volumeID"]),
    ("cephfs", "cephfs", &["monitors"]),
    ("quobyte", "quobyte", &["registry", "volume"]),
    ("downwardAPI", "downwardAPI", &[]),
    ("fc", "fc", &[]),
    ("flexVolume", "flexVolume", &["driver"]),
    ("configMap", "configMap", &["name"]),
    ("azureFile", "azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", "vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", "photonPersistentDisk", &["pdID"]),
    ("portworxVolume", "portworxVolume", &["volumeID"]),
    ("azureDisk", "azureDisk", &["diskName", "diskURI"]),
    ("storageos", "storageos", &[]),
    ("projected", "projected", &[]),
    ("scaleIO", "scaleIO", &["gateway", "system", "volumeName"]),
    ("csi", "csi", &["driver"]),
    ("ephemeral", "ephemeral", &[]),
    ("image", "image", &[]),
];

/// Checks all volumes and returns those that are valid, by which mounts are checked. Upstream: ValidateVolumes.
pub(super) fn validate<'v>(spec: &'v Value, pod_name: &str, path: &Path<'_>, errors: &mut Errors) -> Vec<&'v Value> {
    let mut valid: Vec<&Value> = Vec::new();
    for (i, volume) in items(spec, "volumes").iter().enumerate() {
        let path = path.index(i);
        let name = text(volume, "name");
        let before = errors.len();
        source(volume, pod_name, &path, errors);
        if name.is_empty() {
            errors.required(&path.child("name"), "");
        } else {
            errors.label(&path.child("name"), name);
        }
        if valid.iter().any(|known| text(known, "name") == name) {
            errors.duplicate(&path.child("name"), name);
        }
        if errors.len() == before {
            valid.push(volume);
        }
        let claim = volume.str_at(&["persistentVolumeClaim", "claimName"]).unwrap_or_default();
        let created = |other: &Value| {
            !pod_name.is_empty() && has(other, "ephemeral") && claim == format!("{pod_name}-{}", text(other, "name"))
        };
        if !claim.is_empty() && items(spec, "volumes").iter().any(created) {
            let why = "must not reference a PVC that gets created for an ephemeral volume";
            let source = path.child("persistentVolumeClaim");
            errors.invalid(&source.child("claimName"), claim, why);
        }
    }
    valid
}

/// Exactly one source. Upstream: validateVolumeSource.
fn source(volume: &Value, pod_name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    for (key, shown, needed) in SOURCES {
        let Some(value) = member(volume, key) else { continue };
        if found {
            errors.forbidden(&path.child(key), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        let path = path.child(shown);
        for key in needed {
            let empty = text(value, key).is_empty() && items(value, key).is_empty();
            if empty {
                errors.required(&path.child(key), "");
            }
        }
        details(key, value, volume, pod_name, &path, errors);
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn details(kind: &str, source: &Value, volume: &Value, pod_name: &str, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "emptyDir" => {
            let negative = |value: &Value| matches!(Quantity::from_value(value), Some(Ok(size)) if size.sign() < 0);
            if member(source, "sizeLimit").is_some_and(negative) {
                errors.forbidden(&path.child("sizeLimit"), "SizeLimit field must be a valid resource quantity");
            }
        }
        "hostPath" => host_path(source, path, errors),
        "gitRepo" => descending_path(text(source, "directory"), &path.child("directory"), errors),
        "nfs" if !text(source, "path").starts_with('/') => {
            errors.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
        }
        "secret" | "configMap" => {
            mode(source, "defaultMode", path, errors);
            let items_path = path.child("items");
            for (i, item) in items(source, "items").iter().enumerate() {
                key_to_path(item, &items_path.index(i), errors);
            }
        }
        "downwardAPI" => {
            mode(source, "defaultMode", path, errors);
            for file in items(source, "items") {
                downward_file(file, path, errors);
            }
        }
        "projected" => {
            mode(source, "defaultMode", path, errors);
            projected(source, path, errors);
        }
        "ephemeral" => ephemeral(source, volume, pod_name, path, errors),
        "image" if text(source, "reference").is_empty() => errors.required(&path.child("reference"), ""),
        _ => {}
    }
}

fn projected(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    const CONFLICT: &str = "conflicting duplicate paths";
    let mut paths: Vec<&str> = Vec::new();
    let sources = path.child("sources");
    for (i, source) in items(source, "sources").iter().enumerate() {
        let here = sources.index(i);
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let Some(value) = member(source, kind) else { continue };
            count += 1;
            let here = here.child(kind);
            errors.needs(&here, value, "name");
            let items_path = here.child("items");
            for (i, item) in items(value, "items").iter().enumerate() {
                key_to_path(item, &items_path.index(i), errors);
                let file = text(item, "path");
                if !file.is_empty() && paths.contains(&file) {
                    errors.invalid(path, text(value, "name"), CONFLICT);
                }
                paths.push(file);
            }
        }
        if let Some(value) = member(source, "downwardAPI") {
            count += 1;
            for item in items(value, "items") {
                downward_file(item, &here.child("downwardAPI"), errors);
                let file = text(item, "path");
                if !file.is_empty() && paths.contains(&file) {
                    errors.invalid(path, file, CONFLICT);
                }
                paths.push(file);
            }
        }
        if let Some(value) = member(source, "serviceAccountToken") {
            count += 1;
            let token = here.child("serviceAccountToken");
            let seconds = int(value, "expirationSeconds");
            if seconds < 600 {
                let why = "may not specify a duration less than 10 minutes";
                errors.invalid(&token.child("expirationSeconds"), seconds, why);
            }
            if seconds > 1 << 32 {
                let why = "may not specify a duration larger than 2^32 seconds";
                errors.invalid(&token.child("expirationSeconds"), seconds, why);
            }
            match text(value, "path") {
                "" => errors.required(&path.child("path"), ""),
                file => local_path(file, &path.child("path"), errors),
            }
        }
        if let Some(value) = member(source, "clusterTrustBundle") {
            count += 1;
            trust_bundle(value, &here.child("clusterTrustBundle"), errors);
        }
        if let Some(value) = member(source, "podCertificate") {
            count += 1;
            errors.needs(&here.child("podCertificate"), value, "signerName");
        }
        if count > 1 {
            errors.forbidden(&here, "may not specify more than 1 volume type per source");
        }
    }
}

fn trust_bundle(bundle: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (bundle.str_at(&["name"]), bundle.str_at(&["signerName"])) {
        (Some(_), Some(_)) => errors.invalid(path, bundle, "only one of name and signerName may be used"),
        (Some(""), None) => errors.required(&path.child("name"), "must be a valid object name"),
        (None, Some("")) => errors.required(&path.child("signerName"), "must be a valid signer name"),
        (None, None) => errors.required(path, "either name or signerName must be specified"),
        _ => {}
    }
    errors.needs(path, bundle, "path");
    local_path(text(bundle, "path"), &path.child("path"), errors);
}

fn ephemeral(source: &Value, volume: &Value, pod_name: &str, path: &Path<'_>, errors: &mut Errors) {
    let Some(template) = member(source, "volumeClaimTemplate") else {
        return errors.required(&path.child("volumeClaimTemplate"), "");
    };
    let path_template = path.child("volumeClaimTemplate");
    if let Some(spec) = member(template, "spec") {
        super::super::persistent_volume_claim::validate_spec(spec, &path_template.child("spec"), errors);
    }
    let name = text(volume, "name");
    if !pod_name.is_empty() && !name.is_empty() {
        let claim = format!("{pod_name}-{name}");
        for problem in apimachinery::validation::dns1123_subdomain(&claim) {
            errors.invalid(&path.child("name"), name, format!("PVC name {claim:?}: {problem}"));
        }
    }
}

fn key_to_path(item: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.needs(path, item, "key");
    errors.needs(path, item, "path");
    local_path(text(item, "path"), &path.child("path"), errors);
    mode(item, "mode", path, errors);
}

fn downward_file(file: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.needs(path, file, "path");
    local_path(text(file, "path"), &path.child("path"), errors);
    match (member(file, "fieldRef"), member(file, "resourceFieldRef")) {
        (Some(field), other) => {
            field_selector(field, &FIELDS, &path.child("fieldRef"), errors);
            if other.is_some() {
                errors.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously");
            }
        }
        (None, Some(resource)) => resource_selector(resource, true, &path.child("resourceFieldRef"), errors),
        (None, None) => errors.required(path, "one of fieldRef and resourceFieldRef is required"),
    }
    mode(file, "mode", path, errors);
}

fn mode(source: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = source.i64_at(&[key]).filter(|mode| !(0..=0o777).contains(mode)) {
        errors.invalid(&path.child(key), mode, FILE_MODE);
    }
}

/// A relative path without `..`.
pub(super) fn descending_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if target.starts_with('/') {
        errors.invalid(path, target, "must be a relative path");
    }
    no_backsteps(target, path, errors);
}

pub(super) fn has_backsteps(target: &str) -> bool {
    target.split('/').any(|part| part == "..")
}

/// Upstream: validateHostPathVolumeSource.
pub(crate) fn host_path(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if text(source, "path").is_empty() {
        return errors.required(&path.child("path"), "");
    }
    no_backsteps(text(source, "path"), &path.child("path"), errors);
    errors.one_of(&path.child("type"), text(source, "type"), &HOST_PATH_TYPES);
}

pub(crate) fn no_backsteps(target: &str, path: &Path<'_>, errors: &mut Errors) {
    if has_backsteps(target) {
        errors.invalid(path, target, "must not contain '..'");
    }
}

/// A relative path without `..`, whose first part does not begin like that either.
fn local_path(target: &str, path: &Path<'_>, errors: &mut Errors) {
    descending_path(target, path, errors);
    if target.starts_with("..") && !target.starts_with("../") {
        errors.invalid(path, target, "must not start with '..'");
    }
}
