//! Chooses a node for each pod that has none, and says why where it can't.
//!
//! The path of a pod: an event ([`source`], [`watch`]) puts it into the [`queue`]; an attempt ([`cycle`]) takes it out, brings the
//! [`snapshot`] up to date with what changed in the [`cache`], asks the [`plugins`] of its [`framework::Profile`] to filter and to compare nodes, and
//! assumes the pod on the best one. Binding it through the API goes on beside the next attempts. A pod that fits nowhere may push less important ones
//! aside, and waits until an event happens that one of the plugins that rejected it calls helpful. The crate knows nothing of kubelets, containers or how
//! nodes come to be. [`trial`] does the same on objects alone, without an API server.
//!
//! ```no_run
//! # async fn example(client: client::Client, env: env::Env) {
//! let scheduler = scheduler::build(scheduler::Config { env, client, configuration: scheduler::Configuration::default() });
//! scheduler.run().await;
//! # }
//! ```

mod attempts;
mod cache;
mod cluster;
mod config;
mod cycle;
mod diagnosis;
mod extender;
mod framework;
mod node;
mod nominator;
mod outbox;
mod plugins;
mod pod;
mod queue;
mod snapshot;
mod source;
mod storage;
pub mod trial;
mod trim;
mod watch;

use std::collections::HashMap;
use std::sync::Arc;

use client::{Client, EventRecorder};
use env::Env;
use parking_lot::Mutex;

use cache::Cache;
use cluster::Cluster;
use cycle::Engine;
use extender::Extender;
use framework::{ClusterEvent, Enabled, Point, Profile};
use nominator::Nominator;
use outbox::{Lanes, Outbox};
use plugins::Parts;
use plugins::default_preemption::Preempting;
use plugins::volume_binding::{Changes, Io};
use pod::{PodInfo, Templates};
use queue::{Judge, Queue};

pub use attempts::Attempts;
pub use config::{ConfigError, Configuration};

/// The name that pods get in `spec.schedulerName` unless they say otherwise.
pub const DEFAULT_NAME: &str = "default-scheduler";

/// What a scheduler needs.
#[derive(Clone)]
pub struct Config {
    pub env: Env,
    /// Acts as `system:kube-scheduler`.
    pub client: Client,
    pub configuration: Configuration,
}

/// A scheduler, ready to run.
pub struct Scheduler {
    config: Config,
    attempts: Arc<Attempts>,
}

/// What readers of the API, the cycle and bindings share.
struct Shared {
    env: Env,
    client: Client,
    /// Reads what is kept.
    reader: Client,
    /// Pods and nodes are kept as the API tells them, too: extenders are told of them.
    whole: bool,
    /// By profile: events name theirs.
    recorders: HashMap<String, EventRecorder>,
    profiles: Arc<Profiles>,
    percentage: u32,
    extenders: Vec<Extender>,
    cluster: Arc<Cluster>,
    cache: Mutex<Cache>,
    templates: Mutex<Templates>,
    nominator: Nominator,
    preempting: Arc<Preempting>,
    changes: Arc<Changes>,
    attempts: Arc<Attempts>,
    queue: Queue,
    outbox: Outbox,
}

/// By the name that pods give.
type Profiles = HashMap<String, Arc<Profile>>;

/// Nothing is scheduled yet.
pub fn build(config: Config) -> Scheduler {
    Scheduler { config, attempts: Arc::default() }
}

