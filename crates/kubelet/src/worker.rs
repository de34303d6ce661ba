//! One pod's life on this node: it is synced while it shall run, then terminated, then cleaned up. Upstream: pod_workers.go.

pub(crate) mod actions;
pub(crate) mod backoff;
mod clean;
mod hooks;
mod kill;
pub(crate) mod restarts;
mod start;
mod sync;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{Backoff, EventType, ObjectReference};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::admission;
use crate::context::Context;
use crate::probe::Probes;
use crate::runtime::PodState;
use crate::spec;
use crate::status::{self, Facts, Messages, Waiting, Writer, is_final};

/// A pod as the API server tells it.
#[derive(Clone)]
pub(crate) struct Update {
    /// `None` for what an earlier kubelet left and the API server no longer knows.
    pub(crate) object: Option<Arc<Object>>,
    pub(crate) pod: Arc<Pod>,
    /// It is gone from the API server.
    pub(crate) removed: bool,
}

/// What all that happens to one pod shares.
pub(crate) struct Shared {
    pub(crate) ctx: Arc<Context>,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    /// Something may have changed: the runtime, a probe, a referred object.
    pub(crate) poke: Arc<Notify>,
    pub(crate) probes: Probes,
    writer: Option<Writer>,
    memory: Mutex<Memory>,
}

/// What is remembered between passes.
struct Memory {
    waiting: Waiting,
    restarts: backoff::Restarts,
    mounts: Backoff,
    messages: Messages,
    /// Containers whose `preStop` handler has been begun.
    hooks: BTreeSet<String>,
    /// Containers whose end has been announced.
    announced: BTreeSet<String>,
    prepared: bool,
    /// Whether it was decided that the pod may run here.
    admitted: bool,
    /// Why the pod was failed: reason and message.
    failure: Option<(&'static str, String)>,
}

/// Why a pod ends.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ending {
    /// It is deleted, or its object is gone.
    Deleted,
    /// Its containers have ended and none comes again, or it was failed.
    Finished,
}

impl Shared {
    pub(crate) fn new(ctx: Arc<Context>, update: &Update, poke: Arc<Notify>) -> Arc<Shared> {
        let pod = &update.pod;
        let writer = update.object.as_ref().map(|object| Writer::start(ctx.client.clone(), object, pod));
        let memory = Memory {
            waiting: Waiting::new(),
            restarts: backoff::Restarts::default(),
            mounts: Backoff::new(Duration::from_millis(500), Duration::from_secs(122)),
            messages: Messages::new(),
            hooks: BTreeSet::new(),
            announced: BTreeSet::new(),
            prepared: false,
            admitted: false,
            failure: None,
        };
        Arc::new(Shared {
            key: ObjectKey::new(spec::namespace(pod), spec::name(pod)),
            uid: spec::uid(pod).to_owned(),
            probes: Probes::new(ctx.clone(), poke.clone()),
            ctx,
            poke,
            writer,
            memory: Mutex::new(memory),
        })
    }

    /// Waits until what is known of the pod has been told.
    pub(crate) async fn reported(&self) {
        if let Some(writer) = &self.writer {
            writer.flush().await;
        }
    }

    /// Whether the pod was let in.
    pub(crate) fn is_admitted(&self) -> bool {
        let memory = self.memory.lock();
        memory.admitted && memory.failure.is_none()
    }

