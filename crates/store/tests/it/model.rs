//! Random operations against the store and against a simple truth: a list of everything that ever happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use env::Env;
use fastrand::Rng;
use futures_util::poll;
use store::{
    Compare, Config, Embedded, Error, Event, EventKind, KeyValue, Op, RangeQuery, Revision, Store, Txn, WatchQuery,
    WatchStream,
};

/// One change of one key.
#[derive(Clone, Debug)]
struct Change {
    revision: Revision,
    key: Bytes,
    value: Option<Bytes>,
    create_revision: Revision,
    version: u64,
    prev: Option<(Revision, Bytes)>,
}

#[derive(Default)]
struct Truth {
    changes: Vec<Change>,
    revision: Revision,
    compacted: Revision,
}

impl Truth {
    fn get(&self, key: &[u8], revision: Revision) -> Option<KeyValue> {
        let change = self.changes.iter().rfind(|change| change.key == key && change.revision <= revision)?;
        Some(KeyValue {
            key: change.key.clone(),
            value: change.value.clone()?,
            create_revision: change.create_revision,
            mod_revision: change.revision,
            version: change.version,
            expires: None,
        })
    }

    fn range(&self, query: &RangeQuery, revision: Revision) -> Vec<KeyValue> {
        let mut keys: Vec<_> = self.changes.iter().map(|change| change.key.clone()).collect();
        keys.sort();
        keys.dedup();
        keys.retain(|key| *key >= query.start && (query.end.is_empty() || *key < query.end));
        keys.iter().filter_map(|key| self.get(key, revision)).collect()
    }

    fn commit(&mut self, txn: &Txn) -> Result<(Revision, usize), (usize, Option<KeyValue>)> {
        for (at, compare) in txn.compares.iter().enumerate() {
            let current = self.get(&compare.key, self.revision);
            if current.as_ref().map_or(0, |current| current.mod_revision) != compare.mod_revision {
                return Err((at, current));
            }
        }
        let does = |op: &&Op| op.value().is_some() || self.get(&op.key, self.revision).is_some();
        let ops: Vec<Op> = txn.ops.iter().filter(does).cloned().collect();
        // Backwards: the last of each resource are at the last revision.
        let mut later: BTreeMap<&str, u64> = BTreeMap::new();
        let mut changes = Vec::new();
        for op in ops.iter().rev() {
            let resource = PREFIXES.into_iter().find(|prefix| op.key.starts_with(prefix.as_bytes())).unwrap();
            let place = later.entry(resource).or_default();
            changes.push((*place, op));
            *place += 1;
        }
        changes.sort_by_key(|(place, _)| *place);
        changes.reverse();
        let revisions = later.values().max().copied().unwrap_or(0);
        for (place, op) in &changes {
            let revision = self.revision + revisions - place;
            let current = self.get(&op.key, self.revision);
            let value = op.value().cloned();
            self.changes.push(Change {
                revision,
                key: op.key.clone(),
                create_revision: current.as_ref().map_or(revision, |current| current.create_revision),
                version: if value.is_some() { current.as_ref().map_or(1, |current| current.version + 1) } else { 0 },
                value,
                prev: current.map(|current| (current.mod_revision, current.value)),
            });
        }
        self.revision += revisions;
        Ok((self.revision, changes.len()))
    }
}

/// A running watch, and how far it was read.
struct Watch {
    stream: WatchStream,
    query: WatchQuery,
    /// Every change up to here was seen.
    through: Revision,
    /// Events up to here come from history, without tags.
    history: Revision,
}

struct Run {
    rng: Rng,
    config: Config,
    store: Option<Arc<Embedded>>,
    truth: Truth,
    watches: Vec<Watch>,
}

const PREFIXES: [&str; 3] = ["/registry/pods/", "/registry/services/specs/", "/registry/example.com/widgets/"];

impl Run {
    fn new(seed: u64, config: Config) -> Run {
        let truth = Truth { revision: 1, ..Truth::default() };
        Run {
            rng: Rng::with_seed(seed),
            store: Some(Embedded::open(config.clone()).unwrap()),
            config,
            truth,
            watches: vec![],
        }
    }

    fn store(&self) -> Arc<Embedded> {
        self.store.clone().unwrap()
    }

    fn key(&mut self, prefix: usize) -> Bytes {
        format!("{}{}", PREFIXES[prefix], self.rng.u8(0..5)).into()
    }

    fn any_key(&mut self) -> Bytes {
        let prefix = self.rng.usize(0..PREFIXES.len());
        self.key(prefix)
    }

    /// A revision that is mostly readable.
    fn some_revision(&mut self) -> Revision {
        match self.rng.u8(0..10) {
            0 => self.rng.u64(0..self.truth.revision + 3),
            _ => self.rng.u64(self.truth.compacted..=self.truth.revision),
        }
    }

