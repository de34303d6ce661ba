//! One connection to a server: requests as bytes, answers as bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// An answer takes at most this long.
const LIMIT: Duration = Duration::from_secs(75);

pub(super) struct Reply {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

pub(super) struct Connection {
    env: Env,
    sender: SendRequest<Full<Bytes>>,
}

impl Connection {
    /// Connects, showing the certificate and key of `identity` (PEM), if any.
    pub(super) async fn open(
        env: &Env,
        address: SocketAddr,
        authority: &str,
        identity: Option<(&str, &str)>,
    ) -> io::Result<Connection> {
        let config = config(authority, identity).map_err(io::Error::other)?;
        let stream = TcpStream::connect(address).await?;
        let stream = TlsConnector::from(config).connect(ServerName::from(address.ip()), stream).await?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        env.spawn(async move { drop(connection.await) });
        Ok(Connection { env: env.clone(), sender })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    pub(super) async fn send(&mut self, request: Request<Bytes>) -> io::Result<Reply> {
        let exchange = async {
            self.sender.ready().await?;
            let response = self.sender.send_request(request.map(Full::new)).await?;
            let (parts, body) = response.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>(Reply { code: parts.status.as_u16(), headers: parts.headers, body })
        };
        match self.env.timeout(LIMIT, exchange).await {
            Some(reply) => reply.map_err(io::Error::other),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
        }
    }
}

fn config(
    authority: &str,
    identity: Option<(&str, &str)>,
) -> Result<Arc<rustls::ClientConfig>, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    let config = match identity {
        Some((certificate, key)) => {
            let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
            builder.with_client_auth_cert(chain?, PrivateKeyDer::from_pem_slice(key.as_bytes())?)?
        }
        None => builder.with_no_client_auth(),
    };
    Ok(Arc::new(config))
}
