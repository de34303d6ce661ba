//! Types as OpenAPI schemas.

use std::collections::{BTreeSet, HashMap};

use apimachinery::schema::{Field, ListType, PatchStrategy, Presence, Shape, Type};
use serde_json::{Map, Value as Json, json};

use super::descriptions::Descriptions;
use super::{REFERENCE, reference};
use crate::kinds::{self, Version};
use crate::tables;

/// Collects the types that a document refers to.
pub(super) struct Collector<'d> {
    /// The groups and versions whose kinds are told.
    versions: Vec<(&'d str, &'d Version)>,
    wanted: BTreeSet<&'static str>,
}

impl<'d> Collector<'d> {
    pub(super) fn new(versions: Vec<(&'d str, &'d Version)>) -> Collector<'d> {
        Collector { versions, wanted: BTreeSet::new() }
    }

    /// Notes every type that `json` refers to.
    pub(super) fn note_references(&mut self, json: &Json) {
        match json {
            Json::Object(map) => {
                if let Some(Json::String(target)) = map.get("$ref")
                    && let Some((name, ty)) = target.strip_prefix(REFERENCE).and_then(known)
                {
                    self.reach(name, ty);
                }
                map.values().for_each(|value| self.note_references(value));
            }
            Json::Array(items) => items.iter().for_each(|item| self.note_references(item)),
            _ => {}
        }
    }

    fn reach(&mut self, name: &'static str, ty: Type<'static>) {
        if self.wanted.insert(name) {
            for field in ty.fields() {
                self.reach_value(ty.of(field));
            }
        }
    }

    fn reach_value(&mut self, ty: Type<'static>) {
        match (ty.item().or(ty.values()), is_component(ty)) {
            (Some(inner), _) => self.reach_value(inner),
            (None, true) => {
                if let Some((name, ty)) = known(ty.name()) {
                    self.reach(name, ty);
                }
            }
            (None, false) => {}
        }
    }

    /// Every collected schema by name.
    pub(super) fn each(self, descriptions: &Descriptions, mut take: impl FnMut(&str, Json)) {
        for name in &self.wanted {
            if let Some((_, ty)) = known(name) {
                take(name, self.component(name, ty, descriptions));
            }
        }
    }

    fn component(&self, name: &str, ty: Type<'static>, descriptions: &Descriptions) -> Json {
        let described = descriptions.of(name);
        let mut schema = match ty.shape() {
            Shape::Object { .. } => object(ty, &described),
            Shape::Quantity => json!({"oneOf": [{"type": "string"}, {"type": "number"}]}),
            Shape::IntOrString => {
                json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
            }
            Shape::Time | Shape::MicroTime => json!({"type": "string", "format": "date-time"}),
            _ => json!({"type": "object"}),
        };
        if let Some(text) = described.get("") {
            schema["description"] = json!(text);
        }
        let kind = name.rsplit('.').next().unwrap_or_default();
        let is_kind = ty.field("apiVersion").is_some() && ty.field("kind").is_some();
        if (is_kind || kind == "WatchEvent") && !is_reference(ty) {
            let serves = |(group, version): &&(&str, &Version)| {
                kinds::type_of(group, version.name, kind).is_some_and(|served| served.id() == ty.id())
            };
            let served = self.versions.iter().filter(serves);
            let served: Vec<Json> =
                served.map(|(group, version)| json!({"group": group, "kind": kind, "version": version.name})).collect();
            if !served.is_empty() {
                schema["x-kubernetes-group-version-kind"] = Json::Array(served);
            }
        }
        schema
    }
}

/// ObjectReference and its like have these fields too, but are no kinds.
fn is_reference(ty: Type<'static>) -> bool {
    ty.field("kind").is_some_and(|field| field.required)
        || (ty.field("name").is_some() && ty.field("metadata").is_none())
}

fn known(name: &str) -> Option<(&'static str, Type<'static>)> {
    let ty = tables::type_named(name)?;
    Some((ty.name(), ty))
}

/// The type has a schema of its own, which others refer to.
fn is_component(ty: Type<'static>) -> bool {
    let has_schema = matches!(
        ty.shape(),
        Shape::Object { .. } | Shape::Quantity | Shape::IntOrString | Shape::Time | Shape::MicroTime | Shape::Raw
    );
    has_schema && !ty.name().is_empty()
}

