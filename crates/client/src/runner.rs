//! The controller runner: from informer events to keys to `reconcile`, with queue, back-off, supervision and hold-back.
//!
//! **Hold-back.** The runner records what a reconcile wrote through its context's client, and hands the same key out again only
//! when the controller's informers have seen these writes. So a reconcile may trust its informers about its own past, and no
//! controller keeps expectations of its own.

mod writes;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use env::Env;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::tasks::TaskGuard;
use crate::{Client, Event, Informer, Subscription, Workqueue};

pub(crate) use writes::WriteLog;

/// What went wrong in a reconcile; it is logged and the key comes again after a growing pause.
pub type ReconcileError = Box<dyn std::error::Error + Send + Sync>;

/// A control loop: brings what one key stands for nearer to what it should be.
pub trait Controller: Send + Sync + 'static {
    /// Upstream's name of the controller, such as `deployment-controller`.
    fn name(&self) -> &'static str;

    /// What to look at, and which keys a change concerns. Called once for each run.
    fn watches(&self) -> Vec<Watch>;

    /// How many keys are worked on at a time.
    fn workers(&self) -> usize {
        5
    }

    /// Work on one key; the same key never twice at a time. May be dropped at any await.
    fn reconcile(
        &self,
        ctx: &ReconcileContext,
        key: &ObjectKey,
    ) -> impl Future<Output = Result<Requeue, ReconcileError>> + Send;

    /// Gets the queue before the first event, for controllers that add keys on other grounds than watches.
    fn started(&self, _queue: &Workqueue<ObjectKey>) {}
}

/// When a key comes again without an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    No,
    After(Duration),
}

/// What a reconcile works with.
pub struct ReconcileContext {
    client: Client,
}

impl ReconcileContext {
    /// The client whose writes the runner waits for.
    pub fn client(&self) -> &Client {
        &self.client
    }

    pub fn env(&self) -> &Env {
        self.client.env()
    }
}

/// One informer of a controller and the keys that its events concern.
pub struct Watch {
    informer: Informer,
    keys: Keys,
}

type Keys = Box<dyn Fn(&Event) -> Vec<ObjectKey> + Send + Sync>;

impl Watch {
    /// `keys` names what to reconcile after an event.
    pub fn new(informer: Informer, keys: impl Fn(&Event) -> Vec<ObjectKey> + Send + Sync + 'static) -> Watch {
        Watch { informer, keys: Box::new(keys) }
    }

    /// Each object is a key.
    pub fn objects(informer: Informer) -> Watch {
        Watch::new(informer, |event| vec![event.object().key().clone()])
    }

    /// The key is the object's controller if that is of `kind` in `group`, before and after the change.
    pub fn owned_by(informer: Informer, group: &'static str, kind: &'static str) -> Watch {
        Watch::new(informer, move |event| {
            let states = [Some(event.object()), event.old()];
            let mut keys: Vec<_> = states.into_iter().flatten().filter_map(|o| owner_key(o, group, kind)).collect();
            keys.dedup();
            keys
        })
    }

    /// Nothing to reconcile: the informer is only read, and waited for after writes.
    pub fn only(informer: Informer) -> Watch {
        Watch::new(informer, |_| Vec::new())
    }
}

/// The key of the object's controller if that is of this kind.
pub fn owner_key(object: &Object, group: &str, kind: &str) -> Option<ObjectKey> {
    let owner = object.controller().filter(|owner| {
        let owner_group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        owner.kind == kind && owner_group == group
    })?;
    Some(ObjectKey::new(object.namespace(), &*owner.name))
}

/// Runs `controller` until dropped.
pub async fn run(client: Client, controller: Arc<impl Controller>) {
    let queue = Workqueue::new(client.env().clone());
    controller.started(&queue);
    let watches = controller.watches();
    let informers = watches.iter().map(|watch| watch.informer.clone()).collect();
    let (name, workers) = (controller.name(), controller.workers().max(1));
    work(Worker { client, name, controller, queue, informers }, watches, workers).await;
}

