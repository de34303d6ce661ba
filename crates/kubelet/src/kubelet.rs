//! The kubelet as a whole: built, run, and stopped.

use std::fs;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use client::{EventRecorder, Informers, Selection, TaskGuard, resources};
use cri::v1::{ListContainersRequest, RemovePodSandboxRequest};
use futures_util::future::join_all;
use linux::cgroup::Hierarchies;
use pki::ClientVerifier;
use tokio::net::TcpListener;
use tokio::sync::{Notify, broadcast, watch};

use crate::config::Config;
use crate::context::Context;
use crate::devices::{self, Devices};
use crate::error::Error;
use crate::images::Images;
use crate::logs::rotate;
use crate::node::{self, machine::Machine};
use crate::objects::Objects;
use crate::pods::Pods;
use crate::provisioner;
use crate::runtime::{self, Runtime};
use crate::server;
use crate::tokens::Tokens;

/// A kubelet that is ready to run.
pub struct Kubelet {
    config: Config,
    runtime: Runtime,
    machine: Machine,
    cgroups: Hierarchies,
    devices: Devices,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    verifier: ClientVerifier,
    handle: Handle,
}

/// What the kubelet's owner may do with it while it runs.
#[derive(Clone)]
pub struct Handle(Arc<Inner>);

struct Inner {
    config: Config,
    runtime: Runtime,
    cgroups: Hierarchies,
    running: watch::Sender<Option<Arc<Pods>>>,
    /// Ends everything that runs.
    stop: Notify,
}

/// Binds the server's address and examines the machine; needs a tokio runtime.
pub async fn build(config: Config) -> Result<Kubelet, Error> {
    if config.node_ips.is_empty() {
        return Err(Error::NoAddress);
    }
    for path in [&config.root, &config.logs] {
        fs::create_dir_all(path).map_err(|source| Error::Folder { path: path.clone(), source })?;
    }
    let devices = Devices::open(&config.root, config.env.clone(), config.client.clone())
        .map_err(|source| Error::Folder { path: config.root.clone(), source })?;
    let machine = Machine::examine(&config.root).map_err(Error::Machine)?;
    let cgroups = Hierarchies::detect().map_err(Error::Cgroups)?;
    let verifier = ClientVerifier::new(&config.client_authority)?;
    let tls = server::tls(&config)?;
    let runtime = Runtime::new(cri::Client::connect(&config.cri_endpoint)?, config.env.clone());
    let address = config.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let handle = Handle(Arc::new(Inner {
        config: config.clone(),
        runtime: runtime.clone(),
        cgroups: cgroups.clone(),
        running: watch::Sender::new(None),
        stop: Notify::new(),
    }));
    Ok(Kubelet { config, runtime, machine, cgroups, devices, listener, tls, verifier, handle })
}

impl Kubelet {
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// The port that it serves on.
    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(self.config.listen.port(), |address| address.port())
    }

    /// Runs the node's pods until `shutdown`, or until [`Handle::stop_all`]; containers go on after `shutdown`. Dropping the future
    /// is a crash.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let port = self.port();
        let Kubelet { config, runtime, machine, cgroups, devices, listener, tls, verifier, handle } = self;
        let env = config.env.clone();
        let pods_cell: Arc<OnceLock<Arc<Pods>>> = Arc::default();
        let ctx = Arc::new(context(config, runtime.clone(), &machine, (cgroups, devices), pods_cell.clone()));
        let pods = Pods::new(ctx.clone());
        let _ = pods_cell.set(pods.clone());
        let node = TaskGuard::new(env.spawn(node::run(ctx.clone(), machine, port)));
        let rotation = TaskGuard::new(env.spawn(rotate::run(ctx.clone())));
        let events = {
            let (ctx, pods) = (ctx.clone(), pods.clone());
            TaskGuard::new(env.spawn(runtime::follow(runtime, move |uid| {
                // Nobody may listen.
                let _ = ctx.changes.send(uid.map(str::to_owned));
                pods.poke(uid);
            })))
        };
        let network = {
            let (pods, mut network) = (pods.clone(), ctx.network.subscribe());
            TaskGuard::new(env.spawn(async move {
                while network.changed().await.is_ok() {
                    pods.poke(None);
                }
            }))
        };
        let drivers = {
            let (pods, mut changes) = (pods.clone(), ctx.devices.changes());
            TaskGuard::new(env.spawn(async move {
                while changes.changed().await.is_ok() {
                    pods.poke(None);
                }
            }))
        };
        let devices = TaskGuard::new(env.spawn(devices::run(ctx.clone())));
        let room = {
            let (pods, mut freed) = (pods.clone(), ctx.freed.subscribe());
            TaskGuard::new(env.spawn(async move {
                while freed.changed().await.is_ok() {
                    pods.poke_waiting();
                }
            }))
        };
        let provisioner = ctx.config.provisioner.clone().map(|client| {
            let scope = &ctx.config.scope;
            let (volumes, claims) = (scope.data("volumes"), scope.data("claims"));
            let node_name = ctx.config.node_name.clone();
            TaskGuard::new(env.spawn(provisioner::run(provisioner::Config { client, node_name, volumes, claims })))
        });
        let follow = async {
            // Pods wait for the runtime, whose name their statuses tell.
            ctx.node.synced().await;
            let subscription = pods.follow();
            ctx.pods.synced().await;
            pods.adopt_orphans().await;
            handle.0.running.send_replace(Some(pods.clone()));
            let () = std::future::pending().await;
            drop(subscription);
        };
        let (end, mut ended) = watch::channel(false);
        let ending = async move { drop(ended.wait_for(|ended| *ended).await) };
        let serve = server::run(ctx.clone(), listener, tls, verifier, ending);
        let stopping = async {
            tokio::select! {
                () = shutdown => {}
                () = handle.0.stop.notified() => {}
            }
        };
        let result = {
            tokio::pin!(serve);
            tokio::select! {
                served = &mut serve => served.map_err(Error::Serve),
                () = follow => Ok(()),
                () = stopping => {
                    pods.stop();
                    end.send_replace(true);
                    Ok(())
                }
            }
        };
        pods.stop();
        drop((node, events, network, rotation, room, provisioner, drivers, devices));
        handle.0.running.send_replace(None);
        result
    }
}

