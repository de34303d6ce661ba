//! What attempts have written beside the next ones: a few requests at a time, those about one pod in order.

use std::collections::HashSet;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use apimachinery::Value;
use client::TaskGuard;
use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::Shared;
use crate::cycle::{Chosen, bind, fail};
use crate::framework::{Preemption, Profile};
use crate::pod::PodInfo;

/// So many requests are under way at once. More would only wait in the server, with the memory of a task each.
const LANES: usize = 32;

/// Something to write about one pod.
pub(crate) enum Letter {
    Bind(Arc<Profile>, Chosen),
    /// Why the pod has no node, as a patch of its status. Not written if the pod is about to be bound.
    Tell(Value),
    /// Other pods go for it.
    Preempt(Preemption),
}

type Addressed = (Arc<PodInfo>, Letter);

/// Where letters are left. Those of one pod take one lane.
pub(crate) struct Outbox {
    lanes: Vec<mpsc::UnboundedSender<Addressed>>,
    binding: Mutex<Binding>,
    idle: watch::Sender<bool>,
}

#[derive(Default)]
struct Binding {
    uids: HashSet<String>,
    /// How many of them wait for nothing but their request.
    urgent: usize,
}

/// The other ends of the lanes.
pub(crate) struct Lanes(Vec<mpsc::UnboundedReceiver<Addressed>>);

impl Outbox {
    pub fn new() -> (Outbox, Lanes) {
        let (lanes, ends) = (0..LANES).map(|_| mpsc::unbounded_channel()).unzip();
        (Outbox { lanes, binding: Mutex::default(), idle: watch::Sender::new(true) }, Lanes(ends))
    }

    /// True while no binding waits for its request only: when less important writes don't get in the way.
    pub fn idle(&self) -> watch::Receiver<bool> {
        self.idle.subscribe()
    }

    pub fn post(&self, pod: Arc<PodInfo>, letter: Letter) {
        if matches!(letter, Letter::Bind(..)) {
            self.begin(&pod.uid);
        }
        let mut hash = DefaultHasher::new();
        pod.uid.hash(&mut hash);
        let lane = hash.finish() as usize % self.lanes.len();
        // Whoever takes them has ended with the scheduler.
        let _ = self.lanes[lane].send((pod, letter));
    }

    fn begin(&self, uid: &str) {
        let mut binding = self.binding.lock();
        binding.uids.insert(uid.to_owned());
        binding.urgent += 1;
        self.idle.send_if_modified(|idle| std::mem::replace(idle, false));
    }

    /// One binding fewer is urgent: it ended, or takes its time.
    fn relax(&self) {
        let mut binding = self.binding.lock();
        binding.urgent -= 1;
        if binding.urgent == 0 {
            self.idle.send_if_modified(|idle| !std::mem::replace(idle, true));
        }
    }

    fn end(&self, uid: &str) {
        self.binding.lock().uids.remove(uid);
    }

    fn is_binding(&self, uid: &str) -> bool {
        self.binding.lock().uids.contains(uid)
    }
}

impl Lanes {
    /// Writes, until the guards are dropped.
    pub fn open(self, shared: &Arc<Shared>) -> Vec<TaskGuard> {
        let open = |lane| TaskGuard::new(shared.env.spawn(write(shared.clone(), lane)));
        self.0.into_iter().map(open).collect()
    }
}

async fn write(shared: Arc<Shared>, mut lane: mpsc::UnboundedReceiver<Addressed>) {
    while let Some((pod, letter)) = lane.recv().await {
        match letter {
            Letter::Bind(profile, chosen) if bind::takes_its_time(&shared, &profile, &pod, &chosen) => {
                shared.outbox.relax();
                let shared = shared.clone();
                shared.env.clone().spawn(async move {
                    guarded(bind::bind(&shared, &profile, &pod, chosen)).await;
                    shared.outbox.end(&pod.uid);
                });
            }
            Letter::Bind(profile, chosen) => {
                guarded(bind::bind(&shared, &profile, &pod, chosen)).await;
                shared.outbox.end(&pod.uid);
                shared.outbox.relax();
            }
            Letter::Tell(_) if shared.outbox.is_binding(&pod.uid) => {}
            Letter::Tell(patch) => guarded(fail::write(&shared, &pod, &patch)).await,
            Letter::Preempt(work) => guarded(fail::make_room(&shared, &pod, work)).await,
        }
    }
}

/// A panic concerns one pod, not those behind it.
async fn guarded(work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        tracing::error!("writing about a pod panicked");
    }
}
