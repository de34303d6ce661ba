//! Fills the watch caches from the store and keeps them current: one watch of everything, one task.

use std::collections::VecDeque;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use memchr::memmem;
use store::{EventKind, RangeQuery, WatchBatch, WatchQuery};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::cache::{Change, NODE_FIELD};
use super::{Registry, STORE_ROOT, Storage};

/// How long history is kept for reads of the past; at the most half as long again. Upstream: `--etcd-compaction-interval`.
const HISTORY: Duration = Duration::from_secs(5 * 60);
const COMPACTION_INTERVAL: Duration = Duration::from_secs(150);
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
/// The store's file is made smaller no more often than this.
const RECLAIM_INTERVAL: Duration = Duration::from_secs(60 * 60);

impl Registry {
    /// Reads everything that is stored and returns the revision it was read at.
    pub(crate) async fn load(&self) -> Result<u64, store::Error> {
        let revision = self.store.read_barrier().await?;
        let mut definitions: Vec<Arc<Object>> = Vec::new();
        for storage in &self.storages {
            let range = self.store.range(RangeQuery::prefix(storage.prefix.clone()).at(revision)).await?;
            let mut objects = Vec::with_capacity(range.items.len());
            for item in range.items {
                let Some(key) = storage.key_of(&item.key) else { continue };
                match storage.decode(&item.value, item.mod_revision) {
                    Ok(object) => objects.push((key, Arc::new(object))),
                    Err(problem) => {
                        error!(key = %key, prefix = %storage.prefix, %problem, "a stored object cannot be read and is left out")
                    }
                }
            }
            for (key, object) in &objects {
                self.show(storage, key, Some(object));
            }
            if Registry::defines(storage) {
                definitions = objects.iter().map(|(_, object)| object.clone()).collect();
            }
            for gone in storage.cache.load(objects, revision) {
                self.show(storage, &gone, None);
            }
        }
        let customs = self.customs();
        let gone = customs.all().map(|custom| custom.definition.name.clone());
        for name in gone.filter(|name| !definitions.iter().any(|object| object.name() == name)).collect::<Vec<_>>() {
            self.define(&name, None, revision).await;
        }
        for object in &definitions {
            self.define(object.name(), Some(object), revision).await;
        }
        // What was known before the store was lost sight of may be of any age.
        for custom in customs.all() {
            self.fill(&custom.storage, revision, false).await;
        }
        self.through.send_replace(revision);
        Ok(revision)
    }

    /// Applies the store's events until the store is closed. `revision` is where [`Registry::load`] stood.
    pub(crate) async fn follow(self: Arc<Self>, mut revision: u64) {
        loop {
            let query = WatchQuery::prefix(STORE_ROOT).after(revision);
            let failure = match self.store.watch(query).await {
                Ok(mut stream) => loop {
                    match stream.next().await {
                        Ok(batch) => self.apply(batch).await,
                        Err(failure) => break failure,
                    }
                },
                Err(failure) => failure,
            };
            if matches!(failure, store::Error::Closed) {
                debug!("the store is closed");
                return;
            }
            warn!(
                error = &failure as &dyn std::error::Error,
                "the watch of the store failed; reading everything again"
            );
            revision = loop {
                match self.load().await {
                    Ok(revision) => break revision,
                    Err(store::Error::Closed) => return,
                    Err(failure) => {
                        error!(error = &failure as &dyn std::error::Error, "the store cannot be read");
                        self.env.sleep(Duration::from_secs(1)).await;
                    }
                }
            };
        }
    }

    async fn apply(&self, batch: WatchBatch) {
        let now = self.env.monotonic();
        for event in &batch.events {
            let Some((storage, key)) = self.locate(&event.key) else { continue };
            let object = match event.kind {
                EventKind::Delete => None,
                EventKind::Put => match object_of(&storage, event) {
                    Some(object) => Some(object),
                    None => continue,
                },
            };
            let same = |new: &Arc<Object>| storage.cache.get(&key).is_some_and(|old| desires_the_same(&old, new));
            if !object.as_ref().is_some_and(same) {
                self.show(&storage, &key, object.as_deref());
            }
            // Whoever sees that a definition is served finds it served.
            if Registry::defines(&storage) {
                self.define(&key, object.as_deref(), event.revision).await;
            }
            storage.cache.append(Change { key, object, revision: event.revision }, now);
        }
        self.through.send_if_modified(|through| {
            let rises = batch.through > *through;
            *through = (*through).max(batch.through);
            rises
        });
    }

