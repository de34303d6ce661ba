//! What all that happens to one pod shares, and what is remembered of it between passes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::ObjectKey;
use client::{Backoff, EventType, ObjectReference};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::place::Place;
use super::{Update, backoff};
use crate::allocation::{Allocation, Resize};
use crate::context::Context;
use crate::fields::Situation;
use crate::probe::Probes;
use crate::runtime::PodState;
use crate::spec;
use crate::status::{self, Facts, Messages, Waiting, Writer};
use crate::volumes::{Claimed, Contents, Mounted};

/// What all that happens to one pod shares.
pub(crate) struct Shared {
    pub(crate) ctx: Arc<Context>,
    pub(crate) key: ObjectKey,
    pub(crate) uid: String,
    /// Something may have changed: the runtime, a probe, a referred object.
    pub(crate) poke: Arc<Notify>,
    pub(crate) probes: Probes,
    pub(super) writer: Option<Writer>,
    /// Whether what this kubelet knows of the pod was handed to the writer.
    told: watch::Sender<bool>,
    pub(super) memory: Mutex<Memory>,
    pub(super) place: Place,
}

/// What is remembered between passes.
pub(super) struct Memory {
    pub(super) waiting: Waiting,
    pub(super) restarts: backoff::Restarts,
    pub(super) mounts: Backoff,
    pub(super) claims: Backoff,
    pub(super) messages: Messages,
    /// Containers whose `preStop` handler has been begun.
    pub(super) hooks: BTreeSet<String>,
    /// Containers whose end has been announced.
    pub(super) announced: BTreeSet<String>,
    pub(super) prepared: bool,
    pub(super) allocation: Allocation,
    pub(super) resize: Resize,
    /// The ids of images that are volumes, by sandbox and volume: all containers of a sandbox see the same.
    pub(super) image_volumes: BTreeMap<(String, String), String>,
    /// What the pod's claims are bound to, once they are all bound.
    pub(super) claimed: Option<BTreeMap<String, Claimed>>,
    /// The volumes as they were made last.
    pub(super) volumes: Option<MadeVolumes>,
    /// Whether it was decided that the pod may run here.
    pub(super) admitted: bool,
    /// Whether the pass ends containers to start others in their places.
    pub(super) replaces: bool,
    /// Why the pod was failed: reason and message.
    pub(super) failure: Option<(&'static str, String)>,
}

/// Volumes, and all that they were made from.
pub(super) struct MadeVolumes {
    pub(super) contents: Contents,
    pub(super) situation: Situation,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) annotations: Option<BTreeMap<String, String>>,
    pub(super) mounted: BTreeMap<String, Mounted>,
}

impl Shared {
    pub(crate) fn new(ctx: Arc<Context>, update: &Update, poke: Arc<Notify>) -> Arc<Shared> {
        let pod = &update.pod;
        let writer = update.object.as_ref().map(|object| Writer::start(ctx.client.clone(), object, pod));
        let memory = Memory {
            waiting: Waiting::new(),
            restarts: backoff::Restarts::default(),
            mounts: Backoff::new(Duration::from_millis(500), Duration::from_secs(122)),
            claims: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            messages: Messages::new(),
            hooks: BTreeSet::new(),
            announced: BTreeSet::new(),
            prepared: false,
            allocation: Allocation::default(),
            resize: Resize::default(),
            image_volumes: BTreeMap::new(),
            claimed: None,
            volumes: None,
            admitted: false,
            replaces: false,
            failure: None,
        };
        Arc::new(Shared {
            key: ObjectKey::new(spec::namespace(pod), spec::name(pod)),
            uid: spec::uid(pod).to_owned(),
            probes: Probes::new(ctx.clone(), poke.clone()),
            ctx,
            poke,
            writer,
            told: watch::Sender::new(false),
            memory: Mutex::new(memory),
            place: Place::default(),
        })
    }

    /// Waits until what is known of the pod has been told.
    pub(crate) async fn reported(&self) {
        // The sender lives as long as `self`.
        let _ = self.told.subscribe().wait_for(|told| *told).await;
        if let Some(writer) = &self.writer {
            writer.flush().await;
        }
    }

    /// There is nothing, or nothing more, to be told.
    pub(super) fn settle(&self) {
        self.told.send_replace(true);
    }

    /// Whether the pod was let in.
    pub(crate) fn is_admitted(&self) -> bool {
        let memory = self.memory.lock();
        memory.admitted && memory.failure.is_none()
    }

    pub(super) fn about(&self, pod: &Pod, container: Option<&str>) -> ObjectReference {
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

    pub(super) fn event(
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
    pub(super) async fn address(&self, pod: &Pod) -> Option<IpAddr> {
        if spec::host_network(pod) {
            return self.ctx.config.node_ips.first().copied();
        }
        self.ctx.runtime.pod(&self.uid).await.ok()?.ips().first().copied()
    }

    /// Works out the status and tells it. Returns whether the pod has come to its end.
    pub(super) async fn report(&self, pod: &Pod, state: &PodState, ended: bool) -> bool {
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
            actuated: &memory.allocation.actuated,
            resize: &memory.resize,
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
        self.settle();
        ends
    }

    /// Tells what the runtime says of the pod.
    pub(super) async fn report_now(&self, pod: &Pod) {
        if let Ok(state) = self.ctx.runtime.pod(&self.uid).await {
            self.report(pod, &state, false).await;
        }
    }

    /// Whether a pass ends containers to start others in their places.
    pub(super) fn replaces(&self) -> bool {
        self.memory.lock().replaces
    }

    /// It doesn't, or no longer.
    pub(super) fn replaced(&self) {
        self.memory.lock().replaces = false;
    }

    /// Fails a pod that has not been started, or ran for too long.
    pub(super) fn fail(&self, pod: &Pod, reason: &'static str, message: String) {
        self.event(pod, None, EventType::Warning, reason, message.clone());
        self.memory.lock().failure = Some((reason, message));
    }
}
