//! `Workqueue`: keys that need work, each once, and never the same one twice at a time.
//!
//! Upstream: client-go util/workqueue.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_secs(1000);

/// A queue of distinct keys with delays. Clones share it.
pub struct Workqueue<K>(Arc<Inner<K>>);

struct Inner<K> {
    env: Env,
    state: Mutex<State<K>>,
    changed: Notify,
}

struct State<K> {
    ready: VecDeque<K>,
    /// In `ready`, or to be put there when its processing is done.
    dirty: BTreeSet<K>,
    processing: BTreeSet<K>,
    /// When a key is due; entries of `delayed` that say otherwise no longer count.
    due: BTreeMap<K, Instant>,
    delayed: BinaryHeap<Reverse<(Instant, K)>>,
    failures: BTreeMap<K, u32>,
}

impl<K> Clone for Workqueue<K> {
    fn clone(&self) -> Self {
        Workqueue(self.0.clone())
    }
}

impl<K: Ord + Clone> Workqueue<K> {
    pub fn new(env: Env) -> Workqueue<K> {
        let state = State {
            ready: VecDeque::new(),
            dirty: BTreeSet::new(),
            processing: BTreeSet::new(),
            due: BTreeMap::new(),
            delayed: BinaryHeap::new(),
            failures: BTreeMap::new(),
        };
        Workqueue(Arc::new(Inner { env, state: Mutex::new(state), changed: Notify::new() }))
    }

    /// Asks for work on `key`. While it is worked on, it comes again afterwards.
    pub fn add(&self, key: K) {
        if self.0.state.lock().add(key) {
            self.0.changed.notify_one();
        }
    }

    /// Asks for work on `key` after `delay`; of several delays of a key, the one that ends first counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let due = self.0.env.monotonic() + delay;
        let mut state = self.0.state.lock();
        if state.due.get(&key).is_some_and(|known| *known <= due) {
            return;
        }
        state.due.insert(key.clone(), due);
        state.delayed.push(Reverse((due, key)));
        drop(state);
        self.0.changed.notify_one();
    }

    /// Asks for work on `key` again after a failure; the pause doubles with each until [`Workqueue::forget`].
    pub fn add_rate_limited(&self, key: K) {
        let failures = {
            let mut state = self.0.state.lock();
            let failures = state.failures.entry(key.clone()).or_default();
            *failures += 1;
            *failures
        };
        let pause = FIRST_PAUSE.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX)).min(MAX_PAUSE);
        self.add_after(key, pause);
    }

    /// Forgets the failures of `key`.
    pub fn forget(&self, key: &K) {
        self.0.state.lock().failures.remove(key);
    }

    /// How often `key` failed since it was forgotten.
    pub fn failures(&self, key: &K) -> u32 {
        self.0.state.lock().failures.get(key).copied().unwrap_or_default()
    }

    /// Waits for a key to work on; [`Workqueue::done`] must follow.
    pub async fn get(&self) -> K {
        loop {
            let changed = self.0.changed.notified();
            let due = {
                let mut state = self.0.state.lock();
                state.promote(self.0.env.monotonic());
                if let Some(key) = state.take() {
                    let more = !state.ready.is_empty() || !state.delayed.is_empty();
                    drop(state);
                    if more {
                        // Somebody else must watch over the rest.
                        self.0.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.peek().map(|Reverse((due, _))| *due)
            };
            match due {
                Some(due) => drop(tokio::time::timeout_at(due, changed).await),
                None => changed.await,
            }
        }
    }

    /// Ends the work on `key`.
    pub fn done(&self, key: &K) {
        if self.0.state.lock().done(key) {
            self.0.changed.notify_one();
        }
    }

    /// How many keys are ready.
    pub fn len(&self) -> usize {
        self.0.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord + Clone> State<K> {
    fn add(&mut self, key: K) -> bool {
        if !self.dirty.insert(key.clone()) || self.processing.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    fn promote(&mut self, now: Instant) {
        while let Some(Reverse((due, _))) = self.delayed.peek()
            && *due <= now
        {
            if let Some(Reverse((due, key))) = self.delayed.pop()
                && self.due.get(&key) == Some(&due)
            {
                self.due.remove(&key);
                self.add(key);
            }
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.dirty.remove(&key);
        self.processing.insert(key.clone());
        Some(key)
    }

    fn done(&mut self, key: &K) -> bool {
        self.processing.remove(key);
        if self.dirty.contains(key) {
            self.ready.push_back(key.clone());
            return true;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn queue() -> (Env, Workqueue<&'static str>) {
        let env = Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
        (env.clone(), Workqueue::new(env))
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_worked_on_once_at_a_time() {
        let (_, queue) = queue();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, "a");
        queue.add("a");
        assert!(queue.get().now_or_never().is_none());
        queue.done(&"a");
        assert_eq!(queue.get().await, "a");
        queue.done(&"a");
        assert!(queue.get().now_or_never().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_double_the_pause() {
        let (env, queue) = queue();
        let start = env.monotonic();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let before = env.monotonic();
            queue.add_rate_limited("a");
            assert_eq!(queue.get().await, "a");
            queue.done(&"a");
            pauses.push((env.monotonic() - before).as_millis());
        }
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[19], 1_000_000);
        assert!(env.monotonic() > start);
        queue.forget(&"a");
        assert_eq!(queue.failures(&"a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_delays_the_first_to_end_counts() {
        let (env, queue) = queue();
        let before = env.monotonic();
        for seconds in [9, 5, 7] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        assert_eq!(queue.get().await, "a");
        assert_eq!((env.monotonic() - before).as_secs(), 5);
        queue.done(&"a");
        assert!(env.timeout(Duration::from_secs(60), queue.get()).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn delayed_keys_come_when_due_whoever_is_waiting() {
        let (env, queue) = queue();
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let queue = queue.clone();
                env.spawn(async move { queue.get().await })
            })
            .collect();
        tokio::task::yield_now().await;
        queue.add_after("slow", Duration::from_secs(9));
        queue.add_after("fast", Duration::from_secs(3));
        let before = env.monotonic();
        let mut got = Vec::new();
        for waiter in waiters {
            got.push(waiter.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, ["fast", "slow"]);
        assert_eq!((env.monotonic() - before).as_secs(), 9);
    }
}
