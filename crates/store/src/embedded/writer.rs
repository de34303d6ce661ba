//! The writer: takes what waits, decides each transaction in order, commits them together, and tells everybody.

mod draft;

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use draft::{Answer, Draft};

use super::Shared;
use super::database::{COMPACTED_KEY, Failure, REVISION_KEY, WriteSet};
use super::index::superseded;
use super::queue::{Refusal, Request};
use crate::error::chain;
use crate::{Error, Revision};

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
                Request::Defragment { only_if_worth, done } => defragments.push((only_if_worth, done)),
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
        for (only_if_worth, done) in defragments {
            let _ = done.send(self.defragment(shared, only_if_worth));
        }
    }

    fn defragment(&mut self, shared: &Shared, only_if_worth: bool) -> Result<bool, Error> {
        // A compaction under way frees more.
        if only_if_worth && self.busy() {
            return Ok(false);
        }
        while self.busy() {
            self.step(shared, Vec::new());
        }
        let outcome = match only_if_worth {
            true => shared.db.is_mostly_free(),
            false => Ok(true),
        };
        let outcome = outcome.and_then(|worth| if worth { shared.db.defragment().map(|()| true) } else { Ok(false) });
        outcome.map_err(|failure| self.failed(shared, failure))
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
        tracing::error!(error = chain(&failure), "the store can't be written");
        let begun = shared.env.monotonic();
        if let Err(failure) = shared.db.reopen() {
            tracing::error!(error = chain(&failure), "the store can't be opened again: it can only be read");
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
            tracing::error!(error = chain(&failure), "the store can't be opened again after a failed read");
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
