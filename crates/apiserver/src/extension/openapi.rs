//! Schemas of definitions as OpenAPI documents show them. Upstream: apiextensions pkg/controller/openapi/builder.

use api::openapi::Custom as Shown;
use serde_json::{Map, Value as Json, json};

use crate::registry::{Custom, Registry};

use super::DEFINITIONS;

/// What is published of a group version (of all where none is named). `v2` knows less than v3.
pub(crate) fn published(registry: &Registry, only: Option<(&str, &str)>, v2: bool) -> Vec<Shown> {
    let customs = registry.customs();
    let mut shown = Vec::new();
    for custom in customs.all() {
        for resource in &custom.resources {
            let kind = resource.kind;
            if only.is_none_or(|(group, version)| kind.group == group && kind.version == version) {
                shown.push(Shown { kind, schema: schema(registry, custom, kind.version, v2) });
            }
        }
    }
    shown.sort_by_key(|shown| (shown.kind.group, shown.kind.version, shown.kind.resource));
    shown
}

/// The schema as its author wrote it, read from the stored definition: nothing of it is kept in memory.
fn schema(registry: &Registry, custom: &Custom, version: &str, v2: bool) -> Json {
    let definitions = registry.storage(DEFINITIONS.0, DEFINITIONS.1);
    let object = definitions.and_then(|storage| storage.cache.get(&custom.definition.name));
    let body: Json = object.and_then(|object| serde_json::from_slice(object.body()).ok()).unwrap_or_default();
    let versions = body["spec"]["versions"].as_array().cloned().unwrap_or_default();
    let found = versions.into_iter().find(|known| known["name"] == version).unwrap_or_default();
    let mut raw = found["schema"]["openAPIV3Schema"].clone();
    let fields: Vec<&Json> = found["selectableFields"].as_array().into_iter().flatten().collect();
    if !raw.is_object() || v2 && raw["x-kubernetes-preserve-unknown-fields"] == true {
        raw = json!({ "type": "object" });
    } else {
        if v2 {
            simplify(&mut raw);
        }
        clean(&mut raw);
        raw["properties"]["metadata"] = json!({
            "allOf": [{ "$ref": api::openapi::OBJECT_META }],
            "description": "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata",
        });
        for (name, description) in api::openapi::type_meta() {
            raw["properties"][name] = json!({ "type": "string", "description": description });
        }
        embed(&mut raw, v2);
    }
    let kind = &custom.definition.kind;
    raw["x-kubernetes-group-version-kind"] =
        json!([{ "group": custom.definition.group, "kind": kind, "version": version }]);
    if !v2 && !fields.is_empty() {
        let path = |field: &&Json| json!({ "fieldPath": field["jsonPath"].as_str().unwrap_or_default().trim_start_matches('.') });
        raw["x-kubernetes-selectable-fields"] = fields.iter().map(path).collect();
    }
    raw
}

/// Calls `visit` with the schemas that are right below this one.
fn children(schema: &mut Json, mut visit: impl FnMut(&mut Json)) {
    let Some(map) = schema.as_object_mut() else { return };
    for (name, member) in map.iter_mut() {
        match (name.as_str(), member) {
            ("properties", Json::Object(properties)) => properties.values_mut().for_each(&mut visit),
            ("items" | "additionalProperties" | "not", member @ Json::Object(_)) => visit(member),
            ("allOf" | "anyOf" | "oneOf", Json::Array(parts)) => parts.iter_mut().for_each(&mut visit),
            _ => {}
        }
    }
}

/// Leaves out what documents don't say.
fn clean(schema: &mut Json) {
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
        map.remove("example");
        map.remove("externalDocs");
        // What is there or isn't in combinations is not told by a type.
        if map.get("x-kubernetes-int-or-string") == Some(&Json::Bool(true)) {
            map.remove("type");
        }
    }
    children(schema, clean);
}

/// What v2 can't say goes. Upstream: ToStructuralOpenAPIV2.
fn simplify(schema: &mut Json) {
    children(schema, simplify);
    let Some(map) = schema.as_object_mut() else { return };
    for key in ["allOf", "anyOf", "oneOf", "not", "x-kubernetes-validations"] {
        map.remove(key);
    }
    let nullable = |schema: &Json| schema["x-was-nullable"] == true;
    if let Some(Json::Object(properties)) = map.get_mut("properties") {
        let optional: Vec<String> =
            properties.iter().filter(|(_, property)| nullable(property)).map(|(name, _)| name.clone()).collect();
        properties
            .values_mut()
            .filter_map(Json::as_object_mut)
            .for_each(|property| drop(property.remove("x-was-nullable")));
        if let Some(Json::Array(required)) = map.get_mut("required") {
            required.retain(|name| !optional.iter().any(|optional| name == optional));
            if required.is_empty() {
                map.remove("required");
            }
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(Json::Object(inner)) = map.get_mut(key) {
            inner.remove("x-was-nullable");
        }
    }
    let preserves = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Json::Bool(true));
    if map.remove("nullable") == Some(Json::Bool(true)) {
        for key in ["type", "items", "properties"] {
            map.remove(key);
        }
        map.insert("x-was-nullable".to_owned(), json!(true));
    }
    if preserves {
        map.remove("items");
        map.remove("properties");
        if map.get("type") == Some(&json!("object")) {
            map.remove("type");
        }
    }
    if map.get("type") == Some(&json!("array")) && !map.contains_key("items") {
        map.remove("type");
    }
}

/// Objects within the object have metadata too.
fn embed(schema: &mut Json, v2: bool) {
    children(schema, |inner| embed(inner, v2));
    let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["x-kubernetes-embedded-resource"] != true || v2 && preserves {
        return;
    }
    let Some(map) = schema.as_object_mut() else { return };
    let properties = map.entry("properties").or_insert_with(|| Json::Object(Map::new()));
    for name in ["apiVersion", "kind"] {
        properties[name] = json!({ "type": "string" });
    }
    properties["metadata"] = json!({ "allOf": [{ "$ref": api::openapi::OBJECT_META }] });
    let required = map.entry("required").or_insert_with(|| json!([]));
    if let Some(required) = required.as_array_mut() {
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(json!(name));
            }
        }
    }
}
