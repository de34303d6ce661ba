//! `Decl`: a type together with what a schema says about the JSON under it: formats, limits, list types. It gives JSON its CEL
//! form and cost estimates their sizes. Upstream: `apiservercel.DeclType`.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Value as Json;
use apimachinery::schema::{ListType, Shape, Type as SchemaType};

use crate::parser::RESERVED;
use crate::types::{ObjectType, Type};

/// A schema as expressions see it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Decl(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ty: Type,
    shape: DeclShape,
    /// The most characters, bytes, items or members; `None` without a limit.
    max: Option<u64>,
    /// The smallest size in JSON, which bounds how often a value fits into a request.
    min_json: u64,
}

#[derive(Debug)]
pub(crate) enum DeclShape {
    Plain,
    Time,
    Duration,
    Bytes,
    List {
        item: Decl,
        kind: ListKind,
    },
    Map {
        value: Decl,
    },
    /// By escaped name: the JSON name, and what is under it.
    Object {
        fields: BTreeMap<String, (String, Decl)>,
    },
}

/// How lists compare and add up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListKind {
    Atomic,
    Set,
    Map(Vec<String>),
}

/// The most that fits into one request. Upstream: `celconfig.MaxRequestSizeBytes`.
const MAX_REQUEST: u64 = 3 * 1024 * 1024;
/// `"2006-01-02T15:04:05.000000000+00:00"`, the longest text of a time, and other sizes in JSON.
const DATE_TIME_JSON: u64 = 20 + 2;
const DATE_JSON: u64 = 10 + 2;
const DURATION_JSON: u64 = 32;
const MIN_DURATION: u64 = 3;

impl Decl {
    fn of(ty: Type, shape: DeclShape, max: Option<u64>, min_json: u64) -> Decl {
        Decl(Arc::new(Inner { ty, shape, max, min_json }))
    }

    fn plain(ty: Type, min_json: u64) -> Decl {
        Decl::of(ty, DeclShape::Plain, None, min_json)
    }

    /// Anything, as JSON says it.
    pub fn any() -> Decl {
        Decl::plain(Type::Dyn, 1)
    }

    /// Anything, of at most `max` characters, items or members.
    pub fn any_of(max: u64) -> Decl {
        Decl::of(Type::Dyn, DeclShape::Plain, Some(max), 1)
    }

    pub fn ty(&self) -> &Type {
        &self.0.ty
    }

    pub(crate) fn shape(&self) -> &DeclShape {
        &self.0.shape
    }

    /// The most characters, bytes, items or members that the schema, or the size of requests, allows.
    pub fn max_size(&self) -> Option<u64> {
        self.0.max
    }

    pub fn field(&self, escaped: &str) -> Option<&Decl> {
        self.json_field(escaped).map(|(_, decl)| decl)
    }

    /// The JSON name of a field, and what is under it.
    pub(crate) fn json_field(&self, escaped: &str) -> Option<(&str, &Decl)> {
        match self.shape() {
            DeclShape::Object { fields } => fields.get(escaped).map(|(name, decl)| (name.as_str(), decl)),
            _ => None,
        }
    }

    /// The items of a list.
    pub fn item(&self) -> Option<&Decl> {
        if let DeclShape::List { item, .. } = self.shape() { Some(item) } else { None }
    }

    /// The values of a map.
    pub fn values(&self) -> Option<&Decl> {
        if let DeclShape::Map { value } = self.shape() { Some(value) } else { None }
    }

    /// The declaration under a path of field names, `@items`, `@values` and `@keys`.
    pub(crate) fn walk(&self, path: &[String]) -> Option<Decl> {
        let Some((step, rest)) = path.split_first() else { return Some(self.clone()) };
        match (step.as_str(), self.shape()) {
            ("@items" | "*", DeclShape::List { item, .. }) => item.walk(rest),
            ("@values" | "*", DeclShape::Map { value }) => value.walk(rest),
            ("@keys", DeclShape::Map { .. }) => {
                Decl::of(Type::String, DeclShape::Plain, Some(MAX_REQUEST), 2).walk(rest)
            }
            (_, DeclShape::Map { value }) => value.walk(rest),
            (name, DeclShape::Object { .. }) => self.field(name)?.walk(rest),
            _ => None,
        }
    }

