//! The paths of a group version and their operations.

use serde_json::{Map, Value as Json, json};

use super::{reference, root};
use crate::kind::{Kind, Subresource};
use crate::kinds;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const YAML: &str = "application/yaml";
const PATCHES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];

/// Every path below a group version with its item.
pub(super) fn of(group: &str, version: &str) -> Vec<(String, Json)> {
    let kinds = kinds::kinds().iter().copied().filter(|kind| kind.group == group && kind.version == version);
    of_kinds(group, version, &kinds.collect::<Vec<_>>())
}

/// Every path of these kinds below their group version.
pub(super) fn of_kinds(group: &str, version: &str, kinds: &[&Kind]) -> Vec<(String, Json)> {
    let base = format!("/{}", root(group, version));
    let mut paths = vec![(format!("{base}/"), resource_list())];
    for kind in kinds {
        let scoped = if kind.namespaced { format!("{base}/namespaces/{{namespace}}") } else { base.clone() };
        let collection = format!("{scoped}/{}", kind.resource);
        if kind.namespaced && kind.has_verb("list") {
            paths.push((format!("{base}/{}", kind.resource), path_item(vec![("get", list(kind))], kind, &[])));
        }
        let mut operations = Vec::new();
        if kind.has_verb("list") {
            operations.push(("get", list(kind)));
        }
        if kind.has_verb("create") {
            operations.push(("post", write(kind.kind_of_rows(), "post", kind.type_name)));
        }
        if kind.has_verb("deletecollection") {
            operations.push(("delete", delete(kind, "deletecollection", &format!("{META}.Status"))));
        }
        paths.push((collection.clone(), path_item(operations, kind, &[])));
        if kind.has_verb("get") {
            paths.push((format!("{collection}/{{name}}"), path_item(item_operations(kind), kind, &["name"])));
        }
        for subresource in kind.subresources {
            let path = format!("{collection}/{{name}}/{}", subresource.name);
            let operations = subresource_operations(kind, subresource);
            paths.push((path.clone(), path_item(operations, kind, &["name"])));
            if subresource.name == "proxy" {
                let operations = subresource_operations(kind, subresource);
                paths.push((format!("{path}/{{path}}"), path_item(operations, kind, &["name", "path"])));
            }
        }
    }
    paths
}

