//! What all walks share: how a value is managed, and the elements of lists.

use std::borrow::Cow;
use std::fmt;

use super::PathElement;
use crate::schema::{ListType, Presence, Shape, Type};
use crate::{Map, Number, Value};

/// How a value is managed.
#[derive(Clone, Copy)]
pub(super) enum Form<'t> {
    /// As one.
    Leaf,
    /// Each member by itself.
    Map(Type<'t>),
    /// Each item by itself.
    List(Type<'t>),
}

pub(super) fn form(ty: Option<Type<'_>>) -> Form<'_> {
    match ty {
        Some(ty) if ty.is_atomic() => Form::Leaf,
        Some(ty) => match ty.shape() {
            Shape::Array { .. } => Form::List(ty),
            _ => Form::Map(ty),
        },
        // What the schema doesn't know.
        None => Form::Leaf,
    }
}

/// The element and the type of a member of an object or map.
pub(super) fn member<'t>(ty: Type<'t>, name: &str) -> (PathElement, Option<Type<'t>>) {
    match ty.field(name) {
        Some(field) => (PathElement::Field(field.name.clone()), Some(ty.of(field))),
        None => (PathElement::field(name.to_owned()), ty.values()),
    }
}

/// The members of a value; none for null and for what is no object.
pub(super) fn members(value: Option<&Value>) -> Option<&Map> {
    value.and_then(Value::as_object).filter(|map| !map.is_empty())
}

/// The items of a value; none for null and for what is no list.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Walks two maps side by side.
pub(super) fn zip<'v>(
    left: Option<&'v Map>,
    right: Option<&'v Map>,
    mut visit: impl FnMut(&'v str, Option<&'v Value>, Option<&'v Value>) -> Result<(), TypeErrors>,
) -> Result<(), TypeErrors> {
    let mut left = left.into_iter().flat_map(Map::iter).peekable();
    let mut right = right.into_iter().flat_map(Map::iter).peekable();
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok(()),
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let l = if order.is_le() { left.next() } else { None };
        let r = if order.is_ge() { right.next() } else { None };
        let name = l.or(r).map(|(name, _)| name).unwrap_or_default();
        visit(name, l.map(|(_, value)| value), r.map(|(_, value)| value))?;
    }
}

/// What is wrong with values, each with its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeErrors(pub(super) Vec<(String, String)>);

impl TypeErrors {
    pub(super) fn one(message: impl Into<String>) -> TypeErrors {
        TypeErrors(vec![(String::new(), message.into())])
    }

    pub(super) fn below(mut self, element: &PathElement) -> TypeErrors {
        for (path, _) in &mut self.0 {
            path.insert_str(0, &element.to_string());
        }
        self
    }
}

impl std::error::Error for TypeErrors {}

impl fmt::Display for TypeErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |(path, message): &(String, String)| match path.is_empty() {
            true => message.clone(),
            false => format!("{path}: {message}"),
        };
        match self.0.as_slice() {
            [one] => f.write_str(&shown(one)),
            many => {
                f.write_str("errors:")?;
                many.iter().try_for_each(|one| write!(f, "\n  {}", shown(one)))
            }
        }
    }
}

/// The element of a list's item, or why there is none.
pub(super) fn item_element(list: Type<'_>, item: &Value) -> Result<PathElement, String> {
    match list.list_type() {
        ListType::Map => keyed_element(list, item),
        _ => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(PathElement::value(scalar)),
        },
    }
}

fn keyed_element(list: Type<'_>, item: &Value) -> Result<PathElement, String> {
    let map = match item {
        Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
        Value::Object(map) => map,
        _ => return Err("associative list with keys may not have non-map elements".to_owned()),
    };
    let names = list.list_keys();
    let mut keys: Vec<(&str, Cow<'_, Value>)> = Vec::with_capacity(names.len());
    for name in names {
        match map.get(name) {
            Some(value) => keys.push((name, Cow::Borrowed(value))),
            None => keys.extend(default_of(list, name).map(|value| (name.as_ref(), Cow::Owned(value)))),
        }
    }
    if keys.is_empty() {
        let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        return Err(format!(
            "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for \
             any key fields)",
            names.join(" ")
        ));
    }
    keys.sort_by(|a, b| a.0.cmp(b.0));
    Ok(PathElement::key(keys.into_iter()))
}

/// What a key is where an item doesn't say: the declared default, or the zero value of what Go always writes.
fn default_of(list: Type<'_>, name: &str) -> Option<Value> {
    let item = list.item()?;
    let field = item.field(name)?;
    match &field.default {
        Some(default) => Value::parse(default.as_bytes()).ok(),
        None if field.presence == Presence::Always => Some(item.of(field).zero()),
        None => None,
    }
}

/// Equal values, whatever way their numbers are written.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => match (a, b) {
            (Number::Int(a), Number::Int(b)) => a == b,
            _ => a.as_f64() == b.as_f64(),
        },
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b.iter()).all(|((ka, a), (kb, b))| ka == kb && same(a, b))
        }
        _ => a == b,
    }
}

impl Number {
    fn as_f64(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(f) => f,
        }
    }
}

/// A value as Go prints it.
pub(super) fn string_of(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(string_of).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", string_of(value))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}
