//! List, then watch, then again: how an informer keeps its copy current.

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt;

use crate::backoff::Backoff;
use crate::error::status_is_expired;
use crate::tasks::TaskGuard;
use crate::{Client, Error, ListOptions, ObjectList, Resource, Selection, WatchEvent, WatchOptions};

/// How long one watch lasts at least; half as much again at most, so that watches don't end together.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// A watch that lived so long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);

/// Whoever is told what objects there are, first all of them and then each change. An [`Informer`](crate::Informer) keeps them; others may
/// keep less.
pub trait Follower: Send + Sync + 'static {
    /// All there is, at first and whenever changes were missed.
    fn replace(&self, list: ObjectList);

    /// A change or a bookmark; errors are not told.
    fn apply(&self, event: WatchEvent);
}

/// Tells `follower` of the selected objects, until it or the guard is dropped.
pub fn follow(client: &Client, resource: Resource, selection: Selection, follower: &Arc<impl Follower>) -> TaskGuard {
    let source = Source { follower: Arc::downgrade(follower), client: client.clone(), resource, selection };
    TaskGuard::new(client.env().spawn(source.run()))
}

struct Source<F> {
    follower: Weak<F>,
    client: Client,
    resource: Resource,
    selection: Selection,
}

/// From where the next request goes on.
#[derive(Clone, Copy)]
enum Position {
    /// Any complete list will do.
    Anywhere,
    /// History was lost: a list that is certainly current.
    Newest,
    After(u64),
}

impl<F: Follower> Source<F> {
    async fn run(self) {
        let client = &self.client;
        let env = client.env().clone();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut position = Position::Anywhere;
        loop {
            let began = env.monotonic();
            let was_watch = matches!(position, Position::After(_));
            let result = match position {
                Position::After(revision) => self.watch(revision, &mut position).await,
                Position::Anywhere => self.list("0", &mut position).await,
                Position::Newest => self.list("", &mut position).await,
            };
            if self.follower.strong_count() == 0 {
                return;
            }
            match result {
                Ok(()) => {
                    if env.monotonic() - began >= HEALTHY {
                        backoff.reset();
                    }
                    // Servers end watches at leisure; one that ends them at once must not be asked in a tight loop.
                    if was_watch && env.monotonic() - began < Duration::from_millis(50) {
                        env.sleep(backoff.next(&env)).await;
                    }
                }
                Err(error) if error.is_expired() => position = Position::Newest,
                Err(error) => {
                    let pause = backoff.next(&env);
                    tracing::debug!(
                        resource = %self.resource.group_resource(), ?pause,
                        error = &error as &dyn std::error::Error, "informer lost its server"
                    );
                    env.sleep(pause).await;
                }
            }
        }
    }

    async fn list(&self, revision: &str, next: &mut Position) -> Result<(), Error> {
        let options = ListOptions { resource_version: revision.to_owned(), ..ListOptions::default() };
        let list = self.client.list(&self.resource, &self.selection, &options).await?;
        *next = Position::After(list.revision);
        if let Some(follower) = self.follower.upgrade() {
            follower.replace(list);
        }
        Ok(())
    }

    async fn watch(&self, revision: u64, next: &mut Position) -> Result<(), Error> {
        let timeout = self.client.env().jitter(WATCH_TIMEOUT, 0.5);
        let options = WatchOptions { revision, timeout: Some(timeout), ..WatchOptions::default() };
        let mut events = self.client.watch(&self.resource, &self.selection, &options).await?;
        while let Some(event) = events.next().await {
            let revision = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object.revision()
                }
                WatchEvent::Bookmark { revision, .. } => *revision,
                WatchEvent::Error(status) => {
                    if status_is_expired(status) {
                        *next = Position::Newest;
                        return Ok(());
                    }
                    return Err(status.clone().into());
                }
            };
            if revision > 0 {
                *next = Position::After(revision);
            }
            match self.follower.upgrade() {
                Some(follower) => follower.apply(event),
                None => return Ok(()),
            }
        }
        Ok(())
    }
}
