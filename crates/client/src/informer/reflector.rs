//! List, then watch, then again: how an informer keeps its copy current.

use std::sync::Weak;
use std::time::Duration;

use futures_util::StreamExt;

use super::Shared;
use crate::backoff::Backoff;
use crate::error::status_is_expired;
use crate::{Client, Error, ListOptions, WatchEvent, WatchOptions};

/// How long one watch lasts at least; half as much again at most, so that watches don't end together.
const WATCH_TIMEOUT: Duration = Duration::from_secs(300);
/// A watch that lived so long was healthy.
const HEALTHY: Duration = Duration::from_secs(10);

/// Runs until the informer is dropped.
pub(super) async fn run(shared: Weak<Shared>, client: Client) {
    let env = client.env().clone();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
    let mut position = Position::Anywhere;
    loop {
        let began = env.monotonic();
        let was_watch = matches!(position, Position::After(_));
        let result = match position {
            Position::After(revision) => watch(&shared, &client, revision, &mut position).await,
            Position::Anywhere => list(&shared, &client, "0", &mut position).await,
            Position::Newest => list(&shared, &client, "", &mut position).await,
        };
        let Some(informer) = shared.upgrade() else { return };
        match result {
            Ok(()) => {
                if env.monotonic() - began >= HEALTHY {
                    backoff.reset();
                }
                // Servers end watches at leisure; one that ends them at once must not be asked in a tight loop.
                if was_watch && env.monotonic() - began < Duration::from_millis(50) {
                    drop(informer);
                    env.sleep(backoff.next(&env)).await;
                }
            }
            Err(error) if error.is_expired() => position = Position::Newest,
            Err(error) => {
                let pause = backoff.next(&env);
                tracing::debug!(
                    resource = %informer.resource.group_resource(), ?pause,
                    error = &error as &dyn std::error::Error, "informer lost its server"
                );
                drop(informer);
                env.sleep(pause).await;
            }
        }
    }
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

async fn list(shared: &Weak<Shared>, client: &Client, revision: &str, next: &mut Position) -> Result<(), Error> {
    let Some((resource, selection)) = shared.upgrade().map(|s| (s.resource.clone(), s.selection.clone())) else {
        return Ok(());
    };
    let options = ListOptions { resource_version: revision.to_owned(), ..ListOptions::default() };
    let list = client.list(&resource, &selection, &options).await?;
    *next = Position::After(list.revision);
    if let Some(shared) = shared.upgrade() {
        shared.replace(list);
    }
    Ok(())
}

async fn watch(shared: &Weak<Shared>, client: &Client, revision: u64, next: &mut Position) -> Result<(), Error> {
    let Some((resource, selection)) = shared.upgrade().map(|s| (s.resource.clone(), s.selection.clone())) else {
        return Ok(());
    };
    let timeout = client.env().jitter(WATCH_TIMEOUT, 0.5);
    let options = WatchOptions { revision, timeout: Some(timeout), ..WatchOptions::default() };
    let mut events = client.watch(&resource, &selection, &options).await?;
    while let Some(event) = events.next().await {
        let revision = match &event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => object.revision(),
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
        match shared.upgrade() {
            Some(shared) => shared.apply(event),
            None => return Ok(()),
        }
    }
    Ok(())
}