fn context(
    config: Config,
    runtime: Runtime,
    machine: &Machine,
    (cgroups, devices): (Hierarchies, Devices),
    pods: Arc<OnceLock<Arc<Pods>>>,
) -> Context {
    let client = config.client.clone();
    let informers = Informers::new(client.clone());
    let of_node = Selection::all().fields(format!("spec.nodeName={}", config.node_name));
    let this_node = Selection::all().fields(format!("metadata.name={}", config.node_name));
    let recorder = EventRecorder::start(client.clone(), "kubelet", &config.node_name);
    let poke = move |uid: &str| {
        if let Some(pods) = pods.get() {
            pods.poke(Some(uid));
        }
    };
    Context {
        env: config.env.clone(),
        pods: informers.selected(&resources::PODS, of_node),
        services: informers.of(&resources::SERVICES),
        node: informers.selected(&resources::NODES, this_node),
        objects: Objects::new(client.clone(), poke),
        tokens: Tokens::new(client.clone()),
        images: Images::new(config.env.clone(), runtime.clone(), recorder.clone()),
        allocatable: machine.allocatable(config.max_pods, config.eviction_memory, config.eviction_disk_percent),
        memory: machine.memory,
        network: watch::Sender::new(Err("container runtime status check may not have completed yet".to_owned())),
        admission: parking_lot::Mutex::default(),
        freed: watch::Sender::new(0),
        changes: broadcast::Sender::new(256),
        runtime_name: OnceLock::new(),
        cgroups,
        devices,
        recorder,
        runtime,
        client,
        config,
    }
}

impl Handle {
    /// Waits until this kubelet has seen every pod that is bound to its node, and has told the state of each.
    pub async fn reported(&self) {
        let mut running = self.0.running.subscribe();
        let pods = match running.wait_for(Option::is_some).await {
            Ok(pods) => pods.clone(),
            Err(_) => return,
        };
        if let Some(pods) = pods {
            pods.reported().await;
        }
    }

    /// Ends the kubelet and every container: SIGTERM to all at once, SIGKILL after `grace`; sandboxes and mounts are taken away. The
    /// API server is told nothing: after the next start the pods run again.
    pub async fn stop_all(&self, grace: Duration) -> Result<(), Error> {
        let pods = self.0.running.borrow().clone();
        if let Some(pods) = pods {
            pods.stop();
        }
        self.0.stop.notify_one();
        let runtime = &self.0.runtime;
        let failed = |action| move |source| Error::Runtime { action, source: Box::new(source) };
        let containers = runtime.list_containers(ListContainersRequest { filter: None }).await;
        let containers = containers.map_err(failed("list containers"))?.containers;
        let running = containers.iter().filter(|c| c.state() == cri::v1::ContainerState::ContainerRunning);
        let seconds = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let mut result = Ok(());
        for stopped in join_all(running.map(|container| runtime.stop_container(&container.id, seconds))).await {
            result = result.and(stopped.map_err(failed("stop a container")));
        }
        let removed = self.remove_sandboxes().await;
        result = result.and(removed);
        let (config, cgroups) = (self.0.config.clone(), self.0.cgroups.clone());
        let clean = tokio::task::spawn_blocking(move || {
            linux::mount::unmount_below(&config.root.join("pods"))?;
            cgroups.group(config.scope.cgroup("kubelet"))?.remove()
        });
        let cleaned = clean.await.map_err(std::io::Error::other).and_then(|cleaned| cleaned);
        result.and(cleaned.map_err(Error::CleanUp))
    }

    /// A worker that was ended may have been removing one: then it is gone by the second look.
    async fn remove_sandboxes(&self) -> Result<(), Error> {
        let runtime = &self.0.runtime;
        let failed = |action| move |source| Error::Runtime { action, source: Box::new(source) };
        let mut result = Ok(());
        for _ in 0..2 {
            let sandboxes = runtime.sandboxes().await.map_err(failed("list sandboxes"))?;
            let removals = sandboxes.iter().map(|sandbox| {
                runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: sandbox.id.clone() })
            });
            let removed = join_all(removals).await.into_iter().collect::<Result<Vec<_>, _>>();
            result = removed.map(drop).map_err(failed("remove a sandbox"));
            if result.is_ok() {
                break;
            }
        }
        result
    }
}
