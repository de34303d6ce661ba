//! What a TLS transport needs to know: the server, whom to trust, and who we are.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

/// A server and how to reach it.
#[derive(Clone, Default)]
pub struct TlsConfig {
    /// `https://host:port`, with a path prefix or none; `http` does without TLS.
    pub server: String,
    /// The certificates to trust, PEM.
    pub ca: Vec<u8>,
    /// Believe any certificate.
    pub insecure: bool,
    /// The name that the certificate must have; `None`: the server's host.
    pub server_name: Option<String>,
    /// Certificate chain and key, PEM.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
    pub token: Option<Token>,
}

/// A bearer token.
#[derive(Clone)]
pub enum Token {
    Static(String),
    /// Read again now and then: it is renewed in place.
    File(PathBuf),
}

/// Why a transport cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{0:?} is no URL of a server")]
    Server(String),
    #[error("server name {0:?} is neither a host name nor an address")]
    ServerName(String),
    #[error("the {what} is no PEM")]
    Pem { what: &'static str, source: rustls_pki_types::pem::Error },
    #[error("no certificate authority is given to trust")]
    NoAuthority,
    #[error("the {what} cannot be used")]
    Unusable { what: &'static str, source: rustls::Error },
}

impl TlsConfig {
    pub(super) fn rustls(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|source| TlsError::Unusable { what: "TLS protocol", source })?;
        let builder = if self.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(pki::AnyServer(provider)))
        } else {
            builder.with_root_certificates(self.roots()?)
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let pem = |what| move |source| TlsError::Pem { what, source };
                let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
                let chain = chain.map_err(pem("client certificate"))?;
                let key = PrivateKeyDer::from_pem_slice(key).map_err(pem("client key"))?;
                let unusable = |source| TlsError::Unusable { what: "client certificate", source };
                builder.with_client_auth_cert(chain, key).map_err(unusable)?
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&self.ca) {
            let certificate = certificate.map_err(|source| TlsError::Pem { what: "certificate authority", source })?;
            roots.add(certificate).map_err(|source| TlsError::Unusable { what: "certificate authority", source })?;
        }
        if roots.is_empty() { Err(TlsError::NoAuthority) } else { Ok(roots) }
    }

    pub(super) fn server_name(&self, host: &str) -> Result<ServerName<'static>, TlsError> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = name.trim_start_matches('[').trim_end_matches(']').to_owned();
        ServerName::try_from(name.clone()).map_err(|_| TlsError::ServerName(name))
    }
}

impl std::fmt::Debug for TlsConfig {
    /// Without secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").field("server", &self.server).finish_non_exhaustive()
    }
}
