//! The pods of this node, each with its worker.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};
use std::time::Duration;

use client::{Event, Subscription, TaskGuard};
use futures_util::FutureExt;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::context::Context;
use crate::runtime::labels;
use crate::volumes;
use crate::worker::{Shared, Update, Worker};

/// After a panic a worker begins again.
const AFTER_PANIC: Duration = Duration::from_secs(10);

/// Every worker, by its pod's uid.
pub(crate) struct Pods {
    ctx: Arc<Context>,
    workers: Mutex<Workers>,
}

#[derive(Default)]
struct Workers {
    all: BTreeMap<String, Entry>,
    /// The kubelet ends: nothing is begun any more.
    stopped: bool,
}

struct Entry {
    updates: watch::Sender<Update>,
    shared: Arc<Shared>,
    _task: TaskGuard,
}

impl Pods {
    pub(crate) fn new(ctx: Arc<Context>) -> Arc<Pods> {
        Arc::new(Pods { ctx, workers: Mutex::default() })
    }

    /// Follows the pods that the API server binds to this node.
    pub(crate) fn follow(self: &Arc<Self>) -> Subscription {
        let pods = Arc::downgrade(self);
        self.ctx.pods.on_event(move |event| {
            if let Some(pods) = pods.upgrade() {
                pods.take(event);
            }
        })
    }

    fn take(self: &Arc<Self>, event: &Event) {
        let object = event.object();
        let removed = matches!(event, Event::Deleted(_));
        let pod: Pod = match object.view() {
            Ok(pod) => pod,
            Err(error) => return tracing::error!(pod = %object.key(), %error, "a pod can't be read"),
        };
        let update = Update { object: Some(object.clone()), pod: Arc::new(pod), removed };
        self.update(object.uid(), update);
    }

    fn update(self: &Arc<Self>, uid: &str, update: Update) {
        let mut workers = self.workers.lock();
        if workers.stopped {
            return;
        }
        if let Some(entry) = workers.all.get(uid) {
            entry.updates.send_replace(update);
        } else if !update.removed || update.object.is_none() {
            let entry = self.start(uid, update);
            workers.all.insert(uid.to_owned(), entry);
        }
    }

    fn start(self: &Arc<Self>, uid: &str, update: Update) -> Entry {
        let shared = Shared::new(self.ctx.clone(), &update, Arc::new(Notify::new()));
        let (updates, receiver) = watch::channel(update);
        let (pods, own): (Weak<Pods>, _) = (Arc::downgrade(self), uid.to_owned());
        let others = {
            let (pods, own) = (pods.clone(), own.clone());
            move || pods.upgrade().map(|pods| pods.admitted_before(&own)).unwrap_or_default()
        };
        let mut worker = Worker { shared: shared.clone(), updates: receiver, others: Box::new(others) };
        let env = self.ctx.env.clone();
        let task = async move {
            while AssertUnwindSafe(worker.run()).catch_unwind().await.is_err() {
                tracing::error!(pod = %worker.shared.key, "a pod's worker panicked");
                env.sleep(AFTER_PANIC).await;
            }
            if let Some(pods) = pods.upgrade() {
                let entry = pods.workers.lock().all.remove(&own);
                // This very task is in it: it ends by itself.
                drop(entry);
            }
        };
        Entry { updates, shared, _task: TaskGuard::new(self.ctx.env.spawn(task)) }
    }

    /// The pods that hold something of the node before the one with this uid.
    fn admitted_before(&self, uid: &str) -> Vec<Arc<Pod>> {
        let workers = self.workers.lock();
        let others = workers.all.iter().filter(|(other, _)| *other != uid);
        let admitted = others.filter(|(_, entry)| entry.shared.is_admitted());
        let pods = admitted.map(|(_, entry)| entry.shared.allocated(&entry.updates.borrow().pod));
        pods.filter(|pod| !rules::is_terminal(pod)).collect()
    }

    /// Something of this pod may have changed; `None` of any.
    pub(crate) fn poke(&self, uid: Option<&str>) {
        let workers = self.workers.lock();
        match uid {
            Some(uid) => workers.all.get(uid).into_iter().for_each(|entry| entry.shared.poke.notify_one()),
            None => workers.all.values().for_each(|entry| entry.shared.poke.notify_one()),
        }
    }

    /// Something of the node was given back: pods that wait to grow try again.
    pub(crate) fn poke_waiting(&self) {
        let workers = self.workers.lock();
        let waiting = workers.all.values().filter(|entry| entry.shared.waits_for_room());
        waiting.for_each(|entry| entry.shared.poke.notify_one());
    }

    /// Gives what an earlier kubelet left of pods that are gone to workers that end it. The informer must be synced.
    pub(crate) async fn adopt_orphans(self: &Arc<Self>) {
        let sandboxes = loop {
            match self.ctx.runtime.sandboxes().await {
                Ok(sandboxes) => break sandboxes,
                Err(status) => {
                    tracing::debug!(%status, "the runtime's sandboxes can't be listed yet");
                    self.ctx.env.sleep(Duration::from_millis(500)).await;
                }
            }
        };
        let mut orphans: BTreeMap<String, (String, String)> = BTreeMap::new();
        for uid in self.ctx.devices.pods() {
            orphans.insert(uid, Default::default());
        }
        for uid in volumes::pods_with_folders(&self.ctx.config.root).unwrap_or_default() {
            orphans.insert(uid, Default::default());
        }
        for sandbox in sandboxes {
            let label = |name: &str| sandbox.labels.get(name).cloned().unwrap_or_default();
            orphans.insert(label(labels::POD_UID), (label(labels::POD_NAMESPACE), label(labels::POD_NAME)));
        }
        for (uid, (namespace, name)) in orphans {
            let known = self.workers.lock().all.contains_key(&uid);
            if known || uid.is_empty() {
                continue;
            }
            tracing::info!(namespace, name, uid, "a pod that is gone is ended");
            let mut pod = Pod::default();
            pod.metadata.uid = Some(uid.clone());
            pod.metadata.name = Some(name);
            pod.metadata.namespace = Some(namespace);
            self.update(&uid, Update { object: None, pod: Arc::new(pod), removed: true });
        }
    }

    /// Waits until each pod's state, as it is now, has been told.
    pub(crate) async fn reported(&self) {
        let all: Vec<_> = self.workers.lock().all.values().map(|entry| entry.shared.clone()).collect();
        for shared in all {
            shared.reported().await;
        }
    }

    /// Ends every worker where it is: from now on nothing is started, stopped or told.
    pub(crate) fn stop(&self) {
        let mut workers = self.workers.lock();
        workers.stopped = true;
        let all = std::mem::take(&mut workers.all);
        drop(workers);
        drop(all);
    }
}
