//! Pods that wait for a node: ready to be tried, backing off, or waiting for an event that helps.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::framework::PodInfo;

/// The first back-off after a failed attempt, and the longest.
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const MAX_BACKOFF: Duration = Duration::from_secs(10);
/// A pod that no event helped is tried again after this long all the same.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// The queue. Pods with higher priority come first, then those that came first.
pub struct Queue {
    env: Env,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    pods: HashMap<String, Waiting>,
    /// By descending priority, then arrival.
    ready: BTreeSet<(Reverse<i32>, u64, String)>,
    timers: BinaryHeap<Reverse<(Instant, u64, String)>>,
    arrivals: u64,
}

struct Waiting {
    pod: Arc<PodInfo>,
    arrival: u64,
    attempts: u32,
    place: Place,
    /// An event came during the attempt: it may have been too late for it.
    disturbed: bool,
}

#[derive(Debug, PartialEq)]
enum Place {
    Gated,
    Ready,
    /// Being tried.
    Active,
    /// Tried again at this time.
    Backoff {
        timer: u64,
    },
    /// Waiting for an event that one of these plugins calls helpful, or for the timer.
    Unschedulable {
        plugins: Vec<&'static str>,
        since: Instant,
        timer: u64,
    },
}

impl Queue {
    pub fn new(env: Env) -> Queue {
        Queue { env, state: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in a new state of a pod that waits already, when nothing changed that scheduling depends on. False: it is not known.
    pub fn refresh(&self, pod: &Arc<PodInfo>) -> bool {
        let mut state = self.state.lock();
        let Some(waiting) = state.pods.get_mut(&pod.uid) else { return false };
        waiting.pod = pod.clone();
        true
    }

    /// Takes in a pod that has no node, or its new state; `gated` pods are kept back.
    pub fn add(&self, pod: Arc<PodInfo>, gated: bool) {
        let mut state = self.state.lock();
        let uid = pod.uid.clone();
        let place = if gated { Place::Gated } else { Place::Ready };
        match state.pods.get_mut(&uid) {
            // Its own update may have made it schedulable, whatever it waited for.
            Some(waiting) => {
                waiting.pod = pod;
                match waiting.place {
                    Place::Active => waiting.disturbed = true,
                    Place::Backoff { .. } if !gated => {}
                    _ => state.put(&uid, place),
                }
            }
            None => {
                state.arrivals += 1;
                let arrival = state.arrivals;
                state
                    .pods
                    .insert(uid.clone(), Waiting { pod, arrival, attempts: 0, place: Place::Gated, disturbed: false });
                state.put(&uid, place);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Forgets a pod: it has a node, or is gone.
    pub fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        state.leave_ready(uid);
        state.pods.remove(uid);
    }

    /// The next pod to try; it must be given back by [`Queue::failed`], [`Queue::retry`] or [`Queue::remove`].
    pub async fn next(&self) -> Arc<PodInfo> {
        loop {
            let changed = self.changed.notified();
            let wait = match self.state.lock().pop(self.env.monotonic()) {
                Ok(pod) => return pod,
                Err(wait) => wait,
            };
            match wait {
                Some(deadline) => {
                    tokio::select! {
                        () = changed => {}
                        () = self.env.sleep_until(deadline) => {}
                    }
                }
                None => changed.await,
            }
        }
    }

    /// No node was found; `plugins` say which events may help.
    pub fn failed(&self, uid: &str, plugins: Vec<&'static str>) {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        let Some(waiting) = state.pods.get(uid) else { return };
        let rested = now + backoff(waiting.attempts);
        if waiting.disturbed || plugins.is_empty() {
            state.back_off(uid, rested);
        } else {
            let timer = state.timer(uid, now + MAX_WAIT);
            state.put(uid, Place::Unschedulable { plugins, since: now, timer });
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The attempt failed for another reason than the cluster's state.
    pub fn retry(&self, uid: &str) {
        let mut state = self.state.lock();
        let Some(waiting) = state.pods.get(uid) else { return };
        let rested = self.env.monotonic() + backoff(waiting.attempts);
        state.back_off(uid, rested);
        drop(state);
        self.changed.notify_one();
    }

    /// Something happened: pods that `helps(plugin, pod)` for one of the plugins that rejected them are tried again.
    pub fn wake(&self, helps: impl Fn(&'static str, &PodInfo) -> bool) {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        let mut woken = Vec::new();
        for (uid, waiting) in &mut state.pods {
            match &waiting.place {
                Place::Active => waiting.disturbed = true,
                Place::Unschedulable { plugins, since, .. } if plugins.iter().any(|p| helps(p, &waiting.pod)) => {
                    woken.push((uid.clone(), *since + backoff(waiting.attempts)));
                }
                _ => {}
            }
        }
        for (uid, rested) in woken {
            if rested <= now { state.put(&uid, Place::Ready) } else { state.back_off(&uid, rested) }
        }
        drop(state);
        self.changed.notify_one();
    }
}

impl State {
    fn put(&mut self, uid: &str, place: Place) {
        self.leave_ready(uid);
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        if place == Place::Ready {
            self.ready.insert((Reverse(waiting.pod.priority), waiting.arrival, uid.to_owned()));
        }
        waiting.place = place;
    }

    fn leave_ready(&mut self, uid: &str) {
        if let Some(waiting) = self.pods.get(uid)
            && waiting.place == Place::Ready
        {
            let arrival = waiting.arrival;
            // The priority in the key may be that of an earlier state of the pod.
            self.ready.retain(|(_, other, _)| *other != arrival);
        }
    }

    fn back_off(&mut self, uid: &str, until: Instant) {
        let timer = self.timer(uid, until);
        self.put(uid, Place::Backoff { timer });
    }

    fn timer(&mut self, uid: &str, at: Instant) -> u64 {
        self.arrivals += 1;
        self.timers.push(Reverse((at, self.arrivals, uid.to_owned())));
        self.arrivals
    }

    /// A pod to try, or when the next timer ends.
    fn pop(&mut self, now: Instant) -> Result<Arc<PodInfo>, Option<Instant>> {
        while let Some(Reverse((at, timer, uid))) = self.timers.peek().cloned() {
            let current = self.pods.get(&uid).is_some_and(|waiting| match &waiting.place {
                Place::Backoff { timer: mine } | Place::Unschedulable { timer: mine, .. } => *mine == timer,
                _ => false,
            });
            if current && at > now {
                break;
            }
            self.timers.pop();
            if current {
                self.put(&uid, Place::Ready);
            }
        }
        let Some((_, _, uid)) = self.ready.pop_first() else {
            return Err(self.timers.peek().map(|Reverse((at, ..))| *at));
        };
        let waiting = self.pods.get_mut(&uid).expect("ready pods are known");
        waiting.place = Place::Active;
        waiting.disturbed = false;
        waiting.attempts += 1;
        Ok(waiting.pod.clone())
    }
}

fn backoff(attempts: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(1 << attempts.saturating_sub(1).min(10)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": uid, "uid": uid}, "spec": {"containers": [], "priority": priority}});
        Arc::new(PodInfo::new(serde_json::from_value(pod).unwrap()))
    }

    fn queue() -> Queue {
        Queue::new(Env::seeded(1, Timestamp::UNIX_EPOCH))
    }

    async fn next_within(queue: &Queue, limit: Duration) -> Option<String> {
        tokio::time::timeout(limit, queue.next()).await.ok().map(|pod| pod.uid.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn higher_priority_comes_first() {
        let queue = queue();
        for (uid, priority) in [("a", 0), ("b", 10), ("c", 10), ("d", -1)] {
            queue.add(pod(uid, priority), false);
        }
        queue.add(pod("gated", 100), true);
        let mut order = Vec::new();
        while let Some(uid) = next_within(&queue, Duration::from_millis(1)).await {
            order.push(uid);
        }
        assert_eq!(order, ["b", "c", "a", "d"]);
    }

    #[tokio::test(start_paused = true)]
    async fn only_helpful_events_wake() {
        let queue = queue();
        queue.add(pod("a", 0), false);
        queue.next().await;
        queue.failed("a", vec!["Fit"]);
        queue.wake(|plugin, _| plugin == "Other");
        assert_eq!(next_within(&queue, Duration::from_secs(20)).await, None);
        queue.wake(|plugin, _| plugin == "Fit");
        assert_eq!(next_within(&queue, Duration::from_millis(1)).await.as_deref(), Some("a"));
        queue.failed("a", vec!["Fit"]);
        assert_eq!(next_within(&queue, Duration::from_secs(299)).await, None);
        assert_eq!(next_within(&queue, Duration::from_secs(2)).await.as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_spaced_out() {
        let queue = queue();
        queue.add(pod("a", 0), false);
        for pause in [1, 2, 4, 8, 10, 10] {
            assert!(next_within(&queue, Duration::from_millis(1)).await.is_some());
            queue.retry("a");
            assert_eq!(next_within(&queue, Duration::from_millis(pause * 1000 - 10)).await, None);
            queue.wake(|_, _| true);
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_during_the_attempt_is_not_lost() {
        let queue = queue();
        queue.add(pod("a", 0), false);
        queue.next().await;
        queue.wake(|_, _| false);
        queue.failed("a", vec!["Fit"]);
        assert_eq!(next_within(&queue, Duration::from_millis(1100)).await.as_deref(), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn removed_pods_do_not_come() {
        let queue = queue();
        queue.add(pod("a", 0), false);
        queue.add(pod("b", 0), false);
        queue.remove("a");
        assert_eq!(next_within(&queue, Duration::from_millis(1)).await.as_deref(), Some("b"));
        queue.remove("b");
        queue.failed("b", vec![]);
        assert!(queue.state.lock().pods.is_empty());
    }
}
