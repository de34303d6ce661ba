//! The TLS transport against a small server on loopback.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use client::{
    Client, Error, Selection, TaskGuard, Tls, TlsConfig, Token, TransportError, WatchEvent, WatchOptions, resources,
};
use futures_util::{StreamExt, stream};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;

struct Served {
    address: String,
    ca: String,
    identity: (Vec<u8>, Vec<u8>),
    connections: Arc<AtomicUsize>,
    _task: TaskGuard,
}

type Answer = http::Response<BoxBody<Bytes, Infallible>>;

async fn serve(alpn: &[&str]) -> Served {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |names: Vec<String>| {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(names).unwrap().signed_by(&key, &ca).unwrap(), key)
    };
    let (server, server_key) = issue(vec!["127.0.0.1".into()]);
    let (user, user_key) = issue(vec!["user".into()]);
    let mut roots = RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    let verifier = verifier.allow_unauthenticated().build().unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![server.der().clone()], PrivateKeyDer::try_from(server_key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let accept = accept(listener, TlsAcceptor::from(Arc::new(config)), connections.clone());
    Served {
        address,
        ca: ca.pem(),
        identity: (user.pem().into_bytes(), user_key.serialize_pem().into_bytes()),
        connections,
        _task: TaskGuard::new(Env::system().spawn(accept)),
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, connections: Arc<AtomicUsize>) {
    loop {
        let (tcp, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, Ordering::SeqCst);
        let acceptor = acceptor.clone();
        drop(Env::system().spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let user = tls.get_ref().1.peer_certificates().is_some();
            let service = hyper::service::service_fn(move |request| answer(request, user));
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            drop(server.serve_connection(TokioIo::new(tls), service).await);
        }));
    }
}

/// Answers reads of an object by name, and a watch in many small pieces.
async fn answer(request: http::Request<Incoming>, user: bool) -> Result<Answer, Infallible> {
    let token = request.headers().get("authorization").is_some_and(|value| value == "Bearer secret");
    let respond = |code: u16, text: String| {
        Ok(http::Response::builder().status(code).body(Full::new(Bytes::from(text)).boxed()).unwrap())
    };
    if !user && !token {
        return respond(401, String::from_utf8(apimachinery::Status::unauthorized().to_json()).unwrap());
    }
    if !request.uri().query().unwrap_or_default().contains("watch=true") {
        let name = request.uri().path().rsplit('/').next().unwrap_or_default();
        return respond(200, format!(r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}","resourceVersion":"3"}}}}"#));
    }
    let lines: String = (1..=50)
        .map(|i| {
            format!(
                "{{\"type\":\"ADDED\",\"object\":{{\"metadata\":{{\"name\":\"o{i}\",\"resourceVersion\":\"{i}\"}}}}}}\n"
            )
        })
        .collect();
    let pieces: Vec<Bytes> = lines.into_bytes().chunks(13).map(Bytes::copy_from_slice).collect();
    let pieces = stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        Ok(Frame::data(piece))
    });
    Ok(http::Response::new(BodyExt::boxed(StreamBody::new(pieces))))
}

fn client(config: &TlsConfig) -> Client {
    Client::new(Env::system(), Arc::new(Tls::new(Env::system(), config).unwrap()), "test")
}

#[tokio::test]
async fn requests_share_connections() {
    // HTTP/2 takes them side by side; HTTP/1.1 one after the other.
    for (alpn, most) in [(vec!["h2", "http/1.1"], 1), (vec!["http/1.1"], 2)] {
        let served = serve(&alpn).await;
        let config = TlsConfig {
            server: format!("https://{}", served.address),
            ca: served.ca.clone().into_bytes(),
            identity: Some(served.identity.clone()),
            ..TlsConfig::default()
        };
        let client = client(&config);
        let warm = client.get(&resources::CONFIG_MAPS, &key("warm")).await.unwrap();
        assert_eq!((warm.name(), warm.revision()), ("warm", 3));
        let watch = client.watch(&resources::CONFIG_MAPS, &Selection::all(), &WatchOptions::default()).await.unwrap();
        for i in 0..20 {
            let name = format!("c{i}");
            assert_eq!(client.get(&resources::CONFIG_MAPS, &key(&name)).await.unwrap().name(), name);
        }
        let events: Vec<_> = watch.collect().await;
        assert_eq!(events.len(), 50);
        assert!(matches!(&events[49], WatchEvent::Added(object) if object.revision() == 50));
        assert!(served.connections.load(Ordering::SeqCst) <= most);
    }
}

#[tokio::test]
async fn who_we_are_and_whom_we_believe() {
    let served = serve(&["h2"]).await;
    let anonymous = TlsConfig {
        server: format!("https://{}", served.address),
        ca: served.ca.clone().into_bytes(),
        ..TlsConfig::default()
    };
    let get = async |config: &TlsConfig| client(config).get(&resources::CONFIG_MAPS, &key("a")).await;
    assert_eq!(get(&anonymous).await.unwrap_err().status().unwrap().code, 401);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "secret\n").unwrap();
    for token in [Token::Static("secret".into()), Token::File(path)] {
        get(&TlsConfig { token: Some(token), ..anonymous.clone() }).await.unwrap();
    }
    let other = serve(&["h2"]).await;
    let distrustful = TlsConfig { ca: other.ca.clone().into_bytes(), ..anonymous.clone() };
    let error = get(&distrustful).await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Connect { .. })), "{error:?}");
    let misnamed = TlsConfig { server_name: Some("elsewhere".into()), ..anonymous.clone() };
    assert!(get(&misnamed).await.is_err());
    let careless = TlsConfig { insecure: true, token: Some(Token::Static("secret".into())), ..distrustful };
    get(&careless).await.unwrap();
}

#[tokio::test]
async fn renewed_credentials_come_into_use() {
    let served = serve(&["h2"]).await;
    let mut config = TlsConfig {
        server: format!("https://{}", served.address),
        ca: served.ca.clone().into_bytes(),
        token: Some(Token::Static("old".into())),
        ..TlsConfig::default()
    };
    let tls = Arc::new(Tls::new(Env::system(), &config).unwrap());
    let client = Client::new(Env::system(), tls.clone(), "test");
    assert!(client.get(&resources::CONFIG_MAPS, &key("a")).await.is_err());
    config.token = Some(Token::Static("secret".into()));
    tls.reload(&config).unwrap();
    client.get(&resources::CONFIG_MAPS, &key("a")).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_failed_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = TlsConfig {
        server: format!("https://{}", listener.local_addr().unwrap()),
        insecure: true,
        ..TlsConfig::default()
    };
    drop(listener);
    let error = client(&config).get(&resources::CONFIG_MAPS, &key("a")).await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Connect { .. })) && !error.is_unknown_outcome());
    assert!(Tls::new(Env::system(), &TlsConfig { server: "host:1".into(), ..TlsConfig::default() }).is_err());
    assert!(Tls::new(Env::system(), &TlsConfig { server: "https://h".into(), ..TlsConfig::default() }).is_err());
}
