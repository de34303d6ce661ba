//! What can go wrong with sandboxes and containers, and what a CRI client is told.

use std::io;

use tonic::{Code, Status};

use crate::image::{self, ImageError};
use crate::network::NetworkError;
use crate::seccomp::SeccompError;

/// Why the runtime could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such sandbox or container.
    #[error("an error occurred when try to find {kind} {id:?}: not found")]
    NotFound {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// What was asked for.
        id: String,
    },
    /// The request cannot be understood or contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// The object is not in a state in which this can be done.
    #[error("{0}")]
    State(String),
    /// Another object holds the name.
    #[error("failed to reserve {kind} name {name:?}: name {name:?} is reserved for {holder:?}")]
    Reserved {
        /// `sandbox` or `container`.
        kind: &'static str,
        /// The name, made of the object's metadata.
        name: String,
        /// Its holder's id.
        holder: String,
    },
    /// This runtime, or this machine, cannot do it.
    #[error("{0}")]
    Unsupported(String),
    /// It took longer than allowed.
    #[error("{0}")]
    Timeout(String),
    /// The shim could not do it, in its words.
    #[error("{context}: {message}")]
    Shim {
        /// What was tried.
        context: String,
        /// The shim's words.
        message: String,
    },
    /// The shim is gone.
    #[error("the sandbox's shim is gone")]
    ShimGone,
    /// A file operation failed.
    #[error("{action}")]
    Io {
        /// What was tried.
        action: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Images.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The pod network.
    #[error("failed to setup network for sandbox {sandbox:?}")]
    Network {
        /// The sandbox.
        sandbox: String,
        /// Why.
        source: NetworkError,
    },
    /// The seccomp profile.
    #[error("failed to generate seccomp filter")]
    Seccomp(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A test armed a failpoint.
    #[error(transparent)]
    Failpoint(#[from] env::FailpointError),
}

impl From<SeccompError> for Error {
    fn from(error: SeccompError) -> Error {
        Error::Seccomp(Box::new(error))
    }
}

impl Error {
    pub(crate) fn sandbox(id: &str) -> Error {
        Error::NotFound { kind: "sandbox", id: id.to_owned() }
    }

    pub(crate) fn container(id: &str) -> Error {
        Error::NotFound { kind: "container", id: id.to_owned() }
    }

    /// The error and all its causes in one line.
    pub fn report(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            let part = error.to_string();
            if !text.ends_with(&part) {
                text = format!("{text}: {part}");
            }
            source = error.source();
        }
        text
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Status {
        let code = match &error {
            Error::NotFound { .. } => Code::NotFound,
            Error::Invalid(_) => Code::InvalidArgument,
            Error::Timeout(_) => Code::DeadlineExceeded,
            Error::Unsupported(_) => Code::Unimplemented,
            Error::Image(error) => match error.code() {
                image::Code::NotFound => Code::NotFound,
                image::Code::InvalidArgument => Code::InvalidArgument,
                image::Code::Unauthenticated => Code::Unauthenticated,
                image::Code::Unavailable => Code::Unavailable,
                image::Code::Internal => Code::Unknown,
            },
            // Upstream's runtimes answer everything else so; clients show the text.
            _ => Code::Unknown,
        };
        Status::new(code, error.report())
    }
}

/// Gives a file operation's error its context.
pub(crate) trait Context<T> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, action: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|error| Error::Io { action: action(), source: error.into() })
    }
}

/// `work` on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::Io { action: "run a blocking step".to_owned(), source: io::Error::other(error) }),
    }
}
