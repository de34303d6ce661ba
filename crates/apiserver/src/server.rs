//! The path of a request, top to bottom: identify, authorise, limit, route, act, shape.

mod limits;
mod metrics;
mod other;
mod resources;
mod reviews;
mod subresources;
mod writes;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use bytes::Bytes;
use env::Env;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use parking_lot::Mutex;
use tracing::error;

use crate::accept::{self, Shape};
use crate::access::Access;
use crate::aggregation::{Aggregation, Route};
use crate::answer::{self, Answer, Content};
use crate::body;
use crate::config::Settings;
use crate::connect::Nodes;
use crate::discovery::Discovery;
use crate::identity::UserInfo;
use crate::openapi::OpenApi;
use crate::registry::Registry;
use crate::request::{Query, RequestInfo};
use crate::resource_metrics::ResourceMetrics;
use crate::table;

pub(crate) use other::GIT_VERSION;

use limits::Limits;
use metrics::{Labels, Metrics};

/// A table of more rows takes longer than other requests should wait for a thread.
const MANY_ROWS: usize = 20;
/// Requests that are not streams end after this long.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The server behind all edges.
#[derive(Clone)]
pub(crate) struct Server(Arc<Inner>);

pub(crate) struct Inner {
    pub env: Env,
    pub settings: Settings,
    pub registry: Arc<Registry>,
    pub access: Access,
    pub discovery: Discovery,
    pub openapi: OpenApi,
    pub nodes: Nodes,
    pub aggregation: Aggregation,
    pub resource_metrics: ResourceMetrics,
    issuer: Issuer,
    limits: Limits,
    metrics: Metrics,
}

/// What verifiers of service-account tokens read. Upstream: pkg/serviceaccount/openidmetadata.go.
pub(crate) struct Issuer {
    configuration: Bytes,
    keys: Bytes,
}

impl Issuer {
    pub(crate) fn new(settings: &Settings, pki: &pki::ClusterPki) -> Issuer {
        let keys_at = format!("https://{}/openid/v1/jwks", settings.advertised());
        Issuer {
            configuration: pki::discovery_document(&settings.issuer, &keys_at).to_string().into(),
            keys: pki.token_key().jwks().to_string().into(),
        }
    }
}

/// A request as an edge hands it over.
pub(crate) struct Inbound {
    pub method: Method,
    /// Path and query.
    pub target: String,
    pub headers: HeaderMap,
    /// Reads the body when it is wanted.
    pub body: BoxFuture<'static, Result<Bytes, Status>>,
    pub credentials: Credentials,
    /// Where the client's connection can be taken over.
    pub upgrade: Option<hyper::upgrade::OnUpgrade>,
}

/// What the edge knows about the client.
#[derive(Clone, Debug)]
pub(crate) enum Credentials {
    /// The binary vouches for the user.
    Local(Arc<UserInfo>),
    /// Headers, and the certificates shown in the handshake.
    Wire(Arc<streams::Peer>),
}

/// One request while it is served.
pub(crate) struct Request<'a> {
    pub inner: &'a Arc<Inner>,
    pub method: &'a Method,
    pub target: &'a str,
    pub headers: &'a HeaderMap,
    pub info: RequestInfo,
    pub query: Query,
    pub user: UserInfo,
    /// Texts for `Warning` headers.
    pub warnings: Mutex<Vec<String>>,
}

