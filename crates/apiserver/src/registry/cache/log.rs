//! The recent changes of one resource.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use tokio::time::Instant;

/// How much of the past is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LogLimits {
    /// Never more than this.
    pub max_bytes: usize,
    /// Beyond this, entries older than `min_age` go.
    pub easy_bytes: usize,
    pub min_age: Duration,
}

impl Default for LogLimits {
    fn default() -> LogLimits {
        LogLimits { max_bytes: 32 << 20, easy_bytes: 1 << 20, min_age: Duration::from_secs(75) }
    }
}

/// One change: `old` is `None` for a creation, `new` for a deletion.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub revision: u64,
    pub key: Arc<str>,
    pub new: Option<Arc<Object>>,
    pub old: Option<Arc<Object>>,
    pub at: Instant,
}

pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// The sequence number of the first entry.
    first: u64,
    /// Every change after this revision is in the log.
    floor: u64,
    bytes: usize,
    limits: LogLimits,
}

impl Log {
    pub(super) fn new(limits: LogLimits) -> Log {
        Log { entries: VecDeque::new(), first: 0, floor: 0, bytes: 0, limits }
    }

    /// Forgets everything; every position handed out before is behind the first entry.
    pub(super) fn begin_after(&mut self, revision: u64) {
        self.first = self.next_sequence() + 1;
        self.entries.clear();
        self.bytes = 0;
        self.floor = revision;
    }

    /// The oldest revision a watch can go on from.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// The sequence number of the first entry that is kept.
    pub(super) fn first(&self) -> u64 {
        self.first
    }

    pub(super) fn next_sequence(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn push(&mut self, entry: Entry) {
        let now = entry.at;
        self.bytes += weight(&entry);
        self.entries.push_back(entry);
        while self.bytes > self.limits.max_bytes || self.bytes > self.limits.easy_bytes && self.first_is_old(now) {
            let Some(gone) = self.entries.pop_front() else { break };
            self.bytes -= weight(&gone);
            self.first += 1;
            self.floor = gone.revision;
        }
    }

    fn first_is_old(&self, now: Instant) -> bool {
        self.entries.front().is_some_and(|entry| now.duration_since(entry.at) >= self.limits.min_age)
    }

    /// Where the first entry after `revision` is or will be.
    pub(super) fn position_after(&self, revision: u64) -> u64 {
        self.first + self.entries.partition_point(|entry| entry.revision <= revision) as u64
    }

    /// Entries from `position` on; `None` when some of them are gone.
    pub(super) fn from(&self, position: u64) -> Option<impl Iterator<Item = &Entry>> {
        let skip = position.checked_sub(self.first)?;
        Some(self.entries.range((skip as usize).min(self.entries.len())..))
    }

    /// What each key that changed after `revision` held then.
    pub(super) fn undo(&self, revision: u64) -> HashMap<&Arc<str>, Option<&Arc<Object>>> {
        let later = self.entries.iter().rev().take_while(|entry| entry.revision > revision);
        later.map(|entry| (&entry.key, entry.old.as_ref())).collect()
    }
}

/// What only the log keeps alive: the previous object.
fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.key.len() + entry.old.as_ref().map_or(0, |old| old.size())
}
