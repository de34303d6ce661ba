//! Whether a configuration is of its type.

use std::collections::BTreeSet;

use super::PathElement;
use super::walk::{TypeErrors, item_element, member, string_of};
use crate::schema::{ListType, Shape, Type};
use crate::{Number, Value};

/// Names what is wrong with a configuration: fields that aren't declared, values of other types, items that are there twice.
/// Upstream: TypedValue.Validate.
pub fn check(ty: Type<'_>, value: &Value) -> Result<(), TypeErrors> {
    let mut errors = TypeErrors::default();
    walk(ty, value, &mut Vec::new(), &mut errors);
    if errors.0.is_empty() { Ok(()) } else { Err(errors) }
}

fn walk(ty: Type<'_>, value: &Value, way: &mut Vec<String>, errors: &mut TypeErrors) {
    if value.is_null() {
        return;
    }
    let wrong = |why: String, errors: &mut TypeErrors| errors.0.push((way.concat(), why));
    match (ty.shape(), value) {
        (Shape::Raw, _) => {}
        (Shape::Object { .. } | Shape::Map { .. }, Value::Object(map)) => {
            for (name, value) in map.iter() {
                let (element, child) = member(ty, name);
                way.push(element.to_string());
                match child {
                    Some(child) => walk(child, value, way, errors),
                    None if ty.preserves_unknown() => {}
                    None => {
                        errors.0.push((way.concat(), "field not declared in schema".to_owned()));
                        way.pop();
                        return;
                    }
                }
                way.pop();
            }
        }
        (Shape::Object { .. } | Shape::Map { .. }, other) => {
            wrong(format!("expected map, got &{{{}}}", string_of(other)), errors)
        }
        (Shape::Array { list, .. }, Value::Array(items)) => {
            let mut seen = BTreeSet::new();
            for (index, item) in items.iter().enumerate() {
                let element = match list {
                    ListType::Atomic => PathElement::Item(format!("i:{index}").into()),
                    _ => match item_element(ty, item) {
                        Ok(element) => element,
                        Err(why) => {
                            errors.0.push((way.concat(), format!("element {index}: {why}")));
                            return;
                        }
                    },
                };
                way.push(element.to_string());
                if !seen.insert(element.clone()) {
                    let at = way[..way.len() - 1].concat();
                    errors.0.push((at, format!("duplicate entries for key {element}")));
                }
                if let Some(child) = ty.item() {
                    walk(child, item, way, errors);
                }
                way.pop();
            }
        }
        (Shape::Array { .. }, other) => wrong(format!("expected list, got &{{{}}}", string_of(other)), errors),
        (Shape::Integer { .. } | Shape::Number, Value::Number(_)) => {}
        (Shape::Integer { .. } | Shape::Number, other) => {
            wrong(format!("expected numeric (int or float), got {}", go_type(other)), errors)
        }
        (Shape::Boolean, Value::Bool(_)) => {}
        (Shape::Boolean, other) => wrong(format!("expected boolean, got &{{{}}}", string_of(other)), errors),
        (Shape::IntOrString | Shape::Quantity, Value::Object(_) | Value::Array(_)) => {
            wrong(format!("expected any scalar, got &{{{}}}", string_of(value)), errors)
        }
        (Shape::IntOrString | Shape::Quantity, _) | (_, Value::String(_)) => {}
        (_, other) => {
            let shown = go_syntax(other);
            wrong(format!("expected string, got &value.valueUnstructured{{Value:{shown}}}"), errors)
        }
    }
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(Number::Int(_)) => "int64",
        Value::Number(Number::Float(_)) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// A value as Go source.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key:?}:{}", go_syntax(value))).collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        other => other.to_string(),
    }
}
