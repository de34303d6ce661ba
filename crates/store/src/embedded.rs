//! The embedded engine: a log of records in one redb file (or nowhere but in memory), an index of them, one writer.

mod backup;
mod database;
mod disk;
mod index;
mod memory;
#[cfg(test)]
mod power_cut;
mod queue;
mod reads;
mod record;
mod snapshot;
mod watchers;
mod writer;

use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use env::Env;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{oneshot, watch};

use database::{COMPACTED_KEY, Database, FORMAT, FORMAT_KEY, Failure, Place, REVISION_KEY};
use index::Index;
use queue::{Queue, Refusal, Request};
use record::RecordId;
use watchers::{Source, Watchers};
use writer::Writer;

use crate::{
    BoxFuture, Committed, Conflict, Error, KeyValue, PrefixLength, Range, RangeQuery, Revision, Store, Txn, WatchQuery,
    WatchStream, resource_prefix_length,
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
    /// Write in the caller's thread instead of a thread of the store's own: as fast as it can be where nothing waits for a disk, and
    /// everything happens in the caller's order, as tests on a paused clock need.
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
    thread: Mutex<Option<JoinHandle<()>>>,
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

impl Embedded {
    /// Opens or makes the store. Blocks while it reads the index, and longer after a crash, when redb checks the file.
    pub fn open(config: Config) -> Result<Arc<Embedded>, OpenError> {
        let place = match &config.dir {
            Some(dir) => Place::folder(dir)?,
            None => Place::Memory,
        };
        Embedded::open_at(place, config)
    }

    fn open_at(place: Place, config: Config) -> Result<Arc<Embedded>, OpenError> {
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
        Ok(Arc::new(Embedded { shared, thread: Mutex::new(thread) }))
    }

    /// A store that ends with the process.
    pub fn in_memory(env: &Env) -> Result<Arc<Embedded>, Error> {
        Embedded::open(Config::in_memory(env.clone())).map_err(|error| Error::Engine(Arc::new(error)))
    }

    /// Finishes a running compaction and gives the free space of the file back to the file system. Writes wait meanwhile,
    /// and for a part reads too. Nothing is given back while a read or a backup is under way.
    pub async fn defragment(&self) -> Result<(), Error> {
        self.defragment_if(false).await.map(drop)
    }

    async fn defragment_if(&self, only_if_worth: bool) -> Result<bool, Error> {
        let (done, answer) = oneshot::channel();
        self.shared.submit(Request::Defragment { only_if_worth, done })?;
        answer.await.map_err(|_| Error::Closed)?
    }
}

impl Embedded {
    /// Finishes what waits and closes the file, whoever still holds the store: calls fail with [`Error::Closed`] from then on. Blocks.
    /// Again is fine.
    pub fn close(&self) {
        self.shared.queue.close();
        let thread = self.thread.lock().take();
        match thread {
            // The writer itself may let go of the last handle, when a tag had it.
            Some(thread) if thread.thread().id() == std::thread::current().id() => {}
            Some(thread) => {
                if thread.join().is_err() {
                    tracing::error!("the store's writer ended with a panic");
                }
            }
            None => self.shared.close(),
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
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

    async fn expire(&self) -> Result<usize, Error> {
        let now = u32::try_from(self.env.now().as_second()).unwrap_or(0);
        let expired = self.index.write().expired(now);
        let mut deleted = 0;
        for (key, revision) in expired {
            match self.commit(Txn::remove(key, revision)).await {
                Ok(_) => deleted += 1,
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(deleted)
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

    fn reclaim(&self) -> BoxFuture<'_, Result<bool, Error>> {
        Box::pin(self.defragment_if(true))
    }

    fn backup<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Revision, Error>> {
        Box::pin(backup::backup(&self.shared, path))
    }
}
