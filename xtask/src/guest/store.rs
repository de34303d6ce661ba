//! Writes through the store itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use env::Env;
use store::{Config, Embedded, EventKind, RangeQuery, Revision, Store, Txn, WatchQuery};

use super::{content, read_content, say};
use crate::powercut::SLOTS;

const WRITERS: u32 = 6;
/// So many revisions are kept, at times.
const KEPT: Revision = 300;

pub async fn run(folder: &str) -> Result<()> {
    let env = Env::system();
    let begin = env.monotonic();
    let store = Embedded::open(Config::new(folder, env.clone())).context("opening the store")?;
    say(&format!("opened {} {} {}", store.revision(), store.compacted(), begin.elapsed().as_millis()))?;
    let mut last = check(&store).await?;
    say("ready")?;
    let writers = (0..WRITERS).map(|writer| {
        let (store, from) = (store.clone(), last.remove(&writer).unwrap_or_default());
        env.spawn(async move { write(&store, writer, from).await })
    });
    for writer in futures_util::future::join_all(writers.collect::<Vec<_>>()).await {
        writer??;
    }
    Ok(())
}

fn key(writer: u32, n: u64) -> String {
    format!("/r/a/{writer}-{}", n % SLOTS)
}

/// Tells every key, and sees that history tells the same; each writer's last step.
async fn check(store: &Arc<Embedded>) -> Result<BTreeMap<u32, u64>> {
    let mut last = BTreeMap::new();
    let range = store.range(RangeQuery::prefix("/r/")).await?;
    let mut values = BTreeMap::new();
    for item in &range.items {
        let shown = item.key.escape_ascii().to_string();
        let (writer, n) = read_content(std::str::from_utf8(&item.value)?).with_context(|| {
            format!("{shown} at {} is no value of ours: {} bytes", item.mod_revision, item.value.len())
        })?;
        values.insert(item.key.clone(), item.mod_revision);
        // A second key goes with some steps.
        if shown.starts_with("/r/a/") {
            ensure!(shown == key(writer, n), "{shown} holds {n} of {writer}");
            say(&format!("key {writer} {n} {}", item.mod_revision))?;
            let last = last.entry(writer).or_default();
            *last = n.max(*last);
        }
    }
    let (after, end) = (store.compacted(), store.revision());
    let mut watch = store.watch(WatchQuery::prefix("/r/").after(after).with_progress()).await?;
    let (mut through, mut expected, mut replayed) = (after, after.max(1) + 1, BTreeMap::new());
    while through < end {
        let batch = watch.next().await?;
        through = batch.through;
        for event in &batch.events {
            ensure!(
                event.revision == expected || event.revision + 1 == expected,
                "the watch jumps from {} to {}",
                expected - 1,
                event.revision
            );
            expected = event.revision + 1;
            ensure!(event.kind == EventKind::Put, "a deletion that nobody made");
            ensure!(read_content(std::str::from_utf8(&event.value)?).is_some(), "half an event at {}", event.revision);
            replayed.insert(event.key.clone(), event.revision);
        }
    }
    ensure!(expected == end + 1 || end <= 1, "the watch ends at {} of {end}", expected - 1);
    for (key, revision) in &replayed {
        ensure!(values.get(key) == Some(revision), "{} by its history is of {revision}", key.escape_ascii());
    }
    Ok(last)
}

async fn write(store: &Embedded, writer: u32, from: u64) -> Result<()> {
    for n in from + 1.. {
        let value = content(writer, n);
        let mut txn = Txn::new().put(key(writer, n), value.clone());
        if n.is_multiple_of(5) {
            txn = txn.put(format!("/r/b/{writer}"), value);
        }
        let revision = store.commit(txn).await?.revision;
        say(&format!("ack {writer} {n} {revision}"))?;
        if writer == 0 && n.is_multiple_of(100) && revision > KEPT && revision - KEPT > store.compacted() {
            store.compact(revision - KEPT).await?;
            say(&format!("compacted {}", revision - KEPT))?;
        }
    }
    Ok(())
}
