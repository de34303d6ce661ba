//! CustomResourceDefinitions, and the resources they define.

use std::sync::Arc;
use std::time::Duration;

use env::Env;
use serde_json::{Value, json};

use crate::fixture::{Fixture, Reply};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition with most of what there is.
pub fn widgets() -> Value {
    serde_json::from_str(include_str!("crds/widgets.json")).unwrap()
}

fn widget(name: &str, spec: Value) -> String {
    json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec }).to_string()
}

fn condition<'v>(definition: &'v Value, kind: &str) -> &'v Value {
    let conditions = definition["status"]["conditions"].as_array();
    conditions.and_then(|all| all.iter().find(|known| known["type"] == kind)).unwrap_or(&Value::Null)
}

/// Asks until the answer is as wanted.
async fn until(fixture: &Fixture, target: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
    let deadline = fixture.env.monotonic() + Duration::from_secs(60);
    loop {
        let reply = fixture.send("GET", target, "").await;
        if wanted(&reply) {
            return reply;
        }
        assert!(fixture.env.monotonic() < deadline, "{target} stays {}: {}", reply.code, reply.text);
        fixture.env.sleep(Duration::from_millis(5)).await;
    }
}

pub async fn define(fixture: &Fixture, definition: &Value) {
    let reply = fixture.send("POST", CRDS, &definition.to_string()).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let name = definition["metadata"]["name"].as_str().unwrap();
    until(fixture, &format!("{CRDS}/{name}"), |reply| condition(&reply.json, "Established")["status"] == "True").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_definition_is_served_at_once() {
    let fixture = Fixture::start().await;
    assert_eq!(fixture.send("GET", WIDGETS, "").await.code, 404);
    define(&fixture, &widgets()).await;
    let definition = fixture.send("GET", &format!("{CRDS}/widgets.example.com"), "").await.json;
    assert_eq!(condition(&definition, "NamesAccepted")["reason"], "NoConflicts");
    assert_eq!(condition(&definition, "Established")["reason"], "InitialNamesAccepted");
    assert_eq!(definition["status"]["storedVersions"], json!(["v1"]));
    assert_eq!(definition["status"]["acceptedNames"]["singular"], "widget");
    assert_eq!(definition["spec"]["conversion"], json!({ "strategy": "None" }));

    let list = fixture.send("GET", "/apis/example.com/v1", "").await.json;
    let names: Vec<&str> =
        list["resources"].as_array().unwrap().iter().map(|entry| entry["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["wd"]));
    let group = fixture.send("GET", "/apis/example.com", "").await.json;
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let all = fixture.send_as("GET", "/apis", "", b"", &accept).await.json;
    let own = all["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "example.com").unwrap();
    assert_eq!(own["versions"][0]["resources"][0]["subresources"].as_array().unwrap().len(), 2);

    let created = fixture
        .send("POST", WIDGETS, &widget("a", json!({ "size": 3, "unknown": 1, "parts": [{ "name": "x" }] })))
        .await;
    assert_eq!(created.code, 201, "{}", created.text);
    let spec = json!({ "size": 3, "color": "red", "parts": [{ "name": "x", "count": 1 }] });
    assert_eq!(created.json["spec"], spec);
    assert_eq!(created.json["metadata"]["generation"], 1);
    assert_eq!(fixture.send("GET", &format!("{WIDGETS}/a"), "").await.json["spec"], spec);
    assert_eq!(
        fixture.send("GET", &format!("{WIDGETS}?fieldSelector=spec.color%3Dred"), "").await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        fixture.send("GET", &format!("{WIDGETS}?fieldSelector=spec.color%3Dblue"), "").await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        0
    );

    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = fixture.send_as("GET", WIDGETS, "", b"", &table).await.json;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Size", "Ready", "Age"]);
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("a"), json!(3), Value::Null]);

    let other = fixture.send("GET", "/apis/example.com/v1beta1/namespaces/default/widgets/a", "").await;
    assert_eq!(other.json["apiVersion"], "example.com/v1beta1");
    assert!(other.headers["warning"].to_str().unwrap().contains("example.com/v1beta1 Widget is deprecated"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_checked_by_the_schema() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    let check = async |spec: Value, expect: &str| {
        let reply = fixture.send("POST", WIDGETS, &widget("bad", spec.clone())).await;
        assert_eq!(reply.code, 422, "{spec}: {}", reply.text);
        let message = reply.json["message"].as_str().unwrap();
        assert!(message.contains(expect), "{spec}: {message}");
    };
    check(json!({}), "Widget.example.com \"bad\" is invalid: spec.size: Required value").await;
    check(
        json!({ "size": "x" }),
        "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"",
    )
    .await;
    check(json!({ "size": 0 }), "spec.size: Invalid value: 0: spec.size in body should be greater than or equal to 1")
        .await;
    check(json!({ "size": 11 }), "spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10")
        .await;
    check(
        json!({ "size": 1, "color": "green" }),
        "spec.color: Unsupported value: \"green\": supported values: \"red\", \"blue\"",
    )
    .await;
    check(
        json!({ "size": 1, "code": "A" }),
        "spec.code: Invalid value: \"A\": spec.code in body should match '^[a-z]+$'",
    )
    .await;
    check(json!({ "size": 1, "code": "abcdef" }), "spec.code: Too long: may not be more than 5 bytes").await;
    check(
        json!({ "size": 1, "port": true }),
        "spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
    )
    .await;
    check(json!({ "size": 1, "tags": ["a", "a"] }), "spec.tags[1]: Duplicate value: \"a\"").await;
    check(
        json!({ "size": 1, "parts": [{ "name": "x" }, { "name": "x" }] }),
        "spec.parts[1]: Duplicate value: {\"name\":\"x\"}",
    )
    .await;
    check(json!({ "size": 1, "parts": [{}] }), "spec.parts[0].name: Required value").await;
    check(
        json!({ "size": 1, "labels": { "a": 1 } }),
        "spec.labels.a: Invalid value: \"integer\": spec.labels.a in body must be of type string: \"integer\"",
    )
    .await;

    let good = json!({ "size": 1, "any": { "x": [1] }, "port": "http", "maybe": null, "labels": { "a": "b" } });
    let reply = fixture.send("POST", WIDGETS, &widget("good", good)).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    assert_eq!(reply.json["spec"]["any"], json!({ "x": [1] }));
    assert_eq!(reply.json["spec"]["maybe"], Value::Null);
    let text =
        widget("strict", json!({ "size": 1, "unknown": { "a": 1 } })).replace("\"size\":1", "\"size\":1,\"size\":2");
    let strict = fixture.send("POST", &format!("{WIDGETS}?fieldValidation=Strict"), &text).await;
    assert_eq!(strict.code, 400, "{}", strict.text);
    assert!(
        strict.text.contains(r#"strict decoding error: duplicate field \"spec.size\", unknown field \"spec.unknown\""#),
        "{}",
        strict.text
    );
    let warned = fixture.send("POST", &format!("{WIDGETS}?fieldValidation=Warn"), &text).await;
    assert_eq!((warned.code, warned.headers.get_all("warning").iter().count()), (201, 2), "{}", warned.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_changed_in_every_way() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    let object = format!("{WIDGETS}/a");
    let created = fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 3, "replicas": 2 }))).await.json;

    let mut changed = created.clone();
    changed["metadata"]["resourceVersion"] = Value::Null;
    let reply = fixture.send("PUT", &object, &changed.to_string()).await;
    assert_eq!(reply.code, 422, "{}", reply.text);
    assert!(
        reply.text.contains("metadata.resourceVersion: Invalid value: 0: must be specified for an update"),
        "{}",
        reply.text
    );
    changed = created.clone();
    changed["spec"]["size"] = json!(4);
    changed["status"] = json!({ "replicas": 7 });
    let reply = fixture.send("PUT", &object, &changed.to_string()).await;
    assert_eq!((reply.code, &reply.json["metadata"]["generation"]), (200, &json!(2)), "{}", reply.text);
    assert_eq!(reply.json["status"], Value::Null);
    changed = reply.json;
    changed["spec"]["size"] = json!(9);
    changed["status"] =
        json!({ "replicas": 7, "selector": "a=b", "conditions": [{ "type": "Ready", "status": "True" }] });
    let reply = fixture.send("PUT", &format!("{object}/status"), &changed.to_string()).await;
    assert_eq!((reply.code, &reply.json["metadata"]["generation"]), (200, &json!(2)), "{}", reply.text);
    assert_eq!((&reply.json["spec"]["size"], &reply.json["status"]["replicas"]), (&json!(4), &json!(7)));

    let scale = fixture.send("GET", &format!("{object}/scale"), "").await.json;
    assert_eq!(
        (&scale["spec"], &scale["status"]),
        (&json!({ "replicas": 2 }), &json!({ "replicas": 7, "selector": "a=b" }))
    );
    let reply = fixture.send("PATCH", &format!("{object}/scale"), r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(fixture.send("GET", &object, "").await.json["spec"]["replicas"], 5);

    let reply = fixture.send("PATCH", &object, r#"{"spec":{"color":null,"size":5}}"#).await;
    assert_eq!(
        (&reply.json["spec"]["color"], &reply.json["spec"]["size"]),
        (&json!("red"), &json!(5)),
        "{}",
        reply.text
    );
    let json_patch = br#"[{"op":"replace","path":"/spec/size","value":6}]"#;
    let reply = fixture.send_as("PATCH", &object, "application/json-patch+json", json_patch, &[]).await;
    assert_eq!(reply.json["spec"]["size"], 6, "{}", reply.text);
    let reply = fixture.send_as("PATCH", &object, "application/strategic-merge-patch+json", b"{}", &[]).await;
    assert_eq!(reply.code, 415, "{}", reply.text);
    let reply = fixture.send("PATCH", &object, r#"{"spec":{"size":100}}"#).await;
    assert_eq!(reply.code, 422, "{}", reply.text);

    let apply = async |manager: &str, spec: Value| {
        let target = format!("{WIDGETS}/applied?fieldManager={manager}");
        fixture.send_as("PATCH", &target, "application/apply-patch+yaml", widget("applied", spec).as_bytes(), &[]).await
    };
    let reply = apply("one", json!({ "size": 1, "parts": [{ "name": "x", "count": 2 }] })).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let reply = apply("two", json!({ "parts": [{ "name": "y" }], "labels": { "a": "b" } })).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(reply.json["spec"]["parts"], json!([{ "name": "x", "count": 2 }, { "name": "y", "count": 1 }]));
    let reply = apply("two", json!({ "size": 2 })).await;
    assert_eq!(reply.code, 409, "{}", reply.text);
    let reply = apply("two", json!({ "nonsense": 2 })).await;
    assert!(reply.text.contains(".spec.nonsense: field not declared in schema"), "{}", reply.text);

    let reply = fixture.send("DELETE", &object, "").await;
    assert_eq!((reply.code, &reply.json["kind"]), (200, &json!("Status")), "{}", reply.text);
    let reply = fixture.send("DELETE", WIDGETS, "").await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(fixture.send("GET", WIDGETS, "").await.json["items"], json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definitions_change_go_and_come_back() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    let definition = format!("{CRDS}/widgets.example.com");
    fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 3, "code": "abc" }))).await;
    // A default is there at reads, and what is no longer known goes.
    let patch = br#"[
        {"op":"add","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/new","value":{"type":"string","default":"n"}},
        {"op":"remove","path":"/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/code"},
        {"op":"replace","path":"/spec/versions/1/served","value":false}]"#;
    let reply = fixture.send_as("PATCH", &definition, "application/json-patch+json", patch, &[]).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(reply.json["metadata"]["generation"], 2);
    let reply = fixture.send("GET", &format!("{WIDGETS}/a"), "").await;
    assert_eq!(reply.json["spec"], json!({ "size": 3, "color": "red", "new": "n" }));
    let gone = fixture.send("GET", "/apis/example.com/v1beta1/namespaces/default/widgets/a", "").await;
    assert_eq!(gone.code, 404, "{}", gone.text);

    // Objects go first; one that is held holds the definition.
    fixture.send("PATCH", &format!("{WIDGETS}/a"), r#"{"metadata":{"finalizers":["example.com/held"]}}"#).await;
    fixture.send("POST", WIDGETS, &widget("b", json!({ "size": 1 }))).await;
    let reply = fixture.send("DELETE", &definition, "").await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(condition(&reply.json, "Terminating")["reason"], "InstanceDeletionPending");
    until(&fixture, WIDGETS, |reply| reply.json["items"].as_array().is_some_and(|items| items.len() == 1)).await;
    let held = fixture.send("GET", &definition, "").await.json;
    assert_eq!(condition(&held, "Terminating")["reason"], "InstanceDeletionInProgress");
    let refused = fixture.send("POST", WIDGETS, &widget("c", json!({ "size": 1 }))).await;
    assert_eq!(refused.code, 405, "{}", refused.text);
    fixture.send("PATCH", &format!("{WIDGETS}/a"), r#"{"metadata":{"finalizers":null}}"#).await;
    until(&fixture, &definition, |reply| reply.code == 404).await;
    assert_eq!(fixture.send("GET", WIDGETS, "").await.code, 404);
    assert_eq!(fixture.send("GET", "/apis/example.com", "").await.code, 404);

    define(&fixture, &widgets()).await;
    assert_eq!(fixture.send("GET", WIDGETS, "").await.json["items"], json!([]));
}

/// What holds an object holds its definition, for however long, and nobody runs in circles.
#[tokio::test(start_paused = true)]
async fn a_definition_that_is_held_is_not_written_for_ever() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    for n in 0..5 {
        let mut held: Value = serde_json::from_str(&widget(&format!("w{n}"), json!({ "size": 1 }))).unwrap();
        held["metadata"]["finalizers"] = json!(["example.com/held"]);
        fixture.ok("POST", WIDGETS, &held.to_string()).await;
    }
    let definition = format!("{CRDS}/widgets.example.com");
    fixture.ok("DELETE", &definition, "").await;
    fixture.env.sleep(Duration::from_secs(600)).await;
    let told = fixture.ok("GET", &definition, "").await;
    let terminating = condition(&told, "Terminating");
    assert_eq!((&terminating["status"], &terminating["reason"]), (&json!("True"), &json!("InstanceDeletionCheck")));
    let before = fixture.store.revision();
    fixture.env.sleep(Duration::from_secs(60)).await;
    let writes = fixture.store.revision() - before;
    assert!(writes <= 2, "{writes} writes in a minute");
    for n in 0..5 {
        fixture.ok("PATCH", &format!("{WIDGETS}/w{n}"), r#"{"metadata":{"finalizers":null}}"#).await;
    }
    until(&fixture, &definition, |reply| reply.code == 404).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_server_serves_definitions_from_the_first_request() {
    let store: Arc<dyn store::Store> = store::Embedded::in_memory(&Env::system()).unwrap();
    {
        let fixture = Fixture::on(store.clone()).await;
        define(&fixture, &widgets()).await;
        fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 3 }))).await;
    }
    let fixture = Fixture::on(store).await;
    let reply = fixture.send("GET", &format!("{WIDGETS}/a"), "").await;
    assert_eq!((reply.code, &reply.json["spec"]["size"]), (200, &json!(3)), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_conflict() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    let mut other = widgets();
    other["metadata"]["name"] = json!("gadgets.example.com");
    other["spec"]["names"] = json!({ "plural": "gadgets", "kind": "Gadget", "shortNames": ["wd"] });
    assert_eq!(fixture.send("POST", CRDS, &other.to_string()).await.code, 201);
    let gadgets = format!("{CRDS}/gadgets.example.com");
    let told = |reply: &Reply| condition(&reply.json, "NamesAccepted")["status"] == "False";
    let reply = until(&fixture, &gadgets, told).await;
    assert_eq!(condition(&reply.json, "NamesAccepted")["reason"], "ShortNamesConflict");
    assert_eq!(condition(&reply.json, "NamesAccepted")["message"], "\"wd\" is already in use");
    assert_eq!(condition(&reply.json, "Established")["reason"], "NotAccepted");
    fixture.send("DELETE", &format!("{CRDS}/widgets.example.com"), "").await;
    until(&fixture, &gadgets, |reply| condition(&reply.json, "Established")["status"] == "True").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_definitions_are_refused() {
    let fixture = Fixture::start().await;
    let check = async |path: &str, value: Value, expect: &str| {
        let mut definition = widgets();
        *definition.pointer_mut(path).unwrap_or_else(|| panic!("{path} is nowhere")) = value.clone();
        let reply = fixture.send("POST", &format!("{CRDS}?dryRun=All"), &definition.to_string()).await;
        assert_eq!(reply.code, 422, "{path} {value}: {}", reply.text);
        let message = reply.json["message"].as_str().unwrap();
        assert!(message.contains(expect), "{path} {value}: {message}");
    };
    const SCHEMA: &str = "/spec/versions/0/schema/openAPIV3Schema";
    let at = |rest: &str| format!("{SCHEMA}{rest}");
    check(
        "/metadata/name",
        json!("x.example.com"),
        "metadata.name: Invalid value: \"x.example.com\": must be spec.names.plural+\".\"+spec.group",
    )
    .await;
    check(
        "/spec/scope",
        json!("Galaxy"),
        "spec.scope: Unsupported value: \"Galaxy\": supported values: \"Cluster\", \"Namespaced\"",
    )
    .await;
    check("/spec/versions/0/name", json!("V1"), "spec.versions[0].name: Invalid value: \"V1\"").await;
    check("/spec/versions/1/storage", json!(true), "must have exactly one version marked as storage version").await;
    check("/spec/versions/1/name", json!("v1"), "must contain unique version names").await;
    check("/spec/names/kind", json!("Wid get"), "spec.names.kind: Invalid value: \"Wid get\": may have mixed case")
        .await;
    check("/spec/versions/0/schema", json!({}), "spec.versions[0].schema.openAPIV3Schema: Required value").await;
    check(&at("/type"), json!("string"), "spec.versions[0].schema.openAPIV3Schema.type: Invalid value: \"string\"")
        .await;
    check(
        &at("/properties/spec/properties/size"),
        json!({}),
        "properties[spec].properties[size].type: Required value: must not be empty for specified object fields",
    )
    .await;
    check(
        &at("/properties/spec/properties/size"),
        json!({ "type": "int" }),
        "properties[size].type: Unsupported value: \"int\"",
    )
    .await;
    check(
        &at("/properties/spec/properties/tags/items"),
        json!(null),
        "properties[tags].items: Required value: must be specified",
    )
    .await;
    check(
        &at("/properties/spec/properties/code/pattern"),
        json!("("),
        "properties[code].pattern: Invalid value: \"(\": must be a valid regular expression",
    )
    .await;
    check(
        &at("/properties/spec/properties/color/default"),
        json!("green"),
        "properties[color].default: Unsupported value: \"green\"",
    )
    .await;
    check(
        &at("/properties/spec/properties/parts/x-kubernetes-list-map-keys"),
        json!(["x"]),
        "entries must all be names of item properties",
    )
    .await;
    check(
        &at("/properties/spec/properties/size"),
        json!({ "type": "integer", "anyOf": [{ "type": "integer" }] }),
        "anyOf[0].type: Forbidden: must be empty to be structural",
    )
    .await;
    check("/spec/versions/0/subresources/scale/specReplicasPath", json!(".x"), "should be a json path under .spec")
        .await;
    check(
        "/spec/versions/0/additionalPrinterColumns/0/type",
        json!("x"),
        "must be one of boolean,date,integer,number,string",
    )
    .await;
    check(
        "/spec/versions/0/selectableFields/0/jsonPath",
        json!(".spec.parts"),
        "must point to a field of type string, boolean or integer",
    )
    .await;
    define(&fixture, &widgets()).await;
    let reply = fixture.send("PATCH", &format!("{CRDS}/widgets.example.com"), r#"{"spec":{"scope":"Cluster"}}"#).await;
    assert!(reply.text.contains("spec.scope: Invalid value: \\\"Cluster\\\": field is immutable"), "{}", reply.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_published() {
    let fixture = Fixture::start().await;
    define(&fixture, &widgets()).await;
    let index = fixture.send("GET", "/openapi/v3", "").await.json;
    let url = index["paths"]["apis/example.com/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = fixture.send("GET", url, "").await.json;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["color"]["default"], "red");
    assert_eq!(
        schema["x-kubernetes-group-version-kind"],
        json!([{ "group": "example.com", "kind": "Widget", "version": "v1" }])
    );
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    let media: Vec<&String> = patch["requestBody"]["content"].as_object().unwrap().keys().collect();
    assert_eq!(media, ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"]);
    assert!(document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    let v2 = fixture.send("GET", "/openapi/v2", "").await.json;
    assert!(v2["definitions"]["com.example.v1.Widget"]["properties"]["spec"].is_object());
    assert!(v2["paths"]["/apis/example.com/v1/widgets"]["get"].is_object());
    fixture.send("DELETE", &format!("{CRDS}/widgets.example.com"), "").await;
    until(&fixture, "/openapi/v3", |reply| reply.json["paths"]["apis/example.com/v1"].is_null()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rules_are_asked() {
    let fixture = Fixture::start().await;
    let with = |rules: Value| {
        let mut definition = widgets();
        definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
            rules;
        definition
    };
    let refused = async |rules: Value, expect: &str| {
        let reply = fixture.send("POST", &format!("{CRDS}?dryRun=All"), &with(rules).to_string()).await;
        let message = reply.json["message"].as_str().unwrap_or_default();
        assert!(reply.code == 422 && message.contains(expect), "{}: {message}", reply.code);
    };
    refused(json!([{ "rule": "self.nothing > 1" }]), "undefined field 'nothing'").await;
    refused(json!([{ "rule": "self.size" }]), "cel expression must evaluate to a bool").await;
    refused(
        json!([{ "rule": "self.parts.all(a, self.parts.all(b, self.parts.all(c, a.name != c.name)))" }]),
        "exceeds budget by factor of",
    )
    .await;
    refused(
        json!([{ "rule": "self.size > 1", "optionalOldSelf": true }]),
        "may not be set if oldSelf is not used in rule",
    )
    .await;
    let rules = json!([
        { "rule": "!has(self.replicas) || self.size >= self.replicas", "message": "too many replicas" },
        { "rule": "self.size >= oldSelf.size", "messageExpression": "oldSelf.size == 3 ? 'size was 3' : 'size was more'", "fieldPath": ".size" },
        { "rule": "self.color != 'blue'", "reason": "FieldValueForbidden", "message": "no blue" },
    ]);
    define(&fixture, &with(rules)).await;
    let check = async |reply: Reply, expect: &str| {
        let message = reply.json["message"].as_str().unwrap_or_default();
        assert!(reply.code == 422 && message.contains(expect), "{}: {message}", reply.code);
    };
    check(
        fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 1, "replicas": 2 }))).await,
        "spec: Invalid value: too many replicas",
    )
    .await;
    check(
        fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 1, "color": "blue" }))).await,
        "spec: Forbidden: no blue",
    )
    .await;
    let created = fixture.send("POST", WIDGETS, &widget("a", json!({ "size": 3 }))).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let object = format!("{WIDGETS}/a");
    check(fixture.send("PATCH", &object, r#"{"spec":{"size":2}}"#).await, "spec.size: Invalid value: size was 3").await;
    assert_eq!(fixture.send("PATCH", &object, r#"{"spec":{"size":4}}"#).await.code, 200);
}
