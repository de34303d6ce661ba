//! Pods with resource claims, against a fake API server; the test plays the driver and the claims' controller.

use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::{Resource, resources};
use serde_json::json;

use crate::World;

const CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");
const CLASSES: Resource = Resource::cluster("resource.k8s.io", "v1", "deviceclasses");
const SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");

/// Two nodes, and a class of fast devices.
fn world() -> World {
    let world = World::new();
    for name in ["n1", "n2"] {
        world.server.put(&resources::NODES, &crate::node(name, "4"));
    }
    let fast = json!([{"cel": {"expression": "device.driver == 'gpu.io' && device.attributes['gpu.io'].speed >= 2"}}]);
    let class = json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "fast"},
        "spec": {"selectors": fast}});
    world.server.put(&CLASSES, &class.to_string());
    world
}

/// The node's devices, by name and speed.
fn slice(world: &World, node: &str, devices: &[(&str, i64)]) {
    let device = |(name, speed): &(&str, i64)| json!({"name": name, "attributes": {"speed": {"int": speed}}});
    let devices: Vec<_> = devices.iter().map(device).collect();
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "gpu.io", "nodeName": node, "pool": pool, "devices": devices});
    let slice =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": node}, "spec": spec});
    world.server.put(&SLICES, &slice.to_string());
}

fn claim(world: &World, name: &str) {
    let exactly = json!({"deviceClassName": "fast", "allocationMode": "ExactCount", "count": 1});
    let claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}});
    world.server.put(&CLAIMS, &claim.to_string());
}

fn pod(world: &World, name: &str, claim: &str) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "ns", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c", "image": "i"}],
            "resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}});
    world.server.put(&resources::PODS, &pod.to_string());
}

fn value(world: &World, claim: &str) -> Value {
    world.server.get(&CLAIMS, &ObjectKey::new("ns", claim)).unwrap().to_value()
}

/// The claim's device and users.
fn state(world: &World, claim: &str) -> String {
    let value = value(world, claim);
    let results = value.items_at(&["status", "allocation", "devices", "results"]);
    let devices: Vec<_> = results.iter().map(|result| result.str_at(&["device"]).unwrap()).collect();
    let users = value.items_at(&["status", "reservedFor"]);
    let users: Vec<_> = users.iter().map(|user| user.str_at(&["name"]).unwrap()).collect();
    format!("{} for {}", devices.join(","), users.join(","))
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_device_where_the_pod_goes() {
    let world = world();
    slice(&world, "n1", &[("slow", 1)]);
    slice(&world, "n2", &[("slower", 1), ("quick", 3)]);
    claim(&world, "c");
    pod(&world, "p", "c");
    world.eventually("binding", || world.node_of("p").as_deref() == Some("n2")).await;
    assert_eq!(state(&world, "c"), "quick for p");
    let held = value(&world, "c").items_at(&["metadata", "finalizers"]).to_vec();
    assert_eq!(held, [Value::from("resource.kubernetes.io/delete-protection")]);
    // Another pod shares it, and goes where it is.
    pod(&world, "q", "c");
    world.eventually("binding", || world.node_of("q").as_deref() == Some("n2")).await;
    assert_eq!(state(&world, "c"), "quick for p,q");
    let writes: Vec<String> =
        world.server.writes().into_iter().filter(|write| write.contains("resourceclaims")).collect();
    assert_eq!(writes.len(), 3, "{writes:?}");
}

#[tokio::test(start_paused = true)]
async fn pods_wait_for_devices_and_get_them_when_they_are_given_back() {
    let world = world();
    slice(&world, "n1", &[("one", 2)]);
    for name in ["a", "b"] {
        claim(&world, name);
        pod(&world, name, name);
    }
    let bound = |name: &str| world.node_of(name).is_some();
    world.eventually("one is bound", || bound("a") || bound("b")).await;
    let (first, second) = if bound("a") { ("a", "b") } else { ("b", "a") };
    let message = "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2 nodes are \
                   available: 2 Preemption is not helpful for scheduling.";
    world.eventually("the other says why", || world.message_of(second).as_deref() == Some(message)).await;
    world.env.sleep(Duration::from_secs(60)).await;
    assert!(!bound(second));
    // What the claims' controller does when the pod is done.
    world.server.edit(&CLAIMS, &ObjectKey::new("ns", first), |claim| claim.set(&["status"], Value::object()));
    world.eventually("the other is bound", || bound(second)).await;
    assert_eq!(state(&world, second), format!("one for {second}"));
}

#[tokio::test(start_paused = true)]
async fn new_claims_classes_and_slices_help() {
    let world = world();
    pod(&world, "p", "c");
    world.env.sleep(Duration::from_secs(10)).await;
    assert_eq!(world.message_of("p"), None, "it isn't tried before its claim is there");
    world.server.remove(&CLASSES, &ObjectKey::cluster("fast"));
    claim(&world, "c");
    let no_class = "0/2 nodes are available: request r: device class fast does not exist. no new claims to deallocate, preemption: \
                    0/2 nodes are available: 2 Preemption is not helpful for scheduling.";
    world.eventually("it says why", || world.message_of("p").as_deref() == Some(no_class)).await;
    let class =
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass", "metadata": {"name": "fast"}, "spec": {}});
    world.server.put(&CLASSES, &class.to_string());
    let nothing = "0/2 nodes are available: 2 cannot allocate all claims. still not schedulable, preemption: 0/2 nodes are \
                   available: 2 Preemption is not helpful for scheduling.";
    world.eventually("it says why", || world.message_of("p").as_deref() == Some(nothing)).await;
    slice(&world, "n1", &[("x", 1)]);
    world.eventually("binding", || world.node_of("p").as_deref() == Some("n1")).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_out_of_reach_is_deallocated() {
    let world = world();
    slice(&world, "n1", &[("x", 2)]);
    claim(&world, "c");
    world.server.edit(&CLAIMS, &ObjectKey::new("ns", "c"), |claim| {
        let gone = json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["gone"]}]}]});
        let result = json!({"request": "r", "driver": "gpu.io", "pool": "gone", "device": "y"});
        claim.set(&["status", "allocation"], Value::from(json!({"nodeSelector": gone, "devices": {"results": [result]}})));
    });
    pod(&world, "p", "c");
    world.eventually("binding", || world.node_of("p").as_deref() == Some("n1")).await;
    assert_eq!(state(&world, "c"), "x for p");
}

#[tokio::test(start_paused = true)]
async fn every_device_is_given_once() {
    let world = world();
    let names: Vec<String> = (0..8).map(|i| format!("d{i}")).collect();
    for node in ["n1", "n2"] {
        let devices: Vec<_> = names.iter().map(|name| (name.as_str(), 2)).collect();
        slice(&world, node, &devices);
    }
    for i in 0..20 {
        claim(&world, &format!("c{i}"));
        pod(&world, &format!("p{i}"), &format!("c{i}"));
    }
    let bound = || (0..20).filter(|i| world.node_of(&format!("p{i}")).is_some()).count();
    world.eventually("sixteen are bound", || bound() == 16).await;
    world.env.sleep(Duration::from_secs(30)).await;
    assert_eq!(bound(), 16);
    let mut given: Vec<String> = Vec::new();
    for i in 0..20 {
        for result in value(&world, &format!("c{i}")).items_at(&["status", "allocation", "devices", "results"]) {
            given.push(format!("{}/{}", result.str_at(&["pool"]).unwrap(), result.str_at(&["device"]).unwrap()));
        }
    }
    given.sort_unstable();
    given.dedup();
    assert_eq!(given.len(), 16, "{given:?}");
}
