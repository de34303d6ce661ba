//! Connections to kubelets (TLS, as the API server) and to pods (plain, or TLS without verification as upstream does).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use apimachinery::Status;
use env::Env;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::dialing;
use super::target::{Scheme, Target};
use crate::BuildError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct Dialer {
    env: Env,
    kubelet: TlsConnector,
    anyone: TlsConnector,
}

/// A connection, encrypted or not.
pub(super) enum Connection {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<TcpStream>>>),
}

impl Dialer {
    pub(super) fn new(env: &Env, certificate: &pki::Leaf, authority: &str) -> Result<Dialer, BuildError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            ClientConfig::builder_with_provider(provider.clone())
                .with_safe_default_protocol_versions()
                .map_err(BuildError::Tls)
        };
        let mut roots = RootCertStore::empty();
        for root in CertificateDer::pem_slice_iter(authority.as_bytes()) {
            roots.add(root.map_err(|_| BuildError::Authority)?).map_err(BuildError::Tls)?;
        }
        let kubelet = builder()?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificate.chain()?, certificate.private_key()?)
            .map_err(BuildError::Tls)?;
        let anyone = builder()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider.clone())))
            .with_no_client_auth();
        Ok(Dialer {
            env: env.clone(),
            kubelet: TlsConnector::from(Arc::new(kubelet)),
            anyone: TlsConnector::from(Arc::new(anyone)),
        })
    }

    pub(super) async fn connect(&self, target: &Target) -> Result<Connection, Status> {
        let dial = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(dialing)?;
            stream.set_nodelay(true).map_err(dialing)?;
            let connector = match target.scheme {
                Scheme::Http => return Ok(Connection::Plain(TokioIo::new(stream))),
                Scheme::Kubelet => &self.kubelet,
                Scheme::Https => &self.anyone,
            };
            let name = ServerName::try_from(target.host.clone()).map_err(dialing)?;
            let stream = connector.connect(name, stream).await.map_err(dialing)?;
            Ok(Connection::Tls(Box::new(TokioIo::new(stream))))
        };
        match self.env.timeout(CONNECT_TIMEOUT, dial).await {
            Some(result) => result,
            None => Err(dialing(format!("dial tcp {}: i/o timeout", target.authority()))),
        }
    }
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

/// A pod's own certificate is nobody's business: whoever may proxy to it has chosen to. Upstream: proxyTransport.
#[derive(Debug)]
struct Anyone(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
