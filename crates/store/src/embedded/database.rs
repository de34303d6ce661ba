//! The redb file: opening it, reading one snapshot, writing one batch, and getting over its failures.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use env::Env;
use parking_lot::{MappedRwLockReadGuard, Mutex, RwLock, RwLockReadGuard};
use redb::{Builder, Database as Redb, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::OpenError;
use super::disk::{Disk, drop_cache};
use super::memory::Memory;
use super::record::{NewRecord, RecordId};
use super::snapshot::{Read, Snapshot};

pub(super) const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<&str, u64> = TableDefinition::new("meta");

/// The layout of [`LOG`] and [`META`]. This release reads and writes 1; the next reads 1 and 2.
pub(super) const FORMAT: u64 = 1;
pub(super) const FORMAT_KEY: &str = "format";
/// The newest revision as of the last compaction or restore; the log's last record may be newer.
pub(super) const REVISION_KEY: &str = "revision";
pub(super) const COMPACTED_KEY: &str = "compacted";

/// A file that is smaller is not worth the trouble.
const LARGE: u64 = 64 << 20;

const FILE: &str = "store.redb";
const LOCK: &str = "store.lock";

/// Why an operation on the file failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Before anything was begun.
    #[error("refused")]
    Refused(#[from] env::FailpointError),
    #[error("the database failed")]
    Redb(#[source] redb::Error),
    #[error("record {0:?} is missing or malformed")]
    Record(RecordId),
    #[error("the database could not be opened again")]
    Gone,
}

impl<E: Into<redb::Error>> From<E> for Failure
where
    E: IsRedb,
{
    fn from(error: E) -> Failure {
        Failure::Redb(error.into())
    }
}

/// redb's errors, each of one sort of call.
pub(super) trait IsRedb {}
impl IsRedb for redb::TransactionError {}
impl IsRedb for redb::TableError {}
impl IsRedb for redb::StorageError {}
impl IsRedb for redb::CommitError {}
impl IsRedb for redb::CompactionError {}
impl IsRedb for redb::SetDurabilityError {}
impl IsRedb for DatabaseError {}

impl Failure {
    pub(super) fn is_full(&self) -> bool {
        matches!(self, Failure::Redb(redb::Error::Io(error))
            if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Where the bytes are.
pub(super) enum Place {
    Memory,
    #[cfg(test)]
    Recorded(super::power_cut::Recorder),
    Folder {
        dir: PathBuf,
        /// Held while the store is open.
        lock: Mutex<Option<FolderLock>>,
    },
}

/// A locked file, unlocked and not only closed when dropped: a process being forked may hold it open a little longer.
pub(super) struct FolderLock(File);

impl Drop for FolderLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the store can't be unlocked");
        }
    }
}

impl Place {
    /// Takes the folder for this process, making it if need be.
    pub(super) fn folder(dir: &Path) -> Result<Place, OpenError> {
        let fail = |source| OpenError::Io { path: dir.to_owned(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(fail)?;
        let path = dir.join(LOCK);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => Ok(Place::Folder { dir: dir.to_owned(), lock: Mutex::new(Some(FolderLock(lock))) }),
            Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse { path: dir.to_owned() }),
            Err(std::fs::TryLockError::Error(source)) => Err(fail(source)),
        }
    }

    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }
}

pub(super) struct Database {
    place: Place,
    env: Env,
    cache_bytes: usize,
    quick_repair: bool,
    slot: RwLock<Slot>,
}

struct Slot {
    /// `None` when it was closed or could not be opened again.
    engine: Option<Engine>,
    /// Counts how often it was opened again.
    generation: u64,
    writable: bool,
}

enum Engine {
    File(Redb),
    Memory(Memory),
}

/// What one commit writes.
#[derive(Default)]
pub(super) struct WriteSet {
    pub(super) records: Vec<NewRecord>,
    pub(super) removes: Vec<RecordId>,
    pub(super) meta: Vec<(&'static str, u64)>,
}

impl WriteSet {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.removes.is_empty() && self.meta.is_empty()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.records.iter().map(|record| record.encoded_len() as u64).sum()
    }
}

impl Database {
    pub(super) fn open(place: Place, env: Env, cache_bytes: usize, quick_repair: bool) -> Result<Database, OpenError> {
        let opened = match &place {
            Place::Memory => Ok(Engine::Memory(Memory::default())),
            #[cfg(test)]
            Place::Recorded(recorder) => builder(cache_bytes).create_with_backend(recorder.clone()).map(Engine::File),
            Place::Folder { dir, .. } => open_file(dir, &env, cache_bytes).map(Engine::File),
        };
        let engine = opened.map_err(|error| place.open_error(error))?;
        let slot = RwLock::new(Slot { engine: Some(engine), generation: 0, writable: true });
        Ok(Database { place, env, cache_bytes, quick_repair, slot })
    }

    pub(super) fn generation(&self) -> u64 {
        self.slot.read().generation
    }

    pub(super) fn writable(&self) -> bool {
        self.slot.read().writable
    }

    fn engine(&self) -> Result<MappedRwLockReadGuard<'_, Engine>, Failure> {
        RwLockReadGuard::try_map(self.slot.read(), |slot| slot.engine.as_ref()).map_err(|_| Failure::Gone)
    }

    /// Everything committed so far, unchanged by what comes.
    pub(super) fn snapshot(&self) -> Result<Snapshot<'_>, Failure> {
        let engine = self.engine()?;
        let in_memory = MappedRwLockReadGuard::try_map(engine, |engine| match engine {
            Engine::Memory(memory) => Some(memory),
            Engine::File(_) => None,
        });
        match in_memory.map_err(|engine| begin_read(&engine)) {
            Ok(memory) => Ok(Snapshot::Memory(memory)),
            Err(begun) => begun,
        }
    }

    /// Calls `with` with the file; there is nothing to do where there is none.
    fn with_file<T: Default>(&self, with: impl FnOnce(&Redb) -> Result<T, Failure>) -> Result<T, Failure> {
        match &*self.engine()? {
            Engine::File(redb) => with(redb),
            Engine::Memory(_) => Ok(T::default()),
        }
    }

    /// Writes all of it durably, or fails: then only [`Failure::Refused`] says that nothing was written.
    pub(super) fn write(&self, set: &WriteSet) -> Result<(), Failure> {
        self.env.failpoint("store.commit.begin")?;
        if matches!(self.place, Place::Memory) {
            let Some(Engine::Memory(memory)) = &mut self.slot.write().engine else { return Err(Failure::Gone) };
            memory.write(set);
            return Ok(());
        }
        self.with_file(|redb| self.write_file(redb, set))
    }

    fn write_file(&self, redb: &Redb, set: &WriteSet) -> Result<(), Failure> {
        let mut txn = redb.begin_write()?;
        txn.set_quick_repair(self.quick_repair);
        {
            let mut log = txn.open_table(LOG)?;
            for record in &set.records {
                record.encode(log.insert_reserve(record.version.id.0, record.encoded_len())?.as_mut());
            }
            for id in &set.removes {
                log.remove(id.0)?;
            }
        }
        if !set.meta.is_empty() {
            let mut meta = txn.open_table(META)?;
            for (key, value) in &set.meta {
                meta.insert(key, value)?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// Makes the tables in a new file.
    pub(super) fn prepare(&self) -> Result<(), Failure> {
        const FIRST: [(&str, u64); 3] = [(FORMAT_KEY, FORMAT), (REVISION_KEY, 1), (COMPACTED_KEY, 0)];
        if matches!(self.place, Place::Memory) {
            return self.write(&WriteSet { meta: FIRST.to_vec(), ..WriteSet::default() });
        }
        self.with_file(|redb| {
            let txn = redb.begin_write()?;
            {
                txn.open_table(LOG)?;
                let mut meta = txn.open_table(META)?;
                if meta.get(FORMAT_KEY)?.is_none() {
                    for (key, value) in FIRST {
                        meta.insert(key, value)?;
                    }
                }
            }
            txn.commit()?;
            Ok(())
        })
    }

    /// Closes the file and opens it again from what the disk has, read-only if it can't be written. When this fails it
    /// still can be read, unless [`Database::snapshot`] says [`Failure::Gone`].
    pub(super) fn reopen(&self) -> Result<(), Failure> {
        let mut slot = self.slot.write();
        slot.generation += 1;
        slot.writable = false;
        slot.engine = None;
        let Place::Folder { dir, .. } = &self.place else { return Err(Failure::Gone) };
        if let Err(error) = OpenOptions::new().read(true).open(Place::file(dir)).and_then(|file| drop_cache(&file)) {
            tracing::warn!(%error, "the store's page cache can't be dropped");
        }
        match open_file(dir, &self.env, self.cache_bytes) {
            Ok(redb) => {
                slot.engine = Some(Engine::File(redb));
                slot.writable = true;
                Ok(())
            }
            Err(error) => {
                slot.engine = open_read_only(dir, &self.env, self.cache_bytes)
                    .inspect_err(|error| tracing::error!(%error, "the store can't be read any more"))
                    .map(Engine::File)
                    .ok();
                Err(error.into())
            }
        }
    }

    /// Whether most of a large file is free pages.
    pub(super) fn is_mostly_free(&self) -> Result<bool, Failure> {
        let Place::Folder { dir, .. } = &self.place else { return Ok(false) };
        // What it takes of the disk; what was never written takes nothing.
        let size = std::fs::metadata(Place::file(dir)).map_or(0, |metadata| metadata.blocks() * 512);
        if size < LARGE {
            return Ok(false);
        }
        self.with_file(|redb| {
            let txn = redb.begin_write()?;
            let stats = txn.stats()?;
            let used = stats.allocated_pages() * stats.page_size() as u64;
            txn.abort()?;
            Ok(used < size / 2)
        })
    }

    /// Gives free pages back to the file system.
    pub(super) fn defragment(&self) -> Result<(), Failure> {
        let mut slot = self.slot.write();
        let Engine::File(redb) = slot.engine.as_mut().ok_or(Failure::Gone)? else { return Ok(()) };
        // A long read makes it refuse; then it is left for the next time.
        match redb.compact() {
            Ok(_) | Err(redb::CompactionError::TransactionInProgress) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sure that the disk has what was read.
    pub(super) fn sync(&self) -> io::Result<()> {
        let Place::Folder { dir, .. } = &self.place else { return Ok(()) };
        self.env.failpoint("store.disk.sync")?;
        File::open(Place::file(dir))?.sync_all()
    }

    /// What the file system has left for us; `None` when that is no question.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let Place::Folder { dir, .. } = &self.place else { return None };
        let stat = rustix::fs::statvfs(dir).ok()?;
        Some(stat.f_bavail * stat.f_frsize)
    }

    /// Closes the file; every later operation fails.
    pub(super) fn close(&self) {
        if let Some(Engine::File(redb)) = self.slot.write().engine.take()
            && let Err(error) = redb.close()
        {
            tracing::warn!(%error, "the store can't be closed properly");
        }
        // Streams may keep the rest of this alive for long.
        if let Place::Folder { lock, .. } = &self.place {
            lock.lock().take();
        }
    }
}

fn begin_read<'db>(engine: &Engine) -> Result<Snapshot<'db>, Failure> {
    let Engine::File(redb) = engine else { return Err(Failure::Gone) };
    let txn = redb.begin_read()?;
    let log = txn.open_table(LOG)?;
    Ok(Snapshot::File(Box::new(Read { txn, log })))
}

impl Place {
    fn open_error(&self, error: DatabaseError) -> OpenError {
        match (self, error) {
            (Place::Folder { dir, .. }, DatabaseError::DatabaseAlreadyOpen) => OpenError::InUse { path: dir.clone() },
            (_, error) => OpenError::Engine(Box::new(error)),
        }
    }
}

pub(super) fn builder(cache_bytes: usize) -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(cache_bytes);
    builder
}

fn open_file(dir: &Path, env: &Env, cache_bytes: usize) -> Result<Redb, DatabaseError> {
    let path = Place::file(dir);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    let mut builder = builder(cache_bytes);
    builder.set_repair_callback(|repair| {
        if repair.progress() == 0.0 {
            tracing::info!("the store was not closed properly: checking it");
        }
    });
    builder.create_with_backend(Disk::new(file, env.clone()))
}

fn open_read_only(dir: &Path, env: &Env, cache_bytes: usize) -> Result<Redb, DatabaseError> {
    let file = File::open(Place::file(dir))?;
    builder(cache_bytes).create_with_backend(Disk::read_only(file, env.clone())?)
}
