//! The running proxy: informers in, tables out.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{Client, Informer, Informers, Selection, resources};
use env::Env;
use ipnet::IpNet;
use linux::Scope;
use linux::netns::NetNs;
use linux::nft::Losses;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::driver::{Driver, Error, Network, StaleFlows};
use crate::endpoint::{Endpoints, Locality, read};
use crate::plan::{Balance, Vip, plan};
use crate::service::Service;
use crate::table::{Changes, Table};

/// What [`build`] needs.
#[derive(Clone)]
pub struct Config {
    /// Time and tasks.
    pub env: Env,
    /// Names and folders.
    pub scope: Scope,
    /// The API server, as this node's proxy.
    pub client: Client,
    /// The node's name: endpoints on it are local.
    pub node_name: String,
    /// All pods of the cluster.
    pub pod_cidrs: Vec<IpNet>,
    /// All cluster addresses of Services, one range per family.
    pub service_cidrs: Vec<IpNet>,
    /// The node's network namespace.
    pub host: NetNs,
}

impl Config {
    /// The calling thread's network namespace, no ranges yet.
    pub fn new(env: Env, scope: Scope, client: Client, node_name: &str) -> Result<Config, Error> {
        Ok(Config {
            env,
            scope,
            client,
            node_name: node_name.to_owned(),
            pod_cidrs: Vec::new(),
            service_cidrs: Vec::new(),
            host: NetNs::current()?,
        })
    }
}

/// A proxy that is ready to run.
pub struct Proxy {
    env: Env,
    client: Client,
    node_name: String,
    driver: Arc<Driver>,
    losses: Losses,
    synced: watch::Sender<bool>,
}

/// Connects to the kernel and makes the service range routable. Tables of an earlier process go on working meanwhile.
pub async fn build(config: Config) -> Result<Proxy, Error> {
    let network = Network::new(&config.scope, config.pod_cidrs, config.service_cidrs);
    let driver = Driver::open(config.scope, config.host, network)?;
    driver.add_routes(&config.env).await?;
    Ok(Proxy {
        env: config.env,
        client: config.client,
        node_name: config.node_name,
        losses: driver.losses()?,
        driver: Arc::new(driver),
        synced: watch::Sender::new(false),
    })
}

const BY_SERVICE: &str = "service";
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const ZONE: &str = "topology.kubernetes.io/zone";
/// How long to wait after the kernel refused, at first and at most.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

impl Proxy {
    /// Turns true when the kernel first has every Service.
    pub fn synced(&self) -> watch::Receiver<bool> {
        self.synced.subscribe()
    }

    /// Follows the API server until dropped. The kernel's tables stay then.
    pub async fn run(self) {
        let informers = Informers::new(self.client.clone());
        let (services, slices) = (informers.of(&resources::SERVICES), informers.of(&resources::ENDPOINT_SLICES));
        slices.index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
        let this_node = Selection { fields: format!("metadata.name={}", self.node_name), ..Selection::all() };
        let nodes = informers.selected(&resources::NODES, this_node);
        let dirty = Arc::new(Dirty::default());
        let _subscriptions = [
            services.on_event({
                let dirty = dirty.clone();
                move |event| dirty.mark(event.object().key())
            }),
            slices.on_event({
                let dirty = dirty.clone();
                move |event| {
                    let states = [Some(event.object()), event.old()];
                    states.into_iter().flatten().filter_map(|slice| service_of(slice)).for_each(|key| dirty.mark(&key));
                }
            }),
            nodes.on_event({
                let (dirty, services) = (dirty.clone(), services.clone());
                move |event| {
                    // Of a node only its zone matters, and that hardly ever changes.
                    if event.old().map(|old| old.label(ZONE)) != Some(event.object().label(ZONE)) {
                        services.list("").iter().for_each(|service| dirty.mark(service.key()));
                    }
                }
            }),
        ];
        informers.synced().await;
        let mut worker = Worker { proxy: &self, services, slices, nodes, table: Table::new() };
        worker.run(&dirty).await;
    }
}

/// The Services that have to be looked at again.
#[derive(Default)]
struct Dirty {
    keys: Mutex<BTreeSet<ObjectKey>>,
    some: Notify,
}

