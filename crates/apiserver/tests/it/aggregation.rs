//! Servers behind this one: an APIService takes over a group version, and gives it back; and the figures that are answered
//! here until one does.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::CertificateSpec;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::fixture::{Fixture, Reply};
use crate::wire::Wire;

const SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const GROUPS: [(&str, &str); 2] = [("metrics.k8s.io", "v1beta1"), ("wardle.example.com", "v1")];

/// Says who asked, and for what; answers discovery; echoes streams.
async fn answer(env: env::Env, fixture: Arc<Known>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let peer = request.extensions().get::<Arc<streams::Peer>>().unwrap();
    let proxy = fixture.front_proxy.identify(&peer.certificates, env.now()).expect("the front proxy's certificate");
    assert_eq!(proxy.user, "front-proxy-client");
    let json = |value: Value| {
        let response = Response::builder().header(CONTENT_TYPE, "application/json");
        response.body(Full::from(value.to_string())).unwrap()
    };
    if request.headers().contains_key(UPGRADE) {
        env.spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut buffer = [0u8; 5];
            stream.read_exact(&mut buffer).await.unwrap();
            buffer.reverse();
            stream.write_all(&buffer).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
        return response.header(UPGRADE, "echo").body(Full::default()).unwrap();
    }
    if path == "/openapi/v3" {
        return json(
            json!({ "paths": { "apis/wardle.example.com/v1": { "serverRelativeURL": "/openapi/v3/apis/wardle.example.com/v1?hash=1" } } }),
        );
    }
    for (group, version) in GROUPS {
        if path == format!("/apis/{group}/{version}") {
            let resources = json!([{ "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get", "list"] }]);
            return json(
                json!({ "kind": "APIResourceList", "groupVersion": format!("{group}/{version}"), "resources": resources }),
            );
        }
    }
    let headers: Vec<String> = request
        .headers()
        .iter()
        .filter(|(name, _)| name.as_str().starts_with("x-remote-") || name.as_str() == "authorization")
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
        .collect();
    let target = request.uri().to_string();
    let method = request.method().to_string();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    json(
        json!({ "kind": "Echo", "method": method, "target": target, "headers": headers, "body": String::from_utf8_lossy(&body) }),
    )
}

struct Known {
    front_proxy: pki::ClientVerifier,
}

/// A server for `svc` in `default`, and its port.
async fn server(fixture: &Fixture) -> (JoinHandle<()>, u16) {
    let spec = CertificateSpec::server("svc", &["svc.default.svc"], &[]);
    let leaf = fixture.pki.ca().issue(&spec).unwrap();
    let certificate = streams::ServerCertificate::new(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap();
    let config = streams::server_config(&certificate, &crate::wire::authority(fixture)).unwrap();
    let mut config = (*config).clone();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let known = Arc::new(Known {
        front_proxy: pki::ClientVerifier::new(fixture.pki.front_proxy_ca().certificate_pem()).unwrap(),
    });
    let env = fixture.env.clone();
    let server = streams::Server::tls(env.clone(), Arc::new(config));
    let task = fixture.env.spawn(async move {
        let service = move |request| answer_boxed(env.clone(), known.clone(), request);
        server.run(listener, service, std::future::pending()).await.unwrap();
    });
    (task, port)
}

async fn answer_boxed(env: env::Env, known: Arc<Known>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    answer(env, known, request).await
}

fn service(fixture: &Fixture, group: &str, version: &str, port: u16) -> String {
    use base64::Engine;
    let bundle = base64::engine::general_purpose::STANDARD.encode(fixture.pki.ca().certificate_pem());
    json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": { "name": format!("{version}.{group}") },
        "spec": { "group": group, "version": version, "groupPriorityMinimum": 2000, "versionPriority": 200,
                  "caBundle": bundle, "service": { "namespace": "default", "name": "svc", "port": port } },
    })
    .to_string()
}

/// Asks until the answer is as wanted.
async fn until(fixture: &Fixture, method: &str, target: &str, wanted: impl Fn(&Reply) -> bool) -> Reply {
    let deadline = fixture.env.monotonic() + Duration::from_secs(120);
    loop {
        let reply = fixture.send(method, target, "").await;
        if wanted(&reply) {
            return reply;
        }
        assert!(fixture.env.monotonic() < deadline, "{method} {target}: {} {}", reply.code, reply.text);
        fixture.env.sleep(Duration::from_millis(20)).await;
    }
}

