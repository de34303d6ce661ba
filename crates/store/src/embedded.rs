//! The embedded engine: a log of records in one redb file, an index of them in memory, one writer.

mod backup;
mod database;
mod disk;
mod index;
mod queue;
mod record;
mod watchers;
mod writer;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use env::Env;
use jiff::Timestamp;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use database::{COMPACTED_KEY, Database, FORMAT, FORMAT_KEY, Failure, Place, REVISION_KEY, Snapshot};
use index::Index;
use queue::{Queue, Refusal, Request};
use record::{Record, RecordId, Version};
use watchers::{Source, Watchers};
use writer::Writer;

use crate::error::chain;
use crate::{
    BoxFuture, Committed, Conflict, Error, Event, EventKind, KeyValue, PrefixLength, PrevValue, Range, RangeQuery,
    Revision, Store, Txn, WatchQuery, WatchStream, resource_prefix_length,
};

pub use backup::{RESTORE_REVISION_BUMP, restore};

/// How to open an [`Embedded`] store.
#[derive(Clone)]
pub struct Config {
    /// The folder, made when missing, that one process at a time may use; in memory when `None`.
    pub dir: Option<PathBuf>,
    /// Where time and failpoints come from.
    pub env: Env,
    /// Pages of the file kept in memory.
    pub cache_bytes: usize,
    /// The longest value.
    pub max_value_bytes: usize,
    /// Writes that may wait before [`Error::Overloaded`].
    pub max_waiting_bytes: usize,
    /// Events that may wait for a watcher before [`Error::Lagged`].
    pub watch_buffer_bytes: usize,
    /// What counts as one resource in a transaction.
    pub prefix_length: PrefixLength,
    /// Write in the caller's thread instead of a thread of the store's own. Slower for many writers, but everything then
    /// happens in the caller's order: for tests on a paused clock.
    pub inline: bool,
    /// Save redb's allocator state with each commit: opening after a crash no longer reads the whole file, commits take
    /// longer.
    pub quick_repair: bool,
}

impl Config {
    /// The defaults for a store in `dir`.
    pub fn new(dir: impl Into<PathBuf>, env: Env) -> Config {
        Config { dir: Some(dir.into()), inline: false, ..Config::in_memory(env) }
    }

    /// The defaults for a store that ends with the process; it writes in the caller's thread.
    pub fn in_memory(env: Env) -> Config {
        Config {
            dir: None,
            env,
            cache_bytes: 16 << 20,
            max_value_bytes: 8 << 20,
            max_waiting_bytes: 64 << 20,
            watch_buffer_bytes: 64 << 20,
            prefix_length: resource_prefix_length,
            inline: true,
            quick_repair: false,
        }
    }
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the store in {path:?} is in use by another process")]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// A newer release wrote it.
    #[error("the store has format {found}, and this release reads up to {newest}")]
    Format {
        /// What it has.
        found: u64,
        /// What this release reads.
        newest: u64,
    },
    /// There is one already.
    #[error("{path:?} exists already")]
    Exists {
        /// What was to be written.
        path: PathBuf,
    },
    /// The folder or file can't be used.
    #[error("can't use {path:?}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is damaged, or the disk fails.
    #[error("can't open the store's database")]
    Engine(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A store in one file, for one server. Dropping it finishes what waits and closes the file.
pub struct Embedded {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    env: Env,
    db: Database,
    index: RwLock<Index>,
    queue: Queue,
    watchers: Watchers,
    progress: watch::Sender<Revision>,
    writer: Mutex<Writer>,
    max_value_bytes: usize,
    prefix_length: PrefixLength,
    inline: bool,
}

/// From so many values on, a range is read on a thread for blocking work.
const INLINE_READS: usize = 128;

impl Embedded {
    /// Opens or makes the store. Blocks while it reads the index, and longer after a crash, when redb checks the file.
    pub fn open(config: Config) -> Result<Arc<Embedded>, OpenError> {
        let place = match &config.dir {
            Some(dir) => Place::folder(dir)?,
            None => Place::Memory,
        };
        let db = Database::open(place, config.env.clone(), config.cache_bytes, config.quick_repair)?;
        let (index, superseded) = load(&db).map_err(|error| match error {
            LoadError::Format { found } => OpenError::Format { found, newest: FORMAT },
            LoadError::Failure(failure) => OpenError::Engine(Box::new(failure)),
        })?;
        let revision = index.revision;
        let mut writer = Writer::default();
        if superseded {
            writer.compact_on_open(index.compacted);
        }
        let shared = Arc::new(Shared {
            env: config.env,
            db,
            index: RwLock::new(index),
            queue: Queue::new(config.max_waiting_bytes),
            watchers: Watchers::new(revision, config.watch_buffer_bytes),
            progress: watch::Sender::new(revision),
            writer: Mutex::new(writer),
            max_value_bytes: config.max_value_bytes,
            prefix_length: config.prefix_length,
            inline: config.inline,
        });
        let mut thread = None;
        if !config.inline {
            let shared = shared.clone();
            let spawned =
                std::thread::Builder::new().name("store-writer".into()).spawn(move || shared.write_until_closed());
            thread = Some(spawned.map_err(|error| OpenError::Engine(Box::new(error)))?);
        }
        Ok(Arc::new(Embedded { shared, thread }))
    }

    /// A store that ends with the process.
    pub fn in_memory(env: &Env) -> Result<Arc<Embedded>, Error> {
        Embedded::open(Config::in_memory(env.clone())).map_err(|error| Error::Engine(Arc::new(error)))
    }

    /// Finishes a running compaction and gives the free space of the file back to the file system. Writes wait meanwhile,
    /// and for a part reads too. Nothing is given back while a read or a backup is under way.
    pub async fn defragment(&self) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        self.shared.submit(Request::Defragment { done })?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.shared.queue.close();
        match self.thread.take() {
            Some(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the store's writer ended with a panic");
                }
            }
            None => self.shared.close(),
        }
    }
}

