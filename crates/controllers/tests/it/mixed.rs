//! Everything at once: two daemons of which one leads, workloads that are scaled, updated, deleted with each policy and made again, evictions,
//! pods that fail, nodes that are lost, return, or are gone, claims, a quota, crashes anywhere, lost requests and answers, refusals,
//! watches that lag and end. What must never happen does not, in the end all is as asked, and what is deleted leaves nothing.

mod operations;
mod rules;
mod world;

use std::collections::BTreeMap;

use client::{Client, DeleteOptions, LeaderElection, Propagation};
use parking_lot::Mutex;

use super::daemon_set::{REPLACE, daemon_set};
use super::deployment::{ROLLING, deployment};
use super::job::JOBS;
use super::stateful_set::stateful_set;
use super::*;

const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "disruption-controller",
    "resourcequota-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "garbage-collector-controller",
];
const QUOTAS: Resource = Resource::namespaced("", "v1", "resourcequotas");
/// Claims never wait for a class.
const CLAIMS: &str = r#","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"],"storageClassName":"",
    "resources":{"requests":{"storage":"1Gi"}}}}]"#;
/// The first holds what may only be evicted, and is never lost.
const NODES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const DAEMONS: [&str; 2] = ["kcm-0", "kcm-1"];
const OPERATIONS: usize = 16;
/// The pods that the namespace may have: all that is asked for in the end, and little more.
const MOST_PODS: i64 = 17;
const GUARDED: i64 = 4;
const GUARDED_LEAST: i64 = 3;

#[test]
fn everything_at_once() {
    model::hold("mixed::everything_at_once", model);
}

#[test]
fn a_seed_is_a_history() {
    model::repeats(model);
}

fn model(seed: u64) -> model::Run {
    Box::pin(async move {
        let mut run = Run::begin(seed);
        run.disturb().await;
        run.calm_down().await;
        run.stays_calm().await;
        run.take_down().await;
        assert_eq!(run.truth.lock().broken, Vec::<String>::new());
        run.server
    })
}

struct Run {
    chance: Env,
    server: FakeServer,
    /// Who asks as a user does.
    user: Client,
    daemons: [Option<TaskGuard>; 2],
    truth: Arc<Mutex<Truth>>,
    _tasks: Vec<TaskGuard>,
}

/// What is the case, whatever the objects say.
#[derive(Default)]
struct Truth {
    /// What must not have happened.
    broken: Vec<String>,
    nodes: BTreeMap<String, Reach>,
    /// By uid of the pod: its name and node.
    processes: BTreeMap<String, (String, String)>,
    /// By uid of the pod: its Job's uid, and how it ended.
    job_pods: BTreeMap<String, JobPod>,
    /// By uid of the claim.
    volumes: BTreeMap<String, String>,
    evicted: usize,
    /// What is asked for stays, and pods fail no more.
    ending: bool,
    /// Nothing is disturbed any more.
    calm: bool,
    /// The kubelets look seldom.
    idle: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Reach {
    Alive,
    /// Its processes go on, and nobody hears of them.
    Lost,
    Gone,
}

#[derive(Default)]
struct JobPod {
    job: String,
    succeeded: bool,
    /// Somebody deleted it: it counts as failed unless its success was seen before.
    deleted: bool,
}

impl Run {
    fn begin(seed: u64) -> Run {
        let start = || "2026-01-01T00:00:00Z".parse().unwrap();
        let server = FakeServer::new(Env::seeded(seed, start()));
        let more = [(QUOTAS, "ResourceQuota")];
        for (resource, kind) in SERVED.into_iter().chain(more) {
            server.serve(&resource, kind);
        }
        let chance = Env::seeded(seed + 7000, start());
        let truth = Arc::new(Mutex::new(Truth::default()));
        for name in NODES {
            server.put(&resources::NODES, &node(name));
            truth.lock().nodes.insert(name.to_owned(), Reach::Alive);
        }
        rules::keep(&server, &truth);
        let mischief = rules::mischief(&server, &truth, seed);
        let tasks = vec![mischief, world::heartbeats(&server, &truth), world::kubelets(&server, &truth, seed)];
        let mut run = Run {
            user: server.client().with_user_agent("user/1"),
            daemons: [None, None],
            chance,
            server,
            truth,
            _tasks: tasks,
        };
        (0..DAEMONS.len()).for_each(|n| run.restart(n));
        run.ask_for();
        run
    }

