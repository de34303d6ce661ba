//! What belongs to objects that are gone goes too. Upstream: pkg/controller/garbagecollector.
//!
//! The graph of owners and dependents is the informers themselves, one for each deletable resource, indexed by the uids of
//! owners. They only say what is worth looking at: before anything is deleted or written, the server is asked.

mod collect;
mod graph;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{
    ApiResource, Backoff, Client, Event, EventRecorder, Informers, Subscription, TaskGuard, Workqueue, discover,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Setup;
use graph::Graph;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const WORKERS: usize = 20;
/// How long a resource that cannot be read may hold up the rest.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// An object to look at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    /// Plural and group.
    resource: (String, String),
    key: ObjectKey,
    uid: String,
}

struct Collector {
    client: Client,
    graph: Graph,
    queue: Workqueue<Item>,
    events: EventRecorder,
    /// Owners that the server did not have, the latest first.
    absent: Mutex<VecDeque<Item>>,
}

/// Runs until dropped.
pub(crate) fn run(setup: &Setup<'_>) -> impl Future<Output = ()> + Send + 'static {
    let (client, informers) = (setup.account("generic-garbage-collector"), setup.informers.clone());
    let events = setup.recorder("generic-garbage-collector", "garbage-collector-controller");
    async move {
        let collector = Arc::new(Collector {
            queue: Workqueue::new(client.env().clone()),
            graph: Graph::default(),
            client,
            events,
            absent: Mutex::default(),
        });
        let served_changed = Arc::new(Notify::new());
        let mut followed = BTreeMap::new();
        let mut complete = collector.follow(&informers, &mut followed, &served_changed).await;
        let env = collector.client.env().clone();
        if env.timeout(SYNC_LIMIT, collector.graph.synced()).await.is_none() {
            tracing::warn!("garbage collection begins without some resources");
        }
        let _workers: Vec<TaskGuard> =
            (0..WORKERS).map(|_| TaskGuard::new(env.spawn(collector.clone().work()))).collect();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            if complete {
                backoff.reset();
                served_changed.notified().await;
                // Definitions come in groups, and take a moment to be served.
                env.sleep(Duration::from_secs(1)).await;
            } else {
                // A group did not answer: what belongs to its objects waits for it.
                env.timeout(backoff.next(&env), served_changed.notified()).await;
            }
            complete = collector.follow(&informers, &mut followed, &served_changed).await;
        }
    }
}

impl Collector {
    /// Follows the resources that are served now; hands back whether every group said which.
    async fn follow(
        self: &Arc<Self>,
        informers: &Informers,
        followed: &mut BTreeMap<(String, String), Vec<Subscription>>,
        served_changed: &Arc<Notify>,
    ) -> bool {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        let (found, failed) = loop {
            match discover(&self.client).await {
                Ok(discovered) => break discovered,
                Err(error) => {
                    tracing::debug!(error = &error as &dyn std::error::Error, "no discovery");
                    self.client.env().sleep(backoff.next(self.client.env())).await;
                }
            }
        };
        let collected = found.into_iter().filter(is_collected);
        let collected: BTreeMap<_, _> = collected.map(|api| (identity(&api), api)).collect();
        followed.retain(|identity, _| collected.contains_key(identity) || !failed.is_empty());
        self.graph.retain(|identity| followed.contains_key(identity));
        for (identity, api) in collected {
            if followed.contains_key(&identity) {
                continue;
            }
            let informer = informers.of(&api.resource);
            self.graph.add(&api, &informer);
            let (collector, resource) = (Arc::downgrade(self), identity.clone());
            let mut subscriptions = vec![informer.on_event(move |event| {
                if let Some(collector) = collector.upgrade() {
                    collector.note(&resource, event);
                }
            })];
            if matches!(&*api.resource.plural, "customresourcedefinitions" | "apiservices") {
                let served_changed = served_changed.clone();
                subscriptions.push(informer.on_event(move |_| served_changed.notify_one()));
            }
            followed.insert(identity, subscriptions);
        }
        failed.is_empty()
    }

    /// Queues what an event makes worth looking at.
    fn note(&self, resource: &(String, String), event: &Event) {
        let object = event.object();
        let item = || item_of(resource, object);
        match event {
            Event::Deleted(_) => {
                self.graph.dependents(object.uid()).into_iter().for_each(|item| self.queue.add(item));
                // An owner that waits for its dependents may go now.
                self.queue_owners(object);
            }
            Event::Added(_) => {
                if !object.owners().is_empty() || object.is_deleting() {
                    self.queue.add(item());
                }
                self.note_deletion(object);
            }
            Event::Modified { old, new } => {
                let began = !old.is_deleting() && new.is_deleting();
                let owners_changed = old.owners() != new.owners();
                if owners_changed {
                    self.queue_owners(old);
                }
                if owners_changed || new.is_deleting() {
                    self.queue.add(item());
                }
                if began {
                    self.note_deletion(new);
                    self.queue_owners(new);
                }
            }
        }
    }

    /// The dependents of an object that waits for them.
    fn note_deletion(&self, object: &Object) {
        if object.is_deleting() && has_finalizer(object, FOREGROUND) {
            self.graph.dependents(object.uid()).into_iter().for_each(|item| self.queue.add(item));
        }
    }

    fn queue_owners(&self, object: &Object) {
        for owner in object.owners() {
            if let Some((item, owner)) = self.graph.owner(object, owner)
                && owner.is_deleting()
            {
                self.queue.add(item);
            }
        }
    }

    async fn work(self: Arc<Self>) {
        use futures_util::FutureExt;
        loop {
            let item = self.queue.get().await;
            let result = std::panic::AssertUnwindSafe(self.process(&item)).catch_unwind().await;
            match result {
                Ok(Ok(()) | Err(collect::CollectError::OwnerInNamespace)) => self.queue.forget(&item),
                Ok(Err(error)) => {
                    tracing::debug!(key = %item.key, error = &error as &dyn std::error::Error, "not collected yet");
                    self.queue.add_rate_limited(item.clone());
                }
                Err(_) => {
                    tracing::error!(key = %item.key, "garbage collection panicked");
                    self.queue.add_rate_limited(item.clone());
                }
            }
            self.queue.done(&item);
        }
    }
}

/// Upstream collects no events: they expire, and nothing depends on them.
fn is_collected(api: &ApiResource) -> bool {
    ["delete", "list", "watch"].iter().all(|verb| api.can(verb)) && api.resource.plural != "events"
}

fn identity(api: &ApiResource) -> (String, String) {
    (api.resource.plural.to_string(), api.resource.group.to_string())
}

fn item_of(resource: &(String, String), object: &Object) -> Item {
    Item { resource: resource.clone(), key: object.key().clone(), uid: object.uid().to_owned() }
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.has_finalizers()
        && crate::meta::metadata(object).items_at(&["finalizers"]).iter().any(|known| known.as_str() == Some(name))
}