impl Shared {
    /// The writer's thread.
    fn write_until_closed(&self) {
        loop {
            let busy = self.writer.lock().busy() && !self.queue.is_closed();
            let requests = match busy {
                true => self.queue.try_take(),
                false => match self.queue.take() {
                    Some(requests) => requests,
                    None => break,
                },
            };
            self.writer.lock().step(self, requests);
        }
        self.close();
    }

    fn close(&self) {
        self.watchers.close();
        self.db.close();
    }

    /// Hands a request to the writer; when this is the writer's thread, has it done on return.
    fn submit(&self, request: Request) -> Result<(), Error> {
        self.queue.push(request)?;
        if self.inline {
            let mut writer = self.writer.lock();
            loop {
                let requests = self.queue.try_take();
                if requests.is_empty() && !writer.busy() {
                    break;
                }
                writer.step(self, requests);
            }
        }
        Ok(())
    }

    fn compacted(&self) -> Revision {
        self.index.read().compacted
    }

    /// Picks records by the index, then reads them from a snapshot that is sure to have them. Tries again once when the
    /// file failed.
    fn with_snapshot<P, T>(
        &self,
        mut pick: impl FnMut(&Index) -> Result<P, Error>,
        mut read: impl FnMut(&Snapshot, P) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        let mut again = true;
        loop {
            let generation = self.db.generation();
            let (picked, snapshot) = {
                // Under one lock: a compaction removes records only after it took them from the index.
                let index = self.index.read();
                (pick(&index)?, self.db.snapshot())
            };
            match snapshot.and_then(|snapshot| read(&snapshot, picked)) {
                Ok(value) => return Ok(value),
                Err(failure @ (Failure::Redb(_) | Failure::Gone)) if std::mem::take(&mut again) => {
                    tracing::warn!(error = chain(&failure), "reading the store failed, trying again");
                    self.recover(generation)?;
                }
                Err(failure) => return Err(Error::Engine(Arc::new(failure))),
            }
        }
    }

    /// Has the writer open the file again, unless that happened since `generation`, and waits for it.
    fn recover(&self, generation: u64) -> Result<(), Error> {
        let (done, answer) = std::sync::mpsc::channel();
        self.submit(Request::Recover { generation, done })?;
        // The writer may be gone; then the read fails by itself.
        let _ = answer.recv();
        Ok(())
    }

    fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Option<KeyValue>, Error> {
        self.with_snapshot(
            |index| match revision {
                None => Ok(index.live(key)),
                Some(_) => Ok(index.live_at(key, index.readable(revision)?)),
            },
            |snapshot, version| version.map(|version| snapshot.key_value(version)).transpose(),
        )
    }

