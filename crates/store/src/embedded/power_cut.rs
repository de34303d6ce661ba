//! Power cuts: of what was written since the last sync, any part may reach the disk. Killing a process can't show that.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use env::Env;
use fastrand::Rng;
use parking_lot::Mutex;
use redb::StorageBackend;

use super::database::Place;
use super::{Config, Embedded};
use crate::{Event, Revision, Store, Txn, WatchQuery};

/// A disk that remembers how it came to be.
#[derive(Clone, Debug, Default)]
pub(super) struct Recorder(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    image: Vec<u8>,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Write {
        offset: usize,
        bytes: Vec<u8>,
    },
    SetLen(usize),
    Sync,
    /// The store told its caller that it is at this revision, compacted to that.
    Acknowledged(Revision, Revision),
}

impl StorageBackend for Recorder {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let recording = self.0.lock();
        let from = recording.image.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.lock().step(Step::SetLen(len as usize));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.lock().step(Step::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.lock().step(Step::Write { offset: offset as usize, bytes: data.to_vec() });
        Ok(())
    }
}

impl Recording {
    fn step(&mut self, step: Step) {
        apply(&mut self.image, &step);
        self.steps.push(step);
    }
}

fn apply(image: &mut Vec<u8>, step: &Step) {
    match step {
        Step::Write { offset, bytes } => {
            image.resize(image.len().max(offset + bytes.len()), 0);
            image[*offset..offset + bytes.len()].copy_from_slice(bytes);
        }
        Step::SetLen(len) => image.resize(*len, 0),
        Step::Sync | Step::Acknowledged(..) => {}
    }
}

/// What the disk may hold when the power goes after `steps`: all up to the last sync, then any sectors of any writes.
fn image_after_cut(steps: &[Step], rng: &mut Rng) -> Vec<u8> {
    const SECTOR: usize = 512;
    let synced = steps.iter().rposition(|step| matches!(step, Step::Sync)).map_or(0, |last| last + 1);
    let mut image = Vec::new();
    steps[..synced].iter().for_each(|step| apply(&mut image, step));
    // Mostly all or nothing of a write, as the order of whole writes is what goes wrong first.
    let torn = rng.u8(0..4) == 0;
    for step in &steps[synced..] {
        match step {
            Step::Write { offset, bytes } if torn => {
                for (at, sector) in bytes.chunks(SECTOR).enumerate().filter(|_| rng.bool()) {
                    apply(&mut image, &Step::Write { offset: offset + at * SECTOR, bytes: sector.to_vec() });
                }
            }
            _ if rng.bool() => apply(&mut image, step),
            _ => {}
        }
    }
    // A file system keeps the length of a file that was extended, or not; never less than what was synced.
    image
}

fn config() -> Config {
    Config { cache_bytes: 1 << 20, ..Config::in_memory(Env::system()) }
}

async fn all_events(store: &Embedded) -> Vec<Arc<Event>> {
    let after = store.compacted();
    let mut watch = store.watch(WatchQuery::prefix("").after(after).with_progress()).await.unwrap();
    let (mut events, mut through) = (Vec::new(), after);
    while through < store.revision() {
        let batch = watch.next().await.unwrap();
        through = batch.through;
        events.extend(batch.events);
    }
    events
}

/// Writes at random; what happened at each revision.
async fn write(store: &Embedded, recorder: &Recorder, rng: &mut Rng) -> Vec<Vec<(Bytes, Bytes)>> {
    // Nothing happens at 0, and 1 is the empty store.
    let mut truth = vec![vec![], vec![]];
    for _ in 0..120 {
        let mut txn = Txn::new();
        for prefix in ["a", "b"].iter().take(1 + rng.usize(0..2)) {
            let length = if rng.u8(0..8) == 0 { rng.usize(0..30_000) } else { rng.usize(1..900) };
            txn = txn.put(format!("/r/{prefix}/{}", rng.u8(0..12)), vec![rng.u8(..); length]);
        }
        truth.push(txn.ops.iter().map(|op| (op.key.clone(), op.value().cloned().unwrap_or_default())).collect());
        let revision = store.commit(txn).await.unwrap().revision;
        if rng.u8(0..20) == 0 {
            store.compact(revision - rng.u64(0..5.min(revision - store.compacted()))).await.unwrap();
        }
        recorder.0.lock().step(Step::Acknowledged(revision, store.compacted()));
    }
    truth
}

async fn check_cut(steps: &[Step], truth: &[Vec<(Bytes, Bytes)>], rng: &mut Rng) {
    let acknowledged = steps.iter().rev().find_map(|step| match step {
        Step::Acknowledged(revision, compacted) => Some((*revision, *compacted)),
        _ => None,
    });
    let (acknowledged, compacted) = acknowledged.unwrap_or((1, 0));
    let recording = Recording { image: image_after_cut(steps, rng), steps: Vec::new() };
    let place = Place::Recorded(Recorder(Arc::new(Mutex::new(recording))));
    let store = Embedded::open_at(place, config()).unwrap();

    assert!(store.revision() >= acknowledged, "at {} after {acknowledged} was acknowledged", store.revision());
    assert!(store.revision() <= acknowledged + 1 && store.compacted() >= compacted);
    let events = all_events(&store).await;
    for revision in store.compacted().max(1) + 1..=store.revision() {
        let happened = events.iter().filter(|event| event.revision == revision);
        let expected = truth[revision as usize].iter();
        assert!(happened.map(|event| (&event.key, &event.value)).eq(expected.map(|(key, value)| (key, value))));
    }
    // It goes on from there.
    let next = store.commit(Txn::new().put("/r/a/next", "x")).await.unwrap();
    assert_eq!(next.revision, store.revision());
}

#[tokio::test]
async fn a_power_cut_loses_nothing_that_was_acknowledged() {
    let mut rng = Rng::with_seed(11);
    let recorder = Recorder::default();
    let store = Embedded::open_at(Place::Recorded(recorder.clone()), config()).unwrap();
    recorder.0.lock().step(Step::Acknowledged(1, 0));
    let opened = recorder.0.lock().steps.len();
    let truth = write(&store, &recorder, &mut rng).await;
    let steps = recorder.0.lock().steps.clone();
    for _ in 0..200 {
        let cut = rng.usize(opened..=steps.len());
        check_cut(&steps[..cut], &truth, &mut rng).await;
    }
}
