//! A batch: each transaction decided in its turn, then made visible together.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::embedded::Shared;
use crate::embedded::database::{Failure, WriteSet};
use crate::embedded::index::Index;
use crate::embedded::queue::Refusal;
use crate::embedded::record::{NewRecord, RecordId, Version};
use crate::{Action, Committed, Error, Event, EventKind, Op, PrefixLength, PrevValue, Revision, Tag, Txn};

pub(super) type Done = oneshot::Sender<Result<Committed, Refusal>>;

/// Who waits for a transaction, and what to answer once its batch is durable.
pub(super) struct Answer {
    pub(super) done: Done,
    pub(super) outcome: Result<Committed, Refusal>,
}

/// A batch being put together.
pub(super) struct Draft {
    pub(super) set: WriteSet,
    /// In the order of `set.records`.
    tags: Vec<Option<Tag>>,
    pub(super) revision: Revision,
    /// The newest records of keys in this batch.
    pending: HashMap<Bytes, Version>,
    now: u64,
}

impl Draft {
    pub(super) fn new(shared: &Shared) -> Draft {
        Draft {
            set: WriteSet::default(),
            tags: Vec::new(),
            revision: shared.index.read().revision,
            pending: HashMap::new(),
            now: u64::try_from(shared.env.now().as_second()).unwrap_or(0),
        }
    }

    /// The key's newest value, counting the transactions before in this batch.
    fn live(&self, index: &Index, key: &[u8]) -> Option<Version> {
        match self.pending.get(key) {
            Some(pending) => Some(*pending).filter(|version| !version.deleted()),
            None => index.live(key),
        }
    }

    pub(super) fn add_all(&mut self, shared: &Shared, commits: Vec<(Txn, Done)>) -> Vec<Answer> {
        let index = shared.index.read();
        let mut add = |txn| self.add(&index, shared.prefix_length, txn);
        commits.into_iter().map(|(txn, done)| Answer { done, outcome: add(txn) }).collect()
    }

    fn add(&mut self, index: &Index, prefix_length: PrefixLength, txn: Txn) -> Result<Committed, Refusal> {
        for (compare, wanted) in txn.compares.iter().enumerate() {
            let current = self.live(index, &wanted.key).map(|version| version.id);
            if current.map_or(0, RecordId::revision) != wanted.mod_revision {
                return Err(Refusal::Conflict { compare, current });
            }
        }
        let mut ops = txn.ops;
        ops.retain(|op| matches!(op.action, Action::Put { .. }) || self.live(index, &op.key).is_some());
        let (before, changed) = (self.revision, ops.len());
        let mut place = 0;
        for (step, op) in in_steps(ops, prefix_length) {
            let live = self.live(index, &op.key);
            let (value, ttl, number) = match op.action {
                Action::Put { value, ttl } => (value, ttl, live.map_or(1, |live| live.version.saturating_add(1))),
                Action::Delete => (Bytes::new(), None, 0),
            };
            let revision = before + step;
            place = if revision == self.revision { place + 1 } else { 0 };
            self.revision = revision;
            let version = Version {
                id: RecordId::new(revision, place),
                created: live.map_or(revision, |live| live.created),
                version: number,
                expires: ttl.map_or(0, |ttl| expiry(self.now, ttl)),
            };
            self.pending.insert(op.key.clone(), version);
            self.set.records.push(NewRecord { version, prev: live.map(|live| live.id), key: op.key, value });
            self.tags.push(op.tag);
        }
        Ok(Committed { revision: self.revision, changed })
    }

    /// Makes the batch, which is durable now, visible: first to reads, then to watchers, then to those who follow progress.
    pub(super) fn publish(self, shared: &Shared) {
        if self.set.records.is_empty() {
            return;
        }
        {
            let mut index = shared.index.write();
            for record in &self.set.records {
                index.push(&record.key, record.version);
            }
        }
        let (events, prev_values) = self.into_events(shared);
        let revision = events.last().map_or(0, |event| event.revision);
        shared.watchers.publish(&events, revision, prev_values);
        shared.progress.send_replace(revision);
    }

    fn into_events(self, shared: &Shared) -> (Vec<Arc<Event>>, Result<(), Error>) {
        let mut prev_values = Ok(());
        let prevs = match shared.watchers.wants_prev_values() {
            true => self.prev_values(shared).unwrap_or_else(|error| {
                prev_values = Err(error);
                Vec::new()
            }),
            false => Vec::new(),
        };
        let mut prevs = prevs.into_iter();
        let records = self.set.records.into_iter().zip(self.tags);
        let events = records.map(|(record, tag)| {
            let value = prevs.next().flatten();
            Arc::new(Event {
                kind: if record.version.deleted() { EventKind::Delete } else { EventKind::Put },
                key: record.key,
                value: record.value,
                revision: record.version.id.revision(),
                create_revision: record.version.created,
                version: record.version.version.into(),
                prev: record.prev.map(|prev| PrevValue { revision: prev.revision(), value }),
                tag,
            })
        });
        (events.collect(), prev_values)
    }

    fn prev_values(&self, shared: &Shared) -> Result<Vec<Option<Bytes>>, Error> {
        let records = &self.set.records;
        let read = || -> Result<Vec<Option<Bytes>>, Failure> {
            let snapshot = shared.db.snapshot()?;
            let value = |record: &NewRecord| match record.prev {
                None => Ok(None),
                Some(prev) => match records.binary_search_by_key(&prev, |record| record.version.id) {
                    Ok(at) => Ok(Some(records[at].value.clone())),
                    Err(_) => snapshot.value(prev).map(Some),
                },
            };
            records.iter().map(value).collect()
        };
        read().map_err(|failure| Error::Engine(Arc::new(failure)))
    }
}

/// The operations in the order of the revisions they happen at, counted from 1: the last, but for those that others of the same
/// resource follow.
fn in_steps(ops: Vec<Op>, prefix_length: PrefixLength) -> Vec<(u64, Op)> {
    let prefix = |at: usize| ops[at].prefix(prefix_length);
    let followers = |at: usize| (at + 1..ops.len()).filter(|later| prefix(*later) == prefix(at)).count() as u64;
    let followers: Vec<u64> = (0..ops.len()).map(followers).collect();
    let steps = followers.iter().max().map_or(0, |most| most + 1);
    let mut placed: Vec<(u64, Op)> = followers.iter().map(|followers| steps - followers).zip(ops).collect();
    placed.sort_by_key(|(step, _)| *step);
    placed
}

fn expiry(now: u64, ttl: Duration) -> u32 {
    // At least a second, as 0 says never.
    u32::try_from(now.saturating_add(ttl.as_secs().max(1))).unwrap_or(u32::MAX)
}
