//! Chooses a node for each pod that has none, and says why where it can't.
//!
//! The path of a pod: an informer's event puts it into the [`queue`]; [`cycle`] takes it out, asks every plugin of
//! [`plugins::all`] to filter and to score the nodes of the [`cache`], assumes it on the best one and binds it through the
//! API. A pod that fits nowhere waits until an event happens that one of the plugins that rejected it calls helpful. It knows nothing of kubelets, containers or
//! how nodes come to be.
//!
//! ```no_run
//! # async fn example(client: client::Client, env: env::Env) {
//! let scheduler = scheduler::build(scheduler::Config { env, client, name: scheduler::DEFAULT_NAME.into() });
//! scheduler.run().await;
//! # }
//! ```

mod cache;
mod cycle;
mod framework;
mod plugins;
mod queue;
mod watch;

use std::sync::Arc;

use client::{Client, EventRecorder, Informers};
use env::Env;
use parking_lot::Mutex;

use cache::Cache;
use framework::Plugin;
use queue::Queue;

/// The name that pods get in `spec.schedulerName` unless they say otherwise.
pub const DEFAULT_NAME: &str = "default-scheduler";

/// What a scheduler needs.
pub struct Config {
    pub env: Env,
    /// Acts as `system:kube-scheduler`.
    pub client: Client,
    /// The `spec.schedulerName` of the pods to schedule.
    pub name: String,
}

/// A scheduler, ready to run.
pub struct Scheduler(Arc<Shared>);

/// What informers' handlers, the cycle and bindings share.
struct Shared {
    env: Env,
    client: Client,
    name: String,
    informers: Informers,
    recorder: EventRecorder,
    plugins: Vec<Box<dyn Plugin>>,
    cache: Mutex<Cache>,
    queue: Queue,
}

/// Puts the parts together; nothing is scheduled yet. Needs a runtime.
pub fn build(config: Config) -> Scheduler {
    let Config { env, client, name } = config;
    Scheduler(Arc::new(Shared {
        informers: Informers::new(client.clone()),
        recorder: EventRecorder::start(client.clone(), &name, ""),
        plugins: plugins::all(),
        cache: Mutex::default(),
        queue: Queue::new(env.clone()),
        env,
        client,
        name,
    }))
}

impl Scheduler {
    /// Schedules until dropped.
    pub async fn run(self) {
        let _subscriptions = watch::subscribe(&self.0).await;
        loop {
            let pod = self.0.queue.next().await;
            cycle::schedule(&self.0, pod).await;
        }
    }
}
