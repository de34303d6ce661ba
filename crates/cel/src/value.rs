//! Values while an expression runs. JSON is looked into where it lies; nothing is copied until something new is made of it.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use apimachinery::{Map as JsonMap, Number, Value as Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use crate::decl::{Decl, DeclShape, ListKind};
use crate::error::EvalError;
use crate::functions::opaque::Opaque;
use crate::functions::time::parse_duration;
use crate::types::Type;

/// A value. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Str<'a>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    /// In nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    Optional(Option<Rc<Value<'a>>>),
    Type(Type),
    Opaque(Opaque<'a>),
}

/// Text, borrowed or shared.
#[derive(Clone)]
pub enum Str<'a> {
    Borrowed(&'a str),
    Shared(Arc<str>),
}

/// A list: JSON, or values.
#[derive(Clone, Debug)]
pub enum List<'a> {
    Json(&'a [Json], Option<&'a Decl>),
    Values(Rc<Vec<Value<'a>>>),
}

/// A map or an object: JSON, values, or something that makes values when they are asked for.
#[derive(Clone)]
pub enum Map<'a> {
    Json(&'a JsonMap, Option<&'a Decl>),
    Values(Rc<BTreeMap<Key, Value<'a>>>),
    Lazy(Rc<dyn Fields<'a> + 'a>),
}

/// Fields whose values are made when they are asked for (a policy's `variables`).
pub trait Fields<'a> {
    /// `None` for unknown names.
    fn get(&self, name: &str) -> Option<Result<Value<'a>, EvalError>>;
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Bool(bool),
    Int(i64),
    Uint(u64),
    String(Arc<str>),
}

impl Deref for Str<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Str::Borrowed(text) => text,
            Str::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Str<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Debug for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Map::Json(map, _) => fmt::Debug::fmt(map, f),
            Map::Values(map) => fmt::Debug::fmt(map, f),
            Map::Lazy(_) => f.write_str("{..}"),
        }
    }
}