fn condition(reply: &Reply) -> (String, String, String) {
    let condition = &reply.json["status"]["conditions"][0];
    let text = |name: &str| condition[name].as_str().unwrap_or_default().to_owned();
    (text("status"), text("reason"), text("message"))
}

#[tokio::test]
async fn built_in_versions_are_registered_and_local() {
    let fixture = Fixture::start().await;
    let list = fixture.ok("GET", SERVICES, "").await;
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap()).collect();
    for name in ["v1.", "v1.apps", "v2.autoscaling", "v1.resource.k8s.io", "v1.flowcontrol.apiserver.k8s.io"] {
        assert!(names.contains(&name), "{name} {names:?}");
    }
    assert!(!names.iter().any(|name| name.contains("metrics") || name.contains("apiregistration")), "{names:?}");
    let core = fixture.ok("GET", &format!("{SERVICES}/v1."), "").await;
    assert_eq!(core["spec"], json!({ "version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1 }));
    assert_eq!(core["status"]["conditions"][0]["reason"], "Local");
    let table = fixture
        .send_as(
            "GET",
            &format!("{SERVICES}/v1.apps"),
            "",
            b"",
            &[("accept", "application/json;as=Table;g=meta.k8s.io;v=v1")],
        )
        .await;
    assert_eq!(
        table.json["rows"][0]["cells"].as_array().unwrap()[..3],
        json!(["v1.apps", "Local", "True"]).as_array().unwrap()[..]
    );
    let bad = r#"{"apiVersion":"apiregistration.k8s.io/v1","kind":"APIService","metadata":{"name":"v1.x"},"spec":{"group":"y.io","version":"v1","groupPriorityMinimum":0,"versionPriority":1001,"insecureSkipTLSVerify":true}}"#;
    for text in [
        r#"metadata.name: Invalid value: \"v1.x\": must be `spec.version+\".\"+spec.group`: \"v1.y.io\""#,
        "spec.groupPriorityMinimum: Invalid value: 0: must be positive and less than 20000",
        "spec.versionPriority: Invalid value: 1001: must be positive and less than 1000",
        "local APIServices may not have insecureSkipTLSVerify",
    ] {
        let text = text.replace(r#"\""#, r#"""#);
        let reply = fixture.send("POST", SERVICES, bad).await;
        let message = reply.json["message"].as_str().unwrap_or_default();
        assert!(
            reply.code == 422 && message.contains(&text.replace(r#"\""#, r#"""#))
                || message.contains(&text.replace('"', r#"\""#)),
            "{text}\n{message}"
        );
    }
}

#[tokio::test]
async fn custom_resources_are_registered_while_they_are_served() {
    const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let fixture = Fixture::start().await;
    let version = |name: &str, served: bool| json!({ "name": name, "served": served, "storage": name == "v1", "schema": { "openAPIV3Schema": { "type": "object" } } });
    let definition = |plural: &str, kind: &str, versions: Value| {
        json!({ "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": { "name": format!("{plural}.example.com") },
                "spec": { "group": "example.com", "scope": "Namespaced", "names": { "plural": plural, "kind": kind }, "versions": versions } })
    };
    let (old, new) = (format!("{SERVICES}/v1.example.com"), format!("{SERVICES}/v2.example.com"));
    let shirts = definition("shirts", "Shirt", json!([version("v1", true), version("v2", true)]));
    let socks = definition("socks", "Sock", json!([version("v1", true)]));
    for definition in [&shirts, &socks] {
        fixture.ok("POST", CRDS, &definition.to_string()).await;
    }
    let reply = until(&fixture, "GET", &old, |reply| reply.code == 200).await;
    let expect =
        json!({ "group": "example.com", "version": "v1", "groupPriorityMinimum": 1000, "versionPriority": 100 });
    assert_eq!(reply.json["spec"], expect);
    assert_eq!(reply.json["metadata"]["labels"], json!({ "kube-aggregator.kubernetes.io/automanaged": "true" }));
    assert_eq!(condition(&reply).1, "Local");
    let first = until(&fixture, "GET", &new, |reply| reply.code == 200).await;

    // One that is taken away comes again.
    fixture.ok("DELETE", &new, "").await;
    let uid = first.json["metadata"]["uid"].clone();
    until(&fixture, "GET", &new, |reply| reply.code == 200 && reply.json["metadata"]["uid"] != uid).await;

    // A version that is not served any more is not registered; one that somebody still serves is.
    let shirt = format!("{CRDS}/shirts.example.com");
    let versions = json!({ "spec": { "versions": [version("v1", true), version("v2", false)] } });
    fixture.ok("PATCH", &shirt, &versions.to_string()).await;
    until(&fixture, "GET", &new, |reply| reply.code == 404).await;
    fixture.ok("DELETE", &shirt, "").await;
    until(&fixture, "GET", &shirt, |reply| reply.code == 404).await;
    fixture.ok("GET", &old, "").await;
    fixture.ok("DELETE", &format!("{CRDS}/socks.example.com"), "").await;
    until(&fixture, "GET", &old, |reply| reply.code == 404).await;
}

#[tokio::test]
async fn another_server_takes_over_and_gives_back() {
    let fixture = Fixture::start().await;
    let (task, port) = server(&fixture).await;
    let own = fixture.ok("GET", "/apis/metrics.k8s.io/v1beta1", "").await;
    assert_eq!(own["resources"][0]["name"], "nodes");

    // Nobody is there yet.
    fixture.ok("POST", SERVICES, &service(&fixture, "wardle.example.com", "v1", port)).await;
    let name = format!("{SERVICES}/v1.wardle.example.com");
    let reply = until(&fixture, "GET", &name, |reply| condition(reply).1 == "ServiceNotFound").await;
    assert_eq!(condition(&reply).2, r#"service/svc in "default" is not present"#);
    let reply = fixture.send("GET", "/apis/wardle.example.com/v1/flunders", "").await;
    assert_eq!((reply.code, reply.text.as_str()), (503, "service unavailable\n"));

    // The service comes, and that is noticed.
    let real = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "svc" },
                       "spec": { "type": "ExternalName", "externalName": "localhost" } });
    fixture.ok("POST", "/api/v1/namespaces/default/services", &real.to_string()).await;
    let reply = until(&fixture, "GET", &name, |reply| condition(reply).0 == "True").await;
    assert_eq!(condition(&reply).1, "Passed");
    let path = "/apis/wardle.example.com/v1/namespaces/default/flunders";
    let reply = until(&fixture, "GET", path, |reply| reply.code == 200).await;
    let said: Vec<&str> = reply.json["headers"].as_array().unwrap().iter().map(|h| h.as_str().unwrap()).collect();
    assert_eq!(
        said,
        ["x-remote-user: kubernetes-admin", "x-remote-group: system:masters", "x-remote-group: system:authenticated"]
    );
    // Bodies, queries and other names pass; what a client says of itself does not.
    let mut wire = Wire::connect(&fixture).await;
    let headers = [("x-remote-user", "somebody-else"), ("content-type", "application/json")];
    let (code, _, text) = wire.send("POST", &format!("{path}?dryRun=All"), &headers, r#"{"a":1}"#).await;
    let text = String::from_utf8_lossy(&text).into_owned();
    let echo: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        (code.as_u16(), echo["method"].as_str(), echo["body"].as_str()),
        (200, Some("POST"), Some(r#"{"a":1}"#))
    );
    assert_eq!(echo["target"], format!("{path}?dryRun=All"));
    assert!(!text.contains("somebody-else") && text.contains("kubernetes-admin"), "{text}");
    // Streams too.
    let mut wire = Wire::connect(&fixture).await;
    let (mut stream, _) =
        wire.upgrade("/apis/wardle.example.com/v1/namespaces/default/flunders/f/proxy", "echo", &[]).await;
    stream.write_all(b"hello").await.unwrap();
    let mut buffer = [0u8; 5];
    stream.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"olleh");

    // Discovery and schemas tell of it.
    let groups = fixture.ok("GET", "/apis", "").await.to_string();
    assert!(groups.contains("wardle.example.com"), "{groups}");
    let group = fixture.ok("GET", "/apis/wardle.example.com", "").await;
    assert_eq!(group["preferredVersion"]["groupVersion"], "wardle.example.com/v1");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let all = fixture.send_as("GET", "/apis", "", b"", &[("accept", accept)]).await;
    assert!(all.text.contains(r#""resource":"flunders""#) && all.headers["content-type"] == accept, "{}", all.text);
    let tag = all.headers["etag"].to_str().unwrap().to_owned();
    let again = fixture.send_as("GET", "/apis", "", b"", &[("accept", accept), ("if-none-match", &tag)]).await;
    assert_eq!(again.code, 304);
    let index = fixture.ok("GET", "/openapi/v3", "").await;
    let url = &index["paths"]["apis/wardle.example.com/v1"]["serverRelativeURL"];
    assert_eq!(url, "/openapi/v3/apis/wardle.example.com/v1?hash=1");
    assert_eq!(fixture.ok("GET", url.as_str().unwrap(), "").await["kind"], "Echo");

    // What is answered here is answered there for as long as an APIService says so.
    fixture.ok("POST", SERVICES, &service(&fixture, "metrics.k8s.io", "v1beta1", port)).await;
    let nodes = "/apis/metrics.k8s.io/v1beta1/nodes";
    until(&fixture, "GET", nodes, |reply| reply.json["kind"] == "Echo").await;
    assert_eq!(fixture.ok("GET", "/apis/metrics.k8s.io/v1beta1", "").await["resources"][0]["name"], "flunders");
    fixture.ok("DELETE", &format!("{SERVICES}/v1beta1.metrics.k8s.io"), "").await;
    until(&fixture, "GET", nodes, |reply| reply.json["items"] == json!([])).await;

    // A certificate of somebody else's is not believed by requests.
    let patch = json!({ "spec": { "service": { "namespace": "default", "name": "other" } } }).to_string();
    let real = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "other" },
                       "spec": { "type": "ExternalName", "externalName": "localhost" } });
    fixture.ok("POST", "/api/v1/namespaces/default/services", &real.to_string()).await;
    fixture.ok("PATCH", &name, &patch).await;
    let reply = until(&fixture, "GET", path, |reply| reply.code == 503 && reply.text.contains("reach")).await;
    assert!(reply.text.starts_with("error trying to reach service: "), "{}", reply.text);

    // The server goes, and that is noticed.
    task.abort();
    drop(task.await);
    fixture.ok("PATCH", &name, &json!({ "spec": { "versionPriority": 201 } }).to_string()).await;
    let reply = until(&fixture, "GET", &name, |reply| condition(reply).1 == "FailedDiscoveryCheck").await;
    assert!(
        condition(&reply).2.starts_with("failing or missing response from https://other.default.svc:"),
        "{}",
        reply.text
    );
}

#[tokio::test]
async fn a_front_proxy_speaks_for_others() {
    let fixture = Fixture::start().await;
    let review = r#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#;
    let check = async |authority: &pki::Authority, name: &str, expect: &str| {
        let leaf = authority.issue(&CertificateSpec::client(name, "")).unwrap();
        let mut wire = Wire::connect_as(&fixture, Some(leaf)).await;
        let headers = [
            ("content-type", "application/json"),
            ("x-remote-user", "ann"),
            ("x-remote-group", "authors"),
            ("x-remote-extra-example.org%2fa", "b"),
        ];
        let (code, _, text) =
            wire.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &headers, review).await;
        let code = code.as_u16();
        let answer: Value = serde_json::from_slice(&text).unwrap();
        let info = &answer["status"]["userInfo"];
        assert_eq!(
            format!("{code} {} {} {}", info["username"], info["groups"], info["extra"]["example.org/a"]),
            expect
        );
    };
    let (proxies, clients) = (fixture.pki.front_proxy_ca(), fixture.pki.ca());
    check(proxies, "front-proxy-client", r#"201 "ann" ["authors","system:authenticated"] ["b"]"#).await;
    check(proxies, "somebody", "401 null null null").await;
    check(clients, "front-proxy-client", r#"201 "front-proxy-client" ["system:authenticated"] null"#).await;
}

/// A kubelet that says what its text is, and counts up.
async fn kubelet(fixture: &Fixture) -> JoinHandle<()> {
    let spec = CertificateSpec::server("system:node:n1", &["n1"], &["127.0.0.1".parse().unwrap()]);
    let leaf = fixture.pki.certificate("kubelet", &spec).unwrap();
    let certificate = streams::ServerCertificate::new(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap();
    let config = streams::server_config(&certificate, &crate::wire::authority(fixture)).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let env = fixture.env.clone();
    let asked = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let server = streams::Server::tls(env.clone(), config);
    let task = fixture.env.spawn(async move {
        let service = move |request: Request<Incoming>| {
            assert_eq!(request.uri().path(), "/metrics/resource");
            let times = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let at = env.now().as_millisecond();
            let used = 100 + times;
            let text = format!(
                "container_cpu_usage_seconds_total{{container=\"a\",namespace=\"default\",pod=\"p\"}} {used} {at}\n\
                 container_memory_working_set_bytes{{container=\"a\",namespace=\"default\",pod=\"p\"}} 2048 {at}\n\
                 container_start_time_seconds{{container=\"a\",namespace=\"default\",pod=\"p\"}} 1000\n\
                 node_cpu_usage_seconds_total {used} {at}\nnode_memory_working_set_bytes 4096 {at}\n"
            );
            async move { Response::new(Full::<Bytes>::from(text)) }
        };
        server.run(listener, service, std::future::pending()).await.unwrap();
    });
    fixture.ok("POST", "/api/v1/nodes", r#"{"metadata":{"name":"n1","labels":{"zone":"a"}}}"#).await;
    let status = json!({ "status": {
        "addresses": [{ "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
        "conditions": [{ "type": "Ready", "status": "True" }],
    } });
    fixture.ok("PATCH", "/api/v1/nodes/n1/status", &status.to_string()).await;
    task
}

#[tokio::test]
async fn nodes_are_asked_what_they_use() {
    let fixture = Fixture::start().await;
    let metrics = "/apis/metrics.k8s.io/v1beta1";
    assert_eq!(fixture.ok("GET", &format!("{metrics}/nodes"), "").await["items"], json!([]));
    let task = kubelet(&fixture).await;
    for name in ["p", "q"] {
        let pod = json!({ "metadata": { "name": name, "labels": { "app": name } },
                          "spec": { "nodeName": "n1", "containers": [{ "name": "a", "image": "x" }] } });
        fixture.ok("POST", "/api/v1/namespaces/default/pods", &pod.to_string()).await;
    }
    // Nothing is said of pods that don't run.
    assert_eq!(fixture.ok("GET", &format!("{metrics}/pods"), "").await["items"], json!([]));
    for name in ["p", "q"] {
        let target = format!("/api/v1/namespaces/default/pods/{name}/status");
        fixture.ok("PATCH", &target, r#"{"status":{"phase":"Running"}}"#).await;
    }
    // A kubelet that is slow to answer is asked again later.
    let has_one = |reply: &Reply| reply.json["items"].as_array().is_some_and(|items| items.len() == 1);
    let nodes = until(&fixture, "GET", &format!("{metrics}/nodes"), has_one).await.json;
    let node = &nodes["items"][0];
    assert_eq!((&node["metadata"]["name"], &node["metadata"]["labels"]["zone"]), (&json!("n1"), &json!("a")));
    assert_eq!(node["usage"]["memory"], "4Ki");
    assert!(
        node["window"].as_str().unwrap().ends_with('s') && node["usage"]["cpu"].as_str().unwrap().len() > 1,
        "{node}"
    );
    let of_app = format!("{metrics}/namespaces/default/pods?labelSelector=app");
    let pods = until(&fixture, "GET", &of_app, has_one).await.json;
    let pod = &pods["items"][0];
    assert_eq!((&pod["containers"][0]["name"], &pod["containers"][0]["usage"]["memory"]), (&json!("a"), &json!("2Ki")));
    let one = fixture.ok("GET", &format!("{metrics}/namespaces/default/pods/p"), "").await;
    assert_eq!((&one["kind"], &one["metadata"]["name"]), (&json!("PodMetrics"), &pod["metadata"]["name"]));
    let none = fixture.ok("GET", &format!("{metrics}/pods?fieldSelector=metadata.name%3Dx"), "").await;
    assert_eq!(none["items"], json!([]));
    fixture.check("GET", &format!("{metrics}/pods?fieldSelector=spec.nodeName%3Dx"), "", 400, "field selector").await;
    let missing = r#"pods.metrics.k8s.io "default/q" not found"#;
    let reply = fixture.send("GET", &format!("{metrics}/namespaces/default/pods/q"), "").await;
    assert_eq!((reply.code, reply.json["message"].as_str()), (404, Some(missing)));
    let reply = fixture.send("GET", &format!("{metrics}/nodes/x"), "").await;
    assert_eq!((reply.code, reply.json["message"].as_str()), (404, Some(r#"nodes "x" not found"#)));
    fixture.check("DELETE", &format!("{metrics}/nodes/n1"), "", 405, "").await;
    let table = ("accept", "application/json;as=Table;g=meta.k8s.io;v=v1");
    let table = fixture.send_as("GET", &format!("{metrics}/pods"), "", b"", &[table]).await.json;
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "cpu", "memory", "Window"]);
    assert_eq!((&table["rows"][0]["cells"][0], &table["rows"][0]["cells"][2]), (&json!("p"), &json!("2Ki")));
    task.abort();
}
