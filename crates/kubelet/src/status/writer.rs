//! Tells the API server a pod's status: only changes, in order, at once.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{Backoff, Client, PatchKind, TaskGuard, resources};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::patch::patch;

/// Writes the status of one pod. The task ends with it.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    _task: TaskGuard,
}

struct Shared {
    client: Client,
    key: ObjectKey,
    uid: String,
    /// What the API server holds, as far as is known.
    known: Mutex<Known>,
    wanted: watch::Sender<Option<PodStatus>>,
    /// Counts statuses that are told, or will never be.
    settled: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    revision: u64,
    status: PodStatus,
    gone: bool,
    /// A patch that the server called invalid, or took without keeping all of it; sent again it would be the same.
    refused: Option<serde_json::Value>,
}

impl Writer {
    /// A writer for the pod as the API server holds it.
    pub(crate) fn start(client: Client, object: &Object, pod: &Pod) -> Writer {
        let known =
            Known { revision: object.revision(), status: pod.status.clone().unwrap_or_default(), ..Known::default() };
        let shared = Arc::new(Shared {
            key: object.key().clone(),
            uid: object.uid().to_owned(),
            known: Mutex::new(known),
            wanted: watch::Sender::new(None),
            settled: watch::Sender::new(0),
            client,
        });
        let task = shared.client.env().spawn(shared.clone().run());
        Writer { shared, _task: TaskGuard::new(task) }
    }

    /// The API server's newest object was seen.
    pub(crate) fn seen(&self, object: &Object, pod: &Pod) {
        self.shared.take(object.revision(), pod.status.clone().unwrap_or_default());
    }

    /// Whether `revision` is of our own writing, or older.
    pub(crate) fn knows(&self, revision: u64) -> bool {
        self.shared.known.lock().revision >= revision
    }

    /// What was to be told last, or else what the API server holds.
    pub(crate) fn last(&self) -> PodStatus {
        let wanted = self.shared.wanted.borrow().clone();
        wanted.unwrap_or_else(|| self.shared.known.lock().status.clone())
    }

    /// Tells this status, unless a newer one overtakes it.
    pub(crate) fn tell(&self, status: PodStatus) {
        self.shared.wanted.send_replace(Some(status));
    }

    /// The pod is gone from the API server: nothing is told any more.
    pub(crate) fn gone(&self) {
        self.shared.known.lock().gone = true;
        self.shared.wanted.send_modify(|_| {});
    }

    /// Waits until what was to be told last is told, or never will be.
    pub(crate) async fn flush(&self) {
        let mut settled = self.shared.settled.subscribe();
        // The sender lives as long as `self`.
        let _ = settled.wait_for(|_| self.shared.pending().is_none()).await;
    }
}

impl Shared {
    fn take(&self, revision: u64, status: PodStatus) {
        let mut known = self.known.lock();
        if revision > known.revision {
            known.revision = revision;
            known.status = status;
        }
    }

    /// The patch that is still to be sent.
    fn pending(&self) -> Option<serde_json::Value> {
        let known = self.known.lock();
        let wanted = self.wanted.borrow();
        let patch = wanted.as_ref().filter(|_| !known.gone).and_then(|wanted| patch(&self.uid, &known.status, wanted));
        patch.filter(|patch| known.refused.as_ref() != Some(patch))
    }

    async fn run(self: Arc<Self>) {
        let mut wanted = self.wanted.subscribe();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            wanted.borrow_and_update();
            while let Some(patch) = self.pending() {
                let Ok(body) = Value::from_serialize(&patch) else { break };
                match self.client.patch_status(&resources::PODS, &self.key, PatchKind::Strategic, &body).await {
                    Ok(object) => {
                        backoff.reset();
                        self.answered(&object, patch);
                    }
                    Err(error) if error.is_not_found() || error.is_conflict() || is_of_another(&error) => {
                        self.known.lock().gone = true;
                    }
                    Err(error) if error.is_invalid() => {
                        tracing::warn!(pod = %self.key, error = &error as &dyn std::error::Error, "the API server refuses the status");
                        self.known.lock().refused = Some(patch);
                    }
                    Err(error) => {
                        tracing::debug!(pod = %self.key, error = &error as &dyn std::error::Error, "status not told yet");
                        self.client.env().sleep(backoff.next(self.client.env())).await;
                    }
                }
            }
            self.settled.send_modify(|count| *count += 1);
            if wanted.changed().await.is_err() {
                return;
            }
        }
    }

    fn answered(&self, object: &Object, sent: serde_json::Value) {
        let status = object.view::<Pod>().ok().and_then(|pod| pod.status).unwrap_or_default();
        self.take(object.revision(), status);
        if self.pending().as_ref() == Some(&sent) {
            tracing::debug!(pod = %self.key, "the API server keeps less of the status than it was told");
            self.known.lock().refused = Some(sent);
        }
    }
}

/// The pod was made again under its name: the patch names the one that is gone.
fn is_of_another(error: &client::Error) -> bool {
    let details = error.status().and_then(|status| status.details.as_ref());
    error.is_invalid()
        && details.is_some_and(|details| details.causes.iter().any(|cause| cause.field == "metadata.uid"))
}
