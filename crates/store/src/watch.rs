//! Watches as callers see them.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::{BoxFuture, Error, Revision, Tag};

/// What to watch, and from when.
#[derive(Clone, Debug, Default)]
pub struct WatchQuery {
    /// Keys that start with this; all when empty.
    pub prefix: Bytes,
    /// Every event with a greater revision, which is what follows a list at that revision; from now on when `None`.
    pub after: Option<Revision>,
    /// Also hand out batches without events when the store's revision rises, so that [`WatchBatch::through`] follows it.
    /// Not needed on a watch of everything.
    pub progress: bool,
    /// Fill in [`PrevValue::value`] (costs the writer a read per event when nobody else wants it).
    pub prev_values: bool,
}

impl WatchQuery {
    /// The keys that start with `prefix`, from now on.
    pub fn prefix(prefix: impl Into<Bytes>) -> WatchQuery {
        WatchQuery { prefix: prefix.into(), ..WatchQuery::default() }
    }

    /// The same, with every event after `revision`.
    pub fn after(self, revision: Revision) -> WatchQuery {
        WatchQuery { after: Some(revision), ..self }
    }

    /// The same, with progress.
    pub fn with_progress(self) -> WatchQuery {
        WatchQuery { progress: true, ..self }
    }

    /// The same, with previous values.
    pub fn with_prev_values(self) -> WatchQuery {
        WatchQuery { prev_values: true, ..self }
    }
}

/// What happened to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

/// One change of one key.
#[derive(Clone)]
pub struct Event {
    /// The key.
    pub key: Bytes,
    /// What happened.
    pub kind: EventKind,
    /// The value written; empty for a deletion.
    pub value: Bytes,
    /// The revision it happened at, as [`Txn`](crate::Txn) tells; events that share one come in the order of their operations.
    pub revision: Revision,
    /// The revision at which the key (for a deletion, the one deleted) came into being: `revision` itself says created.
    pub create_revision: Revision,
    /// How often the key was written since; 0 for a deletion.
    pub version: u64,
    /// What the key held before; `None` when it did not exist.
    pub prev: Option<PrevValue>,
    /// What the writer handed in; `None` in events from history.
    pub tag: Option<Tag>,
}

/// What a key held before an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrevValue {
    /// The revision at which it was written.
    pub revision: Revision,
    /// The value, when [`WatchQuery::prev_values`] asked for it (it may be there without).
    pub value: Option<Bytes>,
}

/// Events in order, and how far they reach.
#[derive(Clone, Debug, Default)]
pub struct WatchBatch {
    /// In order of revision, then of the operations in the transaction.
    pub events: Vec<Arc<Event>>,
    /// Every event of the watched keys up to and with this revision has now been handed out.
    pub through: Revision,
}

/// A running watch; dropping it ends it.
pub struct WatchStream(Box<dyn WatchSource>);

/// What an engine implements to make a [`WatchStream`].
pub trait WatchSource: Send {
    /// The next batch. Must be cancel safe: a dropped future loses nothing. Fails for good.
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch, Error>>;
}

impl WatchStream {
    /// Wraps an engine's source.
    pub fn new(source: impl WatchSource + 'static) -> WatchStream {
        WatchStream(Box::new(source))
    }

    /// Waits for the next events. Cancel safe. An error ends the watch: [`Error::Lagged`] when the caller was too slow,
    /// [`Error::Compacted`] when history was compacted before it was read, [`Error::Closed`] when the store was closed.
    pub async fn next(&mut self) -> Result<WatchBatch, Error> {
        self.0.next().await
    }
}

impl fmt::Debug for WatchStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").finish_non_exhaustive()
    }
}

impl Event {
    /// What it occupies in a watcher's buffer.
    pub(crate) fn size(&self) -> usize {
        let prev = self.prev.as_ref().and_then(|prev| prev.value.as_ref()).map_or(0, |value| value.len());
        size_of::<Event>() + self.key.len() + self.value.len() + prev
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("key", &self.key)
            .field("kind", &self.kind)
            .field("revision", &self.revision)
            .field("create_revision", &self.create_revision)
            .field("version", &self.version)
            .field("value_len", &self.value.len())
            .field("prev_revision", &self.prev.as_ref().map(|prev| prev.revision))
            .finish_non_exhaustive()
    }
}