impl<'a> Value<'a> {
    pub fn string(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Str::Shared(text.into()))
    }

    pub fn borrowed(text: &'a str) -> Value<'a> {
        Value::String(Str::Borrowed(text))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Values(Rc::new(items)))
    }

    pub(crate) fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Rc::new(value)))
    }

    /// JSON as the schema types it; without one, as it is.
    pub fn json(json: &'a Json, decl: Option<&'a Decl>) -> Value<'a> {
        let shape = decl.map(Decl::shape);
        match (json, shape) {
            (Json::Null, _) => Value::Null,
            (Json::Bool(b), _) => Value::Bool(*b),
            (Json::Number(Number::Int(n)), _) if decl.is_some_and(|decl| *decl.ty() == Type::Double) => {
                Value::Double(*n as f64)
            }
            (Json::Number(Number::Int(n)), _) => Value::Int(*n),
            (Json::Number(Number::Float(f)), _) => Value::Double(*f),
            (Json::String(text), Some(DeclShape::Time)) => {
                parse_time(text).map_or(Value::borrowed(text), Value::Timestamp)
            }
            (Json::String(text), Some(DeclShape::Duration)) => {
                parse_duration(text).map_or(Value::borrowed(text), Value::Duration)
            }
            (Json::String(text), Some(DeclShape::Bytes)) => {
                STANDARD.decode(text).map_or(Value::borrowed(text), |bytes| Value::Bytes(bytes.into()))
            }
            (Json::String(text), _) => Value::borrowed(text),
            (Json::Array(items), _) => Value::List(List::Json(items, decl)),
            (Json::Object(map), _) => Value::Map(Map::Json(map, decl)),
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(b) = self { Some(*b) } else { None }
    }

    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(text) = self { Some(text) } else { None }
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The value as JSON, as upstream's conversion of a result to `structpb.Value` has it; `None` where there is no such form.
    pub fn to_json(&self) -> Option<Json> {
        Some(match self {
            Value::Null => Json::Null,
            Value::Bool(b) => Json::Bool(*b),
            Value::Int(n) => Json::Number(Number::Int(*n)),
            Value::Uint(n) => Json::Number(i64::try_from(*n).map_or(Number::Float(*n as f64), Number::Int)),
            Value::Double(f) => Json::Number(Number::Float(*f)),
            Value::String(text) => Json::String(text.to_string()),
            Value::Bytes(bytes) => Json::String(STANDARD.encode(bytes)),
            Value::Timestamp(_) | Value::Duration(_) => Json::String(crate::functions::standard::text(self)?),
            Value::List(list) => Json::Array((0..list.len()).map(|i| list.get(i)?.to_json()).collect::<Option<_>>()?),
            Value::Map(map) => {
                let mut out = JsonMap::default();
                for key in map.keys() {
                    let Key::String(name) = &key else { return None };
                    out.insert(name.to_string(), map.get(&key)?.ok()?.to_json()?);
                }
                Json::Object(out)
            }
            Value::Optional(Some(value)) => value.to_json()?,
            Value::Optional(None) => Json::Null,
            Value::Type(_) | Value::Opaque(_) => return None,
        })
    }

    /// The type of this value, parameters dynamic.
    pub fn type_of(&self) -> Type {
        match self {
            Value::Null => Type::Null,
            Value::Bool(_) => Type::Bool,
            Value::Int(_) => Type::Int,
            Value::Uint(_) => Type::Uint,
            Value::Double(_) => Type::Double,
            Value::String(_) => Type::String,
            Value::Bytes(_) => Type::Bytes,
            Value::Timestamp(_) => Type::Timestamp,
            Value::Duration(_) => Type::Duration,
            Value::List(_) => Type::list(Type::Dyn),
            Value::Map(Map::Json(_, Some(decl))) if matches!(decl.shape(), DeclShape::Object { .. }) => {
                decl.ty().clone()
            }
            Value::Map(_) => Type::map(Type::Dyn, Type::Dyn),
            Value::Optional(_) => Type::optional(Type::Dyn),
            Value::Type(_) => Type::Type(None),
            Value::Opaque(opaque) => Type::Opaque(opaque.type_name()),
        }
    }

    /// The type as errors at run time name it.
    pub(crate) fn type_name(&self) -> String {
        match self.type_of() {
            Type::List(_) => "list".to_owned(),
            Type::Map(..) => "map".to_owned(),
            Type::Optional(_) => "optional_type".to_owned(),
            Type::Null => "null_type".to_owned(),
            Type::Timestamp => "google.protobuf.Timestamp".to_owned(),
            Type::Duration => "google.protobuf.Duration".to_owned(),
            other => other.to_string(),
        }
    }

    /// What `size()` would say, or 1: the measure of costs.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            Value::Opaque(opaque) => opaque.size(),
            _ => 1,
        }
    }

    pub(crate) fn equals(&self, other: &Value<'a>) -> bool {
        match (self, other) {
            (Value::Null, Value::Null) => true,
            (Value::Bool(a), Value::Bool(b)) => a == b,
            (Value::String(a), Value::String(b)) => **a == **b,
            (Value::Bytes(a), Value::Bytes(b)) => a == b,
            (Value::Timestamp(a), Value::Timestamp(b)) => a == b,
            (Value::Duration(a), Value::Duration(b)) => a == b,
            (Value::List(a), Value::List(b)) => a.equals(b),
            (Value::Map(a), Value::Map(b)) => a.equals(b),
            (Value::Optional(a), Value::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (None, None) => true,
                _ => false,
            },
            (Value::Type(a), Value::Type(b)) => same_kind(a, b),
            (Value::Opaque(a), Value::Opaque(b)) => a.equals(b),
            (a, b) => a.compare_numbers(b) == Some(Ordering::Equal),
        }
    }

    /// Numbers compare by what they mean, whatever their types.
    pub(crate) fn compare_numbers(&self, other: &Value<'_>) -> Option<Ordering> {
        use Value::{Double, Int, Uint};
        Some(match (self, other) {
            (Int(a), Int(b)) => a.cmp(b),
            (Uint(a), Uint(b)) => a.cmp(b),
            (Int(a), Uint(b)) => i128::from(*a).cmp(&i128::from(*b)),
            (Uint(a), Int(b)) => i128::from(*a).cmp(&i128::from(*b)),
            (Double(a), Double(b)) => return a.partial_cmp(b),
            (Double(a), Int(b)) => return compare_double(*a, i128::from(*b)),
            (Double(a), Uint(b)) => return compare_double(*a, i128::from(*b)),
            (Int(a), Double(b)) => return compare_double(*b, i128::from(*a)).map(Ordering::reverse),
            (Uint(a), Double(b)) => return compare_double(*b, i128::from(*a)).map(Ordering::reverse),
            _ => return None,
        })
    }

    /// The order of two values of one sort, or of two numbers.
    pub(crate) fn compare(&self, other: &Value<'_>) -> Option<Ordering> {
        Some(match (self, other) {
            (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
            (Value::String(a), Value::String(b)) => (**a).cmp(&**b),
            (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
            (Value::Timestamp(a), Value::Timestamp(b)) => a.cmp(b),
            (Value::Duration(a), Value::Duration(b)) => a.cmp(b),
            (a, b) => return a.compare_numbers(b),
        })
    }
}

fn compare_double(a: f64, b: i128) -> Option<Ordering> {
    if a.is_nan() {
        return None;
    }
    if a >= 1.9e19 || a <= -1.9e19 {
        return Some(if a > 0.0 { Ordering::Greater } else { Ordering::Less });
    }
    let whole = a.trunc();
    Some((whole as i128).cmp(&b).then_with(|| a.partial_cmp(&whole).unwrap_or(Ordering::Equal)))
}

fn same_kind(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::List(_), Type::List(_)) | (Type::Map(..), Type::Map(..)) | (Type::Type(_), Type::Type(_)) => true,
        (Type::Optional(_), Type::Optional(_)) => true,
        (a, b) => a == b,
    }
}

