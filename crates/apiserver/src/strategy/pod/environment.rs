//! Environment variables and where their values come from.

use apimachinery::validation::{config_map_key, env_var_name};
use apimachinery::{Quantity, Value};

use super::super::field::{Errors, Path, Report, has, items, member, text};

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// What downward references may name at all.
const KNOWN_FIELDS: [&str; 14] = [
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const DIVISORS: [&str; 13] = ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];
const SOURCES: [&str; 5] = ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"];

/// `env` and `envFrom` of a container. Upstream: ValidateEnv, ValidateEnvFrom.
pub(super) fn validate(container: &Value, path: &Path<'_>, errors: &mut Errors) {
    let env = path.child("env");
    for (i, variable) in items(container, "env").iter().enumerate() {
        let path = env.index(i);
        match text(variable, "name") {
            "" => errors.required(&path.child("name"), ""),
            name => errors.problems(&path.child("name"), name, env_var_name(name)),
        }
        if let Some(from) = member(variable, "valueFrom") {
            value_from(from, text(variable, "value"), &path.child("valueFrom"), errors);
        }
    }
    let env_from = path.child("envFrom");
    for (i, source) in items(container, "envFrom").iter().enumerate() {
        let path = env_from.index(i);
        match text(source, "prefix") {
            "" => {}
            prefix => errors.problems(&path.child("prefix"), prefix, env_var_name(prefix)),
        }
        let mut sources = 0;
        for kind in ["configMapRef", "secretRef"] {
            let Some(reference) = member(source, kind) else { continue };
            sources += 1;
            let path = path.child(kind);
            match text(reference, "name") {
                "" => errors.required(&path.child("name"), ""),
                name => errors.subdomain(&path.child("name"), name),
            }
        }
        match sources {
            0 => errors.invalid(&env_from, "", "must specify one of: `configMapRef` or `secretRef`"),
            1 => {}
            _ => errors.invalid(&env_from, "", "may not have more than one field specified at a time"),
        }
    }
}

fn value_from(from: &Value, value: &str, path: &Path<'_>, errors: &mut Errors) {
    for kind in SOURCES {
        let Some(source) = member(from, kind) else { continue };
        let path = path.child(kind);
        match kind {
            "fieldRef" => field_selector(source, &FIELDS, &path, errors),
            "resourceFieldRef" => resource_selector(source, false, &path, errors),
            "fileKeyRef" => {
                for key in ["volumeName", "path", "key"] {
                    errors.needs(&path, source, key);
                }
            }
            _ => {
                errors.subdomain(&path.child("name"), text(source, "name"));
                match text(source, "key") {
                    "" => errors.required(&path.child("key"), ""),
                    key => errors.problems(&path.child("key"), key, config_map_key(key)),
                }
            }
        }
    }
    match SOURCES.iter().filter(|kind| has(from, kind)).count() {
        0 => {
            let why = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
            errors.invalid(path, "", why);
        }
        _ if !value.is_empty() => errors.invalid(path, "", "may not be specified when `value` is not empty"),
        1 => {}
        _ => errors.invalid(path, "", "may not have more than one field specified at a time"),
    }
}

/// Upstream: validateObjectFieldSelector, ConvertDownwardAPIFieldLabel.
pub(super) fn field_selector(selector: &Value, supported: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let (version, field) = (text(selector, "apiVersion"), text(selector, "fieldPath"));
    if version.is_empty() {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.is_empty() {
        return errors.required(&path.child("fieldPath"), "");
    }
    let wrong = |why: String| format!("error converting fieldPath: {why}");
    if version != "v1" {
        return errors.invalid(&path.child("fieldPath"), field, wrong(format!("unsupported pod version: {version}")));
    }
    let subscript =
        field.strip_suffix("']").and_then(|field| field.split_once("['")).filter(|(name, _)| !name.is_empty());
    if let Some((name, key)) = subscript {
        match name {
            "metadata.annotations" => errors.qualified(path, &key.to_lowercase()),
            "metadata.labels" => errors.qualified(path, key),
            _ => {
                let why = format!("field label does not support subscript: {field}");
                errors.invalid(&path.child("fieldPath"), field, wrong(why));
            }
        }
        return;
    }
    let field = if field == "spec.host" { "spec.nodeName" } else { field };
    if !KNOWN_FIELDS.contains(&field) {
        let why = wrong(format!("field label not supported: {field}"));
        return errors.invalid(&path.child("fieldPath"), field, why);
    }
    errors.one_of(&path.child("fieldPath"), field, supported);
}

/// Upstream: validateContainerResourceFieldSelector.
pub(super) fn resource_selector(selector: &Value, in_volume: bool, path: &Path<'_>, errors: &mut Errors) {
    let resource = text(selector, "resource");
    let huge = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if in_volume && text(selector, "containerName").is_empty() {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !huge {
        errors.one_of(&path.child("resource"), resource, &RESOURCES);
    }
    let divisor = match member(selector, "divisor").map(Quantity::from_value) {
        Some(Some(Ok(divisor))) if !divisor.is_zero() => divisor.to_string(),
        _ => return,
    };
    let what = match resource {
        "limits.cpu" | "requests.cpu" => {
            if !matches!(divisor.as_str(), "1m" | "1") {
                let why = "only divisor's values 1m and 1 are supported with the cpu resource";
                errors.invalid(&path.child("divisor"), resource, why);
            }
            return;
        }
        "limits.memory" | "requests.memory" => "memory",
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => "local ephemeral storage",
        _ if huge => "hugepages",
        _ => return,
    };
    if !DIVISORS.contains(&divisor.as_str()) {
        let why = format!("only divisor's values {} are supported with the {what} resource", DIVISORS.join(", "));
        errors.invalid(&path.child("divisor"), resource, why);
    }
}
