//! `EventRecorder`: tells people what a component did to an object, as `v1` Events.
//!
//! Upstream: client-go tools/record.

mod correlate;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::validation::dns1123_subdomain;
use apimachinery::{Object, ObjectKey, Value};
use env::Env;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::{Backoff, Client, Error, PatchKind, TaskGuard, resources};
use correlate::{Correlator, Identity, Send};

/// The object an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectReference {
    // First what differs most: they are compared in this order.
    pub name: String,
    pub uid: String,
    pub namespace: String,
    pub kind: String,
    pub api_version: String,
    pub resource_version: String,
    /// `spec.containers{web}`, or empty.
    pub field_path: String,
}

impl ObjectReference {
    pub fn to(object: &Object) -> ObjectReference {
        ObjectReference {
            api_version: object.gvk().api_version(),
            kind: object.kind().to_owned(),
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
            resource_version: if object.revision() == 0 { String::new() } else { object.revision().to_string() },
            field_path: String::new(),
        }
    }

    fn to_value(&self) -> Value {
        let mut value = Value::object();
        let fields = [
            ("apiVersion", &self.api_version),
            ("fieldPath", &self.field_path),
            ("kind", &self.kind),
            ("name", &self.name),
            ("namespace", &self.namespace),
            ("resourceVersion", &self.resource_version),
            ("uid", &self.uid),
        ];
        for (field, text) in fields.into_iter().filter(|(_, text)| !text.is_empty()) {
            value.set(&[field], text);
        }
        value
    }
}

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EventType {
    Normal,
    Warning,
}

/// Records events without waiting. Like events are counted up, floods are dropped. Cheap to clone.
#[derive(Clone)]
pub struct EventRecorder {
    client: Client,
    queue: mpsc::Sender<Record>,
    /// When the last event happened: names are made of times, so no two happen at the same one.
    last: Arc<Mutex<Timestamp>>,
    _writer: Arc<TaskGuard>,
}

/// What happened, before it is compared with what happened before.
#[derive(Clone, Debug)]
struct Record {
    object: ObjectReference,
    r#type: EventType,
    reason: &'static str,
    message: String,
    at: Timestamp,
}

/// Who records.
struct Source {
    component: String,
    host: String,
}

/// Records that wait to be written; beyond, new ones are dropped.
const QUEUE: usize = 1000;
/// The same where more important writes go first.
const PATIENT_QUEUE: usize = 10_000;
/// For so long an event gives way to more important writes.
const GIVES_WAY: Duration = Duration::from_secs(1);
/// So many events are under way to the server at a time; those that tell the same one after the other.
const AT_ONCE: usize = 8;
/// How often one write is tried.
const TRIES: usize = 12;

impl EventRecorder {
    /// `host` is the node for components that run on one, else empty. Needs a runtime.
    pub fn start(client: Client, component: &str, host: &str) -> EventRecorder {
        EventRecorder::start_with(client, component, host, QUEUE, None)
    }

    /// Like [`EventRecorder::start`], with events that give way to more important writes: for a second, each waits until `idle` is true.
    pub fn start_behind(client: Client, component: &str, host: &str, idle: watch::Receiver<bool>) -> EventRecorder {
        EventRecorder::start_with(client, component, host, PATIENT_QUEUE, Some(idle))
    }

    fn start_with(
        client: Client,
        component: &str,
        host: &str,
        capacity: usize,
        idle: Option<watch::Receiver<bool>>,
    ) -> EventRecorder {
        let (tx, rx) = mpsc::channel(capacity);
        let source = Source { component: component.to_owned(), host: host.to_owned() };
        let writer = client.env().spawn(write_all(client.clone(), source, rx, idle));
        EventRecorder { client, queue: tx, last: Arc::default(), _writer: Arc::new(TaskGuard::new(writer)) }
    }

    pub fn normal(&self, object: &Object, reason: &'static str, message: impl Into<String>) {
        self.event(ObjectReference::to(object), EventType::Normal, reason, message);
    }

    pub fn warning(&self, object: &Object, reason: &'static str, message: impl Into<String>) {
        self.event(ObjectReference::to(object), EventType::Warning, reason, message);
    }

