//! What can go wrong with a request.

use apimachinery::{ObjectError, Reason, Status};

use crate::TransportError;

/// Why a request gave no result.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's answer.
    #[error("{0}")]
    Status(Box<Status>),
    /// No answer arrived. Whether a write happened is unknown.
    #[error("no answer from the server")]
    Transport(#[from] TransportError),
    /// An answer arrived that is not what this request is answered with.
    #[error("the server's answer to {request} is not understood")]
    Decode { request: String, source: DecodeError },
    /// What was waited for did not happen in time.
    #[error("timed out waiting for {0}")]
    Timeout(String),
}

/// What is wrong with an answer.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("not an object")]
    Object(#[from] ObjectError),
    #[error("not JSON of the expected shape")]
    Json(#[from] serde_json::Error),
    #[error("cut short")]
    Cut(#[from] std::io::Error),
    #[error("another kind of answer was expected: {0}")]
    Shape(&'static str),
}

impl Error {
    /// The server's `Status`, if it answered with one.
    pub fn status(&self) -> Option<&Status> {
        if let Error::Status(status) = self { Some(status) } else { None }
    }

    fn is(&self, reason: Reason) -> bool {
        self.status().is_some_and(|status| status.reason == reason)
    }

    pub fn is_not_found(&self) -> bool {
        self.is(Reason::NotFound)
    }

    /// A write met a newer object than it was made for.
    pub fn is_conflict(&self) -> bool {
        self.is(Reason::Conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.is(Reason::AlreadyExists)
    }

    pub fn is_forbidden(&self) -> bool {
        self.is(Reason::Forbidden)
    }

    pub fn is_invalid(&self) -> bool {
        self.is(Reason::Invalid)
    }

    /// The revision or continue token asked for is no longer kept.
    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(status_is_expired)
    }

    /// Whether a write may or may not have happened.
    pub fn is_unknown_outcome(&self) -> bool {
        match self {
            Error::Transport(TransportError::Connect { .. }) => false,
            Error::Transport(_) | Error::Decode { .. } | Error::Timeout(_) => true,
            Error::Status(status) => matches!(status.code, 500 | 502 | 504),
        }
    }

    /// Whether a forbidden create failed because its namespace is being deleted.
    pub fn is_namespace_terminating(&self) -> bool {
        let details = self.status().filter(|_| self.is_forbidden()).and_then(|status| status.details.as_ref());
        details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
    }
}

/// For requests about objects that may be gone as well.
pub trait IgnoreNotFound {
    /// Only errors that don't say that there is no such object.
    fn ignore_not_found(self) -> Result<(), Error>;
}

impl<T> IgnoreNotFound for Result<T, Error> {
    fn ignore_not_found(self) -> Result<(), Error> {
        match self {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}

pub(crate) fn status_is_expired(status: &Status) -> bool {
    status.code == 410 || matches!(status.reason, Reason::Expired | Reason::Gone)
}

impl From<Status> for Error {
    fn from(status: Status) -> Error {
        Error::Status(Box::new(status))
    }
}
