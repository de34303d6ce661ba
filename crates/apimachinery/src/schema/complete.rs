//! The canonical form of objects: which zero values are left out, which are put in, and constant defaults.

use super::{Field, NodeId, Presence, Schema, Shape, Type};
use crate::value::{Key, Map, Number, Value};

impl Type<'_> {
    /// Makes an object's map of the values given for its fields (by index, in rising order) and of `others`, which the schema
    /// doesn't name: leaves out what Go leaves out and puts in what Go always writes.
    pub fn complete(self, given: Vec<(usize, Value)>, others: Vec<(Key, Value)>) -> Map {
        let fields = self.fields();
        let mut entries: Vec<(Key, Value)> = Vec::with_capacity(given.len() + others.len() + 2);
        let mut given = given.into_iter().peekable();
        for (index, field) in fields.iter().enumerate() {
            let value = given.next_if(|(i, _)| *i == index).map(|(_, value)| value);
            if let Some(value) = self.present(field, value) {
                entries.push((field.name.clone(), value));
            }
        }
        entries.extend(others);
        Map::from_entries(entries)
    }

    /// What the canonical form says for a field that was given `value`.
    fn present(self, field: &Field, value: Option<Value>) -> Option<Value> {
        // Most fields of most objects are absent: they must cost nothing but this.
        let value = match value {
            None if matches!(field.presence, Presence::Given | Presence::NonEmpty | Presence::NonZero) => return None,
            Some(Value::Null) if !self.of(field).node().nullable => None,
            value => value,
        };
        match (field.presence, value) {
            (Presence::Given, value) => value,
            (Presence::NonEmpty, value) => value.filter(|value| !is_empty(value)),
            (Presence::NonZero, value) => value.filter(|value| *value != self.of(field).zero()),
            (Presence::Always, value) => Some(value.unwrap_or_else(|| self.of(field).zero())),
            (Presence::AlwaysNull, value) => Some(value.unwrap_or(Value::Null)),
        }
    }

    /// How Go writes the zero value of this type.
    pub fn zero(self) -> Value {
        match self.shape() {
            Shape::Object { .. } => Value::Object(self.complete(Vec::new(), Vec::new())),
            Shape::String { .. } | Shape::Bytes => Value::from(""),
            Shape::Integer { .. } | Shape::Number | Shape::IntOrString => Value::from(0),
            Shape::Boolean => Value::from(false),
            Shape::Quantity => Value::from("0"),
            Shape::Map { .. } | Shape::Array { .. } | Shape::Time | Shape::MicroTime | Shape::Raw => Value::Null,
        }
    }

    /// Puts constant defaults where a field is absent. Objects that are absent stay so.
    pub fn default_value(self, value: &mut Value) {
        match (self.shape(), value) {
            (Shape::Object { .. }, Value::Object(map)) => {
                for field in self.fields() {
                    if let Some(default) = &field.default {
                        self.default_field(field, default, map);
                    }
                }
                for field in self.fields() {
                    let ty = self.of(field);
                    if ty.has_defaults()
                        && let Some(value) = map.get_mut(&field.name)
                    {
                        ty.default_value(value);
                    }
                }
            }
            (Shape::Map { value: ty, .. }, Value::Object(map)) => {
                let ty = self.schema.at(*ty);
                if ty.has_defaults() {
                    map.iter_mut().for_each(|(_, value)| ty.default_value(value));
                }
            }
            (Shape::Array { item, .. }, Value::Array(items)) => {
                let ty = self.schema.at(*item);
                if ty.has_defaults() {
                    items.iter_mut().for_each(|value| ty.default_value(value));
                }
            }
            _ => {}
        }
    }

    fn default_field(self, field: &Field, default: &str, map: &mut Map) {
        let absent = match map.get(&field.name) {
            None => true,
            Some(value) => value.is_null() && !self.of(field).node().nullable,
        };
        if !absent {
            return;
        }
        let Ok(value) = Value::parse(default.as_bytes()) else { return };
        if field.presence != Presence::NonEmpty || !is_empty(&value) {
            map.insert(field.name.clone(), value);
        }
    }

    /// A constant default is in this type or below it.
    fn has_defaults(self) -> bool {
        self.schema.defaulted.get_or_init(|| find_defaulted(self.schema))[self.id.0 as usize]
    }
}

/// Marks every node with a default in it or below it: rounds until nothing changes, as types may contain themselves.
fn find_defaulted(schema: &Schema) -> Vec<bool> {
    let mut marks = vec![false; schema.len()];
    loop {
        let mut changed = false;
        for id in 0..schema.len() {
            let ty = schema.at(NodeId(id as u32));
            let found = match ty.shape() {
                Shape::Map { value: inner, .. } | Shape::Array { item: inner, .. } => marks[inner.0 as usize],
                _ => ty.fields().iter().any(|field| field.default.is_some() || marks[field.node.0 as usize]),
            };
            changed |= found && !marks[id];
            marks[id] |= found;
        }
        if !changed {
            return marks;
        }
    }
}

/// What `omitempty` leaves out.
pub(super) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(Number::Int(n)) => *n == 0,
        Value::Number(Number::Float(f)) => *f == 0.0,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}
