//! Copies of a store: taken while it serves, and made into a new store.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use redb::{Database as Redb, ReadableDatabase, ReadableTable};

use super::database::{COMPACTED_KEY, FORMAT, FORMAT_KEY, Failure, LOG, META, Place, REVISION_KEY, builder};
use super::record::RecordId;
use super::snapshot::Snapshot;
use super::{OpenError, Shared};
use crate::{Error, Revision};

/// How far [`restore`] raises the revision above the backup's newest. A lost store can't have come so far since the
/// backup, so that no revision it handed out means something else in the restored one. (What etcd's documentation advises.)
pub const RESTORE_REVISION_BUMP: u64 = 1_000_000_000;

/// What a copy keeps in memory.
const COPY_CACHE_BYTES: usize = 16 << 20;

pub(super) async fn backup(shared: &Arc<Shared>, path: &Path) -> Result<Revision, Error> {
    let (own, path) = (shared.clone(), path.to_owned());
    let run = move || own.backup_now(&path);
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) if !shared.inline => {
            runtime.spawn_blocking(run).await.map_err(|error| Error::Engine(Arc::new(error)))?
        }
        _ => run(),
    }
}

impl Shared {
    fn backup_now(&self, path: &Path) -> Result<Revision, Error> {
        let engine = |error: OpenError| Error::Engine(Arc::new(error));
        let fail = |source| engine(OpenError::Io { path: path.to_owned(), source });
        let part = Partial::create(path).map_err(engine)?;
        let revision = self.with_snapshot(
            |index| Ok((index.revision, index.compacted)),
            |snapshot, (revision, compacted)| {
                copy(
                    snapshot,
                    &part.path,
                    &[(FORMAT_KEY, FORMAT), (REVISION_KEY, revision), (COMPACTED_KEY, compacted)],
                )?;
                Ok(revision)
            },
        )?;
        part.finish(path).map_err(fail)?;
        Ok(revision)
    }
}

/// A file that goes away unless it is finished.
struct Partial {
    path: PathBuf,
}

impl Partial {
    /// Begins the file that will be `target`, which must not exist.
    fn create(target: &Path) -> Result<Partial, OpenError> {
        if target.exists() {
            return Err(OpenError::Exists { path: target.to_owned() });
        }
        let mut name = target.file_name().unwrap_or_default().to_owned();
        name.push(".part");
        let path = target.with_file_name(name);
        let created = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        created.map_err(|source| OpenError::Io { path: path.clone(), source })?;
        Ok(Partial { path })
    }

    fn finish(self, target: &Path) -> std::io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        std::fs::rename(&self.path, target)?;
        match target.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => File::open(dir)?.sync_all(),
            _ => File::open(".")?.sync_all(),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Gone already when it was finished.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn copy(snapshot: &Snapshot<'_>, path: &Path, meta: &[(&str, u64)]) -> Result<(), Failure> {
    let target = builder(COPY_CACHE_BYTES).create(path)?;
    let txn = target.begin_write()?;
    {
        let mut log = txn.open_table(LOG)?;
        snapshot.scan_raw(|id, bytes| {
            log.insert(id.0, bytes)?;
            Ok(())
        })?;
        let mut table = txn.open_table(META)?;
        for (key, value) in meta {
            table.insert(key, value)?;
        }
    }
    txn.commit()?;
    target.close()?;
    Ok(())
}

/// Makes a new store in `dir`, which must not hold one, of a backup. Returns its revision, which is
/// [`RESTORE_REVISION_BUMP`] above the backup's; older ones count as compacted, so that watchers of the lost store list anew.
pub fn restore(backup: &Path, dir: &Path) -> Result<Revision, OpenError> {
    let _lock = Place::folder(dir)?;
    let target = Place::file(dir);
    let part = Partial::create(&target)?;
    std::fs::copy(backup, &part.path).map_err(|source| OpenError::Io { path: backup.to_owned(), source })?;
    let revision = raise_revision(&part.path)?;
    part.finish(&target).map_err(|source| OpenError::Io { path: target, source })?;
    Ok(revision)
}

fn raise_revision(path: &Path) -> Result<Revision, OpenError> {
    let engine = |failure: Failure| OpenError::Engine(Box::new(failure));
    let database = builder(COPY_CACHE_BYTES).open(path).map_err(|error| engine(error.into()))?;
    let (format, newest) = newest(&database).map_err(engine)?;
    if format != FORMAT {
        return Err(OpenError::Format { found: format, newest: FORMAT });
    }
    let revision = newest + RESTORE_REVISION_BUMP;
    let raise = || -> Result<(), Failure> {
        let txn = database.begin_write()?;
        {
            let mut meta = txn.open_table(META)?;
            meta.insert(REVISION_KEY, revision)?;
            meta.insert(COMPACTED_KEY, revision)?;
        }
        txn.commit()?;
        Ok(())
    };
    raise().map_err(engine)?;
    database.close().map_err(|error| engine(error.into()))?;
    Ok(revision)
}

fn newest(database: &Redb) -> Result<(u64, Revision), Failure> {
    let txn = database.begin_read()?;
    let meta = txn.open_table(META)?;
    let number = |key: &str| -> Result<u64, Failure> { Ok(meta.get(key)?.map_or(0, |value| value.value())) };
    let last = txn.open_table(LOG)?.last()?.map_or(0, |(id, _)| RecordId(id.value()).revision());
    Ok((number(FORMAT_KEY)?, number(REVISION_KEY)?.max(last)))
}
