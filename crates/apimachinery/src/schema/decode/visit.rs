//! The visitors: one value, one object, one key.

use std::cell::RefCell;
use std::fmt::{self, Write};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};

use super::super::{Field, Shape, Type, scalar};
use super::{State, StrictError};
use crate::quantity::Quantity;
use crate::value::{Key, KeySeed as AnyKeySeed, Map, Number, Value};

/// Deeper documents are refused: each level takes stack.
pub(in super::super) const MAX_DEPTH: usize = 120;
/// An empty object costs two bytes of text and some hundred of memory.
pub(in super::super) const MAX_ENTERED: usize = 250_000;

/// A value of type `ty` at `path` is next. `'s` is the schema's life, `'p` the path's.
#[derive(Clone, Copy)]
pub(super) struct Seed<'s, 'p> {
    ty: Type<'s>,
    state: &'p RefCell<State>,
    path: Option<&'p Path<'p>>,
    depth: usize,
}

/// The way to a value, innermost step first; it lives on the stack and costs nothing until a message is written.
struct Path<'p> {
    step: Step<'p>,
    parent: Option<&'p Path<'p>>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    /// A field, and the short name of the object's type.
    Field(&'p str, &'p str),
    Key(&'p str),
    Index(usize),
}

impl<'s, 'p> Seed<'s, 'p> {
    pub(super) fn root(ty: Type<'s>, state: &'p RefCell<State>) -> Seed<'s, 'p> {
        Seed { ty, state, path: None, depth: 0 }
    }

    fn inner<'q>(&self, ty: Type<'s>, path: &'q Path<'q>) -> Seed<'s, 'q>
    where
        'p: 'q,
    {
        Seed { ty, state: self.state, path: Some(path), depth: self.depth + 1 }
    }

    /// Counts a list or an object that begins.
    fn enter<E: Error>(&self) -> Result<(), E> {
        if self.depth == MAX_DEPTH {
            return self.fail("exceeded max depth".to_owned());
        }
        let mut state = self.state.borrow_mut();
        state.entered += 1;
        if state.entered > MAX_ENTERED {
            drop(state);
            return self.fail("too many objects and lists in one document".to_owned());
        }
        Ok(())
    }

    /// Ends decoding with this message.
    fn fail<T, E: Error>(&self, message: String) -> Result<T, E> {
        self.state.borrow_mut().error = Some(message);
        Err(E::custom("not of the type"))
    }

    /// Upstream: json.UnmarshalTypeError.
    fn mismatch<T, E: Error>(&self, found: fmt::Arguments<'_>) -> Result<T, E> {
        let mut names = Vec::new();
        let mut object = None;
        let mut here = self.path;
        while let Some(path) = here {
            if let Step::Field(name, owner) = path.step {
                names.push(name);
                object.get_or_insert(owner);
            }
            here = path.parent;
        }
        names.reverse();
        let go = go_type(self.ty);
        self.fail(match object {
            Some(object) => {
                format!("json: cannot unmarshal {found} into Go struct field {object}.{} of type {go}", names.join("."))
            }
            None => format!("json: cannot unmarshal {found} into Go value of type {go}"),
        })
    }

    fn note(&self, problem: fn(String) -> StrictError, name: &str) {
        let mut path = write_path(self.path);
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        self.state.borrow_mut().note(problem(path));
    }
}

/// `spec.containers[0].image`
fn write_path(path: Option<&Path<'_>>) -> String {
    let Some(path) = path else { return String::new() };
    let mut text = write_path(path.parent);
    match path.step {
        Step::Field(name, _) | Step::Key(name) => {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(name);
        }
        Step::Index(index) => drop(write!(text, "[{index}]")),
    }
    text
}

/// `PodSpec` of `io.k8s.api.core.v1.PodSpec`.
fn short_name(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or_default()
}

