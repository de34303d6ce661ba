//! The OpenAPI v2 document: every group version in one, as JSON or as the protobuf message that kubectl asks for.
//!
//! Paths and schemas are made in their v3 form and rewritten one by one, so no tree of the whole document is ever held.

mod message;

use serde_json::{Map, Value as Json, json};

use super::custom::{self, Custom};
use super::{REFERENCE, descriptions, paths, schemas, security};
use crate::kind::Kind;
use crate::kinds;

/// How a document is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// gnostic's `openapi.v2.Document`.
    Protobuf,
}

/// The document of all built-in group versions. `server_version` is the `gitVersion`.
pub fn v2(form: Form, server_version: &str) -> Vec<u8> {
    v2_with(form, server_version, &[])
}

/// Like [`v2`], with kinds that are not built in.
pub fn v2_with(form: Form, server_version: &str, customs: &[Custom]) -> Vec<u8> {
    let versions: Vec<_> =
        kinds::groups().iter().flat_map(|group| group.versions.iter().map(|version| (group.name, version))).collect();
    let mut out = match form {
        Form::Json => Writer::Json { out: Vec::new(), first: true },
        Form::Protobuf => Writer::Protobuf(Vec::new()),
    };
    out.start(&json!({"title": "Kubernetes", "version": server_version}));
    let mut collector = schemas::Collector::new(versions.clone());
    for (group, version) in versions {
        for (path, item) in paths::of(group, version.name) {
            collector.note_references(&item);
            out.path(&path, &path_item(item));
        }
    }
    for kinds in customs.chunk_by(|a, b| (a.kind.group, a.kind.version) == (b.kind.group, b.kind.version)) {
        let rows: Vec<&Kind> = kinds.iter().map(|custom| custom.kind).collect();
        for (path, mut item) in paths::of_kinds(rows[0].group, rows[0].version, &rows) {
            custom::strip(&mut item);
            collector.note_references(&item);
            out.path(&path, &path_item(item));
        }
    }
    let own = custom::schemas_of(customs);
    own.iter().for_each(|(_, schema)| collector.note_references(schema));
    out.definitions();
    own.into_iter().for_each(|(name, schema)| out.definition(&name, &definition(schema)));
    let descriptions = descriptions::Descriptions::unpack();
    collector.each(&descriptions, |name, schema| out.definition(name, &definition(schema)));
    out.finish()
}

/// Where the document grows.
enum Writer {
    Json { out: Vec<u8>, first: bool },
    Protobuf(Vec<u8>),
}

