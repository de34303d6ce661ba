//! The kubelet's server.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::world::World;

const API_SERVER: &str = "kube-apiserver-kubelet-client";

/// A connection to the kubelet, with a certificate of `user` if there is one.
async fn connect(world: &World, user: Option<&str>) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.authority.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let time = Arc::new(rustls::time_provider::DefaultTimeProvider);
    let builder = rustls::ClientConfig::builder_with_details(provider.clone(), time)
        .with_safe_default_protocol_versions()
        .unwrap();
    // The world's time is not the machine's: certificates are of another day.
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(pki::AnyServer(provider)));
    let config = match user {
        None => builder.with_no_client_auth(),
        Some(user) => {
            let leaf = world.authority.issue(&pki::CertificateSpec::client(user, "g")).unwrap();
            let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().as_bytes()).unwrap();
            builder.with_client_auth_cert(leaf.chain().unwrap(), key).unwrap()
        }
    };
    let stream = TcpStream::connect(("127.0.0.1", world.port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

async fn ask(world: &World, user: Option<&str>, path: &str) -> (StatusCode, String) {
    ask_as(world, user, path, "").await
}

async fn ask_as(world: &World, user: Option<&str>, path: &str, authorization: &str) -> (StatusCode, String) {
    let stream = connect(world, user).await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let _connection = client::TaskGuard::new(world.env.spawn(async move { drop(connection.await) }));
    let request = Request::get(path)
        .header("host", "n1")
        .header("authorization", authorization)
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let code = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (code, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn only_those_who_may_are_served() {
    let world = World::new().await;
    assert_eq!(ask(&world, None, "/pods").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(ask(&world, Some(API_SERVER), "/healthz").await, (StatusCode::OK, "ok".into()));
    let refused = |user: &str, part: &str| {
        let text = format!("Forbidden (user={user}, verb=get, resource=nodes, subresource(s)=[{part}])");
        (StatusCode::FORBIDDEN, text)
    };
    world.front.users.lock().push("admin".into());
    assert_eq!(ask(&world, Some("somebody"), "/pods").await, refused("somebody", "pods"));
    assert_eq!(ask(&world, Some("somebody"), "/containerLogs/a/b/c").await, refused("somebody", "proxy"));
    assert_eq!(ask(&world, Some("admin"), "/pods").await.0, StatusCode::OK);
    assert_eq!(ask_as(&world, None, "/metrics", "Bearer token-of-admin").await.0, StatusCode::OK);
    assert_eq!(ask_as(&world, None, "/metrics", "Bearer token-of-x").await, refused("x", "metrics"));
    assert_eq!(ask_as(&world, None, "/metrics", "Bearer nonsense").await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test(start_paused = true)]
async fn logs_are_served() {
    let world = World::new().await;
    world.cri.ends("done", Some(0));
    world.create(json!({"restartPolicy": "OnFailure", "containers": [{"name": "web"}, {"name": "done"}]}));
    world.create_named("stuck", json!({"containers": [{"name": "web", "image": "none:1"}]}));
    world.until_phase("Running").await;
    let check = async |path: &str, code: StatusCode, text: &str| {
        let found = ask(&world, Some(API_SERVER), &format!("/containerLogs/ns/{path}")).await;
        assert_eq!(found, (code, text.to_owned()), "{path}");
    };
    check("p/web", StatusCode::OK, "hello\n").await;
    check("p/web?timestamps=true&tailLines=1", StatusCode::OK, "2026-01-01T00:00:00Z hello\n").await;
    check("p/web?limitBytes=2", StatusCode::OK, "he").await;
    check("p/done?follow=true", StatusCode::OK, "hello\n").await;
    let previous = "previous terminated container \"web\" in pod \"p\" not found";
    check("p/web?previous=true", StatusCode::BAD_REQUEST, previous).await;
    check("p/none", StatusCode::NOT_FOUND, "container \"none\" not found in pod \"p\"").await;
    check("none/web", StatusCode::NOT_FOUND, "pod does not exist: pod \"none\" not found\n").await;
    let stuck = || world.server.get(&client::resources::PODS, &apimachinery::ObjectKey::new("ns", "stuck")).unwrap();
    world
        .until("the image is missed", || String::from_utf8(stuck().to_json()).unwrap().contains("ImagePullBackOff"))
        .await;
    let waiting = "container \"web\" in pod \"stuck\" is waiting to start: trying and failing to pull image";
    check("stuck/web", StatusCode::BAD_REQUEST, waiting).await;
    world.cri.end("web", 1);
    world.until("it runs again", || world.status("web").unwrap().restart_count == 1).await;
    check("p/web?previous=true", StatusCode::OK, "hello\n").await;
}

#[tokio::test(start_paused = true)]
async fn upgraded_connections_are_handed_through() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let runtime = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.cri.streaming(&format!("http://{}/exec/token", runtime.local_addr().unwrap()));
    let serve = async {
        let (mut stream, _) = runtime.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_lowercase();
        assert!(head.starts_with("post /exec/token http/1.1\r\n"), "{head}");
        assert!(head.contains("x-stream-protocol-version: v4.channel.k8s.io"), "{head}");
        let answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        stream.write_all(&word).await.unwrap();
    };
    let speak = async {
        let mut stream = connect(&world, Some(API_SERVER)).await;
        let request = "POST /exec/ns/p/web?command=ls&input=1&output=1 HTTP/1.1\r\nHost: n1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream.write_all(b"ping").await.unwrap();
        let mut word = [0; 4];
        stream.read_exact(&mut word).await.unwrap();
        assert_eq!(&word, b"ping");
    };
    tokio::join!(serve, speak);
}
