//! Revisioned bytes with etcd's semantics: one global revision, ranges at a past revision, atomic transactions,
//! ordered watches from a past revision, compaction, online backup.
//!
//! It deliberately knows no Kubernetes: keys and values are bytes, a tag is anything the caller wants to meet again in the
//! watch event of its own write. Sealing, serialising and caching lie above.
//!
//! The main path: [`Store::commit`] hands a [`Txn`] to the engine; once it is durable the engine updates its index, hands
//! the [`Event`]s to every matching [`WatchStream`], raises [`Store::revision`], and only then answers the writer.
//!
//! [`Embedded`] is the engine for one server, on `redb`. The trait is made so that a real etcd fits behind it too.
//!
//! ```
//! use store::{Embedded, RangeQuery, Store, Txn, WatchQuery};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
//! # runtime.block_on(async {
//! let store = Embedded::in_memory(&env::Env::system())?;
//! let mut watch = store.watch(WatchQuery::prefix("/registry/pods/")).await?;
//!
//! let created = store.commit(Txn::create("/registry/pods/default/a", "{}")).await?;
//! store.commit(Txn::update("/registry/pods/default/a", "{\"x\":1}", created.revision)).await?;
//!
//! assert_eq!(watch.next().await?.events.len(), 2);
//! let pods = store.range(RangeQuery::prefix("/registry/pods/")).await?;
//! assert_eq!(pods.items[0].value, "{\"x\":1}");
//! assert_eq!(pods.items[0].create_revision, created.revision);
//! # Ok::<(), store::Error>(()) }).unwrap();
//! ```

mod embedded;
mod error;
mod key;
mod read;
mod txn;
mod watch;

use std::future::Future;
use std::path::Path;
use std::pin::Pin;

pub use embedded::{Config, Embedded, OpenError, RESTORE_REVISION_BUMP, restore};
pub use error::{Conflict, Error, Invalid};
pub use key::{PrefixLength, prefix_end, resource_prefix_length};
pub use read::{KeyValue, Range, RangeQuery};
pub use txn::{Action, Committed, Compare, MAX_KEY_BYTES, MAX_OPS, MAX_PREFIXES, Op, Tag, Txn};
pub use watch::{Event, EventKind, PrevValue, WatchBatch, WatchQuery, WatchSource, WatchStream};

/// A point in the store's history. An empty store is at revision 1; each transaction that changes something takes the next, or
/// several ([`Txn`]).
pub type Revision = u64;

/// What the asynchronous methods of [`Store`] return. Dropping it is safe at any time; a commit that was already handed
/// to the engine may still happen.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A store of revisioned bytes; used as `Arc<dyn Store>`.
pub trait Store: Send + Sync + 'static {
    /// The newest revision whose events have been handed to the watchers.
    fn revision(&self) -> Revision;

    /// The newest compacted revision: ranges below it, and watches after less than it, fail with [`Error::Compacted`].
    fn compacted(&self) -> Revision;

    /// Follows [`Store::revision`]; what bookmarks and waiting reads are made of. When it shows a revision, every watcher
    /// has already been handed that revision's events.
    fn progress(&self) -> tokio::sync::watch::Receiver<Revision>;

    /// A revision at least as new as every write acknowledged, by any server on this store, before the call.
    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, Error>>;

    /// The key's newest value, `None` when there is none.
    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<KeyValue>, Error>>;

    /// The key's value as it was at `revision`.
    fn get_at<'a>(&'a self, key: &'a [u8], revision: Revision) -> BoxFuture<'a, Result<Option<KeyValue>, Error>>;

    /// The keys of a range in byte order, all as they were at one revision.
    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, Error>>;

    /// Applies a transaction, whole or not at all. It is durable, and handed to the watchers, when this returns `Ok`;
    /// nothing changed when it returns `Err`, but for [`Error::Unknown`], which an engine behind a network may return.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, Error>>;

    /// The events of a prefix, in order, each once: first from history, then live.
    fn watch(&self, query: WatchQuery) -> BoxFuture<'_, Result<WatchStream, Error>>;

    /// Gives up the history up to `revision`: afterwards each key has only its newest value as of `revision`, and later
    /// ones. Returns when that is decided durably; space is reclaimed in the background.
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>>;

    /// Deletes the keys whose time to live has passed and returns how many. Call it every few seconds; an engine that
    /// does so by itself answers 0.
    fn expire(&self) -> BoxFuture<'_, Result<usize, Error>>;

    /// Gives free space back to the file system where there is much of it, and tells whether it did; writes wait meanwhile. Call
    /// it now and then after a compaction; an engine that keeps house by itself answers `false`.
    fn reclaim(&self) -> BoxFuture<'_, Result<bool, Error>>;

    /// Writes a consistent copy of the store to the new file `path` while it goes on serving. Returns its revision.
    fn backup<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Revision, Error>>;
}