    pub fn event(&self, object: ObjectReference, r#type: EventType, reason: &'static str, message: impl Into<String>) {
        let at = {
            let mut last = self.last.lock();
            let next = last.saturating_add(Duration::from_nanos(1)).unwrap_or(Timestamp::MAX);
            *last = self.client.env().now().max(next);
            *last
        };
        let record = Record { object, r#type, reason, message: message.into(), at };
        if let Err(mpsc::error::TrySendError::Full(record)) = self.queue.try_send(record) {
            tracing::warn!(reason = record.reason, object = %record.object.name, "event dropped: too many wait");
        }
    }
}

async fn write_all(
    client: Client,
    source: Source,
    mut queue: mpsc::Receiver<Record>,
    mut idle: Option<watch::Receiver<bool>>,
) {
    let mut correlator = Correlator::default();
    let mut writes = FuturesUnordered::new();
    let mut being_told = BTreeSet::new();
    loop {
        let record = tokio::select! {
            biased;
            Some(written) = writes.next() => {
                end(written, &mut correlator, &mut being_told);
                continue;
            }
            record = queue.recv(), if writes.len() < AT_ONCE => record,
        };
        let Some(record) = record else { break };
        if let Some(idle) = &mut idle {
            give_way(client.env(), idle, record.at).await;
        }
        let Some(mut send) = correlator.correlate(record) else { continue };
        while being_told.contains(&send.identity)
            && let Some(written) = writes.next().await
        {
            end(written, &mut correlator, &mut being_told);
            correlator.count_up(&mut send);
        }
        being_told.insert(send.identity.clone());
        let (client, source) = (&client, &source);
        writes.push(async move {
            let result = write_with_retries(client, source, &send).await;
            (send, result)
        });
    }
    while let Some(written) = writes.next().await {
        end(written, &mut correlator, &mut being_told);
    }
}

/// Notes under which name an event was written, if it was.
fn end(
    (send, result): (Send, Result<String, Error>),
    correlator: &mut Correlator,
    being_told: &mut BTreeSet<Arc<Identity>>,
) {
    being_told.remove(&send.identity);
    match result {
        Ok(name) => correlator.written(&send, name),
        Err(error) => {
            tracing::debug!(error = &error as &dyn std::error::Error, reason = send.record.reason, "event not written")
        }
    }
}

/// Lets more important writes go first, but not for long after what happened.
async fn give_way(env: &Env, idle: &mut watch::Receiver<bool>, at: Timestamp) {
    let age = env.now().duration_since(at).unsigned_abs();
    if let Some(left) = GIVES_WAY.checked_sub(age) {
        // Whether it is idle or time is up doesn't matter, nor that nobody writes anything any more.
        let _ = env.timeout(left, idle.wait_for(|idle| *idle)).await;
    }
}

async fn write_with_retries(client: &Client, source: &Source, send: &Send) -> Result<String, Error> {
    let mut backoff = Backoff::new(std::time::Duration::from_millis(100), std::time::Duration::from_secs(10));
    let mut tries = 0;
    let name = new_name(client.env(), &send.record);
    loop {
        tries += 1;
        match write(client, source, send, &name).await {
            // What the server refuses, it will refuse again.
            Err(error @ Error::Transport(_)) if tries < TRIES => {
                tracing::trace!(error = &error as &dyn std::error::Error, "event not written yet");
                client.env().sleep(backoff.next(client.env())).await;
            }
            result => return result,
        }
    }
}

/// What a new event is called: by its object and the time, if that makes a name, else at random. Upstream: GenerateEventName.
fn new_name(env: &Env, record: &Record) -> String {
    let name = format!("{}.{:x}", record.object.name, record.at.as_nanosecond());
    if dns1123_subdomain(&name).is_empty() { name } else { env.uuid() }
}

/// Returns the name of the event that now tells this: `new`, or a known one's.
async fn write(client: &Client, source: &Source, send: &Send, new: &str) -> Result<String, Error> {
    let namespace = if send.record.object.namespace.is_empty() { "default" } else { &send.record.object.namespace };
    if let Some(name) = &send.known {
        let mut patch = Value::object();
        patch.set(&["count"], send.count);
        patch.set(&["lastTimestamp"], seconds(send.record.at));
        patch.set(&["message"], &send.record.message);
        let key = ObjectKey::new(namespace, &**name);
        match client.patch_brief(&resources::EVENTS, &key, "", PatchKind::Strategic, &patch).await {
            Ok(_) => return Ok(name.clone()),
            Err(error) if error.is_not_found() => {} // it has expired
            Err(error) => return Err(error),
        }
    }
    let body = send.to_event(namespace, new, source);
    match client.create_brief(&resources::EVENTS, &body).await {
        Err(error) if error.is_already_exists() => Ok(new.to_owned()),
        result => result.map(|_| new.to_owned()),
    }
}

impl Send {
    fn to_event(&self, namespace: &str, name: &str, source: &Source) -> Value {
        let Record { object, r#type, reason, message, at } = &self.record;
        let mut event = Value::object();
        event.set(&["apiVersion"], "v1");
        event.set(&["kind"], "Event");
        event.set(&["metadata", "name"], name);
        event.set(&["metadata", "namespace"], namespace);
        event.set(&["involvedObject"], object.to_value());
        event.set(&["reason"], *reason);
        event.set(&["message"], message);
        event.set(&["type"], format!("{:?}", r#type));
        event.set(&["count"], self.count);
        event.set(&["firstTimestamp"], seconds(self.first));
        event.set(&["lastTimestamp"], seconds(*at));
        event.set(&["source", "component"], &source.component);
        // Upstream combines events into new ones, which no component reports.
        let combined = self.identity.3.is_empty();
        event.set(&["reportingComponent"], if combined { "" } else { &source.component });
        event.set(&["reportingInstance"], &source.host);
        if !source.host.is_empty() {
            event.set(&["source", "host"], &source.host);
        }
        event
    }
}

fn seconds(at: Timestamp) -> String {
    format!("{at:.0}")
}
