//! The watch cache of one resource: the current objects and the log of what led to them.
//!
//! It knows keys, objects and revisions; no store and no request. The feed appends [`Change`]s in order; lists read the map,
//! or undo the log to an older revision; watchers are cursors into the log, woken when something concerns them.

mod log;
mod watcher;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use apimachinery::Object;
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

pub(crate) use log::{Entry, LogLimits};
pub(crate) use watcher::{Cursor, Interest};

use log::Log;
use watcher::Watchers;

/// The index that node agents are woken and served by.
pub(crate) const NODE_FIELD: &str = "spec.nodeName";

/// The current objects of a resource and their recent past. Keys are `namespace/name`, or the name of cluster-scoped objects.
pub(crate) struct Cache {
    state: RwLock<State>,
    watchers: Mutex<Watchers>,
}

struct State {
    objects: BTreeMap<Arc<str>, Arc<Object>>,
    by_node: HashMap<String, BTreeSet<Arc<str>>>,
    log: Log,
    /// The revision of the newest change.
    newest: u64,
}

/// One change to be appended.
pub(crate) struct Change {
    pub key: Arc<str>,
    /// `None` is a deletion.
    pub object: Option<Arc<Object>>,
    pub revision: u64,
}

/// Which keys a read is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Range {
    All,
    /// Keys that begin with `namespace/`.
    Namespace(String),
    /// One key.
    Key(String),
    /// Objects of all namespaces bound to a node.
    Node(String),
}

/// A past revision that the log no longer reaches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooOld {
    pub oldest: u64,
}

impl Cache {
    pub(crate) fn new(limits: LogLimits) -> Cache {
        Cache {
            state: RwLock::new(State {
                objects: BTreeMap::new(),
                by_node: HashMap::new(),
                log: Log::new(limits),
                newest: 0,
            }),
            watchers: Mutex::new(Watchers::default()),
        }
    }

    /// Fills the cache with what the store held at `revision`, and returns the keys that it no longer holds. Watchers fall: what
    /// happened in between is not known.
    pub(crate) fn load(&self, objects: Vec<(Arc<str>, Arc<Object>)>, revision: u64) -> Vec<Arc<str>> {
        let mut state = self.state.write();
        let before = std::mem::take(&mut state.objects);
        state.by_node.clear();
        for (key, object) in objects {
            state.put(key, Some(object));
        }
        state.newest = revision;
        state.log.begin_after(revision);
        self.watchers.lock().ring_all();
        before.into_keys().filter(|key| !state.objects.contains_key(key)).collect()
    }

    /// Shows the objects in another form; what happened, and who watches it, stays.
    pub(crate) fn replace(&self, objects: Vec<(Arc<str>, Arc<Object>)>) {
        let mut state = self.state.write();
        state.objects = objects.into_iter().collect();
    }

    /// Appends a change and wakes whom it concerns.
    pub(crate) fn append(&self, change: Change, now: Instant) {
        let mut state = self.state.write();
        let old = state.put(change.key.clone(), change.object.clone());
        state.newest = change.revision;
        if old.is_none() && change.object.is_none() {
            return;
        }
        let entry = Entry { revision: change.revision, key: change.key, new: change.object, old, at: now };
        let watchers = self.watchers.lock();
        let sequence = state.log.next_sequence();
        watchers.wake(&entry, sequence);
        state.log.push(entry);
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.state.read().objects.get(key).cloned()
    }

    /// The objects of `range` from the key `start` on, in key order, each shown to `visit` until it returns false. The
    /// result is the revision they were read at: `through` (up to which the caller knows the cache to be complete) or later.
    pub(crate) fn scan(
        &self,
        range: &Range,
        start: &str,
        through: u64,
        mut visit: impl FnMut(&Arc<str>, &Arc<Object>) -> bool,
    ) -> u64 {
        let state = self.state.read();
        state.scan(range, start, &mut visit);
        state.newest.max(through)
    }

