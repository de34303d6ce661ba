//! A small API server in memory, for tests of components: objects, revisions, watches, preconditions, finalizers, grace
//! periods, and failures on demand. It checks nothing, defaults nothing and knows no kind's rules.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use client::fake::FakeServer;
//! use client::resources;
//! let server = FakeServer::new(env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH));
//! server.put(&resources::NODES, r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#);
//! assert_eq!(server.client().get(&resources::NODES, &apimachinery::ObjectKey::cluster("n1")).await.unwrap().name(), "n1");
//! # }
//! ```

#![allow(clippy::result_large_err)] // refusals of a test server need not be small

mod discovery;
mod target;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::patch::{JsonPatch, merge_patch};
use apimachinery::{FieldSelector, Object, ObjectKey, Selector, Status, Value};
use bytes::Bytes;
use env::Env;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Method, StatusCode};
use parking_lot::Mutex;

use crate::changing::Changing;
use crate::{Body, Client, ObjectList, Request, Resource, Response, Transport, TransportError, WatchEvent};
use target::Target;
use world::World;

/// The server; clones share it.
#[derive(Clone)]
pub struct FakeServer(Arc<Inner>);

struct Inner {
    env: Env,
    world: Mutex<World>,
    /// By plural: changes with its news; a count that ends open watches when it is another.
    changed: Mutex<BTreeMap<String, Arc<Changing<u64>>>>,
    /// Of every request that arrived, in order.
    digest: Mutex<Digest>,
    /// Resources by plural whose watches tell nothing after a revision.
    held: Mutex<BTreeMap<String, u64>>,
    requests: Mutex<Vec<Seen>>,
    reactors: Mutex<Vec<Reactor>>,
}

/// A request that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub body: Bytes,
}

/// What a reactor does instead of letting a request through.
pub enum Reaction {
    /// Nothing is done, this is answered.
    Refuse(Status),
    /// The connection breaks before the request arrives.
    Lose,
    /// The request is carried out and the connection breaks before its answer.
    LoseAnswer,
}

type Reactor = Box<dyn FnMut(&Request) -> Option<Reaction> + Send>;

impl FakeServer {
    pub fn new(env: Env) -> FakeServer {
        FakeServer(Arc::new(Inner {
            env,
            world: Mutex::default(),
            changed: Mutex::default(),
            digest: Mutex::default(),
            held: Mutex::default(),
            requests: Mutex::default(),
            reactors: Mutex::default(),
        }))
    }

    pub fn client(&self) -> Client {
        Client::new(self.0.env.clone(), Arc::new(self.clone()), "fake/1 (test)")
    }

    /// Puts an object there as JSON says, whatever was there before. What is missing of uid and creationTimestamp is added.
    ///
    /// # Panics
    /// If `json` is no object.
    pub fn put(&self, resource: &Resource, json: &str) -> Arc<Object> {
        self.put_value(resource, Value::parse(json.as_bytes()).expect("test objects are JSON"))
    }

    /// Like [`FakeServer::put`].
    pub fn put_value(&self, resource: &Resource, value: Value) -> Arc<Object> {
        let object = self.0.world.lock().put(&self.0.env, resource, value);
        self.publish();
        object
    }

    /// Edits an object in place.
    ///
    /// # Panics
    /// If it is not there.
    pub fn edit(&self, resource: &Resource, key: &ObjectKey, edit: impl FnOnce(&mut Value)) -> Arc<Object> {
        let mut value = self.get(resource, key).expect("the object to edit exists").to_value();
        edit(&mut value);
        self.put_value(resource, value)
    }

    /// Takes an object away at once, whatever its finalizers.
    pub fn remove(&self, resource: &Resource, key: &ObjectKey) {
        self.0.world.lock().remove(resource, key);
        self.publish();
    }

    pub fn get(&self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Object>> {
        self.0.world.lock().get(resource, key)
    }

    /// Every object of the resource, ordered by namespace and name.
    pub fn list(&self, resource: &Resource) -> Vec<Arc<Object>> {
        self.0.world.lock().list(resource)
    }

    pub fn revision(&self) -> u64 {
        self.0.world.lock().revision()
    }

    /// The requests answered so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.0.requests.lock().clone()
    }

