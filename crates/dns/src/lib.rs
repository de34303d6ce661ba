//! Cluster DNS: answers for Services and their endpoints, forwards the rest.
//!
//! It is two halves. [`run`] is a small process of its own that answers questions and outlives the daemon, with what it was told last;
//! [`build`] and [`Dns::run`] are the daemon's half, which starts or adopts that process, tells it of Services and endpoints from
//! informers, starts it again when it ends, and makes the `kube-dns` Service point to it.
//!
//! `zone` is the pure part: which records a Service has. `server` answers questions from it. `frames` is what the two halves say, `wire`
//! how. It knows nothing of how packets reach the service address (that is `proxy`).
//! Upstream: the DNS specification of Kubernetes 1.1.0, as CoreDNS implements it.
//!
//! ```no_run
//! # async fn example(env: env::Env, client: client::Client) -> Result<(), dns::BuildError> {
//! let dns = dns::build(dns::Config {
//!     env,
//!     client,
//!     domain: "cluster.local".into(),
//!     service_ip: "10.96.0.10".parse().unwrap(),
//!     listen: "192.0.2.1:0".parse().unwrap(),
//!     node_name: "node".into(),
//!     resolv_conf: "/etc/resolv.conf".into(),
//!     program: dns::Program {
//!         command: vec!["/proc/self/exe".into(), "dns".into()],
//!         socket: "/run/oxikube/oxikube/dns.sock".into(),
//!     },
//! })
//! .await?;
//! dns.run().await;
//! # Ok(())
//! # }
//! ```

mod ask;
mod feed;
mod frames;
mod process;
mod program;
mod publish;
mod server;
mod view;
mod wire;
mod zone;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use client::{Backoff, Client, Informers};
use env::Env;

pub use ask::ask;
use feed::Feed;
pub use process::run;
use program::{Found, Process, Sockets};
pub use program::{Program, end};
use wire::Connection;

/// What cluster DNS needs.
pub struct Config {
    pub env: Env,
    /// Reads Services and EndpointSlices of all namespaces, and writes those of `kube-dns`.
    pub client: Client,
    /// `cluster.local`.
    pub domain: String,
    /// The address of the `kube-dns` Service.
    pub service_ip: IpAddr,
    /// Where to listen; port 0 takes a free one, the same for UDP and TCP. A process that listens at this address already keeps its port.
    pub listen: SocketAddr,
    /// The node that the endpoint is on.
    pub node_name: String,
    /// Names the servers to forward to.
    pub resolv_conf: PathBuf,
    /// The process that answers.
    pub program: Program,
}

/// Why DNS can't start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("listening for DNS on {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("{domain:?} is no domain name")]
    Domain { domain: String },
    #[error("starting the DNS process")]
    Process(#[source] io::Error),
}

/// Bound; the process is there, but answers only once it has been told everything.
pub struct Dns {
    config: Config,
    address: SocketAddr,
    sockets: Sockets,
    process: Process,
    /// What answers until the new process does.
    retiring: Option<Process>,
}

/// A process that lived this long is started again at once.
const LONG: Duration = Duration::from_secs(60);

/// Adopts the process that runs, or binds the sockets and starts one. One of another program or domain is replaced: its sockets are
/// handed on, so that no question is lost.
pub async fn build(config: Config) -> Result<Dns, BuildError> {
    if zone::Zone::new(&config.domain).is_none() {
        return Err(BuildError::Domain { domain: config.domain });
    }
    let bind_error = |source| BuildError::Bind { address: config.listen, source };
    let mut adopted = None;
    let mut retiring = None;
    let mut sockets = None;
    if let Some(Found { process, greeting }) = config.program.find(&config.env).await.map_err(BuildError::Process)? {
        let program = config.program.identity().map_err(BuildError::Process)?;
        let fits = greeting.as_ref().is_some_and(|greeting| {
            greeting.format == frames::FORMAT && greeting.program == program && greeting.domain == config.domain
        });
        sockets = greeting.and_then(|greeting| greeting.sockets).filter(|sockets| sockets.fit(config.listen));
        *if fits && sockets.is_some() { &mut adopted } else { &mut retiring } = Some(process);
    }
    if sockets.is_none()
        && let Some(useless) = retiring.take()
    {
        useless.kill(&config.env).await.map_err(BuildError::Process)?;
    }
    let sockets = match sockets {
        Some(sockets) => sockets,
        None => Sockets::bind(config.listen).map_err(bind_error)?,
    };
    let address = sockets.address().map_err(bind_error)?;
    if let Some(old) = &mut retiring
        && let Err(error) = old.retire().await
    {
        tracing::debug!(pid = old.life.pid, %error, "the old DNS process is gone already");
    }
    let process = match adopted {
        Some(process) => process,
        None => start(&config, &sockets).await.map_err(BuildError::Process)?,
    };
    tracing::info!(pid = process.life.pid, %address, "cluster DNS");
    Ok(Dns { config, address, sockets, process, retiring })
}

async fn start(config: &Config, sockets: &Sockets) -> io::Result<Process> {
    config.program.start(&config.env, &config.domain, sockets).await
}

impl Dns {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The process that answers, until it ends and another takes its place.
    pub fn pid(&self) -> i32 {
        self.process.life.pid
    }

    /// Keeps the process in step with the cluster, and alive, until dropped; the process goes on then. [`end`] ends it.
    pub async fn run(self) {
        let Dns { config, address, sockets, process, retiring } = self;
        let feed = Feed::start(&Informers::new(config.client.clone())).await;
        tokio::select! {
            () = keep(&config, &feed, &sockets, process, retiring) => {}
            () = publish::keep(&config, address) => {}
        }
    }
}

/// Feeds the process and starts another when it ends. Never returns.
async fn keep(config: &Config, feed: &Feed, sockets: &Sockets, mut process: Process, mut retiring: Option<Process>) {
    let env = &config.env;
    let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(10));
    loop {
        let since = env.monotonic();
        let why = tokio::select! {
            result = tell(config, feed, &mut process.connection, &mut retiring) => match result {
                Ok(never) => match never {},
                Err(error) => error.to_string(),
            },
            () = process.life.ended() => "it ended".to_owned(),
        };
        tracing::warn!(pid = process.life.pid, why, "the DNS process is started again");
        if let Err(error) = process.kill(env).await {
            tracing::error!(pid = process.life.pid, %error, "a DNS process can't be ended");
        }
        if env.monotonic() - since > LONG {
            backoff.reset();
        }
        process = loop {
            env.sleep(backoff.next(env)).await;
            match start(config, sockets).await {
                Ok(process) => break process,
                Err(error) => tracing::error!(%error, "the DNS process can't be started"),
            }
        };
    }
}

/// Tells the process everything, lets its predecessor go, and tells changes.
async fn tell(
    config: &Config,
    feed: &Feed,
    connection: &mut Connection,
    retiring: &mut Option<Process>,
) -> io::Result<Infallible> {
    feed.tell_all(connection, &config.resolv_conf).await?;
    if let Some(old) = retiring.take() {
        old.kill(&config.env).await?;
    }
    feed.tell_changes(connection).await
}
