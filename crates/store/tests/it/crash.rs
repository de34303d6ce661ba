//! A process that writes is killed again and again; whatever it acknowledged is there afterwards, whole and in order.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use env::{Env, FailAction};
use fastrand::Rng;
use store::{Config, Embedded, Error, Event, EventKind, RangeQuery, Store, Txn, WatchQuery};

const DIR: &str = "STORE_TEST_DIR";
const SEED: &str = "STORE_TEST_SEED";
const FAILPOINT: &str = "STORE_TEST_FAILPOINT";
const KEYS: u64 = 40;

/// Starts this test binary again, to run only `test`.
pub(crate) fn again(test: &str, dir: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]).env(DIR, dir);
    command
}

/// The folder given to a process started by [`again`]; `None` when this is no such process.
pub(crate) fn given_dir() -> Option<std::path::PathBuf> {
    std::env::var_os(DIR).map(Into::into)
}

/// The process that gets killed: writes for ever, and prints a line per acknowledged write.
#[test]
#[ignore = "started by the tests below"]
fn writing_process() {
    let Some(dir) = given_dir() else { return };
    let mut rng = Rng::with_seed(std::env::var(SEED).unwrap().parse().unwrap());
    let failpoint = std::env::var(FAILPOINT).ok();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let env = Env::system();
        let store = Embedded::open(Config::new(dir, env.clone())).unwrap();
        let armed = failpoint.map(|name| (name, rng.u64(0..200)));
        say("opened");
        let writers = (0..8).map(|_| {
            let (env, store, rng, armed) = (env.clone(), store.clone(), rng.fork(), armed.clone());
            env.clone().spawn(write_for_ever(env, store, rng, armed))
        });
        futures_util::future::join_all(writers).await;
    });
}

fn say(line: &str) {
    // One write each, so that lines of several threads don't mix; the test harness leaves its own line open.
    std::io::stdout().write_all(format!("\n@ {line}\n").as_bytes()).unwrap();
}

