//! The controllers against a server in memory, with a kubelet that only says what a kubelet would.

mod attach;
mod autoscaler;
mod bad_input;
mod chaos;
mod cluster;
mod cron_job;
mod daemon_set;
mod deployment;
mod device_taint_eviction;
mod disruption;
mod endpoints;
mod garbage;
mod identity;
mod job;
mod job_model;
mod mixed;
mod model;
mod namespace;
mod node;
mod recycle;
mod replica_set;
mod resource_claim;
mod resource_quota;
mod sets;
mod stateful_set;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::fake::FakeServer;
use client::{Event, Informer, Resource, Selection, Subscription, TaskGuard, resources};
use controllers::Config;
use env::Env;

/// A server with controllers.
struct Cluster {
    server: FakeServer,
    config: Config,
    _controllers: TaskGuard,
}

/// Runs controllers until the guard is dropped, wherever they are.
fn run(config: &Config) -> TaskGuard {
    let controllers = controllers::build(config.clone()).unwrap().run(std::future::pending());
    TaskGuard::new(config.client.env().spawn(controllers))
}

const SERVED: [(Resource, &str); 22] = [
    (resources::CONFIG_MAPS, "ConfigMap"),
    (resources::ENDPOINTS, "Endpoints"),
    (resources::EVENTS, "Event"),
    (resources::NAMESPACES, "Namespace"),
    (resources::NODES, "Node"),
    (resources::PERSISTENT_VOLUMES, "PersistentVolume"),
    (resources::PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim"),
    (resources::PODS, "Pod"),
    (resources::SECRETS, "Secret"),
    (resources::SERVICE_ACCOUNTS, "ServiceAccount"),
    (resources::SERVICES, "Service"),
    (resources::DEPLOYMENTS, "Deployment"),
    (resources::REPLICA_SETS, "ReplicaSet"),
    (resources::STATEFUL_SETS, "StatefulSet"),
    (resources::DAEMON_SETS, "DaemonSet"),
    (resources::CONTROLLER_REVISIONS, "ControllerRevision"),
    (resources::POD_DISRUPTION_BUDGETS, "PodDisruptionBudget"),
    (resources::REPLICATION_CONTROLLERS, "ReplicationController"),
    (resources::LEASES, "Lease"),
    (resources::ENDPOINT_SLICES, "EndpointSlice"),
    (job::JOBS, "Job"),
    (job::CRON_JOBS, "CronJob"),
];

impl Cluster {
    fn start() -> Cluster {
        Cluster::start_with(FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap())), |_| {})
    }

    /// With the controllers of these names only.
    fn start_some(server: FakeServer, names: &[&str]) -> Cluster {
        Cluster::start_with(server, |config| config.controllers = names.iter().map(|&name| name.to_owned()).collect())
    }

    fn start_with(server: FakeServer, configure: impl FnOnce(&mut Config)) -> Cluster {
        for (resource, kind) in SERVED {
            server.serve(&resource, kind);
        }
        let mut config = Config::new(server.client(), b"CA".to_vec());
        configure(&mut config);
        Cluster { _controllers: run(&config), config, server }
    }

    /// Ends the controllers wherever they are and starts others.
    fn restart(&mut self) {
        self._controllers = run(&self.config);
    }

    fn put(&self, resource: &Resource, json: &str) -> Arc<Object> {
        self.server.put(resource, json)
    }

    fn put_yaml(&self, resource: &Resource, yaml: &str) -> Arc<Object> {
        let json: serde_json::Value = serde_yaml_ng::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        self.put(resource, &json.to_string())
    }

    /// Puts a node there that reports until the guard is dropped.
    fn put_node(&self, name: &'static str) -> TaskGuard {
        self.put(&resources::NODES, &node(name));
        self.heartbeat(&[name])
    }

    fn value(&self, resource: &Resource, name: &str) -> Value {
        let key = if resource.namespaced { key(name) } else { ObjectKey::cluster(name) };
        self.server.get(resource, &key).map(|object| object.to_value()).unwrap_or_default()
    }

    /// Objects of `namespace`'s owner index: those whose controller is called `owner`.
    fn owned(&self, resource: &Resource, owner: &str) -> Vec<Arc<Object>> {
        let all = self.server.list(resource).into_iter();
        all.filter(|object| object.controller().is_some_and(|controller| controller.name == owner)).collect()
    }

    fn events(&self, reason: &str) -> Vec<String> {
        let events = self.server.list(&resources::EVENTS);
        let values = events.iter().map(|event| event.to_value());
        let told = values.filter(|event| event.str_at(&["reason"]) == Some(reason));
        told.map(|event| event.str_at(&["message"]).unwrap_or_default().to_owned()).collect()
    }

    /// Waits until nothing is written for ten minutes, and fails if something always is.
    async fn settles(&self) {
        for _ in 0..20 {
            let before = self.server.writes().len();
            sleep(600).await;
            if self.server.writes().len() == before {
                return;
            }
        }
        panic!("writes never end: {:?}", self.server.writes().iter().rev().take(20).collect::<Vec<_>>());
    }
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("ns", name)
}