    async fn step(&mut self) {
        match self.rng.u8(0..100) {
            0..50 => self.commit().await,
            50..60 => self.get().await,
            60..72 => self.range().await,
            72..80 => self.open_watch().await,
            80..95 => self.read_watches().await,
            95..98 => self.compact().await,
            _ => self.reopen().await,
        }
        let store = self.store();
        assert_eq!((store.revision(), store.compacted()), (self.truth.revision, self.truth.compacted));
    }

    async fn commit(&mut self) {
        let mut txn = Txn::new();
        for prefix in 0..PREFIXES.len() {
            if self.rng.u8(0..3) > 0 {
                continue;
            }
            let key = self.key(prefix);
            let others = if self.rng.u8(0..3) == 0 { self.rng.usize(1..4) } else { 0 };
            let mut others: BTreeSet<Bytes> = std::iter::repeat_with(|| self.key(prefix)).take(others).collect();
            others.remove(&key);
            for key in others {
                let value: Bytes = vec![self.rng.u8(..)].into();
                txn = if self.rng.bool() { txn.delete(key) } else { txn.put(key, value.clone()).tag(Arc::new(value)) };
            }
            if self.rng.bool() {
                let right = self.truth.get(&key, self.truth.revision).map_or(0, |current| current.mod_revision);
                let wrong = self.rng.u64(0..self.truth.revision + 1);
                let mod_revision = if self.rng.u8(0..8) > 0 { right } else { wrong };
                txn.compares.push(Compare { key: key.clone(), mod_revision });
            }
            txn = match self.rng.u8(0..4) {
                0 => txn.delete(key),
                _ => {
                    let length =
                        if self.rng.u8(0..20) == 0 { self.rng.usize(0..20_000) } else { self.rng.usize(0..60) };
                    let value: Bytes = std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect();
                    txn.put(key, value.clone()).tag(Arc::new(value))
                }
            };
        }
        self.rng.shuffle(&mut txn.ops);
        let expected = self.truth.commit(&txn);
        match (self.store().commit(txn.clone()).await, expected) {
            (Ok(committed), Ok(expected)) => assert_eq!((committed.revision, committed.changed), expected),
            (Err(Error::Conflict(conflict)), Err((compare, current))) => {
                assert_eq!((conflict.compare, &conflict.current), (compare, &current));
            }
            (result, expected) => panic!("{txn:?}: {result:?}, expected {expected:?}"),
        }
    }

    fn check_readable<T>(&self, result: Result<T, Error>, revision: Revision) -> Option<T> {
        match result {
            Ok(found) => {
                assert!(revision >= self.truth.compacted && revision <= self.truth.revision, "read at {revision}");
                return Some(found);
            }
            Err(Error::Compacted { .. }) => assert!(revision < self.truth.compacted),
            Err(Error::Future { .. }) => assert!(revision > self.truth.revision),
            Err(error) => panic!("{error:?}"),
        }
        None
    }

    async fn get(&mut self) {
        let key = self.any_key();
        assert_eq!(self.store().get(&key).await.unwrap(), self.truth.get(&key, self.truth.revision));
        let revision = self.some_revision();
        if let Some(found) = self.check_readable(self.store().get_at(&key, revision).await, revision) {
            assert_eq!(found, self.truth.get(&key, revision), "{key:?} at {revision}");
        }
    }

    async fn range(&mut self) {
        let query = match self.rng.u8(0..3) {
            0 => RangeQuery::prefix(""),
            1 => RangeQuery::prefix(PREFIXES[self.rng.usize(0..PREFIXES.len())]),
            _ => RangeQuery { start: self.any_key(), end: self.any_key(), ..RangeQuery::default() },
        };
        let revision = self.rng.bool().then(|| self.some_revision());
        let limit = self.rng.usize(0..5);
        let query = RangeQuery { revision, limit, keys_only: self.rng.bool(), count: self.rng.bool(), ..query };
        let at = revision.unwrap_or(self.truth.revision);
        let Some(found) = self.check_readable(self.store().range(query.clone()).await, at) else { return };

        let mut expected = self.truth.range(&query, at);
        let total = expected.len();
        if limit > 0 {
            expected.truncate(limit);
        }
        if query.keys_only {
            expected.iter_mut().for_each(|item| item.value = Bytes::new());
        }
        assert_eq!((found.revision, found.more), (at, total > expected.len()), "{query:?}");
        assert_eq!(found.count, if query.count { total } else { expected.len() }, "{query:?}");
        assert_eq!(found.items, expected, "{query:?}");
    }

    async fn open_watch(&mut self) {
        let after = (self.rng.u8(0..4) > 0).then(|| self.some_revision());
        let prefix = if self.rng.bool() { "" } else { PREFIXES[self.rng.usize(0..PREFIXES.len())] };
        let query =
            WatchQuery { prefix: prefix.into(), after, progress: self.rng.bool(), prev_values: self.rng.bool() };
        match self.store().watch(query.clone()).await {
            Ok(stream) => {
                let through = after.map_or(self.truth.revision, |after| after.min(self.truth.revision));
                self.watches.push(Watch { stream, query, through, history: self.truth.revision });
            }
            Err(Error::Compacted { .. }) => assert!(after.unwrap() < self.truth.compacted),
            Err(error) => panic!("{error:?}"),
        }
        if self.watches.len() > 4 {
            let oldest = self.rng.usize(0..self.watches.len());
            self.watches.swap_remove(oldest);
        }
    }

