//! The cluster: every component, built in order and run until it is told to stop. Read [`run`] from top to bottom.

mod control;
mod dns_check;
mod dns_identity;
pub(crate) mod lonely;
mod memory;
mod runtimes;
mod steps;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use apiserver::{ApiServer, UserInfo};
use client::{Client, TaskGuard};
use cluster::Settings;
use cluster::control::InFlight;
use cluster::progress::{Progress, report};
use env::Env;
use ipnet::IpNet;
use pki::{CertificateSpec, ClusterPki};
use runtime::Runtime;
use runtime::image::ImageStore;
use runtime::network::{EmbeddedConfig, EmbeddedNetwork, PodNetwork};
use tokio::sync::mpsc;

use runtimes::{Runtimes, within};
use steps::Steps;

/// How long a command may take to read its answer when the daemon ends.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The daemon's process: `oxikube daemon SETTINGS`, with progress lines on standard output and its log on standard error.
pub(crate) fn main(settings: Option<OsString>) -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("OXIKUBE_LOG");
    log_to_stderr(filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")));
    // No terminal's end is this process' end; fails only where it leads a session already.
    let _ = rustix::process::setsid();
    let outcome = settings.context("the daemon is started by oxikube start").and_then(|path| {
        let settings = read_settings(path.into())?;
        let runtimes = Runtimes::new()?;
        runtimes.api.block_on(run(settings, Env::system(), &runtimes))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            report(&Progress::Failed { message: format!("{error:#}") });
            ExitCode::FAILURE
        }
    }
}

/// Where everything is told that nobody waits for.
pub(crate) fn log_to_stderr<F>(filter: F)
where
    F: tracing_subscriber::Layer<tracing_subscriber::Registry> + Send + Sync + 'static,
{
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    tracing_subscriber::registry().with(filter).with(lines).init();
}

fn read_settings(path: PathBuf) -> Result<Settings> {
    let json = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&json).with_context(|| format!("reading {}", path.display()))
}

