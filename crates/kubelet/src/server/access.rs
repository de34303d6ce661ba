//! Who may ask for what. Upstream: pkg/kubelet/server/auth.go.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ::streams::Peer;
use apimachinery::Value;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use parking_lot::Mutex;
use pki::ClientVerifier;
use tokio::time::Instant;

use super::Refusal;
use crate::context::Context;

/// Answers of the API server are believed this long (upstream: the webhooks' cache TTLs).
const ALLOWED: Duration = Duration::from_secs(300);
const DENIED: Duration = Duration::from_secs(30);
const AUTHENTICATED: Duration = Duration::from_secs(120);
/// So many answers are kept.
const KEPT: usize = 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct User {
    name: String,
    uid: String,
    groups: Vec<String>,
}

/// Decides about requests.
pub(super) struct Access {
    ctx: Arc<Context>,
    verifier: ClientVerifier,
    allowed: Mutex<BTreeMap<Question, (bool, Instant)>>,
    tokens: Mutex<BTreeMap<String, (User, Instant)>>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Question {
    user: User,
    verb: &'static str,
    subresource: &'static str,
}

impl Access {
    pub(super) fn new(ctx: Arc<Context>, verifier: ClientVerifier) -> Access {
        Access { ctx, verifier, allowed: Mutex::default(), tokens: Mutex::default() }
    }

    /// Lets the request pass, or says 401 or 403.
    pub(super) async fn check<B>(&self, request: &Request<B>, peer: Option<&Peer>, path: &str) -> Result<(), Refusal> {
        let user = self.user(request, peer).await?;
        if user.name == self.ctx.config.api_server_user {
            return Ok(());
        }
        let question = Question { user, verb: verb(request.method()), subresource: subresource(path) };
        if self.allows(&question).await? {
            return Ok(());
        }
        let Question { user, verb, subresource } = question;
        Err(Refusal::new(
            StatusCode::FORBIDDEN,
            format!("Forbidden (user={}, verb={verb}, resource=nodes, subresource(s)=[{subresource}])", user.name),
        ))
    }

    async fn user<B>(&self, request: &Request<B>, peer: Option<&Peer>) -> Result<User, Refusal> {
        let unauthorized = || Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized");
        let chain = peer.map(|peer| peer.certificates.as_slice()).unwrap_or_default();
        if !chain.is_empty() {
            let identity = self.verifier.identify(chain, self.ctx.env.now()).map_err(|_| unauthorized())?;
            let mut groups = identity.groups;
            groups.push("system:authenticated".to_owned());
            return Ok(User { name: identity.user, uid: identity.uid, groups });
        }
        let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer ")).ok_or_else(unauthorized)?;
        let now = self.ctx.env.monotonic();
        if let Some((user, until)) = self.tokens.lock().get(token)
            && *until > now
        {
            return Ok(user.clone());
        }
        let user = self.review(token).await?.ok_or_else(unauthorized)?;
        remember(&self.tokens, token.to_owned(), (user.clone(), now + AUTHENTICATED));
        Ok(user)
    }

    async fn review(&self, token: &str) -> Result<Option<User>, Refusal> {
        let mut body = Value::object();
        body.set(&["apiVersion"], "authentication.k8s.io/v1");
        body.set(&["kind"], "TokenReview");
        body.set(&["spec", "token"], token);
        let answer = self.post("/apis/authentication.k8s.io/v1/tokenreviews", &body).await?;
        if answer.bool_at(&["status", "authenticated"]) != Some(true) {
            return Ok(None);
        }
        let text = |field| answer.str_at(&["status", "user", field]).unwrap_or_default().to_owned();
        let groups = answer.items_at(&["status", "user", "groups"]).iter().filter_map(Value::as_str);
        let groups = groups.map(str::to_owned).collect();
        Ok(Some(User { name: text("username"), uid: text("uid"), groups }))
    }

    async fn allows(&self, question: &Question) -> Result<bool, Refusal> {
        let now = self.ctx.env.monotonic();
        if let Some((allowed, until)) = self.allowed.lock().get(question)
            && *until > now
        {
            return Ok(*allowed);
        }
        let mut body = Value::object();
        body.set(&["apiVersion"], "authorization.k8s.io/v1");
        body.set(&["kind"], "SubjectAccessReview");
        body.set(&["spec", "user"], &question.user.name);
        body.set(&["spec", "uid"], &question.user.uid);
        let groups = question.user.groups.iter().map(|group| Value::from(group.as_str())).collect();
        body.set(&["spec", "groups"], Value::Array(groups));
        for (field, value) in [
            ("verb", question.verb),
            ("version", "v1"),
            ("resource", "nodes"),
            ("subresource", question.subresource),
            ("name", &self.ctx.config.node_name),
        ] {
            body.set(&["spec", "resourceAttributes", field], value);
        }
        let answer = self.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &body).await?;
        let allowed = answer.bool_at(&["status", "allowed"]) == Some(true);
        let until = now + if allowed { ALLOWED } else { DENIED };
        remember(&self.allowed, question.clone(), (allowed, until));
        Ok(allowed)
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        let failed = |error: String| Refusal::internal(format!("Authorization error: {error}"));
        let sent = self.ctx.client.raw(Method::POST, path, Some("application/json"), Bytes::from(body.to_json())).await;
        let answer = sent.map_err(|error| failed(error.to_string()))?;
        match answer.body {
            client::Body::Object(object) => Ok(object.to_value()),
            client::Body::Bytes(bytes) => Value::parse(&bytes).map_err(|error| failed(error.to_string())),
            client::Body::Stream(stream) => {
                let bytes = crate::logs::collect(stream).await.map_err(|error| failed(error.to_string()))?;
                Value::parse(&bytes).map_err(|error| failed(error.to_string()))
            }
            _ => Err(failed("the API server's answer is not understood".to_owned())),
        }
    }
}

/// Keeps an answer; when there are too many, all are asked for again.
fn remember<K: Ord, V>(kept: &Mutex<BTreeMap<K, V>>, key: K, value: V) {
    let mut kept = kept.lock();
    if kept.len() >= KEPT {
        kept.clear();
    }
    kept.insert(key, value);
}

fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

/// What of a node a path is. Upstream: nodeAuthorizerAttributesGetter.
fn subresource(path: &str) -> &'static str {
    match path.trim_start_matches('/').split('/').next().unwrap_or_default() {
        "stats" => "stats",
        "metrics" => "metrics",
        "logs" => "log",
        "pods" | "runningpods" => "pods",
        "healthz" | "livez" | "readyz" => "healthz",
        "configz" => "configz",
        _ => "proxy",
    }
}