    /// From a structural OpenAPI v3 schema (of a CustomResourceDefinition) in JSON. `name` names the object types made of it. `resource` says that it
    /// is a whole object, or is embedded as one: such have `apiVersion`, `kind` and `metadata`. `None` where an expression could not know
    /// what is there (no type, preserved unknown fields). Upstream: `SchemaDeclType`.
    pub fn from_structural(schema: &Json, name: &str, resource: bool) -> Option<Decl> {
        let flag = |key: &str| schema.get(key).and_then(Json::as_bool).unwrap_or(false);
        let limit = |key: &str| schema.get(key).and_then(Json::as_i64).and_then(|n| u64::try_from(n).ok());
        if flag("x-kubernetes-int-or-string") {
            // Either an int or a string: compared as what it is.
            return Some(Decl::of(Type::Dyn, DeclShape::Plain, Some(MAX_REQUEST - 2), 1));
        }
        let resource = resource || flag("x-kubernetes-embedded-resource");
        match schema.str_at(&["type"]).unwrap_or("") {
            "array" => {
                let item = Decl::from_structural(schema.get("items")?, &format!("{name}.@items"), false)?;
                let max = limit("maxItems").unwrap_or_else(|| fitting(item.0.min_json));
                let kind = match schema.str_at(&["x-kubernetes-list-type"]) {
                    Some("set") => ListKind::Set,
                    Some("map") => ListKind::Map(
                        schema
                            .items_at(&["x-kubernetes-list-map-keys"])
                            .iter()
                            .filter_map(Json::as_str)
                            .map(str::to_owned)
                            .collect(),
                    ),
                    _ => ListKind::Atomic,
                };
                Some(Decl::list(item, kind, Some(max)))
            }
            "object" => {
                if let Some(values) =
                    schema.get("additionalProperties").filter(|values| values.as_bool() != Some(false))
                    && values.as_object().is_some()
                {
                    let value = Decl::from_structural(values, &format!("{name}.@values"), resource)?;
                    let max = limit("maxProperties").unwrap_or_else(|| fitting_members(value.0.min_json));
                    return Some(Decl::map(value, Some(max)));
                }
                let mut fields = BTreeMap::new();
                let required: Vec<&str> = schema.items_at(&["required"]).iter().filter_map(Json::as_str).collect();
                let mut min_json = 2;
                for (key, property) in
                    schema.get("properties").and_then(Json::as_object).into_iter().flat_map(|map| map.iter())
                {
                    let Some(escaped) = escape(key) else { continue };
                    let Some(decl) = Decl::from_structural(property, &format!("{name}.{key}"), false) else { continue };
                    if required.contains(&key) && property.get("default").is_none() {
                        min_json += decl.0.min_json + key.len() as u64 + 4;
                    }
                    fields.insert(escaped, (key.to_owned(), decl));
                }
                if resource {
                    for key in ["apiVersion", "kind"] {
                        fields.insert(key.to_owned(), (key.to_owned(), Decl::string(None)));
                    }
                    let names = ["name", "generateName"].map(|key| (key, Decl::string(None)));
                    fields.insert(
                        "metadata".to_owned(),
                        ("metadata".to_owned(), Decl::object(&format!("{name}.metadata"), names)),
                    );
                }
                Some(Decl::with_fields(name, fields, min_json))
            }
            "string" => Some(match schema.str_at(&["format"]).unwrap_or("") {
                "byte" => {
                    let max = limit("maxLength").unwrap_or(MAX_REQUEST - 2);
                    Decl::of(Type::Bytes, DeclShape::Bytes, Some(max), 2)
                }
                "duration" => Decl::of(Type::Duration, DeclShape::Duration, Some(DURATION_JSON), MIN_DURATION),
                "date" => Decl::of(Type::Timestamp, DeclShape::Time, Some(DATE_JSON - 2), DATE_JSON),
                "date-time" => Decl::of(Type::Timestamp, DeclShape::Time, Some(DATE_TIME_JSON), DATE_TIME_JSON),
                _ => {
                    let values = schema.items_at(&["enum"]);
                    let longest = values.iter().filter_map(Json::as_str).map(|text| text.chars().count() as u64).max();
                    // A character takes up to four bytes, so that many may come in one request.
                    let max = limit("maxLength").map(|max| max * 4).or(longest).unwrap_or(MAX_REQUEST - 2);
                    Decl::of(Type::String, DeclShape::Plain, Some(max), 2)
                }
            }),
            "boolean" => Some(Decl::plain(Type::Bool, 4)),
            "number" => Some(Decl::plain(Type::Double, 1)),
            "integer" => Some(Decl::plain(Type::Int, 1)),
            _ => None,
        }
    }

    /// From a compiled schema of `apimachinery`. Recursive types become dynamic where they recur.
    pub fn from_schema(ty: SchemaType<'_>) -> Decl {
        Decl::compiled(ty, &mut Vec::new())
    }

    fn compiled(ty: SchemaType<'_>, way: &mut Vec<u32>) -> Decl {
        if way.contains(&ty.id().0) {
            return Decl::any();
        }
        way.push(ty.id().0);
        let decl = match ty.shape() {
            Shape::Object { preserve_unknown, .. } => {
                if *preserve_unknown && ty.fields().is_empty() {
                    Decl::any()
                } else {
                    let fields = ty.fields().iter().filter_map(|field| {
                        let decl = Decl::compiled(ty.of(field), way);
                        Some((escape(&field.name)?, (field.name.to_string(), decl)))
                    });
                    let fields = fields.collect();
                    Decl::with_fields(ty.name(), fields, 2)
                }
            }
            Shape::Map { .. } => {
                Decl::map(ty.values().map_or_else(Decl::any, |values| Decl::compiled(values, way)), None)
            }
            Shape::Array { list, keys, .. } => {
                let item = ty.item().map_or_else(Decl::any, |item| Decl::compiled(item, way));
                let kind = match list {
                    ListType::Atomic => ListKind::Atomic,
                    ListType::Set => ListKind::Set,
                    ListType::Map => ListKind::Map(keys.iter().map(ToString::to_string).collect()),
                };
                Decl::list(item, kind, None)
            }
            Shape::String { .. } => Decl::string(None),
            Shape::Bytes => Decl::of(Type::Bytes, DeclShape::Bytes, None, 2),
            Shape::Integer { .. } => Decl::plain(Type::Int, 1),
            Shape::Number => Decl::plain(Type::Double, 1),
            Shape::Boolean => Decl::plain(Type::Bool, 4),
            Shape::IntOrString => Decl::plain(Type::Dyn, 1),
            Shape::Quantity => Decl::string(None),
            Shape::Time | Shape::MicroTime => Decl::of(Type::Timestamp, DeclShape::Time, None, DATE_TIME_JSON),
            Shape::Raw => Decl::any(),
        };
        way.pop();
        decl
    }

