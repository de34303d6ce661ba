//! Waiting for an object to become what one wants, by watch.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use futures_util::StreamExt;

use crate::error::status_is_expired;
use crate::{Backoff, Client, Error, ListOptions, Resource, Selection, WatchEvent, WatchOptions};

/// Waits until `done` of the object (`None` while it does not exist) and returns it as it then is.
///
/// # Errors
/// [`Error::Timeout`] after `timeout`. What the server refuses for good (401, 403) is returned at once; other failures are
/// tried again until then.
pub async fn wait_until(
    client: &Client,
    resource: &Resource,
    key: &ObjectKey,
    timeout: Duration,
    mut done: impl FnMut(Option<&Object>) -> bool,
) -> Result<Option<Arc<Object>>, Error> {
    let wait = async {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
        loop {
            match follow(client, resource, key, &mut done).await {
                Ok(Some(found)) => return Ok(found),
                Ok(None) => {}
                Err(Error::Status(status)) if matches!(status.code, 401 | 403) => return Err(Error::Status(status)),
                Err(error) => {
                    tracing::debug!(%key, error = &error as &dyn std::error::Error, "waiting was interrupted")
                }
            }
            client.env().sleep(backoff.next(client.env())).await;
        }
    };
    let waited = client.env().timeout(timeout, wait).await;
    waited.unwrap_or_else(|| Err(Error::Timeout(format!("{} {key}", resource.group_resource()))))
}

/// One list and one watch; `None` when that ended first.
async fn follow(
    client: &Client,
    resource: &Resource,
    key: &ObjectKey,
    done: &mut impl FnMut(Option<&Object>) -> bool,
) -> Result<Option<Option<Arc<Object>>>, Error> {
    let selection = Selection::all().namespace(&*key.namespace).fields(format!("metadata.name={}", key.name));
    let list = client.list(resource, &selection, &ListOptions::default()).await?;
    let found = list.items.into_iter().find(|object| object.key() == key);
    if done(found.as_deref()) {
        return Ok(Some(found));
    }
    let options = WatchOptions { revision: list.revision, ..WatchOptions::default() };
    let mut events = client.watch(resource, &selection, &options).await?;
    while let Some(event) = events.next().await {
        let found = match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) if object.key() == key => Some(object),
            WatchEvent::Deleted(object) if object.key() == key => None,
            WatchEvent::Error(status) if !status_is_expired(&status) => return Err(status.into()),
            WatchEvent::Error(_) => return Ok(None),
            _ => continue,
        };
        if done(found.as_deref()) {
            return Ok(Some(found));
        }
    }
    Ok(None)
}