/// Builds and runs everything; returns after an orderly stop.
async fn run(settings: Settings, env: Env, runtimes: &Runtimes) -> Result<()> {
    // Two crates bring a default; this is the one that is meant.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let settings = Arc::new(settings);
    let steps = Steps::new(&env);
    let (stop_tx, mut stop_rx) = mpsc::channel(1);
    let scope = settings.scope();
    cluster::process::note(&settings)?;
    join_cgroup(&settings)?;
    env.crashpoint("daemon.begun");
    lonely::add(&env, &settings).await.context("giving the node an address of its own")?;

    let (store, pki) = steps
        .run("store", async {
            let config = store::Config::new(scope.data("store"), env.clone());
            let store = store::Embedded::open(config).context("opening the store")?;
            let pki = ClusterPki::load_or_create(&scope.data("pki"), &env).context("opening keys and certificates")?;
            let pki = match settings.certificate_lifetime {
                Some(longest) => pki.limit_lifetime(longest),
                None => pki,
            };
            Ok((store, Arc::new(pki)))
        })
        .await?;
    // However this ends, and whoever still holds the store then.
    let _closing = Closing(store.clone());

    let mut tasks = Vec::new();
    tasks.push(keep_admin(&env, &settings, &pki)?);
    let clients = steps.run("API server", start_api_server(&env, &settings, store, &pki, &mut tasks)).await?;
    steps.run("control plane", async { start_control_plane(&env, &settings, &pki, &clients, &mut tasks) }).await?;

    let starting = async {
        let node = node_runtime(&env, &settings).await?;
        let (containers, network, images) = (node.runtime.handle(), node.network, node.images);
        tasks.push(guard(&env, async move {
            if let Err(error) = node.runtime.run(std::future::pending()).await {
                tracing::error!("the container runtime ended: {error}");
            }
        }));
        Ok((containers, network, images))
    };
    let (containers, network, images) = steps.run("container runtime", within(&runtimes.node, starting)).await?;

    let starting = start_services(&env, &settings, &clients, &mut tasks);
    steps.run("services and DNS", within(&runtimes.data, starting)).await?;

    let starting = async {
        let kubelet = kubelet::build(kubelet_config(&env, &settings, &clients, &pki, &mut tasks)?).await?;
        let handle = kubelet.handle();
        tasks.push(guard(&env, async move {
            if let Err(error) = kubelet.run(std::future::pending()).await {
                tracing::error!("the kubelet ended: {error}");
            }
        }));
        steps::node_is_ready(&clients.admin, &settings.node_name).await?;
        // After a stop the API server still has the node as it was before.
        network.ready().await;
        handle.reported().await;
        Ok(handle)
    };
    let kubelet = steps.run("node", within(&runtimes.node, starting)).await?;
    steps.run("DNS from a pod", dns_check::answers(&env, &settings, network.clone())).await?;

    let daemon = control::Control::new(&env, settings.clone(), clients.admin.clone(), images, stop_tx);
    let in_flight = InFlight::default();
    let listener = cluster::control::bind(&settings.control_socket()).context("listening for commands")?;
    tasks.push(guard(&env, cluster::control::serve(listener, Arc::new(daemon), env.clone(), in_flight.clone())));
    env.crashpoint("daemon.listening");
    report(&Progress::Ready);
    steps::detach()?;

    // A signal ends the daemon alone: containers go on, and the next start adopts them.
    let stop = tokio::select! {
        stop = stop_rx.recv() => stop,
        () = steps::terminated() => None,
    };
    if let Some(stop) = stop {
        let outcome = async {
            env.crashpoint("daemon.stopping");
            kubelet.stop_all(crate::cleanup::GRACE).await?;
            env.crashpoint("daemon.pods-stopped");
            containers.stop_all(crate::cleanup::GRACE).await?;
            containers.remove_all().await?;
            env.crashpoint("daemon.containers-removed");
            // No component may put back what is removed now.
            drop(std::mem::take(&mut tasks));
            dns::end(&env, &dns_socket(&scope)).await.context("ending cluster DNS")?;
            crate::cleanup::remove_network(&env, &settings).await
        };
        let outcome = outcome.await;
        env.crashpoint("daemon.stopped");
        stop.answer(outcome);
        env.timeout(LAST_WORDS, in_flight.written()).await;
    }
    Ok(())
}

/// Closes the store in order when it is dropped.
struct Closing(Arc<store::Embedded>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Makes the certificate that `start` puts into the kubeconfig, and renews it there too.
fn keep_admin(env: &Env, settings: &Arc<Settings>, pki: &Arc<ClusterPki>) -> Result<TaskGuard> {
    let spec = CertificateSpec::client("kubernetes-admin", "system:masters");
    let admin = pki.certificate("admin", &spec)?;
    let (settings, pki) = (settings.clone(), pki.clone());
    let renew = move || {
        let admin = pki.certificate("admin", &spec)?;
        if !cluster::renew_kubeconfig(&settings, |pem| pki.issued(pem, &spec)).context("renewing the kubeconfig")? {
            tracing::info!("the kubeconfig's entry is not this cluster's any more: it keeps its certificate");
        }
        anyhow::Ok(admin.renew_at())
    };
    Ok(guard(env, pki::keep_fresh(env.clone(), admin.renew_at(), renew)))
}

/// Clients of the API server in this process, each as who it is.
struct Clients {
    /// For what the binary itself looks at.
    admin: Client,
    controllers: Client,
    /// The service accounts that controllers write as.
    accounts: controllers::Accounts,
    scheduler: Client,
    proxy: Client,
    dns: Client,
    kubelet: Client,
    /// Makes folders of this node into volumes.
    provisioner: Client,
}

impl Clients {
    fn of(server: &ApiServer, env: &Env, node: &str) -> Clients {
        let client = |user: &str, groups: &[&str], agent: &str| {
            let transport = server.local(UserInfo::authenticated(user, groups));
            Client::new(env.clone(), Arc::new(transport), &format!("{agent}/{}", env!("CARGO_PKG_VERSION")))
        };
        let masters = ["system:masters"];
        Clients {
            admin: client("system:oxikube", &masters, "oxikube"),
            controllers: client("system:kube-controller-manager", &[], "kube-controller-manager"),
            accounts: {
                let accounts = controllers::accounts().into_iter().map(|account| {
                    let user = format!("system:serviceaccount:kube-system:{account}");
                    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];
                    (account, client(&user, &groups, "kube-controller-manager"))
                });
                let accounts: BTreeMap<_, _> = accounts.collect();
                Arc::new(move |account| accounts[account].clone())
            },
            scheduler: client("system:kube-scheduler", &[], "kube-scheduler"),
            proxy: client("system:kube-proxy", &[], "kube-proxy"),
            dns: client(dns_identity::USER, &dns_identity::GROUPS, "coredns"),
            kubelet: client(&format!("system:node:{node}"), &["system:nodes"], "kubelet"),
            provisioner: client(
                "system:serviceaccount:kube-system:oxikube-local-provisioner",
                &["system:serviceaccounts", "system:serviceaccounts:kube-system"],
                "oxikube-local-provisioner",
            ),
        }
    }
}

