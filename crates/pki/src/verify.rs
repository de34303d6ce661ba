//! From a client's certificate to its identity.

use std::ops::RangeInclusive;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::PkiError;
use crate::leaf::{Facts, certificates};

/// Who a client's certificate says it is. Upstream: `x509.CommonNameUserConversion`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
    /// `X509SHA256=` and the certificate's digest.
    pub credential_id: String,
    /// From when to when the certificate says so, in whole seconds.
    pub valid: RangeInclusive<Timestamp>,
}

/// Checks client certificates against a bundle of authorities.
#[derive(Clone)]
pub struct ClientVerifier(Arc<dyn ClientCertVerifier>);

impl ClientVerifier {
    /// `bundle` holds the trusted authorities' certificates, PEM.
    pub fn new(bundle: &str) -> Result<ClientVerifier, PkiError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(bundle)? {
            roots.add(certificate).map_err(PkiError::Untrusted)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        Ok(ClientVerifier(verifier.map_err(PkiError::Verifier)?))
    }

    /// The identity of the client that proved to hold the key of `chain`'s first certificate, if an authority vouches for it
    /// now. The certificate must name a user.
    pub fn identify(&self, chain: &[CertificateDer<'_>], now: Timestamp) -> Result<Identity, PkiError> {
        let (own, rest) = chain.split_first().ok_or(PkiError::Invalid("certificate"))?;
        let seconds = u64::try_from(now.as_second()).map_err(|_| PkiError::Invalid("time"))?;
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        self.0.verify_client_cert(own, rest, at).map_err(PkiError::Untrusted)?;
        let facts = Facts::of(own)?;
        if facts.common_name.is_empty() {
            return Err(PkiError::Invalid("common name in the client's certificate"));
        }
        let digest = ring::digest::digest(&ring::digest::SHA256, own);
        let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Identity {
            user: facts.common_name,
            uid: facts.uid.unwrap_or_default(),
            groups: facts.organizations,
            credential_id: format!("X509SHA256={hex}"),
            valid: facts.not_before..=facts.not_after,
        })
    }
}

impl std::fmt::Debug for ClientVerifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientVerifier")
    }
}
