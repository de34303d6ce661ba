//! Watches: a cursor into the cache's log, turned into the events that one client should see.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Status};
use client::WatchEvent;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use super::cache::{Cursor, Entry};
use super::options::ListOptions;
use super::read::Filter;
use super::{Registry, Resource};

/// How often a watch that allows it is told how far it is.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// A watch without a timeout lasts between this and twice this.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);
/// Entries read from the log at once.
const BATCH: usize = 256;

struct Watch {
    registry: Arc<Registry>,
    resource: Arc<Resource>,
    filter: Filter,
    cursor: Cursor,
    pending: VecDeque<WatchEvent>,
    /// Events up to here were told already (a watch begun in the future).
    after: u64,
    reached: u64,
    /// When the next bookmark is due, if any are wanted.
    bookmarks: Option<Instant>,
    deadline: Instant,
    /// Rings at the earlier of both. It stays set while changes come: to set it anew for each costs more than to tell of it.
    timer: Pin<Box<Sleep>>,
    stopping: watch::Receiver<bool>,
    /// Of a custom resource: its definition changes.
    redefined: Option<watch::Receiver<bool>>,
    ended: bool,
}

enum Woken {
    Stopping,
    Deadline,
    Bookmark,
    Change,
}

impl Registry {
    /// Opens a watch; its stream ends at its timeout, when the server stops, or after an `Error` event.
    pub(crate) async fn watch(
        self: &Arc<Self>,
        resource: &Arc<Resource>,
        filter: Filter,
        options: &ListOptions,
    ) -> Result<BoxStream<'static, WatchEvent>, Status> {
        let cache = &resource.storage.cache;
        let range = filter.range(resource.namespaced());
        let initial = match (options.send_initial_events, options.revision()) {
            (Some(send), _) => send,
            (None, None | Some(0)) => true,
            (None, Some(_)) => false,
        };
        let mut pending = VecDeque::new();
        let (reached, cursor) = match options.revision() {
            Some(revision) if revision > 0 && options.send_initial_events != Some(true) => {
                match cache.watch_after(range, revision) {
                    Ok(cursor) => (revision, cursor),
                    Err(too_old) => return Ok(gone(revision, too_old.oldest)),
                }
            }
            asked => {
                if asked != Some(0) {
                    self.fresh().await?;
                }
                let through = self.through();
                cache.list_and_watch(&range, range.clone(), through, |_, object| {
                    if initial && filter.matches(object) {
                        pending.push_back(WatchEvent::Added(resource.present(object)));
                    }
                })
            }
        };
        if options.send_initial_events == Some(true) {
            pending.push_back(WatchEvent::Bookmark { revision: reached, initial_events_end: true });
        }
        let timeout = match options.timeout_seconds {
            Some(seconds) if seconds > 0 => Duration::from_secs(seconds),
            _ => self.env.jitter(MIN_TIMEOUT, 1.0),
        };
        let now = self.env.monotonic();
        let deadline = now + timeout;
        let bookmarks = options.allow_watch_bookmarks.then(|| now + BOOKMARK_INTERVAL);
        let watch = Watch {
            registry: self.clone(),
            resource: resource.clone(),
            filter,
            cursor,
            pending,
            after: reached,
            reached,
            bookmarks,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(bookmarks.map_or(deadline, |at| at.min(deadline)))),
            stopping: self.stopping.subscribe(),
            redefined: resource.as_custom().map(|custom| custom.ended.clone()),
            ended: false,
        };
        Ok(stream::unfold(watch, Watch::next).boxed())
    }
}

impl Watch {
    async fn next(mut self) -> Option<(WatchEvent, Watch)> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some((event, self));
            }
            if self.ended {
                return None;
            }
            match self.woken().await {
                Woken::Stopping => self.ended = true,
                Woken::Deadline => {
                    self.read();
                    self.bookmark();
                    self.ended = true;
                }
                Woken::Bookmark => {
                    let next = self.registry.env.monotonic() + BOOKMARK_INTERVAL;
                    self.bookmarks = Some(next);
                    self.timer.as_mut().reset(next.min(self.deadline));
                    self.read();
                    self.bookmark();
                }
                Woken::Change => {
                    // What else is about to be written comes along.
                    tokio::task::yield_now().await;
                    self.read();
                }
            }
        }
    }

    async fn woken(&mut self) -> Woken {
        tokio::select! {
            biased;
            _ = self.stopping.wait_for(|stopping| *stopping) => Woken::Stopping,
            () = turned(&mut self.redefined) => Woken::Deadline,
            () = &mut self.timer => match self.bookmarks {
                Some(at) if at < self.deadline => Woken::Bookmark,
                _ => Woken::Deadline,
            },
            () = self.cursor.wait() => Woken::Change,
        }
    }

    fn read(&mut self) {
        let through = self.registry.through();
        let Watch { cursor, pending, filter, resource, after, .. } = self;
        let read = cursor.read(BATCH, through, |entry| {
            if entry.revision > *after
                && let Some(event) = told(filter, resource, entry)
            {
                pending.push_back(event);
            }
        });
        match read {
            Ok(reached) => self.reached = self.reached.max(reached),
            Err(fallen) => {
                self.pending.push_back(WatchEvent::Error(too_old(self.reached, fallen.oldest)));
                self.ended = true;
            }
        }
    }

    fn bookmark(&mut self) {
        if self.bookmarks.is_some() && !self.ended {
            self.pending.push_back(WatchEvent::Bookmark { revision: self.reached, initial_events_end: false });
        }
    }
}

/// Waits until it turns true; for ever where there is nothing to turn.
async fn turned(flag: &mut Option<watch::Receiver<bool>>) {
    match flag {
        Some(flag) => drop(flag.wait_for(|turned| *turned).await),
        None => std::future::pending().await,
    }
}

/// What a change means to a client that sees only what its selectors match.
fn told(filter: &Filter, resource: &Resource, entry: &Entry) -> Option<WatchEvent> {
    let now = entry.new.as_ref().filter(|object| filter.matches(object));
    let before = entry.old.as_ref().filter(|object| filter.matches(object));
    match (now, before) {
        (Some(new), None) => Some(WatchEvent::Added(resource.present(new))),
        (Some(new), Some(_)) => Some(WatchEvent::Modified(resource.present(new))),
        (None, Some(old)) => {
            let last: Arc<Object> = Arc::new(old.at_revision(entry.revision));
            Some(WatchEvent::Deleted(resource.present(&last)))
        }
        (None, None) => None,
    }
}

fn too_old(asked: u64, oldest: u64) -> Status {
    Status::expired(format!("too old resource version: {asked} ({oldest})"))
}

/// Upstream answers 200 and tells the failure in the stream.
fn gone(asked: u64, oldest: u64) -> BoxStream<'static, WatchEvent> {
    stream::iter([WatchEvent::Error(too_old(asked, oldest))]).boxed()
}
