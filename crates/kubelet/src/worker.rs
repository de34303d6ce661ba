//! One pod's life on this node: it is synced while it shall run, then terminated, then cleaned up. Upstream: pod_workers.go.

pub(crate) mod actions;
pub(crate) mod backoff;
mod clean;
mod hooks;
mod kill;
mod place;
mod resize;
pub(crate) mod restarts;
mod shared;
mod start;
mod sync;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use client::{Backoff, EventType};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::admission;
use crate::spec;
use crate::status::is_final;

pub(crate) use shared::Shared;

/// A pod as the API server tells it.
#[derive(Clone)]
pub(crate) struct Update {
    /// `None` for what an earlier kubelet left and the API server no longer knows.
    pub(crate) object: Option<Arc<Object>>,
    pub(crate) pod: Arc<Pod>,
    /// It is gone from the API server.
    pub(crate) removed: bool,
}

/// How long it isn't told that a container ended which the pass ended to start another: upstream looks at the runtime once a
/// second, and sees the successor only, so a ready pod without a readiness probe stays ready.
const HELD: Duration = Duration::from_secs(1);

/// Waits until `at`, or for ever.
async fn due(shared: &Shared, at: Option<Instant>) {
    match at {
        Some(at) => shared.ctx.env.sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A pod's task.
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) updates: watch::Receiver<Update>,
    /// The other pods that have been let in, for admission.
    pub(crate) others: Box<dyn Fn() -> Vec<Arc<Pod>> + Send + Sync>,
}

impl Worker {
    /// Until the pod is gone from the API server and from this node.
    pub(crate) async fn run(&mut self) {
        let pod = self.pod();
        let status = pod.status.clone().unwrap_or_default();
        let was_final = status.phase.as_deref().is_some_and(is_final);
        if was_final || self.shared.writer.is_none() {
            self.shared.settle();
        } else {
            self.admit(&pod, &status);
        }
        if !was_final {
            self.live().await;
        }
        tracing::debug!(pod = %self.shared.key, "pod ends");
        self.terminate(was_final).await;
        // It holds nothing that another pod could have.
        self.shared.memory.lock().admitted = false;
        self.shared.ctx.freed.send_modify(|count| *count += 1);
        self.shared.settle();
        self.shared.clean(&self.pod()).await;
        self.finish().await;
    }

    fn pod(&self) -> Arc<Pod> {
        self.updates.borrow().pod.clone()
    }

    /// Whether the pod is deleted, or gone.
    fn ends(&self) -> bool {
        let update = self.updates.borrow();
        update.removed || update.pod.metadata.deletion_timestamp.is_some()
    }

    /// Lets a pod in that this node has not seen before, or fails it.
    fn admit(&self, pod: &Pod, status: &PodStatus) {
        self.shared.begin_allocation(pod);
        if status.start_time.is_some() {
            self.shared.memory.lock().admitted = true;
            return;
        }
        let node = self.shared.ctx.node.list("").into_iter().next().and_then(|node| node.view().ok());
        let refused = {
            let _turn = self.shared.ctx.admission.lock();
            let refused = admission::refuse(pod, &(self.others)(), node.as_ref(), &self.shared.ctx.allocatable);
            self.shared.memory.lock().admitted = true;
            refused
        };
        if let Some((reason, message)) = refused {
            self.shared.event(pod, None, EventType::Warning, reason, message.clone());
            self.shared.memory.lock().failure = Some((reason, format!("Pod was rejected: {message}")));
        }
    }

