//! From JSON to the canonical [`Value`] of a type: types checked, unknown and duplicate fields named, scalars in one form.
//!
//! Messages follow upstream's decoder (sigs.k8s.io/json). Names are matched exactly, as its strict mode does.

mod visit;

use std::cell::RefCell;
use std::fmt;

use serde::Deserializer;
use serde::de::DeserializeSeed;

use super::Type;
use super::settle::Entered;
use crate::value::{ParseError, Value};
use visit::Seed;
pub(super) use visit::{MAX_DEPTH, MAX_ENTERED};

/// A decoded document.
#[derive(Debug)]
pub struct Decoded {
    /// In canonical form; unknown fields are left out, of duplicate ones the last stays.
    pub value: Value,
    /// What strict field validation refuses.
    pub problems: Vec<StrictError>,
}

/// A field that strict field validation refuses; displayed as upstream's `unknown field "spec.foo"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StrictError {
    Unknown(String),
    Duplicate(String),
}

/// Why a document is not of the type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("{0}")]
    Syntax(String),
    /// A value of the wrong JSON type: `json: cannot unmarshal string into Go struct field …`.
    #[error("{0}")]
    Type(String),
}

/// More are not told one by one.
const MAX_PROBLEMS: usize = 100;

impl Type<'_> {
    /// Decodes a document of this type. Work is linear in the input; the depth is limited.
    pub fn decode(self, json: &[u8]) -> Result<Decoded, DecodeError> {
        let json = std::str::from_utf8(json).map_err(|error| DecodeError::Syntax(error.to_string()))?;
        let mut deserializer = sonic_rs::Deserializer::from_str(json);
        self.run(|seed| {
            let value = seed.deserialize(&mut deserializer)?;
            deserializer.end()?;
            Ok::<_, sonic_rs::Error>(value)
        })
    }

    /// Brings a document that was patched or converted into the canonical form.
    pub fn canonical(self, mut value: Value) -> Result<Decoded, DecodeError> {
        match self.settle(&mut value, 0, &mut Entered::default()) {
            Ok(()) => Ok(Decoded { value, problems: Vec::new() }),
            Err(_) => self.run(|seed| seed.deserialize(ValueSource(value))),
        }
    }

    fn run<E: LexError>(self, read: impl FnOnce(Seed<'_, '_>) -> Result<Value, E>) -> Result<Decoded, DecodeError> {
        let state = RefCell::new(State::default());
        let read = read(Seed::root(self, &state));
        let state = state.into_inner();
        match (read, state.error) {
            (Ok(value), _) => Ok(Decoded { value, problems: state.problems }),
            (Err(_), Some(message)) => Err(DecodeError::Type(message)),
            (Err(error), None) if error.is_end() => Err(DecodeError::Syntax("unexpected end of JSON input".to_owned())),
            (Err(error), None) => Err(DecodeError::Syntax(first_line(&error.to_string()))),
        }
    }
}

/// What is noticed on the way.
#[derive(Default)]
struct State {
    problems: Vec<StrictError>,
    error: Option<String>,
    /// Lists and objects so far.
    entered: usize,
}

impl State {
    fn note(&mut self, problem: StrictError) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(problem);
        }
    }
}

impl fmt::Display for StrictError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StrictError::Unknown(path) => write!(f, "unknown field {path:?}"),
            StrictError::Duplicate(path) => write!(f, "duplicate field {path:?}"),
        }
    }
}

impl From<ParseError> for DecodeError {
    fn from(error: ParseError) -> DecodeError {
        DecodeError::Syntax(error.message)
    }
}

trait LexError: fmt::Display {
    /// The text ended too early.
    fn is_end(&self) -> bool {
        false
    }
}

impl LexError for serde::de::value::Error {}

impl LexError for sonic_rs::Error {
    fn is_end(&self) -> bool {
        self.is_eof()
    }
}

/// The lexer adds a picture of the place; a status message is one line.
fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim().to_owned()
}

/// Feeds a [`Value`] to the same visitors.
struct ValueSource(Value);

impl<'de> Deserializer<'de> for ValueSource {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: serde::de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        use serde::de::value::{MapDeserializer, SeqDeserializer};
        match self.0 {
            Value::Null => visitor.visit_unit(),
            Value::Bool(flag) => visitor.visit_bool(flag),
            Value::Number(crate::Number::Int(n)) => visitor.visit_i64(n),
            Value::Number(crate::Number::Float(f)) => visitor.visit_f64(f),
            Value::String(text) => visitor.visit_string(text),
            Value::Array(items) => visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(ValueSource))),
            Value::Object(map) => {
                let entries = map.into_iter().map(|(key, value)| (key.into_owned(), ValueSource(value)));
                visitor.visit_map(MapDeserializer::new(entries))
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> serde::de::IntoDeserializer<'de> for ValueSource {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}
