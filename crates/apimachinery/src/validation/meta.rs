//! What every object's `metadata` must satisfy, at creation and at update, and label selectors in a spec.

use super::{Problems, dns1035_label, dns1123_label, dns1123_subdomain, label_value, path_segment, qualified_name};
use crate::{FieldError, GroupVersion, Value};

/// The format of a kind's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameFormat {
    /// Most kinds.
    DnsSubdomain,
    /// Namespace, and names that become part of a host name.
    DnsLabel,
    /// Service.
    Dns1035Label,
    /// RBAC's kinds.
    PathSegment,
}

const ANNOTATIONS_MAX: usize = 256 * 1024;
const IMMUTABLE: &str = "field is immutable";

impl NameFormat {
    /// What is wrong with `name`; a `prefix` (generateName) may end in a dash. Then one letter stands for the dash and what is before it,
    /// as upstream's maskTrailingDash has it: the prefix of the longest name is no longer than that.
    pub fn check(self, name: &str, prefix: bool) -> Problems {
        let masked;
        let stem = name.strip_suffix('-').filter(|stem| prefix && !stem.is_empty());
        let name = match stem.filter(|_| self != NameFormat::PathSegment) {
            Some(stem) => {
                masked = format!("{}a", &stem[..stem.floor_char_boundary(stem.len() - 1)]);
                &masked
            }
            None => name,
        };
        match self {
            NameFormat::DnsSubdomain => dns1123_subdomain(name),
            NameFormat::DnsLabel => dns1123_label(name),
            NameFormat::Dns1035Label => dns1035_label(name),
            NameFormat::PathSegment => path_segment(name),
        }
    }
}

/// Checks `object`'s metadata as it is created, its name already generated. Upstream: `ValidateObjectMeta`.
pub fn validate_object_meta(object: &Value, namespaced: bool, names: NameFormat) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let text = |key: &str| object.str_at(&["metadata", key]).unwrap_or_default();
    let (name, prefix, namespace) = (text("name"), text("generateName"), text("namespace"));
    if !prefix.is_empty() {
        invalid(&mut errors, "metadata.generateName", prefix, names.check(prefix, true));
    }
    if name.is_empty() {
        errors.push(FieldError::required("metadata.name", "name or generateName is required"));
    } else {
        invalid(&mut errors, "metadata.name", name, names.check(name, false));
    }
    match (namespaced, namespace) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, _) => invalid(&mut errors, "metadata.namespace", namespace, dns1123_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    if let Some(generation) = object.i64_at(&["metadata", "generation"]).filter(|n| *n < 0) {
        errors.push(FieldError::invalid("metadata.generation", generation, "must be greater than or equal to 0"));
    }
    validate_parts(object, &mut errors);
    errors.extend(validate_finalizers(object));
    errors
}

/// Checks `new`'s metadata against the stored `old`. Upstream: `ValidateObjectMetaUpdate`.
pub fn validate_object_meta_update(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if old.str_at(&["metadata", "deletionTimestamp"]).is_some() {
        let before = old.items_at(&["metadata", "finalizers"]);
        let mut added: Vec<&str> = new
            .items_at(&["metadata", "finalizers"])
            .iter()
            .filter(|finalizer| !before.contains(finalizer))
            .filter_map(Value::as_str)
            .collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let list: Vec<String> = added.iter().map(|name| format!("{name:?}")).collect();
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                list.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", detail));
        }
    }
    let revision = new.str_at(&["metadata", "resourceVersion"]).unwrap_or_default();
    if revision.is_empty() {
        errors.push(FieldError::invalid("metadata.resourceVersion", "", "must be specified for an update"));
    }
    let generation = |of: &Value| of.i64_at(&["metadata", "generation"]).unwrap_or_default();
    if generation(new) < generation(old) {
        errors.push(FieldError::invalid("metadata.generation", generation(new), "must not be decremented"));
    }
    let mut fixed = |key: &str, empty: &Value| {
        let of = |object: &Value| object.at(&["metadata", key]).unwrap_or(empty).clone();
        errors.extend(immutable(&format!("metadata.{key}"), &of(new), &of(old)));
    };
    for key in ["name", "namespace", "uid"] {
        fixed(key, &"".into());
    }
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        fixed(key, &Value::Null);
    }
    validate_parts(new, &mut errors);
    errors
}

