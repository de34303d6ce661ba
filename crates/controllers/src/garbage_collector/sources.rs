//! Where the graph learns of a resource's objects.

use std::sync::{Arc, Weak};

use client::{
    Event, Follower, Informer, Informers, ObjectList, Resource, Selection, Subscription, TaskGuard, WatchEvent, follow,
};
use tokio::sync::watch;

use super::graph::{Change, Identity};
use super::{Collector, defines_kinds};

/// Ends when dropped.
pub(super) enum Source {
    /// An informer that others have.
    Shared { informer: Informer, _subscription: Subscription },
    /// A watch of its own, of metadata alone.
    Own { metadata: Arc<Metadata>, _watch: TaskGuard },
}

pub(super) struct Metadata {
    collector: Weak<Collector>,
    identity: Arc<Identity>,
    synced: watch::Sender<bool>,
}

impl Source {
    pub(super) fn start(
        collector: &Arc<Collector>,
        informers: &Informers,
        identity: Arc<Identity>,
        resource: &Resource,
    ) -> Source {
        let collector = Arc::downgrade(collector);
        if let Some(informer) = informers.started(resource) {
            let told = move |event: &Event| {
                let Some(collector) = collector.upgrade() else { return };
                let object = event.object();
                collector.learn(
                    &identity,
                    match event {
                        Event::Deleted(_) => {
                            collector.graph.remove(&identity, object.key(), object.uid()).into_iter().collect()
                        }
                        _ => collector.graph.put(&identity, object),
                    },
                );
            };
            let subscription = informer.on_event(told);
            return Source::Shared { informer, _subscription: subscription };
        }
        let metadata = Arc::new(Metadata { collector, identity, synced: watch::Sender::new(false) });
        let client = informers.client().metadata_only();
        let watch = follow(&client, resource.clone(), Selection::all(), &metadata);
        Source::Own { metadata, _watch: watch }
    }

    /// Waits until every object is known that there was at first.
    pub(super) async fn synced(&self) {
        match self {
            Source::Shared { informer, .. } => informer.synced().await,
            Source::Own { metadata, .. } => drop(metadata.synced.subscribe().wait_for(|synced| *synced).await),
        }
    }
}

impl Collector {
    fn learn(&self, identity: &Identity, changes: Vec<Change>) {
        changes.iter().for_each(|change| self.note(change));
        if !changes.is_empty() && defines_kinds(identity) {
            self.served_changed.notify_one();
        }
    }
}

impl Follower for Metadata {
    fn replace(&self, list: ObjectList) {
        let Some(collector) = self.collector.upgrade() else { return };
        collector.learn(&self.identity, collector.graph.replace(&self.identity, &list.items));
        self.synced.send_replace(true);
    }

    fn apply(&self, event: WatchEvent) {
        let Some(collector) = self.collector.upgrade() else { return };
        let changes = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => collector.graph.put(&self.identity, &object),
            WatchEvent::Deleted(object) => {
                collector.graph.remove(&self.identity, object.key(), object.uid()).into_iter().collect()
            }
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) => return,
        };
        collector.learn(&self.identity, changes);
    }
}