/// A kind as operations name it.
type GroupVersionKind = (&'static str, &'static str, &'static str);

impl Kind {
    fn kind_of_rows(&self) -> GroupVersionKind {
        (self.group, self.version, self.kind)
    }
}

fn resource_list() -> Json {
    let answer = answer(&format!("{META}.APIResourceList"), &[JSON, PROTOBUF, YAML]);
    json!({"get": {"responses": {"200": answer}}})
}

fn item_operations(kind: &Kind) -> Vec<(&'static str, Json)> {
    let gvk = kind.kind_of_rows();
    let mut operations = vec![("get", read(gvk, kind.type_name))];
    if kind.has_verb("update") {
        operations.push(("put", write(gvk, "put", kind.type_name)));
    }
    if kind.has_verb("patch") {
        operations.push(("patch", patch(gvk, kind.type_name)));
    }
    if kind.has_verb("delete") {
        operations.push(("delete", delete(kind, "delete", &format!("{META}.Status"))));
    }
    operations
}

fn subresource_operations(kind: &Kind, subresource: &Subresource) -> Vec<(&'static str, Json)> {
    let gvk = (subresource.group, subresource.version, subresource.kind);
    let options = subresource.kind.ends_with("Options");
    let name = subresource.ty().map_or(kind.type_name, |ty| ty.name());
    let mut operations = Vec::new();
    for verb in subresource.verbs {
        operations.push(match *verb {
            _ if options => {
                let method = match *verb {
                    "get" => "get",
                    "create" => "post",
                    "update" => "put",
                    "delete" => "delete",
                    _ => "patch",
                };
                let ok = json!({"description": "OK", "content": {"*/*": {"schema": {"type": "string"}}}});
                let body = json!({"responses": {"200": ok}});
                (method, operation(gvk, "connect", option_parameters(subresource), body))
            }
            "get" if subresource.name == "log" => {
                let ok = json!({"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}});
                ("get", operation(gvk, "get", Vec::new(), json!({"responses": {"200": ok}})))
            }
            "get" => ("get", read(gvk, name)),
            "create" => ("post", write(gvk, "post", name)),
            "patch" => ("patch", patch(gvk, name)),
            _ => ("put", write(gvk, "put", name)),
        });
    }
    operations
}

fn path_item(operations: Vec<(&'static str, Json)>, kind: &Kind, names: &[&str]) -> Json {
    let mut item: Map<String, Json> =
        operations.into_iter().map(|(method, operation)| (method.to_owned(), operation)).collect();
    let scope = kind.namespaced.then_some("namespace");
    let mut parameters: Vec<Json> = names
        .iter()
        .copied()
        .chain(scope)
        .map(|name| {
            json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}})
        })
        .collect();
    parameters.push(query("pretty", "string"));
    item.insert("parameters".to_owned(), json!(parameters));
    Json::Object(item)
}

fn list(kind: &Kind) -> Json {
    let name = format!("{}List", kind.type_name);
    let content = [JSON, "application/json;stream=watch", PROTOBUF, YAML];
    let body = json!({"responses": {"200": answer(&name, &content)}});
    let mut parameters = vec![query("allowWatchBookmarks", "boolean"), query("watch", "boolean")];
    parameters.extend(selection());
    operation(kind.kind_of_rows(), "list", parameters, body)
}

fn selection() -> Vec<Json> {
    let strings = ["continue", "fieldSelector", "labelSelector", "resourceVersion", "resourceVersionMatch"];
    let mut parameters: Vec<Json> = strings.map(|name| query(name, "string")).into();
    parameters.push(query("limit", "integer"));
    parameters.push(query("sendInitialEvents", "boolean"));
    parameters.push(query("timeoutSeconds", "integer"));
    parameters
}

fn read(gvk: GroupVersionKind, name: &str) -> Json {
    operation(gvk, "get", Vec::new(), json!({"responses": {"200": answer(name, &[JSON, PROTOBUF, YAML])}}))
}

fn write(gvk: GroupVersionKind, action: &str, name: &str) -> Json {
    let answer = answer(name, &[JSON, PROTOBUF, YAML]);
    let responses = match action {
        "post" => json!({"200": answer, "201": answer, "202": answer}),
        _ => json!({"200": answer, "201": answer}),
    };
    let body = json!({
        "requestBody": {"required": true, "content": {"*/*": {"schema": reference(name)}}},
        "responses": responses,
    });
    operation(gvk, action, writing(), body)
}

fn patch(gvk: GroupVersionKind, name: &str) -> Json {
    let schema = json!({"schema": {"type": "object"}});
    let content: Map<String, Json> = PATCHES.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
    let answer = answer(name, &[JSON, PROTOBUF, YAML]);
    let body = json!({
        "requestBody": {"required": true, "content": content},
        "responses": {"200": answer, "201": answer},
    });
    let mut parameters = writing();
    parameters.push(query("force", "boolean"));
    operation(gvk, "patch", parameters, body)
}

fn delete(kind: &Kind, action: &str, name: &str) -> Json {
    let answer = answer(name, &[JSON, PROTOBUF, YAML]);
    let options = reference(&format!("{META}.DeleteOptions"));
    let body = json!({
        "requestBody": {"content": {"*/*": {"schema": options}}},
        "responses": {"200": answer, "202": answer},
    });
    let mut parameters = vec![
        query("dryRun", "string"),
        query("gracePeriodSeconds", "integer"),
        query("ignoreStoreReadErrorWithClusterBreakingPotential", "boolean"),
        query("orphanDependents", "boolean"),
        query("propagationPolicy", "string"),
    ];
    if action == "deletecollection" {
        parameters.extend(selection());
    }
    operation(kind.kind_of_rows(), action, parameters, body)
}

fn writing() -> Vec<Json> {
    ["dryRun", "fieldManager", "fieldValidation"].map(|name| query(name, "string")).into()
}

/// The fields of a streaming subresource's options.
fn option_parameters(subresource: &Subresource) -> Vec<Json> {
    let Some(ty) = subresource.ty() else { return Vec::new() };
    let names = ty.fields().iter().map(|field| &*field.name).filter(|name| !["apiVersion", "kind"].contains(name));
    names.map(|name| query(name, "string")).collect()
}

fn operation(gvk: GroupVersionKind, action: &str, parameters: Vec<Json>, mut body: Json) -> Json {
    if !parameters.is_empty() {
        body["parameters"] = json!(parameters);
    }
    body["x-kubernetes-action"] = json!(action);
    body["x-kubernetes-group-version-kind"] = json!({"group": gvk.0, "kind": gvk.2, "version": gvk.1});
    body
}

fn answer(name: &str, content: &[&str]) -> Json {
    let schema = json!({"schema": reference(name)});
    let content: Map<String, Json> = content.iter().map(|ty| ((*ty).to_owned(), schema.clone())).collect();
    json!({"description": "OK", "content": content})
}

fn query(name: &str, ty: &str) -> Json {
    json!({"name": name, "in": "query", "schema": {"type": ty, "uniqueItems": true}})
}
