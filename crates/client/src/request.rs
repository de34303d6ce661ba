//! `Client`: requests for objects.

mod brief;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Status, Value};
use bytes::Bytes;
use env::Env;
use futures_util::stream::BoxStream;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, Method};

use crate::error::DecodeError;
use crate::runner::WriteLog;
use crate::{
    Body, DeleteOptions, Error, ListOptions, ObjectList, PatchKind, Request, Resource, Response, Selection, Transport,
    WatchEvent, WatchOptions, WriteOptions, decode, resources,
};

pub use brief::Written;

/// Makes requests of one API server as one identity. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    env: Env,
    transport: Arc<dyn Transport>,
    user_agent: HeaderValue,
    writes: Option<Arc<WriteLog>>,
    trim: Option<Trim>,
    glance: Option<Glance>,
    metadata_only: bool,
}

/// Shortens an object that came over the wire, already without `metadata.managedFields`, to what its reader asks for, and names its
/// selectable fields for [`Object::field`].
pub type Trim = fn(&mut Value) -> Vec<(&'static str, String)>;

/// Looks at the JSON of a changed object before it is read: `Some` revision if there is no need to.
pub type Glance = Arc<dyn Fn(&[u8]) -> Option<u64> + Send + Sync>;

/// What requests are answered with that may or may not tell the object: deletes and subresources.
#[derive(Clone, Debug)]
pub enum Answer {
    Object(Arc<Object>),
    Status(Status),
}

impl Answer {
    pub fn object(self) -> Option<Arc<Object>> {
        if let Answer::Object(object) = self { Some(object) } else { None }
    }
}

/// Asks for metadata alone; the whole object where a server knows no such form.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// How often a request is sent again that the server refused for being busy.
const MAX_RETRIES: u32 = 10;

impl Client {
    /// `user_agent` such as `oxikube/v0.1 (kubelet)`; its part before the first slash is the default field manager.
    pub fn new(env: Env, transport: Arc<dyn Transport>, user_agent: &str) -> Client {
        let user_agent = HeaderValue::from_str(user_agent).unwrap_or(HeaderValue::from_static("oxikube"));
        Client { env, transport, user_agent, writes: None, trim: None, glance: None, metadata_only: false }
    }

    /// The same client under another user agent.
    pub fn with_user_agent(&self, user_agent: &str) -> Client {
        let other = Client::new(self.env.clone(), self.transport.clone(), user_agent);
        Client { user_agent: other.user_agent, ..self.clone() }
    }

    /// The same client, whose lists and watches over the wire leave out `metadata.managedFields`, for informers that keep them: a write of
    /// what is left leaves these fields as they are.
    pub fn without_managed_fields(&self) -> Client {
        self.trimming(|_| Vec::new())
    }

    /// The same client, whose lists and watches over the wire are of what `trim` leaves, for informers that keep many objects. Objects of an
    /// in-process server are shared with it and stay whole.
    pub fn trimming(&self, trim: Trim) -> Client {
        Client { trim: Some(trim), ..self.clone() }
    }

    /// The same client, whose watches over the wire tell of changes for which `glance` was enough as bookmarks.
    pub fn glancing(&self, glance: Glance) -> Client {
        Client { glance: Some(glance), ..self.clone() }
    }

    /// The same client, whose lists and watches over the wire bring objects' metadata alone.
    pub fn metadata_only(&self) -> Client {
        Client { metadata_only: !self.transport.shares_objects(), ..self.clone() }
    }

    /// The same client, with its writes recorded in `log`.
    pub(crate) fn recording(&self, log: Arc<WriteLog>) -> Client {
        Client { writes: Some(log), ..self.clone() }
    }

    pub fn env(&self) -> &Env {
        &self.env
    }

    pub async fn get(&self, resource: &Resource, key: &ObjectKey) -> Result<Arc<Object>, Error> {
        self.get_subresource(resource, key, "").await
    }

    /// Like [`Client::get`], with an absent object as `None`.
    pub async fn find(&self, resource: &Resource, key: &ObjectKey) -> Result<Option<Arc<Object>>, Error> {
        match self.get(resource, key).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub async fn get_subresource(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: &str,
    ) -> Result<Arc<Object>, Error> {
        let call = Call::new(Method::GET, resource.path(&key.namespace, &key.name, subresource));
        self.object(call).await
    }

    /// One page of the selected objects, or all when `options` sets no limit.
    pub async fn list(
        &self,
        resource: &Resource,
        selection: &Selection,
        options: &ListOptions,
    ) -> Result<ObjectList, Error> {
        let mut query = selection.query();
        options.query(&mut query);
        let mut call = Call::new(Method::GET, query.behind(resource.path(&selection.namespace, "", "")));
        if self.metadata_only {
            call.accept = METADATA_LIST;
        }
        let response = self.exchange(&call).await?;
        decode::list(response.body, self.trim).await.map_err(|source| call.failed(source))
    }

    /// The selected objects as they are from `options.revision` on. The stream ends when the server ends it or the connection
    /// breaks, and after an [`WatchEvent::Error`].
    pub async fn watch(
        &self,
        resource: &Resource,
        selection: &Selection,
        options: &WatchOptions,
    ) -> Result<BoxStream<'static, WatchEvent>, Error> {
        let mut query = selection.query();
        options.query(&mut query);
        let mut call = Call::new(Method::GET, query.behind(resource.path(&selection.namespace, "", "")));
        if self.metadata_only {
            call.accept = METADATA;
        }
        let response = self.exchange(&call).await?;
        decode::watch(response.body, self.trim, self.glance.clone()).map_err(|source| call.failed(source))
    }

    /// Creates `body`, in the namespace that its metadata names.
    pub async fn create(&self, resource: &Resource, body: &Value) -> Result<Arc<Object>, Error> {
        let key = key_of(body);
        let result = self.object(Call::new(Method::POST, resource.path(&key.namespace, "", "")).json(body)).await;
        self.note_write(resource, &key, false, &result);
        result
    }

    /// Replaces the object that `body`'s metadata names; with its `resourceVersion` in it, only at that revision.
    pub async fn update(&self, resource: &Resource, body: &Value) -> Result<Arc<Object>, Error> {
        self.update_subresource(resource, "", body, &WriteOptions::default()).await
    }

    /// Replaces the object's status.
    pub async fn update_status(&self, resource: &Resource, body: &Value) -> Result<Arc<Object>, Error> {
        self.update_subresource(resource, "status", body, &WriteOptions::default()).await
    }

    pub async fn update_subresource(
        &self,
        resource: &Resource,
        subresource: &str,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Error> {
        let key = key_of(body);
        let path = options.query().behind(resource.path(&key.namespace, &key.name, subresource));
        let result = self.object(Call::new(Method::PUT, path).json(body)).await;
        self.note_write(resource, &key, options.dry_run, &result);
        result
    }

    pub async fn patch(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        kind: PatchKind,
        body: &Value,
    ) -> Result<Arc<Object>, Error> {
        self.patch_subresource(resource, key, "", kind, body, &WriteOptions::default()).await
    }

    pub async fn patch_status(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        kind: PatchKind,
        body: &Value,
    ) -> Result<Arc<Object>, Error> {
        self.patch_subresource(resource, key, "status", kind, body, &WriteOptions::default()).await
    }

    pub async fn patch_subresource(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: &str,
        kind: PatchKind,
        body: &Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Error> {
        let path = options.query().behind(resource.path(&key.namespace, &key.name, subresource));
        let mut call = Call::new(Method::PATCH, path).json(body);
        call.content_type = kind.content_type();
        let result = self.object(call).await;
        self.note_write(resource, key, options.dry_run, &result);
        result
    }

    /// Deletes the object, or begins to: it stays while it has finalizers or a grace period.
    pub async fn delete(&self, resource: &Resource, key: &ObjectKey, options: &DeleteOptions) -> Result<Answer, Error> {
        let path = resource.path(&key.namespace, &key.name, "");
        let result = self.answer(Call::new(Method::DELETE, path).json(&options.to_value())).await;
        self.note_removal(resource, key, &options.uid, options.dry_run, &result);
        result
    }

    /// Deletes every selected object.
    pub async fn delete_collection(
        &self,
        resource: &Resource,
        selection: &Selection,
        options: &DeleteOptions,
    ) -> Result<(), Error> {
        let path = selection.query().behind(resource.path(&selection.namespace, "", ""));
        self.exchange(&Call::new(Method::DELETE, path).json(&options.to_value())).await.map(drop)
    }

    /// Posts `body` to a subresource such as `binding`, `eviction` or `token`.
    pub async fn create_subresource(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: &str,
        body: &Value,
    ) -> Result<Answer, Error> {
        let path = resource.path(&key.namespace, &key.name, subresource);
        self.answer(Call::new(Method::POST, path).json(body)).await
    }

    /// Binds the pod to the node.
    pub async fn bind(&self, pod: &ObjectKey, uid: &str, node: &str) -> Result<(), Error> {
        let mut body = meta_body("v1", "Binding", pod);
        body.set(&["metadata", "uid"], uid);
        body.set(&["target", "apiVersion"], "v1");
        body.set(&["target", "kind"], "Node");
        body.set(&["target", "name"], node);
        self.create_subresource(&resources::PODS, pod, "binding", &body).await.map(drop)
    }

    /// Asks for the pod's eviction, which its disruption budgets may refuse with 429.
    pub async fn evict(&self, pod: &ObjectKey, options: &DeleteOptions) -> Result<(), Error> {
        let mut body = meta_body("policy/v1", "Eviction", pod);
        body.set(&["deleteOptions"], options.to_value());
        let result = self.create_subresource(&resources::PODS, pod, "eviction", &body).await;
        self.note_removal(&resources::PODS, pod, &options.uid, options.dry_run, &result);
        result.map(drop)
    }

    /// Any request; failures are errors, other answers come back as they are.
    pub async fn raw(
        &self,
        method: Method,
        target: impl Into<String>,
        content_type: Option<&'static str>,
        body: Bytes,
    ) -> Result<Response, Error> {
        let mut call = Call::new(method, target.into());
        call.content_type = content_type.unwrap_or("application/json");
        call.body = body;
        call.accept = "*/*";
        self.exchange(&call).await
    }

    /// The bytes answered to a GET of `target`.
    pub async fn get_bytes(&self, target: impl Into<String>) -> Result<Bytes, Error> {
        let target = target.into();
        let request = format!("GET {target}");
        let response = self.raw(Method::GET, target, None, Bytes::new()).await?;
        decode::collect(response.body).await.map_err(|source| Error::Decode { request, source })
    }

    /// The JSON answered to a GET of `target`, such as discovery's.
    pub async fn get_json<T: serde::de::DeserializeOwned>(&self, target: impl Into<String>) -> Result<T, Error> {
        let call = Call::new(Method::GET, target.into());
        let response = self.exchange(&call).await?;
        let bytes = decode::collect(response.body).await;
        bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).map_err(DecodeError::from))
            .map_err(|source| call.failed(source))
    }

    async fn object(&self, call: Call) -> Result<Arc<Object>, Error> {
        let response = self.exchange(&call).await?;
        decode::object(response.body).await.map_err(|source| call.failed(source))
    }

    async fn answer(&self, call: Call) -> Result<Answer, Error> {
        let decode = async |body| {
            let bytes = match body {
                Body::Object(object) => return Ok(Answer::Object(object)),
                Body::Status(status) => return Ok(Answer::Status(status)),
                body => decode::collect(body).await?,
            };
            Ok(match decode::as_status(&bytes)? {
                Some(status) => Answer::Status(status),
                None => Answer::Object(Arc::new(Object::parse(&bytes)?)),
            })
        };
        let response = self.exchange(&call).await?;
        decode(response.body).await.map_err(|source| call.failed(source))
    }

    /// Sends, and sends again while the server says that it is busy and when to come back.
    async fn exchange(&self, call: &Call) -> Result<Response, Error> {
        let mut attempt = 0;
        loop {
            let response = self.transport.send(call.request(&self.user_agent)).await?;
            if response.code.as_u16() < 400 {
                return Ok(response);
            }
            let header = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
            let code = response.code;
            let status = decode::failure(code, response.body).await;
            let details = status.details.as_ref().map(|details| details.retry_after_seconds.max(0) as u64);
            // An eviction that a budget refuses is the caller's to try again: it carries no header.
            match header.filter(|_| matches!(code.as_u16(), 429 | 503) && attempt < MAX_RETRIES) {
                Some(seconds) => {
                    attempt += 1;
                    let seconds = seconds.max(details.unwrap_or_default());
                    self.env.sleep(self.env.jitter(Duration::from_secs(seconds.min(30)), 0.1)).await;
                }
                None => return Err(status.into()),
            }
        }
    }

    fn note_write(&self, resource: &Resource, key: &ObjectKey, dry_run: bool, result: &Result<Arc<Object>, Error>) {
        let Some(log) = self.writes.as_ref().filter(|_| !dry_run) else { return };
        match result {
            Ok(object) => log.wrote(resource, object.key(), object.revision()),
            Err(error) if error.is_unknown_outcome() => log.unknown(resource, key),
            Err(_) => {}
        }
    }

    fn note_removal(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        uid: &str,
        dry_run: bool,
        result: &Result<Answer, Error>,
    ) {
        let Some(log) = self.writes.as_ref().filter(|_| !dry_run) else { return };
        match result {
            Ok(Answer::Object(object)) => log.removed(resource, key, object.uid()),
            Ok(Answer::Status(status)) => {
                let told = status.details.as_ref().map(|details| details.uid.as_str()).unwrap_or_default();
                log.removed(resource, key, if told.is_empty() { uid } else { told });
            }
            Err(error) if error.is_unknown_outcome() => log.unknown(resource, key),
            Err(_) => {}
        }
    }
}

/// A request before it has headers.
struct Call {
    method: Method,
    target: String,
    accept: &'static str,
    content_type: &'static str,
    body: Bytes,
}

impl Call {
    fn new(method: Method, target: String) -> Call {
        Call { method, target, accept: "application/json", content_type: "application/json", body: Bytes::new() }
    }

    fn json(mut self, body: &Value) -> Call {
        self.body = body.to_json().into();
        self
    }

    /// The error of an answer that can't be read: it names method and path.
    fn failed(&self, source: DecodeError) -> Error {
        let path = self.target.split('?').next().unwrap_or_default();
        Error::Decode { request: format!("{} {path}", self.method), source }
    }

    fn request(&self, user_agent: &HeaderValue) -> Request {
        let mut headers = HeaderMap::with_capacity(3);
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        headers.insert(USER_AGENT, user_agent.clone());
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        Request { method: self.method.clone(), target: self.target.clone(), headers, body: self.body.clone() }
    }
}

fn key_of(body: &Value) -> ObjectKey {
    let text = |field| body.str_at(&["metadata", field]).unwrap_or_default();
    ObjectKey::new(text("namespace"), text("name"))
}

fn meta_body(api_version: &str, kind: &str, key: &ObjectKey) -> Value {
    let mut body = Value::object();
    body.set(&["apiVersion"], api_version);
    body.set(&["kind"], kind);
    body.set(&["metadata", "name"], &key.name);
    body.set(&["metadata", "namespace"], &key.namespace);
    body
}
