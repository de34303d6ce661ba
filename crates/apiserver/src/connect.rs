//! Streams to nodes, pods and services: logs, exec, attach, port-forward, proxy.
//!
//! The request is sent on to the node's kubelet (or the pod's own port) and the two connections become one pipe when the
//! answer is an upgrade; WebSocket and SPDY frames pass unread. What is proxied comes back with its links rewritten, so that they
//! lead through the proxy. Upstream: pkg/registry/core/pod/strategy.go LogLocation, StreamLocation; apimachinery pkg/util/proxy.

mod dial;
mod html;
mod rewrite;
mod target;

use api::Kind;
use apimachinery::{Reason, Status};
use bytes::Bytes;
use env::Env;
use futures_util::StreamExt;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderName, Method, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tracing::debug;

use crate::answer::{Answer, Content};
use crate::server::Request;
use dial::Dialer;
use futures_util::future::BoxFuture;
use rewrite::Rewriter;
pub(crate) use target::address_of;
use target::{Purpose, Target};

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

/// Figures of a node are no longer than this.
const MAX_TEXT: usize = 16 << 20;

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

    /// Shows kubelets this certificate from now on.
    pub(crate) fn renew(&self, certificate: &pki::Leaf) -> Result<(), crate::BuildError> {
        self.dialer.renew(certificate)
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
        let Some(target) = target::find(request, kind).await? else {
            return Ok(Answer::new(StatusCode::NO_CONTENT, Content::Bytes(Bytes::new())));
        };
        let wants_upgrade = request.headers.contains_key(UPGRADE);
        let is_read = matches!(*request.method, Method::GET | Method::HEAD);
        if target.purpose == Purpose::Proxy
            && is_read
            && !wants_upgrade
            && let Some(redirect) = rewrite::to_root(request.target)
        {
            return Ok(redirect);
        }
        let body = if is_read || wants_upgrade { Bytes::new() } else { body.await? };
        let as_messages = target.purpose == Purpose::Log && streams::remotecommand::is_upgrade(request.headers);
        let tunnels = target.purpose == Purpose::Stream && streams::tunnel::is_upgrade(request.headers);
        let outgoing = if tunnels { tunnelled(&target) } else { outgoing(request, &target, body) }?;
        let mut sender = self.reach(&target).await?;
        let mut response = sender.send_request(outgoing).await.map_err(|error| failed(&target, error))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let Some(client) = upgrade else { return Err(Status::bad_request("Upgrade request required")) };
            let node = hyper::upgrade::on(&mut response);
            let mut answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS, Content::Bytes(Bytes::new()));
            answer.headers = response.headers().clone();
            if tunnels {
                let refused = |error: streams::remotecommand::UpgradeError| Status::bad_request(error.to_string());
                answer.headers = streams::tunnel::response(request.headers).map_err(refused)?.into_parts().0.headers;
            }
            let spoken = match () {
                () if tunnels => Spoken::Tunnel,
                () if streams::remotecommand::is_upgrade(request.headers) => Spoken::WebSocket,
                () => Spoken::Other,
            };
            self.env.spawn(pipe(client, node, spoken));
            return Ok(answer);
        }
        if target.purpose == Purpose::Log && response.status().as_u16() >= 400 {
            return Err(refusal(response).await);
        }
        let (parts, incoming) = response.into_parts();
        // The sender lives as long as the body is read: the connection ends with it.
        let stream = BodyStream::new(incoming).filter_map(move |frame| {
            let _keep = &sender;
            let data = match frame {
                Ok(frame) => frame.into_data().ok().map(Ok),
                Err(error) => Some(Err(std::io::Error::other(error))),
            };
            std::future::ready(data)
        });
        if let Some(client) = upgrade.filter(|_| as_messages) {
            let refused = |error: streams::remotecommand::UpgradeError| Status::bad_request(error.to_string());
            let mut answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS, Content::Bytes(Bytes::new()));
            answer.headers = streams::messages::response(request.headers).map_err(refused)?.into_parts().0.headers;
            self.env.spawn(async move {
                match client.await {
                    Ok(client) => streams::messages::tell(TokioIo::new(client), stream).await,
                    Err(error) => debug!(%error, "an upgrade failed"),
                }
            });
            return Ok(answer);
        }
        let content = Content::Stream(stream.boxed());
        let answer = Answer { code: parts.status, headers: passed_on(&parts.headers), content };
        match target.purpose {
            Purpose::Proxy => Rewriter::new(request, &target).rewrite(answer).await,
            Purpose::Log | Purpose::Stream => Ok(answer),
        }
    }

    /// A text that a node's kubelet gives the API server.
    pub(crate) async fn read(&self, host: &str, port: u16, path: &str) -> std::io::Result<Bytes> {
        let target = Target {
            scheme: target::Scheme::Kubelet,
            host: host.to_owned(),
            port,
            path: path.to_owned(),
            purpose: Purpose::Log,
        };
        let connection = self.dialer.connect(&target).await?;
        let shaken = hyper::client::conn::http1::handshake(connection).await;
        let (mut sender, driver) = shaken.map_err(std::io::Error::other)?;
        self.env.spawn(async move { drop(driver.await) });
        let request = http::Request::get(path).header(http::header::HOST, target.authority());
        let request = request.body(Full::<Bytes>::default()).map_err(std::io::Error::other)?;
        let response = sender.send_request(request).await.map_err(std::io::Error::other)?;
        let code = response.status();
        let body = http_body_util::Limited::new(response.into_body(), MAX_TEXT).collect().await;
        let body = body.map_err(std::io::Error::other)?.to_bytes();
        match code {
            StatusCode::OK => Ok(body),
            code => Err(std::io::Error::other(format!("{code}: {}", String::from_utf8_lossy(&body).trim()))),
        }
    }

    /// A connection for one request.
    async fn reach(&self, target: &Target) -> Result<SendRequest<Full<Bytes>>, Status> {
        let connection = self.dialer.connect(target).await.map_err(|error| failed(target, error))?;
        let (sender, driver) =
            hyper::client::conn::http1::handshake(connection).await.map_err(|error| failed(target, error))?;
        self.env.spawn(async move {
            if let Err(error) = driver.with_upgrades().await {
                debug!(%error, "a connection to a node ended");
            }
        });
        Ok(sender)
    }
}

