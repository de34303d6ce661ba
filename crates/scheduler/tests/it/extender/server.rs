//! An extender: a small HTTP server, with TLS or without.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use env::Env;
use parking_lot::Mutex;
use pki::{CertificateSpec, ClusterPki};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What the server does with a request.
pub enum Answer {
    Json(Value),
    Code(u16),
    /// Nothing, ever.
    Silence,
}

type Seen = Arc<Mutex<Vec<(String, Value)>>>;
type Handler = Arc<dyn Fn(&str, &Value) -> Answer + Send + Sync>;

/// A running server; dropping it ends it.
pub struct Server {
    pub address: SocketAddr,
    seen: Seen,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(env: &Env, handler: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static) -> Server {
        Server::serve(env, None, handler).await
    }

    /// Asks clients for certificates of the authority in `folder`, and is called `name`.
    pub async fn start_tls(
        env: &Env,
        folder: &Path,
        name: &str,
        handler: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let pki = ClusterPki::load_or_create(folder, env).unwrap();
        let leaf = pki.ca().issue(&CertificateSpec::server("extender", &[name], &[])).unwrap();
        let mut roots = RootCertStore::empty();
        // Whom it trusts issued both.
        let ca = leaf.chain().unwrap().pop().unwrap();
        roots.add(pem(pki.ca().certificate_pem()).unwrap_or(ca)).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier)
            .with_single_cert(leaf.chain().unwrap(), leaf.private_key().unwrap())
            .unwrap();
        Server::serve(env, Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn serve(
        env: &Env,
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&str, &Value) -> Answer + Send + Sync + 'static,
    ) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Seen::default();
        let (handler, told): (Handler, Seen) = (Arc::new(handler), seen.clone());
        let spawner = env.clone();
        let task = env.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, handler, told) = (tls.clone(), handler.clone(), told.clone());
                spawner.spawn(async move {
                    match tls {
                        None => drop(talk(stream, handler, told).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(talk(stream, handler, told).await);
                            }
                        }
                    }
                });
            }
        });
        Server { address, seen, task }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests so far: path and body.
    pub fn seen(&self) -> Vec<(String, Value)> {
        self.seen.lock().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn pem(text: &str) -> Option<rustls::pki_types::CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(text.as_bytes()).ok()
}

async fn talk(stream: impl AsyncRead + AsyncWrite + Unpin, handler: Handler, seen: Seen) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut line, mut length, mut path) = (String::new(), 0, String::new());
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let lower = line.trim().to_ascii_lowercase();
            if lower.is_empty() {
                break;
            }
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            } else if path.is_empty() {
                path = line.split(' ').nth(1).unwrap().to_owned();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        let answer = handler(&path, &body);
        seen.lock().push((path, body));
        let (code, text) = match answer {
            Answer::Json(value) => (200, value.to_string()),
            Answer::Code(code) => (code, String::new()),
            Answer::Silence => std::future::pending().await,
        };
        let head =
            format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(text.as_bytes()).await?;
        stream.flush().await?;
    }
}
