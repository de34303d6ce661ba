//! Streams to a node: a kubelet of our own stands at the other end.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use pki::CertificateSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fixture::Fixture;
use crate::wire::Wire;

/// Answers logs with what it was asked for, exec with an echo, and knows who asks.
async fn kubelet(env: env::Env, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let target = request.uri().path_and_query().unwrap().to_string();
    let peer = request.extensions().get::<Arc<streams::Peer>>().unwrap();
    assert!(!peer.certificates.is_empty(), "the API server shows its certificate");
    let streams = target.starts_with("/exec/") || target.starts_with("/portForward/");
    if streams && request.headers().contains_key(UPGRADE) {
        let protocol = request.headers()[UPGRADE].clone();
        assert_eq!(request.headers()["x-stream-protocol-version"], "portforward.k8s.io");
        assert!(!request.headers().contains_key("sec-websocket-key"));
        env.spawn(async move {
            let mut stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
            let mut buffer = [0u8; 5];
            stream.read_exact(&mut buffer).await.unwrap();
            buffer.reverse();
            stream.write_all(&buffer).await.unwrap();
            stream.shutdown().await.unwrap();
        });
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS).header(CONNECTION, "Upgrade");
        return response.header(UPGRADE, protocol).body(Full::default()).unwrap();
    }
    if target.ends_with("/waiting") {
        let text = "container \"waiting\" in pod \"p\" is waiting to start: ContainerCreating";
        return Response::builder().status(400).body(Full::from(text)).unwrap();
    }
    Response::new(Full::from(format!("{} {target}", request.method())))
}