/// Fills the queue from `watches`, and has as many workers as `count` empty it.
async fn work(worker: Worker, watches: Vec<Watch>, count: usize) {
    let _subscriptions: Vec<Subscription> = watches.into_iter().map(|watch| subscribe(watch, &worker.queue)).collect();
    for informer in worker.informers.iter() {
        informer.synced().await;
    }
    tracing::debug!(controller = worker.name, "controller runs");
    let spawn = |_| TaskGuard::new(worker.client.env().spawn(worker.clone().run()));
    let mut workers: Vec<TaskGuard> = (0..count).map(spawn).collect();
    for worker in &mut workers {
        worker.ended().await;
    }
}

fn subscribe(watch: Watch, queue: &Workqueue<ObjectKey>) -> Subscription {
    let queue = queue.clone();
    let Watch { informer, keys } = watch;
    informer.on_event(move |event| keys(event).into_iter().for_each(|key| queue.add(key)))
}

/// The one part of a controller that its workers call, as an object: so the worker is not compiled anew for each of them.
trait Reconcile: Send + Sync {
    fn boxed<'a>(
        &'a self,
        ctx: &'a ReconcileContext,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Requeue, ReconcileError>>;
}

impl<C: Controller> Reconcile for C {
    fn boxed<'a>(
        &'a self,
        ctx: &'a ReconcileContext,
        key: &'a ObjectKey,
    ) -> BoxFuture<'a, Result<Requeue, ReconcileError>> {
        Box::pin(self.reconcile(ctx, key))
    }
}

#[derive(Clone)]
struct Worker {
    client: Client,
    name: &'static str,
    controller: Arc<dyn Reconcile>,
    queue: Workqueue<ObjectKey>,
    informers: Arc<[Informer]>,
}

impl Worker {
    async fn run(self) {
        let mut held = Held::default();
        loop {
            let key = self.queue.get().await;
            let log = Arc::new(WriteLog::default());
            let ctx = ReconcileContext { client: self.client.recording(log.clone()) };
            let began = self.client.env().monotonic();
            let result = AssertUnwindSafe(self.controller.boxed(&ctx, &key)).catch_unwind().await;
            let took = self.client.env().monotonic() - began;
            tracing::trace!(controller = self.name, %key, ?took, "reconciled");
            match result {
                Ok(Ok(requeue)) => {
                    self.queue.forget(&key);
                    if let Requeue::After(delay) = requeue {
                        self.queue.add_after(key.clone(), delay);
                    }
                }
                Ok(Err(error)) => {
                    let error = error.as_ref() as &dyn std::error::Error;
                    tracing::debug!(controller = self.name, %key, error, "reconcile failed");
                    self.queue.add_rate_limited(key.clone());
                }
                Err(_) => {
                    tracing::error!(controller = self.name, %key, "reconcile panicked");
                    self.queue.add_rate_limited(key.clone());
                }
            }
            if log.seen(&self.informers) {
                self.queue.done(&key);
            } else {
                held.hold(&self, key, log);
            }
        }
    }
}

/// Keys whose writes the informers have not seen yet.
#[derive(Default)]
struct Held(Vec<TaskGuard>);

impl Held {
    fn hold(&mut self, worker: &Worker, key: ObjectKey, log: Arc<WriteLog>) {
        self.0.retain(|guard| !guard.is_finished());
        let (client, queue, informers) = (worker.client.clone(), worker.queue.clone(), worker.informers.clone());
        let name = worker.name;
        self.0.push(TaskGuard::new(worker.client.env().spawn(async move {
            if client.env().timeout(HOLD_LIMIT, log.wait(&informers)).await.is_none() {
                tracing::warn!(controller = name, %key, "informers did not see a write in time");
            }
            queue.done(&key);
        })));
    }
}

/// After this, a reconcile that sees too little is better than none.
const HOLD_LIMIT: Duration = Duration::from_secs(300);
