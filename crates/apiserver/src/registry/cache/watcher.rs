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

/// The bells of each interest, found without making one.
#[derive(Default)]
pub(super) struct Watchers {
    all: Vec<Arc<Bell>>,
    namespaces: Bells,
    keys: Bells,
    nodes: Bells,
}

type Bells = HashMap<String, Vec<Arc<Bell>>>;

impl Watchers {
    pub(super) fn add(&mut self, interest: Interest) -> Arc<Bell> {
        let bell = Arc::new(Bell { interest, unseen: AtomicU64::new(NONE), notify: Notify::new() });
        match self.named(&bell.interest) {
            None => self.all.push(bell.clone()),
            Some((bells, name)) => bells.entry(name.to_owned()).or_default().push(bell.clone()),
        }
        bell
    }

    fn remove(&mut self, bell: &Arc<Bell>) {
        let others = |other: &Arc<Bell>| !Arc::ptr_eq(other, bell);
        let Some((bells, name)) = self.named(&bell.interest) else { return self.all.retain(others) };
        if let Some(same) = bells.get_mut(name) {
            same.retain(others);
            if same.is_empty() {
                bells.remove(name);
            }
        }
    }

    /// Where the bells of an interest are, if it names something.
    fn named<'a>(&mut self, interest: &'a Interest) -> Option<(&mut Bells, &'a str)> {
        match interest {
            Range::All => None,
            Range::Namespace(name) => Some((&mut self.namespaces, name)),
            Range::Key(name) => Some((&mut self.keys, name)),
            Range::Node(name) => Some((&mut self.nodes, name)),
        }
    }

    pub(super) fn wake(&self, entry: &Entry, sequence: u64) {
        ring(&self.all, sequence);
        let ring = |bells: &Bells, name: &str| ring(bells.get(name).into_iter().flatten(), sequence);
        ring(&self.keys, &entry.key);
        if let Some((namespace, _)) = entry.key.split_once('/') {
            ring(&self.namespaces, namespace);
        }
        fn node(object: &Option<Arc<apimachinery::Object>>) -> Option<&str> {
            object.as_ref()?.field(NODE_FIELD).filter(|node| !node.is_empty())
        }
        let (new, old) = (node(&entry.new), node(&entry.old));
        if old != new
            && let Some(old) = old
        {
            ring(&self.nodes, old);
        }
        if let Some(new) = new {
            ring(&self.nodes, new);
        }
    }

    /// Wakes everybody; who stands before the log's first entry falls.
    pub(super) fn ring_all(&self) {
        ring(&self.all, 0);
        for bells in [&self.namespaces, &self.keys, &self.nodes] {
            ring(bells.values().flatten(), 0);
        }
    }
}

fn ring<'a>(bells: impl IntoIterator<Item = &'a Arc<Bell>>, sequence: u64) {
    for bell in bells {
        bell.unseen.fetch_min(sequence, Ordering::AcqRel);
        bell.notify.notify_one();
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
