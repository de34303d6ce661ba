//! Cluster DNS: answers for Services and their endpoints from informers, forwards the rest.
//!
//! [`zone`] is the pure part: which records a Service has. [`server`] answers questions from it; [`publish`] makes the `kube-dns`
//! Service point here. It knows nothing of how packets reach the service address (that is `proxy`).
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
//! })
//! .await?;
//! dns.run().await;
//! # Ok(())
//! # }
//! ```

mod ask;
mod publish;
mod server;
mod view;
mod zone;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Informers, Subscription, resources};
use env::Env;
use hickory_server::server::Server;
use parking_lot::RwLock;
use tokio::net::{TcpListener, UdpSocket};

pub use ask::ask;
use server::Handler;
use zone::Zone;

/// What cluster DNS needs.
pub struct Config {
    pub env: Env,
    /// Reads Services and EndpointSlices of all namespaces, and writes those of `kube-dns`.
    pub client: Client,
    /// `cluster.local`.
    pub domain: String,
    /// The address of the `kube-dns` Service.
    pub service_ip: IpAddr,
    /// Where to listen; port 0 takes a free one, the same for UDP and TCP.
    pub listen: SocketAddr,
    /// The node that the endpoint is on.
    pub node_name: String,
    /// Names the servers to forward to.
    pub resolv_conf: PathBuf,
}

/// Why DNS can't start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("listening for DNS on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("{domain:?} is no domain name")]
    Domain { domain: String },
    #[error("setting up the forwarder")]
    Forward(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Bound, not answering yet.
pub struct Dns {
    config: Config,
    address: SocketAddr,
    sockets: (UdpSocket, TcpListener),
    handler: Handler,
}

/// How long a TCP connection may be silent.
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Answers that one TCP connection may be waiting for.
const TCP_PENDING: usize = 32;

/// Binds the sockets.
pub async fn build(config: Config) -> Result<Dns, BuildError> {
    let zone = Zone::new(&config.domain).ok_or_else(|| BuildError::Domain { domain: config.domain.clone() })?;
    let sockets = bind(config.listen).await.map_err(|source| BuildError::Bind { address: config.listen, source })?;
    let address = sockets.0.local_addr().map_err(|source| BuildError::Bind { address: config.listen, source })?;
    let handler = Handler::new(Arc::new(RwLock::new(zone)), &config.resolv_conf).map_err(BuildError::Forward)?;
    Ok(Dns { config, address, sockets, handler })
}

impl Dns {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers until dropped.
    pub async fn run(self) {
        let Dns { config, address, sockets, handler } = self;
        let informers = Informers::new(config.client.clone());
        let _subscriptions = follow(&informers, handler.zone()).await;
        let mut server = Server::new(handler);
        server.register_socket(sockets.0);
        server.register_listener(sockets.1, TCP_TIMEOUT, TCP_PENDING);
        let publishing = publish::keep(&config, address);
        tokio::select! {
            result = server.block_until_done() => {
                if let Err(error) = result {
                    tracing::error!(%error, "cluster DNS ended");
                }
            }
            () = publishing => {}
        }
    }
}

/// The same free port for both protocols: the second one may be taken, then another is tried.
async fn bind(listen: SocketAddr) -> std::io::Result<(UdpSocket, TcpListener)> {
    let mut tries = 0;
    loop {
        let udp = UdpSocket::bind(listen).await?;
        match TcpListener::bind(udp.local_addr()?).await {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(error) if listen.port() != 0 || tries == 20 => return Err(error),
            Err(_) => tries += 1,
        }
    }
}

/// Keeps the zone in step with Services and EndpointSlices; returns once it knows all there are.
async fn follow(informers: &Informers, zone: Arc<RwLock<Zone>>) -> [Subscription; 2] {
    let services = informers.of(&resources::SERVICES);
    let slices = informers.of(&resources::ENDPOINT_SLICES);
    slices.index(view::BY_SERVICE, view::service_of_slice);
    services.synced().await;
    slices.synced().await;
    let update = {
        let (services, slices) = (services.clone(), slices.clone());
        Arc::new(move |key: &apimachinery::ObjectKey| {
            let service = services.get(key).and_then(|service| view::service(&service));
            let slices = slices.by_index(view::BY_SERVICE, &key.to_string());
            let endpoints = slices.iter().filter_map(|slice| view::endpoints(slice)).flatten().collect::<Vec<_>>();
            zone.write().set(key, service.as_ref(), &endpoints);
        })
    };
    let on_slice = update.clone();
    [
        services.on_event(move |event| update(event.object().key())),
        slices.on_event(move |event| {
            // A slice that changes hands concerns both Services.
            for object in [Some(event.object()), event.old()].into_iter().flatten() {
                if let Some(key) = view::service_key(object) {
                    on_slice(&key);
                }
            }
        }),
    ]
}