/// Refuses a change of `field`.
pub fn immutable(field: &str, new: &Value, old: &Value) -> Option<FieldError> {
    (new != old).then(|| FieldError::invalid(field, new, IMMUTABLE))
}

/// Refuses a change of what is under `path` in two objects; absent and null are the same.
pub fn immutable_at(path: &[&str], new: &Value, old: &Value) -> Option<FieldError> {
    let of = |object: &Value| object.at(path).cloned().unwrap_or_default();
    immutable(&path.join("."), &of(new), &of(old))
}

/// Checks a map of labels found at `field`.
pub fn validate_labels(labels: Option<&Value>, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (key, value) in labels.and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
        invalid(&mut errors, field, key, qualified_name(key));
        if let Some(text) = value.as_str() {
            invalid(&mut errors, field, text, label_value(text));
        }
    }
    errors
}

/// Checks a map of annotations found at `field`: keys, and 256 KiB in all.
pub fn validate_annotations(annotations: Option<&Value>, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut size = 0;
    for (key, value) in annotations.and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
        invalid(&mut errors, field, key, qualified_name(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > ANNOTATIONS_MAX {
        errors.push(FieldError::too_long(field, ANNOTATIONS_MAX));
    }
    errors
}

/// Checks a `LabelSelector` found at `field`. Values of expressions may be kept invalid where a stored object has such.
pub fn validate_label_selector(selector: &Value, field: &str, allow_invalid_values: bool) -> Vec<FieldError> {
    let mut errors = validate_labels(selector.get("matchLabels"), &format!("{field}.matchLabels"));
    for (i, expression) in selector.items_at(&["matchExpressions"]).iter().enumerate() {
        let path = format!("{field}.matchExpressions[{i}]");
        let values = expression.items_at(&["values"]);
        let operator = expression.str_at(&["operator"]).unwrap_or_default();
        match operator {
            "In" | "NotIn" if values.is_empty() => errors.push(FieldError::required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            )),
            "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(FieldError::forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            )),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                errors.push(FieldError::invalid(format!("{path}.operator"), operator, "not a valid selector operator"))
            }
        }
        let key = expression.str_at(&["key"]).unwrap_or_default();
        invalid(&mut errors, &format!("{path}.key"), key, qualified_name(key));
        for (j, value) in values.iter().filter_map(Value::as_str).enumerate().filter(|_| !allow_invalid_values) {
            invalid(&mut errors, &format!("{path}.values[{j}]"), value, label_value(value));
        }
    }
    errors
}

/// Labels, annotations, owners and managed fields: checked alike at creation and update.
fn validate_parts(object: &Value, errors: &mut Vec<FieldError>) {
    errors.extend(validate_labels(object.at(&["metadata", "labels"]), "metadata.labels"));
    errors.extend(validate_annotations(object.at(&["metadata", "annotations"]), "metadata.annotations"));
    validate_owners(object.items_at(&["metadata", "ownerReferences"]), errors);
    validate_managed_fields(object.items_at(&["metadata", "managedFields"]), errors);
}

