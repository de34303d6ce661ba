//! What is behind a volume: exactly one source of many kinds. Upstream: validation.ValidatePersistentVolumeSpec and what it calls.

use apimachinery::Value;
use apimachinery::validation::range_error;

use super::super::field::{Errors, Path, Report, entries, flag, has, items, member, text};
use super::super::pod;

/// Member, path under which its fields are named, members it must have.
const SOURCES: [(&str, &str, &[&str]); 22] = [
    ("hostPath", "hostPath", &[]),
    ("gcePersistentDisk", "persistentDisk", &["pdName"]),
    ("awsElasticBlockStore", "awsElasticBlockStore", &["volumeID"]),
    ("glusterfs", "glusterfs", &["endpoints", "path"]),
    ("flocker", "flocker", &[]),
    ("nfs", "nfs", &["server", "path"]),
    ("rbd", "rbd", &["monitors", "image"]),
    ("quobyte", "quobyte", &[]),
    ("cephfs", "cephfs", &["monitors"]),
    ("iscsi", "iscsi", &["targetPortal"]),
    ("cinder", "cinder", &["volumeID"]),
    ("fc", "fc", &[]),
    ("flexVolume", "flexVolume", &["driver"]),
    ("azureFile", "azureFile", &["secretName", "shareName"]),
    ("vsphereVolume", "vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", "photonPersistentDisk", &["pdID"]),
    ("portworxVolume", "portworxVolume", &["volumeID"]),
    ("azureDisk", "azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", "scaleIO", &["gateway", "system", "volumeName"]),
    ("local", "local", &["path"]),
    ("storageos", "storageos", &["volumeName"]),
    ("csi", "csi", &[]),
];

/// The members of a volume's spec that are sources.
pub(super) fn of(spec: &Value) -> Value {
    let mut sources = Value::object();
    for (key, _, _) in SOURCES {
        if let Some(source) = member(spec, key) {
            sources.set(&[key], source);
        }
    }
    sources
}

pub(super) fn validate(spec: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    let mut found = false;
    for (key, shown, needed) in SOURCES {
        let Some(source) = member(spec, key) else { continue };
        if found && key != "flexVolume" {
            let key = if key == "cephfs" { "cephFS" } else { key };
            errors.forbidden(&path.child(key), "may not specify more than 1 volume type");
            continue;
        }
        found = true;
        let here = path.child(shown);
        for key in needed {
            if text(source, key).is_empty() && items(source, key).is_empty() {
                errors.required(&here.child(key), "");
            }
        }
        details(key, source, name, &here, errors);
        if key == "local" && !has(spec, "nodeAffinity") {
            errors.required(&path.child("nodeAffinity"), "Local volume requires node affinity");
        }
    }
    if !found {
        errors.required(path, "must specify a volume type");
    }
}

fn details(kind: &str, source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    match kind {
        "hostPath" => pod::volumes::host_path(source, path, errors),
        "local" => pod::volumes::no_backsteps(text(source, "path"), &path.child("path"), errors),
        "nfs" if !text(source, "path").starts_with('/') => {
            errors.invalid(&path.child("path"), text(source, "path"), "must be an absolute path");
        }
        "gcePersistentDisk" | "awsElasticBlockStore" => {
            if let Some(n) = source.i64_at(&["partition"]).filter(|n| !(0..=255).contains(n)) {
                errors.invalid(&path.child("partition"), n, range_error(1, 255));
            }
        }
        "glusterfs" => match source.str_at(&["endpointsNamespace"]) {
            Some("") => {
                let why = "if the endpointnamespace is set, it must be a valid namespace name";
                errors.invalid(&path.child("endpointsNamespace"), "", why);
            }
            Some(namespace) => errors.label(&path.child("endpointsNamespace"), namespace),
            None => {}
        },
        "flocker" => flocker(source, path, errors),
        "quobyte" => quobyte(source, path, errors),
        "iscsi" => iscsi(source, name, path, errors),
        "cinder" => secret(source, path, errors),
        "fc" => fibre_channel(source, path, errors),
        "flexVolume" => flex(source, path, errors),
        "azureFile" if source.str_at(&["secretNamespace"]) == Some("") => {
            errors.required(&path.child("secretNamespace"), "");
        }
        "azureDisk" => azure_disk(source, path, errors),
        "storageos" => {
            for key in ["volumeName", "volumeNamespace"] {
                if !text(source, key).is_empty() {
                    errors.label(&path.child(key), text(source, key));
                }
            }
            secret(source, path, errors);
        }
        "csi" => csi(source, path, errors),
        _ => {}
    }
}

fn secret(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(secret) = member(source, "secretRef") {
        let path = path.child("secretRef");
        errors.needs(&path, secret, "name");
        errors.needs(&path, secret, "namespace");
    }
}

fn flocker(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    match (text(source, "datasetName"), text(source, "datasetUUID")) {
        ("", "") => errors.required(path, "one of datasetName and datasetUUID is required"),
        (name, uuid) => {
            if !name.is_empty() && !uuid.is_empty() {
                errors.invalid(path, "resource", "datasetName and datasetUUID can not be specified simultaneously");
            }
            if name.contains('/') {
                errors.invalid(&path.child("datasetName"), name, "must not contain '/'");
            }
        }
    }
}

fn quobyte(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    const PAIRS: &str = "must be a host:port pair or multiple pairs separated by commas";
    let registry = text(source, "registry");
    if registry.is_empty() {
        errors.required(&path.child("registry"), PAIRS);
    } else if text(source, "tenant").len() >= 65 {
        errors.required(&path.child("tenant"), "must be a UUID and may not exceed a length of 64 characters");
    } else {
        for _ in registry.split(',').filter(|pair| !pair.contains(':')) {
            errors.invalid(&path.child("registry"), registry, PAIRS);
        }
    }
    errors.needs(path, source, "volume");
}

