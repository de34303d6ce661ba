//! Exec, attach and port-forward: streams between a client and a container, opened with one-time tokens.

pub(crate) mod descriptor;
mod tokens;

use std::sync::Arc;

use cri::v1::{AttachRequest, ExecRequest};
use tokio::net::TcpListener;

pub(crate) use tokens::Tokens;

use crate::error::Error;
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

/// Serves streams.
pub(crate) async fn serve(_daemon: Arc<Daemon>, _listener: &TcpListener) {
    std::future::pending().await
}