    /// The writes answered so far, as `METHOD path`.
    pub fn writes(&self) -> Vec<String> {
        let requests = self.0.requests.lock();
        let writes = requests.iter().filter(|seen| seen.method != Method::GET);
        writes.map(|seen| format!("{} {}", seen.method, seen.target.split('?').next().unwrap_or_default())).collect()
    }

    pub fn forget_requests(&self) {
        self.0.requests.lock().clear();
    }

    /// Lets `reactor` decide about each request, before others that were added earlier; these are asked until one refuses or loses it.
    pub fn react(&self, reactor: impl FnMut(&Request) -> Option<Reaction> + Send + 'static) {
        self.0.reactors.lock().insert(0, Box::new(reactor));
    }

    /// Names a resource in discovery, as deletable, listable and watchable.
    pub fn serve(&self, resource: &Resource, kind: &str) {
        self.0.world.lock().serve(resource, kind);
    }

    /// Names the resource, in this version, in discovery no longer.
    pub fn unserve(&self, resource: &Resource) {
        self.0.world.lock().unserve(resource);
    }

    /// Forgets the history, so that watches from before now get 410; ends open watches.
    pub fn compact(&self) {
        self.0.world.lock().compact();
        self.end_watches();
    }

    /// Ends open watches, as a server does now and then.
    pub fn end_watches(&self) {
        self.0.changed.lock().values().for_each(|changed| changed.modify(|ended| *ended += 1));
    }

    /// Lets open watches of the resource lag behind until they are let go.
    pub fn hold_watches(&self, resource: &Resource, hold: bool) {
        let revision = self.revision();
        let mut held = self.0.held.lock();
        match hold {
            true => drop(held.insert(resource.plural.to_string(), revision)),
            false => drop(held.remove(&*resource.plural)),
        }
        drop(held);
        if let Some(changed) = self.0.changed.lock().get(&*resource.plural) {
            changed.modify(|_| {});
        }
    }

    /// A number that two runs share if the same requests arrived in the same order, whatever became of them.
    pub fn digest(&self) -> u64 {
        self.0.digest.lock().0
    }

    /// Wakes the watches of what changed.
    fn publish(&self) {
        let plurals = self.0.world.lock().take_changed();
        let changed = self.0.changed.lock();
        plurals.iter().filter_map(|plural| changed.get(plural)).for_each(|changed| changed.modify(|_| {}));
    }

    fn changes_of(&self, plural: &str) -> Arc<Changing<u64>> {
        let mut changed = self.0.changed.lock();
        changed.entry(plural.to_owned()).or_default().clone()
    }

    fn answer(&self, request: Request) -> Result<Response, TransportError> {
        self.0.digest.lock().add(&request);
        let broken = || TransportError::Exchange("the connection broke".into());
        let mut lose = false;
        for reactor in self.0.reactors.lock().iter_mut() {
            match reactor(&request) {
                Some(Reaction::Lose) => return Err(broken()),
                // What cannot be answered is refused all the same.
                Some(Reaction::Refuse(_)) if lose => return Err(broken()),
                Some(Reaction::Refuse(status)) => return Ok(respond(Err(status))),
                Some(Reaction::LoseAnswer) => lose = true,
                None => {}
            }
        }
        let seen = Seen { method: request.method.clone(), target: request.target.clone(), body: request.body.clone() };
        let result = self.carry_out(request);
        self.0.requests.lock().push(seen);
        self.publish();
        if lose { Err(broken()) } else { Ok(respond(result)) }
    }

