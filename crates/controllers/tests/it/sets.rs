//! StatefulSets and DaemonSets under random operations, a bad connection, slow kubelets and controllers that die: what must never
//! happen does not, and all comes right in the end.

use std::collections::BTreeMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::chaos::mischief_every;
use super::daemon_set::{REPLACE, SURGE, daemon_set, target};
use super::stateful_set::stateful_set;
use super::*;

const CLAIMS: &str =
    r#","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"]}}]"#;
const OPERATIONS: usize = 12;
/// How old what a controller knows may be.
const STALE: Duration = Duration::from_secs(30);

const CONTROLLERS: &[&str] = &[
    "statefulset-controller",
    "daemonset-controller",
    "node-lifecycle-controller",
    "taint-eviction-controller",
    "pod-garbage-collector-controller",
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "garbage-collector-controller",
];

#[test]
fn sets_keep_their_promises() {
    model::hold("sets::sets_keep_their_promises", model);
}

#[test]
fn a_seed_is_a_history() {
    model::repeats(model);
}

fn model(seed: u64) -> model::Run {
    Box::pin(async move { Run::begin(seed).finish().await })
}

struct Run {
    chance: Env,
    cluster: Cluster,
    broken: Arc<Mutex<Vec<String>>>,
    _tasks: Vec<TaskGuard>,
}