    /// Ends a daemon wherever it is, and starts it anew.
    fn restart(&mut self, n: usize) {
        self.daemons[n] = None;
        let client = self.server.client().with_user_agent(&format!("{}/1", DAEMONS[n]));
        let mut config = Config::new(client, b"CA".to_vec());
        config.controllers = CONTROLLERS.iter().map(|&name| name.to_owned()).collect();
        config.leader_election = Some(LeaderElection::new(rules::lease(), DAEMONS[n]));
        self.daemons[n] = Some(super::run(&config));
    }

    async fn disturb(&mut self) {
        for step in 0..OPERATIONS {
            let pause = self.chance.random_below(6000);
            Env::system().sleep(Duration::from_millis(pause)).await;
            self.operate(step).await;
        }
    }

    /// Asks for what shall be in the end, and waits for it.
    async fn calm_down(&mut self) {
        for name in NODES {
            self.reach(name, Reach::Alive);
        }
        self.truth.lock().ending = true;
        self.ask_for();
        self.ask_for_the_last();
        for _ in 0..1800 {
            Env::system().sleep(Duration::from_secs(1)).await;
            self.ask_for();
            self.mend();
            if self.is_complete() {
                break;
            }
        }
        assert!(self.is_complete(), "never complete: {}\nbroken: {:?}", self.tell(), self.truth.lock().broken);
        self.check_jobs();
        self.eviction_works().await;
    }

    /// Nobody writes when nothing happens.
    async fn stays_calm(&mut self) {
        {
            let mut truth = self.truth.lock();
            (truth.calm, truth.idle) = (true, true);
        }
        for _ in 0..10 {
            self.server.forget_requests();
            Env::system().sleep(Duration::from_secs(300)).await;
            if self.writes().is_empty() {
                self.truth.lock().idle = false;
                return;
            }
        }
        panic!("writes never end: {:?}", self.writes().into_iter().take(50).collect::<Vec<_>>());
    }

    fn writes(&self) -> Vec<String> {
        self.server.writes().into_iter().filter(|write| !write.contains("/leases/")).collect()
    }

    /// Deletes everything; what is left must be nobody's.
    async fn take_down(&mut self) {
        self.truth.lock().calm = false;
        for resource in operations::OWNERS {
            for object in self.server.list(&resource) {
                let policies = [Propagation::Background, Propagation::Foreground];
                let policy = policies[self.chance.random_below(2) as usize];
                let options = DeleteOptions::default().propagation(policy);
                drop(self.user.delete(&resource, object.key(), &options).await);
            }
        }
        let left = |run: &Run| {
            let kinds = operations::OWNERS.into_iter().chain(operations::OWNED);
            kinds
                .flat_map(|kind| run.server.list(&kind))
                .map(|object| object.to_value().to_string())
                .collect::<Vec<_>>()
        };
        for _ in 0..600 {
            if left(self).is_empty() && self.used() == "0" {
                break;
            }
            Env::system().sleep(Duration::from_secs(1)).await;
        }
        assert_eq!(left(self), Vec::<String>::new(), "what was deleted leaves this");
        assert_eq!(self.used(), "0", "pods used without a pod");
        let claims = self.server.list(&resources::PERSISTENT_VOLUME_CLAIMS);
        for n in 0..3 {
            let name = format!("data-db-{n}");
            assert!(claims.iter().any(|claim| claim.name() == name), "{name} is lost");
        }
    }

    fn used(&self) -> String {
        let quota = self.server.get(&QUOTAS, &key("q")).map(|quota| quota.to_value()).unwrap_or_default();
        quota.str_at(&["status", "used", "pods"]).unwrap_or_default().to_owned()
    }
}
