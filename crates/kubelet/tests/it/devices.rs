//! Devices that pods claim, and the drivers that make them ready.

use std::time::Duration;

use apimachinery::ObjectKey;
use client::Resource;
use serde_json::{Value, json};
use testkit::device_driver::FakeDriver;

use crate::world::World;

const CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");

const BOTH: [&str; 2] = ["v1.DRAPlugin", "v1beta1.DRAPlugin"];

const REASON: &str = "FailedPrepareDynamicResources: Failed to prepare dynamic resources: prepare dynamic resources:";

/// A claim that has a device and may be used by these pods.
fn claim(world: &World, name: &str, driver: &str, pods: &[&str]) {
    let users: Vec<Value> = pods.iter().map(|uid| json!({"resource": "pods", "name": uid, "uid": uid})).collect();
    let device = json!({"request": "r", "driver": driver, "pool": "n1", "device": "d"});
    let claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": format!("uid-of-{name}")}, "spec": {},
        "status": {"allocation": {"devices": {"results": [device]}}, "reservedFor": users}});
    world.server.put(&CLAIMS, &claim.to_string());
}

/// A pod that uses the claim as `gpu`.
fn spec(claim: &str, container: &str, request: Option<&str>) -> Value {
    let mut used = json!({"name": "gpu"});
    if let Some(request) = request {
        used["request"] = json!(request);
    }
    json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": claim}],
        "containers": [{"name": container, "resources": {"claims": [used]}}]})
}

fn devices(world: &World, container: &str) -> Vec<String> {
    world.cri.config(container).cdi_devices.into_iter().map(|device| device.name).collect()
}

#[tokio::test(start_paused = true)]
async fn devices_are_ready_before_containers_and_given_back_after() {
    let world = World::new().await;
    let pod = world.create(spec("c", "web", None));
    let failed = |why: &str| format!("{REASON} {why}");
    let missing = failed("fetch ResourceClaim c: resourceclaims.resource.k8s.io \"c\" not found");
    world.until("the claim is missed", || world.has_event(&missing)).await;
    claim(&world, "c", "d.io", &[]);
    let refused = failed(&format!("pod p ({}) is not allowed to use ResourceClaim c (uid-of-c)", pod.uid()));
    world.until("it isn't the pod's", || world.has_event(&refused)).await;
    claim(&world, "c", "d.io", &[pod.uid()]);
    let absent = failed("DRA driver d.io is not registered");
    world.until("the driver is missed", || world.has_event(&absent)).await;

    let driver = FakeDriver::new("d.io", &BOTH);
    driver.has("c", &[("r", "d.io/x=1"), ("", "d.io/x=all")]);
    driver.fails(Some("too hot"));
    let _served = driver.serve(&world.env, &world.config.root);
    let hot = failed("NodePrepareResources failed for ResourceClaim c: too hot");
    world.until("the driver fails", || world.has_event(&hot)).await;
    assert_eq!(driver.told().map(|told| told.plugin_registered), Some(true));
    driver.fails(None);
    world.until_phase("Running").await;
    assert_eq!(devices(&world, "web"), ["d.io/x=1", "d.io/x=all"]);

    driver.take_log();
    world.cri.end("web", 1);
    world.until("it runs again", || world.status("web").is_some_and(|status| status.restart_count == 1)).await;
    assert_eq!(driver.take_log(), [""; 0], "devices stay with their pod");

    driver.fails(Some("busy"));
    world.delete(1).await;
    world.until("it is asked", || driver.take_log().contains(&"unprepare ns/c".to_owned())).await;
    assert!(world.pod().is_some(), "it is gone only after its devices are back");
    driver.fails(None);
    world.until_gone().await;
    assert_eq!(driver.take_log().last().map(String::as_str), Some("unprepare ns/c"));
}