async fn node(fixture: &Fixture) -> tokio::task::JoinHandle<()> {
    let spec = CertificateSpec::server("system:node:n1", &["n1"], &["127.0.0.1".parse().unwrap()]);
    let leaf = fixture.pki.certificate("kubelet", &spec).unwrap();
    let certificate = streams::ServerCertificate::new(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap();
    let authorities = crate::wire::authority(fixture);
    let config = streams::server_config(&certificate, &authorities).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let env = fixture.env.clone();
    let server = streams::Server::tls(env.clone(), config);
    let task = fixture.env.spawn(async move {
        let service = move |request| {
            let env = env.clone();
            async move { kubelet(env, request).await }
        };
        server.run(listener, service, std::future::pending()).await.unwrap();
    });
    fixture.ok("POST", "/api/v1/nodes", r#"{"metadata":{"name":"n1"}}"#).await;
    let status = serde_json::json!({ "status": {
        "addresses": [{ "type": "Hostname", "address": "n1" }, { "type": "InternalIP", "address": "127.0.0.1" }],
        "daemonEndpoints": { "kubeletEndpoint": { "Port": port } },
    } });
    fixture.ok("PATCH", "/api/v1/nodes/n1/status", &status.to_string()).await;
    task
}

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn logs_exec_and_proxies_reach_the_node() {
    let fixture = Fixture::start().await;
    let task = node(&fixture).await;
    let pod = r#"{"metadata":{"name":"p"},"spec":{"nodeName":"n1","containers":[{"name":"a","image":"x"},{"name":"waiting","image":"y"}]}}"#;
    fixture.ok("POST", PODS, pod).await;
    fixture.ok("POST", PODS, r#"{"metadata":{"name":"q"},"spec":{"containers":[{"name":"a","image":"x"}]}}"#).await;

    let check = async |target: &str, code: u16, text: &str| fixture.check("GET", target, "", code, text).await;
    let log = format!("{PODS}/p/log?container=a&tailLines=5&follow=true&timestamps=false");
    check(&log, 200, "GET /containerLogs/default/p/a?follow=true&tailLines=5").await;
    check(&format!("{PODS}/p/log"), 400, "a container name must be specified for pod p, choose one of: [a waiting]")
        .await;
    check(&format!("{PODS}/p/log?container=z"), 400, "container z is not valid for pod p").await;
    check(&format!("{PODS}/p/log?container=a&tailLines=-1"), 422, "tailLines").await;
    check(&format!("{PODS}/p/log?container=waiting"), 400, "is waiting to start: ContainerCreating").await;
    check(&format!("{PODS}/q/log"), 204, "").await;
    check(&format!("{PODS}/none/log"), 404, "not found").await;
    check("/api/v1/nodes/n1/proxy/stats/summary?x=1", 200, "GET /stats/summary?x=1").await;

    let mut wire = Wire::connect(&fixture).await;
    let target = format!("{PODS}/p/exec?command=ls&command=a%20b&container=a&stdin=true&stdout=true&tty=false");
    let protocol = ("x-stream-protocol-version", "portforward.k8s.io");
    let (mut stream, _) = wire.upgrade(&target, "SPDY/3.1", &[protocol]).await;
    stream.write_all(b"hello").await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert_eq!(back, b"olleh");

    // What is in a WebSocket's messages is SPDY for the node.
    let mut wire = Wire::connect(&fixture).await;
    let headers = [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "v9.unknown, SPDY/3.1+portforward.k8s.io"),
    ];
    let (mut stream, headers) = wire.upgrade(&format!("{PODS}/p/portforward"), "websocket", &headers).await;
    assert_eq!(headers["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
    assert_eq!(headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    // A final binary message of five bytes, masked with zeros.
    stream.write_all(b"\x82\x85\0\0\0\0hello").await.unwrap();
    let mut back = [0; 7];
    stream.read_exact(&mut back).await.unwrap();
    assert_eq!(&back, b"\x82\x05olleh");

    // A log is told as messages to whoever asks so.
    let mut wire = Wire::connect(&fixture).await;
    let headers = [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "binary.k8s.io"),
    ];
    let log = format!("{PODS}/p/log?container=a");
    let (mut stream, headers) = wire.upgrade_by("GET", &log, "websocket", &headers).await;
    assert_eq!(headers["sec-websocket-protocol"], "binary.k8s.io");
    let mut told = [0; 2 + 30];
    stream.read_exact(&mut told).await.unwrap();
    assert_eq!(&told, b"\x82\x1eGET /containerLogs/default/p/a");
    task.abort();
}

#[tokio::test]
async fn pods_and_services_are_proxied_to() {
    let fixture = Fixture::start().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let plain = streams::Server::plain(fixture.env.clone());
    let task = fixture.env.spawn(async move {
        let service = |request: Request<Incoming>| async move {
            let (method, uri, headers) = (request.method(), request.uri(), request.headers());
            let answer = Response::builder().header("access-control-allow-origin", "*");
            let text = match uri.path() {
                "/page" => {
                    let page = Full::<Bytes>::from(r#"<a href="/next">/next</a>"#);
                    return answer.header("content-type", "text/html; charset=utf-8").body(page).unwrap();
                }
                "/moved" => return answer.status(302).header("location", "/there/").body(Full::default()).unwrap(),
                "/how" => headers["x-forwarded-uri"].to_str().unwrap().to_owned(),
                _ => format!("{method} {uri}"),
            };
            answer.body(Full::<Bytes>::from(text)).unwrap()
        };
        plain.run(listener, service, std::future::pending()).await.unwrap();
    });
    fixture.ok("POST", PODS, r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"a","image":"x"}]}}"#).await;
    fixture.check("GET", &format!("{PODS}/p:{port}/proxy/x"), "", 400, "address not allowed").await;
    let status = r#"{"status":{"podIP":"127.0.0.1","podIPs":[{"ip":"127.0.0.1"}]}}"#;
    fixture.ok("PATCH", &format!("{PODS}/p/status"), status).await;
    fixture.check("POST", &format!("{PODS}/p:{port}/proxy/x/y?z=1"), "body", 200, "POST /x/y?z=1").await;
    let place = format!("{PODS}/p:{port}/proxy");
    let reply = fixture.send("GET", &format!("{place}?a=b"), "").await;
    assert_eq!((reply.code, reply.headers["location"].to_str().unwrap()), (301, &*format!("{place}/?a=b")));
    let reply = fixture.send("GET", &format!("{place}/moved"), "").await;
    assert_eq!((reply.code, reply.headers["location"].to_str().unwrap()), (302, &*format!("{place}/there/")));
    fixture.check("GET", &format!("{place}/page"), "", 200, &format!("<a href=\"{place}/next\">/next</a>")).await;
    fixture.check("GET", &format!("{place}/how"), "", 200, &format!("{place}/how")).await;
    let reply = fixture.send("OPTIONS", &format!("{place}/"), "").await;
    assert_eq!((reply.code, reply.text.as_str()), (200, "OPTIONS /"));
    assert!(!reply.headers.contains_key("access-control-allow-origin"));
    let service = r#"{"metadata":{"name":"s"},"spec":{"ports":[{"port":80}],"selector":{"a":"b"}}}"#;
    fixture.ok("POST", "/api/v1/namespaces/default/services", service).await;
    let proxy = "/api/v1/namespaces/default/services/s:80/proxy/z";
    fixture.check("GET", proxy, "", 404, "services \\\"s\\\" not found").await;
    fixture.ok("POST", "/api/v1/namespaces/default/endpoints", r#"{"metadata":{"name":"s"}}"#).await;
    fixture.check("GET", proxy, "", 503, "no endpoints available for service").await;
    let slice = serde_json::json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": "s-1", "namespace": "default", "labels": { "kubernetes.io/service-name": "s" } }, "addressType": "IPv4",
        "ports": [{ "port": port }], "endpoints": [{ "addresses": ["127.0.0.1"] }],
    });
    // Written past the server, which takes no loopback address.
    let txn = store::Txn::create("/registry/endpointslices/default/s-1", slice.to_string());
    fixture.store.commit(txn).await.unwrap();
    fixture.check("GET", proxy, "", 200, "GET /z").await;
    fixture.check("GET", "/api/v1/namespaces/default/services/none/proxy/", "", 404, "").await;
    task.abort();
}

#[tokio::test]
async fn a_node_that_is_away_is_an_error() {
    let fixture = Fixture::start().await;
    let task = node(&fixture).await;
    task.abort();
    drop(task.await);
    fixture
        .check("GET", "/api/v1/nodes/n1/proxy/healthz", "", 503, "error trying to reach service: dial tcp 127.0.0.1:")
        .await;
    fixture.check("GET", "/api/v1/nodes/none/proxy/healthz", "", 404, "not found").await;
    let mut events = fixture.watch("/api/v1/nodes?watch=1").await;
    assert!(events.next().await.is_some());
}
