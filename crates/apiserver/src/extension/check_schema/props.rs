//! What each property of a schema may say, whether the schema is structural or not.

use apimachinery::{FieldError, Value};

use super::super::schema::Node;
use super::{flag, text};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];

/// Where a schema stands.
#[derive(Clone, Copy)]
struct Place {
    root: bool,
    meta: bool,
    forbidden_default: Option<&'static str>,
}

/// The properties that a schema may have, alone and together.
pub(super) fn check(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    check_props(schema, path, &Place { root: true, meta: false, forbidden_default: None }, errors);
}

/// Upstream: ValidateCustomResourceDefinitionOpenAPISchema.
fn check_props(schema: &Value, path: &str, place: &Place, errors: &mut Vec<FieldError>) {
    check_plain(schema, path, place, errors);
    let inner = Place { root: false, ..*place };
    let properties = schema.get("properties").and_then(Value::as_object);
    if flag(schema, "uniqueItems") {
        let why = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(FieldError::forbidden(format!("{path}.uniqueItems"), why));
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let at = format!("{path}.additionalProperties");
        if properties.is_some_and(|map| !map.is_empty()) && additional.as_bool() != Some(true) {
            let why = "additionalProperties and properties are mutual exclusive";
            errors.push(FieldError::forbidden(at.clone(), why));
        }
        if additional.as_object().is_some() {
            let why = Some("inside additionalProperties applying to object metadata");
            let inner = Place { forbidden_default: if place.meta { why } else { inner.forbidden_default }, ..inner };
            check_props(additional, &at, &inner, errors);
        }
    }
    let is_object = place.root || flag(schema, "x-kubernetes-embedded-resource");
    for (name, property) in properties.into_iter().flat_map(|map| map.iter()) {
        let mut inner = inner;
        if is_object && matches!(name, "metadata" | "kind" | "apiVersion") {
            inner.meta = true;
            if place.root {
                inner.forbidden_default = Some(match name {
                    "metadata" => "in top-level metadata",
                    "kind" => "in top-level kind",
                    _ => "in top-level apiVersion",
                });
            }
        }
        check_props(property, &format!("{path}.properties[{name}]"), &inner, errors);
    }
    if let Some(not) = schema.get("not") {
        check_props(not, &format!("{path}.not"), &inner, errors);
    }
    for key in ["allOf", "oneOf", "anyOf", "items"] {
        for (index, part) in schema.items_at(&[key]).iter().enumerate() {
            check_props(part, &format!("{path}.{key}[{index}]"), &inner, errors);
        }
    }
    if let Some(items) = schema.get("items").filter(|items| items.as_object().is_some()) {
        check_props(items, &format!("{path}.items"), &inner, errors);
    }
    if schema.bool_at(&["x-kubernetes-preserve-unknown-fields"]) == Some(false) {
        let at = format!("{path}.x-kubernetes-preserve-unknown-fields");
        errors.push(FieldError::invalid(at, false, "must be true or undefined"));
    }
    check_list_and_map(schema, path, errors);
    check_rules_form(schema, path, errors);
}

fn check_plain(schema: &Value, path: &str, place: &Place, errors: &mut Vec<FieldError>) {
    let ty = text(schema, "type");
    if !ty.is_empty() && !TYPES.contains(&ty) {
        errors.push(FieldError::not_supported(format!("{path}.type"), ty, &TYPES));
    }
    if schema.get("default").is_some()
        && let Some(why) = place.forbidden_default
    {
        errors.push(FieldError::forbidden(format!("{path}.default"), format!("must not be set {why}")));
    }
    for key in ["id", "additionalItems", "patternProperties", "definitions", "dependencies", "$ref"] {
        if schema.get(key).is_some() {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), format!("{key} is not supported")));
        }
    }
    if ty == "null" {
        let why = "type cannot be set to null, use nullable as an alternative";
        errors.push(FieldError::forbidden(format!("{path}.type"), why));
    }
    if !schema.items_at(&["items"]).is_empty() {
        let why = "items must be a schema object and not an array";
        errors.push(FieldError::forbidden(format!("{path}.items"), why));
    }
    if place.meta && flag(schema, "x-kubernetes-embedded-resource") {
        let at = format!("{path}.x-kubernetes-embedded-resource");
        errors.push(FieldError::forbidden(at, "must not be used inside of resource meta"));
    }
}

