//! The Container Runtime Interface: its messages, its two services, and a client over a unix socket; and beside it the
//! interface of drivers of devices ([`drivers`]).
//!
//! [`v1`] is compiled from upstream's interface description (`k8s.io/cri-api`, release of Kubernetes v1.35). This crate knows
//! neither a runtime nor a kubelet: `runtime` implements the services, `kubelet` calls them through [`Client`], and either
//! may be replaced by somebody else's.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let mut client = cri::Client::connect("/run/oxikube/oxikube/cri.sock")?;
//! let version = client.runtime.version(cri::v1::VersionRequest::default()).await?;
//! println!("{}", version.into_inner().runtime_name);
//! # Ok(())
//! # }
//! ```

/// The messages, clients and server traits of `runtime.v1`.
#[allow(missing_docs, clippy::all)]
pub mod v1 {
    tonic::include_proto!("runtime.v1");
}

pub mod drivers;
pub mod paths;

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use v1::image_service_client::ImageServiceClient;
use v1::runtime_service_client::RuntimeServiceClient;

/// The largest message either side accepts (upstream: `maxMsgSize` of the kubelet's remote runtime).
pub const MAX_MESSAGE: usize = 16 * 1024 * 1024;

/// The largest message a client accepts: an ExecSync answer carries two outputs of at most [`MAX_MESSAGE`] each.
const MAX_ANSWER: usize = 2 * MAX_MESSAGE + 64 * 1024;

/// Both services of one endpoint; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Sandboxes and containers.
    pub runtime: RuntimeServiceClient<Channel>,
    /// Images.
    pub images: ImageServiceClient<Channel>,
}

/// Why a client could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The endpoint names something other than a unix socket.
    #[error("unsupported runtime endpoint {0:?}: only unix sockets are supported")]
    Endpoint(String),
}

impl Client {
    /// A client for `endpoint`: a path, or a path after `unix://`. Connects when first used and again after a loss, so the
    /// runtime may start later; needs to be called within a tokio runtime.
    pub fn connect(endpoint: &str) -> Result<Client, ConnectError> {
        let channel = channel(socket_path(endpoint)?);
        Ok(Client {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MAX_ANSWER)
                .max_encoding_message_size(MAX_MESSAGE),
            images: ImageServiceClient::new(channel)
                .max_decoding_message_size(MAX_ANSWER)
                .max_encoding_message_size(MAX_MESSAGE),
        })
    }
}

/// A connection to whoever listens on the socket, made when it is first needed.
fn channel(path: PathBuf) -> Channel {
    endpoint().connect_with_connector_lazy(tower::service_fn(move |_| {
        let path = path.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(path).await?)) }
    }))
}

/// What connections to sockets are made with; nobody resolves its name.
fn endpoint() -> Endpoint {
    Endpoint::from_static("http://localhost")
}

/// The socket's path in `endpoint` (`unix:///run/x.sock` or `/run/x.sock`).
pub fn socket_path(endpoint: &str) -> Result<PathBuf, ConnectError> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint);
    if path.starts_with('/') {
        Ok(Path::new(path).to_path_buf())
    } else {
        Err(ConnectError::Endpoint(endpoint.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_path_or_a_unix_url() {
        let check = |endpoint: &str, expect: Option<&str>| {
            assert_eq!(socket_path(endpoint).ok(), expect.map(PathBuf::from), "{endpoint}");
        };
        check("/run/a.sock", Some("/run/a.sock"));
        check("unix:///run/a.sock", Some("/run/a.sock"));
        check("tcp://127.0.0.1:1", None);
        check("run/a.sock", None);
    }
}
