//! The scheduler against a fake API server.

mod election;
mod extender;
mod leaving;
mod placements;
mod preemption;
mod resource_claim;
mod volumes;

use std::time::Duration;

use apimachinery::ObjectKey;
use client::fake::FakeServer;
use client::resources;
use env::Env;
use jiff::Timestamp;
use serde_json::json;

/// What takes longer does not come. Extenders take real time, on a machine that may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

fn node(name: &str, cpu: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"}}})
    .to_string()
}

fn pod(name: &str, cpu: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers":
            [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}})
    .to_string()
}

/// Runs a scheduler with parts of a configuration.
fn started(env: &Env, server: &FakeServer, parts: &serde_json::Value) -> tokio::task::JoinHandle<()> {
    let mut configuration =
        json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration"});
    for (key, value) in parts.as_object().unwrap() {
        configuration[key] = value.clone();
    }
    let configuration = scheduler::Configuration::parse(&configuration).unwrap();
    let config = scheduler::Config { env: env.clone(), client: server.client(), configuration };
    env.spawn(scheduler::build(config).run())
}

struct World {
    env: Env,
    server: FakeServer,
    scheduler: tokio::task::JoinHandle<()>,
}

impl World {
    fn new() -> World {
        World::with(Env::seeded(1, Timestamp::UNIX_EPOCH), &json!({}))
    }

    /// A scheduler with parts of a configuration.
    fn with(env: Env, parts: &serde_json::Value) -> World {
        let server = FakeServer::new(env.clone());
        let scheduler = started(&env, &server, parts);
        World { scheduler, env, server }
    }

    fn node_of(&self, pod: &str) -> Option<String> {
        let pod = self.server.get(&resources::PODS, &ObjectKey::new("ns", pod))?;
        pod.to_value().str_at(&["spec", "nodeName"]).map(str::to_owned)
    }

    /// What the pod's `PodScheduled` condition says.
    fn message_of(&self, pod: &str) -> Option<String> {
        let pod = self.server.get(&resources::PODS, &ObjectKey::new("ns", pod))?.to_value();
        let conditions = pod.items_at(&["status", "conditions"]);
        let scheduled = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some("PodScheduled"));
        scheduled?.str_at(&["message"]).map(str::to_owned)
    }

    async fn eventually(&self, what: &str, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() {
                self.env.sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, wait).await.is_ok(), "did not happen: {what}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.scheduler.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_bound_where_they_fit() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("small", "1"));
    world.server.put(&resources::NODES, &node("large", "4"));
    world.server.put(&resources::PODS, &pod("a", "3"));
    world.eventually("binding", || world.node_of("a").as_deref() == Some("large")).await;
    world.server.put(&resources::PODS, &pod("b", "1"));
    world.server.put(&resources::PODS, &pod("c", "1"));
    world.eventually("binding of both", || world.node_of("b").is_some() && world.node_of("c").is_some()).await;
    assert_ne!(world.node_of("b"), world.node_of("c"));
    world.eventually("events", || world.server.list(&resources::EVENTS).len() == 3).await;
    let event = world.server.list(&resources::EVENTS)[0].to_value();
    assert_eq!(event.str_at(&["reason"]), Some("Scheduled"));
    assert_eq!(event.str_at(&["message"]), Some("Successfully assigned ns/a to large"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_fits_nowhere_says_why_and_waits_for_help() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("small", "1"));
    world.server.put(&resources::PODS, &pod("a", "3"));
    let condition = || {
        let pod = world.server.get(&resources::PODS, &ObjectKey::new("ns", "a")).unwrap().to_value();
        let condition = pod.items_at(&["status", "conditions"]).first().cloned();
        condition.and_then(|c| c.str_at(&["message"]).map(str::to_owned))
    };
    world.eventually("condition", || condition().is_some()).await;
    assert_eq!(
        condition().as_deref(),
        Some(
            "0/1 nodes are available: 1 Insufficient cpu. no new claims to deallocate, preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
        )
    );
    world.server.put(&resources::NODES, &node("large", "4"));
    world.eventually("binding", || world.node_of("a").as_deref() == Some("large")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_makes_room() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("n", "2"));
    world.server.put(&resources::PODS, &pod("a", "2"));
    world.eventually("binding", || world.node_of("a").is_some()).await;
    world.server.put(&resources::PODS, &pod("b", "2"));
    world.env.sleep(Duration::from_secs(30)).await;
    assert_eq!(world.node_of("b"), None);
    world.server.remove(&resources::PODS, &ObjectKey::new("ns", "a"));
    world.eventually("binding", || world.node_of("b").is_some()).await;
}

/// Long before it would be tried again anyway.
#[tokio::test(start_paused = true)]
async fn a_pod_that_another_wants_beside_it_helps_once_it_is_bound() {
    let world = World::new();
    let mut node: serde_json::Value = serde_json::from_str(&node("n", "4")).unwrap();
    node["metadata"]["labels"] = json!({"kubernetes.io/hostname": "n"});
    world.server.put(&resources::NODES, &node.to_string());
    let with = |name: &str, edit: &dyn Fn(&mut serde_json::Value)| {
        let mut pod: serde_json::Value = serde_json::from_str(&pod(name, "1")).unwrap();
        pod["metadata"]["generation"] = json!(1);
        edit(&mut pod);
        world.server.put(&resources::PODS, &pod.to_string());
    };
    let beside = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "wanted"}}}]}});
    with("b", &|pod| pod["spec"]["affinity"] = beside.clone());
    world.eventually("no place yet", || world.message_of("b").is_some()).await;
    with("a", &|pod| pod["metadata"]["labels"] = json!({"app": "wanted"}));
    world.eventually("binding", || world.node_of("b").is_some()).await;
}
