//! From values to messages.

use apimachinery::Value;
use apimachinery::schema::{Shape, Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{ProtobufError, Union, wire};
use crate::tables::{self, INLINE};

/// Appends the message of an object.
pub(super) fn message(ty: Type<'static>, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let entries = tables::wires(ty);
    if entries.is_empty() && !ty.fields().is_empty() {
        return Err(ProtobufError::NoMessage(ty.name().to_owned()));
    }
    let map = value.as_object().ok_or_else(|| expected("object", ty.name()))?;
    for entry in entries {
        if entry.field == INLINE {
            wire::put_message(out, entry.tag, |out| message(ty.schema().at(entry.inline), value, out))?;
            continue;
        }
        let field = &ty.fields()[usize::from(entry.field)];
        if let Some(member) = map.get(&field.name).filter(|member| !member.is_null()) {
            put_field(ty.of(field), &field.name, entry.tag, member, out)?;
        }
    }
    Ok(())
}

fn put_field(ty: Type<'static>, name: &str, tag: u16, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    match ty.shape() {
        Shape::Array { item, .. } if ty.name().is_empty() => {
            let item = ty.schema().at(*item);
            let items = value.as_array().ok_or_else(|| expected("array", name))?;
            items.iter().try_for_each(|value| put_value(item, name, tag, value, out))
        }
        Shape::Map { value: ty_of_values, .. } => {
            let ty = ty.schema().at(*ty_of_values);
            let map = value.as_object().ok_or_else(|| expected("object", name))?;
            map.iter().try_for_each(|(key, value)| {
                wire::put_message(out, tag, |out| {
                    wire::put_bytes(out, 1, key.as_bytes());
                    put_value(ty, name, 2, value, out)
                })
            })
        }
        _ => put_value(ty, name, tag, value, out),
    }
}

fn put_value(ty: Type<'static>, name: &str, tag: u16, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let text = || value.as_str().ok_or_else(|| expected("string", name));
    match ty.shape() {
        Shape::String { .. } => wire::put_bytes(out, tag, text()?.as_bytes()),
        Shape::Bytes => {
            let bytes = STANDARD.decode(text()?).map_err(|error| ProtobufError::Scalar(error.to_string()))?;
            wire::put_bytes(out, tag, &bytes);
        }
        Shape::Boolean => {
            let flag = value.as_bool().ok_or_else(|| expected("bool", name))?;
            wire::put_number(out, tag, u64::from(flag));
        }
        Shape::Integer { .. } => {
            let number = value.as_i64().ok_or_else(|| expected("integer", name))?;
            wire::put_number(out, tag, number as u64);
        }
        Shape::Number => wire::put_double(out, tag, value.as_f64().ok_or_else(|| expected("number", name))?),
        Shape::Object { .. } => wire::put_message(out, tag, |out| message(ty, value, out))?,
        Shape::Array { item, .. } => {
            let item = ty.schema().at(*item);
            let items = value.as_array().ok_or_else(|| expected("array", name))?;
            wire::put_message(out, tag, |out| items.iter().try_for_each(|value| put_value(item, name, 1, value, out)))?;
        }
        // No message holds a map of maps.
        Shape::Map { .. } => return Err(expected("scalar or object", name)),
        Shape::Quantity => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            wire::put_message(out, tag, |out| {
                wire::put_bytes(out, 1, text.as_bytes());
                Ok(())
            })?;
        }
        Shape::IntOrString => put_int_or_string(name, tag, value, out)?,
        Shape::Time | Shape::MicroTime => put_time(name, tag, value, matches!(ty.shape(), Shape::MicroTime), out)?,
        Shape::Raw if Union::of(ty).is_some() => {
            let schema = tables::type_named(Union::SCHEMA).ok_or_else(|| expected("schema", name))?;
            let strings = Union::of(ty) == Some(Union::Strings);
            let tag_of_schema = if Union::of(ty) == Some(Union::Bool) { 2 } else { 1 };
            wire::put_message(out, tag, |out| match value {
                Value::Bool(flag) => {
                    wire::put_number(out, 1, u64::from(*flag));
                    Ok(())
                }
                Value::Array(items) if strings => {
                    items.iter().filter_map(Value::as_str).for_each(|text| wire::put_bytes(out, 2, text.as_bytes()));
                    Ok(())
                }
                Value::Array(items) => {
                    items.iter().try_for_each(|item| wire::put_message(out, 2, |out| message(schema, item, out)))
                }
                whole => wire::put_message(out, tag_of_schema, |out| message(schema, whole, out)),
            })?;
        }
        Shape::Raw => wire::put_message(out, tag, |out| {
            wire::put_bytes(out, 1, &value.to_json());
            Ok(())
        })?,
    }
    Ok(())
}

fn put_int_or_string(name: &str, tag: u16, value: &Value, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let (kind, number, text) = match value {
        Value::String(text) => (1, 0, text.as_str()),
        _ => (0, value.as_i64().ok_or_else(|| expected("integer or string", name))?, ""),
    };
    wire::put_message(out, tag, |out| {
        wire::put_number(out, 1, kind);
        wire::put_number(out, 2, number as u64);
        wire::put_bytes(out, 3, text.as_bytes());
        Ok(())
    })
}

fn put_time(name: &str, tag: u16, value: &Value, micro: bool, out: &mut Vec<u8>) -> Result<(), ProtobufError> {
    let text = value.as_str().ok_or_else(|| expected("time", name))?;
    let time: jiff::Timestamp = text.parse().map_err(|error: jiff::Error| ProtobufError::Scalar(error.to_string()))?;
    wire::put_message(out, tag, |out| {
        wire::put_number(out, 1, time.as_second() as u64);
        wire::put_number(out, 2, if micro { time.subsec_nanosecond() as u64 } else { 0 });
        Ok(())
    })
}

fn expected(ty: &'static str, field: &str) -> ProtobufError {
    ProtobufError::Shape { ty, field: field.to_owned() }
}
