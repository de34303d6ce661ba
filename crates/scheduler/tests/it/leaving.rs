//! Pods that are to go before they have a node.

use apimachinery::ObjectKey;
use client::{Resource, resources};
use env::Env;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{World, node, pod};

const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");

fn edited(json: &str, edit: impl FnOnce(&mut Value)) -> String {
    let mut value = serde_json::from_str(json).unwrap();
    edit(&mut value);
    value.to_string()
}

/// Reason, message and component of each event.
fn told(world: &World) -> Vec<[String; 3]> {
    let of = |event: std::sync::Arc<apimachinery::Object>| {
        let event = event.to_value();
        [&["reason"][..], &["message"], &["source", "component"]].map(|path| event.str_at(path).unwrap().to_owned())
    };
    world.server.list(&resources::EVENTS).into_iter().map(of).collect()
}

#[tokio::test(start_paused = true)]
async fn a_pod_being_deleted_is_not_tried() {
    let profiles = json!({"profiles": [{"schedulerName": "default-scheduler"}, {"schedulerName": "other"}]});
    let world = World::with(Env::seeded(1, Timestamp::UNIX_EPOCH), &profiles);
    world.server.put(&resources::NODES, &node("n", "4"));
    let leaving = edited(&pod("p", "1"), |pod| {
        pod["spec"]["schedulerName"] = json!("other");
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        pod["metadata"]["finalizers"] = json!(["example.com/slow"]);
    });
    world.server.put(&resources::PODS, &leaving);
    world.eventually("an event", || !told(&world).is_empty()).await;
    let expect = ["FailedScheduling", "skip schedule deleting pod: ns/p", "other"].map(str::to_owned);
    assert_eq!((told(&world), world.node_of("p")), (vec![expect], None));
}

/// Its claim isn't bound yet, so that it has its place for longer than a moment.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_to_go_while_it_is_bound_leaves_its_place() {
    let world = World::new();
    world.server.put(&resources::NODES, &node("n", "2"));
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"},
        "provisioner": "example.com/slow", "volumeBindingMode": "WaitForFirstConsumer"});
    world.server.put(&STORAGE_CLASSES, &class.to_string());
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "ns"},
        "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}});
    world.server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &claim.to_string());
    let first = edited(&pod("first", "2"), |pod| {
        pod["metadata"]["finalizers"] = json!(["example.com/slow"]);
        pod["spec"]["volumes"] = json!([{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}]);
    });
    world.server.put(&resources::PODS, &first);
    let first = ObjectKey::new("ns", "first");
    let promised = || world.server.get(&resources::PODS, &first).unwrap().to_value();
    world.eventually("a place", || promised().str_at(&["status", "nominatedNodeName"]) == Some("n")).await;
    world.server.put(&resources::PODS, &pod("second", "2"));
    world.eventually("no place for another", || world.message_of("second").is_some()).await;
    world
        .server
        .edit(&resources::PODS, &first, |pod| pod.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z"));
    world.eventually("binding", || world.node_of("second").is_some()).await;
    // What was begun for it fails; it isn't tried again.
    world.server.edit(&resources::PERSISTENT_VOLUME_CLAIMS, &ObjectKey::new("ns", "c"), |claim| {
        claim.remove(&["metadata", "annotations"]);
    });
    let skipped = || told(&world).iter().any(|[_, message, _]| message == "skip schedule deleting pod: ns/first");
    world.eventually("no other attempt", skipped).await;
    assert_eq!(world.node_of("first"), None);
}
