//! One registry as one pull sees it: `oci-client` behind our words, limits and errors.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use oci_client::client::{Certificate, CertificateEncoding, Client, ClientConfig, ClientProtocol};
use oci_client::errors::{DigestError, OciDistributionError, OciErrorCode};
use oci_client::manifest::OciDescriptor;
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference as OciReference, RegistryOperation};

use super::config::{DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, MAX_DOCUMENT, OCI_INDEX, OCI_MANIFEST};
use super::{Digest, ImageError, Reference};

/// How a registry is told who asks. CRI's `AuthConfig` becomes one of these.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    #[default]
    Anonymous,
    /// User and password, sent to the registry or to the token service it names.
    Basic { username: String, password: String },
    /// A token that is sent as it is.
    Bearer(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Credentials::Anonymous => "Anonymous",
            Credentials::Basic { .. } => "Basic(..)",
            Credentials::Bearer(_) => "Bearer(..)",
        })
    }
}

impl Credentials {
    fn registry_auth(&self) -> RegistryAuth {
        match self {
            Credentials::Anonymous => RegistryAuth::Anonymous,
            Credentials::Basic { username, password } => RegistryAuth::Basic(username.clone(), password.clone()),
            Credentials::Bearer(token) => RegistryAuth::Bearer(token.clone()),
        }
    }
}

pub(crate) struct Registry {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
}

impl Registry {
    /// A client of its own, so that no other pull's credentials or tokens are used. Reads the system's certificates: may block.
    pub(crate) fn new(
        reference: &Reference,
        credentials: &Credentials,
        certificates: &[Vec<u8>],
    ) -> Result<Registry, ImageError> {
        // Fails only if a provider is installed already, and then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_from(client_config(reference, certificates));
        let client = client.map_err(|error| request(&chain(&error), false))?;
        Ok(Registry { client, reference: reference.clone(), auth: credentials.registry_auth() })
    }

    fn oci_reference(&self, digest: Option<Digest>) -> OciReference {
        let (domain, path) = (self.reference.domain().to_owned(), self.reference.path().to_owned());
        match (digest, self.reference.tag()) {
            (Some(digest), _) => OciReference::with_digest(domain, path, digest.to_string()),
            (None, tag) => OciReference::with_tag(domain, path, tag.unwrap_or("latest").to_owned()),
        }
    }

    /// Introduces itself, if the registry wants that.
    pub(crate) async fn authenticate(&self) -> Result<(), ImageError> {
        let reference = self.oci_reference(self.reference.digest());
        self.client.auth(&reference, &self.auth, RegistryOperation::Pull).await.map_err(|error| self.error(error))?;
        Ok(())
    }

    /// The manifest or index with this digest, or else the one the reference names.
    pub(crate) async fn manifest(&self, digest: Option<Digest>) -> Result<(Vec<u8>, Digest), ImageError> {
        let digest = digest.or(self.reference.digest());
        let reference = self.oci_reference(digest);
        let accepted = [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST];
        let pulled = self.client.pull_manifest_raw(&reference, &self.auth, &accepted).await;
        let (bytes, _) = pulled.map_err(|error| match self.error(error) {
            ImageError::BlobNotFound => ImageError::ManifestNotFound(self.reference.to_string()),
            error => error,
        })?;
        if bytes.len() as u64 > MAX_DOCUMENT {
            return Err(ImageError::TooLarge { what: "manifest", size: bytes.len() as u64, limit: MAX_DOCUMENT });
        }
        let actual = digest.map_or_else(|| Digest::of(&bytes), |expected| expected.like(&bytes));
        match digest {
            Some(expected) if expected != actual => Err(ImageError::WrongDigest { expected, actual }),
            _ => Ok((bytes.to_vec(), actual)),
        }
    }

    /// A blob's bytes as they come; whoever keeps them checks the digest.
    pub(crate) async fn blob(
        &self,
        descriptor: &Descriptor,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ImageError> {
        let reference = self.oci_reference(self.reference.digest());
        self.client.store_auth_if_needed(reference.resolve_registry(), &self.auth).await;
        let wanted = OciDescriptor {
            digest: descriptor.digest.to_string(),
            size: descriptor.size as i64,
            media_type: descriptor.media_type.clone(),
            ..OciDescriptor::default()
        };
        let stream = self.client.pull_blob_stream(&reference, &wanted).await.map_err(|error| self.error(error))?;
        Ok(stream.stream)
    }

    fn error(&self, error: OciDistributionError) -> ImageError {
        let unauthorized = |message: String| ImageError::Unauthorized { message };
        match error {
            OciDistributionError::ImageManifestNotFoundError(_) => ImageError::BlobNotFound,
            OciDistributionError::UnauthorizedError { url } => unauthorized(format!("{url} answered 401 Unauthorized")),
            OciDistributionError::AuthenticationFailure(reason) => unauthorized(reason),
            OciDistributionError::RegistryError { envelope, url } => {
                let has = |codes: &[OciErrorCode]| envelope.errors.iter().any(|error| codes.contains(&error.code));
                let message = envelope.errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join(", ");
                use OciErrorCode::*;
                if has(&[BlobUnknown, ManifestUnknown, ManifestBlobUnknown, NameUnknown, NotFound]) {
                    ImageError::BlobNotFound
                } else if has(&[Unauthorized, Denied]) {
                    unauthorized(message)
                } else {
                    let code = if has(&[Toomanyrequests]) { 429 } else { 400 };
                    ImageError::Status { url, code, message }
                }
            }
            OciDistributionError::ServerError { code: 404, .. } => ImageError::BlobNotFound,
            OciDistributionError::ServerError { code: 401 | 403, message, .. } => unauthorized(message),
            OciDistributionError::ServerError { code, url, message } => ImageError::Status { url, code, message },
            OciDistributionError::DigestError(error) => digest_error(&error),
            // Unless the address itself is wrong, another try may find the network better.
            OciDistributionError::RequestError(error) => request(&chain(&error), !error.is_builder()),
            other => request(&chain(&other), false),
        }
    }
}

fn client_config(reference: &Reference, certificates: &[Vec<u8>]) -> ClientConfig {
    let mut config = ClientConfig {
        extra_root_certificates: certificates.iter().cloned().map(certificate).collect(),
        platform_resolver: None,
        connect_timeout: Some(Duration::from_secs(30)),
        read_timeout: Some(Duration::from_secs(60)),
        user_agent: concat!("oxikube/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    if reference.is_loopback() {
        config.protocol = ClientProtocol::HttpsExcept(vec![reference.domain().to_owned()]);
        // Go's clients never ask a proxy for an address of this machine; here that takes an exception to everything.
        config.http_proxy = Some("http://127.0.0.1:1".to_owned());
        config.no_proxy = Some("*,0.0.0.0/0,::/0".to_owned());
    }
    config
}

fn certificate(pem: Vec<u8>) -> Certificate {
    Certificate { encoding: CertificateEncoding::Pem, data: pem }
}

/// What broke a blob's stream.
pub(crate) fn stream_error(error: &io::Error) -> ImageError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<DigestError>()) {
        Some(digest) => digest_error(digest),
        None => request(&chain(error), true),
    }
}

fn digest_error(error: &DigestError) -> ImageError {
    if let DigestError::VerificationError { expected, actual } = error
        && let (Ok(expected), Ok(actual)) = (expected.parse(), actual.parse())
    {
        return ImageError::WrongDigest { expected, actual };
    }
    request(&error.to_string(), false)
}

fn request(message: &str, transient: bool) -> ImageError {
    ImageError::Request { message: message.to_owned(), transient }
}

/// The error with its sources, none said twice.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}