    /// Like [`Cache::scan`], as of the past `revision`.
    pub(crate) fn scan_at(
        &self,
        range: &Range,
        start: &str,
        revision: u64,
        mut visit: impl FnMut(&Arc<str>, &Arc<Object>) -> bool,
    ) -> Result<(), TooOld> {
        let state = self.state.read();
        if revision < state.log.floor() {
            return Err(TooOld { oldest: state.log.floor() });
        }
        let undone = state.log.undo(revision);
        if undone.is_empty() {
            state.scan(range, start, &mut visit);
            return Ok(());
        }
        let mut past: Vec<(&Arc<str>, &Arc<Object>)> = undone
            .iter()
            .filter_map(|(key, old)| old.map(|old| (*key, old)))
            .filter(|(key, old)| key.as_ref() >= start && range.contains(key, old))
            .collect();
        past.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut past = past.into_iter().peekable();
        let mut stopped = false;
        state.scan(range, start, &mut |key, object| {
            while let Some((past_key, past_object)) = past.next_if(|(past_key, _)| *past_key <= key) {
                if !visit(past_key, past_object) {
                    stopped = true;
                    return false;
                }
            }
            if undone.contains_key(key) {
                return true;
            }
            stopped = !visit(key, object);
            !stopped
        });
        if !stopped {
            for (key, object) in past {
                if !visit(key, object) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// A cursor that stands after `revision` and sees what concerns `interest`.
    pub(crate) fn watch_after(self: &Arc<Self>, interest: Interest, revision: u64) -> Result<Cursor, TooOld> {
        let state = self.state.read();
        if revision < state.log.floor() {
            return Err(TooOld { oldest: state.log.floor() });
        }
        let position = state.log.position_after(revision);
        Ok(Cursor::new(self.clone(), self.watchers.lock().add(interest), position))
    }

    /// The objects of `range` (shown to `visit`), their revision, and a cursor that stands right after them.
    pub(crate) fn list_and_watch(
        self: &Arc<Self>,
        range: &Range,
        interest: Interest,
        through: u64,
        mut visit: impl FnMut(&Arc<str>, &Arc<Object>),
    ) -> (u64, Cursor) {
        let state = self.state.read();
        state.scan(range, "", &mut |key, object| {
            visit(key, object);
            true
        });
        let position = state.log.next_sequence();
        (state.newest.max(through), Cursor::new(self.clone(), self.watchers.lock().add(interest), position))
    }
}

impl State {
    fn put(&mut self, key: Arc<str>, object: Option<Arc<Object>>) -> Option<Arc<Object>> {
        let new_node = object.as_ref().and_then(|object| object.field(NODE_FIELD)).unwrap_or_default().to_owned();
        let old = match object {
            Some(object) => self.objects.insert(key.clone(), object),
            None => self.objects.remove(&key),
        };
        let old_node = old.as_ref().and_then(|old| old.field(NODE_FIELD)).unwrap_or_default();
        if old_node != new_node {
            if let Some(keys) = self.by_node.get_mut(old_node) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.by_node.remove(old_node);
                }
            }
            if !new_node.is_empty() {
                self.by_node.entry(new_node).or_default().insert(key);
            }
        }
        old
    }

    fn scan(&self, range: &Range, start: &str, visit: &mut dyn FnMut(&Arc<str>, &Arc<Object>) -> bool) {
        match range {
            Range::All => {
                let from = (Bound::Included(start), Bound::Unbounded);
                let _ = self.objects.range::<str, _>(from).all(|(key, object)| visit(key, object));
            }
            Range::Namespace(namespace) => {
                let prefix = format!("{namespace}/");
                let first = if start > prefix.as_str() { start } else { prefix.as_str() };
                let from = (Bound::Included(first), Bound::Unbounded);
                let inside = self.objects.range::<str, _>(from).take_while(|(key, _)| key.starts_with(&prefix));
                let _ = { inside }.all(|(key, object)| visit(key, object));
            }
            Range::Key(key) => {
                if let Some((key, object)) =
                    self.objects.get_key_value(key.as_str()).filter(|(key, _)| key.as_ref() >= start)
                {
                    visit(key, object);
                }
            }
            Range::Node(node) => {
                for key in self.by_node.get(node).into_iter().flatten().filter(|key| key.as_ref() >= start) {
                    if let Some(object) = self.objects.get(key)
                        && !visit(key, object)
                    {
                        return;
                    }
                }
            }
        }
    }
}

impl Range {
    fn contains(&self, key: &str, object: &Object) -> bool {
        match self {
            Range::All => true,
            Range::Namespace(namespace) => {
                key.strip_prefix(namespace.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
            Range::Key(wanted) => key == wanted,
            Range::Node(node) => object.field(NODE_FIELD) == Some(node),
        }
    }
}

#[cfg(test)]
mod tests;
