//! Streams to nodes, pods and services: logs, exec, attach, port-forward, proxy.
//!
//! The request is sent on to the node's kubelet (or the pod's own port) and the two connections become one pipe when the
//! answer is an upgrade; WebSocket and SPDY frames pass unread. Upstream: pkg/registry/core/pod/strategy.go LogLocation,
//! StreamLocation; apimachinery pkg/util/proxy.

mod dial;
mod target;

use api::Kind;
use apimachinery::{Reason, Status};
use bytes::Bytes;
use env::Env;
use futures_util::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper_util::rt::TokioIo;
use tracing::debug;

use crate::answer::{Answer, Content};
use crate::server::Request;
use dial::Dialer;
use futures_util::future::BoxFuture;
use target::Target;

/// Headers that belong to one connection and are not sent on.
const HOP_BY_HOP: &[HeaderName] = &[
    http::header::HOST,
    http::header::AUTHORIZATION,
    http::header::TRANSFER_ENCODING,
    http::header::CONTENT_LENGTH,
    http::header::TE,
    http::header::TRAILER,
    http::header::PROXY_AUTHENTICATE,
    http::header::PROXY_AUTHORIZATION,
];

/// Reaches the nodes' kubelets as the API server.
pub(crate) struct Nodes {
    dialer: Dialer,
    env: Env,
}

impl Nodes {
    /// `certificate` is the client certificate that kubelets know the API server by; `authority` signed theirs.
    pub(crate) fn new(env: &Env, certificate: &pki::Leaf, authority: &str) -> Result<Nodes, crate::BuildError> {
        Ok(Nodes { dialer: Dialer::new(env, certificate, authority)?, env: env.clone() })
    }

    /// Whether a subresource is a stream to elsewhere.
    pub(crate) fn serves(kind: &Kind, subresource: &str) -> bool {
        match kind.kind {
            "Pod" => matches!(subresource, "proxy" | "log" | "exec" | "attach" | "portforward"),
            "Node" | "Service" => subresource == "proxy",
            _ => false,
        }
    }

    /// Sends the request on to where it leads.
    pub(crate) async fn connect(
        &self,
        request: &Request<'_>,
        kind: &Kind,
        body: BoxFuture<'static, Result<Bytes, Status>>,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Answer, Status> {
        let target = target::find(request, kind).await?;
        let wants_upgrade = request.headers.contains_key(UPGRADE);
        let body = if matches!(*request.method, Method::GET | Method::HEAD) || wants_upgrade {
            Bytes::new()
        } else {
            body.await?
        };
        let connection = self.dialer.connect(&target).await?;
        let (mut sender, driver) = hyper::client::conn::http1::handshake(connection).await.map_err(dialing)?;
        self.env.spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                debug!(%error, "a connection to a node ended");
            }
        });
        let outgoing = outgoing(request, &target, body)?;
        let mut response = sender.send_request(outgoing).await.map_err(dialing)?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else { return Err(Status::bad_request("Upgrade request required")) };
            let node = hyper::upgrade::on(&mut response);
            self.env.spawn(pipe(client, node));
            let mut answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS, Content::Bytes(Bytes::new()));
            answer.headers = response.headers().clone();
            return Ok(answer);
        }
        if target.is_log && response.status().as_u16() >= 400 {
            return Err(refusal(response).await);
        }
        let (parts, incoming) = response.into_parts();
        let headers = passed_on(&parts.headers);
        // The sender lives as long as the body is read: the connection ends with it.
        let stream = BodyStream::new(incoming).filter_map(move |frame| {
            let _keep = &sender;
            let data = match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(std::io::Error::other(error))),
            };
            std::future::ready(data)
        });
        Ok(Answer { code: parts.status, headers, content: Content::Stream(stream.boxed()) })
    }
}

fn outgoing(request: &Request<'_>, target: &Target, body: Bytes) -> Result<http::Request<Full<Bytes>>, Status> {
    let mut outgoing = http::Request::new(Full::new(body));
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = target.path.parse().map_err(|_| Status::bad_request("the path is no path"))?;
    let headers = outgoing.headers_mut();
    *headers = passed_on(request.headers);
    if request.headers.contains_key(UPGRADE) {
        for name in [CONNECTION, UPGRADE] {
            headers.extend(request.headers.get_all(&name).iter().map(|value| (Some(name.clone()), value.clone())));
        }
    }
    let host = target.authority().parse().map_err(|_| Status::internal("the node's address is no host"))?;
    headers.insert(http::header::HOST, host);
    Ok(outgoing)
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let mut kept = headers.clone();
    for name in HOP_BY_HOP.iter().chain([&CONNECTION, &UPGRADE]) {
        kept.remove(name);
    }
    kept
}

/// What a kubelet's refusal to give a log means.
async fn refusal(response: http::Response<hyper::body::Incoming>) -> Status {
    let code = response.status().as_u16();
    let text = http_body_util::Limited::new(response.into_body(), 64 * 1024).collect().await;
    let text = text.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()).unwrap_or_default();
    let reason = match code {
        400 => Reason::BadRequest,
        401 => Reason::Unauthorized,
        403 => Reason::Forbidden,
        404 => Reason::NotFound,
        _ => Reason::InternalError,
    };
    Status::new(code, reason, text)
}

/// Joins the two connections until either ends.
async fn pipe(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade) {
    let (client, node) = futures_util::join!(client, node);
    match (client, node) {
        (Ok(client), Ok(node)) => {
            let (mut client, mut node) = (TokioIo::new(client), TokioIo::new(node));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut node).await {
                debug!(%error, "a stream to a node broke off");
            }
        }
        (client, node) => debug!(client = ?client.err(), node = ?node.err(), "an upgrade failed"),
    }
}

fn dialing(error: impl std::fmt::Display) -> Status {
    Status::internal(format!("error dialing backend: {error}"))
}
