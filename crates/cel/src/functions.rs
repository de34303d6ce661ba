//! What functions do. All overloads of a name are one arm, which looks at its values: the checker has made sure of what it could.

pub(crate) mod cost;
mod formats;
mod lists;
mod net;
pub(crate) mod opaque;
pub(crate) mod pattern;
mod semver;
pub(crate) mod standard;
pub(crate) mod strings;
pub(crate) mod time;
mod url;

use std::rc::Rc;

use crate::error::{failed, no_overload};
use crate::eval::Outcome;
use crate::program::Program;
use crate::value::{Key, Map, Value};

/// Calls a function; a member's target is the first of `args`.
pub(crate) fn call<'a>(program: &Program, name: &str, args: &[Value<'a>]) -> Outcome<'a> {
    if let Some(outcome) = standard::call(name, args) {
        return outcome;
    }
    if let Some(format) = name.strip_prefix("format.") {
        return formats::lookup(format, args);
    }
    let outcome = strings::call(program, name, args)
        .or_else(|| lists::call(name, args))
        .or_else(|| net::call(name, args))
        .or_else(|| opaque::call(name, args));
    outcome.unwrap_or_else(|| {
        let types: Vec<String> = args.iter().map(Value::type_name).collect();
        failed(format!("no such overload: {name}({})", types.join(", ")))
    })
}

/// Conversions of constants are made when a program is.
pub(crate) fn is_conversion(name: &str) -> bool {
    matches!(name, "bool" | "bytes" | "double" | "duration" | "int" | "string" | "timestamp" | "uint")
}

/// A number as a place in a list.
fn place(index: &Value<'_>) -> Option<i64> {
    match index {
        Value::Int(n) => Some(*n),
        Value::Uint(n) => i64::try_from(*n).ok(),
        Value::Double(f) if f.fract() == 0.0 => Some(*f as i64),
        _ => None,
    }
}

/// `operand[index]`.
pub(crate) fn index<'a>(operand: &Value<'a>, index: &Value<'a>) -> Outcome<'a> {
    match operand {
        Value::List(list) => {
            let Some(at) = place(index) else {
                return failed(format!("unsupported index type '{}' in list", index.type_of()));
            };
            let found = usize::try_from(at).ok().and_then(|at| list.get(at));
            found.map_or_else(|| failed(format!("index out of bounds: {at}")), Ok)
        }
        Value::Map(map) => {
            let Some(key) = Key::of(index) else { return failed(format!("unsupported key type: {}", index.type_of())) };
            member(map, &key).unwrap_or_else(|| failed(format!("no such key: {key}")))
        }
        Value::Optional(_) => optional_index(operand, index),
        _ => no_overload(),
    }
}

/// In objects a key is a field's name as JSON has it.
fn member<'a>(map: &Map<'a>, key: &Key) -> Option<Outcome<'a>> {
    map.get(key)
}

/// `operand[?index]`.
pub(crate) fn optional_index<'a>(operand: &Value<'a>, at: &Value<'a>) -> Outcome<'a> {
    match operand {
        Value::Optional(None) => Ok(Value::Optional(None)),
        Value::Optional(Some(inner)) => optional_index(inner, at),
        Value::List(list) => {
            let found = place(at).and_then(|at| usize::try_from(at).ok()).and_then(|at| list.get(at));
            Ok(Value::Optional(found.map(Rc::new)))
        }
        Value::Map(map) => match Key::of(at).and_then(|key| member(map, &key)) {
            Some(value) => value.map(Value::some),
            None => Ok(Value::Optional(None)),
        },
        _ => no_overload(),
    }
}

/// `item in container`.
pub(crate) fn contained<'a>(item: &Value<'a>, container: &Value<'a>) -> Outcome<'a> {
    match container {
        Value::List(list) => Ok(Value::Bool(list.iter().any(|other| other.equals(item)))),
        Value::Map(map) => Ok(Value::Bool(Key::of(item).is_some_and(|key| member(map, &key).is_some()))),
        _ => no_overload(),
    }
}
