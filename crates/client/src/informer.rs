//! `Informer`: a current copy of selected objects, indexed, that tells its changes in order.

mod cache;
mod milestones;
mod reflector;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};

use apimachinery::{Object, ObjectKey};
use parking_lot::{Mutex, RwLock};

use crate::changing::Changing;
use crate::tasks::TaskGuard;
use crate::{Client, ObjectList, Resource, Selection, WatchEvent};
use cache::Cache;
use milestones::Milestones;
pub use reflector::{Follower, follow};

/// A change of one object, as its informer saw it. Changes in quick succession may be seen as one.
#[derive(Clone, Debug)]
pub enum Event {
    Added(Arc<Object>),
    Modified {
        old: Arc<Object>,
        new: Arc<Object>,
    },
    /// The last known state.
    Deleted(Arc<Object>),
}

impl Event {
    /// The object's newest state.
    pub fn object(&self) -> &Arc<Object> {
        match self {
            Event::Added(object) | Event::Deleted(object) | Event::Modified { new: object, .. } => object,
        }
    }

    /// The state before, of an object that was there.
    pub fn old(&self) -> Option<&Arc<Object>> {
        match self {
            Event::Added(_) => None,
            Event::Modified { old, .. } | Event::Deleted(old) => Some(old),
        }
    }
}

/// A copy of the selected objects of one resource, kept current by a watch. Clones share it; the watch ends with the last one.
///
/// Objects of an in-process server are shared with it, not copied.
#[derive(Clone)]
pub struct Informer(Arc<Shared>);

struct Shared {
    client: Client,
    resource: Resource,
    selection: Selection,
    cache: RwLock<Cache>,
    /// Held while a change is told, so that handlers see changes in order.
    handlers: Mutex<Handlers>,
    progress: Changing<Progress>,
    milestones: Milestones,
    reflector: OnceLock<TaskGuard>,
}

#[derive(Default)]
struct Handlers {
    next: u64,
    entries: Vec<(u64, Handler)>,
}

type Handler = Arc<dyn Fn(&Event) + Send + Sync>;

#[derive(Clone, Copy, Default)]
struct Progress {
    synced: bool,
    revision: u64,
}

/// Ends a handler when dropped. Not to be dropped inside a handler.
#[must_use = "the handler ends when this is dropped"]
pub struct Subscription {
    informer: Weak<Shared>,
    id: u64,
}

impl Informer {
    /// Begins to copy; needs a runtime. Prefer [`Informers`](crate::Informers), which shares one informer among its users.
    pub fn start(client: &Client, resource: Resource, selection: Selection) -> Informer {
        let informer = Informer(Arc::new(Shared {
            client: client.clone(),
            resource,
            selection,
            cache: RwLock::default(),
            handlers: Mutex::default(),
            progress: Changing::default(),
            milestones: Milestones::default(),
            reflector: OnceLock::new(),
        }));
        let Shared { resource, selection, .. } = &*informer.0;
        drop(informer.0.reflector.set(follow(client, resource.clone(), selection.clone(), &informer.0)));
        informer
    }

    /// Who reads.
    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    pub fn resource(&self) -> &Resource {
        &self.0.resource
    }

    pub fn selection(&self) -> &Selection {
        &self.0.selection
    }

    pub fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.0.cache.read().get(key)
    }

    /// The objects of `namespace` (empty: all), ordered by namespace and name.
    pub fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        self.0.cache.read().list(namespace)
    }

    pub fn len(&self) -> usize {
        self.0.cache.read().len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds an index: `values` names what an object is to be found under. A name that exists already is left as it is.
    pub fn index(&self, name: &'static str, values: fn(&Object) -> Vec<String>) {
        self.0.cache.write().add_index(name, values);
    }

    /// The objects under `value` in the index `name`, ordered by namespace and name.
    ///
    /// # Panics
    /// If no such index was added: a mistake of the caller's construction.
    pub fn by_index(&self, name: &str, value: &str) -> Vec<Arc<Object>> {
        self.0.cache.read().by_index(name, value)
    }

    /// Calls `handler` for each change, in order, beginning with each present object as `Added`; until the subscription is
    /// dropped. It runs on the informer's task: it may read informers, and must neither block nor subscribe.
    pub fn on_event(&self, handler: impl Fn(&Event) + Send + Sync + 'static) -> Subscription {
        let mut handlers = self.0.handlers.lock();
        let id = handlers.next;
        handlers.next += 1;
        for object in self.list("") {
            handler(&Event::Added(object));
        }
        handlers.entries.push((id, Arc::new(handler)));
        Subscription { informer: Arc::downgrade(&self.0), id }
    }

    pub fn has_synced(&self) -> bool {
        self.0.progress.get().synced
    }

    /// Waits for the first complete copy, and its handlers.
    pub async fn synced(&self) {
        self.0.progress.until(|progress| progress.synced).await;
    }

    /// The revision up to which everything is known and told.
    pub fn revision(&self) -> u64 {
        self.0.progress.get().revision
    }

    /// Waits until everything up to `revision` is known and told.
    pub async fn wait_for(&self, revision: u64) {
        let reached = || {
            let progress = self.0.progress.get();
            progress.synced && progress.revision >= revision
        };
        self.0.milestones.wait(revision, reached).await;
    }

    /// Waits until `done` of this informer, asked again after each change.
    pub async fn until(&self, mut done: impl FnMut(&Informer) -> bool) {
        self.0.progress.until(|progress| progress.synced && done(self)).await;
    }
}

impl Follower for Shared {
    /// Takes over a complete list: what is not in it was deleted meanwhile.
    fn replace(&self, list: ObjectList) {
        let handlers = self.handlers.lock();
        let events = self.cache.write().replace(list.items);
        events.iter().for_each(|event| handlers.tell(event));
        drop(handlers);
        self.advance(list.revision, true);
    }

    /// Takes over one event of the watch; `Error` is the reflector's.
    fn apply(&self, event: WatchEvent) {
        let (deleted, object) = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (false, object),
            WatchEvent::Deleted(object) => (true, object),
            WatchEvent::Bookmark { revision, .. } => return self.advance(revision, false),
            WatchEvent::Error(_) => return,
        };
        let revision = object.revision();
        let handlers = self.handlers.lock();
        let events = {
            let mut cache = self.cache.write();
            if deleted { cache.remove(object).into_iter().collect() } else { cache.put(object) }
        };
        events.iter().for_each(|event| handlers.tell(event));
        drop(handlers);
        self.advance(revision, false);
    }
}

impl Shared {
    fn advance(&self, revision: u64, synced: bool) {
        self.progress.modify(|progress| {
            progress.revision = progress.revision.max(revision);
            progress.synced |= synced;
        });
        let progress = self.progress.get();
        if progress.synced {
            self.milestones.pass(progress.revision);
        }
    }
}

impl Handlers {
    fn tell(&self, event: &Event) {
        for (_, handler) in &self.entries {
            if catch_unwind(AssertUnwindSafe(|| handler(event))).is_err() {
                tracing::error!(object = ?event.object(), "an informer's handler panicked");
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(informer) = self.informer.upgrade() {
            let handler = {
                let mut handlers = informer.handlers.lock();
                let at = handlers.entries.iter().position(|(id, _)| *id == self.id);
                at.map(|at| handlers.entries.remove(at))
            };
            drop(handler); // outside the lock: it may own other subscriptions
        }
    }
}

#[cfg(test)]
mod tests;