    fn carry_out(&self, request: Request) -> Result<Body, Status> {
        if let Some(body) = discovery::answer(&self.0.world.lock(), &request.target) {
            return Ok(body);
        }
        let target = Target::parse(&request.target).ok_or_else(|| {
            Status::new(404, apimachinery::Reason::NotFound, "the server could not find the requested resource")
        })?;
        if request.method == Method::GET && target.name.is_empty() {
            return self.list_or_watch(target);
        }
        let body = if request.body.is_empty() {
            Value::object()
        } else {
            Value::parse(&request.body).map_err(|error| Status::bad_request(error.to_string()))?
        };
        let mut world = self.0.world.lock();
        match request.method {
            Method::GET => {
                let object = world.find(&target)?;
                if target.subresource == "scale" { scale(&object) } else { Ok(object) }.map(Body::Object)
            }
            Method::POST if target.name.is_empty() => world.create(&self.0.env, &target, body).map(Body::Object),
            Method::POST => world.subresource(&self.0.env, &target, body).map(Body::Status),
            Method::PUT => world.update(&self.0.env, &target, body).map(Body::Object),
            Method::PATCH => {
                let patched = patch(world.find(&target)?.to_value(), body, &request.headers)?;
                world.update(&self.0.env, &target, patched).map(Body::Object)
            }
            Method::DELETE if target.name.is_empty() => {
                world.delete_collection(&self.0.env, &target, &body);
                Ok(Body::Status(Status::new(200, apimachinery::Reason::Unknown, "")))
            }
            Method::DELETE => world.delete(&self.0.env, &target, &body).map(Body::Object),
            _ => Err(Status::bad_request("no such method")),
        }
    }

    fn list_or_watch(&self, target: Target) -> Result<Body, Status> {
        let world = self.0.world.lock();
        let select = Filter::parse(&target)?;
        if target.parameter("watch").is_none() {
            let items = world.list(&target.resource()).into_iter().filter(|object| select.matches(object)).collect();
            return Ok(Body::List(ObjectList { revision: world.revision(), items, ..ObjectList::default() }));
        }
        let from = target.parameter("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or_default();
        let first: Vec<WatchEvent> = if from == 0 {
            let objects = world.list(&target.resource()).into_iter().filter(|object| select.matches(object));
            objects.map(WatchEvent::Added).collect()
        } else {
            Vec::new()
        };
        let from = if from == 0 { world.revision() } else { from };
        if !world.covers(from) {
            return Err(Status::expired(format!("too old resource version: {from}")));
        }
        let changed = self.changes_of(&target.plural);
        let follow = Follow { server: self.clone(), target, select, from, changed };
        Ok(Body::Watch(stream::iter(first).chain(follow.events()).boxed()))
    }
}

impl Transport for FakeServer {
    fn shares_objects(&self) -> bool {
        true
    }

    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let server = self.clone();
        async move {
            // A real answer never comes within the same poll.
            tokio::task::yield_now().await;
            server.answer(request)
        }
        .boxed()
    }
}

/// FNV-1a.
struct Digest(u64);

impl Default for Digest {
    fn default() -> Digest {
        Digest(0xcbf2_9ce4_8422_2325)
    }
}

impl Digest {
    fn add(&mut self, request: &Request) {
        for part in [request.method.as_str().as_bytes(), request.target.as_bytes(), &request.body] {
            self.0 = part
                .iter()
                .chain([&0])
                .fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
        }
    }
}

/// The selectors of a list or watch.
struct Filter {
    namespace: String,
    labels: Selector,
    fields: FieldSelector,
}

impl Filter {
    fn parse(target: &Target) -> Result<Filter, Status> {
        let refuse = |error: apimachinery::SelectorError| Status::bad_request(error.to_string());
        Ok(Filter {
            namespace: target.namespace.clone(),
            labels: Selector::parse(&target.parameter("labelSelector").unwrap_or_default()).map_err(refuse)?,
            fields: FieldSelector::parse(&target.parameter("fieldSelector").unwrap_or_default()).map_err(refuse)?,
        })
    }

    fn matches(&self, object: &Object) -> bool {
        (self.namespace.is_empty() || self.namespace == object.namespace())
            && self.labels.matches(object)
            && (self.fields.is_everything() || self.fields_match(object))
    }

    fn fields_match(&self, object: &Object) -> bool {
        let value = object.to_value();
        self.fields.matches_with(|field| {
            let path: Vec<&str> = field.split('.').collect();
            Some(value.str_at(&path).unwrap_or_default())
        })
    }
}