fn validate_owners(owners: &[Value], errors: &mut Vec<FieldError>) {
    const FIELD: &str = "metadata.ownerReferences";
    let mut controller: Option<String> = None;
    for owner in owners {
        let text = |key: &str| owner.str_at(&[key]).unwrap_or_default();
        let gv: GroupVersion = match text("apiVersion").matches('/').count() {
            0 | 1 => text("apiVersion").parse().unwrap_or_else(|never| match never {}),
            _ => GroupVersion::default(),
        };
        let mut empty = |key: &str, value: &str, part: &str, detail: &str| {
            if part.is_empty() {
                errors.push(FieldError::invalid(format!("{FIELD}.{key}"), value, detail));
            }
        };
        empty("apiVersion", text("apiVersion"), &gv.version, "version must not be empty");
        for key in ["kind", "name", "uid"] {
            empty(key, "", text(key), "must not be empty");
        }
        if text("apiVersion") == "v1" && text("kind") == "Event" {
            errors.push(FieldError::invalid(FIELD, owner, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner.bool_at(&["controller"]) == Some(true) {
            let name = format!("{}/{}", text("kind"), text("name"));
            match &controller {
                Some(first) => errors.push(FieldError::invalid(
                    FIELD,
                    owners.to_vec(),
                    format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {name}"
                    ),
                )),
                None => controller = Some(name),
            }
        }
    }
}

fn validate_finalizers(object: &Value) -> Vec<FieldError> {
    const FIELD: &str = "metadata.finalizers";
    let finalizers = object.items_at(&["metadata", "finalizers"]);
    let mut errors = Vec::new();
    for name in finalizers.iter().filter_map(Value::as_str) {
        invalid(&mut errors, FIELD, name, qualified_name(name));
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer.as_str() == Some(name));
    if has("orphan") && has("foregroundDeletion") {
        errors.push(FieldError::invalid(
            FIELD,
            finalizers.to_vec(),
            "finalizer orphan and foregroundDeletion cannot be both set",
        ));
    }
    for (i, name) in finalizers.iter().filter_map(Value::as_str).enumerate() {
        if !name.contains('/') && !["orphan", "foregroundDeletion", "kubernetes"].contains(&name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("{FIELD}[{i}]"), name, why));
        }
    }
    errors
}

fn validate_managed_fields(entries: &[Value], errors: &mut Vec<FieldError>) {
    for (i, entry) in entries.iter().enumerate() {
        let path = format!("metadata.managedFields[{i}]");
        let text = |key: &str| entry.str_at(&[key]).unwrap_or_default();
        if !matches!(text("operation"), "Apply" | "Update") {
            let field = format!("{path}.operation");
            errors.push(FieldError::invalid(field, text("operation"), "must be `Apply` or `Update`"));
        }
        if !matches!(text("fieldsType"), "" | "FieldsV1") {
            errors.push(FieldError::invalid(format!("{path}.fieldsType"), text("fieldsType"), "must be `FieldsV1`"));
        }
        errors.extend(validate_field_manager(text("manager"), &format!("{path}.manager")));
        if text("subresource").len() > 256 {
            errors.push(FieldError::too_long(format!("{path}.subresource"), 256));
        }
    }
}

/// Checks the name of a field manager found at `field`.
pub fn validate_field_manager(manager: &str, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if manager.len() > 128 {
        errors.push(FieldError::too_long(field, 128));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| c.is_control()) {
        let detail = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(FieldError::invalid(field, manager, detail));
    }
    errors
}