/// A date, or a point in time.
fn parse_time(text: &str) -> Option<Timestamp> {
    apimachinery::parse_time(text).or_else(|| apimachinery::parse_time(&format!("{text}T00:00:00Z")))
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json(items, _) => items.len(),
            List::Values(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, at: usize) -> Option<Value<'a>> {
        match self {
            List::Json(items, decl) => items.get(at).map(|item| Value::json(item, decl.and_then(Decl::item))),
            List::Values(items) => items.get(at).cloned(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + '_ {
        (0..self.len()).filter_map(|at| self.get(at))
    }

    pub(crate) fn kind(&self) -> &'a ListKind {
        match self {
            List::Json(_, Some(decl)) => match decl.shape() {
                DeclShape::List { kind, .. } => kind,
                _ => &ListKind::Atomic,
            },
            _ => &ListKind::Atomic,
        }
    }

    /// Sets and maps are equal in any order.
    fn equals(&self, other: &List<'a>) -> bool {
        if self.len() != other.len() {
            return false;
        }
        match (self.kind(), other.kind()) {
            (ListKind::Atomic, ListKind::Atomic) => self.iter().zip(other.iter()).all(|(a, b)| a.equals(&b)),
            _ => self.iter().all(|a| other.iter().any(|b| a.equals(&b))),
        }
    }
}

/// Whether two items of a list of type map have the same keys.
pub(crate) fn same_keys<'a>(a: &Value<'a>, b: &Value<'a>, keys: &[String]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return false };
    keys.iter().all(|key| match (a.json_member(key), b.json_member(key)) {
        (Some(a), Some(b)) => a.equals(&b),
        (None, None) => true,
        _ => false,
    })
}