/// The request for SPDY that goes on to a kubelet in place of one for a WebSocket around it.
fn tunnelled(target: &Target) -> Result<http::Request<Full<Bytes>>, Status> {
    let request = http::Request::post(&target.path)
        .header(http::header::HOST, target.authority())
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, streams::spdy::NAME)
        .header(&streams::spdy::PROTOCOL_VERSION, "portforward.k8s.io");
    request.body(Full::default()).map_err(Status::internal)
}

fn outgoing(request: &Request<'_>, target: &Target, body: Bytes) -> Result<http::Request<Full<Bytes>>, Status> {
    let mut outgoing = http::Request::new(Full::new(body));
    *outgoing.method_mut() = request.method.clone();
    *outgoing.uri_mut() = target.path.parse().map_err(|_| Status::bad_request("the path is no path"))?;
    let headers = outgoing.headers_mut();
    *headers = passed_on(request.headers);
    // A kubelet gives a log as a body; who wants it as messages gets them from here.
    if request.headers.contains_key(UPGRADE) && target.purpose != Purpose::Log {
        for name in [CONNECTION, UPGRADE] {
            headers.extend(request.headers.get_all(&name).iter().map(|value| (Some(name.clone()), value.clone())));
        }
    }
    let host = target.authority().parse().map_err(|_| Status::internal("the node's address is no host"))?;
    headers.insert(http::header::HOST, host);
    if target.purpose == Purpose::Proxy {
        Rewriter::new(request, target).announce(headers);
    }
    Ok(outgoing)
}

/// Headers without those that belong to one connection.
pub(crate) fn passed_on(headers: &HeaderMap) -> HeaderMap {
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

/// What goes over two connections that become one.
enum Spoken {
    /// The client's bytes are inside a WebSocket.
    Tunnel,
    WebSocket,
    Other,
}

/// Joins the connections of a client and a server that have both changed their protocol; `frames`: to WebSockets.
pub(crate) async fn join_upgraded(client: hyper::upgrade::OnUpgrade, server: hyper::upgrade::OnUpgrade, frames: bool) {
    pipe(client, server, if frames { Spoken::WebSocket } else { Spoken::Other }).await;
}

/// Joins the two connections until either ends.
async fn pipe(client: hyper::upgrade::OnUpgrade, node: hyper::upgrade::OnUpgrade, spoken: Spoken) {
    let (client, node) = match futures_util::join!(client, node) {
        (Ok(client), Ok(node)) => (TokioIo::new(client), TokioIo::new(node)),
        (client, node) => return debug!(client = ?client.err(), node = ?node.err(), "an upgrade failed"),
    };
    let joined = match spoken {
        Spoken::Tunnel => {
            streams::tunnel::join(client, node).await;
            Ok(())
        }
        Spoken::WebSocket => streams::frames::join(client, node).await,
        Spoken::Other => {
            let (mut client, mut node) = (client, node);
            tokio::io::copy_bidirectional(&mut client, &mut node).await.map(drop)
        }
    };
    if let Err(error) = joined {
        debug!(%error, "a stream to a node broke off");
    }
}

/// Why nobody answers. Upstream: UpgradeAwareHandler for streams, Transport.RoundTrip for proxies.
fn failed(target: &Target, error: impl std::fmt::Display) -> Status {
    match target.purpose {
        Purpose::Proxy => Status::service_unavailable(format!("error trying to reach service: {error}")),
        Purpose::Log | Purpose::Stream => Status::internal(format!("error dialing backend: {error}")),
    }
}