impl Server {
    pub(crate) fn new(
        settings: Settings,
        registry: Arc<Registry>,
        access: Access,
        nodes: Nodes,
        aggregation: Aggregation,
        issuer: Issuer,
    ) -> Server {
        Server(Arc::new(Inner {
            env: registry.env.clone(),
            settings,
            registry,
            access,
            discovery: Discovery::new(),
            openapi: OpenApi::new(),
            nodes,
            aggregation,
            resource_metrics: ResourceMetrics::default(),
            issuer,
            limits: Limits::default(),
            metrics: Metrics::default(),
        }))
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// Serves a request; never fails, a failure is an answer.
    pub(crate) async fn handle(&self, inbound: Inbound) -> Answer {
        let audit_id = inbound.headers.get("audit-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
        let audit_id = audit_id.unwrap_or_else(|| self.0.env.uuid());
        let what = format!("{} {}", inbound.method, inbound.target);
        let answer = match AssertUnwindSafe(self.served(inbound)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_) => {
                error!(request = %what, "a request panicked");
                Status::internal("This request caused apiserver to panic. Look in the logs for details.").into()
            }
        };
        let mut answer = match answer.headers.contains_key(http::header::CACHE_CONTROL) {
            true => answer,
            false => answer.with(http::header::CACHE_CONTROL, "no-cache, private"),
        };
        if let Ok(mut audit_id) = HeaderValue::from_str(&audit_id) {
            // It never comes again: in the connection's table of headers it would only take the place of others.
            audit_id.set_sensitive(true);
            answer.headers.insert(HeaderName::from_static("audit-id"), audit_id);
        }
        answer
    }

    /// The user of the request, who may send it. Before anybody is refused, every acknowledged write is taken into account.
    async fn admitted(
        &self,
        credentials: &Credentials,
        headers: &HeaderMap,
        info: &RequestInfo,
        query: &Query,
    ) -> Result<UserInfo, Status> {
        let access = &self.0.access;
        let decide = || {
            let user = access.identify(credentials, headers)?;
            access.authorize(&user, info, query)?;
            Ok(user)
        };
        // Asked before deciding: afterwards what was missing may have come.
        let was_behind = self.0.registry.is_behind();
        match decide() {
            Err(_) if was_behind => {
                self.0.registry.fresh().await?;
                decide()
            }
            decided => decided,
        }
    }

    async fn served(&self, inbound: Inbound) -> Answer {
        let (info, query) = RequestInfo::parse(&inbound.method, &inbound.target);
        let known = self.0.registry.kind(&info.group, &info.version, &info.resource).is_some();
        let labels = Labels::of(&info, known);
        let answer = self.answered(inbound, info, query).await;
        self.0.metrics.count(labels, answer.code);
        answer
    }

    async fn answered(&self, inbound: Inbound, info: RequestInfo, query: Query) -> Answer {
        let Inbound { method, target, headers, body, credentials, upgrade } = inbound;
        let user = match self.admitted(&credentials, &headers, &info, &query).await {
            Ok(user) => user,
            Err(status) if status.code == 403 => {
                return Answer::from(status).with(http::header::X_CONTENT_TYPE_OPTIONS, "nosniff");
            }
            Err(status) => return status.into(),
        };
        let long_running = info.is_long_running();
        let _slot = match self.0.limits.enter(&user, &info, long_running) {
            Ok(slot) => slot,
            Err(status) => return status.into(),
        };
        let limit = match requested_timeout(&query) {
            Ok(asked) => asked.map_or(TIMEOUT, |asked| asked.min(TIMEOUT)),
            Err(_) if long_running => TIMEOUT,
            Err(status) => return status.into(),
        };
        let request = Request {
            inner: &self.0,
            method: &method,
            target: &target,
            headers: &headers,
            info,
            query,
            user,
            warnings: Mutex::default(),
        };
        if long_running {
            return request.answered(body, upgrade).await;
        }
        // Not through a function: the room of an argument comes on top of that of the future it becomes a part of.
        match tokio::time::timeout(limit, request.answered(body, upgrade)).await {
            Ok(answer) => answer,
            Err(_) => {
                let why = "request did not complete within requested timeout - context deadline exceeded";
                Status::timeout(why).into()
            }
        }
    }
}

impl Request<'_> {
    async fn answered(
        &self,
        body: BoxFuture<'static, Result<Bytes, Status>>,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Answer {
        let elsewhere = self.answered_elsewhere();
        // What is rare lies apart: every request has the room of the largest.
        let result = match self.info.is_resource {
            _ if elsewhere.is_some() => Box::pin(self.forwarded(elsewhere, body, upgrade)).await,
            true => self.resource(body, upgrade).await,
            false => Box::pin(self.other()).await,
        };
        let shaped = match result {
            Ok(answer) => self.shaped(answer).await,
            Err(status) => Err(status),
        };
        let mut answer = shaped.unwrap_or_else(Answer::from);
        let mut told: Vec<String> = Vec::new();
        for text in self.warnings.lock().drain(..) {
            if !told.contains(&text) {
                answer.warn(&text);
                told.push(text);
            }
        }
        answer
    }

    /// The server behind this one that the request is for.
    fn answered_elsewhere(&self) -> Option<Arc<Route>> {
        let aggregation = &self.inner.aggregation;
        aggregation
            .route(&self.info.group, &self.info.version)
            .or_else(|| aggregation.owner_of_document(&self.info.path))
    }

    async fn forwarded(
        &self,
        route: Option<Arc<Route>>,
        body: BoxFuture<'static, Result<Bytes, Status>>,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Answer, Status> {
        let route = route.ok_or_else(Status::path_not_found)?;
        self.inner.aggregation.forward(self, &route, body, upgrade).await
    }