/// An open watch.
struct Follow {
    server: FakeServer,
    target: Target,
    select: Filter,
    from: u64,
    changed: Arc<Changing<u64>>,
}

impl Follow {
    fn events(self) -> impl stream::Stream<Item = WatchEvent> + Send {
        let (ended, seen) = (self.changed.get(), self.changed.version());
        stream::unfold((self, seen), move |(mut follow, mut seen)| async move {
            loop {
                let visible = follow.server.0.held.lock().get(&follow.target.plural).copied().unwrap_or(u64::MAX);
                let events = {
                    let world = follow.server.0.world.lock();
                    if !world.covers(follow.from) {
                        // What was forgotten is not passed over in silence.
                        return None;
                    }
                    world.history(&follow.target.resource(), follow.from)
                };
                let mut found = Vec::new();
                for (revision, before, event) in events.into_iter().filter(|(revision, ..)| *revision <= visible) {
                    follow.from = revision;
                    found.extend(follow.seen(before, event));
                }
                if !found.is_empty() {
                    return Some((stream::iter(found), (follow, seen)));
                }
                if follow.changed.changed(&mut seen).await != ended {
                    return None;
                }
            }
        })
        .flatten()
    }

    /// The event as this selection sees it: an object that comes to match is added, one that ceases to is deleted.
    fn seen(&self, before: Option<Arc<Object>>, event: WatchEvent) -> Option<WatchEvent> {
        let matched = before.as_ref().is_some_and(|object| self.select.matches(object));
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => match (matched, self.select.matches(&object)) {
                (false, false) => None,
                (false, true) => Some(WatchEvent::Added(object)),
                (true, true) => Some(WatchEvent::Modified(object)),
                (true, false) => Some(WatchEvent::Deleted(object)),
            },
            other => matched.then_some(other),
        }
    }
}

fn respond(result: Result<Body, Status>) -> Response {
    let (code, body) = match result {
        Ok(body) => (StatusCode::OK, body),
        Err(status) => (StatusCode::from_u16(status.code).unwrap_or(StatusCode::BAD_REQUEST), Body::Status(status)),
    };
    Response { code, headers: HeaderMap::new(), body }
}

/// The scale of what has a size.
fn scale(object: &Object) -> Result<Arc<Object>, Status> {
    let value = object.to_value();
    let replicas = value.i64_at(&["spec", "replicas"]).ok_or_else(Status::path_not_found)?;
    let labels = value.at(&["spec", "selector", "matchLabels"]).and_then(Value::as_object);
    let labels = labels.into_iter().flat_map(|labels| labels.iter());
    let selector = Selector::from_labels(labels.filter_map(|(key, value)| Some((key, value.as_str()?))));
    let mut scale = Value::object();
    scale.set(&["apiVersion"], "autoscaling/v1");
    scale.set(&["kind"], "Scale");
    for field in ["name", "namespace", "uid", "resourceVersion"] {
        scale.set(&["metadata", field], value.str_at(&["metadata", field]).unwrap_or_default());
    }
    scale.set(&["spec", "replicas"], replicas);
    scale.set(&["status", "replicas"], value.i64_at(&["status", "replicas"]).unwrap_or_default());
    scale.set(&["status", "selector"], selector.to_string());
    let object = Object::new(&scale, object.revision());
    object.map(Arc::new).map_err(|error| Status::bad_request(error.to_string()))
}

/// Strategic patches are taken as merge patches: lists are replaced.
fn patch(mut current: Value, patch: Value, headers: &HeaderMap) -> Result<Value, Status> {
    let content_type = headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content_type == Some("application/json-patch+json") {
        let patch = JsonPatch::decode(patch).map_err(|error| Status::bad_request(error.to_string()))?;
        return patch.apply(current).map_err(|error| Status::bad_request(error.to_string()));
    }
    merge_patch(&mut current, patch).map_err(|error| Status::bad_request(error.to_string()))?;
    Ok(current)
}
