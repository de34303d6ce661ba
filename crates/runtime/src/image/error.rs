//! What can go wrong with images, in the words users of containerd know.

use std::io;
use std::path::{Path, PathBuf};

use super::{Digest, digest::DigestError};

/// Why an operation on images failed. [`ImageError::report`] gives the whole chain as one line.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The text is no image reference.
    #[error("{reason}: {reference:?}")]
    InvalidReference { reference: String, reason: &'static str },
    /// The container's or the image's id can't be the name of a folder.
    #[error("invalid id {0:?}")]
    InvalidId(String),
    /// No such image in this store.
    #[error("image {0:?}: not found")]
    NoSuchImage(String),
    /// The context of everything that goes wrong in a pull.
    #[error("failed to pull and unpack image {reference:?}")]
    Pull { reference: String, source: Box<ImageError> },
    /// The registry couldn't tell what the reference is.
    #[error("failed to resolve reference {reference:?}")]
    Resolve { reference: String, source: Box<ImageError> },
    /// The context of a blob's transfer.
    #[error("failed to copy {digest}")]
    Fetch { digest: Digest, source: Box<ImageError> },
    /// The registry has no such manifest.
    #[error("{0}: not found")]
    ManifestNotFound(String),
    /// The registry has no such blob.
    #[error("blob not found")]
    BlobNotFound,
    /// The registry refuses these credentials, or asks for some.
    #[error(
        "pull access denied, repository does not exist or may require authorization: server message: {message}: authorization failed"
    )]
    Unauthorized { message: String },
    /// Credentials of a kind that can't be used.
    #[error("unsupported credentials: {0}")]
    Credentials(&'static str),
    /// The registry answered, but not with what was asked for.
    #[error("unexpected status from request to {url}: {code} {message}")]
    Status { url: String, code: u16, message: String },
    /// The registry couldn't be reached, or broke off.
    #[error("failed to do request: {message}")]
    Request { message: String, transient: bool },
    /// An index lists no manifest for this machine.
    #[error("no match for platform in manifest {digest}: linux/{architecture}: not found")]
    NoPlatform { digest: Digest, architecture: &'static str },
    /// A manifest, index or configuration that isn't one.
    #[error("invalid {what} {digest}: {message}")]
    Malformed { what: &'static str, digest: Digest, message: String },
    /// Content of another digest than announced.
    #[error("unexpected commit digest {actual}, expected {expected}: failed precondition")]
    WrongDigest { expected: Digest, actual: Digest },
    /// Content of another size than announced.
    #[error("unexpected commit size {actual}, expected {expected}: failed precondition")]
    WrongSize { expected: u64, actual: u64 },
    /// A digest that can't be read.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// A layer that can't be unpacked.
    #[error("failed to extract layer {diff_id}")]
    Extract { diff_id: Digest, source: Box<UnpackError> },
    /// An archive that isn't one of images.
    #[error("invalid image archive: {0}")]
    Archive(String),
    /// The context of everything that goes wrong in a load.
    #[error("failed to load image archive")]
    Load { source: Box<ImageError> },
    /// More than the store takes.
    #[error("{what} of {size} bytes exceeds the limit of {limit}")]
    TooLarge { what: &'static str, size: u64, limit: u64 },
    /// Written by a later release.
    #[error("{} has format {found}, this release reads up to {known}", path.display())]
    Format { path: PathBuf, found: u32, known: u32 },
    /// Another process holds the folder.
    #[error("{} is in use by another process", .0.display())]
    Locked(PathBuf),
    /// The overlay couldn't be mounted.
    #[error("failed to mount the root file system at {}", path.display())]
    Mount { path: PathBuf, source: io::Error },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// A test armed a failpoint.
    #[error(transparent)]
    Failpoint(#[from] env::FailpointError),
    /// The work was given up because its thread or task ended.
    #[error("interrupted")]
    Interrupted,
}

/// Why a layer can't be unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// An entry's name or a hard link's target lies outside the layer.
    #[error("path {path:?} leaves the root of the layer")]
    Escapes { path: String },
    /// Too many entries or bytes.
    #[error("the layer has more than {limit} {what}")]
    Limit { what: &'static str, limit: u64 },
    /// The archive is damaged, or of a kind this unpacker refuses.
    #[error("invalid layer archive")]
    Archive(#[source] io::Error),
    /// The file system refused an entry.
    #[error("{action} {path:?}")]
    Entry { action: &'static str, path: String, source: io::Error },
}

/// What an error means for the one who asked; the CRI server makes its gRPC code of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    NotFound,
    InvalidArgument,
    /// The registry wants other credentials.
    Unauthenticated,
    /// The registry can't be reached.
    Unavailable,
    Internal,
}

impl ImageError {
    /// What the error means.
    pub fn code(&self) -> Code {
        match self {
            ImageError::Pull { source, .. }
            | ImageError::Resolve { source, .. }
            | ImageError::Fetch { source, .. }
            | ImageError::Load { source } => source.code(),
            ImageError::NoSuchImage(_)
            | ImageError::ManifestNotFound(_)
            | ImageError::BlobNotFound
            | ImageError::NoPlatform { .. } => Code::NotFound,
            ImageError::InvalidReference { .. }
            | ImageError::InvalidId(_)
            | ImageError::Archive(_)
            | ImageError::Digest(_)
            | ImageError::Malformed { .. }
            | ImageError::WrongDigest { .. }
            | ImageError::WrongSize { .. }
            | ImageError::TooLarge { .. } => Code::InvalidArgument,
            ImageError::Extract { source, .. } => match source.as_ref() {
                UnpackError::Entry { .. } => Code::Internal,
                _ => Code::InvalidArgument,
            },
            ImageError::Unauthorized { .. } | ImageError::Credentials(_) => Code::Unauthenticated,
            ImageError::Request { .. } => Code::Unavailable,
            ImageError::Status { .. }
            | ImageError::Format { .. }
            | ImageError::Locked(_)
            | ImageError::Mount { .. }
            | ImageError::Io { .. }
            | ImageError::Failpoint(_)
            | ImageError::Interrupted => Code::Internal,
        }
    }

    /// The error and all its sources in one line, as containerd would say it:
    /// `failed to pull and unpack image "…": failed to resolve reference "…": …: not found`.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }

    /// Whether trying again may help.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            ImageError::Request { transient, .. } => *transient,
            ImageError::Status { code, .. } => *code >= 500 || *code == 408 || *code == 429,
            ImageError::Fetch { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// Gives a file operation's error its context.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|error| ImageError::Io { action, path: path.to_owned(), source: error.into() })
    }
}
