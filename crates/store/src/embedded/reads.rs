//! Reads: which records to read is decided by the index, their values come from the file.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::Shared;
use super::database::Failure;
use super::index::Index;
use super::queue::Request;
use super::record::{Record, RecordId, Version};
use super::snapshot::Snapshot;
use crate::error::chain;
use crate::{Error, Event, EventKind, KeyValue, PrevValue, Range, RangeQuery, Revision};

/// From so many values on, a range is read on a thread for blocking work.
const INLINE_READS: usize = 128;

impl Shared {
    /// Picks records by the index, then reads them from a snapshot that is sure to have them. Tries again once when the
    /// file failed.
    pub(super) fn with_snapshot<P, T>(
        &self,
        mut pick: impl FnMut(&Index) -> Result<P, Error>,
        mut read: impl FnMut(&Snapshot<'_>, P) -> Result<T, Failure>,
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

    pub(super) fn get(&self, key: &[u8], revision: Option<Revision>) -> Result<Option<KeyValue>, Error> {
        self.with_snapshot(
            |index| match revision {
                None => Ok(index.live(key)),
                Some(_) => Ok(index.live_at(key, index.readable(revision)?)),
            },
            |snapshot, version| version.map(|version| snapshot.key_value(version)).transpose(),
        )
    }

    pub(super) async fn range(self: &Arc<Self>, query: RangeQuery) -> Result<Range, Error> {
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

    /// The record that a compare met, or what followed it if it was compacted since.
    pub(super) fn current(&self, key: &[u8], id: RecordId) -> Result<Option<KeyValue>, Error> {
        let found = self.with_snapshot(|_| Ok(()), |snapshot, ()| snapshot.get(id, |record| record.to_key_value()))?;
        match found {
            Some(found) => Ok(Some(found)),
            None => self.get(key, None),
        }
    }
}

impl Snapshot<'_> {
    fn key_value(&self, version: Version) -> Result<KeyValue, Failure> {
        self.get(version.id, |record| record.to_key_value())?.ok_or(Failure::Record(version.id))
    }

    pub(super) fn value(&self, id: RecordId) -> Result<Bytes, Failure> {
        self.get(id, |record| Bytes::copy_from_slice(record.value))?.ok_or(Failure::Record(id))
    }

    /// The event that a record was.
    pub(super) fn event(&self, record: &Record<'_>, prev_values: bool) -> Result<Event, Failure> {
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
