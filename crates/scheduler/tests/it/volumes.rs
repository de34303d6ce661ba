//! Claims that wait for a pod, against a fake API server; the test plays the volumes' controllers.

use apimachinery::{ObjectKey, Value};
use client::{Resource, resources};
use serde_json::json;

use crate::World;

const STORAGE_CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");
const SELECTED: &str = "volume.kubernetes.io/selected-node";

fn class(provisioner: &str) -> String {
    json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"}, "provisioner": provisioner,
        "volumeBindingMode": "WaitForFirstConsumer"})
    .to_string()
}

fn claim() -> String {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "ns", "uid": "c-uid"},
        "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}})
    .to_string()
}

fn volume(node: &str) -> String {
    json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "v"},
        "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"},
            "nodeAffinity": {"required": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "host", "operator": "In", "values": [node]}]}]}}},
        "status": {"phase": "Available"}})
    .to_string()
}

fn pod(name: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i"}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}]}})
    .to_string()
}

fn world(provisioner: &str) -> World {
    let world = World::new();
    for name in ["a", "b"] {
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": {"host": name}},
            "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
        world.server.put(&resources::NODES, &node.to_string());
    }
    world.server.put(&STORAGE_CLASSES, &class(provisioner));
    world.server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &claim());
    world
}

fn get(world: &World, resource: &Resource, key: &ObjectKey) -> Value {
    world.server.get(resource, key).unwrap().to_value()
}

/// What the volume controllers do at last.
fn bind(world: &World) {
    world.server.edit(&resources::PERSISTENT_VOLUME_CLAIMS, &ObjectKey::new("ns", "c"), |claim| {
        claim.set(&["spec", "volumeName"], "v");
        claim.set(&["metadata", "annotations", "pv.kubernetes.io/bind-completed"], "yes");
    });
}

#[tokio::test(start_paused = true)]
async fn a_volume_that_is_there_is_given_to_the_claim_before_the_pod_is_bound() {
    let world = world("kubernetes.io/no-provisioner");
    world.server.put(&resources::PERSISTENT_VOLUMES, &volume("b"));
    world.server.put(&resources::PODS, &pod("p"));
    let volume = || get(&world, &resources::PERSISTENT_VOLUMES, &ObjectKey::cluster("v"));
    world.eventually("the claim's volume", || volume().str_at(&["spec", "claimRef", "uid"]) == Some("c-uid")).await;
    let annotation = ["metadata", "annotations", "pv.kubernetes.io/bound-by-controller"];
    assert_eq!(volume().str_at(&annotation), Some("yes"));
    assert_eq!(world.node_of("p"), None);
    bind(&world);
    world.eventually("binding", || world.node_of("p").as_deref() == Some("b")).await;
}

#[tokio::test(start_paused = true)]
async fn a_volume_is_made_where_the_pod_will_be() {
    let world = world("example.com/made");
    world.server.put(&resources::PODS, &pod("p"));
    let claim = || get(&world, &resources::PERSISTENT_VOLUME_CLAIMS, &ObjectKey::new("ns", "c"));
    let chosen = || claim().str_at(&["metadata", "annotations", SELECTED]).map(str::to_owned);
    world.eventually("the chosen node", || chosen().is_some()).await;
    let node = chosen().unwrap();
    assert_eq!(world.node_of("p"), None);
    world.server.put(&resources::PERSISTENT_VOLUMES, &volume(&node));
    bind(&world);
    world.eventually("binding", || world.node_of("p").as_ref() == Some(&node)).await;
}

#[tokio::test(start_paused = true)]
async fn a_provisioner_that_gives_up_gets_another_node() {
    let world = world("example.com/made");
    world.server.put(&resources::PODS, &pod("p"));
    let key = ObjectKey::new("ns", "c");
    let chosen = || {
        let claim = get(&world, &resources::PERSISTENT_VOLUME_CLAIMS, &key);
        claim.str_at(&["metadata", "annotations", SELECTED]).map(str::to_owned)
    };
    world.eventually("the chosen node", || chosen().is_some()).await;
    world.server.edit(&resources::PERSISTENT_VOLUME_CLAIMS, &key, |claim| {
        claim.remove(&["metadata", "annotations", SELECTED]);
    });
    world.eventually("another choice", || chosen().is_some()).await;
    let told = world.message_of("p").unwrap();
    assert!(told.contains("running PreBind plugin \"VolumeBinding\": binding volumes: "), "{told}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_claim() {
    let world = world("example.com/made");
    world.server.remove(&resources::PERSISTENT_VOLUME_CLAIMS, &ObjectKey::new("ns", "c"));
    world.server.put(&resources::PODS, &pod("p"));
    world.eventually("the reason", || world.message_of("p").is_some()).await;
    assert_eq!(
        world.message_of("p").as_deref(),
        Some("0/2 nodes are available: persistentvolumeclaim \"c\" not found. not found")
    );
    world.server.put(&resources::PERSISTENT_VOLUMES, &volume("a"));
    world.server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &claim());
    bind(&world);
    world.eventually("binding", || world.node_of("p").as_deref() == Some("a")).await;
}
