//! Extenders that really listen: each verb, how they are reached, and what becomes of pods when they fail.

mod server;

use apimachinery::ObjectKey;
use base64::Engine;
use client::resources;
use env::Env;
use pki::{CertificateSpec, ClusterPki};
use serde_json::{Value, json};

use crate::{World, node, pod};
use server::{Answer, Server};

/// A world with these nodes, of 2 CPUs each, whose scheduler asks an extender.
fn world(env: &Env, extender: Value, nodes: &[&str]) -> World {
    let world = World::with(env.clone(), &json!({"extenders": [extender]}));
    for name in nodes {
        world.server.put(&resources::NODES, &node(name, "2"));
    }
    world
}

fn names(body: &Value) -> Vec<&str> {
    let items = body["Nodes"]["items"].as_array().into_iter().flatten();
    items.map(|node| node["metadata"]["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn it_filters_nodes() {
    let env = Env::system();
    let extender = Server::start(&env, |_, body| {
        if body["Pod"]["metadata"]["name"] == "nowhere" {
            let (failed, for_good) = (json!({"a": "not today"}), json!({"b": "never"}));
            return Answer::Json(
                json!({"Nodes": {"items": []}, "FailedNodes": failed, "FailedAndUnresolvableNodes": for_good}),
            );
        }
        Answer::Json(json!({"Nodes": {"items": [{"metadata": {"name": "b"}}]}, "FailedNodes": {"a": "not today"}}))
    })
    .await;
    let world = world(&env, json!({"urlPrefix": extender.url() + "/api/", "filterVerb": "filter"}), &["a", "b"]);
    world.server.put(&resources::PODS, &pod("p", "1"));
    world.eventually("binding", || world.node_of("p").as_deref() == Some("b")).await;
    let (path, body) = extender.seen().remove(0);
    assert_eq!((path.as_str(), body["NodeNames"].is_null()), ("/api/filter", true));
    assert_eq!(body["Pod"]["spec"]["containers"][0]["image"], "i");
    let mut sent = names(&body);
    sent.sort_unstable();
    assert_eq!(sent, ["a", "b"]);
    world.server.put(&resources::PODS, &pod("nowhere", "1"));
    world.eventually("a reason", || world.message_of("nowhere").is_some()).await;
    assert_eq!(
        world.message_of("nowhere").unwrap(),
        "0/2 nodes are available: 1 never, 1 not today. no new claims to deallocate, preemption: 0/2 nodes are available: \
         1 No preemption victims found for incoming pod, 1 Preemption is not helpful for scheduling."
    );
}

#[tokio::test]
async fn one_that_knows_nodes_is_sent_names() {
    let env = Env::system();
    let extender = Server::start(&env, |_, body| match body["Pod"]["metadata"]["name"].as_str() {
        Some("p") => Answer::Json(json!({"nodenames": ["b"]})),
        _ => Answer::Json(json!({"NodeNames": ["elsewhere"]})),
    })
    .await;
    let url = extender.url();
    let spec = json!({"urlPrefix": url, "filterVerb": "filter", "nodeCacheCapable": true});
    let world = world(&env, spec, &["a", "b"]);
    world.server.put(&resources::PODS, &pod("p", "1"));
    world.eventually("binding", || world.node_of("p").as_deref() == Some("b")).await;
    let (_, body) = extender.seen().remove(0);
    assert!(body["Nodes"].is_null());
    assert_eq!(body["NodeNames"].as_array().unwrap().len(), 2);
    world.server.put(&resources::PODS, &pod("q", "1"));
    world.eventually("an error", || world.message_of("q").is_some()).await;
    let claims =
        format!("extender {url:?} claims a filtered node \"elsewhere\" which is not found in the input node list");
    assert_eq!(world.message_of("q").unwrap(), claims);
}

#[tokio::test]
async fn it_compares_nodes() {
    let env = Env::system();
    let extender =
        Server::start(&env, |_, _| Answer::Json(json!([{"Host": "a", "Score": 0}, {"Host": "b", "Score": 10}]))).await;
    let spec = json!({"urlPrefix": extender.url(), "prioritizeVerb": "prioritize", "weight": 5});
    let world = world(&env, spec, &["a", "b"]);
    for i in 0..2 {
        // The second one too, which would go to the empty node otherwise.
        let name = format!("p{i}");
        world.server.put(&resources::PODS, &pod(&name, "1"));
        world.eventually("binding", || world.node_of(&name).is_some()).await;
        assert_eq!(world.node_of(&name).as_deref(), Some("b"));
    }
}

#[tokio::test]
async fn it_binds_pods_that_ask_for_what_it_manages() {
    let env = Env::system();
    let extender = Server::start(&env, |_, body| match body["PodName"].as_str() {
        Some("refused") => Answer::Json(json!({"Error": "no such luck"})),
        _ => Answer::Json(json!({})),
    })
    .await;
    let managed = json!([{"name": "example.com/thing", "ignoredByScheduler": true}]);
    let spec = json!({"urlPrefix": extender.url(), "bindVerb": "bind", "managedResources": managed});
    let world = world(&env, spec, &["a"]);
    world.server.put(&resources::PODS, &pod("plain", "1"));
    world.eventually("binding", || world.node_of("plain").is_some()).await;
    assert_eq!(extender.seen(), []);
    let special = |name: &str| {
        let mut pod: Value = serde_json::from_str(&pod(name, "100m")).unwrap();
        pod["spec"]["containers"][0]["resources"]["requests"]["example.com/thing"] = json!("1");
        pod.to_string()
    };
    world.server.put(&resources::PODS, &special("special"));
    world.eventually("a binding", || !extender.seen().is_empty()).await;
    let binding = json!({"PodName": "special", "PodNamespace": "ns", "PodUID": "special", "Node": "a"});
    assert_eq!(extender.seen()[0], ("/bind".to_owned(), binding));
    world.server.put(&resources::PODS, &special("refused"));
    world.eventually("an error", || world.message_of("refused").is_some()).await;
    assert_eq!(world.message_of("refused").unwrap(), "no such luck");
}

#[tokio::test]
async fn it_has_a_say_in_who_goes() {
    for by_name in [false, true] {
        let env = Env::system();
        let extender = Server::start(&env, |_, _| {
            Answer::Json(json!({"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "low-b"}], "NumPDBViolations": 0}}}))
        })
        .await;
        let spec = json!({"urlPrefix": extender.url(), "preemptVerb": "preempt", "nodeCacheCapable": by_name});
        let world = world(&env, spec, &["a", "b"]);
        let with = |name: &str, priority: i32, node: Option<&str>| {
            let mut pod: Value = serde_json::from_str(&pod(name, "2")).unwrap();
            pod["spec"]["priority"] = json!(priority);
            pod["spec"]["terminationGracePeriodSeconds"] = json!(0);
            if let Some(node) = node {
                pod["spec"]["nodeName"] = json!(node);
            }
            pod.to_string()
        };
        // Left alone, the one on a would go: it matters less.
        world.server.put(&resources::PODS, &with("low-a", 1, Some("a")));
        world.server.put(&resources::PODS, &with("low-b", 2, Some("b")));
        world.server.put(&resources::PODS, &with("high", 10, None));
        world.eventually("binding", || world.node_of("high").is_some()).await;
        assert_eq!(world.node_of("high").as_deref(), Some("b"));
        let left = |name: &str| world.server.get(&resources::PODS, &ObjectKey::new("ns", name)).is_some();
        assert!(left("low-a") && !left("low-b"));
        let (_, body) = extender.seen().remove(0);
        let meta = &body["NodeNameToMetaVictims"]["a"];
        let whole = &body["NodeNameToVictims"]["a"];
        assert_eq!((meta.is_null(), whole.is_null()), (!by_name, by_name));
        match by_name {
            true => assert_eq!(*meta, json!({"Pods": [{"UID": "low-a"}], "NumPDBViolations": 0})),
            false => assert_eq!(whole["Pods"][0]["metadata"]["name"], "low-a"),
        }
    }
}

#[tokio::test]
async fn one_that_fails_keeps_pods_waiting_unless_it_may_be_ignored() {
    let env = Env::system();
    let hanging =
        Server::start(&env, |path, _| if path == "/code" { Answer::Code(500) } else { Answer::Silence }).await;
    let gone = Server::start(&env, |_, _| Answer::Silence).await;
    let (hangs, refuses) = (hanging.url(), gone.url());
    let address = gone.address;
    drop(gone);
    let check = async |url: &str, verb: &str, timeout: &str, expect: &str| {
        let spec = |ignorable: bool| json!({"urlPrefix": url, "filterVerb": verb, "httpTimeout": timeout, "ignorable": ignorable});
        let strict = world(&env, spec(false), &["a"]);
        strict.server.put(&resources::PODS, &pod("p", "1"));
        strict.eventually("an error", || strict.message_of("p").is_some()).await;
        assert_eq!(strict.message_of("p").unwrap(), expect);
        let condition = strict.server.get(&resources::PODS, &ObjectKey::new("ns", "p")).unwrap().to_value();
        let reason = condition.items_at(&["status", "conditions"])[0].str_at(&["reason"]).map(str::to_owned);
        assert_eq!(reason.as_deref(), Some("SchedulerError"));
        let lenient = world(&env, spec(true), &["a"]);
        lenient.server.put(&resources::PODS, &pod("p", "1"));
        lenient.eventually("binding", || lenient.node_of("p").is_some()).await;
    };
    let late =
        format!("Post \"{hangs}/filter\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)");
    check(&hangs, "filter", "200ms", &late).await;
    check(&hangs, "code", "60s", &format!("failed code with extender at URL {hangs}/code, code 500")).await;
    let refused = format!("Post \"{refuses}/filter\": dial tcp {address}: connect: connection refused");
    check(&refuses, "filter", "60s", &refused).await;
}

#[tokio::test]
async fn it_is_reached_over_tls() {
    let env = Env::system();
    let folder = tempfile::tempdir().unwrap();
    let (trusted, other) = (folder.path().join("pki"), folder.path().join("other"));
    let extender =
        Server::start_tls(&env, &trusted, "extender.example", |_, _| Answer::Json(json!({"NodeNames": ["a"]}))).await;
    let pki = ClusterPki::load_or_create(&trusted, &env).unwrap();
    let leaf = pki.ca().issue(&CertificateSpec::client("scheduler", "someone")).unwrap();
    let (cert_file, key_file) = (folder.path().join("crt"), folder.path().join("key"));
    std::fs::write(&cert_file, leaf.certificate_pem()).unwrap();
    std::fs::write(&key_file, leaf.key_pem()).unwrap();
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let stranger = ClusterPki::load_or_create(&other, &env).unwrap();
    let client = json!({"certFile": cert_file, "keyFile": key_file});
    let check = async |tls: Value, expect: bool| {
        let mut config = tls.clone();
        for (key, value) in client.as_object().unwrap() {
            config.as_object_mut().unwrap().entry(key).or_insert(value.clone());
        }
        config.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        let url = format!("https://{}", extender.address);
        let spec = json!({"urlPrefix": url, "filterVerb": "filter", "nodeCacheCapable": true, "enableHTTPS": true, "tlsConfig": config});
        let world = world(&env, spec, &["a"]);
        world.server.put(&resources::PODS, &pod("p", "1"));
        world.eventually("an outcome", || world.node_of("p").is_some() || world.message_of("p").is_some()).await;
        assert_eq!(world.node_of("p").is_some(), expect, "{tls}: {:?}", world.message_of("p"));
    };
    let (ours, theirs) = (pki.ca().certificate_pem(), stranger.ca().certificate_pem());
    check(json!({"caData": base64(ours), "serverName": "extender.example"}), true).await;
    check(json!({"caFile": trusted.join("ca.crt"), "serverName": "extender.example"}), true).await;
    check(json!({"insecure": true}), true).await;
    // Without an authority anybody is believed, as by upstream.
    check(json!({}), true).await;
    let data = json!({"certFile": null, "keyFile": null, "certData": base64(leaf.certificate_pem()), "keyData": base64(leaf.key_pem())});
    check(data, true).await;
    check(json!({"certFile": null, "keyFile": null}), false).await;
    check(json!({"caData": base64(ours), "serverName": "another.example"}), false).await;
    check(json!({"caData": base64(theirs), "serverName": "extender.example"}), false).await;
}