    async fn read_watches(&mut self) {
        for mut watch in std::mem::take(&mut self.watches) {
            if watch.read(&self.truth).await {
                self.watches.push(watch);
            }
        }
    }

    async fn compact(&mut self) {
        let revision = self.some_revision();
        if self.check_readable(self.store().compact(revision).await, revision).is_some() {
            self.truth.compacted = self.truth.compacted.max(revision);
        }
    }

    async fn reopen(&mut self) {
        self.read_watches().await;
        if self.config.dir.is_none() {
            return;
        }
        self.store = None;
        for mut watch in self.watches.drain(..) {
            assert!(matches!(watch.stream.next().await, Err(Error::Closed)));
        }
        self.store = Some(Embedded::open(self.config.clone()).unwrap());
    }
}

impl Watch {
    /// Reads all there is; whether the watch goes on.
    async fn read(&mut self, truth: &Truth) -> bool {
        let after = self.through.max(self.query.after.unwrap_or(0));
        let missed = |change: &&Change| change.revision > after && change.key.starts_with(&self.query.prefix);
        let expected: Vec<_> = truth.changes.iter().filter(missed).cloned().collect();
        let mut seen = Vec::new();
        while seen.len() < expected.len() {
            match self.stream.next().await {
                Ok(batch) => {
                    assert!(batch.through >= self.through);
                    self.through = batch.through;
                    seen.extend(batch.events);
                    assert!(seen.last().is_none_or(|event| event.revision <= self.through));
                }
                // History that was not read yet may be compacted.
                Err(Error::Compacted { .. }) => {
                    assert!(self.through < truth.compacted);
                    return false;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(seen.len(), expected.len(), "{seen:?}\n{expected:?}");
        for (event, change) in seen.iter().zip(&expected) {
            self.check_event(event, change);
        }
        self.check_no_more(truth).await
    }

    fn check_event(&self, event: &Event, change: &Change) {
        assert_eq!((event.revision, &event.key), (change.revision, &change.key), "{event:?}");
        assert_eq!(event.kind, if change.value.is_some() { EventKind::Put } else { EventKind::Delete });
        assert_eq!(event.value, change.value.clone().unwrap_or_default());
        assert_eq!((event.create_revision, event.version), (change.create_revision, change.version), "{event:?}");
        let prev = event.prev.as_ref();
        assert_eq!(prev.map(|prev| prev.revision), change.prev.as_ref().map(|(revision, _)| *revision), "{event:?}");
        if self.query.prev_values {
            let expected = change.prev.as_ref().map(|(_, value)| value);
            assert_eq!(prev.and_then(|prev| prev.value.as_ref()), expected, "{event:?}");
        }
        let tag = event.tag.as_ref().map(|tag| tag.downcast_ref::<Bytes>().unwrap());
        let tagged = event.revision > self.history && change.value.is_some();
        assert_eq!(tag, change.value.as_ref().filter(|_| tagged), "{event:?}");
    }

    /// Polled until it has had time to read history, it yields progress at most.
    async fn check_no_more(&mut self, truth: &Truth) -> bool {
        for _ in 0..3 {
            let next = std::pin::pin!(self.stream.next());
            if let std::task::Poll::Ready(result) = poll!(next) {
                match result {
                    Ok(batch) => {
                        assert!(self.query.progress && batch.events.is_empty(), "{batch:?}");
                        assert!(batch.through >= self.through);
                        self.through = batch.through;
                    }
                    Err(Error::Compacted { .. }) => {
                        assert!(self.through < truth.compacted);
                        return false;
                    }
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
        if self.query.progress {
            assert_eq!(self.through.max(truth.revision), self.through, "progress follows the store");
        }
        true
    }
}

fn seeds(default: u64) -> std::ops::Range<u64> {
    let count = std::env::var("STORE_MODEL_SEEDS").ok().and_then(|count| count.parse().ok());
    0..count.unwrap_or(default)
}

async fn check(seed: u64, config: Config, steps: usize) {
    let mut run = Run::new(seed, config);
    for _ in 0..steps {
        run.step().await;
    }
    run.read_watches().await;
}

/// Says which seed failed.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("model test: seed {} failed", self.0);
        }
    }
}

#[tokio::test]
async fn in_memory_it_does_what_the_truth_does() {
    for seed in seeds(150) {
        let _named = Named(seed);
        check(seed, Config::in_memory(Env::system()), 300).await;
    }
}

#[tokio::test]
async fn in_a_file_it_does_what_the_truth_does() {
    for seed in seeds(12) {
        let _named = Named(seed);
        let dir = tempfile::tempdir().unwrap();
        let config = Config { inline: seed % 2 == 0, ..Config::new(dir.path(), Env::system()) };
        check(1_000_000 + seed, config, 300).await;
    }
}
