//! The embedded container runtime: images, sandboxes and containers behind the Container Runtime Interface.
//!
//! A client (the kubelet, or crictl) speaks CRI to its socket. Each pod sandbox has a shim, a small process of its own that
//! starts the pod's containers and outlives this daemon; the daemon never runs libcontainer itself. What must survive is
//! recorded below [`linux::Scope::data`]; [`Runtime::build`] reads it, finds the shims that still run, and clears away what a
//! crash left half made. It knows nothing of Kubernetes' API.
//!
//! Main path: `service` answers CRI; `sandbox` and `container` do the work; `spec` turns CRI's words into OCI's; `shims` speaks to
//! the shims; `handlers` finds another OCI runtime's program where a pod wants one; `streaming` carries exec, attach and port-forward; `image` and `network` are what containers stand on.
//!
//! ```no_run
//! # async fn example(env: env::Env, scope: linux::Scope) -> Result<(), Box<dyn std::error::Error>> {
//! use runtime::image::ImageStore;
//! use runtime::network::{EmbeddedConfig, EmbeddedNetwork};
//! let images = ImageStore::open(runtime::image::Config::new(env.clone(), &scope)).await?;
//! let network = EmbeddedNetwork::open(EmbeddedConfig::new(env.clone(), scope.clone())?).await?;
//! let config = runtime::Config::new(env, scope, images, std::sync::Arc::new(network));
//! runtime::Runtime::build(config).await?.run(std::future::pending()).await?;
//! # Ok(()) }
//! ```

pub mod image;
pub mod network;

mod cdi;
mod container;
mod error;
mod events;
mod handlers;
mod record;
mod recover;
mod sandbox;
mod seccomp;
mod service;
mod shims;
mod spec;
mod state;
mod stats;
mod streaming;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use env::Env;
use linux::Scope;
use linux::cgroup::Hierarchies;
use tokio::net::UnixListener;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;

use cri::v1::image_service_server::ImageServiceServer;
use cri::v1::runtime_service_server::RuntimeServiceServer;

pub use error::Error;

use error::Context;
use image::ImageStore;
use network::PodNetwork;
use state::Daemon;

/// What a runtime is built from.
#[derive(Clone)]
pub struct Config {
    /// Clock, chance, tasks.
    pub env: Env,
    /// Where everything lies and how it is called.
    pub scope: Scope,
    /// The CRI socket.
    pub socket: PathBuf,
    /// The node's images.
    pub images: ImageStore,
    /// What gives sandboxes their network.
    pub network: Arc<dyn PodNetwork>,
    /// The program and arguments that run [`shim::run`]; by default this program with the argument `shim`.
    pub shim_command: Option<Vec<OsString>>,
    /// RuntimeClass handlers and the OCI runtimes' programs they mean, besides `runc` and `crun` where these are installed.
    pub handlers: BTreeMap<String, PathBuf>,
    /// Where devices are described that containers may ask for; later folders count more.
    pub cdi: Vec<PathBuf>,
}

impl Config {
    /// The usual configuration: the socket `cri.sock` in the scope's run folder.
    pub fn new(env: Env, scope: Scope, images: ImageStore, network: Arc<dyn PodNetwork>) -> Config {
        Config {
            env,
            socket: scope.run("cri.sock"),
            scope,
            images,
            network,
            shim_command: None,
            handlers: BTreeMap::new(),
            cdi: cdi::FOLDERS.map(PathBuf::from).to_vec(),
        }
    }
}

/// A runtime that is ready to serve.
pub struct Runtime {
    daemon: Arc<Daemon>,
    listener: UnixListener,
    streaming: tokio::net::TcpListener,
    events: JoinHandle<()>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.events.abort();
        self.daemon.release();
    }
}

impl Runtime {
    /// Binds the socket, adopts the containers that run and clears away what is half made.
    pub async fn build(config: Config) -> Result<Runtime, Error> {
        let hierarchies = Hierarchies::detect().context(|| "find the control groups".to_owned())?;
        let streaming = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await;
        let streaming = streaming.context(|| "bind the streaming server".to_owned())?;
        let address = streaming.local_addr().context(|| "bind the streaming server".to_owned())?;
        let socket = config.socket.clone();
        let (daemon, receiver) = Daemon::new(config, hierarchies, address)?;
        let daemon = Arc::new(daemon);
        let events = daemon.env.spawn(events::follow(Arc::downgrade(&daemon), receiver));
        let recovered = recover::recover(&daemon).await;
        let listener = recovered.and_then(|()| bind(&socket));
        match listener {
            Ok(listener) => Ok(Runtime { daemon, listener, streaming, events }),
            Err(error) => {
                events.abort();
                daemon.release();
                Err(error)
            }
        }
    }

    /// A handle for who runs this daemon.
    pub fn handle(&self) -> Handle {
        Handle(self.daemon.clone())
    }

    /// Serves until `shutdown`; containers go on. Dropping the future is a crash.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let daemon = self.daemon.clone();
        let streaming = duplicate_tcp(&self.streaming)?;
        let service = service::Service(daemon.clone());
        let server = tonic::transport::Server::builder()
            .add_service(
                RuntimeServiceServer::new(service.clone())
                    .max_decoding_message_size(cri::MAX_MESSAGE)
                    .max_encoding_message_size(usize::MAX),
            )
            .add_service(ImageServiceServer::new(service).max_decoding_message_size(cri::MAX_MESSAGE));
        let incoming = UnixListenerStream::new(duplicate(&self.listener)?);
        let serve = server.serve_with_incoming(incoming);
        tokio::select! {
            served = serve => served.map_err(std::io::Error::other).context(|| "serve the CRI".to_owned()),
            served = streaming::serve(daemon, streaming) => served,
            () = shutdown => Ok(()),
        }
    }
}

/// What the daemon's owner may do besides CRI.
#[derive(Clone)]
pub struct Handle(Arc<Daemon>);

impl Handle {
    /// Asks every container to end, all at once; kills after `grace` what is left; stops every sandbox.
    pub async fn stop_all(&self, grace: std::time::Duration) -> Result<(), Error> {
        sandbox::stop_all(&self.0, grace).await
    }

    /// Stops and removes every sandbox and container.
    pub async fn remove_all(&self) -> Result<(), Error> {
        sandbox::remove_all(&self.0).await
    }
}

fn bind(socket: &std::path::Path) -> Result<UnixListener, Error> {
    let failed = || format!("bind {}", socket.display());
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).context(failed)?;
    }
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error).context(failed),
        _ => {}
    }
    let listener = UnixListener::bind(socket).context(failed)?;
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600)).context(failed)?;
    Ok(listener)
}

/// The listener stays with the runtime, so that a socket that was bound is served from the first connection on.
fn duplicate(listener: &UnixListener) -> Result<UnixListener, Error> {
    use std::os::fd::AsFd;
    let failed = || "serve the CRI socket".to_owned();
    let copy = listener.as_fd().try_clone_to_owned().context(failed)?;
    UnixListener::from_std(copy.into()).context(failed)
}

fn duplicate_tcp(listener: &tokio::net::TcpListener) -> Result<tokio::net::TcpListener, Error> {
    use std::os::fd::AsFd;
    let failed = || "serve streams".to_owned();
    let copy = listener.as_fd().try_clone_to_owned().context(failed)?;
    tokio::net::TcpListener::from_std(copy.into()).context(failed)
}