    fn about(&self, pod: &Pod, container: Option<&str>) -> ObjectReference {
        ObjectReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            resource_version: pod.metadata.resource_version.clone().unwrap_or_default(),
            field_path: container.map(|name| spec::field_path(pod, name)).unwrap_or_default(),
        }
    }

    fn event(
        &self,
        pod: &Pod,
        container: Option<&str>,
        kind: EventType,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        if self.writer.is_some() {
            self.ctx.recorder.event(self.about(pod, container), kind, reason, message);
        }
    }

    /// The pod's primary address.
    async fn address(&self, pod: &Pod) -> Option<IpAddr> {
        if spec::host_network(pod) {
            return self.ctx.config.node_ips.first().copied();
        }
        self.ctx.runtime.pod(&self.uid).await.ok()?.ips().first().copied()
    }

    /// Works out the status and tells it. Returns whether the pod has come to its end.
    async fn report(&self, pod: &Pod, state: &PodState, ended: bool) -> bool {
        let Some(writer) = &self.writer else { return false };
        let mut messages = std::mem::take(&mut self.memory.lock().messages);
        if state.containers.iter().any(|c| c.is_exited() && !messages.contains_key(c.id())) {
            let owned = state.clone();
            let read = tokio::task::spawn_blocking(move || {
                status::read_messages(&owned, &mut messages);
                messages
            });
            messages = read.await.unwrap_or_default();
        }
        let old = writer.last();
        self.probes.attend(pod, state, ended);
        let mut memory = self.memory.lock();
        memory.messages = messages;
        let failure = memory.failure.clone();
        let facts = Facts {
            pod,
            old: &old,
            state,
            messages: &memory.messages,
            waiting: &memory.waiting,
            readiness: &self.probes,
            host_ips: &self.ctx.config.node_ips,
            runtime_name: self.ctx.runtime_name(),
            now: self.ctx.env.now(),
            ended,
            failure: failure.as_ref().map(|(reason, message)| (*reason, message.as_str())),
        };
        let generated = status::generate(&facts);
        let ends = generated.ends;
        self.probes.tell(&generated.status);
        drop(memory);
        writer.tell(generated.status);
        ends
    }

    /// Fails a pod that has not been started, or ran for too long.
    fn fail(&self, pod: &Pod, reason: &'static str, message: String) {
        self.event(pod, None, EventType::Warning, reason, message.clone());
        self.memory.lock().failure = Some((reason, message));
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
        let ending = match status.phase.as_deref().filter(|phase| is_final(phase)) {
            Some(_) if !self.ends() => Some(Ending::Finished),
            Some(_) => Some(Ending::Deleted),
            None => None,
        };
        let was_final = ending.is_some();
        let ending = match ending {
            Some(ending) => ending,
            None => {
                self.admit(&pod, &status);
                self.live().await
            }
        };
        tracing::debug!(pod = %self.shared.key, ?ending, "pod ends");
        self.terminate(was_final).await;
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
        if status.start_time.is_some() || self.updates.borrow().object.is_none() {
            self.shared.memory.lock().admitted = true;
            return;
        }
        let node = self.shared.ctx.node.list("").into_iter().next().and_then(|node| node.view().ok());
        let refused = admission::refuse(pod, &(self.others)(), node.as_ref(), &self.shared.ctx.allocatable);
        self.shared.memory.lock().admitted = true;
        if let Some((reason, message)) = refused {
            self.shared.event(pod, None, EventType::Warning, reason, message.clone());
            self.shared.memory.lock().failure = Some((reason, format!("Pod was rejected: {message}")));
        }
    }

    /// Syncs the pod until it ends.
    async fn live(&mut self) -> Ending {
        let shared = self.shared.clone();
        loop {
            if self.ends() {
                return Ending::Deleted;
            }
            let pod = self.pod();
            self.updates.borrow_and_update();
            self.learn();
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
                return Ending::Finished;
            }
            let Some(outcome) = self.attend(&pod, Box::pin(shared.sync(&pod, state))).await else { continue };
            if let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await
                && shared.report(&pod, &state, false).await
            {
                return Ending::Finished;
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
                    if let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await {
                        shared.report(pod, &state, false).await;
                    }
                }
            }
        };
        if poked {
            // What came meanwhile may need another pass.
            shared.poke.notify_one();
        }
        result
    }

    /// Waits for a change, or for `next`.
    async fn wait(&mut self, next: Option<Instant>) {
        let shared = self.shared.clone();
        let due = async {
            match next {
                Some(at) => shared.ctx.env.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
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
            let pod = self.pod();
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
                            if let Ok(state) = shared.ctx.runtime.pod(&shared.uid).await {
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
                if !was_final {
                    shared.report(&self.pod(), &state, true).await;
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