    async fn range(self: &Arc<Self>, query: RangeQuery) -> Result<Range, Error> {
        let small = query.keys_only || self.inline || (query.limit > 0 && query.limit <= INLINE_READS);
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) if !small => {
                let shared = self.clone();
                let read = runtime.spawn_blocking(move || shared.range_now(&query));
                read.await.map_err(|error| Error::Engine(Arc::new(error)))?
            }
            _ => self.range_now(&query),
        }
    }

    fn range_now(&self, query: &RangeQuery) -> Result<Range, Error> {
        let RangeQuery { start, end, revision, limit, keys_only, count } = query;
        let limit = if *limit == 0 { usize::MAX } else { *limit };
        self.with_snapshot(
            |index| {
                let revision = index.readable(*revision)?;
                let mut found = index.range(start, end, revision);
                let mut picked = Vec::new();
                for (key, version) in found.by_ref().take(limit) {
                    picked.push((keys_only.then(|| key.clone()), version));
                }
                let beyond = if *count { found.count() } else { found.next().is_some().into() };
                Ok((revision, picked, beyond))
            },
            |snapshot, (revision, picked, beyond)| {
                let item = |(key, version): (Option<Bytes>, Version)| match key {
                    Some(key) => Ok(key_value(key, Bytes::new(), &version)),
                    None => snapshot.key_value(version),
                };
                let items = picked.into_iter().map(item).collect::<Result<Vec<_>, Failure>>()?;
                let total = items.len() + if *count { beyond } else { 0 };
                Ok(Range { revision, items, more: beyond > 0, count: total })
            },
        )
    }

    async fn commit(&self, txn: Txn) -> Result<Committed, Error> {
        txn.validate(self.prefix_length, self.max_value_bytes)?;
        let compares: Vec<_> = txn.compares.clone();
        let (done, answer) = oneshot::channel();
        self.submit(Request::Commit { txn, done })?;
        match answer.await.map_err(|_| Error::Closed)? {
            Ok(committed) => Ok(committed),
            Err(Refusal::Error(error)) => Err(error),
            Err(Refusal::Conflict { compare, current }) => {
                let wanted = &compares[compare];
                let current = current.map(|id| self.current(&wanted.key, id)).transpose()?.flatten();
                Err(Error::Conflict(Box::new(Conflict {
                    compare,
                    key: wanted.key.clone(),
                    expected: wanted.mod_revision,
                    current,
                })))
            }
        }
    }

    /// The record that a compare met, or what followed it if it was compacted since.
    fn current(&self, key: &[u8], id: RecordId) -> Result<Option<KeyValue>, Error> {
        let found = self.with_snapshot(|_| Ok(()), |snapshot, ()| snapshot.get(id, |record| record.to_key_value()))?;
        match found {
            Some(found) => Ok(Some(found)),
            None => self.get(key, None),
        }
    }

    async fn expire(&self) -> Result<usize, Error> {
        let now = u32::try_from(self.env.now().as_second()).unwrap_or(0);
        let due = self.index.write().take_expired(now);
        let mut deleted = 0;
        let mut failed = None;
        for (key, revision) in due {
            // After a failure the rest is put back.
            let result = match &failed {
                None => self.commit(Txn::remove(key.clone(), revision)).await,
                Some(_) => Err(Error::Closed),
            };
            match result {
                Ok(_) => deleted += 1,
                Err(Error::Conflict(_)) => {}
                Err(error) => {
                    self.index.write().expire_later(key);
                    failed.get_or_insert(error);
                }
            }
        }
        failed.map_or(Ok(deleted), Err)
    }
}

enum LoadError {
    Format { found: u64 },
    Failure(Failure),
}

impl<E: Into<Failure>> From<E> for LoadError {
    fn from(error: E) -> LoadError {
        LoadError::Failure(error.into())
    }
}

