//! What belongs to objects that are gone goes too. Upstream: pkg/controller/garbagecollector.
//!
//! The graph of owners and dependents knows of every object of each deletable resource just enough to judge it: it is told by the informers
//! that others have, and by watches of metadata where nobody else looks. What it deletes it deletes as the graph knew it; whatever else it
//! writes, it asks the server before.

mod collect;
mod graph;
mod sources;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use client::{ApiResource, Backoff, Client, EventRecorder, Informers, Resource, TaskGuard, Workqueue, discover};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::Setup;
use graph::{Change, Graph, Identity, Item, Node};
use sources::Source;

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
const WORKERS: usize = 20;
/// How long a resource that cannot be read may hold up the rest.
const SYNC_LIMIT: Duration = Duration::from_secs(30);

/// What is followed, and in which version.
type Followed = BTreeMap<Arc<Identity>, (Resource, Source)>;

struct Collector {
    client: Client,
    graph: Graph,
    queue: Workqueue<Arc<Item>>,
    events: EventRecorder,
    served_changed: Notify,
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
            served_changed: Notify::new(),
            absent: Mutex::default(),
        });
        let mut followed = Followed::new();
        let mut complete = collector.follow(&informers, &mut followed).await;
        let env = collector.client.env().clone();
        let synced = async {
            for (_, source) in followed.values() {
                source.synced().await;
            }
        };
        if env.timeout(SYNC_LIMIT, synced).await.is_none() {
            tracing::warn!("garbage collection begins without some resources");
        }
        let _workers: Vec<TaskGuard> =
            (0..WORKERS).map(|_| TaskGuard::new(env.spawn(collector.clone().work()))).collect();
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            if complete {
                backoff.reset();
                collector.served_changed.notified().await;
                // Definitions come in groups, and take a moment to be served.
                env.sleep(Duration::from_secs(1)).await;
            } else {
                // A group did not answer: what belongs to its objects waits for it.
                env.timeout(backoff.next(&env), collector.served_changed.notified()).await;
            }
            complete = collector.follow(&informers, &mut followed).await;
        }
    }
}

impl Collector {
    /// Follows the resources that are served now; hands back whether every group said which.
    async fn follow(self: &Arc<Self>, informers: &Informers, followed: &mut Followed) -> bool {
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
        let silent = |identity: &Identity| failed.iter().any(|(version, _)| group_of(version) == identity.1);
        let served = found.into_iter().map(|api| (Arc::new(identity(&api)), api));
        let served: BTreeMap<_, _> = served.filter(|(_, api)| api.can("get") || is_collected(api)).collect();
        followed.retain(|identity, (resource, _)| {
            let same = |api: &ApiResource| is_collected(api) && api.resource == *resource;
            silent(identity) || served.get(identity).is_some_and(same)
        });
        let kept =
            |identity: &Identity| followed.contains_key(identity) || served.get(identity).is_some_and(is_collected);
        self.graph.retain(kept);
        for (identity, api) in served {
            if followed.contains_key(&identity) && silent(&identity) {
                continue;
            }
            self.graph.add(&identity, &api, is_collected(&api));
            if is_collected(&api) && !followed.contains_key(&identity) {
                let source = Source::start(self, informers, identity.clone(), &api.resource);
                followed.insert(identity, (api.resource, source));
            }
        }
        failed.is_empty()
    }

    /// Queues what a change makes worth looking at.
    fn note(&self, change: &Change) {
        match change {
            Change::Deleted(node) => {
                self.queue_dependents(node);
                // An owner that waits for its dependents may go now.
                self.queue_owners(node);
            }
            Change::Added(node) => {
                if node.deleting || !self.is_well_owned(node) {
                    self.queue.add(node.item.clone());
                }
                self.note_deletion(node);
            }
            Change::Abroad { dependent, owner } => {
                self.tell_abroad(dependent, owner);
                self.queue.add(dependent.item.clone());
            }
            Change::Modified { old, new } => {
                let owners_changed = old.owners != new.owners;
                if owners_changed {
                    self.queue_owners(old);
                }
                if owners_changed || new.deleting {
                    self.queue.add(new.item.clone());
                }
                if !old.deleting && new.deleting {
                    self.queue_owners(new);
                }
                // Who asks again may ask for its dependents, too.
                if !old.waits_for_dependents() {
                    self.note_deletion(new);
                }
            }
        }
    }

    /// The dependents of an object that waits for them.
    fn note_deletion(&self, node: &Node) {
        if node.waits_for_dependents() {
            self.queue_dependents(node);
        }
    }

    fn queue_dependents(&self, node: &Node) {
        self.graph.dependents(&node.item.uid).iter().for_each(|node| self.queue.add(node.item.clone()));
    }

    /// Whom `node` may have held up, even if it called them by a wrong name.
    fn queue_owners(&self, node: &Node) {
        let owners = node.owners.iter().filter_map(|owner| self.graph.of_uid(&owner.uid));
        owners.filter(|owner| owner.deleting).for_each(|owner| self.queue.add(owner.item.clone()));
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

/// Whether objects of this resource say what is served.
fn defines_kinds(identity: &Identity) -> bool {
    matches!(identity.0.as_str(), "customresourcedefinitions" | "apiservices")
}

fn group_of(group_version: &str) -> &str {
    group_version.split_once('/').map_or("", |(group, _)| group)
}

fn identity(api: &ApiResource) -> Identity {
    (api.resource.plural.to_string(), api.resource.group.to_string())
}

fn has_finalizer(object: &Object, name: &str) -> bool {
    object.has_finalizers()
        && crate::meta::metadata(object).items_at(&["finalizers"]).iter().any(|known| known.as_str() == Some(name))
}
