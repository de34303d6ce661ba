//! The strategy of custom resources, and how their bodies are read. Upstream: apiextensions pkg/registry/customresource.

use std::sync::Arc;

use apimachinery::schema::StrictError;
use apimachinery::{FieldError, FieldErrorKind, Value};

use super::schema::{Additional, Node, metadata_error};
use super::{Definition, Version};
use crate::strategy::{Context, Strategy};

/// Of one definition.
pub(crate) struct Instances {
    definition: Arc<Definition>,
    resource: (&'static str, &'static str),
}

impl Instances {
    pub(crate) fn new(definition: Arc<Definition>, row: &'static api::Kind) -> Instances {
        Instances { definition, resource: (row.group, row.resource) }
    }

    fn version(&self, ctx: &Context<'_>) -> &Version {
        self.definition.version(ctx.version).unwrap_or(self.definition.stored())
    }

    fn check(&self, ctx: &Context<'_>, new: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        let version = self.version(ctx);
        if let Some(why) = metadata_error(new) {
            errors.push(FieldError::invalid("metadata", new.get("metadata").cloned().unwrap_or_default(), why));
        }
        version.schema.check(new, old, errors);
        if let Some(scale) = &version.scale {
            check_scale(scale, new, errors);
        }
        check_embedded(&version.schema, new, "", errors);
        check_lists(&version.schema, new, old, "", errors);
        if version.rules.is_empty() {
            return;
        }
        // Rules may rely on the types and sizes that the schema says, and on nothing else.
        if errors.iter().any(|error| blocks_rules(error.kind)) {
            let why = "some validation rules were not checked because the object was invalid; correct the existing errors to \
                       complete validation";
            errors.push(FieldError::invalid("<nil>", Value::Null, why));
        } else {
            version.rules.check(&version.schema, new, old, errors);
        }
    }
}

fn blocks_rules(kind: FieldErrorKind) -> bool {
    use FieldErrorKind::{NotSupported, Required, TooLong, TooMany, TypeInvalid};
    matches!(kind, NotSupported | Required | TooLong | TooMany | TypeInvalid)
}

impl Strategy for Instances {
    fn resource(&self) -> (&'static str, &'static str) {
        self.resource
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn counts_status(&self) -> bool {
        !self.definition.stored().status
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, value: &mut Value) {
        let stored = self.definition.stored();
        stored.schema.prune(value);
        stored.schema.fill(value);
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        self.check(ctx, new, None, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.check(ctx, new, Some(old), errors);
    }
}

fn check_scale(scale: &super::Scale, new: &Value, errors: &mut Vec<FieldError>) {
    let field = |path: &[String]| format!(".{}", path.join("."));
    for path in [&scale.spec_replicas, &scale.status_replicas] {
        let why = match (accessed(new, path), accessed(new, path).map(|found| found.map(Value::as_i64))) {
            (Err(why), _) => Err((0, why)),
            (Ok(Some(other)), Ok(Some(None))) => Err((0, misfit(path, other, "int64"))),
            (_, Ok(Some(Some(number)))) if number < 0 => Err((number, "should be a non-negative integer".to_owned())),
            (_, Ok(Some(Some(number)))) if number > i64::from(i32::MAX) => {
                Err((number, "should be less than or equal to 2147483647".to_owned()))
            }
            _ => Ok(()),
        };
        if let Err((number, why)) = why {
            errors.push(FieldError::invalid(field(path), number, why));
        }
    }
    let Some(path) = &scale.selector else { return };
    let why = match accessed(new, path) {
        Ok(Some(Value::String(_)) | None) => return,
        Ok(Some(other)) => misfit(path, other, "string"),
        Err(why) => why,
    };
    errors.push(FieldError::invalid(field(path), "", why));
}

/// What is under a path, or why nothing can be. Upstream: unstructured.NestedFieldNoCopy.
fn accessed<'v>(value: &'v Value, path: &[String]) -> Result<Option<&'v Value>, String> {
    let mut at = value;
    for (step, name) in path.iter().enumerate() {
        at = match at {
            Value::Null => return Ok(None),
            Value::Object(map) => match map.get(name) {
                Some(inner) => inner,
                None => return Ok(None),
            },
            other => return Err(misfit(&path[..=step], other, "map[string]interface{}")),
        };
    }
    Ok(Some(at))
}

fn misfit(path: &[String], value: &Value, wanted: &str) -> String {
    let ty = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) if value.as_i64().is_some() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!(".{} accessor error: {} is of the type {ty}, expected {wanted}", path.join("."), in_go(value))
}

/// A value as Go prints it.
fn in_go(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(in_go).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let mut members: Vec<String> = map.iter().map(|(name, value)| format!("{name}:{}", in_go(value))).collect();
            members.sort();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

/// Objects within an object say what they are.
fn check_embedded(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            if node.embedded {
                for key in ["apiVersion", "kind"] {
                    if map.get(key).and_then(Value::as_str).unwrap_or_default().is_empty() {
                        errors.push(FieldError::required(below(key), "must not be empty"));
                    }
                }
                if let Some(why) = metadata_error(value) {
                    errors.push(FieldError::invalid(below("metadata"), "", why));
                }
            }
            for (name, member) in map.iter() {
                if let Some(node) = node.member(name) {
                    check_embedded(node, member, &below(name), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(node) = node.items.as_deref() {
                for (index, item) in items.iter().enumerate() {
                    check_embedded(node, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

/// Items of sets and maps are there once. Upstream: apiserver/schema/listtype.
fn check_lists(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if old == Some(value) {
        return;
    }
    match value {
        Value::Object(map) => {
            for (name, member) in map.iter() {
                let at = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                let at = match (node.properties.get(name), &node.additional) {
                    (None, Additional::Schema(_)) => format!("{path}[{name}]"),
                    _ => at,
                };
                if let Some(node) = node.member(name) {
                    check_lists(node, member, old.and_then(|old| old.get(name)), &at, errors);
                }
            }
        }
        Value::Array(items) => {
            let key_of = |item: &Value| match node.list_type.as_str() {
                "set" => Some(item.clone()),
                "map" => {
                    let members = node.list_keys.iter();
                    let members = members.filter_map(|key| Some((key.clone(), item.get(key)?.clone())));
                    Some(Value::Object(members.collect()))
                }
                _ => None,
            };
            let mut seen: Vec<(Value, bool)> = Vec::new();
            for (index, item) in items.iter().enumerate() {
                if let Some(key) = key_of(item) {
                    match seen.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, true)) => {}
                        Some((_, told)) => {
                            *told = true;
                            errors.push(FieldError::duplicate(format!("{path}[{index}]"), key));
                        }
                        None => seen.push((key, false)),
                    }
                }
                if let Some(item_node) = node.items.as_deref() {
                    check_lists(item_node, item, node.item_before(item, old), &format!("{path}[{index}]"), errors);
                }
            }
        }
        _ => {}
    }
}

/// Brings an object of a version into its form: pruned and defaulted. Names the fields that went.
pub(crate) fn decode(version: &Version, value: &mut Value) -> Vec<StrictError> {
    let gone = version.schema.prune(value);
    version.schema.fill(value);
    gone
}
