//! The same server over TLS, as clients elsewhere see it.

use std::io::Read;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::fixture::Fixture;

/// One HTTP/1.1 connection.
pub struct Wire {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

/// The certificate of the cluster's authority.
pub fn authority(fixture: &Fixture) -> Vec<CertificateDer<'static>> {
    let pem = fixture.pki.ca().certificate_pem().as_bytes().to_vec();
    CertificateDer::pem_slice_iter(&pem).map(Result::unwrap).collect()
}

impl Wire {
    pub async fn connect(fixture: &Fixture) -> Wire {
        let admin = pki::CertificateSpec::client("kubernetes-admin", "system:masters");
        Wire::connect_as(fixture, Some(fixture.pki.certificate("admin", &admin).unwrap())).await
    }

    /// As the owner of a certificate, or as nobody.
    pub async fn connect_as(fixture: &Fixture, leaf: Option<pki::Leaf>) -> Wire {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(authority(fixture));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            Some(leaf) => config.with_client_auth_cert(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap(),
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(fixture.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        fixture.env.spawn(async move { drop(connection.with_upgrades().await) });
        Wire { sender }
    }

    /// Turns the connection into a stream.
    /// The upgraded connection and the answer's headers.
    pub async fn upgrade(
        &mut self,
        target: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> (TokioIo<hyper::upgrade::Upgraded>, http::HeaderMap) {
        self.upgrade_by("POST", target, protocol, headers).await
    }

    pub async fn upgrade_by(
        &mut self,
        method: &str,
        target: &str,
        protocol: &str,
        headers: &[(&str, &str)],
    ) -> (TokioIo<hyper::upgrade::Upgraded>, http::HeaderMap) {
        let request = Request::builder().method(method).uri(target).header("host", "localhost");
        let mut request = request.header("connection", "Upgrade").header("upgrade", protocol);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.sender.send_request(request.body(Full::default()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
        assert_eq!(response.headers()["upgrade"], protocol);
        let headers = response.headers().clone();
        (TokioIo::new(hyper::upgrade::on(response).await.unwrap()), headers)
    }

    pub async fn send(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> (StatusCode, http::HeaderMap, Bytes) {
        let mut request = Request::builder().method(method).uri(target).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, body.collect().await.unwrap().to_bytes())
    }

    async fn get(&mut self, target: &str, accept: &str) -> (StatusCode, http::HeaderMap, Value) {
        let (code, headers, body) = self.send("GET", target, &[("accept", accept)], Bytes::new()).await;
        (code, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }
}

const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

#[tokio::test]
async fn discovery_is_plain_or_aggregated() {
    let fixture = Fixture::start().await;
    let mut wire = Wire::connect(&fixture).await;
    let all =
        format!("{V2},application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json");
    for path in ["/api", "/apis"] {
        let (code, headers, json) = wire.get(&format!("{path}?timeout=32s"), &all).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (StatusCode::OK, V2));
        assert_eq!(json["apiVersion"], "apidiscovery.k8s.io/v2");
        let etag = headers["etag"].to_str().unwrap().to_owned();
        let (code, _, body) = wire.send("GET", path, &[("accept", &all), ("if-none-match", &etag)], Bytes::new()).await;
        assert_eq!((code, body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    let (_, _, json) = wire
        .get("/api", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json")
        .await;
    assert_eq!(json["kind"], "APIVersions", "an older form of it is no longer served");
    let (_, _, json) = wire.get("/api", V2).await;
    let pods = json["items"][0]["versions"][0]["resources"]
        .as_array()
        .unwrap()
        .iter()
        .find(|r| r["resource"] == "pods")
        .unwrap();
    assert_eq!((pods["scope"].as_str(), pods["singularResource"].as_str()), (Some("Namespaced"), Some("pod")));
    let (_, _, json) = wire.get("/apis", "application/json").await;
    assert_eq!(json["kind"], "APIGroupList");
    let (_, _, json) = wire.get("/api", "*/*").await;
    assert_eq!(json["versions"], json!(["v1"]));
    let (_, _, json) = wire.get("/apis/apps", "application/json").await;
    assert_eq!(json["preferredVersion"]["groupVersion"], "apps/v1");
    let (_, _, json) = wire.get("/apis/apps/v1", "application/json").await;
    let scale = json["resources"].as_array().unwrap().iter().find(|r| r["name"] == "deployments/scale").unwrap();
    assert_eq!((scale["group"].as_str(), scale["kind"].as_str()), (Some("autoscaling"), Some("Scale")));
    let (code, _, _) = wire.get("/apis/nonsense", "application/json").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn schemas_version_and_health() {
    let fixture = Fixture::start().await;
    let mut wire = Wire::connect(&fixture).await;
    let (_, _, index) = wire.get("/openapi/v3?timeout=32s", "application/json, */*").await;
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap().to_owned();
    let (code, headers, document) = wire.get(&url, "application/json").await;
    assert_eq!(code, StatusCode::OK);
    assert!(headers["cache-control"].to_str().unwrap().contains("immutable"));
    assert!(document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments"].is_object());
    let (code, headers, _) = wire.get("/openapi/v3/apis/apps/v1?hash=ABC", "application/json").await;
    assert_eq!((code, headers["location"].to_str().unwrap()), (StatusCode::MOVED_PERMANENTLY, url.as_str()));
    for (accept, media, start) in [
        (
            "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            &b"\x0a\x032.0"[..],
        ),
        ("application/json", "application/json", &br#"{"swagger":"2.0","#[..]),
    ] {
        let (code, headers, body) = wire.send("GET", "/openapi/v2", &[("accept", accept)], Bytes::new()).await;
        assert_eq!((code, headers["content-type"].to_str().unwrap()), (StatusCode::OK, media));
        assert!(body.starts_with(start));
        let known = [("accept", accept), ("if-none-match", headers["etag"].to_str().unwrap())];
        let (code, _, body) = wire.send("GET", "/openapi/v2", &known, Bytes::new()).await;
        assert_eq!((code, body.len()), (StatusCode::NOT_MODIFIED, 0));
    }
    let (code, _, _) = wire.send("GET", "/openapi/v2", &[("accept", "text/html")], Bytes::new()).await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
    let (_, _, version) = wire.get("/version", "application/json").await;
    assert_eq!((version["gitVersion"].as_str(), version["minor"].as_str()), (Some("v1.35.4"), Some("35")));
    for path in ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/livez/ping"] {
        let (code, _, body) = wire.send("GET", path, &[], Bytes::new()).await;
        assert_eq!((code, &body[..]), (StatusCode::OK, &b"ok"[..]), "{path}");
    }
    let (_, _, body) = wire.send("GET", "/readyz?verbose", &[], Bytes::new()).await;
    assert!(String::from_utf8_lossy(&body).contains("[+]etcd ok\n"));
    let (code, _, _) = wire.send("GET", "/livez/nonsense", &[], Bytes::new()).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn answers_come_in_the_form_asked_for() {
    let fixture = Fixture::start().await;
    let mut wire = Wire::connect(&fixture).await;
    let maps = "/api/v1/namespaces/default/configmaps";
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "x".repeat(200_000) } });
    let json_type = [("content-type", "application/json")];
    let (code, headers, _) = wire.send("POST", maps, &json_type, body.to_string()).await;
    assert_eq!(code, StatusCode::CREATED);
    assert!(headers.contains_key("audit-id"));
    let (_, _, list) = wire.get(maps, "application/json").await;
    assert_eq!(
        (list["kind"].as_str(), list["items"][0]["data"]["k"].as_str().unwrap().len()),
        (Some("ConfigMapList"), 200_000)
    );
    for target in [maps.to_owned(), format!("{maps}/a")] {
        let (_, headers, body) = wire.send("GET", &target, &[("accept-encoding", "gzip")], Bytes::new()).await;
        assert_eq!(headers["content-encoding"], "gzip");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&body[..]).read_to_string(&mut text).unwrap();
        assert!(text.len() > 200_000 && serde_json::from_str::<Value>(&text).is_ok());
    }
    let (_, _, table) = wire.get(maps, "application/json;as=Table;v=v1;g=meta.k8s.io,application/json").await;
    assert_eq!(table["rows"][0]["cells"][0], "a");
    let (_, _, partial) =
        wire.get(&format!("{maps}/a"), "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    assert_eq!(
        (partial["kind"].as_str(), partial["metadata"]["name"].as_str(), partial.get("data")),
        (Some("PartialObjectMetadata"), Some("a"), None)
    );
    let (_, _, partial) = wire.get(maps, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io").await;
    assert_eq!(
        (partial["kind"].as_str(), partial["items"][0]["metadata"]["name"].as_str()),
        (Some("PartialObjectMetadataList"), Some("a"))
    );
    let (_, headers, body) =
        wire.send("GET", &format!("{maps}/kube"), &[("accept", "application/yaml")], Bytes::new()).await;
    assert_eq!(headers["content-type"], "application/yaml");
    assert!(String::from_utf8_lossy(&body).contains("reason: NotFound"));
    let (_, _, body) = wire.send("GET", &format!("{maps}/b?pretty=true"), &[], Bytes::new()).await;
    assert!(String::from_utf8_lossy(&body).contains("\n  \"kind\": \"Status\""));
    let (code, _, _) = wire.get(maps, "text/html").await;
    assert_eq!(code, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_body_may_be_three_mebibytes() {
    let fixture = Fixture::start().await;
    let mut wire = Wire::connect(&fixture).await;
    let body = vec![b' '; 3 * 1024 * 1024 + 1];
    let (code, _, body) =
        wire.send("POST", "/api/v1/namespaces/default/configmaps", &[("content-type", "application/json")], body).await;
    assert_eq!(code, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8_lossy(&body).contains("RequestEntityTooLarge"));
}

#[tokio::test]
async fn watches_are_lines_of_json() {
    let fixture = Fixture::start().await;
    let mut wire = Wire::connect(&fixture).await;
    fixture.ok("POST", "/api/v1/namespaces/default/configmaps", r#"{"metadata":{"name":"a"}}"#).await;
    let target = "/api/v1/namespaces/default/configmaps?watch=true&timeoutSeconds=1";
    let (_, headers, body) = wire.send("GET", target, &[], Bytes::new()).await;
    assert_eq!(headers["content-type"], "application/json");
    let line: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((line["type"].as_str(), line["object"]["metadata"]["name"].as_str()), (Some("ADDED"), Some("a")));
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let (_, _, body) = wire.send("GET", target, &accept, Bytes::new()).await;
    let line: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(
        (line["object"]["kind"].as_str(), line["object"]["rows"][0]["cells"][0].as_str()),
        (Some("Table"), Some("a"))
    );
}

#[tokio::test]
async fn the_cluster_has_its_first_objects() {
    let fixture = Fixture::start().await;
    for path in [
        "/api/v1/namespaces/kube-system",
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        "/api/v1/namespaces/default/services/kubernetes",
        "/api/v1/namespaces/default/endpoints/kubernetes",
        "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
        "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical",
    ] {
        fixture.ok("GET", path, "").await;
    }
    let service = fixture.ok("GET", "/api/v1/namespaces/default/services/kubernetes", "").await;
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
}