/// Puts the parts together. Needs a runtime.
fn assemble(config: Config, attempts: Arc<Attempts>) -> (Arc<Shared>, Lanes) {
    let Config { env, client, configuration } = config;
    let (changes, preempting): (Arc<Changes>, Arc<Preempting>) = Default::default();
    let io = Io { client: client.clone(), changes: changes.clone() };
    let cluster = Arc::new(Cluster::default());
    let parts = Parts { io: Some(io), preempting: preempting.clone(), cluster: Some(cluster.clone()) };
    let profiles = configuration.profiles(&parts).expect("a configuration is checked when it is read");
    let profiles: Profiles = profiles.into_iter().map(|p| (p.name.clone(), Arc::new(p))).collect();
    let profiles = Arc::new(profiles);
    let judge = Plugins { profiles: profiles.clone(), cluster: cluster.clone() };
    let whole = !configuration.extenders.is_empty();
    let reader = if whole { client.without_managed_fields() } else { client.trimming(trim::trim) };
    let (outbox, lanes) = Outbox::new();
    let extender = |spec| Extender::new(env.clone(), spec);
    let record = |name: &String| EventRecorder::start_behind(client.clone(), name, "", outbox.idle());
    let shared = Arc::new(Shared {
        extenders: configuration.extenders.iter().map(extender).collect(),
        reader,
        whole,
        recorders: profiles.keys().map(|name| (name.clone(), record(name))).collect(),
        percentage: configuration.percentage(),
        cache: Mutex::new(Cache::new(whole)),
        templates: Mutex::default(),
        nominator: Nominator::default(),
        queue: Queue::new(env.clone(), Arc::new(judge), configuration.backoff()),
        profiles,
        cluster,
        preempting,
        changes,
        attempts,
        outbox,
        env,
        client,
    });
    (shared, lanes)
}

impl Shared {
    /// Tells of a pod that names one of the profiles.
    fn recorder(&self, pod: &PodInfo) -> &EventRecorder {
        &self.recorders[&pod.scheduler]
    }
}

impl Scheduler {
    /// How long attempts take, as long as it runs.
    pub fn attempts(&self) -> Arc<Attempts> {
        self.attempts.clone()
    }

    /// Schedules until dropped; while it holds the lease, if the configuration says that there is one.
    pub async fn run(self) {
        let Scheduler { config, attempts } = self;
        match config.configuration.election(identity(&config.env)) {
            None => term(config, attempts).await,
            Some(election) => {
                let client = config.client.clone();
                election.run(&client, || term(config.clone(), attempts.clone())).await;
            }
        }
    }
}

/// Schedules, beginning with nothing known, until dropped.
async fn term(config: Config, attempts: Arc<Attempts>) {
    let (shared, lanes) = assemble(config, attempts);
    let _lanes = lanes.open(&shared);
    let _sources = watch::subscribe(&shared).await;
    let mut engine = Engine::default();
    loop {
        let pod = shared.queue.next().await;
        cycle::schedule(&shared, &mut engine, pod).await;
        // Attempts don't wait for anything as long as there are pods: let what they decided be written.
        tokio::task::yield_now().await;
    }
}

/// Who holds the lease: the machine's name, and something that another process of it has not.
fn identity(env: &Env) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}_{}", host.trim(), env.uuid())
}

/// The queue's questions, answered by the plugins of each pod's profile.
struct Plugins {
    profiles: Arc<Profiles>,
    cluster: Arc<Cluster>,
}

impl Plugins {
    fn at(&self, pod: &PodInfo, point: Point) -> &[Enabled] {
        self.profiles.get(&pod.scheduler).map(|profile| profile.at(point)).unwrap_or_default()
    }
}

impl Judge for Plugins {
    fn rank(&self, pod: &PodInfo) -> i64 {
        let sort = self.at(pod, Point::QueueSort).iter().find_map(|enabled| enabled.plugin.queue_sort());
        sort.map_or(0, |rank| rank(pod))
    }

    fn gate(&self, pod: &PodInfo) -> Option<&'static str> {
        self.profiles.get(&pod.scheduler).and_then(|profile| profile.pre_enqueue(pod)).map(|(plugin, _)| plugin)
    }

    fn helps(&self, name: &'static str, pod: &PodInfo, event: &ClusterEvent) -> bool {
        let Some(profile) = self.profiles.get(&pod.scheduler) else { return false };
        profile.plugin(name).is_none_or(|plugin| plugin.helps(pod, event, &self.cluster))
    }
}
