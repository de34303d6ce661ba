use std::sync::atomic::{AtomicUsize, Ordering};

use http_body_util::{BodyExt, Empty, Full};
use rcgen::{CertificateParams, Issuer, KeyPair};
use rustls::ClientConfig;
use rustls_pki_types::{PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::{ServerCertificate, server_config};

struct Party {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

fn authority() -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.der().clone(), Issuer::new(params, key))
}

fn party(issuer: &Issuer<'_, KeyPair>, name: &str) -> Party {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, issuer).unwrap();
    Party { chain: vec![certificate.der().clone()], key: PrivateKeyDer::try_from(key.serialize_der()).unwrap() }
}

fn client(authority: &CertificateDer<'static>, own: Option<Party>, protocol: &[u8]) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match own {
        Some(party) => builder.with_client_auth_cert(party.chain, party.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Arc::new(config)
}

async fn connect(address: SocketAddr, config: Arc<ClientConfig>) -> tokio_rustls::client::TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("server.test").unwrap();
    tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap()
}

async fn whoami(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let peer = request.extensions().get::<Arc<Peer>>().unwrap();
    let text = format!("{:?} {} certificates", request.version(), peer.certificates.len());
    Response::new(Full::new(text.into()))
}

async fn get_1(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> String {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await.unwrap();
    let connection = Env::system().spawn(connection);
    let request = Request::get("/").header("host", "x").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    String::from_utf8(body.to_vec()).unwrap()
}

async fn get_2(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> String {
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
    let connection = Env::system().spawn(connection);
    let request = Request::get("http://x/").body(Empty::<Bytes>::new()).unwrap();
    let body = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap().to_bytes();
    connection.abort();
    String::from_utf8(body.to_vec()).unwrap()
}

#[tokio::test]
async fn both_versions_with_and_without_client_certificates() {
    let env = Env::system();
    let (root, issuer) = authority();
    let own = party(&issuer, "server.test");
    let certificate = ServerCertificate::new(own.chain, own.key).unwrap();
    let config = server_config(&certificate, std::slice::from_ref(&root)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let server = env.spawn(Server::tls(env.clone(), config).run(listener, whoami, async move { drop(stopped.await) }));

    let h1 = |own| connect(address, client(&root, own, b"http/1.1"));
    let h2 = |own| connect(address, client(&root, own, b"h2"));
    assert_eq!(get_1(h1(None).await).await, "HTTP/1.1 0 certificates");
    assert_eq!(get_2(h2(None).await).await, "HTTP/2.0 0 certificates");
    assert_eq!(get_1(h1(Some(party(&issuer, "me"))).await).await, "HTTP/1.1 1 certificates");
    assert_eq!(get_2(h2(Some(party(&issuer, "me"))).await).await, "HTTP/2.0 1 certificates");

    // New connections see the swapped certificate, old ones go on.
    let old = h1(None).await;
    let before = old.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned();
    let fresh = party(&issuer, "server.test");
    certificate.swap(fresh.chain.clone(), fresh.key).unwrap();
    let new = h1(None).await;
    assert_eq!(new.get_ref().1.peer_certificates().unwrap()[0], fresh.chain[0]);
    assert_ne!(before, fresh.chain[0]);
    assert_eq!(get_1(old).await, "HTTP/1.1 0 certificates");
    let (mixed, other) = (party(&issuer, "a"), party(&issuer, "b"));
    assert!(certificate.swap(mixed.chain, other.key).is_err());
    assert_eq!(h1(None).await.get_ref().1.peer_certificates().unwrap()[0], fresh.chain[0]);

    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn requests_under_way_end_within_the_grace_period() {
    let env = Env::system();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (entered, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let ended = Arc::new(AtomicUsize::new(0));
    let service = {
        let (entered, release, ended) = (entered.clone(), release.clone(), ended.clone());
        move |request: Request<Incoming>| {
            let (entered, release, ended) = (entered.clone(), release.clone(), ended.clone());
            async move {
                entered.notify_one();
                if request.uri().path() == "/forever" {
                    std::future::pending::<()>().await;
                }
                release.notified().await;
                ended.fetch_add(1, Ordering::SeqCst);
                Response::new(Full::new(Bytes::from("done")))
            }
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let server = Server { grace: Duration::from_millis(200), ..Server::plain(env.clone()) };
    let server = env.spawn(server.run(listener, service, async move { drop(stopped.await) }));

    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    let mut forever = TcpStream::connect(address).await.unwrap();
    forever.write_all(b"GET /forever HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    entered.notified().await;
    stop.send(()).unwrap();
    release.notify_one();
    let mut answer = Vec::new();
    slow.read_to_end(&mut answer).await.unwrap();
    assert!(answer.ends_with(b"done"), "{}", String::from_utf8_lossy(&answer));
    server.await.unwrap().unwrap();
    let mut nothing = Vec::new();
    let _ = forever.read_to_end(&mut nothing).await;
    assert_eq!((nothing.len(), ended.load(Ordering::SeqCst)), (0, 1));
}

#[tokio::test]
async fn connections_can_be_upgraded() {
    let env = Env::system();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = |mut request: Request<Incoming>| async move {
        let upgrade = hyper::upgrade::on(&mut request);
        Env::system().spawn(async move {
            let mut io = TokioIo::new(upgrade.await.unwrap());
            let mut bytes = [0; 4];
            io.read_exact(&mut bytes).await.unwrap();
            bytes.reverse();
            io.write_all(&bytes).await.unwrap();
        });
        let answer = Response::builder().status(101).header("connection", "upgrade").header("upgrade", "echo");
        answer.body(Empty::<Bytes>::new()).unwrap()
    };
    let server = env.spawn(Server::plain(env.clone()).run(listener, service, std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\nabcd";
    stream.write_all(head).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 101") && answer.ends_with("dcba"), "{answer}");
    server.abort();
}

#[tokio::test]
async fn a_silent_client_does_not_hold_a_slot() {
    let env = Env::system();
    let (_, issuer) = authority();
    let own = party(&issuer, "server.test");
    let config = server_config(&ServerCertificate::new(own.chain, own.key).unwrap(), &[]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = Server { handshake_timeout: Duration::from_millis(50), ..Server::tls(env.clone(), config) };
    let server = env.spawn(server.run(listener, whoami, std::future::pending()));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut nothing = Vec::new();
    let ended = env.timeout(Duration::from_secs(10), stream.read_to_end(&mut nothing)).await;
    assert!(ended.is_some() && nothing.is_empty());
    server.abort();
}