impl Dirty {
    fn mark(&self, key: &ObjectKey) {
        self.keys.lock().insert(key.clone());
        self.some.notify_one();
    }

    fn take(&self) -> BTreeSet<ObjectKey> {
        std::mem::take(&mut *self.keys.lock())
    }
}

struct Worker<'a> {
    proxy: &'a Proxy,
    services: Informer,
    slices: Informer,
    nodes: Informer,
    table: Table,
}

impl Worker<'_> {
    async fn run(&mut self, dirty: &Dirty) {
        // Nothing is known of what an earlier process left: the first load replaces it.
        let (mut replace, mut retry) = (true, RETRY.0);
        loop {
            let keys = dirty.take();
            let mut changes = Changes::default();
            for key in &keys {
                self.table.set(key, self.wanted(key), &mut changes);
            }
            match self.commit(changes, replace).await {
                Ok(()) => {
                    retry = RETRY.0;
                    self.proxy.synced.send_replace(true);
                    replace = self.is_lost(dirty).await;
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "Services are not up to date on this node, trying again");
                    replace = true;
                    self.proxy.env.sleep(retry).await;
                    retry = (retry * 2).min(RETRY.1);
                }
            }
        }
    }

    /// Waits for a change, or until somebody took something out of the kernel's tables: then nothing is known of them.
    async fn is_lost(&self, dirty: &Dirty) -> bool {
        let Proxy { env, losses, .. } = self.proxy;
        let lost = tokio::select! {
            () = dirty.some.notified() => return false,
            lost = losses.next() => lost,
        };
        match lost {
            Ok(()) => {
                tracing::warn!("somebody took rules of Services away, putting them back");
                // Whoever is at it may go on; a fight is not fought at full speed.
                env.sleep(RETRY.0).await;
                true
            }
            Err(error) => {
                tracing::error!(error = %chain(&error), "what becomes of the rules of Services is not heard any more");
                dirty.some.notified().await;
                false
            }
        }
    }

    /// The virtual addresses of a Service as it is now.
    fn wanted(&self, key: &ObjectKey) -> Vec<(Vip, Balance)> {
        let Some(service) = self.services.get(key).and_then(|object| Service::read(&object)) else { return Vec::new() };
        let mut endpoints = Endpoints::new();
        for slice in self.slices.by_index(BY_SERVICE, &key.to_string()) {
            read(&slice, &mut endpoints);
        }
        let zone = self.nodes.list("").first().and_then(|node| node.label(ZONE).map(str::to_owned));
        let here = Locality { node: self.proxy.node_name.clone(), zone: zone.unwrap_or_default() };
        plan(&service, &endpoints, &here, &self.proxy.driver.families())
    }

    async fn commit(&mut self, changes: Changes, replace: bool) -> Result<(), Error> {
        let mut stale = match replace {
            true => StaleFlows::new(&self.table, self.table.vips()),
            false => StaleFlows::new(&self.table, changes.vips.iter()),
        };
        let driver = self.proxy.driver.clone();
        match replace {
            true => {
                // A full load takes the kernel a while.
                let table = std::mem::take(&mut self.table);
                let work = move || {
                    let result = driver.replace(&table);
                    (table, result)
                };
                let (table, result) = blocking(work).await;
                self.table = table;
                result?;
            }
            false => blocking(move || driver.apply(&changes)).await?,
        }
        if stale.any_node_port() {
            stale.node = self.proxy.driver.addresses(&self.proxy.env).await?;
        }
        if !stale.is_empty() {
            let driver = self.proxy.driver.clone();
            let forgotten = blocking(move || driver.forget_flows(&stale)).await?;
            tracing::debug!(forgotten, "UDP flows to endpoints that are gone");
        }
        Ok(())
    }
}

/// Runs `work` where it may block.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is ending, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The Service that a slice belongs to.
fn service_of(slice: &Object) -> Option<ObjectKey> {
    let name = slice.label(SERVICE_NAME).filter(|name| !name.is_empty())?;
    Some(ObjectKey { namespace: slice.namespace().to_owned(), name: name.to_owned() })
}

/// The error and all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