    /// Brings an answer that holds objects into the form that the client asked for.
    async fn shaped(&self, answer: Answer) -> Result<Answer, Status> {
        let watch = match answer.content {
            Content::Bytes(_) | Content::Stream(_) | Content::Status(_) => return Ok(answer),
            Content::Watch { .. } => true,
            Content::Object(_) | Content::List { .. } => false,
        };
        let form = self.negotiated(watch)?;
        let Answer { code, headers, content } = answer;
        let json = |bytes: Bytes| Content::Bytes(bytes);
        let (content, content_type) = match (form.shape, content) {
            (Shape::Whole, content) => return Ok(Answer { code, headers, content }),
            (Shape::Metadata, Content::Object(object)) => {
                (json(answer::partial_object(&object, "v1").into()), "application/json")
            }
            (Shape::MetadataList, Content::List { list, .. }) => {
                (json(answer::partial_list(&list)), "application/json")
            }
            (Shape::Metadata, Content::List { kind, .. }) => {
                let why = "you requested PartialObjectMetadata, but the requested object is a list";
                return Err(Status::not_acceptable(format!(
                    "{why} (*{}.{kind})",
                    body::internal_package(&self.info.group)
                )));
            }
            (Shape::MetadataList, Content::Object(object)) => {
                let why = "you requested PartialObjectMetadataList, but the requested object is not a list";
                let package = body::internal_package(&self.info.group);
                return Err(Status::not_acceptable(format!("{why} (*{package}.{})", object.kind())));
            }
            (Shape::Metadata | Shape::MetadataList, Content::Watch { events, .. }) => {
                (Content::Stream(answer::partial_watch(events)), "application/json")
            }
            (Shape::Table(version), content) => {
                let info = &self.info;
                let kind = self.kind();
                let mut table = table::Table::new(kind, version, self.query.get("includeObject"), &self.inner.env)?;
                if let Some(resource) = self.inner.registry.resource(&info.group, &info.version, &info.resource) {
                    table.show_custom(&resource);
                }
                match content {
                    Content::Object(object) => (json(table.of_object(&object)), "application/json"),
                    Content::List { list, .. } if list.items.len() > MANY_ROWS => {
                        let made = tokio::task::spawn_blocking(move || table.of_list(&list)).await;
                        (json(made.map_err(Status::internal)?), "application/json")
                    }
                    Content::List { list, .. } => (json(table.of_list(&list)), "application/json"),
                    Content::Watch { events, .. } => (Content::Stream(table.of_watch(events)), "application/json"),
                    other => (other, "application/json"),
                }
            }
            (_, content) => (content, "application/json"),
        };
        Ok(Answer { code, headers, content }.with(http::header::CONTENT_TYPE, content_type))
    }

    /// The form of an answer that holds objects. Reviews are answered and not kept: nobody lists them in tables.
    fn negotiated(&self, watch: bool) -> Result<accept::Form, Status> {
        let kind = self.kind();
        let tables = kind.is_none_or(|kind| kind.storage.is_some() || kind.has_verb("list"));
        accept::negotiate(self.headers, watch, tables)
    }

    /// The row of what the request is about.
    fn kind(&self) -> Option<&'static api::Kind> {
        let info = &self.info;
        self.inner.registry.kind(&info.group, &info.version, &info.resource)
    }

    pub(crate) fn warn(&self, text: impl Into<String>) {
        self.warnings.lock().push(text.into());
    }
}

/// `?timeout=32s`, as Go writes durations; none for zero. Upstream: apiserver pkg/endpoints/filters parseTimeout.
fn requested_timeout(query: &Query) -> Result<Option<Duration>, Status> {
    let text = query.get("timeout");
    if text.is_empty() || text == "0" {
        return Ok(None);
    }
    let refused =
        |why: &str| Status::bad_request(format!("invalid timeout specified in the request URL - time: {why} {text:?}"));
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..unit_at].parse().map_err(|_| refused("invalid duration"))?;
        let (unit, after) = rest[unit_at..]
            .split_at(rest[unit_at..].find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len() - unit_at));
        seconds += number
            * match unit {
                "ns" => 1e-9,
                "us" | "µs" => 1e-6,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "" => return Err(refused("missing unit in duration")),
                _ => return Err(refused("invalid duration")),
            };
        rest = after;
    }
    Ok((seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(86_400.0))))
}
