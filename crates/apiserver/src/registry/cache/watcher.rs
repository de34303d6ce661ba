//! Watchers: cursors into the log, woken only by what concerns them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

use super::{Cache, Entry, NODE_FIELD, Range};

/// What wakes a watcher: anything in the range.
pub(crate) type Interest = Range;

/// The log no longer holds what the watcher has not seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fallen {
    /// The oldest revision that the log goes back to.
    pub oldest: u64,
}

/// One watcher's place in the log. Dropping it ends the watch.
pub(crate) struct Cursor {
    cache: Arc<Cache>,
    bell: Arc<Bell>,
    position: u64,
}

/// Rung by the first entry that a watcher has not seen.
pub(super) struct Bell {
    interest: Interest,
    /// The sequence number of the first unseen entry; `NONE` when all were seen.
    unseen: AtomicU64,
    notify: Notify,
}

const NONE: u64 = u64::MAX;

#[derive(Default)]
pub(super) struct Watchers {
    by_interest: HashMap<Interest, Vec<Arc<Bell>>>,
}

impl Watchers {
    pub(super) fn add(&mut self, interest: Interest) -> Arc<Bell> {
        let bell = Arc::new(Bell { interest: interest.clone(), unseen: AtomicU64::new(NONE), notify: Notify::new() });
        self.by_interest.entry(interest).or_default().push(bell.clone());
        bell
    }

    fn remove(&mut self, bell: &Arc<Bell>) {
        if let Some(bells) = self.by_interest.get_mut(&bell.interest) {
            bells.retain(|other| !Arc::ptr_eq(other, bell));
            if bells.is_empty() {
                self.by_interest.remove(&bell.interest);
            }
        }
    }

    pub(super) fn wake(&self, entry: &Entry, sequence: u64) {
        if self.by_interest.is_empty() {
            return;
        }
        self.ring(&Range::All, sequence);
        self.ring(&Range::Key(entry.key.to_string()), sequence);
        if let Some((namespace, _)) = entry.key.split_once('/') {
            self.ring(&Range::Namespace(namespace.to_owned()), sequence);
        }
        let node = |object: &Option<Arc<apimachinery::Object>>| {
            object
                .as_ref()
                .and_then(|object| object.field(NODE_FIELD))
                .filter(|node| !node.is_empty())
                .map(str::to_owned)
        };
        let (new, old) = (node(&entry.new), node(&entry.old));
        if old != new
            && let Some(old) = old
        {
            self.ring(&Range::Node(old), sequence);
        }
        if let Some(new) = new {
            self.ring(&Range::Node(new), sequence);
        }
    }

    /// Wakes everybody; who stands before the log's first entry falls.
    pub(super) fn ring_all(&self) {
        for bell in self.by_interest.values().flatten() {
            bell.unseen.store(0, Ordering::Release);
            bell.notify.notify_one();
        }
    }

    fn ring(&self, interest: &Interest, sequence: u64) {
        for bell in self.by_interest.get(interest).into_iter().flatten() {
            bell.unseen.fetch_min(sequence, Ordering::AcqRel);
            bell.notify.notify_one();
        }
    }
}

impl Cursor {
    pub(super) fn new(cache: Arc<Cache>, bell: Arc<Bell>, position: u64) -> Cursor {
        // What is in the log already rang no bell of ours.
        bell.unseen.fetch_min(position, Ordering::AcqRel);
        Cursor { cache, bell, position }
    }

    /// Waits until something that concerns this watcher happened. Cancel safe.
    pub(crate) async fn wait(&self) {
        while self.bell.unseen.load(Ordering::Acquire) == NONE {
            self.bell.notify.notified().await;
        }
    }

    /// Shows the next entries of the range (at most about `limit`) to `visit` and returns the revision up to which all were
    /// shown: `through`, up to which the caller knew the cache to be complete before, or less when the limit cut it short.
    pub(crate) fn read(&mut self, limit: usize, through: u64, mut visit: impl FnMut(&Entry)) -> Result<u64, Fallen> {
        let state = self.cache.state.read();
        let unseen = self.bell.unseen.swap(NONE, Ordering::AcqRel);
        // Nothing between the position and the first unseen entry concerned us, even if it has left the log since.
        self.position = if unseen == NONE { state.log.next_sequence() } else { self.position.max(unseen) };
        let Some(entries) = state.log.from(self.position) else { return Err(Fallen { oldest: state.log.floor() }) };
        debug_assert!(self.position >= state.log.first());
        let mut reached = state.newest.max(through);
        let mut shown = 0;
        for entry in entries {
            if shown >= limit {
                self.bell.unseen.fetch_min(self.position, Ordering::AcqRel);
                break;
            }
            self.position += 1;
            reached = entry.revision;
            if concerns(&self.bell.interest, entry) {
                visit(entry);
                shown += 1;
            }
        }
        if self.position == state.log.next_sequence() {
            reached = state.newest.max(through);
        }
        Ok(reached)
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.cache.watchers.lock().remove(&self.bell);
    }
}

fn concerns(interest: &Interest, entry: &Entry) -> bool {
    entry.new.as_ref().is_some_and(|object| interest.contains(&entry.key, object))
        || entry.old.as_ref().is_some_and(|object| interest.contains(&entry.key, object))
}
