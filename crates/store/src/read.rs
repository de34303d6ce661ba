//! What is asked of the store, and what it answers.

use bytes::Bytes;
use jiff::Timestamp;

use crate::{Revision, prefix_end};

/// A key with its value as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The value; empty when only keys were asked for.
    pub value: Bytes,
    /// The revision at which the key last came into being.
    pub create_revision: Revision,
    /// The revision at which this value was written.
    pub mod_revision: Revision,
    /// How often the key was written since it came into being: 1 after the first.
    pub version: u64,
    /// When [`Store::expire`](crate::Store::expire) will delete it, in whole seconds.
    pub expires: Option<Timestamp>,
}

/// Which keys to read.
#[derive(Clone, Debug, Default)]
pub struct RangeQuery {
    /// The first key.
    pub start: Bytes,
    /// The key after the last; empty for no end.
    pub end: Bytes,
    /// Read as of this revision; the newest when `None`.
    pub revision: Option<Revision>,
    /// At most so many items; 0 for all.
    pub limit: usize,
    /// Leave the values empty, which spares reading them.
    pub keys_only: bool,
    /// Count all keys of the range, also those beyond the limit.
    pub count: bool,
}

impl RangeQuery {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> RangeQuery {
        let start = prefix.into();
        RangeQuery { end: prefix_end(&start), start, ..RangeQuery::default() }
    }

    /// The same keys from `start` on: the next page begins at the last key followed by a zero byte.
    pub fn starting_at(self, start: impl Into<Bytes>) -> RangeQuery {
        RangeQuery { start: start.into(), ..self }
    }

    /// The same as of `revision`.
    pub fn at(self, revision: Revision) -> RangeQuery {
        RangeQuery { revision: Some(revision), ..self }
    }

    /// The same, at most `limit` items.
    pub fn limit(self, limit: usize) -> RangeQuery {
        RangeQuery { limit, ..self }
    }
}

/// The answer to a [`RangeQuery`].
#[derive(Clone, Debug)]
pub struct Range {
    /// The revision the items were read at.
    pub revision: Revision,
    /// In byte order of their keys.
    pub items: Vec<KeyValue>,
    /// Whether the limit cut the range short.
    pub more: bool,
    /// How many keys the range holds, when asked for; else the number of items.
    pub count: usize,
}
