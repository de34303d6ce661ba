//! What kinds do beyond their schema, through the whole server.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::Fixture;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const PODS: &str = "/api/v1/namespaces/default/pods";

fn service(name: &str, kind: &str) -> String {
    json!({ "metadata": { "name": name }, "spec": { "type": kind, "ports": [{ "port": 80 }] } }).to_string()
}

async fn addresses(fixture: &Fixture) -> BTreeSet<String> {
    let list = fixture.ok("GET", ADDRESSES, "").await;
    let names =
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap().to_owned());
    names.collect()
}

#[tokio::test]
async fn services_made_at_once_share_nothing() {
    let fixture = Fixture::start().await;
    assert_eq!(addresses(&fixture).await, ["10.96.0.1".to_owned()].into(), "the address of the kubernetes Service");
    let names: Vec<String> = (0..100).map(|i| format!("s{i}")).collect();
    let made = join_all(names.iter().map(|name| {
        let fixture = &fixture;
        async move { fixture.ok("POST", SERVICES, &service(name, "NodePort")).await }
    }));
    let made = made.await;
    let of = |key: fn(&Value) -> String| -> BTreeSet<String> { made.iter().map(key).collect() };
    let ips = of(|service| service["spec"]["clusterIP"].as_str().unwrap().to_owned());
    let ports = of(|service| service["spec"]["ports"][0]["nodePort"].to_string());
    assert_eq!((ips.len(), ports.len()), (100, 100));
    assert_eq!(addresses(&fixture).await.len(), 101);

    let first = &made[0]["spec"];
    let taken = json!({ "metadata": { "name": "x" }, "spec": { "type": "NodePort", "ports": [{ "port": 80, "nodePort": first["ports"][0]["nodePort"] }] } });
    fixture.check("POST", SERVICES, &taken.to_string(), 422, "provided port is already allocated").await;
    let taken =
        json!({ "metadata": { "name": "x" }, "spec": { "clusterIP": first["clusterIP"], "ports": [{ "port": 80 }] } });
    fixture.check("POST", SERVICES, &taken.to_string(), 422, "provided IP is already allocated").await;
    // A dry run is answered with an address and takes none.
    let dry = fixture.ok("POST", &format!("{SERVICES}?dryRun=All"), &service("dry", "NodePort")).await;
    assert!(dry["spec"]["clusterIP"].is_string() && dry["spec"]["ports"][0]["nodePort"].is_number(), "{dry}");
    assert_eq!(addresses(&fixture).await.len(), 101);

    // What goes is free again, and what a new type has no use for.
    fixture.ok("PATCH", &format!("{SERVICES}/s1"), r#"{"spec":{"type":"ExternalName","externalName":"a.b"}}"#).await;
    for name in &names {
        fixture.ok("DELETE", &format!("{SERVICES}/{name}"), "").await;
    }
    assert_eq!(addresses(&fixture).await.len(), 1);
    let again = json!({ "metadata": { "name": "x" }, "spec": { "type": "NodePort", "clusterIP": first["clusterIP"], "ports": [{ "port": 80, "nodePort": first["ports"][0]["nodePort"] }] } });
    fixture.ok("POST", SERVICES, &again.to_string()).await;
}

#[tokio::test]
async fn both_addresses_are_written_with_the_service() {
    let fixture = Fixture::start().await;
    let range = json!({ "metadata": { "name": "six" }, "spec": { "cidrs": ["fd00::/112"] } });
    let ranges = "/apis/networking.k8s.io/v1/servicecidrs";
    fixture.ok("POST", ranges, &range.to_string()).await;
    // Ranges are known to who allocates once a list has them.
    fixture.ok("GET", ranges, "").await;
    let revision = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
    let both = json!({ "metadata": { "name": "a" }, "spec": { "ipFamilyPolicy": "RequireDualStack", "ports": [{ "port": 80 }] } });
    let made = fixture.ok("POST", SERVICES, &both.to_string()).await;
    let mut held = Vec::new();
    for address in made["spec"]["clusterIPs"].as_array().unwrap() {
        held.push(revision(&fixture.ok("GET", &format!("{ADDRESSES}/{}", address.as_str().unwrap()), "").await));
    }
    // One transaction, of which the first of the two addresses has a revision of its own.
    assert_eq!(held, [revision(&made) - 1, revision(&made)]);
    assert_eq!(addresses(&fixture).await.len(), 3);
    // What isn't written holds nothing.
    fixture.check("POST", SERVICES, &both.to_string(), 409, "already exists").await;
    assert_eq!(addresses(&fixture).await.len(), 3);

    let at = format!("{SERVICES}/a");
    fixture.ok("PATCH", &at, r#"{"spec":{"ipFamilyPolicy":"SingleStack"}}"#).await;
    assert_eq!(addresses(&fixture).await.len(), 2);
    fixture.ok("PATCH", &at, r#"{"spec":{"ipFamilyPolicy":"RequireDualStack"}}"#).await;
    assert_eq!(addresses(&fixture).await.len(), 3);
    fixture.ok("PATCH", &at, r#"{"spec":{"type":"ExternalName","externalName":"a.b"}}"#).await;
    assert_eq!(addresses(&fixture).await.len(), 1);
    fixture.ok("DELETE", &at, "").await;
    fixture.ok("POST", SERVICES, &both.to_string()).await;
    fixture.ok("DELETE", &at, "").await;
    assert_eq!(addresses(&fixture).await.len(), 1);
}

#[tokio::test]
async fn a_restart_repairs_what_a_hand_broke() {
    let fixture = Fixture::start().await;
    let made = fixture.ok("POST", SERVICES, &service("a", "ClusterIP")).await;
    let address = made["spec"]["clusterIP"].as_str().unwrap();
    fixture.ok("DELETE", &format!("{ADDRESSES}/{address}"), "").await;
    let stray = json!({ "metadata": { "name": "10.96.0.99", "labels": { "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" } },
        "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": "gone" } } });
    fixture.ok("POST", ADDRESSES, &stray.to_string()).await;
    let store = fixture.store.clone();
    drop(fixture);
    let fixture = Fixture::on(store).await;
    assert_eq!(addresses(&fixture).await, ["10.96.0.1".to_owned(), address.to_owned()].into());
}

#[tokio::test]
async fn a_pod_lives_and_is_deleted_gracefully() {
    let fixture = Fixture::start().await;
    let body = r#"{"metadata":{"name":"p"},"status":{"phase":"Running"},"spec":{"containers":[{"name":"c","image":"nginx:1.27"}]}}"#;
    let pod = fixture.ok("POST", PODS, body).await;
    assert_eq!((&pod["status"]["phase"], &pod["status"]["qosClass"]), (&json!("Pending"), &json!("BestEffort")));
    let one = format!("{PODS}/p");
    fixture
        .ok("POST", &format!("{one}/binding"), r#"{"metadata":{"name":"p"},"target":{"kind":"Node","name":"n1"}}"#)
        .await;
    let bound = fixture.ok("GET", &one, "").await;
    assert_eq!((&bound["metadata"]["generation"], &bound["spec"]["nodeName"]), (&json!(1), &json!("n1")));
    fixture
        .check("PATCH", &one, r#"{"spec":{"hostname":"x"}}"#, 422, "pod updates may not change fields other than")
        .await;
    let update = r#"[{"op":"replace","path":"/spec/containers/0/image","value":"nginx:1.28"}]"#;
    let reply = fixture.send_as("PATCH", &one, "application/json-patch+json", update.as_bytes(), &[]).await;
    assert_eq!((reply.code, &reply.json["metadata"]["generation"]), (200, &json!(2)), "{}", reply.text);
    let status = r#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    let strategic = "application/strategic-merge-patch+json";
    let reply = fixture.send_as("PATCH", &format!("{one}/status"), strategic, status.as_bytes(), &[]).await;
    let kinds: Vec<&str> =
        reply.json["status"]["conditions"].as_array().unwrap().iter().map(|c| c["type"].as_str().unwrap()).collect();
    assert_eq!(kinds.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&"PodScheduled", &"Ready"]));

    let going = fixture.ok("DELETE", &one, "").await;
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], 30);
    let sooner = fixture.ok("DELETE", &format!("{one}?gracePeriodSeconds=5"), "").await;
    assert_eq!(sooner["metadata"]["deletionGracePeriodSeconds"], 5);
    let later = fixture.ok("DELETE", &format!("{one}?gracePeriodSeconds=60"), "").await;
    assert_eq!(later["metadata"]["deletionGracePeriodSeconds"], 5);
    fixture.ok("PATCH", &format!("{one}/status"), r#"{"status":{"phase":"Succeeded"}}"#).await;
    fixture.ok("DELETE", &format!("{one}?gracePeriodSeconds=0"), "").await;
    fixture.check("GET", &one, "", 404, "not found").await;
    // One that no node has goes at once.
    fixture.ok("POST", PODS, body).await;
    fixture.ok("DELETE", &one, "").await;
    fixture.check("GET", &one, "", 404, "not found").await;
}

#[tokio::test]
async fn upstreams_sentences_reach_the_client() {
    let fixture = Fixture::start().await;
    let reply = fixture.send("POST", PODS, r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#).await;
    assert_eq!(
        (reply.code, reply.json["message"].as_str()),
        (422, Some(r#"Pod "p" is invalid: spec.containers[0].image: Required value"#))
    );
    assert_eq!(
        reply.json["details"],
        json!({ "name": "p", "kind": "Pod", "causes": [{ "reason": "FieldValueRequired", "message": "Required value", "field": "spec.containers[0].image" }] })
    );
    let secret = r#"{"metadata":{"name":"s"},"stringData":{"a":"b"}}"#;
    let secret = fixture.ok("POST", "/api/v1/namespaces/default/secrets", secret).await;
    assert_eq!((&secret["data"]["a"], &secret["type"]), (&json!("Yg=="), &json!("Opaque")));
    let patched = fixture.ok("PATCH", "/api/v1/namespaces/default/secrets/s", r#"{"stringData":{"c":"d"}}"#).await;
    assert_eq!(patched["data"], json!({ "a": "Yg==", "c": "ZA==" }));
}
