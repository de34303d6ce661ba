//! Validation of the schemas of definitions. Upstream: apiextensions pkg/apis/apiextensions/validation and
//! pkg/apiserver/schema ValidateStructural.

mod props;

use apimachinery::{FieldError, Value};
use regex::Regex;

use super::rules::Rules;
use super::schema::Node;

const PROPS: &str = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// Brings a schema and those in it into the form that Go writes.
pub(super) fn canonical(schema: &mut Value) {
    let Some(ty) = api::type_named(PROPS) else { return };
    if let Ok(decoded) = ty.canonical(std::mem::take(schema)) {
        *schema = decoded.value;
    }
    let Some(map) = schema.as_object_mut() else { return };
    for (name, member) in map.iter_mut() {
        match (name, member) {
            ("items" | "additionalProperties" | "additionalItems" | "not", member @ Value::Object(_)) => {
                canonical(member)
            }
            ("items" | "allOf" | "anyOf" | "oneOf", Value::Array(items)) => items.iter_mut().for_each(canonical),
            ("properties" | "patternProperties" | "definitions", Value::Object(map)) => {
                map.iter_mut().for_each(|(_, member)| canonical(member));
            }
            _ => {}
        }
    }
}

/// Names what is wrong with a version's schema at `path`.
pub(super) fn check(schema: &Value, path: &str, status: bool, errors: &mut Vec<FieldError>) {
    let before = errors.len();
    if status {
        check_root(schema, path, errors);
    }
    if schema.bool_at(&["nullable"]) == Some(true) {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut structural = Vec::new();
    check_structure(schema, Level::Root, path, &mut structural);
    check_completeness(schema, path, &mut structural);
    structural.sort_by_key(ToString::to_string);
    let is_structural = structural.is_empty();
    errors.extend(structural);
    if is_structural {
        check_defaults(schema, path, true, errors);
    }
    props::check(schema, path, errors);
    if errors.len() == before {
        Rules::check_schema(schema, path, errors);
    }
}

fn text<'v>(schema: &'v Value, key: &str) -> &'v str {
    schema.str_at(&[key]).unwrap_or_default()
}

fn flag(schema: &Value, key: &str) -> bool {
    schema.bool_at(&[key]).unwrap_or_default()
}

/// A field's name as Go writes it.
fn go_name(key: &str) -> String {
    let words = key.trim_start_matches('$').replace("x-kubernetes-", "x-");
    words.split('-').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}