/// A type as Go prints it: `v1.PodSpec`, `[]v1.Container`, `int32`.
fn go_type(ty: Type<'_>) -> String {
    let name = ty.name();
    if !name.is_empty() && !matches!(ty.shape(), Shape::IntOrString | Shape::Time | Shape::MicroTime) {
        let start = name.rmatch_indices('.').nth(1).map_or(0, |(at, _)| at + 1);
        return name[start..].to_owned();
    }
    match ty.shape() {
        Shape::Array { item, .. } => format!("[]{}", go_type(ty.schema().at(*item))),
        Shape::Map { value, .. } => format!("map[string]{}", go_type(ty.schema().at(*value))),
        Shape::Integer { bits } => format!("int{bits}"),
        Shape::Number => "float64".to_owned(),
        Shape::Boolean => "bool".to_owned(),
        Shape::Bytes => "[]uint8".to_owned(),
        Shape::Object { .. } => "object".to_owned(),
        Shape::IntOrString => "int32".to_owned(),
        Shape::String { .. } | Shape::Quantity | Shape::Time | Shape::MicroTime => "string".to_owned(),
        Shape::Raw => "interface {}".to_owned(),
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.ty.shape() {
            Shape::Raw => RawSeed(self).deserialize(deserializer),
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Seed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the type")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, flag: bool) -> Result<Value, E> {
        match self.ty.shape() {
            Shape::Boolean => Ok(Value::Bool(flag)),
            Shape::Quantity => self.quantity(&Value::Bool(flag)),
            _ => self.mismatch(format_args!("bool")),
        }
    }

    fn visit_i64<E: Error>(self, n: i64) -> Result<Value, E> {
        let fits = match self.ty.shape() {
            Shape::Integer { bits: 32 } | Shape::IntOrString => i32::try_from(n).is_ok(),
            Shape::Integer { .. } | Shape::Number => true,
            Shape::Quantity => return self.quantity(&Value::from(n)),
            _ => return self.mismatch(format_args!("number")),
        };
        if fits { Ok(Value::from(n)) } else { self.mismatch(format_args!("number {n}")) }
    }

    fn visit_u64<E: Error>(self, n: u64) -> Result<Value, E> {
        match i64::try_from(n) {
            Ok(n) => self.visit_i64(n),
            Err(_) => self.visit_f64(n as f64),
        }
    }

    fn visit_f64<E: Error>(self, f: f64) -> Result<Value, E> {
        match self.ty.shape() {
            Shape::Number if f.fract() == 0.0 && f.abs() < 9.0e15 => Ok(Value::from(f as i64)),
            Shape::Number => Ok(Value::from(f)),
            Shape::Quantity => self.quantity(&Value::from(f)),
            Shape::Integer { .. } | Shape::IntOrString => self.mismatch(format_args!("number {f:?}")),
            _ => self.mismatch(format_args!("number")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        match self.ty.shape() {
            Shape::String { .. } | Shape::IntOrString => Ok(Value::from(text)),
            _ => self.special(text),
        }
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Value, E> {
        match self.ty.shape() {
            Shape::String { .. } | Shape::IntOrString => Ok(Value::String(text)),
            _ => self.special(&text),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let Some(item) = self.ty.item() else {
            return self.not_a_scalar("array");
        };
        self.enter::<A::Error>()?;
        let mut items = Vec::new();
        loop {
            let path = Path { step: Step::Index(items.len()), parent: self.path };
            match seq.next_element_seed(self.inner(item, &path))? {
                Some(Value::Null) if !item.node().nullable => items.push(item.zero()),
                Some(value) => items.push(value),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        self.enter::<A::Error>()?;
        match self.ty.shape() {
            Shape::Object { .. } => self.object(map),
            Shape::Map { value, .. } => self.map(self.ty.schema().at(*value), map),
            _ => self.not_a_scalar("object"),
        }
    }
}

impl Seed<'_, '_> {
    fn object<'de, A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let fields = self.ty.fields();
        let owner = short_name(self.ty.name());
        let keeps = self.ty.preserves_unknown();
        let mut given: Vec<(usize, Value)> = Vec::with_capacity(8);
        let mut others: Vec<(Key, Value)> = Vec::new();
        let mut sorted = true;
        while let Some(key) = map.next_key_seed(KeySeed { fields })? {
            match key {
                FieldKey::Known(index) => {
                    let field = &fields[index];
                    let path = Path { step: Step::Field(&field.name, owner), parent: self.path };
                    let value = map.next_value_seed(self.inner(self.ty.of(field), &path))?;
                    let rising = given.last().is_none_or(|(last, _)| *last < index);
                    match given.iter_mut().find(|(known, _)| !rising && *known == index) {
                        Some((_, earlier)) => {
                            *earlier = value;
                            self.note(StrictError::Duplicate, &field.name);
                        }
                        None => given.push((index, value)),
                    }
                    sorted &= rising;
                }
                FieldKey::Other(name) if keeps => {
                    let path = Path { step: Step::Key(&name), parent: self.path };
                    let value = map.next_value_seed(RawSeed(self.inner(self.ty, &path)))?;
                    others.push((Key::Owned(name), value));
                }
                FieldKey::Other(name) => {
                    // Read and dropped: the lexer's own skipping has no limit on depth.
                    let path = Path { step: Step::Key(&name), parent: self.path };
                    map.next_value_seed(RawSeed(self.inner(self.ty, &path)))?;
                    self.note(StrictError::Unknown, &name);
                }
            }
        }
        if !sorted {
            given.sort_by_key(|(index, _)| *index);
        }
        Ok(Value::Object(self.ty.complete(given, others)))
    }

    fn map<'de, A: MapAccess<'de>>(self, ty: Type<'_>, mut map: A) -> Result<Value, A::Error> {
        let mut entries: Vec<(Key, Value)> = Vec::new();
        while let Some(key) = map.next_key_seed(AnyKeySeed)? {
            let path = Path { step: Step::Key(&key), parent: self.path };
            let seed = Seed { ty, state: self.state, path: Some(&path), depth: self.depth + 1 };
            let mut value = map.next_value_seed(seed)?;
            if value.is_null() && !ty.node().nullable {
                value = ty.zero();
            }
            entries.push((key, value));
        }
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_ref()).collect();
            keys.sort_unstable();
            for pair in keys.windows(2).filter(|pair| pair[0] == pair[1]) {
                self.note(StrictError::Duplicate, pair[0]);
            }
        }
        Ok(Value::Object(Map::from_entries(entries)))
    }

    /// A list or an object was found instead; quantities don't look at what they are given.
    fn not_a_scalar<E: Error>(self, found: &str) -> Result<Value, E> {
        match self.ty.shape() {
            Shape::Quantity => self.quantity(&Value::Null),
            _ => self.mismatch(format_args!("{found}")),
        }
    }

    fn special<E: Error>(self, text: &str) -> Result<Value, E> {
        let canonical = match self.ty.shape() {
            Shape::Quantity => return self.quantity(&Value::from(text)),
            Shape::Time if text.is_empty() => return Ok(Value::Null),
            Shape::Time => scalar::time(text),
            Shape::MicroTime => scalar::micro_time(text),
            Shape::Bytes => scalar::base64(text),
            _ => return self.mismatch(format_args!("string")),
        };
        match canonical {
            // Go's zero time.
            Ok(text) if text.starts_with(scalar::ZERO_TIME) => Ok(Value::Null),
            Ok(text) => Ok(Value::String(text)),
            Err(message) => self.fail(message),
        }
    }

    fn quantity<E: Error>(self, value: &Value) -> Result<Value, E> {
        let parsed = Quantity::from_value(value).unwrap_or(Err(crate::QuantityError::Format));
        match parsed {
            Ok(quantity) => Ok(Value::String(quantity.to_string())),
            Err(error) => self.fail(error.to_string()),
        }
    }
}

/// A key of an object: a field's index, or a name the schema doesn't know.
struct KeySeed<'s> {
    fields: &'s [Field],
}

enum FieldKey {
    Known(usize),
    Other(String),
}

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = FieldKey;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<FieldKey, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = FieldKey;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, name: &str) -> Result<FieldKey, E> {
        let found = self.fields.binary_search_by(|field| field.name.as_ref().cmp(name));
        Ok(found.map_or_else(|_| FieldKey::Other(name.to_owned()), FieldKey::Known))
    }
}

/// Any JSON, kept as it is.
struct RawSeed<'s, 'p>(Seed<'s, 'p>);

impl<'de> DeserializeSeed<'de> for RawSeed<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for RawSeed<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(Value::Bool(flag))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::from(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::Number(i64::try_from(n).map_or(Number::Float(n as f64), Number::Int)))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::from(f))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::from(text))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.0.enter::<A::Error>()?;
        let mut items = Vec::new();
        loop {
            let path = Path { step: Step::Index(items.len()), parent: self.0.path };
            match seq.next_element_seed(RawSeed(self.0.inner(self.0.ty, &path)))? {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.0.enter::<A::Error>()?;
        let mut entries: Vec<(Key, Value)> = Vec::new();
        while let Some(key) = map.next_key_seed(AnyKeySeed)? {
            let path = Path { step: Step::Key(&key), parent: self.0.path };
            let value = map.next_value_seed(RawSeed(self.0.inner(self.0.ty, &path)))?;
            entries.push((key, value));
        }
        Ok(Value::Object(Map::from_entries(entries)))
    }
}
