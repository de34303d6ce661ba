//! The control loops of upstream's controller manager: each makes one part of the cluster match what objects ask for.
//!
//! It sees the cluster through `client` only: informers to read, requests to write. It knows no store and no transport, and no
//! controller knows another. The main path: [`build`] makes them all; [`Controllers::run`] waits for the lease if there is one
//! and runs each under the client's runner until shutdown.
//!
//! ```no_run
//! # async fn example(client: client::Client) -> Result<(), controllers::BuildError> {
//! let config = controllers::Config::new(client, b"-----BEGIN CERTIFICATE-----...".to_vec());
//! controllers::build(config)?.run(std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

mod attach_detach;
mod bootstrap_token;
mod claim;
mod cluster_role_aggregation;
mod cron_job;
mod csr;
mod csr_approving;
mod csr_cleaner;
mod csr_signing;
mod daemon_set;
mod deployment;
mod device_taint_eviction;
mod disruption;
mod endpoint_slice;
mod endpoint_slice_mirroring;
mod endpoints;
mod ephemeral_volume;
mod garbage_collector;
mod go_selector;
mod history;
mod horizontal_pod_autoscaler;
mod job;
mod legacy_token_cleaner;
mod list;
mod meta;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod node_ttl;
mod persistent_volume;
mod pod_garbage;
mod pod_view;
mod port_order;
mod replica_set;
mod resource_claim;
mod resource_quota;
mod root_ca;
mod scale;
mod service;
mod service_account;
mod service_account_token;
mod service_cidr;
mod stateful_set;
mod storage;
mod taint_eviction;
mod trim;
mod ttl_after_finished;
mod validating_admission_policy_status;
mod views;
mod volume_expand;
mod volume_protection;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use client::{Client, Controller, EventRecorder, Informers, LeaderElection, TaskGuard};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use ipnet::IpNet;
use parking_lot::Mutex;

pub use list::{UnknownControllers, absent, accounts, check_names};
use pod_view::Pods;

/// What the controllers need to know.
#[derive(Clone)]
pub struct Config {
    pub client: Client,
    /// The clients of the service accounts in `kube-system` that write on behalf of each controller, by the account's name
    /// (`deployment-controller`); reading goes through `client`. `None`: `client` writes too.
    pub accounts: Option<Accounts>,
    /// The bundle that every namespace's `kube-root-ca.crt` carries, PEM.
    pub root_ca: Vec<u8>,
    /// Where nodes' pod ranges are taken from: none, or one for each address family.
    pub cluster_cidrs: Vec<IpNet>,
    /// Prefix lengths of a node's IPv4 and IPv6 range.
    pub node_prefixes: (u8, u8),
    /// `None`: this is the only process that runs controllers.
    pub leader_election: Option<LeaderElection>,
    /// Which controllers run, as upstream's `--controllers`: `*` stands for all that are on by default, `name` for this one, `-name` for
    /// all but this one; what comes first counts.
    pub controllers: Vec<String>,
    /// What is done that isn't by default.
    pub features: rules::Features,
    /// Keys of the authority that signs certificates, and of service accounts; without, neither is done here.
    pub pki: Option<Arc<pki::ClusterPki>>,
}

/// From a service account's name, one of [`accounts`], to its client.
pub type Accounts = Arc<dyn Fn(&str) -> Client + Send + Sync>;

impl Config {
    /// Upstream's defaults, without ranges for nodes and without leader election.
    pub fn new(client: Client, root_ca: Vec<u8>) -> Config {
        Config {
            client,
            accounts: None,
            root_ca,
            cluster_cidrs: Vec::new(),
            node_prefixes: (24, 64),
            leader_election: None,
            controllers: vec!["*".to_owned()],
            features: rules::Features::default(),
            pki: None,
        }
    }
}

/// Why a configuration cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("the root CA bundle is not text")]
    RootCa(#[from] std::string::FromUtf8Error),
    #[error("the cluster range {range} is smaller than a node's, which has {prefix} bits")]
    NodePrefix { range: IpNet, prefix: u8 },
    #[error("there are two cluster ranges of the same address family: {0} and {1}")]
    SameFamily(IpNet, IpNet),
    #[error(transparent)]
    Controllers(#[from] UnknownControllers),
}

/// The controllers, ready to run.
pub struct Controllers {
    config: Config,
    root_ca: Arc<str>,
}

/// Checks `config`.
pub fn build(config: Config) -> Result<Controllers, BuildError> {
    let root_ca = String::from_utf8(config.root_ca.clone())?.into();
    node_ipam::check(&config.cluster_cidrs, config.node_prefixes)?;
    check_names(&config.controllers)?;
    for controller in absent(&config.controllers) {
        tracing::warn!(controller, "this controller is asked for by name, and there is none here");
    }
    Ok(Controllers { config, root_ca })
}

impl Controllers {
    /// Runs until `shutdown`, or for ever.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let run = async {
            match &self.config.leader_election {
                None => self.term().await,
                Some(election) => election.run(&self.config.client, || self.term()).await,
            }
        };
        tokio::select! {
            () = run => {}
            () = shutdown => {
                if let Some(election) = &self.config.leader_election {
                    election.release(&self.config.client).await;
                }
            }
        }
    }

    /// Runs every controller until dropped.
    async fn term(&self) {
        let informers = Informers::new(self.config.client.trimming(trim::trim));
        let setup = Setup {
            client: self.config.client.clone(),
            accounts: Mutex::default(),
            pods: Pods::new(&informers),
            informers,
            config: &self.config,
            root_ca: self.root_ca.clone(),
        };
        let mut tasks: Vec<TaskGuard> =
            list::enabled(&setup).into_iter().map(|run| TaskGuard::new(setup.client.env().spawn(run))).collect();
        for task in &mut tasks {
            task.ended().await;
        }
        // They end only by being dropped; with none of them asked for, there is nothing to do either.
        std::future::pending().await
    }
}

/// What a controller is made from.
struct Setup<'a> {
    client: Client,
    /// The clients in use, by their accounts' names: a controller and its events share a connection.
    accounts: Mutex<BTreeMap<String, Client>>,
    informers: Informers,
    pods: Pods,
    config: &'a Config,
    root_ca: Arc<str>,
}

impl Setup<'_> {
    fn account(&self, name: &str) -> Client {
        let accounts = self.config.accounts.as_ref().filter(|_| !name.is_empty());
        accounts.map_or_else(
            || self.client.clone(),
            |accounts| self.accounts.lock().entry(name.to_owned()).or_insert_with(|| accounts(name)).clone(),
        )
    }

    /// Events are told in the name of `component`, by the service account `account`.
    fn recorder(&self, account: &str, component: &str) -> EventRecorder {
        EventRecorder::start(self.account(account), component, "")
    }

    fn run(&self, account: &str, controller: impl Controller) -> BoxFuture<'static, ()> {
        client::run(self.account(account), Arc::new(controller)).boxed()
    }
}