impl Writer {
    fn start(&mut self, info: &Json) {
        match self {
            Writer::Json { out, .. } => {
                out.extend_from_slice(format!(r#"{{"swagger":"2.0","info":{info},"paths":{{"#).as_bytes());
            }
            Writer::Protobuf(out) => message::start(out, info),
        }
    }

    fn path(&mut self, path: &str, item: &Json) {
        match self {
            Writer::Json { .. } => self.member(path, item),
            Writer::Protobuf(out) => message::path(out, path, item),
        }
    }

    fn definitions(&mut self) {
        if let Writer::Json { out, first } = self {
            out.extend_from_slice(br#"},"definitions":{"#);
            *first = true;
        }
    }

    fn definition(&mut self, name: &str, schema: &Json) {
        match self {
            Writer::Json { .. } => self.member(name, schema),
            Writer::Protobuf(out) => message::definition(out, name, schema),
        }
    }

    fn member(&mut self, name: &str, value: &Json) {
        if let Writer::Json { out, first } = self {
            let comma = if std::mem::take(first) { "" } else { "," };
            out.extend_from_slice(format!("{comma}{}:{value}", Json::from(name)).as_bytes());
        }
    }

    fn finish(self) -> Vec<u8> {
        let (security, required) = (security(), json!([{"BearerToken": []}]));
        match self {
            Writer::Json { mut out, .. } => {
                let end = format!(r#"}},"securityDefinitions":{security},"security":{required}}}"#);
                out.extend_from_slice(end.as_bytes());
                out
            }
            Writer::Protobuf(mut out) => {
                message::finish(&mut out, &security);
                out
            }
        }
    }
}

/// A path's item: what was said of requests and answers by content type is said once, with lists of types.
fn path_item(item: Json) -> Json {
    let Json::Object(item) = item else { return item };
    let member = |(name, value): (String, Json)| match value {
        Json::Array(parameters) => (name, parameters.into_iter().map(parameter).collect()),
        Json::Object(members) => (name, operation(members)),
        other => (name, other),
    };
    Json::Object(item.into_iter().map(member).collect())
}

fn operation(mut operation: Map<String, Json>) -> Json {
    let mut parameters: Vec<Json> = Vec::new();
    let mut consumes = vec![json!("*/*")];
    if let Some(Json::Object(mut body)) = operation.shift_remove("requestBody")
        && let Some(Json::Object(content)) = body.shift_remove("content")
    {
        let mut parameter = Map::new();
        parameter.insert("in".to_owned(), json!("body"));
        parameter.insert("name".to_owned(), json!("body"));
        if let Some(required) = body.shift_remove("required") {
            parameter.insert("required".to_owned(), required);
        }
        consumes = content.keys().map(|ty| json!(ty)).collect();
        if let Some(schema) = content.into_iter().find_map(|(_, content)| content.get("schema").cloned()) {
            parameter.insert("schema".to_owned(), self::schema(schema));
        }
        parameters.push(Json::Object(parameter));
    }
    if let Some(Json::Array(others)) = operation.shift_remove("parameters") {
        parameters.extend(others.into_iter().map(parameter));
    }
    let mut produces: Vec<Json> = Vec::new();
    let mut responses = Map::new();
    for (code, response) in operation.shift_remove("responses").and_then(into_members).into_iter().flatten() {
        let Json::Object(mut response) = response else { continue };
        if let Some(Json::Object(content)) = response.shift_remove("content") {
            for ty in content.keys().filter(|ty| !produces.iter().any(|known| known == *ty)).collect::<Vec<_>>() {
                produces.push(json!(ty));
            }
            if let Some(schema) = content.into_iter().find_map(|(_, content)| content.get("schema").cloned()) {
                response.insert("schema".to_owned(), self::schema(schema));
            }
        }
        responses.insert(code, Json::Object(response));
    }
    responses.insert("401".to_owned(), json!({"description": "Unauthorized"}));
    let mut out = Map::new();
    out.insert("consumes".to_owned(), Json::Array(consumes));
    if !parameters.is_empty() {
        out.insert("parameters".to_owned(), Json::Array(parameters));
    }
    out.insert("produces".to_owned(), Json::Array(produces));
    out.insert("responses".to_owned(), Json::Object(responses));
    out.insert("schemes".to_owned(), json!(["https"]));
    out.extend(operation);
    Json::Object(out)
}

fn into_members(value: Json) -> Option<Map<String, Json>> {
    match value {
        Json::Object(members) => Some(members),
        _ => None,
    }
}

/// What a parameter's schema says is said of the parameter itself.
fn parameter(parameter: Json) -> Json {
    let Json::Object(mut parameter) = parameter else { return parameter };
    if let Some(Json::Object(schema)) = parameter.shift_remove("schema") {
        parameter.extend(schema);
    }
    Json::Object(parameter)
}

/// A named schema. A quantity or a number-or-text is a text here, as v2 knows no alternatives.
fn definition(definition: Json) -> Json {
    let mut definition = schema(definition);
    if definition.get("oneOf").is_some()
        && let Some(members) = definition.as_object_mut()
    {
        members.shift_remove("oneOf");
        members.insert("type".to_owned(), json!("string"));
    }
    definition
}

/// A schema without defaults, with references to definitions; what is said beside a reference stands beside it.
fn schema(schema: Json) -> Json {
    let Json::Object(members) = schema else { return schema };
    let mut out = Map::new();
    for (name, value) in members {
        match (name.as_str(), value) {
            ("default", _) => {}
            ("$ref", Json::String(target)) => {
                let name = target.strip_prefix(REFERENCE).unwrap_or(&target);
                out.insert("$ref".to_owned(), json!(format!("#/definitions/{name}")));
            }
            ("allOf", Json::Array(parts)) => {
                parts.into_iter().filter_map(|part| into_members(self::schema(part))).for_each(|part| out.extend(part));
            }
            ("items" | "additionalProperties", value) => {
                out.insert(name, self::schema(value));
            }
            ("properties", Json::Object(properties)) => {
                let properties = properties.into_iter().map(|(name, property)| (name, self::schema(property)));
                out.insert(name, Json::Object(properties.collect()));
            }
            (_, value) => {
                out.insert(name, value);
            }
        }
    }
    Json::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schemas_lose_what_v2_does_not_say() {
        let check = |v3: Json, v2: Json| assert_eq!(definition(v3), v2);
        check(
            json!({"type": "object", "properties": {
                "a": {"allOf": [{"$ref": "#/components/schemas/x.A"}], "default": {}, "description": "An a."},
                "b": {"type": "array", "items": {"type": "string", "default": ""}, "x-kubernetes-list-type": "set"},
            }}),
            json!({"type": "object", "properties": {
                "a": {"$ref": "#/definitions/x.A", "description": "An a."},
                "b": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
            }}),
        );
        check(
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}),
            json!({"format": "int-or-string", "type": "string"}),
        );
    }

    #[test]
    fn bodies_are_parameters() {
        let v3 = json!({"patch": {
            "requestBody": {"required": true, "content": {"a/b": {"schema": {"type": "object"}}, "c/d": {"schema": {"type": "object"}}}},
            "parameters": [{"name": "force", "in": "query", "schema": {"type": "boolean", "uniqueItems": true}}],
            "responses": {"200": {"description": "OK", "content": {"e/f": {"schema": {"$ref": "#/components/schemas/x.A"}}}}},
            "x-kubernetes-action": "patch",
        }});
        let v2 = json!({"patch": {
            "consumes": ["a/b", "c/d"],
            "parameters": [
                {"in": "body", "name": "body", "required": true, "schema": {"type": "object"}},
                {"name": "force", "in": "query", "type": "boolean", "uniqueItems": true},
            ],
            "produces": ["e/f"],
            "responses": {
                "200": {"description": "OK", "schema": {"$ref": "#/definitions/x.A"}}, "401": {"description": "Unauthorized"},
            },
            "schemes": ["https"],
            "x-kubernetes-action": "patch",
        }});
        assert_eq!(path_item(v3), v2);
    }
}
