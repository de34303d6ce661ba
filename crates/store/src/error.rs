//! What can go wrong.

use std::sync::Arc;

use bytes::Bytes;

use crate::{KeyValue, Revision};

/// Why the store could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A compare of the transaction did not hold.
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// The transaction breaks a rule of the store.
    #[error("{0}")]
    Invalid(Invalid),
    /// The history asked for was given up.
    #[error("revision {requested} has been compacted (the oldest kept is {compacted})")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// The oldest revision that can be read.
        compacted: Revision,
    },
    /// The revision asked for has not happened yet.
    #[error("revision {requested} is in the future (the newest is {current})")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not take its events fast enough; watch again, from a new list.
    #[error("watcher fell behind by more than {limit} bytes")]
    Lagged {
        /// The bytes of events a watcher may have waiting.
        limit: usize,
    },
    /// Too much is waiting to be written.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The disk is full; nothing changed.
    #[error("no space left for the store")]
    NoSpace,
    /// The engine failed; for a commit, nothing changed.
    #[error("the store failed")]
    Engine(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// It is not known whether the transaction happened (engines behind a network only).
    #[error("the outcome of the write is unknown")]
    Unknown(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The first compare of a transaction that did not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{}\" is at revision {} and not {expected}", .key.escape_ascii(), .current.as_ref().map_or(0, |current| current.mod_revision))]
pub struct Conflict {
    /// Which compare of the transaction.
    pub compare: usize,
    /// Its key.
    pub key: Bytes,
    /// The revision it expected.
    pub expected: Revision,
    /// What the key holds; `None` when it does not exist.
    pub current: Option<KeyValue>,
}

/// The rule that a transaction breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// See [`MAX_OPS`](crate::MAX_OPS).
    #[error("{ops} operations and {compares} compares in one transaction (128 each are allowed)")]
    TooManyOps {
        /// Operations in it.
        ops: usize,
        /// Compares in it.
        compares: usize,
    },
    /// See [`MAX_KEY_BYTES`](crate::MAX_KEY_BYTES).
    #[error("a key of {length} bytes (1 to 4096 are allowed)")]
    KeyLength {
        /// Bytes of the key.
        length: usize,
    },
    /// See [`Config::max_value_bytes`](crate::Config::max_value_bytes).
    #[error("the value of \"{}\" has {length} bytes (at most {limit} are allowed)", .key.escape_ascii())]
    ValueTooLarge {
        /// The key.
        key: Bytes,
        /// Bytes of the value.
        length: usize,
        /// The most allowed.
        limit: usize,
    },
    /// A key that is written more than once.
    #[error("\"{}\" twice in one transaction", .key.escape_ascii())]
    SameKey {
        /// The key.
        key: Bytes,
    },
    /// See [`MAX_PREFIXES`](crate::MAX_PREFIXES).
    #[error("keys of {prefixes} resources in one transaction ({max} are allowed)", max = crate::MAX_PREFIXES)]
    TooManyPrefixes {
        /// Different prefixes among its operations.
        prefixes: usize,
    },
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Error {
        Error::Invalid(invalid)
    }
}

/// The error and its sources in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    std::iter::once(error.to_string()).chain(sources.map(|source| source.to_string())).collect::<Vec<_>>().join(": ")
}
