//! The writer: takes what waits, decides each transaction in order, commits them together, and tells everybody.

use std::collections::HashMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tokio::sync::oneshot;

use super::Shared;
use super::database::{COMPACTED_KEY, Failure, REVISION_KEY, WriteSet};
use super::index::{Index, superseded};
use super::queue::{Refusal, Request};
use super::record::{NewRecord, RecordId, Version};
use crate::error::chain;
use crate::{Action, Committed, Error, Event, EventKind, PrevValue, Revision, Tag, Txn};

/// What only the writer knows.
#[derive(Default)]
pub(super) struct Writer {
    compaction: Option<Compaction>,
    /// The last commit failed for want of space.
    full: Option<Full>,
    /// The last commit failed; the compaction waits for a better time.
    failed: bool,
}

/// Superseded records being removed, some with each commit.
struct Compaction {
    revision: Revision,
    /// The last key that is done.
    cursor: Bound<Bytes>,
}

/// A full disk. Each failed commit costs opening the file again, so the next is only tried when there is reason to hope.
struct Full {
    retry_at: Timestamp,
}

/// The keys a compaction looks at, and the records it removes, in one commit.
const COMPACT_KEYS: usize = 2048;
const COMPACT_RECORDS: usize = 1024;

/// When so much is free, writing to a disk that was full is tried again at once.
const FREE_BYTES_TO_RETRY: u64 = 16 << 20;

/// Else after this long, or several times as long as opening took.
const FULL_RETRY: Duration = Duration::from_secs(1);

type Done = oneshot::Sender<Result<Committed, Refusal>>;

/// Who waits for a transaction, and what to answer once its batch is durable.
struct Answer {
    done: Done,
    outcome: Result<Committed, Refusal>,
}

/// A batch being put together.
struct Draft {
    set: WriteSet,
    /// In the order of `set.records`.
    tags: Vec<Option<Tag>>,
    revision: Revision,
    /// The newest records of keys in this batch.
    pending: HashMap<Bytes, Version>,
    now: u64,
}

/// Ends the process when the writer panics: nobody could trust the state it leaves.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            die("the writer panicked");
        }
    }
}

fn die(reason: &str) -> ! {
    tracing::error!(reason, "the store can't trust its state, ending the process");
    std::process::abort()
}

impl Writer {
    pub(super) fn compact_on_open(&mut self, revision: Revision) {
        self.compaction = Some(Compaction { revision, cursor: Bound::Unbounded });
    }

    /// Whether there is work without a request.
    pub(super) fn busy(&self) -> bool {
        self.compaction.is_some() && !self.failed
    }

    /// Handles the requests of one batch, and a piece of a running compaction.
    pub(super) fn step(&mut self, shared: &Shared, requests: Vec<Request>) {
        let _guard = AbortOnPanic;
        let mut commits = Vec::with_capacity(requests.len());
        let (mut compacts, mut defragments) = (Vec::new(), Vec::new());
        for request in requests {
            match request {
                Request::Commit { txn, done } => commits.push((txn, done)),
                Request::Compact { revision, done } => compacts.push((revision, done)),
                Request::Recover { generation, done } => {
                    self.recover(shared, generation);
                    let _ = done.send(());
                }
                Request::Defragment { done } => defragments.push(done),
            }
        }
        let mut draft = Draft::new(shared);
        let answers = draft.add_all(shared, commits);
        let compact_to = compacts.iter().map(|(revision, _)| *revision).max().filter(|to| *to > shared.compacted());
        if let Some(to) = compact_to {
            draft.set.meta = vec![(COMPACTED_KEY, to), (REVISION_KEY, draft.revision)];
        }
        let touched = self.plan_compaction(shared, &mut draft.set);

        let result = if draft.set.is_empty() { Ok(()) } else { self.persist(shared, &draft) };
        self.failed = result.is_err();
        if result.is_ok() {
            // Durable, known to nobody: an error can't be pretended here, a crash can.
            let _ = shared.env.failpoint("store.commit.durable");
            self.finish_compaction(shared, touched, compact_to);
            draft.publish(shared);
        }
        for Answer { done, outcome } in answers {
            let _ = done.send(match &result {
                Ok(()) => outcome,
                Err(error) => Err(Refusal::Error(error.clone())),
            });
        }
        for (_, done) in compacts {
            let _ = done.send(result.clone());
        }
        for done in defragments {
            let _ = done.send(self.defragment(shared));
        }
    }

    fn defragment(&mut self, shared: &Shared) -> Result<(), Error> {
        while self.busy() {
            self.step(shared, Vec::new());
        }
        shared.db.defragment().map_err(|failure| self.failed(shared, failure))
    }

    fn persist(&mut self, shared: &Shared, draft: &Draft) -> Result<(), Error> {
        if let Some(full) = &self.full {
            let free = shared.db.free_bytes().unwrap_or(0);
            if free < FREE_BYTES_TO_RETRY + 4 * draft.set.bytes() && shared.env.now() < full.retry_at {
                return Err(Error::NoSpace);
            }
        }
        if !shared.db.writable() {
            shared.db.reopen().map_err(|failure| Error::Engine(Arc::new(failure)))?;
        }
        match shared.db.write(&draft.set) {
            Ok(()) => {
                self.full = None;
                Ok(())
            }
            Err(failure @ Failure::Refused(_)) => Err(Error::Engine(Arc::new(failure))),
            Err(failure) => {
                let error = self.failed(shared, failure);
                if happened(shared, draft) { Ok(()) } else { Err(error) }
            }
        }
    }

