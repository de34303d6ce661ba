//! Pods that wait for a node: ready to be tried, backing off, held back, or waiting for an event that helps.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use env::Env;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::framework::{Change, ClusterEvent};
use crate::pod::PodInfo;

/// A pod that no event helped is tried again after this long all the same.
const MAX_WAIT: Duration = Duration::from_secs(300);

/// What the queue asks the plugins.
pub trait Judge: Send + Sync {
    /// Higher is tried first.
    fn rank(&self, pod: &PodInfo) -> i64;

    /// The plugin that holds the pod back.
    fn gate(&self, pod: &PodInfo) -> Option<&'static str>;

    /// Whether the event may help a pod that the plugin rejected or holds back.
    fn helps(&self, plugin: &'static str, pod: &PodInfo, event: &ClusterEvent) -> bool;
}

/// The queue.
pub struct Queue {
    env: Env,
    judge: Arc<dyn Judge>,
    first_backoff: Duration,
    max_backoff: Duration,
    state: Mutex<State>,
    changed: Notify,
}

/// Sorts by rank, highest first, then by arrival.
type Turn = (Reverse<i64>, u64, String);

#[derive(Default)]
struct State {
    pods: HashMap<String, Waiting>,
    ready: BTreeSet<Turn>,
    /// Those that an event may help: gated or unschedulable.
    parked: HashSet<String>,
    /// Backing off after a rejection, by when that ends: they are tried early when nobody else is ready.
    resting: BTreeSet<(Instant, u64, String)>,
    timers: BinaryHeap<Reverse<(Instant, u64, String)>>,
    /// Counts arrivals, timers and events.
    clock: u64,
    /// What happened since the first attempt that is under way began.
    events: VecDeque<(u64, ClusterEvent)>,
    /// When attempts under way began.
    active: BTreeSet<u64>,
}

struct Waiting {
    pod: Arc<PodInfo>,
    arrival: u64,
    /// How often plugins rejected it.
    rejected: u32,
    /// How often it failed since then for no reason of the cluster's.
    errors: u32,
    place: Place,
}

impl Waiting {
    /// Counts a failed attempt.
    fn count(&mut self, error: bool) {
        if error {
            self.errors += 1;
        } else {
            self.rejected += 1;
            self.errors = 0;
        }
    }

    /// What its backoff grows with.
    fn failures(&self) -> u32 {
        if self.errors > 0 { self.errors } else { self.rejected }
    }
}

#[derive(Debug, PartialEq)]
enum Place {
    /// By the plugin.
    Gated(&'static str),
    Ready(Turn),
    /// Being tried, since then.
    Active(u64),
    /// Tried again at this time; not before, if the last attempt failed for no reason of the cluster's.
    Backoff {
        timer: u64,
        until: Instant,
        early: bool,
    },
    /// Waiting for an event that one of these plugins calls helpful, or for the timer.
    Unschedulable {
        plugins: Vec<&'static str>,
        since: Instant,
        timer: u64,
    },
}

impl Queue {
    /// `backoff`: after the first failed attempt, and the longest.
    pub fn new(env: Env, judge: Arc<dyn Judge>, backoff: (Duration, Duration)) -> Queue {
        let (first_backoff, max_backoff) = backoff;
        Queue { env, judge, first_backoff, max_backoff, state: Mutex::default(), changed: Notify::new() }
    }