async fn sleep(seconds: u64) {
    Env::system().sleep(Duration::from_secs(seconds)).await;
}

/// Waits until `condition`, on the paused clock.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let wait = async {
        while !condition() {
            Env::system().sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), wait).await.is_ok(), "did not happen: {what}");
}

/// Binds each pod to the node that its affinity names, else to `n1`, runs it, and takes it away when it is deleted. Pods with the image `bad` never become ready.
struct Kubelet {
    _informer: Informer,
    _subscription: Subscription,
}

impl Kubelet {
    fn start(server: &FakeServer) -> Kubelet {
        let informer = Informer::start(&server.client(), resources::PODS, Selection::all());
        let subscription = informer.on_event({
            let server = server.clone();
            let next = std::sync::atomic::AtomicU32::new(2);
            move |event| match event {
                Event::Added(pod) if pod.to_value().str_at(&["status", "podIP"]).is_none() => {
                    let n = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    run_pod(&server, pod.key(), &format!("10.0.{}.{}", n / 250, n % 250));
                }
                Event::Added(pod) | Event::Modified { new: pod, .. } if pod.is_deleting() => {
                    server.remove(&resources::PODS, pod.key());
                }
                // Somebody who lost sight of the node says otherwise.
                Event::Modified { new, .. } if is_good(new) && !is_ready(new) => set_ready(&server, new.key(), true),
                _ => {}
            }
        });
        Kubelet { _informer: informer, _subscription: subscription }
    }
}

fn is_good(pod: &Object) -> bool {
    let value = pod.to_value();
    value.str_at(&["status", "podIP"]).is_some()
        && value.items_at(&["spec", "containers"]).iter().all(|c| c.str_at(&["image"]) != Some("bad"))
}

fn is_ready(pod: &Object) -> bool {
    let value = pod.to_value();
    value
        .items_at(&["status", "conditions"])
        .iter()
        .any(|condition| condition.str_at(&["type"]) == Some("Ready") && condition.str_at(&["status"]) == Some("True"))
}

fn run_pod(server: &FakeServer, key: &ObjectKey, ip: &str) {
    let now = format!("{:.0}", server.client().env().now());
    server.edit(&resources::PODS, key, |pod| {
        let bad = pod.items_at(&["spec", "containers"]).iter().any(|c| c.str_at(&["image"]) == Some("bad"));
        let ready = if bad { "False" } else { "True" };
        pod.set(&["spec", "nodeName"], wanted_node(pod));
        pod.set(&["status", "phase"], "Running");
        pod.set(&["status", "podIP"], ip);
        pod.set(&["status", "startTime"], &now);
        let condition = format!(r#"[{{"type":"Ready","status":"{ready}","lastTransitionTime":"{now}"}}]"#);
        pod.set(&["status", "conditions"], Value::parse(condition.as_bytes()).unwrap());
    });
}

fn wanted_node(pod: &Value) -> String {
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = pod.at(&required).map(|required| required.items_at(&["nodeSelectorTerms"])).unwrap_or_default();
    let fields = terms.iter().flat_map(|term| term.items_at(&["matchFields"]));
    let mut names = fields.filter_map(|field| field.items_at(&["values"]).first()?.as_str());
    names.next().unwrap_or("n1").to_owned()
}

fn set_ready(server: &FakeServer, key: &ObjectKey, ready: bool) {
    let now = format!("{:.0}", server.client().env().now());
    server.edit(&resources::PODS, key, |pod| {
        let status = if ready { "True" } else { "False" };
        let condition = format!(r#"[{{"type":"Ready","status":"{status}","lastTransitionTime":"{now}"}}]"#);
        pod.set(&["status", "conditions"], Value::parse(condition.as_bytes()).unwrap());
    });
}

/// How a ready condition reads in an object's text.
const READY: &str = r#""status":"True","type":"Ready""#;

/// Whether the object's text has `part` in it: asked often, and faster than taking it apart.
fn says(object: &Object, part: &str) -> bool {
    std::str::from_utf8(object.body()).is_ok_and(|body| body.contains(part))
}

fn node(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","labels":{{"topology.kubernetes.io/zone":"z1"}}}},"spec":{{}},
            "status":{{"conditions":[{{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:00:00Z"}}]}}}}"#
    )
}
