//! Lists and watches a resource for somebody who keeps what he needs of it: here no object is kept, and of a long list only a page at a time is in
//! memory. (An informer keeps every object beside what was made of it.)

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{Backoff, Client, Error, ListOptions, Resource, Selection, TaskGuard, WatchEvent, WatchOptions};
use futures_util::StreamExt;
use tokio::sync::oneshot;

/// How many objects are asked for at once.
const PAGE: u32 = 250;
/// How long one watch lasts at least; half as much again at most, so that watches don't end together.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// A watch that lived so long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);

/// Who is told what there is, one object after the other.
pub(crate) trait Reader: Send + Sync + 'static {
    /// The object as it is now.
    fn take(&self, object: &Object);

    /// The object is gone; this was its last state.
    fn gone(&self, object: &Object);

    /// All there is was told, after changes were missed: what isn't there is gone.
    fn sweep(&self, there: &There);
}

/// The UIDs of a list's objects.
#[derive(Default)]
pub(crate) struct There(HashMap<ObjectKey, String>);

impl There {
    pub fn has(&self, key: &ObjectKey) -> bool {
        self.0.contains_key(key)
    }

    /// Whether this incarnation is there.
    pub fn is(&self, key: &ObjectKey, uid: &str) -> bool {
        self.0.get(key).is_some_and(|there| there == uid)
    }
}

/// Tells `reader` of all objects, until the guard is dropped; returns when it knows those there are.
pub(crate) async fn follow(client: &Client, resource: &Resource, reader: impl Reader) -> TaskGuard {
    let (told, first) = oneshot::channel();
    let source = Source { client: client.clone(), resource: resource.clone(), reader, told: Some(told), before: false };
    let guard = TaskGuard::new(client.env().spawn(source.run()));
    // It ends with its guard only.
    let _ = first.await;
    guard
}

struct Source<R> {
    client: Client,
    resource: Resource,
    reader: R,
    /// Who waits for the first complete list.
    told: Option<oneshot::Sender<()>>,
    /// Objects were told before: some of them may be gone.
    before: bool,
}

impl<R: Reader> Source<R> {
    async fn run(mut self) {
        let env = self.client.env().clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        // `None`: history was lost, or never known.
        let mut position = None;
        loop {
            let began = env.monotonic();
            let watched = position.is_some();
            let result = match position {
                Some(revision) => self.watch(revision, &mut position).await,
                None => self.list(&mut position).await,
            };
            let lasted = env.monotonic() - began;
            match result {
                Ok(()) if lasted >= HEALTHY => backoff.reset(),
                // Servers end watches at leisure; one that ends them at once must not be asked in a tight loop.
                Ok(()) if watched && lasted < Duration::from_millis(50) => env.sleep(backoff.next(&env)).await,
                Ok(()) => {}
                Err(error) if watched && error.is_expired() => position = None,
                Err(error) => {
                    tracing::debug!(
                        resource = %self.resource.group_resource(),
                        error = &error as &dyn std::error::Error, "the scheduler lost its server"
                    );
                    env.sleep(backoff.next(&env)).await;
                }
            }
        }
    }

    /// Tells all there is; changes follow after `position`.
    async fn list(&mut self, position: &mut Option<u64>) -> Result<(), Error> {
        let mut there = std::mem::replace(&mut self.before, true).then(There::default);
        let mut options = ListOptions::limit(PAGE);
        loop {
            let page = self.client.list(&self.resource, &Selection::all(), &options).await?;
            for object in page.items {
                if let Some(there) = &mut there {
                    there.0.insert(object.key().clone(), object.uid().to_owned());
                }
                self.tell(|reader| reader.take(&object));
            }
            if page.continue_token.is_empty() {
                if let Some(there) = there {
                    self.tell(|reader| reader.sweep(&there));
                }
                self.told.take().map(|told| told.send(()));
                *position = Some(page.revision);
                return Ok(());
            }
            options.continue_token = page.continue_token;
        }
    }

    async fn watch(&self, revision: u64, position: &mut Option<u64>) -> Result<(), Error> {
        let timeout = self.client.env().jitter(WATCH_TIMEOUT, 0.5);
        let options = WatchOptions { revision, timeout: Some(timeout), ..WatchOptions::default() };
        let mut events = self.client.watch(&self.resource, &Selection::all(), &options).await?;
        while let Some(event) = events.next().await {
            let revision = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.tell(|reader| reader.take(&object));
                    object.revision()
                }
                WatchEvent::Deleted(object) => {
                    self.tell(|reader| reader.gone(&object));
                    object.revision()
                }
                WatchEvent::Bookmark { revision, .. } => revision,
                WatchEvent::Error(status) => return Err(status.into()),
            };
            if revision > 0 {
                *position = Some(revision);
            }
        }
        Ok(())
    }

    /// A panic concerns one object, not those behind it.
    fn tell(&self, what: impl FnOnce(&R)) {
        if catch_unwind(AssertUnwindSafe(|| what(&self.reader))).is_err() {
            tracing::error!(resource = %self.resource.group_resource(), "a reader panicked");
        }
    }
}

#[cfg(test)]
mod tests;