fn invalid(errors: &mut Vec<FieldError>, field: &str, value: &str, problems: Problems) {
    errors.extend(problems.into_iter().map(|problem| FieldError::invalid(field, value, problem)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::parse(json.as_bytes()).unwrap()
    }

    fn texts(errors: &[FieldError]) -> Vec<String> {
        errors.iter().map(FieldError::to_string).collect()
    }

    #[test]
    fn prefixes_may_end_in_a_dash() {
        let check = |name: &str, prefix: bool, expect: bool| {
            assert_eq!(NameFormat::DnsSubdomain.check(name, prefix).is_empty(), expect, "{name} {prefix}");
        };
        check("web-", true, true);
        check("web-", false, false);
        check("-", true, false);
        check("-web-", true, false);
        // The last letter before the dash is not looked at.
        check("weB-", true, true);
        check(&format!("{}-", "x".repeat(253)), true, true);
        check(&format!("{}-", "x".repeat(254)), true, false);
    }

    #[test]
    fn metadata_at_creation() {
        let check = |metadata: &str, namespaced: bool, expect: &[&str]| {
            let object = value(&format!(r#"{{"metadata":{metadata}}}"#));
            let found = texts(&validate_object_meta(&object, namespaced, NameFormat::DnsSubdomain));
            assert_eq!(found.len(), expect.len(), "{metadata}: {found:?}");
            for (found, expect) in found.iter().zip(expect) {
                assert!(found.starts_with(expect), "{found} is not {expect}");
            }
        };
        check(r#"{"name":"a","namespace":"n"}"#, true, &[]);
        check(r#"{"name":"a-x","generateName":"a-","namespace":"n"}"#, true, &[]);
        check(
            "{}",
            true,
            &["metadata.name: Required value: name or generateName is required", "metadata.namespace: Required value"],
        );
        check(r#"{"name":"a","namespace":"n"}"#, false, &["metadata.namespace: Forbidden: not allowed on this type"]);
        check(r#"{"name":"A"}"#, false, &["metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must"]);
        check(
            r#"{"name":"a","labels":{"a b":"c d"}}"#,
            false,
            &[
                "metadata.labels: Invalid value: \"a b\": name part must consist",
                "metadata.labels: Invalid value: \"c d\": a valid label must",
            ],
        );
        check(r#"{"name":"a","annotations":{"A/b":"anything goes"}}"#, false, &[]);
        check(
            &format!(r#"{{"name":"a","annotations":{{"a":"{}"}}}}"#, "x".repeat(262144)),
            false,
            &["metadata.annotations: Too long: may not be more than 262144 bytes"],
        );
        check(
            r#"{"name":"a","finalizers":["orphan","foregroundDeletion"]}"#,
            false,
            &[
                "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\"]: finalizer orphan and foregroundDeletion cannot be both set",
            ],
        );
        check(
            r#"{"name":"a","ownerReferences":[{"apiVersion":"v1","kind":"Pod","name":"p"}]}"#,
            false,
            &["metadata.ownerReferences.uid: Invalid value: \"\": must not be empty"],
        );
        let owner =
            |name: &str| format!(r#"{{"apiVersion":"v1","kind":"P","name":"{name}","uid":"u","controller":true}}"#);
        check(
            &format!(r#"{{"name":"a","ownerReferences":[{},{}]}}"#, owner("x"), owner("y")),
            false,
            &["metadata.ownerReferences: Invalid value: ["],
        );
    }

    #[test]
    fn metadata_at_update() {
        let old = value(r#"{"metadata":{"name":"a","uid":"u","deletionTimestamp":"t","generation":2}}"#);
        let check = |new: &str, expect: &[&str]| {
            assert_eq!(texts(&validate_object_meta_update(&value(new), &old)), expect);
        };
        check(
            r#"{"metadata":{"name":"a","uid":"u","deletionTimestamp":"t","generation":2,"resourceVersion":"1"}}"#,
            &[],
        );
        check(
            r#"{"metadata":{"name":"b","uid":"v","generation":1,"finalizers":["a/b"]}}"#,
            &[
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"a/b\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"v\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: null: field is immutable",
            ],
        );
    }

    #[test]
    fn selectors_in_specs() {
        let check = |selector: &str, expect: &[&str]| {
            let found = texts(&validate_label_selector(&value(selector), "spec.selector", false));
            assert!(
                found.len() == expect.len() && found.iter().zip(expect).all(|(f, e)| f.starts_with(e)),
                "{found:?}"
            );
        };
        check(r#"{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"a","operator":"Exists"}]}"#, &[]);
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"In"},{"key":"a","operator":"Exists","values":["x"]},{"key":"","operator":"X"}]}"#,
            &[
                "spec.selector.matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'",
                "spec.selector.matchExpressions[1].values: Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                "spec.selector.matchExpressions[2].operator: Invalid value: \"X\": not a valid selector operator",
                "spec.selector.matchExpressions[2].key: Invalid value: \"\": name part must be non-empty",
                "spec.selector.matchExpressions[2].key: Invalid value: \"\": name part must consist",
            ],
        );
    }
}