async fn write_for_ever(env: Env, store: Arc<Embedded>, mut rng: Rng, armed: Option<(String, u64)>) {
    loop {
        if let Some((name, _)) = armed.as_ref().filter(|(_, after)| store.revision() % 200 >= *after) {
            env.arm(name, Some(FailAction::Kill));
        }
        let (first, second) = (format!("/r/a/{:02}", rng.u64(0..KEYS)), format!("/r/b/{:02}", rng.u64(0..KEYS)));
        let value = format!("{:x}{}", rng.u64(..), "-".repeat(rng.usize(0..3000)));
        let txn = match rng.u8(0..10) {
            0 => Txn::new().delete(first.clone()).put(second.clone(), value.clone()),
            1 => Txn::new().put(first.clone(), value.clone()).put(second.clone(), value.clone()),
            _ => Txn::new().put(first.clone(), value.clone()),
        };
        let lines: Vec<String> = txn
            .ops
            .iter()
            .map(|op| {
                format!("{} {}", std::str::from_utf8(&op.key).unwrap(), if op.value().is_some() { &value } else { "" })
            })
            .collect();
        let committed = store.commit(txn).await.unwrap();
        for line in lines.iter().filter(|line| committed.changed == lines.len() || !line.ends_with(' ')) {
            say(&format!("{} {line}", committed.revision));
        }
        if rng.u16(0..2000) == 0 {
            let revision = store.revision();
            match store.compact(revision).await {
                Ok(()) => say(&format!("{revision} compacted ")),
                Err(Error::Compacted { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }
}

/// What was acknowledged so far: by revision and key, the value written, empty for a deletion.
#[derive(Default)]
struct Acknowledged {
    writes: BTreeMap<(u64, String), String>,
    compacted: u64,
    opened: bool,
}

impl Acknowledged {
    fn add(&mut self, line: &str) -> bool {
        let Some(line) = line.strip_prefix("@ ") else { return false };
        if line == "opened" {
            self.opened = true;
            return true;
        }
        let mut parts = line.splitn(3, ' ');
        let (revision, key, value) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let revision = revision.parse().unwrap();
        match key {
            "compacted" => self.compacted = self.compacted.max(revision),
            _ => assert!(
                self.writes.insert((revision, key.to_owned()), value.to_owned()).is_none(),
                "acknowledged twice"
            ),
        }
        true
    }

    /// Reads what the process says until it has said so many lines, kills it, and reads the rest.
    fn read(&mut self, child: &mut Child, lines: usize) {
        let mut said = 0;
        // A line the kill cut short was not acknowledged.
        let mut output = BufReader::new(child.stdout.take().unwrap());
        if lines == 0 {
            child.kill().unwrap();
        }
        let mut line = String::new();
        while output.read_line(&mut line).unwrap() > 0 {
            if let Some(whole) = line.strip_suffix('\n')
                && self.add(whole)
            {
                said += 1;
                if said == lines {
                    child.kill().unwrap();
                }
            }
            line.clear();
        }
        child.wait().unwrap();
    }

    async fn check(&self, dir: &Path) {
        let store = Embedded::open(Config::new(dir, Env::system())).unwrap();
        assert!(store.compacted() >= self.compacted);
        let newest = self.writes.last_key_value().map_or(1, |((revision, _), _)| *revision);
        assert!(store.revision() >= newest, "lost revisions after {}: {newest} was acknowledged", store.revision());

        let (from, to) = (store.compacted(), store.revision());
        let events = all_events(&store, from).await;
        let mut revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
        revisions.dedup();
        // Revision 1 is the empty store.
        assert!(revisions.into_iter().eq(from.max(1) + 1..=to), "a revision between {from} and {to} is missing");
        let mut there = BTreeMap::new();
        for event in &events {
            let key = String::from_utf8(event.key.to_vec()).unwrap();
            let value = String::from_utf8(event.value.to_vec()).unwrap();
            assert_eq!(event.kind == EventKind::Delete, value.is_empty());
            there.insert((event.revision, key), value);
        }
        for (at, value) in self.writes.iter().filter(|((revision, _), _)| *revision > from) {
            assert_eq!(there.get(at), Some(value), "{at:?}");
        }
        self.check_newest(&store, &there).await;
    }

    /// The newest value of each key is the last one written, by what is acknowledged and by the events.
    async fn check_newest(&self, store: &Embedded, there: &BTreeMap<(u64, String), String>) {
        let mut newest: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for ((revision, key), value) in self.writes.iter().chain(there) {
            let newest = newest.entry(key).or_default();
            if *revision >= newest.0 {
                *newest = (*revision, value);
            }
        }
        let list = store.range(RangeQuery::prefix("")).await.unwrap();
        let list: BTreeMap<String, (u64, String)> =
            list.items.iter().map(|item| (text(&item.key), (item.mod_revision, text(&item.value)))).collect();
        for (key, (revision, value)) in newest {
            match list.get(key) {
                Some(found) => {
                    assert!(found.0 > revision || found == &(revision, value.to_owned()), "{key} at {revision}")
                }
                None => assert!(value.is_empty() || store.compacted() >= revision, "{key} is gone since {revision}"),
            }
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

async fn all_events(store: &Embedded, after: u64) -> Vec<Arc<Event>> {
    let mut watch = store.watch(WatchQuery::prefix("").after(after).with_progress()).await.unwrap();
    let (mut events, mut through) = (Vec::new(), after);
    while through < store.revision() {
        let batch = watch.next().await.unwrap();
        through = batch.through;
        events.extend(batch.events);
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut rng = Rng::with_seed(5);
    let mut acknowledged = Acknowledged::default();
    for round in 0..16 {
        let mut command = again("crash::writing_process", dir.path());
        let mut child = command.env(SEED, round.to_string()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = if round % 4 == 3 { rng.usize(0..3) } else { rng.usize(0..1500) };
        acknowledged.read(&mut child, lines);
        acknowledged.check(dir.path()).await;
    }
    assert!(acknowledged.writes.len() > 5_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_crash_at_each_step_of_a_commit() {
    let points = ["begin", "durable"].map(|name| format!("store.commit.{name}"));
    let more = ["write", "sync", "synced", "grow"].map(|name| format!("store.disk.{name}"));
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = Acknowledged::default();
    for (round, point) in points.into_iter().chain(more).enumerate() {
        acknowledged.opened = false;
        let mut command = again("crash::writing_process", dir.path());
        command.env(SEED, (100 + round).to_string()).env(FAILPOINT, point);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        acknowledged.read(&mut child, usize::MAX);
        assert!(acknowledged.opened);
        acknowledged.check(dir.path()).await;
    }
    assert!(acknowledged.writes.len() > 50);
}