const STORAGE_CLASSES: &str = "/apis/storage.k8s.io/v1/storageclasses";

/// The class of claims that name none: folders of the node that runs the claim's first pod.
fn local_class() -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": { "name": "oxikube-local", "annotations": { "storageclass.kubernetes.io/is-default-class": "true" } },
        "provisioner": kubelet::provisioner::PROVISIONER, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    })
}

async fn start_api_server(
    env: &Env,
    settings: &Settings,
    store: Arc<dyn store::Store>,
    pki: &Arc<ClusterPki>,
    tasks: &mut Vec<TaskGuard>,
) -> Result<Clients> {
    let mut served = apiserver::Settings::new(settings.node_ip);
    served.service_cidrs = vec![settings.service_cidr.clone()];
    served.features = settings.features();
    served.begins_with = vec![(STORAGE_CLASSES, local_class())];
    let any: IpAddr = if settings.node_ip.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let built: ApiServer = apiserver::build(apiserver::Config {
        env: env.clone(),
        store,
        pki: pki.clone(),
        bind: vec![SocketAddr::new(any, settings.api_port)],
        names: vec![settings.node_name.clone()],
        settings: served,
    })
    .await?;
    let mut ready = built.ready();
    let clients = Clients::of(&built, env, &settings.node_name);
    tasks.push(guard(env, async move {
        if let Err(error) = built.run(std::future::pending()).await {
            tracing::error!("the API server ended: {error}");
        }
    }));
    ready.wait_for(|ready| *ready).await.context("the API server ended before it was ready")?;
    Ok(clients)
}

fn start_control_plane(
    env: &Env,
    settings: &Settings,
    pki: &Arc<ClusterPki>,
    clients: &Clients,
    tasks: &mut Vec<TaskGuard>,
) -> Result<()> {
    let mut config =
        controllers::Config::new(clients.controllers.clone(), pki.ca().certificate_pem().as_bytes().to_vec());
    config.accounts = Some(clients.accounts.clone());
    config.cluster_cidrs = vec![range(&settings.pod_cidr)?];
    config.pki = Some(pki.clone());
    config.features = settings.features();
    if !settings.controllers.is_empty() {
        config.controllers = settings.controllers.clone();
    }
    let built = controllers::build(config)?;
    tasks.push(guard(env, built.run(std::future::pending())));
    let built = scheduler::build(scheduler::Config {
        env: env.clone(),
        client: clients.scheduler.clone(),
        configuration: scheduler::Configuration::from_yaml(settings.scheduler_config.as_deref().unwrap_or_default())?,
    });
    tasks.push(guard(env, built.run()));
    Ok(())
}

/// What containers stand on.
pub(crate) struct NodeRuntime {
    pub runtime: Runtime,
    network: Arc<dyn PodNetwork>,
    images: ImageStore,
}

