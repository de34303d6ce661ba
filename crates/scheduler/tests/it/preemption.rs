//! Room is made for important pods, against a fake API server.

use apimachinery::ObjectKey;
use client::resources;
use serde_json::json;

use crate::{World, node};

fn pod(name: &str, priority: i32, grace: bool) -> String {
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "priority": priority, "containers":
            [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]}});
    if grace {
        // The fake server keeps what has finalizers, as a kubelet would for its grace period.
        pod["metadata"]["finalizers"] = json!(["example.com/slow"]);
    }
    pod.to_string()
}

#[tokio::test(start_paused = true)]
async fn a_victim_goes_and_the_pod_takes_its_place() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("n", "2"));
    world.server.put(&resources::PODS, &pod("low", 1, true));
    world.eventually("binding", || world.node_of("low").is_some()).await;
    world.server.put(&resources::PODS, &pod("high", 10, false));
    let low = ObjectKey::new("ns", "low");
    let victim = || world.server.get(&resources::PODS, &low);
    world.eventually("the victim's end", || victim().is_some_and(|pod| pod.is_deleting())).await;
    let condition = victim().unwrap().to_value().items_at(&["status", "conditions"]).last().cloned().unwrap();
    assert_eq!(condition.str_at(&["type"]), Some("DisruptionTarget"));
    assert_eq!(condition.str_at(&["reason"]), Some("PreemptionByScheduler"));
    let message = "default-scheduler: preempting to accommodate a higher priority pod";
    assert_eq!(condition.str_at(&["message"]), Some(message));
    let high = || world.server.get(&resources::PODS, &ObjectKey::new("ns", "high")).unwrap().to_value();
    world.eventually("the promise", || high().str_at(&["status", "nominatedNodeName"]) == Some("n")).await;
    assert_eq!(world.message_of("high").as_deref(), Some("0/1 nodes are available: 1 Insufficient cpu."));
    let told = || {
        let events = world.server.list(&resources::EVENTS);
        events.iter().any(|event| event.to_value().str_at(&["reason"]) == Some("Preempted"))
    };
    world.eventually("the event", told).await;
    // A less important pod doesn't slip into the room that was made.
    world.server.put(&resources::PODS, &pod("other", 5, false));
    world.server.remove(&resources::PODS, &low);
    world.eventually("binding", || world.node_of("high").is_some()).await;
    assert_eq!(world.node_of("other"), None);
}

#[tokio::test(start_paused = true)]
async fn gates_hold_pods_back() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("n", "4"));
    let mut gated: serde_json::Value = serde_json::from_str(&pod("gated", 0, false)).unwrap();
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/later"}]);
    world.server.put(&resources::PODS, &gated.to_string());
    world.server.put(&resources::PODS, &pod("free", 0, false));
    world.eventually("binding", || world.node_of("free").is_some()).await;
    assert_eq!(world.node_of("gated"), None);
    world.server.edit(&resources::PODS, &ObjectKey::new("ns", "gated"), |pod| {
        pod.remove(&["spec", "schedulingGates"]);
    });
    world.eventually("binding", || world.node_of("gated").is_some()).await;
}
