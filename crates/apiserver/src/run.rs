//! The server's life: build binds and loads, run serves.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::future;
use pki::CertificateSpec;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

use crate::access::Access;
use crate::aggregation::{self, Aggregation};
use crate::bootstrap::{self, first_address};
use crate::config::Config;
use crate::connect::Nodes;
use crate::edge;
use crate::extension;
use crate::identity::UserInfo;
use crate::legacy_tokens;
use crate::local::Local;
use crate::registry::Registry;
use crate::server::{Issuer, Server};
use crate::strategy;

/// Why the server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("cannot listen on {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("the store cannot be read")]
    Store(#[from] store::Error),
    #[error("keys or certificates are not usable")]
    Pki(#[from] pki::PkiError),
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    #[error("TLS cannot be set up")]
    Serving(#[from] streams::TlsError),
    #[error("the cluster's authority is no certificate")]
    Authority,
    #[error("{0:?} is no range of addresses")]
    ServiceCidr(String),
}

/// A server that is bound and has read its store.
pub struct ApiServer {
    server: Server,
    config: Config,
    listeners: Vec<(TcpListener, SocketAddr)>,
    certificate: streams::ServerCertificate,
    renew_at: jiff::Timestamp,
    kubelet_renew_at: jiff::Timestamp,
    loaded: u64,
    ready: watch::Sender<bool>,
}

/// Binds the addresses, makes or loads the certificates, reads the store.
pub async fn build(mut config: Config) -> Result<ApiServer, BuildError> {
    if let Some(bad) = config.settings.service_cidrs.iter().find(|cidr| first_address(cidr).is_none()) {
        return Err(BuildError::ServiceCidr(bad.clone()));
    }
    let mut listeners = Vec::new();
    for address in config.bind.iter().copied() {
        let bound = async {
            let listener = TcpListener::bind(address).await?;
            let local = listener.local_addr()?;
            Ok((listener, local))
        };
        listeners.push(bound.await.map_err(|source| BuildError::Bind { address, source })?);
    }
    if let Some((_, local)) = listeners.first() {
        config.settings.port = local.port();
    }
    let serving = config.pki.certificate("apiserver", &serving_spec(&config))?;
    let kubelet_client = config.pki.certificate(KUBELET_CLIENT, &kubelet_spec())?;
    let nodes = Nodes::new(&config.env, &kubelet_client, config.pki.ca().certificate_pem())?;
    let certificate = streams::ServerCertificate::new(serving.chain()?, serving.private_key()?)?;
    let registry = Arc::new(Registry::new(config.env.clone(), config.store.clone(), &config.settings));
    let access = Access::new(&config, registry.clone())?;
    strategy::service::repair::repair(&config.env, &*config.store, &config.settings.node_ports).await?;
    let loaded = registry.load().await?;
    let issuer = Issuer::new(&config.settings, &config.pki);
    let aggregation = Aggregation::new(&config.env, &config.pki);
    let server = Server::new(config.settings.clone(), registry, access, nodes, aggregation, issuer);
    let ready = watch::Sender::new(false);
    let (renew_at, kubelet_renew_at) = (serving.renew_at(), kubelet_client.renew_at());
    Ok(ApiServer { server, config, listeners, certificate, renew_at, kubelet_renew_at, loaded, ready })
}

impl ApiServer {
    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().map(|(_, local)| *local).collect()
    }

    /// A transport into this server as `user`. Requests wait until the server runs.
    pub fn local(&self, user: UserInfo) -> Local {
        Local::new(self.server.clone(), user)
    }

    /// Turns true when the system's objects are there and requests are served.
    pub fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// Serves until `shutdown`, then lets requests under way end. Dropping the future stops everything at once.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let ApiServer { server, config, listeners, certificate, renew_at, kubelet_renew_at, loaded, ready } = self;
        let registry = server.inner().registry.clone();
        let bundle = [config.pki.ca().certificate_pem(), config.pki.front_proxy_ca().certificate_pem()].concat();
        let authorities: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle.as_bytes()).collect();
        let authorities = authorities.map_err(io::Error::other)?;
        let tls = streams::server_config(&certificate, &authorities).map_err(io::Error::other)?;
        let (stop, stopped) = watch::channel(false);
        let serving = listeners.into_iter().map(|(listener, address)| {
            info!(%address, "serving the API");
            let (server, mut stopped) = (server.clone(), stopped.clone());
            let service = move |request| edge::serve(server.clone(), request);
            let shutdown = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
            streams::Server::tls(config.env.clone(), tls.clone()).run(listener, service, shutdown)
        });
        let serving = future::try_join_all(serving);
        let background = future::join5(
            async {
                future::join(registry.clone().follow(loaded), extension::controller::run(registry.clone())).await;
            },
            registry.clone().maintain(),
            async {
                bootstrap::run(&server, &config.pki).await;
                ready.send_replace(true);
                future::join(aggregation::run(&server), legacy_tokens::run(&server)).await;
            },
            pki::keep_fresh(config.env.clone(), renew_at, || {
                let leaf = config.pki.certificate("apiserver", &serving_spec(&config))?;
                certificate.swap(leaf.chain()?, leaf.private_key()?)?;
                Ok::<_, BuildError>(leaf.renew_at())
            }),
            pki::keep_fresh(config.env.clone(), kubelet_renew_at, || {
                let leaf = config.pki.certificate(KUBELET_CLIENT, &kubelet_spec())?;
                server.inner().nodes.renew(&leaf)?;
                Ok::<_, BuildError>(leaf.renew_at())
            }),
        );
        let ending = async {
            shutdown.await;
            registry.stop();
            stop.send_replace(true);
            if !config.bind.is_empty() {
                future::pending::<()>().await;
            }
        };
        tokio::select! {
            served = serving, if !config.bind.is_empty() => served.map(drop),
            _ = background => Ok(()),
            () = ending => Ok(()),
        }
    }
}

/// The name of the certificate that kubelets know the API server by.
const KUBELET_CLIENT: &str = "apiserver-kubelet-client";

fn kubelet_spec() -> CertificateSpec {
    CertificateSpec::client("kube-apiserver-kubelet-client", "system:masters")
}

/// What the serving certificate says.
fn serving_spec(config: &Config) -> CertificateSpec {
    let Config { settings, names, .. } = config;
    let domain = &settings.cluster_domain;
    let mut dns_names: Vec<String> =
        ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"].map(str::to_owned).to_vec();
    dns_names.push(format!("kubernetes.default.svc.{domain}"));
    let mut addresses = vec![settings.advertise, [127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
    addresses
        .extend(settings.service_cidrs.iter().filter_map(|cidr| first_address(cidr)?.parse::<std::net::IpAddr>().ok()));
    for name in names {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => dns_names.push(name.clone()),
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    let dns_names: Vec<&str> = dns_names.iter().map(String::as_str).collect();
    CertificateSpec::server("kube-apiserver", &dns_names, &addresses)
}