fn check_root(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if text(schema, "type") != "object" && !text(schema, "type").is_empty() {
        let why =
            "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(FieldError::invalid(format!("{path}.type"), text(schema, "type"), why));
        return;
    }
    let keys = schema.as_object().into_iter().flat_map(|map| map.keys());
    if keys.into_iter().any(|key| !AT_ROOT.contains(&go_name(key).as_str())) {
        let why = format!(
            "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
            AT_ROOT.join(" ")
        );
        errors.push(FieldError::invalid(path, schema, why));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Item,
    Field,
}

/// Upstream: validateStructuralInvariants.
fn check_structure(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let ty = text(schema, "type");
    let properties = schema.get("properties").and_then(Value::as_object);
    let (embedded, preserves, int_or_string) = (
        flag(schema, "x-kubernetes-embedded-resource"),
        flag(schema, "x-kubernetes-preserve-unknown-fields"),
        flag(schema, "x-kubernetes-int-or-string"),
    );
    match schema.get("items") {
        None if ty == "array" => errors.push(FieldError::required(format!("{path}.items"), "must be specified")),
        Some(items @ Value::Object(_)) => check_structure(items, Level::Item, &format!("{path}.items"), errors),
        _ => {}
    }
    for (name, property) in properties.into_iter().flat_map(|map| map.iter()) {
        check_structure(property, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let at = format!("{path}.additionalProperties");
        if level == Level::Root {
            errors.push(FieldError::forbidden(at.clone(), "must not be used at the root"));
        }
        if additional.as_object().is_some() {
            check_structure(additional, Level::Field, &at, errors);
        }
        if embedded {
            errors.push(FieldError::forbidden(at, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    if int_or_string && preserves {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(format!("{path}.x-kubernetes-preserve-unknown-fields"), true, why));
    }
    if int_or_string && embedded {
        let why = "must be false if x-kubernetes-int-or-string is true";
        errors.push(FieldError::invalid(format!("{path}.x-kubernetes-embedded-resource"), true, why));
    }
    check_values(schema, is_int_or_string(schema.items_at(&["anyOf"])), path, errors);
    if embedded && ty != "object" {
        let why = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match ty {
            "" => FieldError::required(format!("{path}.type"), why),
            ty => FieldError::invalid(format!("{path}.type"), ty, why),
        });
    } else if ty.is_empty() && !int_or_string && !preserves {
        let why = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(FieldError::required(format!("{path}.type"), why));
    }
    if level == Level::Root && !ty.is_empty() && ty != "object" {
        errors.push(FieldError::invalid(format!("{path}.type"), ty, "must be object at the root"));
    }
    let is_object = level == Level::Root || embedded;
    for key in ["kind", "apiVersion"] {
        if let Some(property) = properties.and_then(|map| map.get(key)).filter(|_| is_object)
            && text(property, "type") != "string"
        {
            let at = format!("{path}.properties[{key}].type");
            errors.push(FieldError::invalid(at, text(property, "type"), "must be string"));
        }
    }
    if let Some(metadata) = properties.and_then(|map| map.get("metadata")) {
        check_metadata(metadata, is_object, level, &format!("{path}.properties[metadata]"), errors);
    }
    if embedded && !preserves && properties.is_none_or(|map| map.is_empty()) {
        let why =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(format!("{path}.properties"), why));
    }
}

fn check_metadata(metadata: &Value, is_object: bool, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    if is_object && text(metadata, "type") != "object" {
        errors.push(FieldError::invalid(format!("{path}.type"), text(metadata, "type"), "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let others = metadata.as_object().into_iter().flat_map(|map| map.keys());
    let others = others.into_iter().any(|key| !matches!(key, "type" | "properties" | "default" | "description"));
    let properties = metadata.get("properties").and_then(Value::as_object);
    let properties = properties.is_some_and(|map| map.keys().any(|name| !matches!(name, "name" | "generateName")));
    if others || properties || metadata.get("description").is_some() {
        let why = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(path, why));
    }
}

fn is_int_or_string(any_of: &[Value]) -> bool {
    let is = |part: &Value, ty: &str| text(part, "type") == ty && part.as_object().is_some_and(|map| map.len() == 1);
    matches!(any_of, [first, second] if is(first, "integer") && is(second, "string"))
}

/// Upstream: validateValueValidation.
fn check_values(schema: &Value, skip_any_of: bool, path: &str, errors: &mut Vec<FieldError>) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip_any_of {
            continue;
        }
        for (index, part) in schema.items_at(&[key]).iter().enumerate() {
            let skip = key == "allOf" && index == 0 && is_int_or_string(part.items_at(&["anyOf"]));
            check_nested(part, skip, &format!("{path}.{key}[{index}]"), errors);
        }
    }
    if let Some(not) = schema.get("not") {
        check_nested(not, false, &format!("{path}.not"), errors);
    }
    let pattern = text(schema, "pattern");
    if !pattern.is_empty()
        && let Err(error) = Regex::new(pattern)
    {
        let why = error.to_string();
        let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let why = format!("must be a valid regular expression, but isn't: error parsing regexp: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), pattern, why));
    }
}

/// Upstream: validateNestedValueValidation.
fn check_nested(schema: &Value, skip_any_of: bool, path: &str, errors: &mut Vec<FieldError>) {
    check_values(schema, skip_any_of, path, errors);
    if let Some(items) = schema.get("items").filter(|items| items.as_object().is_some()) {
        check_nested(items, false, &format!("{path}.items"), errors);
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flat_map(|map| map.iter()) {
        check_nested(property, false, &format!("{path}.properties[{name}]"), errors);
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    for (key, why) in [
        ("type", EMPTY),
        ("additionalProperties", UNDEFINED),
        ("default", UNDEFINED),
        ("title", EMPTY),
        ("description", EMPTY),
        ("nullable", FALSE),
        ("x-kubernetes-preserve-unknown-fields", FALSE),
        ("x-kubernetes-embedded-resource", FALSE),
        ("x-kubernetes-int-or-string", FALSE),
        ("x-kubernetes-list-map-keys", EMPTY),
        ("x-kubernetes-list-type", UNDEFINED),
        ("x-kubernetes-map-type", UNDEFINED),
        ("x-kubernetes-validations", EMPTY),
    ] {
        let set = match schema.get(key) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(_) => true,
        };
        if set {
            errors.push(FieldError::forbidden(format!("{path}.{key}"), why));
        }
    }
    if properties.is_some_and(|map| map.contains_key("metadata")) {
        let why = "must not be specified in a nested context";
        errors.push(FieldError::forbidden(format!("{path}.properties[metadata]"), why));
    }
}

/// Whatever is named in a combination is declared outside it. Upstream: validateStructuralCompleteness.
fn check_completeness(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    check_parts(schema, schema, (path, path), errors);
}

/// `part` says something of what `schema` declares; their paths.
fn check_parts(part: &Value, schema: &Value, (declared, said): (&str, &str), errors: &mut Vec<FieldError>) {
    if let Some(not) = part.get("not") {
        check_part(not, schema, (declared, &format!("{said}.not")), errors);
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (index, inner) in part.items_at(&[key]).iter().enumerate() {
            check_part(inner, schema, (declared, &format!("{said}.{key}[{index}]")), errors);
        }
    }
}

fn check_part(part: &Value, schema: &Value, (declared, said): (&str, &str), errors: &mut Vec<FieldError>) {
    check_parts(part, schema, (declared, said), errors);
    let mut enter = |part: &Value, schema: Option<&Value>, step: &str| {
        let (declared, said) = (format!("{declared}.{step}"), format!("{said}.{step}"));
        match schema {
            Some(schema) => check_part(part, schema, (&declared, &said), errors),
            None => errors.push(FieldError::required(declared, format!("because it is defined in {said}"))),
        }
    };
    if let Some(items) = part.get("items").filter(|items| items.as_object().is_some()) {
        enter(items, schema.get("items"), "items");
    }
    for (name, property) in part.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
        enter(property, schema.at(&["properties", name]), &format!("properties[{name}]"));
    }
}

/// Defaults are what the schema allows. Upstream: defaulting.ValidateDefaults.
fn check_defaults(schema: &Value, path: &str, root: bool, errors: &mut Vec<FieldError>) {
    if let Some(default) = schema.get("default").filter(|_| !root) {
        let node = Node::read(schema);
        let at = format!("{path}.default");
        let mut pruned = default.clone();
        let gone = node.prune_part(&mut pruned);
        if !gone.is_empty() {
            errors.push(FieldError::invalid(at.clone(), default, "must not have unknown fields"));
        }
        let mut filled = default.clone();
        node.fill(&mut filled);
        let mut found = Vec::new();
        node.check(&filled, None, &mut found);
        errors.extend(found.into_iter().map(|mut error| {
            error.field = match error.field.as_str() {
                "<nil>" => at.clone(),
                field => format!("{at}.{field}"),
            };
            error
        }));
    }
    for (name, property) in schema.get("properties").and_then(Value::as_object).into_iter().flat_map(|map| map.iter()) {
        check_defaults(property, &format!("{path}.properties[{name}]"), false, errors);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = schema.get(key).filter(|inner| inner.as_object().is_some()) {
            check_defaults(inner, &format!("{path}.{key}"), false, errors);
        }
    }
}
