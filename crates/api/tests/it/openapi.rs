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
            // Nobody asks what a list is.
            if name.ends_with("List") {
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
