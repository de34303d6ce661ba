//! Keys, certificates and tokens: who may call themselves what, and until when.
//!
//! It has its own authorities (ECDSA P-256, no openssl), keeps them in a folder that is safe against power cuts, issues
//! certificates that are renewed long before they end, reads user and groups out of a client's certificate, and signs and
//! verifies service-account tokens. It knows nothing of the network, of requests, or of what a user may do.
//!
//! The main path: [`ClusterPki::load_or_create`], then [`ClusterPki::certificate`] for each server and client (again when
//! [`Leaf::renew_at`] has passed), [`ClientVerifier`] for who connects, and [`TokenKey`] for service accounts.
//!
//! ```
//! let folder = std::env::temp_dir().join(format!("pki-example-{}", std::process::id()));
//! let env = env::Env::system();
//! let pki = pki::ClusterPki::load_or_create(&folder, &env).unwrap();
//! let admin = pki.certificate("admin", &pki::CertificateSpec::client("kubernetes-admin", "system:masters")).unwrap();
//! let identity = pki.client_verifier().unwrap().identify(&admin.chain().unwrap(), env.now()).unwrap();
//! assert_eq!((identity.user.as_str(), identity.groups), ("kubernetes-admin", vec!["system:masters".to_owned()]));
//! std::fs::remove_dir_all(folder).unwrap();
//! ```

mod anyone;
mod authority;
mod cluster;
mod files;
mod leaf;
mod renewal;
mod request;
mod subject;
mod token;
mod verify;

use std::path::PathBuf;

pub use anyone::AnyServer;
pub use authority::{Authority, CertificateSpec, Usage};
pub use cluster::ClusterPki;
pub use files::write_private;
pub use leaf::Leaf;
pub use renewal::keep_fresh;
pub use request::{CertificateRequest, RequestError, Signature, request_organizations};
pub use token::{
    BoundObject, Claims, KubernetesClaims, LegacyClaims, TokenError, TokenKey, discovery_document, sign_detached,
};
pub use verify::{ClientVerifier, Identity};

/// Why a key or certificate could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot access {}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{} holds no {expected}", path.display())]
    Malformed { path: PathBuf, expected: &'static str },
    #[error("{} does not belong to the key beside it", path.display())]
    Mismatch { path: PathBuf },
    #[error("no valid {0}")]
    Invalid(&'static str),
    #[error("cannot make a key or certificate")]
    Generate(#[from] rcgen::Error),
    #[error("client certificate is not trusted")]
    Untrusted(#[source] rustls::Error),
    #[error("cannot set up certificate verification")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}
