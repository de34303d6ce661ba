//! Measures the embedded engine in a temporary folder and prints JSON:
//! `cargo run --release -p store --example bench`. Everything runs twice, without and with quick repair.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use futures_util::future::join_all;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use store::{Config, Embedded, RangeQuery, Store, Txn, WatchQuery};

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 2_000;
const RUN: Duration = Duration::from_secs(4);
/// What a process started by this one shall do before it dies.
const FILL: &str = "STORE_BENCH_FILL";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    if let Some(dir) = std::env::var_os(FILL) {
        return runtime.block_on(fill_and_die(Path::new(&dir)));
    }
    let results = [false, true].map(|quick_repair| runtime.block_on(measure(quick_repair)));
    let memory = runtime.block_on(measure_memory());
    println!("{}", json!({ "default": results[0], "quick_repair": results[1], "in_memory": memory }));
}

fn config(dir: &Path, quick_repair: bool) -> Config {
    Config { quick_repair, ..Config::new(dir, Env::system()) }
}

fn key(n: usize) -> String {
    format!("/registry/pods/namespace-{:03}/pod-{n:08}", n % 100)
}

/// What the engine costs without a disk.
async fn measure_memory() -> Value {
    let env = Env::system();
    let store = Embedded::in_memory(&env).expect("a store");
    preload(&store).await;
    let one = writers(&env, &store, 1).await;
    let watches: Vec<_> = join_all((0..60).map(|n| store.watch(WatchQuery::prefix(format!("/registry/{n}/"))))).await;
    let watched = writers(&env, &store, 1).await;
    drop(watches);
    json!({ "one_writer": one, "one_writer_60_watches": watched })
}

async fn measure(quick_repair: bool) -> Value {
    let dir = tempfile::tempdir().expect("a folder");
    let env = Env::system();
    let store = Embedded::open(config(dir.path(), quick_repair)).expect("a store");
    preload(&store).await;
    let one = writers(&env, &store, 1).await;
    let watches: Vec<_> = join_all((0..60).map(|n| store.watch(WatchQuery::prefix(format!("/registry/{n}/"))))).await;
    let watched = writers(&env, &store, 1).await;
    drop(watches);
    let many = writers(&env, &store, 128).await;
    let get = time(&env, 20_000, async |n| drop(store.get(key(n * 7 % KEYS).as_bytes()).await.expect("a value"))).await;
    let range = time(&env, 20, async |_| {
        let range = store.range(RangeQuery::prefix("/registry/pods/")).await.expect("a range");
        assert_eq!(range.items.len(), KEYS);
    });
    let range = range.await;
    let keys = RangeQuery { keys_only: true, ..RangeQuery::prefix("/registry/pods/") };
    let keys_only = time(&env, 20, async |_| drop(store.range(keys.clone()).await.expect("a range"))).await;
    let file = |dir: &Path| std::fs::metadata(dir.join("store.redb")).map_or(0, |file| file.len());
    let before = file(dir.path());
    let begun = env.monotonic();
    store.compact(store.revision()).await.expect("compaction");
    store.defragment().await.expect("defragmentation");
    let compaction = env.monotonic().duration_since(begun);
    let after = file(dir.path());
    drop(store);

    json!({
        "one_writer": one,
        "one_writer_60_watches": watched,
        "128_writers": many,
        "get": get,
        "range_10k": range,
        "range_10k_keys_only": keys_only,
        "compact_and_defragment_ms": compaction.as_secs_f64() * 1e3,
        "file_mb": { "before_compaction": before as f64 / 1e6, "after": after as f64 / 1e6 },
        "reopen_after_kill": reopen_after_kill(&env, quick_repair),
    })
}

fn value(n: usize) -> Bytes {
    let mut rng = fastrand::Rng::with_seed(n as u64);
    std::iter::repeat_with(|| rng.alphanumeric() as u8).take(VALUE_BYTES).collect()
}

async fn preload(store: &Arc<Embedded>) {
    for chunk in (0..KEYS).collect::<Vec<_>>().chunks(500) {
        join_all(chunk.iter().map(|n| store.commit(Txn::create(key(*n), value(*n))))).await;
    }
}

/// Compare-and-swap updates, each writer on keys of its own.
async fn writers(env: &Env, store: &Arc<Embedded>, count: usize) -> Value {
    let cpu = cpu();
    let begun = env.monotonic();
    let runs = (0..count).map(|writer| {
        let (env, store) = (env.clone(), store.clone());
        env.clone().spawn(async move {
            let value = value(writer);
            let mut revisions = vec![0; KEYS / count];
            let mut latencies = Vec::new();
            for n in (0..KEYS / count).cycle() {
                let key = key(writer + n * count);
                if revisions[n] == 0 {
                    revisions[n] = store.get(key.as_bytes()).await.expect("a read").expect("a value").mod_revision;
                }
                let start = env.monotonic();
                if start.duration_since(begun) > RUN {
                    break;
                }
                revisions[n] =
                    store.commit(Txn::update(key, value.clone(), revisions[n])).await.expect("a commit").revision;
                latencies.push(env.monotonic().duration_since(start));
            }
            latencies
        })
    });
    let mut latencies: Vec<Duration> =
        join_all(runs).await.into_iter().flat_map(|run| run.expect("a writer")).collect();
    let seconds = env.monotonic().duration_since(begun).as_secs_f64();
    let mut result = percentiles(&mut latencies);
    result["per_second"] = json!((latencies.len() as f64 / seconds).round());
    result["cpu_us_each"] = json!((self::cpu() - cpu) * 1e6 / latencies.len() as f64);
    result
}

async fn time(env: &Env, times: usize, run: impl AsyncFn(usize)) -> Value {
    let mut latencies = Vec::new();
    for n in 0..times {
        let begun = env.monotonic();
        run(n).await;
        latencies.push(env.monotonic().duration_since(begun));
    }
    percentiles(&mut latencies)
}

fn percentiles(latencies: &mut [Duration]) -> Value {
    latencies.sort();
    let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    json!({ "p50_ms": at(0.5), "p99_ms": at(0.99) })
}

/// Seconds of processor time this process used.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn reopen_after_kill(env: &Env, quick_repair: bool) -> Value {
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.env(FILL, dir.path()).env("STORE_BENCH_QUICK_REPAIR", if quick_repair { "1" } else { "0" });
    command.stderr(std::process::Stdio::null()).status().expect("it ran");
    let bytes = std::fs::metadata(dir.path().join("store.redb")).map_or(0, |file| file.len());
    let open = || {
        let begun = env.monotonic();
        let store = Embedded::open(config(dir.path(), quick_repair)).expect("it opens");
        (env.monotonic().duration_since(begun).as_secs_f64() * 1e3, store.revision())
    };
    let (after_kill, revision) = open();
    let (after_close, _) = open();
    json!({ "file_mb": bytes as f64 / 1e6, "revision": revision, "ms": after_kill, "after_clean_close_ms": after_close })
}

async fn fill_and_die(dir: &Path) {
    let quick_repair = std::env::var("STORE_BENCH_QUICK_REPAIR").is_ok_and(|value| value == "1");
    let store = Embedded::open(config(dir, quick_repair)).expect("a store");
    preload(&store).await;
    for round in 0..5 {
        for chunk in (0..KEYS).collect::<Vec<_>>().chunks(500) {
            join_all(chunk.iter().map(|n| store.commit(Txn::new().put(key(*n), value(n + round))))).await;
        }
    }
    std::process::abort();
}