fn object(ty: Type<'static>, described: &HashMap<&str, String>) -> Json {
    let mut properties = Map::new();
    for field in ty.fields() {
        let description = described.get(&*field.name).map(String::as_str);
        properties.insert(field.name.to_string(), property(ty, field, description));
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), json!("object"));
    let required: Vec<&str> = ty.fields().iter().filter(|field| field.required).map(|field| &*field.name).collect();
    if !required.is_empty() {
        schema.insert("required".to_owned(), json!(required));
    }
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), Json::Object(properties));
    }
    if ty.is_atomic() {
        schema.insert("x-kubernetes-map-type".to_owned(), json!("atomic"));
    }
    Json::Object(schema)
}

fn property(owner: Type<'static>, field: &Field, description: Option<&str>) -> Json {
    let ty = owner.of(field);
    let mut extra = Map::new();
    extra.extend(description.map(|text| ("description".to_owned(), json!(text))));
    match &field.default {
        Some(default) => {
            let default = serde_json::from_str(default).unwrap_or(Json::Null);
            extra.insert("default".to_owned(), default);
        }
        None if matches!(field.presence, Presence::Always | Presence::NonZero) => {
            extra.extend(zero_default(ty).map(|zero| ("default".to_owned(), zero)));
        }
        None => {}
    }
    if let Some(key) = &field.patch_merge_key {
        extra.insert("x-kubernetes-patch-merge-key".to_owned(), json!(key));
    }
    let strategy = match field.patch {
        PatchStrategy::Default => None,
        PatchStrategy::Merge => Some("merge"),
        PatchStrategy::Replace => Some("replace"),
        PatchStrategy::RetainKeys => Some("retainKeys"),
        PatchStrategy::MergeRetainKeys => Some("merge,retainKeys"),
    };
    extra.extend(strategy.map(|strategy| ("x-kubernetes-patch-strategy".to_owned(), json!(strategy))));
    with(value(ty), extra)
}

/// The defaults that upstream's documents show for what is never absent.
fn zero_default(ty: Type<'static>) -> Option<Json> {
    match ty.shape() {
        Shape::Object { .. } => Some(json!({})),
        Shape::String { .. } => Some(json!("")),
        Shape::Integer { .. } => Some(json!(0)),
        Shape::Boolean => Some(json!(false)),
        _ => None,
    }
}

/// Adds members; nothing may stand beside a reference, so that one is wrapped.
fn with(schema: Json, extra: Map<String, Json>) -> Json {
    let mut schema = match schema {
        Json::Object(map) if extra.is_empty() => return Json::Object(map),
        Json::Object(map) if map.contains_key("$ref") => Map::from_iter([("allOf".to_owned(), json!([map]))]),
        Json::Object(map) => map,
        other => return other,
    };
    schema.extend(extra);
    Json::Object(schema)
}

fn value(ty: Type<'static>) -> Json {
    if is_component(ty) {
        return reference(ty.name());
    }
    match ty.shape() {
        Shape::String { values } if values.is_empty() => json!({"type": "string"}),
        Shape::String { values } => json!({"type": "string", "enum": values}),
        Shape::Bytes => json!({"type": "string", "format": "byte"}),
        Shape::Integer { bits } => json!({"type": "integer", "format": format!("int{bits}")}),
        Shape::Number => json!({"type": "number", "format": "double"}),
        Shape::Boolean => json!({"type": "boolean"}),
        Shape::Map { value: ty_of_values, atomic } => {
            let mut schema = json!({"type": "object", "additionalProperties": element(ty.schema().at(*ty_of_values))});
            if *atomic {
                schema["x-kubernetes-map-type"] = json!("atomic");
            }
            schema
        }
        Shape::Array { item, list, keys } => {
            let mut schema = json!({"type": "array", "items": element(ty.schema().at(*item))});
            if !keys.is_empty() {
                schema["x-kubernetes-list-map-keys"] = json!(keys);
            }
            schema["x-kubernetes-list-type"] = json!(match list {
                ListType::Atomic => "atomic",
                ListType::Set => "set",
                ListType::Map => "map",
            });
            schema
        }
        _ => json!({"type": "object"}),
    }
}

/// An item of a list or map: what is not a pointer has its zero value as default.
fn element(ty: Type<'static>) -> Json {
    let extra = zero_default(ty).map(|zero| ("default".to_owned(), zero));
    with(value(ty), extra.into_iter().collect())
}
