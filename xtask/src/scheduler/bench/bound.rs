//! When pods get their nodes, by a watch whose events are counted, not decoded: whoever measures shares the machine's cores.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use client::{Body, Client, TaskGuard};
use futures_util::StreamExt;
use http::Method;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The pods bound since.
pub struct Bound {
    seen: Arc<Seen>,
    _watch: TaskGuard,
}

#[derive(Default)]
struct Seen {
    times: Mutex<Vec<Instant>>,
    more: Notify,
}

/// A pod that gets a node begins to be selected.
const WATCH: &str = "/api/v1/pods?watch=true&fieldSelector=spec.nodeName%21%3D&resourceVersion=";
const ADDED: &[u8] = b"{\"type\":\"ADDED\"";

impl Bound {
    /// Watches from now on.
    pub async fn begin(client: &Client) -> Result<Bound> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Meta {
            resource_version: String,
        }
        #[derive(Deserialize)]
        struct List {
            metadata: Meta,
        }
        let list: List = client.get_json("/api/v1/pods?limit=1").await?;
        let target = format!("{WATCH}{}", list.metadata.resource_version);
        let answer = client.raw(Method::GET, target, None, Bytes::new()).await?;
        let Body::Stream(mut chunks) = answer.body else { bail!("no watch") };
        let seen: Arc<Seen> = Arc::default();
        let (env, ours) = (client.env().clone(), seen.clone());
        let watch = client.env().spawn(async move {
            let mut lines = Lines::default();
            while let Some(Ok(chunk)) = chunks.next().await {
                let added = lines.added(&chunk);
                if added > 0 {
                    let now = env.monotonic();
                    ours.times.lock().extend(std::iter::repeat_n(now, added));
                    ours.more.notify_one();
                }
            }
        });
        Ok(Bound { seen, _watch: TaskGuard::new(watch) })
    }

    /// Waits until so many were bound; when they were.
    pub async fn wait(&self, count: usize) -> Vec<Instant> {
        loop {
            let more = self.seen.more.notified();
            let times = self.seen.times.lock().clone();
            if times.len() >= count {
                return times;
            }
            more.await;
        }
    }

    /// How fast it went between the first and the last of them, in pods per second, and when the last was bound.
    pub fn rate(times: &[Instant]) -> Result<(f64, Instant)> {
        let first = times.first().context("nothing was bound")?;
        let last = times.last().context("nothing was bound")?;
        // What came with the first chunk was bound before it came.
        let after = times.iter().filter(|time| *time > first).count();
        Ok((after as f64 / last.duration_since(*first).as_secs_f64().max(0.001), *last))
    }
}

/// Lines in chunks that respect no boundary.
#[derive(Default)]
struct Lines {
    /// How the line began that goes on.
    start: Vec<u8>,
}

impl Lines {
    /// How many events began in this chunk that tell of an object that is new.
    fn added(&mut self, chunk: &[u8]) -> usize {
        let mut added = 0;
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let missing = ADDED.len().saturating_sub(self.start.len());
            if missing > 0 {
                self.start.extend(&piece[..missing.min(piece.len())]);
                added += usize::from(self.start == ADDED);
            }
            if piece.ends_with(b"\n") {
                self.start.clear();
            }
        }
        added
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_across_chunks() {
        let wire = b"{\"type\":\"ADDED\",\"object\":{}}\n{\"type\":\"MODIFIED\",\"object\":{\"type\":\"ADDED\"}}\n\n{\"type\":\"ADDED\",\"object\":{}}\n";
        for size in [1, 7, wire.len()] {
            let mut lines = Lines::default();
            let added: usize = wire.chunks(size).map(|chunk| lines.added(chunk)).sum();
            assert_eq!(added, 2, "chunks of {size}");
        }
    }
}