/// Reads the index from the log; also whether a compaction left something to remove.
fn load(db: &Database) -> Result<(Index, bool), LoadError> {
    db.prepare()?;
    let snapshot = db.snapshot()?;
    let found = snapshot.meta(FORMAT_KEY)?.unwrap_or(0);
    if found != FORMAT {
        return Err(LoadError::Format { found });
    }
    let compacted = snapshot.meta(COMPACTED_KEY)?.unwrap_or(0);
    let mut index = Index::new(snapshot.meta(REVISION_KEY)?.unwrap_or(1), compacted);
    snapshot.scan(RecordId(0)..RecordId(u64::MAX), |record| {
        index.push(record.key, record.version);
        Ok(true)
    })?;
    let mut histories = index.histories(Bound::Unbounded);
    let superseded = histories.any(|(_, history)| !index::superseded(history, compacted).is_empty());
    drop(histories);
    Ok((index, superseded))
}

impl Snapshot {
    fn key_value(&self, version: Version) -> Result<KeyValue, Failure> {
        self.get(version.id, |record| record.to_key_value())?.ok_or(Failure::Record(version.id))
    }

    fn value(&self, id: RecordId) -> Result<Bytes, Failure> {
        self.get(id, |record| Bytes::copy_from_slice(record.value))?.ok_or(Failure::Record(id))
    }

    /// The event that a record was.
    fn event(&self, record: &Record<'_>, prev_values: bool) -> Result<Event, Failure> {
        let prev = match record.prev {
            None => None,
            Some(prev) => {
                let value = if prev_values { Some(self.value(prev)?) } else { None };
                Some(PrevValue { revision: prev.revision(), value })
            }
        };
        Ok(Event {
            key: Bytes::copy_from_slice(record.key),
            kind: if record.version.deleted() { EventKind::Delete } else { EventKind::Put },
            value: Bytes::copy_from_slice(record.value),
            revision: record.version.id.revision(),
            create_revision: record.version.created,
            version: record.version.version.into(),
            prev,
            tag: None,
        })
    }
}

impl Record<'_> {
    fn to_key_value(&self) -> KeyValue {
        key_value(Bytes::copy_from_slice(self.key), Bytes::copy_from_slice(self.value), &self.version)
    }
}

fn key_value(key: Bytes, value: Bytes, version: &Version) -> KeyValue {
    KeyValue {
        key,
        value,
        create_revision: version.created,
        mod_revision: version.id.revision(),
        version: version.version.into(),
        expires: match version.expires {
            0 => None,
            seconds => Timestamp::from_second(seconds.into()).ok(),
        },
    }
}

impl Store for Embedded {
    fn revision(&self) -> Revision {
        *self.shared.progress.borrow()
    }

    fn compacted(&self) -> Revision {
        self.shared.compacted()
    }

    fn progress(&self) -> watch::Receiver<Revision> {
        self.shared.progress.subscribe()
    }

    fn read_barrier(&self) -> BoxFuture<'_, Result<Revision, Error>> {
        // A write is acknowledged only after its revision is here.
        Box::pin(std::future::ready(Ok(self.revision())))
    }

    fn get<'a>(&'a self, key: &'a [u8]) -> BoxFuture<'a, Result<Option<KeyValue>, Error>> {
        Box::pin(async move { self.shared.get(key, None) })
    }

    fn get_at<'a>(&'a self, key: &'a [u8], revision: Revision) -> BoxFuture<'a, Result<Option<KeyValue>, Error>> {
        Box::pin(async move { self.shared.get(key, Some(revision)) })
    }

    fn range(&self, query: RangeQuery) -> BoxFuture<'_, Result<Range, Error>> {
        Box::pin(self.shared.range(query))
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Committed, Error>> {
        Box::pin(self.shared.commit(txn))
    }

    fn watch(&self, query: WatchQuery) -> BoxFuture<'_, Result<WatchStream, Error>> {
        Box::pin(async move { Source::new(self.shared.clone(), query).map(WatchStream::new) })
    }

    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(async move {
            {
                let index = self.shared.index.read();
                index.readable(Some(revision))?;
            }
            let (done, answer) = oneshot::channel();
            self.shared.submit(Request::Compact { revision, done })?;
            answer.await.map_err(|_| Error::Closed)?
        })
    }

    fn expire(&self) -> BoxFuture<'_, Result<usize, Error>> {
        Box::pin(self.shared.expire())
    }

    fn backup<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Revision, Error>> {
        Box::pin(backup::backup(&self.shared, path))
    }
}
