//! Brings the gate's indexes up to the registry's caches, when a decision is due: so they are as new as any read, and nobody
//! does anything while nobody asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apimachinery::ObjectKey;
use parking_lot::Mutex;

use crate::gate::Gate;
use crate::registry::Registry;
use crate::registry::cache::{Cursor, Entry, Range};

pub(super) struct Feed {
    registry: Arc<Registry>,
    gate: Arc<Gate>,
    cursors: Mutex<Vec<Followed>>,
    /// The revision up to which everything has been fed.
    fed: AtomicU64,
}

struct Followed {
    group: &'static str,
    resource: &'static str,
    cursor: Cursor,
}

impl Feed {
    pub(super) fn new(registry: Arc<Registry>, gate: Arc<Gate>) -> Feed {
        let feed = Feed { registry, gate, cursors: Mutex::default(), fed: AtomicU64::new(0) };
        let through = feed.registry.through();
        feed.reload(&mut feed.cursors.lock(), through);
        feed
    }

    /// Feeds what the caches have had since last time.
    pub(super) fn catch_up(&self) {
        let through = self.registry.through();
        if through <= self.fed.load(Ordering::Acquire) {
            return;
        }
        let mut cursors = self.cursors.lock();
        let mut fallen = false;
        for Followed { group, resource, cursor } in cursors.iter_mut() {
            let observe = |entry: &Entry| {
                self.gate.observe(group, resource, &key_of(&entry.key), entry.new.as_deref());
            };
            fallen |= cursor.read(usize::MAX, through, observe).is_err();
        }
        if fallen {
            self.reload(&mut cursors, through);
        }
        self.fed.fetch_max(through, Ordering::AcqRel);
    }

    /// Begins anew with the current objects.
    fn reload(&self, cursors: &mut Vec<Followed>, through: u64) {
        self.gate.clear();
        cursors.clear();
        for (group, resource) in Gate::OBSERVED {
            let Some(storage) = self.registry.storage(group, resource) else { continue };
            let (_, cursor) = storage.cache.list_and_watch(&Range::All, Range::All, through, |key, object| {
                self.gate.observe(group, resource, &key_of(key), Some(object));
            });
            cursors.push(Followed { group, resource, cursor });
        }
        self.fed.fetch_max(through, Ordering::AcqRel);
    }
}

fn key_of(key: &str) -> ObjectKey {
    match key.split_once('/') {
        Some((namespace, name)) => ObjectKey::new(namespace, name),
        None => ObjectKey::cluster(key),
    }
}