    /// Syncs the pod until it ends.
    async fn live(&mut self) {
        let shared = self.shared.clone();
        loop {
            if self.ends() {
                return;
            }
            let pod = self.pod();
            self.updates.borrow_and_update();
            self.learn();
            let pod = shared.allocate(pod, &*self.others).await;
            let state = match shared.ctx.runtime.pod(&shared.uid).await {
                Ok(state) => state,
                Err(status) => {
                    tracing::debug!(pod = %shared.key, %status, "the runtime can't be asked");
                    shared.ctx.env.sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let deadline = self.deadline(&pod);
            if deadline.is_some_and(|at| at <= shared.ctx.env.monotonic()) {
                let message = "Pod was active on the node longer than the specified deadline";
                shared.fail(&pod, "DeadlineExceeded", message.to_owned());
            }
            if shared.report(&pod, &state, false).await || shared.memory.lock().failure.is_some() {
                return;
            }
            let Some(outcome) = self.attend(&pod, Box::pin(shared.sync(&pod, state))).await else { continue };
            if let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await
                && shared.report(&pod, &state, false).await
            {
                return;
            }
            let next = [outcome.next, deadline].into_iter().flatten().min();
            self.wait(next).await;
        }
    }

    /// Runs a pass, telling the status meanwhile; gives it up when the pod is to end.
    async fn attend<T>(&mut self, pod: &Pod, pass: impl Future<Output = T> + Unpin) -> Option<T> {
        let shared = self.shared.clone();
        let mut pass = pass;
        let mut poked = false;
        // When an end that this pass brought about itself is told even if nothing has followed it yet.
        let mut held: Option<Instant> = None;
        let result = loop {
            tokio::select! {
                result = &mut pass => break Some(result),
                changed = self.updates.changed() => {
                    let news = self.learn();
                    if changed.is_err() || self.ends() {
                        break None;
                    }
                    poked |= news;
                }
                () = shared.poke.notified() => {
                    poked = true;
                    if shared.replaces() {
                        held.get_or_insert_with(|| shared.ctx.env.monotonic() + HELD);
                    } else {
                        shared.report_now(pod).await;
                    }
                }
                () = due(&shared, held) => {
                    held = None;
                    shared.replaced();
                    shared.report_now(pod).await;
                }
            }
        };
        shared.replaced();
        if poked {
            // What came meanwhile may need another pass.
            shared.poke.notify_one();
        }
        result
    }

    /// Waits for a change, or for `next`.
    async fn wait(&mut self, next: Option<Instant>) {
        let shared = self.shared.clone();
        let due = due(&shared, next);
        tokio::pin!(due);
        loop {
            tokio::select! {
                () = &mut due => return,
                () = shared.poke.notified() => return,
                changed = self.updates.changed() => {
                    if changed.is_err() || self.learn() {
                        return;
                    }
                }
            }
        }
    }

    /// Takes notice of the newest object; whether it says anything that this kubelet has not said itself.
    fn learn(&self) -> bool {
        let update = self.updates.borrow();
        let (Some(writer), Some(object)) = (&self.shared.writer, &update.object) else { return true };
        let own = writer.knows(object.revision());
        writer.seen(object, &update.pod);
        !own || update.removed || object.is_deleting()
    }

    /// When the pod has run for as long as it may.
    fn deadline(&self, pod: &Pod) -> Option<Instant> {
        let limit = Duration::from_secs(u64::try_from(spec::spec(pod).active_deadline_seconds?).ok()?);
        let started = self.shared.writer.as_ref()?.last().start_time?.0;
        let now = self.shared.ctx.env.now();
        let run = Duration::try_from(now.duration_since(started)).unwrap_or_default();
        Some(self.shared.ctx.env.monotonic() + limit.saturating_sub(run))
    }

    /// Ends all containers; again with less patience when the grace period is shortened.
    async fn terminate(&mut self, was_final: bool) {
        let shared = self.shared.clone();
        let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            let pod = shared.allocated(&self.pod());
            let grace = self.grace();
            self.updates.borrow_and_update();
            let state = match shared.ctx.runtime.pod(&shared.uid).await {
                Ok(state) => state,
                Err(status) => {
                    tracing::debug!(pod = %shared.key, %status, "the runtime can't be asked");
                    shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
                    continue;
                }
            };
            let kill = Box::pin(shared.kill_pod(&pod, &state, grace));
            let killed = {
                let mut kill = kill;
                loop {
                    tokio::select! {
                        killed = &mut kill => break Some(killed),
                        changed = self.updates.changed() => {
                            self.learn();
                            if changed.is_err() || self.grace() < grace {
                                break None;
                            }
                        }
                        () = shared.poke.notified() => {
                            // A final status stays; what remains of the containers says less than it.
                            if !was_final && let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await {
                                shared.report(&pod, &state, false).await;
                            }
                        }
                    }
                }
            };
            match killed {
                None => continue,
                Some(Ok(())) => {}
                Some(Err(status)) => {
                    tracing::debug!(pod = %shared.key, %status, "the pod can't be ended yet");
                    let message = format!("error killing pod: {}", crate::error::rpc_text(&status));
                    shared.event(&pod, None, EventType::Warning, "FailedKillPod", message);
                    shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
                    continue;
                }
            }
            if let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await
                && state.running().next().is_none()
            {
                // Before it is told that the pod has ended: others may get the devices then.
                if let Err(why) = Box::pin(shared.ctx.devices.unprepare(&shared.uid)).await {
                    tracing::debug!(pod = %shared.key, why, "the pod's devices can't be given back yet");
                    shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
                    continue;
                }
                if !was_final {
                    shared.report(&shared.allocated(&self.pod()), &state, true).await;
                }
                shared.probes.end();
                return;
            }
            shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
        }
    }

    /// Seconds that the containers may take to end.
    fn grace(&self) -> i64 {
        let pod = self.pod();
        let own = spec::spec(&pod).termination_grace_period_seconds.unwrap_or(30);
        pod.metadata.deletion_grace_period_seconds.unwrap_or(own).max(1)
    }

    /// Waits until the pod is to go, deletes its object for good, and removes what was kept for its sake.
    async fn finish(&mut self) {
        let shared = self.shared.clone();
        let mut pause = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let update = self.updates.borrow_and_update().clone();
            if update.removed || update.object.is_none() {
                break;
            }
            if update.pod.metadata.deletion_timestamp.is_some() {
                shared.reported().await;
                if !shared.delete_object().await {
                    shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
                    continue;
                }
            }
            if self.updates.changed().await.is_err() {
                return;
            }
            self.learn();
        }
        if let Some(writer) = &shared.writer {
            writer.gone();
        }
        while let Err(error) = shared.remove_remains(&self.pod()).await {
            tracing::debug!(pod = %shared.key, error, "what is left of a pod can't be removed yet");
            shared.ctx.env.sleep(pause.next(&shared.ctx.env)).await;
        }
    }
}
