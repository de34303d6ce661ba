//! Live watches: the writer hands events to channels, each capped by its bytes; a stream reads history first, then its channel.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Shared;
use super::record::RecordId;
use crate::{BoxFuture, Error, Event, Revision, WatchBatch, WatchQuery, WatchSource};

/// All running watches.
pub(super) struct Watchers {
    state: Mutex<State>,
    max_bytes: usize,
}

struct State {
    channels: Vec<Arc<Channel>>,
    /// The newest revision handed out.
    through: Revision,
    closed: bool,
}

/// One watch's events on their way from the writer to the stream.
struct Channel {
    query: WatchQuery,
    inner: Mutex<Waiting>,
    ready: Notify,
}

#[derive(Default)]
struct Waiting {
    events: Vec<Arc<Event>>,
    bytes: usize,
    /// As in [`WatchBatch::through`].
    through: Revision,
    /// The last `through` that the stream saw.
    seen: Revision,
    end: Option<Error>,
}

impl Watchers {
    pub(super) fn new(revision: Revision, max_bytes: usize) -> Watchers {
        Watchers { state: Mutex::new(State { channels: Vec::new(), through: revision, closed: false }), max_bytes }
    }

    /// Starts a watch; events after the returned revision come through the channel, none before.
    fn register(&self, query: WatchQuery) -> Result<(Arc<Channel>, Revision), Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        let through = state.through;
        let waiting = Waiting { through, seen: through, ..Waiting::default() };
        let channel = Arc::new(Channel { query, inner: Mutex::new(waiting), ready: Notify::new() });
        state.channels.push(channel.clone());
        Ok((channel, through))
    }

    fn deregister(&self, channel: &Arc<Channel>) {
        self.state.lock().channels.retain(|other| !Arc::ptr_eq(other, channel));
    }

    pub(super) fn wants_prev_values(&self) -> bool {
        self.state.lock().channels.iter().any(|channel| channel.query.prev_values)
    }

    /// Hands out all events up to `through`. `prev_values` says why their previous values are missing, if they are.
    pub(super) fn publish(&self, events: &[Arc<Event>], through: Revision, prev_values: Result<(), Error>) {
        let mut state = self.state.lock();
        state.through = through;
        for channel in &state.channels {
            match &prev_values {
                Err(error) if channel.query.prev_values => channel.end(error.clone()),
                _ => channel.push(events, through, self.max_bytes),
            }
        }
    }

    /// Ends all watches, and those to come.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        for channel in state.channels.drain(..) {
            channel.end(Error::Closed);
        }
    }
}

impl Channel {
    fn push(&self, events: &[Arc<Event>], through: Revision, max_bytes: usize) {
        let mut inner = self.inner.lock();
        if inner.end.is_some() {
            return;
        }
        let before = inner.events.len();
        for event in events {
            if !event.key.starts_with(&self.query.prefix)
                || self.query.after.is_some_and(|after| event.revision <= after)
            {
                continue;
            }
            inner.bytes += event.size();
            if inner.bytes > max_bytes && !inner.events.is_empty() {
                drop(inner);
                return self.end(Error::Lagged { limit: max_bytes });
            }
            inner.events.push(event.clone());
        }
        inner.through = through;
        if inner.events.len() > before || self.query.progress {
            drop(inner);
            self.ready.notify_one();
        }
    }

    fn end(&self, error: Error) {
        let mut inner = self.inner.lock();
        inner.events = Vec::new();
        inner.bytes = 0;
        inner.end.get_or_insert(error);
        drop(inner);
        self.ready.notify_one();
    }

    async fn next(&self) -> Result<WatchBatch, Error> {
        loop {
            {
                let mut inner = self.inner.lock();
                if let Some(error) = &inner.end {
                    return Err(error.clone());
                }
                let progressed = self.query.progress && inner.through > inner.seen;
                if progressed || !inner.events.is_empty() {
                    inner.bytes = 0;
                    inner.seen = inner.through;
                    return Ok(WatchBatch { events: std::mem::take(&mut inner.events), through: inner.through });
                }
            }
            self.ready.notified().await;
        }
    }
}

/// The engine's side of a [`WatchStream`](crate::WatchStream).
pub(super) struct Source {
    shared: Arc<Shared>,
    channel: Arc<Channel>,
    history: Option<History>,
}

/// The part of the log that is still to be read before the channel.
struct History {
    next: RecordId,
    through: Revision,
}

/// The most that is read from history at once.
const CHUNK_RECORDS: usize = 512;
const CHUNK_BYTES: usize = 512 << 10;

impl Source {
    pub(super) fn new(shared: Arc<Shared>, query: WatchQuery) -> Result<Source, Error> {
        let after = query.after;
        // Registered first: whatever happens from now on is either up to `through`, or comes through the channel.
        let (channel, through) = shared.watchers.register(query)?;
        let history =
            after.filter(|after| *after < through).map(|after| History { next: RecordId::first(after + 1), through });
        let source = Source { shared, channel, history };
        if let Some(requested) = after {
            let compacted = source.shared.index.read().compacted;
            if requested < compacted {
                return Err(Error::Compacted { requested, compacted });
            }
        }
        Ok(source)
    }

    /// The next chunk of history; it ends at the end of a revision.
    fn read_history(&self, history: &History) -> Result<WatchBatch, Error> {
        let query = &self.channel.query;
        let mut batch = WatchBatch { events: Vec::new(), through: history.through };
        self.shared.with_snapshot(
            |index| match history.next.revision() - 1 {
                requested if requested < index.compacted => {
                    Err(Error::Compacted { requested, compacted: index.compacted })
                }
                _ => Ok(()),
            },
            |snapshot, ()| {
                batch = WatchBatch { events: Vec::new(), through: history.through };
                let (mut records, mut bytes, mut last) = (0, 0, 0);
                snapshot.scan(history.next..RecordId::first(history.through + 1), |record| {
                    let revision = record.version.id.revision();
                    if revision != last && (records >= CHUNK_RECORDS || bytes >= CHUNK_BYTES) {
                        batch.through = last;
                        return Ok(false);
                    }
                    last = revision;
                    records += 1;
                    bytes += record.value.len();
                    if record.key.starts_with(&query.prefix) {
                        batch.events.push(Arc::new(snapshot.event(&record, query.prev_values)?));
                    }
                    Ok(true)
                })
            },
        )?;
        Ok(batch)
    }
}

impl WatchSource for Source {
    fn next(&mut self) -> BoxFuture<'_, Result<WatchBatch, Error>> {
        Box::pin(async move {
            while let Some(history) = &mut self.history {
                let (next, through) = (history.next, history.through);
                let batch = self.read_history(&History { next, through })?;
                self.history =
                    (batch.through < through).then(|| History { next: RecordId::first(batch.through + 1), through });
                if !batch.events.is_empty() || self.channel.query.progress {
                    return Ok(batch);
                }
                // Nothing is lost when dropped here, and the next call goes on behind this chunk.
                tokio::task::yield_now().await;
            }
            self.channel.next().await
        })
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.shared.watchers.deregister(&self.channel);
    }
}