    fn locate(&self, key: &[u8]) -> Option<(Arc<Storage>, Arc<str>)> {
        let text = std::str::from_utf8(key).ok()?;
        let found = self.by_prefix.range::<str, _>((Bound::Unbounded, Bound::Included(text))).next_back();
        match found.filter(|(prefix, _)| text.starts_with(prefix.as_str())) {
            Some((_, index)) => {
                let storage = &self.storages[*index];
                storage.key_of(key).map(|key| (storage.clone(), key))
            }
            None => self.locate_custom(text),
        }
    }

    /// Gives up old history now and then, and deletes what has outlived its time.
    pub(crate) async fn maintain(self: Arc<Self>) {
        let start = self.env.monotonic();
        let mut past = Past::default();
        past.pass(start, self.through());
        let (mut next_compaction, mut next_reclaim) = (start + COMPACTION_INTERVAL, start + RECLAIM_INTERVAL);
        loop {
            self.env.sleep(EXPIRY_INTERVAL).await;
            match self.store.expire().await {
                Ok(_) => {}
                Err(store::Error::Closed) => return,
                Err(failure) => warn!(error = &failure as &dyn std::error::Error, "expired objects stay for now"),
            }
            let now = self.env.monotonic();
            if now < next_compaction {
                continue;
            }
            next_compaction = now + COMPACTION_INTERVAL;
            let Some(revision) = past.pass(now, self.through()) else { continue };
            if let Err(failure) = self.store.compact(revision).await {
                warn!(error = &failure as &dyn std::error::Error, "the store was not compacted");
            }
            if now < next_reclaim {
                continue;
            }
            match self.store.reclaim().await {
                Ok(true) => next_reclaim = now + RECLAIM_INTERVAL,
                Ok(false) => {}
                Err(failure) => warn!(error = &failure as &dyn std::error::Error, "the store was not made smaller"),
            }
        }
    }
}

/// Which revisions were the newest when.
#[derive(Default)]
struct Past(VecDeque<(Instant, u64)>);

impl Past {
    /// Notes the newest revision; returns the one that was the newest at least [`HISTORY`] ago.
    fn pass(&mut self, now: Instant, revision: u64) -> Option<u64> {
        self.0.push_back((now, revision));
        let mut old = None;
        while let Some((when, revision)) = self.0.front()
            && now.duration_since(*when) >= HISTORY
        {
            old = Some(*revision);
            self.0.pop_front();
        }
        old
    }
}

/// Whether only the status or the metadata of a kind with generations changed: most writes, and nothing to authorisation.
/// A binding counts no generation, so the node is compared too; claims made for a pod are told in its status.
fn desires_the_same(old: &Object, new: &Object) -> bool {
    new.generation() > 0
        && old.generation() == new.generation()
        && old.uid() == new.uid()
        && old.field(NODE_FIELD) == new.field(NODE_FIELD)
        && old.is_deleting() == new.is_deleting()
        && memmem::find(new.body(), b"ClaimStatus").is_none()
}

fn object_of(storage: &Storage, event: &store::Event) -> Option<Arc<Object>> {
    let prepared = event.tag.as_ref().and_then(|tag| tag.downcast_ref::<Object>());
    if let Some(object) = prepared {
        return Some(Arc::new(object.at_revision(event.revision)));
    }
    match storage.decode(&event.value, event.revision) {
        Ok(object) => Some(Arc::new(object)),
        Err(problem) => {
            error!(key = ?event.key, %problem, "a stored object cannot be read and is left out");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn history_is_kept_for_its_time() {
        let env = env::Env::system();
        let mut past = Past::default();
        let mut given_up = Vec::new();
        for revision in 0..6 {
            given_up.push(past.pass(env.monotonic(), revision));
            env.sleep(COMPACTION_INTERVAL).await;
        }
        assert_eq!(given_up, [None, None, Some(0), Some(1), Some(2), Some(3)]);
    }
}