    /// redb trusts a file no more after an error: opens it again.
    fn failed(&mut self, shared: &Shared, failure: Failure) -> Error {
        tracing::error!(error = chain(&failure), "writing the store");
        let begun = shared.env.monotonic();
        if let Err(failure) = shared.db.reopen() {
            tracing::error!(error = chain(&failure), "opening the store again; it can only be read");
        }
        if !failure.is_full() {
            self.full = None;
            return Error::Engine(Arc::new(failure));
        }
        let pause = FULL_RETRY.max(4 * shared.env.monotonic().duration_since(begun));
        self.full = Some(Full { retry_at: shared.env.now().saturating_add(pause).unwrap_or(Timestamp::MAX) });
        Error::NoSpace
    }

    fn recover(&mut self, shared: &Shared, generation: u64) {
        if shared.db.generation() == generation
            && let Err(failure) = shared.db.reopen()
        {
            tracing::error!(error = chain(&failure), "opening the store again after a failed read");
        }
    }

    /// Adds the next piece of the running compaction; the keys it covers, and whether they are the last.
    fn plan_compaction(&mut self, shared: &Shared, set: &mut WriteSet) -> Option<(Vec<Bytes>, bool)> {
        if self.compaction.is_some() && shared.env.failpoint("store.compact.piece").is_err() {
            // As if the process had ended here.
            self.compaction = None;
        }
        let Compaction { revision, cursor } = self.compaction.as_ref()?;
        let index = shared.index.read();
        let cursor = cursor.as_ref().map(|key| &key[..]);
        let mut keys = Vec::new();
        for (seen, (key, history)) in index.histories(cursor).enumerate() {
            if seen >= COMPACT_KEYS || set.removes.len() >= COMPACT_RECORDS {
                return Some((keys, false));
            }
            let gone = superseded(history, *revision);
            set.removes.extend(gone.iter().map(|version| version.id));
            if !gone.is_empty() || seen + 1 == COMPACT_KEYS {
                keys.push(key.clone());
            }
        }
        Some((keys, true))
    }

    fn finish_compaction(&mut self, shared: &Shared, done: Option<(Vec<Bytes>, bool)>, compact_to: Option<Revision>) {
        if done.is_none() && compact_to.is_none() {
            return;
        }
        let mut index = shared.index.write();
        if let (Some((keys, complete)), Some(compaction)) = (done, &mut self.compaction) {
            for key in &keys {
                index.prune(key, compaction.revision);
            }
            match keys.into_iter().next_back() {
                Some(last) if !complete => compaction.cursor = Bound::Excluded(last),
                _ => self.compaction = None,
            }
        }
        if let Some(to) = compact_to {
            index.compacted = to;
            self.compaction = Some(Compaction { revision: to, cursor: Bound::Unbounded });
        }
    }
}

/// Whether a batch whose commit failed is on the disk after all, whole. It is never there in part.
fn happened(shared: &Shared, draft: &Draft) -> bool {
    let Some(expected) = draft.set.records.last().map(|last| last.version.id) else { return false };
    let last = match shared.db.snapshot().and_then(|snapshot| snapshot.last()) {
        Ok(last) => last,
        Err(failure) => die(&format!("the outcome of a write can't be read: {}", chain(&failure))),
    };
    if last.is_none_or(|last| last.revision() <= shared.index.read().revision) {
        return false;
    }
    if last != Some(expected) {
        die("a write happened in part");
    }
    // It was read, maybe from the kernel's memory only.
    if let Err(error) = shared.db.sync() {
        die(&format!("it can't be known whether a write is on the disk: {error}"));
    }
    true
}

impl Draft {
    fn new(shared: &Shared) -> Draft {
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

    fn add_all(&mut self, shared: &Shared, commits: Vec<(Txn, Done)>) -> Vec<Answer> {
        let index = shared.index.read();
        commits.into_iter().map(|(txn, done)| Answer { done, outcome: self.add(&index, txn) }).collect()
    }

    fn add(&mut self, index: &Index, txn: Txn) -> Result<Committed, Refusal> {
        for (compare, wanted) in txn.compares.iter().enumerate() {
            let current = self.live(index, &wanted.key).map(|version| version.id);
            if current.map_or(0, RecordId::revision) != wanted.mod_revision {
                return Err(Refusal::Conflict { compare, current });
            }
        }
        let revision = self.revision + 1;
        let mut changed = 0;
        for op in txn.ops {
            let live = self.live(index, &op.key);
            let (value, ttl, number) = match op.action {
                Action::Put { value, ttl } => (value, ttl, live.map_or(1, |live| live.version.saturating_add(1))),
                Action::Delete if live.is_none() => continue,
                Action::Delete => (Bytes::new(), None, 0),
            };
            let version = Version {
                id: RecordId::new(revision, changed),
                created: live.map_or(revision, |live| live.created),
                version: number,
                expires: ttl.map_or(0, |ttl| expiry(self.now, ttl)),
            };
            changed += 1;
            self.pending.insert(op.key.clone(), version);
            self.set.records.push(NewRecord { version, prev: live.map(|live| live.id), key: op.key, value });
            self.tags.push(op.tag);
        }
        if changed > 0 {
            self.revision = revision;
        }
        Ok(Committed { revision: self.revision, changed })
    }

    /// Makes the batch, which is durable now, visible: first to reads, then to watchers, then to those who follow progress.
    fn publish(self, shared: &Shared) {
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

fn expiry(now: u64, ttl: Duration) -> u32 {
    // At least a second, as 0 says never.
    u32::try_from(now.saturating_add(ttl.as_secs().max(1))).unwrap_or(u32::MAX)
}