impl<'a> Map<'a> {
    pub fn len(&self) -> usize {
        match self {
            Map::Json(map, _) => map.len(),
            Map::Values(map) => map.len(),
            Map::Lazy(_) => 1,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A member by its JSON name.
    fn json_member(&self, name: &str) -> Option<Value<'a>> {
        match self {
            Map::Json(map, decl) => map.get(name).map(|value| {
                let decl = decl.and_then(|decl| match decl.shape() {
                    DeclShape::Object { fields } => {
                        fields.values().find(|(json, _)| json == name).map(|(_, decl)| decl)
                    }
                    _ => decl.values(),
                });
                Value::json(value, decl)
            }),
            _ => self.field(name)?.ok(),
        }
    }

    /// What `map.name` says; names of an object with a schema are escaped.
    pub fn field(&self, name: &str) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            Map::Json(map, Some(decl)) if matches!(decl.shape(), DeclShape::Object { .. }) => {
                let (json_name, decl) = decl.json_field(name)?;
                map.get(json_name).map(|value| Ok(Value::json(value, Some(decl))))
            }
            Map::Json(map, decl) => map.get(name).map(|value| Ok(Value::json(value, decl.and_then(Decl::values)))),
            Map::Values(map) => map.get(&Key::String(name.into())).cloned().map(Ok),
            Map::Lazy(fields) => fields.get(name),
        }
    }

    pub fn get(&self, key: &Key) -> Option<Result<Value<'a>, EvalError>> {
        match (self, key) {
            (Map::Values(map), key) => {
                if let Some(found) = map.get(key) {
                    return Some(Ok(found.clone()));
                }
                // Numbers are the same key whatever their type.
                let other = match key {
                    Key::Int(n) => Key::Uint(u64::try_from(*n).ok()?),
                    Key::Uint(n) => Key::Int(i64::try_from(*n).ok()?),
                    _ => return None,
                };
                map.get(&other).cloned().map(Ok)
            }
            (_, Key::String(name)) => self.field(name),
            _ => None,
        }
    }

    /// The keys, sorted; of an object with a schema, those that expressions can name.
    pub fn keys(&self) -> Vec<Key> {
        match self {
            Map::Json(map, decl) => match decl.map(|decl| decl.shape()) {
                Some(DeclShape::Object { fields }) => fields
                    .iter()
                    .filter(|(_, (name, _))| map.contains_key(name))
                    .map(|(name, _)| Key::String(name.as_str().into()))
                    .collect(),
                _ => map.keys().map(|key| Key::String(key.into())).collect(),
            },
            Map::Values(map) => map.keys().cloned().collect(),
            Map::Lazy(_) => Vec::new(),
        }
    }

    fn equals(&self, other: &Map<'a>) -> bool {
        if let (Map::Json(a, None), Map::Json(b, None)) = (self, other)
            && std::ptr::eq(*a, *b)
        {
            return true;
        }
        let keys = self.keys();
        keys.len() == other.keys().len()
            && keys.iter().all(|key| match (self.get(key), other.get(key)) {
                (Some(Ok(a)), Some(Ok(b))) => a.equals(&b),
                _ => false,
            })
    }
}

impl Key {
    pub(crate) fn of(value: &Value<'_>) -> Option<Key> {
        Some(match value {
            Value::Bool(b) => Key::Bool(*b),
            Value::Int(n) => Key::Int(*n),
            Value::Uint(n) => Key::Uint(*n),
            Value::Double(f) if f.fract() == 0.0 && f.abs() < 9.2e18 => Key::Int(*f as i64),
            Value::String(text) => Key::String((**text).into()),
            _ => return None,
        })
    }

    pub(crate) fn value<'a>(&self) -> Value<'a> {
        match self {
            Key::Bool(b) => Value::Bool(*b),
            Key::Int(n) => Value::Int(*n),
            Key::Uint(n) => Value::Uint(*n),
            Key::String(text) => Value::string(text.clone()),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Key::Bool(b) => write!(f, "{b}"),
            Key::Int(n) => write!(f, "{n}"),
            Key::Uint(n) => write!(f, "{n}"),
            Key::String(text) => f.write_str(text),
        }
    }
}
