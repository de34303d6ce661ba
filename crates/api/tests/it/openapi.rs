use std::collections::HashSet;

use serde_json::{Value as Json, json};

fn document(group: &str, version: &str) -> Json {
    serde_json::from_slice(&api::openapi::v3(group, version, "v1.35.0").unwrap()).unwrap()
}

/// Every group version's document.
fn documents() -> Vec<(&'static str, &'static str, Json)> {
    let versions =
        api::groups().iter().flat_map(|group| group.versions.iter().map(|version| (group.name, version.name)));
    versions.map(|(group, version)| (group, version, document(group, version))).collect()
}

fn references<'j>(json: &'j Json, found: &mut HashSet<&'j str>) {
    match json {
        Json::Object(map) => {
            found.extend(map.get("$ref").and_then(Json::as_str));
            map.values().for_each(|value| references(value, found));
        }
        Json::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves() {
    for (group, _, document) in documents() {
        let mut found = HashSet::new();
        references(&document, &mut found);
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{group}: {reference}");
        }
    }
    assert!(api::openapi::v3("nothing.io", "v1", "v1.35.0").is_none());
}

#[test]
fn every_kind_can_be_found_and_patched() {
    let documents = documents();
    for row in api::kinds() {
        let (_, _, document) =
            documents.iter().find(|(group, version, _)| (*group, *version) == (row.group, row.version)).unwrap();
        let schema = &document["components"]["schemas"][row.type_name];
        let gvk = json!({"group": row.group, "kind": row.kind, "version": row.version});
        assert_eq!(schema["x-kubernetes-group-version-kind"], json!([gvk]), "{}", row.type_name);
        if !row.has_verb("patch") {
            continue;
        }
        let scope = if row.namespaced { "namespaces/{namespace}/" } else { "" };
        let path = format!("/{}/{scope}{}/{{name}}", api::openapi::root(row.group, row.version), row.resource);
        let patch = &document["paths"][&path]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], gvk, "{path}");
        let content = patch["requestBody"]["content"].as_object().unwrap();
        assert!(content.contains_key("application/strategic-merge-patch+json"), "{path}");
        let parameters: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        assert!(parameters.contains(&"fieldValidation") && parameters.contains(&"dryRun"), "{path}");
    }
}

#[test]
fn schemas_say_how_patches_merge() {
    let apps = document("apps", "v1");
    let schemas = &apps["components"]["schemas"];
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    let item = json!({"allOf": [{"$ref": "#/components/schemas/io.k8s.api.core.v1.Container"}], "default": {}});
    let mut containers = containers.clone();
    assert!(containers.as_object_mut().unwrap().remove("description").is_some());
    assert_eq!(
        containers,
        json!({
            "type": "array", "items": item, "x-kubernetes-list-map-keys": ["name"], "x-kubernetes-list-type": "map",
            "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge",
        })
    );
    let strategy = &schemas["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["strategy"];
    assert_eq!(strategy["x-kubernetes-patch-strategy"], "retainKeys");
    assert_eq!(schemas["io.k8s.api.apps.v1.DeploymentSpec"]["required"], json!(["selector", "template"]));
    let protocol = &schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"];
    assert_eq!(protocol["enum"], json!(["TCP", "UDP", "SCTP"]));
    assert_eq!((&protocol["type"], &protocol["default"]), (&json!("string"), &json!("TCP")));
    let selector = &schemas["io.k8s.apimachinery.pkg.apis.meta.v1.LabelSelector"];
    assert_eq!(selector["x-kubernetes-map-type"], "atomic");
    assert!(schemas["io.k8s.api.core.v1.ObjectReference"].get("x-kubernetes-group-version-kind").is_none());
}

#[test]
fn kinds_and_fields_are_described() {
    let mut silent = Vec::new();
    for (_, _, document) in documents() {
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            // Nobody asks what a list is, and upstream leaves the words of JSON Schema to its own documentation.
            if ["List", ".JSONSchemaProps", ".ExternalDocumentation"].iter().any(|of| name.ends_with(of)) {
                continue;
            }
            if schema.get("description").is_none() {
                silent.push(name.clone());
            }
            for (field, property) in schema.get("properties").and_then(Json::as_object).into_iter().flatten() {
                if property.get("description").is_none() {
                    silent.push(format!("{name}.{field}"));
                }
            }
        }
    }
    silent.sort();
    silent.dedup();
    assert!(silent.len() < 10, "{silent:?}");
}

