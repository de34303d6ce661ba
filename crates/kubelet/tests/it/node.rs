//! The node's own object.

use std::time::Duration;

use apimachinery::ObjectKey;
use client::resources;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn the_node_registers_and_becomes_ready() {
    let mut world = World::unstarted().await;
    world.start().await;
    world.until("it is registered", || world.node_condition("Ready").is_some()).await;
    let (status, message) = world.node_condition("Ready").unwrap();
    assert_eq!(status, "False");
    assert_eq!(
        message,
        "container runtime network not ready: NetworkReady=false reason:NoPodRange message:no range yet"
    );
    let began = world.env.monotonic();
    world.give_range();
    world.until_node_ready().await;
    assert!(world.env.monotonic() - began < Duration::from_secs(1));
    assert_eq!(world.cri.pod_cidr(), "10.1.0.0/24");
    let node = world.node();
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    let status = &node["status"];
    assert_eq!(status["addresses"][0]["address"], "127.0.0.9");
    assert_eq!(status["nodeInfo"]["containerRuntimeVersion"], "fake://1");
    assert_eq!(status["nodeInfo"]["kubeletVersion"], "v1.35.4");
    assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], world.port);
    assert_eq!(status["allocatable"]["pods"], "110");
    assert_eq!(status["images"][0]["names"][0], "app:1");
    for pressure in ["MemoryPressure", "DiskPressure", "PIDPressure"] {
        assert_eq!(world.node_condition(pressure).unwrap().0, "False");
    }
    world.until("it is told", || world.has_event("NodeReady: Node n1 status is now: NodeReady")).await;
    assert!(world.has_event("Starting: Starting kubelet."));
    assert!(world.has_event("NodeHasSufficientMemory: Node n1 status is now: NodeHasSufficientMemory"));
}

#[tokio::test(start_paused = true)]
async fn an_idle_node_renews_its_lease_and_tells_little() {
    let world = World::new().await;
    let key = ObjectKey::new("kube-node-lease", "n1");
    world.until("it has a lease", || world.server.get(&resources::LEASES, &key).is_some()).await;
    world.env.sleep(Duration::from_secs(60)).await;
    let lease = world.server.get(&resources::LEASES, &key).unwrap().to_value();
    assert_eq!(lease.i64_at(&["spec", "leaseDurationSeconds"]), Some(40));
    assert_eq!(lease.items_at(&["metadata", "ownerReferences"]).len(), 1);
    world.server.forget_requests();
    world.env.sleep(Duration::from_secs(600)).await;
    let requests = world.server.requests();
    let count = |part: &str| requests.iter().filter(|seen| seen.target.contains(part)).count();
    assert!((59..=61).contains(&count("/leases/")), "{}", count("/leases/"));
    assert!((1..=3).contains(&count("/nodes/n1/status")), "{}", count("/nodes/n1/status"));
    let others = requests.len() - count("/leases/") - count("/nodes/n1/status");
    assert!(others <= 2, "{requests:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_deleted_registers_again() {
    let world = World::new().await;
    world.server.remove(&resources::NODES, &ObjectKey::cluster("n1"));
    world.until("it is back", || world.node_condition("Ready").is_some()).await;
}
