//! Writes: what is filled in, what is refused, and in which words.

use serde_json::json;

use crate::fixture::Fixture;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let fixture = Fixture::start().await;
    let before = fixture.store.revision();
    let check = async |method: &str, target: &str, body: &str, code: u16, text: &str| {
        fixture.check(method, target, body, code, text).await;
    };
    let strict = format!("{MAPS}?fieldValidation=Strict");
    check(
        "POST",
        &strict,
        r#"{"metadata":{"name":"a"},"dat":{"x":"y"}}"#,
        400,
        r#"ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: unknown field \"dat\""#,
    )
    .await;
    check("POST", &strict, r#"{"metadata":{"name":"a","name":"b"}}"#, 400, r#"duplicate field \"metadata.name\""#)
        .await;
    check("POST", MAPS, r#"{"metadata":{"name":"a"},"data":{"x":1}}"#, 400, "cannot unmarshal number").await;
    check(
        "POST",
        MAPS,
        r#"{"metadata":{"name":"a"},"data":"#,
        400,
        "the object provided is unrecognized (must be of type ConfigMap)",
    )
    .await;
    check("POST", MAPS, "", 400, "unexpected end of JSON input").await;
    check(
        "POST",
        MAPS,
        r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#,
        400,
        r#"Secret in version \"v1\" cannot be handled as a ConfigMap"#,
    )
    .await;
    check(
        "POST",
        MAPS,
        r#"{"apiVersion":"v1","kind":"Nonsense","metadata":{"name":"a"}}"#,
        400,
        r#"no kind \"Nonsense\" is registered"#,
    )
    .await;
    check(
        "POST",
        MAPS,
        r#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"a"}}"#,
        400,
        "no kind \\\"ConfigMap\\\" is registered for version \\\"v2\\\"",
    )
    .await;
    check("POST", MAPS, r#"{"metadata":{}}"#, 422, "metadata.name: Required value: name or generateName is required")
        .await;
    check("POST", MAPS, r#"{"metadata":{"name":"A_B"}}"#, 422, "a lowercase RFC 1123 subdomain must consist of").await;
    check("POST", MAPS, r#"{"metadata":{"name":"a","labels":{"a b":"c"}}}"#, 422, "metadata.labels").await;
    check(
        "POST",
        MAPS,
        r#"{"metadata":{"name":"a","namespace":"other"}}"#,
        400,
        "the namespace of the provided object does not match",
    )
    .await;
    check(
        "POST",
        MAPS,
        r#"{"metadata":{"name":"a","resourceVersion":"7"}}"#,
        500,
        "resourceVersion should not be set on objects to be created",
    )
    .await;
    check("POST", MAPS, r#"{"metadata":{"name":"a"},"data":{"../x":"y"}}"#, 422, "data[../x]").await;
    check("POST", &format!("{MAPS}?dryRun=Some"), r#"{"metadata":{"name":"a"}}"#, 422, "Unsupported value").await;
    check("POST", &format!("{MAPS}?fieldValidation=Some"), r#"{"metadata":{"name":"a"}}"#, 422, "fieldValidation")
        .await;
    check(
        "PUT",
        &format!("{MAPS}/a"),
        r#"{"metadata":{"name":"b"}}"#,
        400,
        "the name of the object (b) does not match the name on the URL (a)",
    )
    .await;
    check("PUT", &format!("{MAPS}/a"), r#"{"metadata":{"name":"a"}}"#, 404, r#"configmaps \"a\" not found"#).await;
    check("PATCH", &format!("{MAPS}/a"), "{}", 404, "not found").await;
    check("DELETE", &format!("{MAPS}/a"), "", 404, "not found").await;
    check("DELETE", &format!("{MAPS}/a"), r#"{"propagationPolicy":"Some"}"#, 422, "propagationPolicy").await;
    check("GET", "/api/v1/namespaces/default/nonsense", "", 404, "").await;
    check("GET", "/apis/nonsense/v1/things", "", 404, "").await;
    check("POST", "/api/v1/configmaps", r#"{"metadata":{"name":"a"}}"#, 405, "").await;
    check("PATCH", MAPS, "{}", 405, "").await;
    for (media, code) in [("text/plain", 415), ("application/vnd.kubernetes.protobuf", 400), ("application/yaml", 400)]
    {
        let reply = fixture.send_as("POST", MAPS, media, b"\tx: [", &[]).await;
        assert_eq!(reply.code, code, "{media}: {}", reply.text);
    }
    let html = [("accept", "text/html")];
    let reply = fixture.send_as("POST", MAPS, "application/json", br#"{"metadata":{"name":"a"}}"#, &html).await;
    assert_eq!(reply.code, 406, "{}", reply.text);
    let apply = fixture.send_as("PATCH", &format!("{MAPS}/a"), "application/apply-patch+yaml", b"{}", &[]).await;
    assert!(apply.code == 422 && apply.text.contains("fieldManager: Required value"), "{}", apply.text);
    let apply = fixture.send_as("PATCH", &format!("{MAPS}/a"), "application/apply-patch+cbor", b"{}", &[]).await;
    assert_eq!(apply.code, 415, "{}", apply.text);
    assert_eq!(fixture.store.revision(), before, "nothing was written");
}

#[tokio::test]
async fn what_is_not_strict_warns() {
    let fixture = Fixture::start().await;
    let reply = fixture.send("POST", MAPS, r#"{"metadata":{"name":"a"},"dat":{"x":"y"}}"#).await;
    assert_eq!(reply.code, 201);
    assert_eq!(reply.headers["warning"], r#"299 - "unknown field \"dat\"""#);
    let reply =
        fixture.send("POST", &format!("{MAPS}?fieldValidation=Ignore"), r#"{"metadata":{"name":"b"},"dat":1}"#).await;
    assert!(reply.code == 201 && !reply.headers.contains_key("warning"));
    let schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas";
    let reply = fixture.send("POST", schemas, r#"{"metadata":{"name":"b"}}"#).await;
    assert!(reply.headers["warning"].to_str().unwrap().contains("nothing acts on them yet"));
}

#[tokio::test]
async fn names_are_generated_and_dry_runs_leave_nothing() {
    let fixture = Fixture::start().await;
    let created = fixture.ok("POST", MAPS, r#"{"metadata":{"generateName":"a-"}}"#).await;
    let name = created["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("a-") && name.len() == 7, "{name}");
    let before = fixture.store.revision();
    let dry = fixture.ok("POST", &format!("{MAPS}?dryRun=All"), r#"{"metadata":{"name":"dry"}}"#).await;
    assert!(dry["metadata"]["uid"].is_string() && dry["metadata"]["resourceVersion"].is_null());
    fixture.ok("PATCH", &format!("{MAPS}/{name}?dryRun=All"), r#"{"data":{"a":"b"}}"#).await;
    fixture.ok("DELETE", &format!("{MAPS}/{name}?dryRun=All"), "").await;
    fixture.ok("DELETE", &format!("{MAPS}/{name}"), r#"{"dryRun":["All"]}"#).await;
    fixture
        .check(
            "POST",
            &format!("{MAPS}?dryRun=All"),
            &json!({ "metadata": { "name": name } }).to_string(),
            409,
            "already exists",
        )
        .await;
    assert_eq!(fixture.store.revision(), before);
}

#[tokio::test]
async fn updates_compare_revisions_and_identities() {
    let fixture = Fixture::start().await;
    let one = format!("{MAPS}/a");
    let created = fixture.ok("POST", MAPS, r#"{"metadata":{"name":"a"},"data":{"k":"1"}}"#).await;
    fixture.ok("PUT", &one, r#"{"metadata":{"name":"a"},"data":{"k":"2"}}"#).await;
    let mut stale = created.clone();
    stale["data"]["k"] = "3".into();
    fixture
        .check(
            "PUT",
            &one,
            &stale.to_string(),
            409,
            r#"Operation cannot be fulfilled on configmaps \"a\": the object has been modified"#,
        )
        .await;
    stale["metadata"]["resourceVersion"] = json!(null);
    stale["metadata"]["uid"] = "other".into();
    fixture.check("PUT", &one, &stale.to_string(), 409, "Precondition failed: UID in precondition: other").await;
    fixture.check("PATCH", &one, r#"{"metadata":{"resourceVersion":"1"}}"#, 409, "the object has been modified").await;
    fixture.check("PATCH", &one, r#"{"metadata":{"name":"b"}}"#, 400, "does not match the name on the URL (a)").await;
    fixture.check("PATCH", &one, r#"{"metadata":{"uid":"x"}}"#, 422, "field is immutable").await;
    fixture.check("DELETE", &one, r#"{"preconditions":{"uid":"x"}}"#, 409, "the UID in the precondition (x)").await;
    fixture
        .check(
            "DELETE",
            &one,
            r#"{"preconditions":{"resourceVersion":"1"}}"#,
            409,
            "the ResourceVersion in the precondition (1)",
        )
        .await;
    let json_patch = br#"[{"op":"replace","path":"/data/k","value":"9"}]"#;
    let reply = fixture.send_as("PATCH", &one, "application/json-patch+json", json_patch, &[]).await;
    assert_eq!((reply.code, reply.json["data"]["k"].as_str()), (200, Some("9")));
    let reply =
        fixture.send_as("PATCH", &one, "application/json-patch+json", br#"[{"op":"remove","path":"/x/y"}]"#, &[]).await;
    assert_eq!(reply.code, 422, "{}", reply.text);
    let strict = format!("{one}?fieldValidation=Strict");
    fixture.check("PATCH", &strict, r#"{"nonsense":1}"#, 422, "strict decoding error").await;
    fixture.ok("PATCH", &one, r#"{"immutable":true}"#).await;
    fixture.check("PATCH", &one, r#"{"data":{"k":"x"}}"#, 422, "field is immutable when `immutable` is set").await;
    let deleted = fixture.ok("DELETE", &one, "").await;
    assert_eq!((deleted["kind"].as_str(), deleted["status"].as_str()), (Some("Status"), Some("Success")));
    assert_eq!(deleted["details"]["uid"], created["metadata"]["uid"]);
}

#[tokio::test]
async fn strategic_patches_merge_lists_by_key() {
    let fixture = Fixture::start().await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n","containers":[{"name":"a","image":"x"},{"name":"b","image":"y"}]}}"#;
    fixture.ok("POST", PODS, pod).await;
    let patch = br#"{"spec":{"containers":[{"name":"b","image":"z"}]}}"#;
    let media = "application/strategic-merge-patch+json";
    let reply = fixture.send_as("PATCH", &format!("{PODS}/p"), media, patch, &[]).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    let images: Vec<&str> =
        reply.json["spec"]["containers"].as_array().unwrap().iter().map(|c| c["image"].as_str().unwrap()).collect();
    assert_eq!(images, ["x", "z"]);
}

#[tokio::test]
async fn finalizers_hold_deletions_up() {
    let fixture = Fixture::start().await;
    let one = format!("{MAPS}/a");
    fixture.ok("POST", MAPS, r#"{"metadata":{"name":"a","finalizers":["example.com/f"]}}"#).await;
    let marked = fixture.ok("DELETE", &one, "").await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string() && marked["kind"] == "ConfigMap");
    fixture
        .check(
            "PATCH",
            &one,
            r#"{"metadata":{"finalizers":["example.com/f","example.com/g"]}}"#,
            422,
            "no new finalizers can be added",
        )
        .await;
    fixture.ok("PATCH", &one, r#"{"metadata":{"finalizers":null}}"#).await;
    fixture.check("GET", &one, "", 404, "not found").await;

    fixture.ok("POST", MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    let marked = fixture.ok("DELETE", &one, r#"{"propagationPolicy":"Foreground"}"#).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    let orphaning = fixture.ok("DELETE", &one, r#"{"propagationPolicy":"Orphan"}"#).await;
    assert_eq!(orphaning["metadata"]["finalizers"], json!(["orphan"]));
    fixture.ok("DELETE", &one, r#"{"propagationPolicy":"Background"}"#).await;
    fixture.check("GET", &one, "", 404, "not found").await;
}

#[tokio::test]
async fn collections_are_deleted_by_selector() {
    let fixture = Fixture::start().await;
    for (name, label) in [("a", "1"), ("b", "2"), ("c", "1")] {
        fixture.ok("POST", MAPS, &json!({ "metadata": { "name": name, "labels": { "x": label } } }).to_string()).await;
    }
    fixture.ok("DELETE", &format!("{MAPS}?labelSelector=x%3D1"), "").await;
    let left = fixture.ok("GET", MAPS, "").await;
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn status_scale_and_binding_are_apart() {
    let fixture = Fixture::start().await;
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let body = json!({ "metadata": { "name": "d" }, "status": { "replicas": 7 }, "spec": {
        "replicas": 2, "selector": { "matchLabels": { "a": "b" } },
        "template": { "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    let created = fixture.ok("POST", deployments, &body.to_string()).await;
    assert!(created["status"]["replicas"].is_null(), "{created}");
    let one = format!("{deployments}/d");
    let status =
        fixture.ok("PATCH", &format!("{one}/status"), r#"{"status":{"replicas":2},"spec":{"replicas":9}}"#).await;
    assert_eq!((status["status"]["replicas"].as_i64(), status["spec"]["replicas"].as_i64()), (Some(2), Some(2)));
    let scale = fixture.ok("GET", &format!("{one}/scale"), "").await;
    assert_eq!(scale["status"], json!({ "replicas": 2, "selector": "a=b" }));
    let scaled = fixture.ok("PATCH", &format!("{one}/scale"), r#"{"spec":{"replicas":5}}"#).await;
    assert_eq!(scaled["spec"]["replicas"], 5);
    fixture
        .check(
            "PATCH",
            &format!("{one}/scale"),
            r#"{"spec":{"replicas":-1}}"#,
            422,
            "must be greater than or equal to 0",
        )
        .await;
    let read = fixture.ok("GET", &one, "").await;
    assert_eq!(read["spec"]["replicas"], 5);

    fixture.ok("POST", PODS, r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"x"}]}}"#).await;
    let binding = r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}"#;
    fixture.ok("POST", &format!("{PODS}/p/binding"), binding).await;
    let pod = fixture.ok("GET", &format!("{PODS}/p"), "").await;
    assert_eq!(pod["spec"]["nodeName"], "n1");
    assert_eq!(pod["status"]["conditions"][0]["type"], "PodScheduled");
    fixture.check("POST", &format!("{PODS}/p/binding"), binding, 409, r#"is already assigned to node \"n1\""#).await;
    let on_node = fixture.ok("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1", "").await;
    assert_eq!(on_node["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn protobuf_and_yaml_bodies_are_read() {
    let fixture = Fixture::start().await;
    let value = apimachinery::Value::parse(
        br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"pb"},"data":{"a":"b"}}"#,
    )
    .unwrap();
    let body = api::protobuf::encode(&value).unwrap();
    let reply = fixture.send_as("POST", MAPS, "application/vnd.kubernetes.protobuf", &body, &[]).await;
    assert_eq!((reply.code, reply.json["data"]["a"].as_str()), (201, Some("b")), "{}", reply.text);
    let options =
        apimachinery::Value::parse(br#"{"apiVersion":"v1","kind":"DeleteOptions","gracePeriodSeconds":0}"#).unwrap();
    let body = api::protobuf::encode(&options).unwrap();
    let reply =
        fixture.send_as("DELETE", &format!("{MAPS}/pb"), "application/vnd.kubernetes.protobuf", &body, &[]).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: b\n";
    let reply = fixture.send_as("POST", MAPS, "application/yaml", yaml, &[]).await;
    assert_eq!((reply.code, reply.json["data"]["a"].as_str()), (201, Some("b")), "{}", reply.text);
}

#[tokio::test]
async fn namespaces_end_in_two_steps() {
    let fixture = Fixture::start().await;
    let created = fixture.ok("POST", "/api/v1/namespaces", r#"{"metadata":{"name":"n"}}"#).await;
    assert_eq!(created["spec"]["finalizers"], json!(["kubernetes"]));
    assert_eq!(created["metadata"]["labels"]["kubernetes.io/metadata.name"], "n");
    let ending = fixture.ok("DELETE", "/api/v1/namespaces/n", "").await;
    assert_eq!(ending["status"]["phase"], "Terminating");
    let mut emptied = ending.clone();
    emptied["spec"]["finalizers"] = json!([]);
    fixture.ok("PUT", "/api/v1/namespaces/n/finalize", &emptied.to_string()).await;
    fixture.check("GET", "/api/v1/namespaces/n", "", 404, "not found").await;
}

#[tokio::test]
async fn many_patches_of_one_object_all_count() {
    let fixture = Fixture::start().await;
    fixture.ok("POST", MAPS, r#"{"metadata":{"name":"a"}}"#).await;
    let target = format!("{MAPS}/a");
    let bodies: Vec<String> = (0..40).map(|n| json!({ "data": { format!("k{n}"): "v" } }).to_string()).collect();
    let patches = bodies.iter().map(|body| fixture.ok("PATCH", &target, body));
    futures_util::future::join_all(patches).await;
    let read = fixture.ok("GET", &target, "").await;
    assert_eq!(read["data"].as_object().unwrap().len(), 40);
}

#[tokio::test]
async fn pods_on_a_node_end_gracefully() {
    let fixture = Fixture::start().await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n1","containers":[{"name":"a","image":"x"}]}}"#;
    let created = fixture.ok("POST", PODS, pod).await;
    assert_eq!(
        (created["status"]["phase"].as_str(), created["status"]["qosClass"].as_str()),
        (Some("Pending"), Some("BestEffort"))
    );
    let one = format!("{PODS}/p");
    let ending = fixture.ok("DELETE", &one, "").await;
    assert_eq!(ending["metadata"]["deletionGracePeriodSeconds"], 30);
    let shorter = fixture.ok("DELETE", &one, r#"{"gracePeriodSeconds":5}"#).await;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let longer = fixture.ok("DELETE", &one, r#"{"gracePeriodSeconds":50}"#).await;
    assert_eq!(longer["metadata"]["resourceVersion"], shorter["metadata"]["resourceVersion"]);
    let gone = fixture.ok("DELETE", &one, r#"{"gracePeriodSeconds":0}"#).await;
    assert_eq!(gone["kind"], "Pod");
    fixture.check("GET", &one, "", 404, "not found").await;

    fixture.ok("POST", PODS, &pod.replace(r#""name":"p""#, r#""name":"p","finalizers":["example.com/f"]"#)).await;
    fixture.ok("DELETE", &one, r#"{"gracePeriodSeconds":0}"#).await;
    let held = fixture.ok("GET", &one, "").await;
    assert_eq!(held["metadata"]["deletionGracePeriodSeconds"], 0);
    fixture.ok("PATCH", &one, r#"{"metadata":{"finalizers":null}}"#).await;
    fixture.check("GET", &one, "", 404, "not found").await;

    fixture.ok("POST", PODS, &pod.replace(r#""nodeName":"n1","#, "")).await;
    let eviction = r#"{"metadata":{"name":"p"}}"#;
    fixture.ok("POST", &format!("{one}/eviction"), eviction).await;
    fixture.check("GET", &one, "", 404, "not found").await;
}

#[tokio::test]
async fn versions_are_views_of_one_object() {
    let fixture = Fixture::start().await;
    let core = r#"{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","name":"p","namespace":"default"},"reason":"R","message":"m","type":"Normal"}"#;
    fixture.ok("POST", "/api/v1/namespaces/default/events", core).await;
    let events = "/apis/events.k8s.io/v1/namespaces/default/events";
    let view = fixture.ok("GET", &format!("{events}/e"), "").await;
    assert_eq!((view["apiVersion"].as_str(), view["note"].as_str()), (Some("events.k8s.io/v1"), Some("m")));
    let list = fixture.ok("GET", &format!("{events}?fieldSelector=regarding.name%3Dp"), "").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    fixture
        .check("GET", &format!("{events}?fieldSelector=involvedObject.name%3Dp"), "", 400, "field label not supported")
        .await;

    let scalers = "/apis/autoscaling/v1/namespaces/default/horizontalpodautoscalers";
    let v1 = r#"{"metadata":{"name":"h"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":80,
        "scaleTargetRef":{"kind":"Deployment","name":"d","apiVersion":"apps/v1"}}}"#;
    fixture.ok("POST", scalers, v1).await;
    let v2 = fixture.ok("GET", &format!("{}/h", scalers.replace("v1", "v2")), "").await;
    assert_eq!(v2["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 80);
    let patched =
        fixture.ok("PATCH", &format!("{scalers}/h"), r#"{"spec":{"targetCPUUtilizationPercentage":50}}"#).await;
    assert_eq!(
        (patched["apiVersion"].as_str(), patched["spec"]["targetCPUUtilizationPercentage"].as_i64()),
        (Some("autoscaling/v1"), Some(50))
    );
}
