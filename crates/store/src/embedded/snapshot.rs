//! One view of the log, wherever it is.

use parking_lot::MappedRwLockReadGuard;
use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::database::{Failure, META};
use super::memory::Memory;
use super::record::{Record, RecordId};

/// A consistent view of the log. Of one in memory nobody writes meanwhile.
pub(super) enum Snapshot<'db> {
    File(Box<Read>),
    Memory(MappedRwLockReadGuard<'db, Memory>),
}

/// A read of the file under way.
pub(super) struct Read {
    pub(super) txn: ReadTransaction,
    pub(super) log: ReadOnlyTable<u64, &'static [u8]>,
}

impl Snapshot<'_> {
    /// Calls `read` with a record.
    pub(super) fn get<T>(&self, id: RecordId, read: impl FnOnce(Record<'_>) -> T) -> Result<Option<T>, Failure> {
        match self {
            Snapshot::Memory(memory) => Ok(memory.log.get(&id).map(|record| read(record.as_record()))),
            Snapshot::File(file) => {
                let Some(bytes) = file.log.get(id.0)? else { return Ok(None) };
                let record = Record::decode(id, bytes.value()).ok_or(Failure::Record(id))?;
                Ok(Some(read(record)))
            }
        }
    }

    /// Calls `each` with the records of a range in order, until it says `false`.
    pub(super) fn scan(
        &self,
        range: std::ops::Range<RecordId>,
        mut each: impl FnMut(Record<'_>) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        match self {
            Snapshot::Memory(memory) => {
                for (_, record) in memory.log.range(range) {
                    if !each(record.as_record())? {
                        break;
                    }
                }
            }
            Snapshot::File(file) => {
                for entry in file.log.range(range.start.0..range.end.0)? {
                    let (id, bytes) = entry?;
                    let id = RecordId(id.value());
                    if !each(Record::decode(id, bytes.value()).ok_or(Failure::Record(id))?)? {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Calls `each` with all records as they lie in a file.
    pub(super) fn scan_raw(&self, mut each: impl FnMut(RecordId, &[u8]) -> Result<(), Failure>) -> Result<(), Failure> {
        match self {
            Snapshot::Memory(memory) => {
                let mut bytes = Vec::new();
                for (id, record) in &memory.log {
                    bytes.resize(record.encoded_len(), 0);
                    record.encode(&mut bytes);
                    each(*id, &bytes)?;
                }
            }
            Snapshot::File(file) => {
                for entry in file.log.iter()? {
                    let (id, bytes) = entry?;
                    each(RecordId(id.value()), bytes.value())?;
                }
            }
        }
        Ok(())
    }

    /// The newest record of all.
    pub(super) fn last(&self) -> Result<Option<RecordId>, Failure> {
        match self {
            Snapshot::Memory(memory) => Ok(memory.log.keys().next_back().copied()),
            Snapshot::File(file) => Ok(file.log.last()?.map(|(id, _)| RecordId(id.value()))),
        }
    }

    pub(super) fn meta(&self, key: &str) -> Result<Option<u64>, Failure> {
        match self {
            Snapshot::Memory(memory) => Ok(memory.meta.get(key).copied()),
            Snapshot::File(file) => Ok(file.txn.open_table(META)?.get(key)?.map(|value| value.value())),
        }
    }
}