    /// Takes in a pod that has no node, or its new state.
    pub fn put(&self, pod: Arc<PodInfo>) {
        let mut state = self.state.lock();
        let uid = pod.uid.clone();
        match state.pods.get_mut(&uid) {
            Some(waiting) => {
                let old = std::mem::replace(&mut waiting.pod, pod.clone());
                let event = ClusterEvent::Own(Change { old: Some(old), new: Some(pod) });
                self.own_change(&mut state, &uid, event);
            }
            None => {
                let arrival = state.tick();
                let waiting = Waiting { pod, arrival, rejected: 0, errors: 0, place: Place::Gated("") };
                state.pods.insert(uid.clone(), waiting);
                self.make_ready(&mut state, &uid);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Takes in a new state of a pod that is being bound: what it is tried with if it can't be.
    pub fn refresh(&self, pod: &Arc<PodInfo>) {
        if let Some(waiting) = self.state.lock().pods.get_mut(&pod.uid) {
            waiting.pod = pod.clone();
        }
    }

    /// What changed about a pod may make it schedulable.
    fn own_change(&self, state: &mut State, uid: &str, event: ClusterEvent) {
        let Some(waiting) = state.pods.get(uid) else { return };
        match &waiting.place {
            Place::Active(_) => state.note(event),
            Place::Gated(_) | Place::Ready(_) => self.make_ready(state, uid),
            Place::Backoff { .. } => {}
            Place::Unschedulable { plugins, since, .. } => {
                if plugins.iter().any(|plugin| self.judge.helps(plugin, &waiting.pod, &event)) {
                    let rested = *since + self.backoff(waiting.failures());
                    self.back_off(state, uid, rested, true);
                }
            }
        }
    }

    /// Forgets a pod: it has a node, or is gone.
    pub fn remove(&self, uid: &str) {
        let mut state = self.state.lock();
        state.leave(uid);
        state.pods.remove(uid);
    }

    /// The pods that wait.
    pub fn pods(&self) -> Vec<Arc<PodInfo>> {
        self.state.lock().pods.values().map(|waiting| waiting.pod.clone()).collect()
    }

    /// The next pod to try; it must be given back by [`Queue::failed`], [`Queue::retry`] or [`Queue::remove`].
    pub async fn next(&self) -> Arc<PodInfo> {
        loop {
            let changed = self.changed.notified();
            let wait = match self.pop() {
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

    /// A pod to try, or when the next timer ends.
    pub fn pop(&self) -> Result<Arc<PodInfo>, Option<Instant>> {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        while let Some(Reverse((at, timer, uid))) = state.timers.peek().cloned() {
            let current = state.pods.get(&uid).is_some_and(|waiting| match &waiting.place {
                Place::Backoff { timer: mine, .. } | Place::Unschedulable { timer: mine, .. } => *mine == timer,
                _ => false,
            });
            if current && at > now {
                break;
            }
            state.timers.pop();
            if current {
                self.make_ready(&mut state, &uid);
            }
        }
        loop {
            let uid = match state.ready.first() {
                Some((_, _, uid)) => uid.clone(),
                None => match state.resting.first().cloned() {
                    Some((_, _, uid)) => {
                        self.make_ready(&mut state, &uid);
                        continue;
                    }
                    None => return Err(state.timers.peek().map(|Reverse((at, ..))| *at)),
                },
            };
            state.leave(&uid);
            let began = state.tick();
            state.active.insert(began);
            let waiting = state.pods.get_mut(&uid).expect("ready pods are known");
            waiting.place = Place::Active(began);
            return Ok(waiting.pod.clone());
        }
    }

    /// No node was found; `plugins` say which events may help. Those that came during the attempt count.
    pub fn failed(&self, uid: &str, plugins: Vec<&'static str>) {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        let Some(waiting) = state.pods.get(uid) else { return };
        let Place::Active(began) = waiting.place else { return };
        let helped = |event: &ClusterEvent| match event {
            ClusterEvent::Own(change) if change.new.as_ref().is_none_or(|new| new.uid != uid) => false,
            event => plugins.iter().any(|plugin| self.judge.helps(plugin, &waiting.pod, event)),
        };
        let meanwhile = state.events.iter().filter(|(at, _)| *at > began).any(|(_, event)| helped(event));
        state.leave(uid);
        let arrival = state.tick();
        let Some(waiting) = state.pods.get_mut(uid) else { return };
        waiting.arrival = arrival;
        waiting.count(plugins.is_empty());
        let rested = now + self.backoff(waiting.failures());
        if meanwhile || plugins.is_empty() {
            self.back_off(&mut state, uid, rested, meanwhile);
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
        let Some(waiting) = state.pods.get_mut(uid) else { return };
        waiting.count(true);
        let rested = self.env.monotonic() + self.backoff(waiting.failures());
        self.back_off(&mut state, uid, rested, false);
        drop(state);
        self.changed.notify_one();
    }

    /// The attempt will end well: what happens from now on doesn't concern it.
    pub fn settled(&self, uid: &str) {
        let mut state = self.state.lock();
        if let Some(Place::Active(began)) = state.pods.get(uid).map(|waiting| &waiting.place) {
            let began = *began;
            state.end_attempt(began);
        }
    }

    /// Tries the pod soon, whatever it waits for.
    pub fn activate(&self, uid: &str) {
        let mut state = self.state.lock();
        if state.pods.get(uid).is_some_and(|waiting| !matches!(waiting.place, Place::Active(_))) {
            self.make_ready(&mut state, uid);
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Something happened: pods that one of the plugins that rejected them calls it helpful for are tried again.
    pub fn wake(&self, event: &ClusterEvent) {
        let now = self.env.monotonic();
        let mut state = self.state.lock();
        if !state.active.is_empty() {
            state.note(event.clone());
        }
        let mut woken = Vec::new();
        for (uid, waiting) in state.parked.iter().filter_map(|uid| state.pods.get_key_value(uid)) {
            match &waiting.place {
                Place::Unschedulable { plugins, since, .. }
                    if plugins.iter().any(|plugin| self.judge.helps(plugin, &waiting.pod, event)) =>
                {
                    woken.push((waiting.arrival, uid.clone(), *since + self.backoff(waiting.failures())));
                }
                Place::Gated(plugin) if self.judge.helps(plugin, &waiting.pod, event) => {
                    woken.push((waiting.arrival, uid.clone(), now));
                }
                _ => {}
            }
        }
        woken.sort_unstable();
        for (_, uid, rested) in woken {
            if rested <= now {
                self.make_ready(&mut state, &uid);
            } else {
                self.back_off(&mut state, &uid, rested, true);
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    fn make_ready(&self, state: &mut State, uid: &str) {
        state.leave(uid);
        let Some(waiting) = state.pods.get(uid) else { return };
        let place = match self.judge.gate(&waiting.pod) {
            Some(plugin) => Place::Gated(plugin),
            None => Place::Ready((Reverse(self.judge.rank(&waiting.pod)), waiting.arrival, uid.to_owned())),
        };
        state.put(uid, place);
    }

    fn back_off(&self, state: &mut State, uid: &str, until: Instant, early: bool) {
        state.leave(uid);
        let gate = state.pods.get(uid).and_then(|waiting| self.judge.gate(&waiting.pod));
        if let Some(plugin) = gate {
            return state.put(uid, Place::Gated(plugin));
        }
        let timer = state.timer(uid, until);
        state.put(uid, Place::Backoff { timer, until, early });
    }

    fn backoff(&self, failures: u32) -> Duration {
        self.first_backoff.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(self.max_backoff)
    }
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Keeps an event for the attempts under way.
    fn note(&mut self, event: ClusterEvent) {
        let at = self.tick();
        self.events.push_back((at, event));
    }

    fn end_attempt(&mut self, began: u64) {
        self.active.remove(&began);
        let oldest = self.active.first().copied().unwrap_or(u64::MAX);
        while self.events.front().is_some_and(|(at, _)| *at < oldest) {
            self.events.pop_front();
        }
    }

    fn put(&mut self, uid: &str, place: Place) {
        let Some(waiting) = self.pods.get_mut(uid) else { return };
        match &place {
            Place::Ready(turn) => drop(self.ready.insert(turn.clone())),
            Place::Backoff { timer, until, early: true } => {
                self.resting.insert((*until, *timer, uid.to_owned()));
            }
            Place::Gated(_) | Place::Unschedulable { .. } => drop(self.parked.insert(uid.to_owned())),
            Place::Backoff { .. } | Place::Active(_) => {}
        }
        waiting.place = place;
    }

    /// Takes the pod out of where it is.
    fn leave(&mut self, uid: &str) {
        match self.pods.get(uid).map(|waiting| &waiting.place) {
            Some(Place::Ready(turn)) => drop(self.ready.remove(turn)),
            Some(Place::Backoff { timer, until, early: true }) => {
                self.resting.remove(&(*until, *timer, uid.to_owned()));
            }
            Some(Place::Active(began)) => {
                let began = *began;
                self.end_attempt(began);
            }
            Some(Place::Gated(_) | Place::Unschedulable { .. }) => drop(self.parked.remove(uid)),
            Some(Place::Backoff { .. }) | None => {}
        }
    }

    fn timer(&mut self, uid: &str, at: Instant) -> u64 {
        let timer = self.tick();
        self.timers.push(Reverse((at, timer, uid.to_owned())));
        timer
    }
}

#[cfg(test)]
mod tests;