/// The fields of a message with their numbers; every field of the v2 document is a text, a flag or a message.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        if key & 7 == 0 {
            varint(&mut bytes);
            found.push((key >> 3, &b"\x01"[..]));
            continue;
        }
        assert_eq!(key & 7, 2);
        let len = varint(&mut bytes) as usize;
        let (value, rest) = bytes.split_at(len);
        found.push((key >> 3, value));
        bytes = rest;
    }
    found
}

fn field<'b>(bytes: &'b [u8], path: &[u64]) -> Option<&'b [u8]> {
    let Some((number, rest)) = path.split_first() else { return Some(bytes) };
    fields(bytes).into_iter().filter(|(known, _)| known == number).find_map(|(_, value)| field(value, rest))
}

#[test]
fn v2_is_one_document_of_all_kinds() {
    let document: Json = serde_json::from_slice(&api::openapi::v2(api::openapi::Form::Json, "v1.35.0")).unwrap();
    assert_eq!(document["info"], json!({"title": "Kubernetes", "version": "v1.35.0"}));
    let mut found = HashSet::new();
    references(&document, &mut found);
    assert!(found.len() > 500);
    for reference in found {
        assert!(document.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
    for row in api::kinds() {
        let known = document["definitions"][row.type_name]["x-kubernetes-group-version-kind"].as_array();
        let gvk = json!({"group": row.group, "kind": row.kind, "version": row.version});
        assert!(known.is_some_and(|known| known.contains(&gvk)), "{}", row.type_name);
    }
    let options = &document["definitions"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
    assert!(options["x-kubernetes-group-version-kind"].as_array().unwrap().len() > 15);
    let containers = &document["definitions"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["items"], json!({"$ref": "#/definitions/io.k8s.api.core.v1.Container"}));
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
}

#[test]
fn v2_as_protobuf_says_what_kubectl_reads() {
    let bytes = api::openapi::v2(api::openapi::Form::Protobuf, "v1.35.0");
    let json: Json = serde_json::from_slice(&api::openapi::v2(api::openapi::Form::Json, "v1.35.0")).unwrap();
    assert_eq!(field(&bytes, &[1]), Some(&b"2.0"[..]));
    let all = |number: u64, inner: u64| -> Vec<&[u8]> {
        let parts = fields(&bytes).into_iter().filter(|(known, _)| *known == number);
        parts.flat_map(|(_, part)| fields(part)).filter(|(known, _)| *known == inner).map(|(_, entry)| entry).collect()
    };
    let (paths, definitions) = (all(8, 2), all(9, 1));
    assert_eq!(paths.len(), json["paths"].as_object().unwrap().len());
    assert_eq!(definitions.len(), json["definitions"].as_object().unwrap().len());
    let named = |entries: &[&'_ [u8]], name: &str| -> Vec<u8> {
        let found = entries.iter().find(|entry| field(entry, &[1]) == Some(name.as_bytes()));
        field(found.unwrap(), &[2]).unwrap().to_vec()
    };
    let patch = named(&paths, "/api/v1/namespaces/{namespace}/pods/{name}");
    let patch = field(&patch, &[8]).unwrap();
    let extension = fields(patch).into_iter().filter(|(number, _)| *number == 13).map(|(_, value)| value).next_back();
    let text = std::str::from_utf8(field(extension.unwrap(), &[2, 2]).unwrap()).unwrap();
    assert_eq!(serde_json::from_str::<Json>(text).unwrap(), json!({"group": "", "kind": "Pod", "version": "v1"}));
    let parameters = fields(patch).into_iter().filter(|(number, _)| *number == 8);
    let names: Vec<&[u8]> = parameters.filter_map(|(_, value)| field(value, &[1, 2, 3, 4])).collect();
    assert!(names.contains(&&b"fieldValidation"[..]), "{names:?}");
    let spec = named(&definitions, "io.k8s.api.core.v1.PodSpec");
    let properties = fields(field(&spec, &[25]).unwrap());
    let properties: Vec<&[u8]> = properties.into_iter().map(|(_, entry)| entry).collect();
    let containers = named(&properties, "containers");
    assert_eq!(field(&containers, &[23, 1, 1]), Some(&b"#/definitions/io.k8s.api.core.v1.Container"[..]));
    assert_eq!(field(&containers, &[22, 1]), Some(&b"array"[..]));
}
