//! One step of a field's path.

use std::borrow::Cow;
use std::fmt;

use crate::value::{Key, known_key, write_string, write_text};
use crate::{Map, Value};

/// A step from a value to one in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(Key),
    /// An item of a list, in the form of `FieldsV1`: `k:{"name":"web"}`, `v:"finalizer"` or `i:3`.
    Item(Box<str>),
}

impl PathElement {
    pub fn field(name: impl Into<Key>) -> PathElement {
        PathElement::Field(name.into())
    }

    /// An item of a set.
    pub(super) fn value(value: &Value) -> PathElement {
        let mut text = b"v:".to_vec();
        write_escaped(value, &mut text);
        PathElement::item(text)
    }

    /// An item of a list by its keys, given in rising order.
    pub(super) fn key<'v>(keys: impl Iterator<Item = (&'v str, Cow<'v, Value>)>) -> PathElement {
        let mut text = b"k:{".to_vec();
        for (i, (name, value)) in keys.enumerate() {
            if i > 0 {
                text.push(b',');
            }
            write_string(name, &mut text);
            text.push(b':');
            write_escaped(&value, &mut text);
        }
        text.push(b'}');
        PathElement::item(text)
    }

    fn item(text: Vec<u8>) -> PathElement {
        PathElement::Item(String::from_utf8(text).unwrap_or_default().into())
    }

    /// Reads an element as a server wrote it; `None` for kinds that aren't known.
    pub(super) fn trusted(text: Cow<'_, str>) -> Option<PathElement> {
        match text.as_bytes() {
            [b'f', b':', ..] => Some(PathElement::Field(known_key(&text[2..]))),
            [b'k' | b'v' | b'i', b':', ..] => Some(PathElement::Item(text.into())),
            _ => None,
        }
    }

    /// Reads an element as a client may have written it; `None` for kinds that aren't known.
    pub(super) fn parse(text: &str) -> Result<Option<PathElement>, String> {
        let (kind, rest) = match text.as_bytes() {
            [kind, b':', ..] => (*kind, &text[2..]),
            [_, _, ..] => return Err(format!("missing colon: {text}")),
            _ => return Err("key must be 2 characters long:".to_owned()),
        };
        let value = || Value::parse(rest.as_bytes()).map_err(|error| error.to_string());
        Ok(match kind {
            b'f' => Some(PathElement::field(rest.to_owned())),
            b'v' => Some(PathElement::value(&value()?)),
            b'k' => match value()? {
                Value::Object(map) => {
                    Some(PathElement::key(map.iter().map(|(name, value)| (name, Cow::Borrowed(value)))))
                }
                _ => return Err(format!("no object of keys: {rest}")),
            },
            b'i' => {
                let index: i64 = rest.parse().map_err(|_| format!("no index: {rest}"))?;
                Some(PathElement::Item(format!("i:{index}").into()))
            }
            _ => None,
        })
    }

    /// Appends the element as JSON's key.
    pub(super) fn write_json(&self, out: &mut Vec<u8>) {
        out.push(b'"');
        match self {
            PathElement::Field(name) => {
                out.extend_from_slice(b"f:");
                write_text(name, out);
            }
            PathElement::Item(text) => write_text(text, out),
        }
        out.push(b'"');
    }

    fn keys(text: &str) -> Map {
        match Value::parse(text.as_bytes()) {
            Ok(Value::Object(map)) => map,
            _ => Map::default(),
        }
    }
}

/// JSON as Go writes it, which escapes what HTML gives a meaning.
pub(super) fn write_escaped(value: &Value, out: &mut Vec<u8>) {
    let start = out.len();
    value.write_json(out);
    if !out[start..].iter().any(|byte| matches!(byte, b'<' | b'>' | b'&')) {
        return;
    }
    let written = out.split_off(start);
    for byte in written {
        match byte {
            b'<' => out.extend_from_slice(b"\\u003c"),
            b'>' => out.extend_from_slice(b"\\u003e"),
            b'&' => out.extend_from_slice(b"\\u0026"),
            byte => out.push(byte),
        }
    }
}

/// As upstream's messages show it: `.spec`, `[name="web"]`, `[="a"]`, `[3]`.
impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            PathElement::Field(name) => return write!(f, ".{name}"),
            PathElement::Item(text) => text,
        };
        let (kind, rest) = text.split_at(2.min(text.len()));
        match kind {
            "k:" => {
                let keys = PathElement::keys(rest);
                let shown: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", shown.join(","))
            }
            "v:" => write!(f, "[={}]", Value::parse(rest.as_bytes()).unwrap_or_default()),
            _ => write!(f, "[{rest}]"),
        }
    }
}
