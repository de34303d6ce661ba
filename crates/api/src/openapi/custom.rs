//! Documents of kinds that are not built in: their schemas are the caller's.

use serde_json::{Value as Json, json};

use super::{Document, REFERENCE, descriptions, paths, reference, schemas};
use crate::kind::Kind;

/// Where the schema of `metadata` lies in a document.
pub const OBJECT_META: &str = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// A kind and the schema of its objects, with references in their v3 form.
pub struct Custom {
    /// Its `type_name` names the schema.
    pub kind: &'static Kind,
    pub schema: Json,
}

/// `apiVersion` and `kind`, and what they are for.
pub fn type_meta() -> Vec<(&'static str, String)> {
    let descriptions = descriptions::Descriptions::unpack();
    let described = descriptions.of("io.k8s.api.core.v1.ConfigMap");
    ["apiVersion", "kind"].map(|name| (name, described.get(name).cloned().unwrap_or_default())).into()
}

/// The document of a group version whose kinds are these. `group` has no built-in kinds.
pub fn v3_with(group: &str, version: &str, customs: &[Custom], server_version: &str) -> Vec<u8> {
    let mut out = Document::start(server_version);
    let mut collector = schemas::Collector::new(Vec::new());
    let kinds: Vec<&Kind> = customs.iter().map(|custom| custom.kind).collect();
    for (path, mut item) in paths::of_kinds(group, version, &kinds) {
        strip(&mut item);
        collector.note_references(&item);
        out.member(&path, &item);
    }
    out.next_section(r#"},"components":{"schemas":{"#);
    for (name, schema) in schemas_of(customs) {
        collector.note_references(&schema);
        out.member(&name, &schema);
    }
    let descriptions = descriptions::Descriptions::unpack();
    collector.each(&descriptions, |name, schema| out.member(name, &schema));
    out.finish()
}

/// The schemas of the kinds and of their lists by name.
pub(super) fn schemas_of(customs: &[Custom]) -> Vec<(String, Json)> {
    let mut all = Vec::new();
    let meta = type_meta();
    for Custom { kind, schema } in customs {
        all.push((kind.type_name.to_owned(), schema.clone()));
        let mut list = json!({
            "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
            "type": "object",
            "required": ["items"],
            "properties": {
                "items": {
                    "type": "array",
                    "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.resource),
                    "items": reference(kind.type_name),
                },
                "metadata": {
                    "allOf": [{ "$ref": format!("{REFERENCE}{LIST_META}") }],
                    "description": "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds",
                },
            },
            "x-kubernetes-group-version-kind": [{ "group": kind.group, "kind": kind.list_kind, "version": kind.version }],
        });
        for (name, description) in &meta {
            list["properties"][name] = json!({ "type": "string", "description": description });
        }
        all.push((format!("{}List", kind.type_name), list));
    }
    all
}

/// Takes out the media types that such kinds are not sent in.
pub(super) fn strip(item: &mut Json) {
    match item {
        Json::Object(map) => {
            map.shift_remove("application/vnd.kubernetes.protobuf");
            map.shift_remove("application/strategic-merge-patch+json");
            map.values_mut().for_each(strip);
        }
        Json::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}
