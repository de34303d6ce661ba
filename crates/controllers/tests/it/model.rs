//! Runs of a model, one for each seed, several at a time. A run is alone on a paused runtime and takes all its chance from its seed: the
//! same seed is the same history.
//!
//! `OXIKUBE_SEEDS` says how many (from `OXIKUBE_FIRST_SEED`), `OXIKUBE_SEED` runs one alone. A failure says how to see it again.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::*;

/// How many runs if nobody says otherwise.
const SEEDS: u64 = 200;
/// So many failures say enough.
const FAILURES: usize = 5;

/// A run; it hands back the server, which knows what happened.
pub(super) type Run = Pin<Box<dyn Future<Output = FakeServer>>>;

/// Runs `model` with every seed; `test` is the path of the test that does.
pub(super) fn hold(test: &str, model: fn(u64) -> Run) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (first, count) = match number("OXIKUBE_SEED") {
        Some(seed) => (seed, 1),
        None => (number("OXIKUBE_FIRST_SEED").unwrap_or(1), number("OXIKUBE_SEEDS").unwrap_or(SEEDS)),
    };
    let (next, failures) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed - first >= count || failures.lock().len() >= FAILURES {
                return;
            }
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(model, seed))) {
                failures.lock().push((seed, text(panic.as_ref())));
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let told: Vec<String> = failures
        .into_inner()
        .into_iter()
        .map(|(seed, why)| format!("seed {seed}: {why}\n  again: cargo xtask models --only {test} --seed {seed}"))
        .collect();
    assert!(told.is_empty(), "{test} fails:\n{}", told.join("\n"));
}

/// Runs a few seeds twice, and fails where the second time was another.
pub(super) fn repeats(model: fn(u64) -> Run) {
    for seed in [3, 8] {
        let (one, other) = (run(model, seed), run(model, seed));
        if one.digest() == other.digest() {
            continue;
        }
        let (one, other) = (one.requests(), other.requests());
        let at = one.iter().zip(&other).position(|(a, b)| a != b).unwrap_or(one.len().min(other.len()));
        panic!("seed {seed}: request {at} was {:?} and then {:?}", one.get(at), other.get(at));
    }
}

fn run(model: fn(u64) -> Run, seed: u64) -> FakeServer {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(model(seed))
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
