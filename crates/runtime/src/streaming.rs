//! Exec, attach and port-forward: streams between a client and a container, opened with one-time tokens.
//!
//! CRI's Exec, Attach and PortForward answer with an address of this server, on loopback; whoever has it may use it once, within a
//! minute. The client upgrades the request to a WebSocket or to SPDY.

pub(crate) mod descriptor;
mod port_forward;
mod sessions;
mod tokens;

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use streams::{remotecommand, spdy};
use tokio::net::TcpListener;

use cri::v1::{AttachRequest, ExecRequest};

pub(crate) use tokens::Tokens;

use crate::error::{Context, Error};
use crate::state::Daemon;

/// What a token was issued for.
#[derive(Clone, Debug)]
pub(crate) enum Purpose {
    Exec { container: String, request: ExecRequest },
    Attach { container: String, request: AttachRequest },
    PortForward { sandbox: String, ports: Vec<i32> },
}

/// The address at which one client may do `purpose` once.
pub(crate) fn url(daemon: &Daemon, path: &str, purpose: Purpose) -> Result<String, Error> {
    match daemon.tokens.issue(purpose) {
        Some(token) => Ok(format!("http://{}/{path}/{token}", daemon.streaming)),
        None => Err(Error::State("maximum number of in-flight requests exceeded".to_owned())),
    }
}

/// Serves streams until the future is dropped; sessions under way end with the daemon.
pub(crate) async fn serve(daemon: Arc<Daemon>, listener: TcpListener) -> Result<(), Error> {
    let server = streams::Server::plain(daemon.env.clone());
    let answer = move |request| {
        let daemon = daemon.clone();
        async move { answer(&daemon, request) }
    };
    server.run(listener, answer, std::future::pending()).await.context(|| "serve streams".to_owned())
}

type Body = Full<bytes::Bytes>;

/// What a request asked to become.
enum Upgrade {
    WebSocket(remotecommand::Upgrade),
    Spdy(spdy::Upgrade),
}

fn answer(daemon: &Arc<Daemon>, mut request: Request<Incoming>) -> Response<Body> {
    let refuse = |status: StatusCode, text: String| {
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        response
    };
    let mut path = request.uri().path().trim_start_matches('/').splitn(2, '/');
    let (kind, token) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
    let Some(purpose) = daemon.tokens.redeem(token).filter(|purpose| purpose.path() == kind) else {
        return refuse(StatusCode::NOT_FOUND, "rejected: unknown or used token".to_owned());
    };
    let (response, upgrade) = if remotecommand::is_upgrade(request.headers()) {
        match remotecommand::upgrade(&mut request, &[remotecommand::V5, remotecommand::V4, remotecommand::V1]) {
            Ok(upgrade) => (upgrade.response.clone_head(), Upgrade::WebSocket(upgrade)),
            Err(error) => return refuse(error.status(), error.to_string()),
        }
    } else {
        let protocols = match purpose {
            Purpose::Exec { .. } | Purpose::Attach { .. } => remotecommand::multiplexed::PROTOCOLS,
            Purpose::PortForward { .. } => &[PORT_FORWARD],
        };
        match spdy::upgrade(&mut request, protocols) {
            Ok(upgrade) => (upgrade.response.clone_head(), Upgrade::Spdy(upgrade)),
            Err(error) => return error.response().map(Body::from),
        }
    };
    let on_task = daemon.clone();
    daemon.env.spawn(async move {
        if let Err(error) = sessions::serve(&on_task, purpose, upgrade).await {
            tracing::debug!(error = error.report(), "a stream failed");
        }
    });
    response
}

/// What is spoken on the streams of a port-forward.
const PORT_FORWARD: &str = "portforward.k8s.io";

impl Purpose {
    fn path(&self) -> &'static str {
        match self {
            Purpose::Exec { .. } => "exec",
            Purpose::Attach { .. } => "attach",
            Purpose::PortForward { .. } => "portforward",
        }
    }
}

/// The answer's head goes out with an empty body while the session keeps the upgrade.
trait CloneHead {
    fn clone_head(&self) -> Response<Body>;
}

impl CloneHead for Response<()> {
    fn clone_head(&self) -> Response<Body> {
        let mut response = Response::new(Body::default());
        *response.status_mut() = self.status();
        *response.headers_mut() = self.headers().clone();
        response
    }
}