fn check_list_and_map(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let ty = text(schema, "type");
    let mut wants = |key: &str, wanted: &str| {
        if schema.get(key).is_none() || ty == wanted {
            return;
        }
        let (at, why) = (format!("{path}.type"), format!("must be {wanted} if {key} is specified"));
        errors.push(if ty.is_empty() { FieldError::required(at, why) } else { FieldError::invalid(at, ty, why) });
    };
    wants("x-kubernetes-map-type", "object");
    wants("x-kubernetes-list-type", "array");
    let map_type = text(schema, "x-kubernetes-map-type");
    if !matches!(map_type, "" | "atomic" | "granular") {
        let at = format!("{path}.x-kubernetes-map-type");
        errors.push(FieldError::not_supported(at, map_type, &["atomic", "granular"]));
    }
    let list_type = text(schema, "x-kubernetes-list-type");
    let empty = Value::object();
    let items = schema.get("items").unwrap_or(&empty);
    if list_type == "set" {
        let why = "must be atomic as item of a list with x-kubernetes-list-type=set";
        match text(items, "type") {
            "array" if !matches!(text(items, "x-kubernetes-list-type"), "" | "atomic") => {
                let at = format!("{path}.items.x-kubernetes-list-type");
                errors.push(FieldError::invalid(at, text(items, "x-kubernetes-list-type"), why));
            }
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                errors.push(FieldError::invalid(format!("{path}.items.x-kubernetes-map-type"), Value::Null, why));
            }
            _ => {}
        }
    }
    if !matches!(list_type, "" | "atomic" | "set" | "map") {
        let at = format!("{path}.x-kubernetes-list-type");
        errors.push(FieldError::not_supported(at, list_type, &["atomic", "set", "map"]));
    }
    let keys: Vec<&str> = schema.items_at(&["x-kubernetes-list-map-keys"]).iter().filter_map(Value::as_str).collect();
    if !keys.is_empty() && list_type != "map" {
        let (at, why) =
            (format!("{path}.x-kubernetes-list-type"), "must be map if x-kubernetes-list-map-keys is non-empty");
        errors.push(match list_type {
            "" => FieldError::required(at, why),
            list_type => FieldError::invalid(at, list_type, why),
        });
    }
    if matches!(list_type, "set" | "map") && flag(items, "nullable") {
        let why = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
        errors.push(FieldError::forbidden(format!("{path}.items.nullable"), why));
    }
    if list_type == "map" {
        check_keys(schema, items, &keys, path, errors);
    }
}

fn check_keys(schema: &Value, items: &Value, keys: &[&str], path: &str, errors: &mut Vec<FieldError>) {
    let at = format!("{path}.x-kubernetes-list-map-keys");
    if keys.is_empty() {
        let why = "must not be empty if x-kubernetes-list-type is map";
        errors.push(FieldError::required(at.clone(), why));
    }
    if schema.get("items").is_none() {
        let why = "must have a schema if x-kubernetes-list-type is map";
        errors.push(FieldError::required(format!("{path}.items"), why));
        return;
    }
    if text(items, "type") != "object" {
        let why = "must be object if parent array's x-kubernetes-list-type is map";
        errors.push(FieldError::invalid(format!("{path}.items.type"), text(items, "type"), why));
        return;
    }
    let shown = || keys.to_vec();
    let required = items.items_at(&["required"]);
    for (index, key) in keys.iter().enumerate() {
        match items.at(&["properties", key]) {
            Some(property) if matches!(text(property, "type"), "array" | "object") => {
                let why = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                let at = format!("{path}.items.properties[{key}].type");
                errors.push(FieldError::invalid(at, text(items, "type"), why));
            }
            Some(_) => {}
            None => {
                errors.push(FieldError::invalid(at.clone(), shown(), "entries must all be names of item properties"));
            }
        }
        if keys[..index].contains(key) {
            errors.push(FieldError::invalid(at.clone(), shown(), "must not contain duplicate entries"));
        }
        let Some(property) = items.at(&["properties", key]) else { continue };
        let below = format!("{path}.items.properties[{key}]");
        if !required.iter().any(|name| name.as_str() == Some(key)) && property.get("default").is_none() {
            let why =
                "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            errors.push(FieldError::required(format!("{below}.default"), why));
        }
        if flag(property, "nullable") {
            let why = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
            errors.push(FieldError::forbidden(format!("{below}.nullable"), why));
        }
    }
}

fn check_rules_form(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    const REASONS: [&str; 4] =
        ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
    let node = std::cell::OnceCell::new();
    for (index, rule) in schema.items_at(&["x-kubernetes-validations"]).iter().enumerate() {
        let at = |key: &str| format!("{path}.x-kubernetes-validations[{index}].{key}");
        let (source, message) = (text(rule, "rule"), text(rule, "message"));
        let has_line_breaks = |text: &str| text.contains(['\n', '\r']);
        if source.trim().is_empty() {
            errors.push(FieldError::required(at("rule"), "rule is not specified"));
        } else if !message.is_empty() && message.trim().is_empty() {
            errors.push(FieldError::invalid(at("message"), message, "must be non-empty if specified"));
        } else if has_line_breaks(message.trim()) {
            errors.push(FieldError::invalid(at("message"), message, "must not contain line breaks"));
        } else if has_line_breaks(source.trim()) && message.trim().is_empty() {
            let why = "message must be specified if rule contains line breaks";
            errors.push(FieldError::required(at("message"), why));
        }
        let expression = text(rule, "messageExpression");
        if !expression.is_empty() && expression.trim().is_empty() {
            let why = "messageExpression must be non-empty if specified";
            errors.push(FieldError::required(at("messageExpression"), why));
        }
        if let Some(reason) = rule.str_at(&["reason"]).filter(|reason| !REASONS.contains(reason)) {
            errors.push(FieldError::not_supported(at("reason"), reason, &REASONS));
        }
        let field = text(rule, "fieldPath");
        if !field.is_empty() {
            if field.trim().is_empty() {
                errors.push(FieldError::invalid(at("fieldPath"), field, "must be non-empty if specified"));
            }
            if has_line_breaks(field) {
                errors.push(FieldError::invalid(at("fieldPath"), field, "must not contain line breaks"));
            }
            let steps = super::super::simple_path::steps(field);
            let steps: Vec<&str> = steps.iter().map(String::as_str).collect();
            let node = node.get_or_init(|| Node::read(schema));
            if steps.is_empty() || node.walk(&steps).is_none() {
                errors.push(FieldError::invalid(at("fieldPath"), field, "must be a valid path"));
            }
        }
    }
}
