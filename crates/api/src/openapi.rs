//! OpenAPI documents, written from the tables when they are asked for: v3 for each group version, v2 for all together.
//!
//! They say what kubectl needs for `explain`, validation and patches: schemas with list types, merge keys and defaults, and
//! for each path the operations, their kinds, parameters and the content types of a PATCH. Upstream: /openapi/v3, /openapi/v2.

mod custom;
mod descriptions;
mod paths;
mod schemas;
mod v2;

pub use custom::{Custom, OBJECT_META, type_meta, v3_with};
pub use v2::{Form, v2, v2_with};

use serde_json::{Value as Json, json};

use crate::kinds;

/// Where a group version lies: `api/v1`, `apis/apps/v1`. Also its key in the index of documents.
pub fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("api/{version}") } else { format!("apis/{group}/{version}") }
}

/// The document of a built-in group version as JSON; `None` if there is no such version. `server_version` is the `gitVersion`.
pub fn v3(group: &str, version: &str, server_version: &str) -> Option<Vec<u8>> {
    let found = kinds::groups().iter().find(|known| known.name == group)?;
    let found = found.versions.iter().find(|known| known.name == version)?;
    let mut out = Document::start(server_version);
    let mut schemas = schemas::Collector::new(vec![(group, found)]);
    for (path, item) in paths::of(group, version) {
        schemas.note_references(&item);
        out.member(&path, &item);
    }
    out.next_section(r#"},"components":{"schemas":{"#);
    let descriptions = descriptions::Descriptions::unpack();
    schemas.each(&descriptions, |name, schema| out.member(name, &schema));
    Some(out.finish())
}

/// JSON written member by member, so that no document is ever held as a tree.
struct Document {
    out: Vec<u8>,
    first: bool,
}

impl Document {
    fn start(server_version: &str) -> Document {
        let info = json!({"title": "Kubernetes", "version": server_version});
        let out = format!(r#"{{"openapi":"3.0.0","info":{info},"paths":{{"#).into_bytes();
        Document { out, first: true }
    }

    fn next_section(&mut self, between: &str) {
        self.out.extend_from_slice(between.as_bytes());
        self.first = true;
    }

    fn member(&mut self, name: &str, value: &Json) {
        if !self.first {
            self.out.push(b',');
        }
        self.first = false;
        self.out.extend_from_slice(format!("{}:{value}", Json::from(name)).as_bytes());
    }

    fn finish(mut self) -> Vec<u8> {
        let security = security();
        self.out.extend_from_slice(format!(r#"}},"securitySchemes":{security}}}}}"#).as_bytes());
        self.out
    }
}

/// How clients say who they are.
fn security() -> Json {
    json!({"BearerToken": {
        "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication"
    }})
}

/// A reference to a type's schema.
fn reference(name: &str) -> Json {
    json!({ "$ref": format!("{REFERENCE}{name}") })
}

const REFERENCE: &str = "#/components/schemas/";