/// The container runtime on its network; adopts what still runs.
pub(crate) async fn node_runtime(env: &Env, settings: &Settings) -> Result<NodeRuntime> {
    let scope = settings.scope();
    let images =
        ImageStore::open(runtime::image::Config::new(env.clone(), &scope)).await.context("opening the image store")?;
    let mut config = EmbeddedConfig::new(env.clone(), scope.clone())?;
    config.cluster_cidrs = vec![range(&settings.pod_cidr)?];
    let network = Arc::new(EmbeddedNetwork::open(config).await.context("setting up the pod network")?);
    let mut config = runtime::Config::new(env.clone(), scope, images.clone(), network.clone());
    config.handlers = settings.runtime_handlers.clone();
    let runtime = Runtime::build(config).await.context("starting the container runtime")?;
    Ok(NodeRuntime { runtime, network, images })
}

async fn start_services(env: &Env, settings: &Settings, clients: &Clients, tasks: &mut Vec<TaskGuard>) -> Result<()> {
    let mut config = proxy::Config::new(env.clone(), settings.scope(), clients.proxy.clone(), &settings.node_name)?;
    config.pod_cidrs = vec![range(&settings.pod_cidr)?];
    config.service_cidrs = vec![range(&settings.service_cidr)?];
    tasks.push(guard(env, proxy::build(config).await?.run()));
    dns_identity::ensure(&clients.admin).await.context("saying what cluster DNS may do")?;
    let dns = dns::build(dns::Config {
        env: env.clone(),
        client: clients.dns.clone(),
        domain: "cluster.local".into(),
        service_ip: settings.dns_ip(),
        listen: SocketAddr::new(settings.node_ip, 0),
        node_name: settings.node_name.clone(),
        resolv_conf: "/etc/resolv.conf".into(),
        program: dns::Program {
            command: vec!["/proc/self/exe".into(), "dns".into()],
            socket: dns_socket(&settings.scope()),
        },
    })
    .await?;
    tasks.push(guard(env, dns.run()));
    Ok(())
}

/// Where the DNS process is found again.
pub(crate) fn dns_socket(scope: &linux::Scope) -> PathBuf {
    scope.run("dns.sock")
}

/// The node agent, which serves logs and exec with a certificate of the cluster's authority.
fn kubelet_config(
    env: &Env,
    settings: &Settings,
    clients: &Clients,
    pki: &Arc<ClusterPki>,
    tasks: &mut Vec<TaskGuard>,
) -> Result<kubelet::Config> {
    let spec = CertificateSpec::server(
        &format!("system:node:{}", settings.node_name),
        &[&settings.node_name],
        &[settings.node_ip],
    );
    let serving = pki.certificate("kubelet", &spec)?;
    let certificate = streams::ServerCertificate::new(serving.chain()?, serving.private_key()?)?;
    let (fresh, authority) = (certificate.clone(), pki.clone());
    tasks.push(guard(
        env,
        pki::keep_fresh(env.clone(), serving.renew_at(), move || {
            let leaf = authority.certificate("kubelet", &spec)?;
            fresh.swap(leaf.chain()?, leaf.private_key()?)?;
            anyhow::Ok(leaf.renew_at())
        }),
    ));
    let mut config = kubelet::Config::new(
        env.clone(),
        clients.kubelet.clone(),
        settings.scope(),
        &settings.node_name,
        vec![settings.node_ip],
        certificate,
        pki.ca().certificate_pem(),
    );
    config.listen.set_port(settings.kubelet_port);
    config.cluster_dns = vec![settings.dns_ip()];
    config.provisioner = Some(clients.provisioner.clone());
    Ok(config)
}

/// Puts this process, and with it every shim that it starts, into a control group of its own.
fn join_cgroup(settings: &Settings) -> Result<()> {
    let group = linux::cgroup::Hierarchies::detect()?.group(settings.scope().cgroup("daemon"))?;
    group.create().context("making the daemon's control group")?;
    group.add(std::process::id() as i32).context("joining the daemon's control group")
}

fn guard(env: &Env, task: impl Future<Output = ()> + Send + 'static) -> TaskGuard {
    TaskGuard::new(env.spawn(task))
}

fn range(cidr: &str) -> Result<IpNet> {
    cidr.parse().with_context(|| format!("{cidr} is no range of addresses"))
}
