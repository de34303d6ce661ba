//! From JSON text to a [`Value`], with limits on size and depth and a record of duplicate keys.

use std::cell::RefCell;
use std::fmt::{self, Write};

use serde::Deserializer;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};

use super::{Key, Map, Number, Value, names};

/// Why a text is not a document we take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    /// What the lexer found wrong, with its position.
    pub message: String,
}

/// Deeper documents are refused: none of ours comes near it, and each level takes stack.
const MAX_DEPTH: usize = 120;

pub(super) struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

pub(super) fn parse(json: &[u8]) -> Result<Parsed, ParseError> {
    let state = RefCell::new(State::default());
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Seed { state: &state, depth: 0 }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value))
        .map_err(|error| ParseError { message: error.to_string() })?;
    Ok(Parsed { value, duplicates: state.into_inner().duplicates })
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
    Seed { state: &RefCell::new(State::default()), depth: 0 }.deserialize(deserializer)
}

#[derive(Default)]
struct State {
    duplicates: Vec<String>,
    path: Vec<Step>,
}

enum Step {
    Key(Key),
    Index(usize),
}

impl State {
    fn duplicate(&mut self, key: &str) {
        let mut text = String::new();
        for step in &self.path {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => drop(write!(text, ".{key}")),
                Step::Index(i) => drop(write!(text, "[{i}]")),
            }
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.push_str(key);
        self.duplicates.push(text);
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    state: &'a RefCell<State>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Number(Number::Int(n)))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(Value::Number(i64::try_from(n).map_or(Number::Float(n as f64), Number::Int)))
    }

    fn visit_f64<E>(self, f: f64) -> Result<Value, E> {
        Ok(Value::Number(Number::Float(f)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut items = Vec::with_capacity(seq.size_hint().unwrap_or(0).min(64));
        loop {
            self.state.borrow_mut().path.push(Step::Index(items.len()));
            let item = seq.next_element_seed(inner)?;
            self.state.borrow_mut().path.pop();
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inner = self.deeper::<A::Error>()?;
        let mut entries: Vec<(Key, Value)> = Vec::new();
        while let Some(key) = map.next_key_seed(KeySeed)? {
            self.state.borrow_mut().path.push(Step::Key(key));
            let value = map.next_value_seed(inner)?;
            let Some(Step::Key(key)) = self.state.borrow_mut().path.pop() else {
                return Err(A::Error::custom("the path lost its key"));
            };
            entries.push((key, value));
        }
        self.note_duplicates(&entries);
        Ok(Value::Object(Map::from_entries(entries)))
    }
}

/// A key, mostly one that is known.
pub(crate) struct KeySeed;

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(names::key(name))
    }
}

impl Seed<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom("exceeded max depth"));
        }
        Ok(Seed { depth: self.depth + 1, ..self })
    }

    fn note_duplicates(self, entries: &[(Key, Value)]) {
        if entries.is_sorted_by(|a, b| a.0 < b.0) {
            return;
        }
        let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_ref()).collect();
        keys.sort_unstable();
        for pair in keys.windows(2).filter(|pair| pair[0] == pair[1]) {
            self.state.borrow_mut().duplicate(pair[0]);
        }
    }
}