impl Run {
    fn begin(seed: u64) -> Run {
        let start = || "2026-01-01T00:00:00Z".parse().unwrap();
        let chance = Env::seeded(seed + 7000, start());
        let cluster = Cluster::start_some(FakeServer::new(Env::seeded(seed, start())), CONTROLLERS);
        for name in ["n1", "n2", "n3"] {
            cluster.put(&resources::NODES, &node(name));
        }
        let ordered = chance.random_below(2) == 0;
        let surges = chance.random_below(2) == 0;
        let broken = watch(&cluster.server, ordered, if surges { 2 } else { 1 });
        let tasks = vec![
            cluster.heartbeat(&["n1", "n2", "n3"]),
            kubelet(&cluster.server, seed),
            mischief_every(&cluster.server, seed, 1000),
        ];
        let policy = if ordered { "OrderedReady" } else { "Parallel" };
        let more = format!(r#"{CLAIMS},"podManagementPolicy":"{policy}""#);
        cluster.put(&resources::STATEFUL_SETS, &stateful_set(3, &more, "v0"));
        cluster.put(&resources::DAEMON_SETS, &daemon_set(if surges { SURGE } else { REPLACE }, "v0"));
        Run { chance, cluster, broken, _tasks: tasks }
    }

    async fn finish(mut self) -> FakeServer {
        for step in 0..OPERATIONS {
            let pause = self.chance.random_below(4000);
            Env::system().sleep(Duration::from_millis(pause)).await;
            self.operate(step);
        }
        self.calm().await;
        for _ in 0..600 {
            if self.is_complete() {
                break;
            }
            self.mend();
            Env::system().sleep(Duration::from_secs(1)).await;
        }
        let status = |resource: &Resource, name: &str| self.cluster.value(resource, name).to_string();
        let (set, daemons) = (status(&resources::STATEFUL_SETS, "db"), status(&resources::DAEMON_SETS, "agent"));
        let nodes: Vec<_> =
            self.cluster.server.list(&resources::NODES).iter().map(|node| node.to_value().to_string()).collect();
        let pods = self.cluster.pods();
        assert!(self.is_complete(), "never complete: {pods:?}\n{set}\n{daemons}\n{nodes:?}");
        assert_eq!(*self.broken.lock(), Vec::<String>::new());
        for object in
            [resources::PODS, resources::CONTROLLER_REVISIONS].iter().flat_map(|r| self.cluster.server.list(r))
        {
            assert!(object.controller().is_some(), "{} is nobody's", object.key());
        }
        self.cluster.server
    }

    fn operate(&mut self, step: usize) {
        let (sets, daemons) = (&resources::STATEFUL_SETS, &resources::DAEMON_SETS);
        let pick = self.chance.random_below(10);
        let pods = self.cluster.server.list(&resources::PODS);
        let pod = pods.get(self.chance.random_below(pods.len().max(1) as u64) as usize);
        match pick {
            0 | 1 => {
                let replicas = self.chance.random_below(5) as i64;
                self.cluster.edit_set(sets, "db", |value| value.set(&["spec", "replicas"], replicas));
            }
            2 => self.cluster.set_image_of(sets, "db", &format!("v{step}")),
            3 => self.cluster.set_image_of(sets, "db", "bad"),
            4 => self.cluster.set_image_of(daemons, "agent", &format!("v{step}")),
            5 => {
                let partition = self.chance.random_below(3) as i64;
                let path = ["spec", "updateStrategy", "rollingUpdate", "partition"];
                self.cluster.edit_set(sets, "db", |value| value.set(&path, partition));
            }
            6 => {
                let effect = ["NoSchedule", "NoExecute", ""][self.chance.random_below(3) as usize];
                self.taint("n2", effect);
            }
            7 => self.cluster.restart(),
            8 => {
                if let Some(pod) = pod {
                    self.cluster.server.remove(&resources::PODS, pod.key());
                }
            }
            _ => {
                if let Some(pod) = pod {
                    self.cluster
                        .server
                        .edit(&resources::PODS, pod.key(), |pod| pod.set(&["status", "phase"], "Failed"));
                }
            }
        }
    }

    fn taint(&self, name: &str, effect: &str) {
        self.cluster.server.edit(&resources::NODES, &ObjectKey::cluster(name), |node| {
            let taints =
                if effect.is_empty() { "[]".to_owned() } else { format!(r#"[{{"key":"x","effect":"{effect}"}}]"#) };
            node.set(&["spec", "taints"], Value::parse(taints.as_bytes()).unwrap());
        });
    }

    /// What everything shall be in the end.
    async fn calm(&self) {
        let path = ["spec", "updateStrategy", "rollingUpdate", "partition"];
        self.cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| {
            value.set(&path, 0);
            value.set(&["spec", "replicas"], 3);
        });
        for (resource, name) in [(resources::STATEFUL_SETS, "db"), (resources::DAEMON_SETS, "agent")] {
            self.cluster.set_image_of(&resource, name, "last");
        }
        self.taint("n2", "");
    }

    /// Somebody deletes what holds a rollout up, as upstream asks for.
    fn mend(&self) {
        for (name, image) in self.cluster.pods() {
            if image == "bad" {
                self.cluster.server.remove(&resources::PODS, &key(&name));
            }
        }
    }

    fn is_complete(&self) -> bool {
        let is = |resource: &Resource, name: &str, counts: &[&str]| {
            let value = self.cluster.value(resource, name);
            value.i64_at(&["status", "observedGeneration"]) == value.i64_at(&["metadata", "generation"])
                && counts.iter().all(|count| self.cluster.number(resource, name, count) == 3)
        };
        let pods = self.cluster.pods();
        is(&resources::STATEFUL_SETS, "db", &["replicas", "readyReplicas", "updatedReplicas", "currentReplicas"])
            && is(
                &resources::DAEMON_SETS,
                "agent",
                &["numberReady", "updatedNumberScheduled", "desiredNumberScheduled"],
            )
            && pods.len() == 6
            && pods.iter().all(|(_, image)| image == "last")
    }
}

/// When each pod was last ready and not going, by name.
type Well = BTreeMap<String, Timestamp>;

/// Notes what must never happen, looking at each request before it is carried out.
fn watch(server: &FakeServer, ordered: bool, daemons_per_node: usize) -> Arc<Mutex<Vec<String>>> {
    let broken = Arc::new(Mutex::new(Vec::new()));
    let (noted, world, env) = (broken.clone(), server.clone(), server.client().env().clone());
    let (mut well, mut seen) = (Well::new(), 0);
    server.react(move |request| {
        let path = request.target.split('?').next().unwrap_or_default();
        if request.method == http::Method::GET || world.revision() == seen {
            return None;
        }
        seen = world.revision();
        let now = env.now();
        let pods = world.list(&resources::PODS);
        for pod in pods.iter().filter(|pod| is_well(pod)) {
            well.insert(pod.name().to_owned(), now);
        }
        let mut found = crowds(&pods, daemons_per_node);
        match request.method {
            http::Method::POST if path.ends_with("/pods") => {
                let body = Value::parse(&request.body).unwrap();
                let name = body.str_at(&["metadata", "name"]).and_then(|name| name.strip_prefix("db-"));
                if let Some(ordinal) = name.filter(|_| ordered).and_then(|ordinal| ordinal.parse::<i64>().ok()) {
                    let late = (0..ordinal).filter(|below| !was_well(&well, *below, now));
                    found.extend(late.map(|below| format!("db-{ordinal} made while db-{below} was not well")));
                }
            }
            http::Method::DELETE if path.contains("/pods/db-") && is_at_once(&request.body) => {
                found.push(format!("{path} was not given time"));
            }
            http::Method::DELETE if path.contains("/persistentvolumeclaims/") => {
                found.push(format!("{path} was deleted"))
            }
            _ => {}
        }
        noted.lock().extend(found);
        None
    });
    broken
}

fn is_well(pod: &Object) -> bool {
    !pod.is_deleting() && says(pod, READY)
}

fn has_ended(pod: &Object) -> bool {
    says(pod, r#""phase":"Failed""#)
}

fn is_at_once(options: &[u8]) -> bool {
    Value::parse(options).is_ok_and(|options| options.i64_at(&["gracePeriodSeconds"]) == Some(0))
}

fn was_well(well: &Well, ordinal: i64, now: Timestamp) -> bool {
    well.get(&format!("db-{ordinal}")).is_some_and(|at| *at + STALE >= now)
}

/// Nodes with too many daemons that neither ended nor are going.
fn crowds(pods: &[Arc<Object>], most: usize) -> Vec<String> {
    let mut by_node: BTreeMap<String, usize> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| !pod.is_deleting() && !has_ended(pod)) {
        if pod.controller().is_some_and(|owner| owner.kind == "DaemonSet") {
            *by_node.entry(target(&pod.to_value())).or_default() += 1;
        }
    }
    let crowded = by_node.into_iter().filter(|(_, count)| *count > most);
    crowded.map(|(node, count)| format!("{count} daemons on {node}")).collect()
}

/// Starts pods, lets them fail and get unready, and takes them away, all in its own time.
fn kubelet(server: &FakeServer, seed: u64) -> TaskGuard {
    let chance = Env::seeded(seed + 9000, "2026-01-01T00:00:00Z".parse().unwrap());
    let (env, server) = (server.client().env().clone(), server.clone());
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            env.sleep(Duration::from_millis(50 + chance.random_below(200))).await;
            for pod in server.list(&resources::PODS) {
                let one_in = |n: u64| chance.random_below(n) == 0;
                if pod.is_deleting() {
                    if one_in(3) {
                        server.remove(&resources::PODS, pod.key());
                    }
                } else if !says(&pod, r#""phase":""#) {
                    if one_in(2) {
                        run_pod(&server, pod.key(), "10.0.0.1");
                    }
                } else if says(&pod, READY) {
                    if one_in(100) {
                        set_ready(&server, pod.key(), false);
                    }
                } else if !has_ended(&pod) && one_in(4) && is_good(&pod) {
                    set_ready(&server, pod.key(), true);
                }
            }
        }
    }))
}
