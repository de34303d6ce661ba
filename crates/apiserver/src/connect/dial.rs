//! Connections to kubelets (TLS, as the API server) and to pods (plain, or TLS without verification as upstream does).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use env::Env;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::target::{Scheme, Target};
use crate::BuildError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Dialer {
    env: Env,
    roots: Arc<RootCertStore>,
    kubelet: RwLock<TlsConnector>,
    anyone: TlsConnector,
}

/// A connection, encrypted or not.
pub(super) enum Connection {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Dialer {
    pub(super) fn new(env: &Env, certificate: &pki::Leaf, authority: &str) -> Result<Dialer, BuildError> {
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(root.map_err(|_| BuildError::Authority)?).map_err(BuildError::Tls)?;
        }
        let roots = Arc::new(roots);
        let kubelet = RwLock::new(kubelet(&roots, certificate)?);
        let anyone = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(pki::AnyServer(provider())))
            .with_no_client_auth();
        Ok(Dialer { env: env.clone(), roots, kubelet, anyone: TlsConnector::from(Arc::new(anyone)) })
    }

    /// Shows kubelets this certificate from now on. Sessions are not resumed: they would go on with the old one.
    pub(super) fn renew(&self, certificate: &pki::Leaf) -> Result<(), BuildError> {
        let fresh = kubelet(&self.roots, certificate)?;
        *self.kubelet.write() = fresh;
        Ok(())
    }

    pub(super) async fn connect(&self, target: &Target) -> io::Result<Connection> {
        let told = |error: io::Error| {
            let what = match error.kind() {
                io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
                io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
                _ => error.to_string(),
            };
            io::Error::other(format!("dial tcp {}: {what}", target.authority()))
        };
        let dial = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(told)?;
            stream.set_nodelay(true)?;
            let connector = match target.scheme {
                Scheme::Http => return Ok(Connection::Plain(TokioIo::new(stream))),
                Scheme::Kubelet => self.kubelet.read().clone(),
                Scheme::Https => self.anyone.clone(),
            };
            let name = ServerName::try_from(target.host.clone()).map_err(io::Error::other)?;
            let stream = connector.connect(name, stream).await?;
            Ok(Connection::Tls(Box::new(TokioIo::new(stream))))
        };
        match self.env.timeout(CONNECT_TIMEOUT, dial).await {
            Some(result) => result,
            None => Err(io::Error::other(format!("dial tcp {}: i/o timeout", target.authority()))),
        }
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, BuildError> {
    ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(BuildError::Tls)
}

fn kubelet(roots: &Arc<RootCertStore>, certificate: &pki::Leaf) -> Result<TlsConnector, BuildError> {
    let config = builder()?
        .with_root_certificates(roots.clone())
        .with_client_auth_cert(certificate.chain()?, certificate.private_key()?)
        .map_err(BuildError::Tls)?;
    Ok(TlsConnector::from(Arc::new(config)))
}

impl Read for Connection {
    fn poll_read(self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(io) => Pin::new(io).poll_read(ctx, buffer),
            Connection::Tls(io) => Pin::new(io.as_mut()).poll_read(ctx, buffer),
        }
    }
}

impl Write for Connection {
    fn poll_write(self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Connection::Plain(io) => Pin::new(io).poll_write(ctx, bytes),
            Connection::Tls(io) => Pin::new(io.as_mut()).poll_write(ctx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(io) => Pin::new(io).poll_flush(ctx),
            Connection::Tls(io) => Pin::new(io.as_mut()).poll_flush(ctx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Connection::Plain(io) => Pin::new(io).poll_shutdown(ctx),
            Connection::Tls(io) => Pin::new(io.as_mut()).poll_shutdown(ctx),
        }
    }
}