    pub fn string(max: Option<u64>) -> Decl {
        Decl::of(Type::String, DeclShape::Plain, max.or(Some(MAX_REQUEST - 2)), 2)
    }

    /// A plain declaration of a scalar type, or of anything the type says alone.
    pub fn scalar(ty: Type) -> Decl {
        Decl::plain(ty, 1)
    }

    pub(crate) fn list(item: Decl, kind: ListKind, max: Option<u64>) -> Decl {
        let ty = Type::list(item.ty().clone());
        Decl::of(ty, DeclShape::List { item, kind }, max, 2)
    }

    /// A list of items, at most `max` of them.
    pub fn list_of(item: Decl, max: Option<u64>) -> Decl {
        Decl::list(item, ListKind::Atomic, max)
    }

    /// A map with strings for keys.
    pub fn map(value: Decl, max: Option<u64>) -> Decl {
        let ty = Type::map(Type::String, value.ty().clone());
        Decl::of(ty, DeclShape::Map { value }, max, 2)
    }

    /// An object of fields by their JSON names, which expressions write as they are.
    pub fn object<'a>(name: &str, fields: impl IntoIterator<Item = (&'a str, Decl)>) -> Decl {
        let fields = fields.into_iter().map(|(key, decl)| (key.to_owned(), (key.to_owned(), decl))).collect();
        Decl::with_fields(name, fields, 2)
    }

    fn with_fields(name: &str, fields: BTreeMap<String, (String, Decl)>, min_json: u64) -> Decl {
        let types = fields.iter().map(|(name, (_, decl))| (name.clone(), decl.ty().clone())).collect();
        let ty = Type::Object(Arc::new(ObjectType { name: name.to_owned(), fields: types }));
        let max = fields.len() as u64;
        Decl::of(ty, DeclShape::Object { fields }, Some(max), min_json)
    }
}

/// How many items of this smallest size one request holds, with a comma each. Upstream: `estimateMaxArrayItemsFromMinSize`.
fn fitting(min_json: u64) -> u64 {
    (MAX_REQUEST - 2) / (min_json + 1)
}

/// How many members with values of this smallest size one request holds: `"":` and a comma more each.
fn fitting_members(min_json: u64) -> u64 {
    (MAX_REQUEST - 2) / (min_json + 6)
}

/// Words of the grammar, and those that it keeps for itself.
fn is_reserved(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in") || RESERVED.contains(&name)
}

/// A property's name as expressions write it (`foo.bar` is `foo__dot__bar`); `None` if they cannot.
pub fn escape(name: &str) -> Option<String> {
    if is_reserved(name) {
        return Some(format!("__{name}__"));
    }
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (text, used) = match c {
            '_' if rest.starts_with("__") => ("__underscores__", 2),
            '.' => ("__dot__", 1),
            '-' => ("__dash__", 1),
            '/' => ("__slash__", 1),
            'a'..='z' | 'A'..='Z' | '_' => (&rest[..1], 1),
            '0'..='9' if !out.is_empty() => (&rest[..1], 1),
            _ => return None,
        };
        out.push_str(text);
        rest = &rest[used..];
    }
    (!out.is_empty()).then_some(out)
}

/// The property that an expression's name means; `None` if it is no escaped name.
pub fn unescape(escaped: &str) -> Option<String> {
    if let Some(word) = escaped.strip_prefix("__").and_then(|rest| rest.strip_suffix("__"))
        && is_reserved(word)
    {
        return Some(word.to_owned());
    }
    let mut out = String::with_capacity(escaped.len());
    let mut rest = escaped;
    while let Some(c) = rest.chars().next() {
        let known = [("__underscores__", "__"), ("__dot__", "."), ("__dash__", "-"), ("__slash__", "/")];
        match known.iter().find(|(from, _)| rest.starts_with(from)) {
            Some((from, to)) => {
                out.push_str(to);
                rest = &rest[from.len()..];
            }
            None if rest.starts_with("__") => return None,
            None => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
    }
    Some(out)
}

/// Whether a name may be a variable of an expression.
pub fn is_identifier(name: &str) -> bool {
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    begins && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !is_reserved(name)
}