fn iscsi(source: &Value, name: &str, path: &Path<'_>, errors: &mut Errors) {
    const FORMAT: &str = "must be valid format";
    let valid = |text: &str| {
        let rest = |prefix: &str| text.strip_prefix(prefix);
        let hex = |rest: &str, lengths: &[usize]| {
            lengths.contains(&rest.len()) && rest.chars().all(|c| c.is_ascii_hexdigit())
        };
        match (rest("iqn."), rest("eui."), rest("naa.")) {
            (Some(rest), ..) => {
                let date = rest.get(..8).is_some_and(|date| {
                    let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
                    digits(&date[..4]) && &date[4..5] == "-" && digits(&date[5..7]) && &date[7..] == "."
                });
                let (host, _) = rest
                    .get(8..)
                    .unwrap_or_default()
                    .split_once(':')
                    .unwrap_or((rest.get(8..).unwrap_or_default(), ""));
                let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
                date && !host.is_empty() && host.chars().all(allowed)
            }
            (_, Some(rest), _) => hex(rest, &[16]),
            (_, _, Some(rest)) => hex(rest, &[16, 32]),
            _ => false,
        }
    };
    let (portal, initiator) = (text(source, "targetPortal"), source.str_at(&["initiatorName"]));
    if initiator.is_some() && name.len() + 1 + portal.len() > 64 {
        let why = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.";
        errors.invalid(&path.child("targetportal"), portal, why);
    }
    match text(source, "iqn") {
        "" => errors.required(&path.child("iqn"), ""),
        iqn if !valid(iqn) => errors.invalid(&path.child("iqn"), iqn, FORMAT),
        _ => {}
    }
    if let Some(lun) = source.i64_at(&["lun"]).filter(|lun| !(0..=255).contains(lun)) {
        errors.invalid(&path.child("lun"), lun, range_error(0, 255));
    }
    let authenticates = flag(source, "chapAuthDiscovery") || flag(source, "chapAuthSession");
    match member(source, "secretRef") {
        None if authenticates => errors.required(&path.child("secretRef"), ""),
        Some(secret) => errors.needs(&path.child("secretRef"), secret, "name"),
        None => {}
    }
    if let Some(initiator) = initiator.filter(|name| !valid(name)) {
        errors.invalid(&path.child("initiatorname"), initiator, FORMAT);
    }
}

fn fibre_channel(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    let targets = path.child("targetWWNs");
    let names = items(source, "targetWWNs");
    match (names.is_empty(), items(source, "wwids").is_empty()) {
        (true, true) => errors.required(&targets, "must specify either targetWWNs or wwids, but not both"),
        (false, false) => {
            errors.invalid(&targets, names.to_vec(), "targetWWNs and wwids can not be specified simultaneously");
        }
        _ => {}
    }
    if !names.is_empty() {
        match source.i64_at(&["lun"]) {
            None => errors.required(&path.child("lun"), "lun is required if targetWWNs is specified"),
            Some(lun) if !(0..=255).contains(&lun) => errors.invalid(&path.child("lun"), lun, range_error(0, 255)),
            Some(_) => {}
        }
    }
}

fn flex(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (key, _) in entries(source, "options") {
        let namespace = key.split_once('/').map_or(key, |(namespace, _)| namespace);
        let dotted = format!(".{}", namespace.to_lowercase());
        if dotted.ends_with(".kubernetes.io") || dotted.ends_with(".k8s.io") {
            let why = "kubernetes.io and k8s.io namespaces are reserved";
            errors.invalid(&path.child("options").key(key), key, why);
        }
    }
}

fn azure_disk(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    if let Some(mode) = source.str_at(&["cachingMode"]) {
        errors.one_of(&path.child("cachingMode"), mode, &["None", "ReadOnly", "ReadWrite"]);
    }
    let Some(kind) = source.str_at(&["kind"]) else { return };
    errors.one_of(&path.child("kind"), kind, &["Dedicated", "Managed", "Shared"]);
    let uri = text(source, "diskURI");
    let (prefix, shape) = match kind {
        "Managed" => (
            "/subscriptions/",
            "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}",
        ),
        _ => ("https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"),
    };
    if !uri.starts_with(prefix) {
        errors.not_supported(&path.child("diskURI"), uri, &[shape]);
    }
}

fn csi(source: &Value, path: &Path<'_>, errors: &mut Errors) {
    driver_name(text(source, "driver"), &path.child("driver"), errors);
    errors.needs(path, source, "volumeHandle");
    for key in
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"]
    {
        let Some(secret) = member(source, key) else { continue };
        let path = path.child(key);
        match text(secret, "name") {
            "" => errors.required(&path.child("name"), ""),
            name => errors.subdomain(&path.child("name"), name),
        }
        match text(secret, "namespace") {
            "" => errors.required(&path.child("namespace"), ""),
            namespace => errors.label(&path.child("namespace"), namespace),
        }
    }
}

/// Upstream: ValidateCSIDriverName.
pub(in crate::strategy) fn driver_name(name: &str, path: &Path<'_>, errors: &mut Errors) {
    if name.is_empty() {
        return errors.required(path, "");
    }
    if name.len() > 63 {
        errors.add(apimachinery::FieldError::too_long(path.to_string(), 63));
    }
    errors.problems(path, name, apimachinery::validation::dns1123_subdomain(&name.to_lowercase()));
}