#[tokio::test(start_paused = true)]
async fn a_container_gets_the_devices_of_its_request() {
    let world = World::new().await;
    let driver = FakeDriver::new("d.io", &BOTH);
    driver.has("c", &[("r", "d.io/x=1"), ("s", "d.io/x=2")]);
    let _served = driver.serve(&world.env, &world.config.root);
    let pod = world.create(spec("c", "web", Some("s")));
    claim(&world, "c", "d.io", &[pod.uid()]);
    world.until_phase("Running").await;
    assert_eq!(devices(&world, "web"), ["d.io/x=2"]);
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_kubelet_loses_no_device() {
    let mut world = World::new().await;
    let driver = FakeDriver::new("d.io", &BOTH);
    driver.has("c", &[("", "d.io/x=1")]);
    let _served = driver.serve(&world.env, &world.config.root);
    let pod = world.create(spec("c", "web", None));
    claim(&world, "c", "d.io", &[pod.uid()]);
    world.until_phase("Running").await;
    driver.take_log();

    world.start().await;
    world.until_node_ready().await;
    world.cri.end("web", 1);
    world.until("it runs again", || world.status("web").is_some_and(|status| status.restart_count == 1)).await;
    assert_eq!(devices(&world, "web"), ["d.io/x=1"]);
    assert_eq!(driver.take_log(), [""; 0]);

    // Its pod goes while no kubelet runs.
    world.kubelet = None;
    world.server.remove(&client::resources::PODS, &World::key());
    world.start().await;
    world.until("it is given back", || driver.take_log().contains(&"unprepare ns/c".to_owned())).await;
}

#[tokio::test(start_paused = true)]
async fn a_shared_claim_is_given_back_once() {
    let world = World::new().await;
    let driver = FakeDriver::new("d.io", &BOTH);
    driver.has("c", &[("", "d.io/x=1")]);
    let _served = driver.serve(&world.env, &world.config.root);
    let first = world.create(spec("c", "web", None));
    let second = world.create_named("q", spec("c", "other", None));
    claim(&world, "c", "d.io", &[first.uid(), second.uid()]);
    world.until("both run", || world.cri.is_running("web") && world.cri.is_running("other")).await;
    assert_eq!(driver.take_log(), ["prepare ns/c"]);
    world.delete(1).await;
    world.until_gone().await;
    assert_eq!(driver.take_log(), [""; 0]);
    let options = client::DeleteOptions::default().grace(1);
    let client = world.server.client();
    client.delete(&client::resources::PODS, &ObjectKey::new("ns", "q"), &options).await.unwrap();
    world.until("it is given back", || driver.take_log() == ["unprepare ns/c"]).await;
}

#[tokio::test(start_paused = true)]
async fn drivers_that_cant_be_used_are_told_so() {
    let world = World::new().await;
    let driver = FakeDriver::new("old.io", &["v1alpha4"]);
    let _served = driver.serve(&world.env, &world.config.root);
    world.until("it is told", || driver.told().is_some()).await;
    let told = driver.told().unwrap();
    assert!(!told.plugin_registered);
    let services = "none of services supported by the plugin ([\"v1alpha4\"]) are supported by the kubelet ([\"v1.DRAPlugin\" \"v1beta1.DRAPlugin\"])";
    assert!(told.error.ends_with(services), "{}", told.error);
}

/// Whether the slices were deleted that these fields select.
fn withdrawn(world: &World, fields: &str) -> bool {
    let path = format!("/apis/resource.k8s.io/v1/resourceslices?fieldSelector={fields}");
    world.server.requests().iter().any(|seen| seen.method == http::Method::DELETE && seen.target == path)
}

/// The fields of what the driver `d.io` offers.
const OWN: &str = "spec.nodeName%3Dn1%2Cspec.driver%3Dd.io";

#[tokio::test(start_paused = true)]
async fn devices_of_absent_drivers_are_withdrawn() {
    let world = World::new().await;
    world.until("what an earlier kubelet's drivers offered goes", || withdrawn(&world, "spec.nodeName%3Dn1")).await;
    let driver = FakeDriver::new("d.io", &BOTH);
    let served = driver.serve(&world.env, &world.config.root);
    world.until("it is told", || driver.told().is_some()).await;
    drop(served);
    let began = world.env.monotonic();
    world.until("what it offered goes", || withdrawn(&world, OWN)).await;
    assert!((world.env.monotonic() - began).as_secs() >= 30, "a driver may come back");
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_cant_be_reached_is_away() {
    let world = World::new().await;
    let driver = FakeDriver::new("d.io", &BOTH);
    let mut served = driver.serve(&world.env, &world.config.root);
    world.until("it is told", || driver.told().is_some()).await;
    let pause = async |seconds| world.env.sleep(Duration::from_secs(seconds)).await;
    pause(100).await;
    served.breaks();
    pause(5).await;
    served.works_again();
    pause(100).await;
    assert!(!withdrawn(&world, OWN), "it came back soon");

    served.breaks();
    let began = world.env.monotonic();
    world.until("what it offered goes", || withdrawn(&world, OWN)).await;
    assert!((30..60).contains(&(world.env.monotonic() - began).as_secs()));
    let pod = world.create(spec("c", "web", None));
    claim(&world, "c", "d.io", &[pod.uid()]);
    let failed = || world.events().into_iter().any(|event| event.starts_with(REASON) && event.contains("Unavailable"));
    world.until("the driver is missed", failed).await;
    world.server.forget_requests();
    served.works_again();
    world.until_phase("Running").await;
    assert_eq!(driver.take_log(), ["prepare ns/c"]);
    pause(600).await;
    assert!(!withdrawn(&world, OWN), "it is there");
}
