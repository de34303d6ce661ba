//! Pods that are resized in place.

use client::resources;
use serde_json::{Value as Json, json};

use crate::world::World;

fn spec(cpu: &str, policy: &str) -> Json {
    json!({"containers": [{"name": "web", "resources": {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}},
        "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]})
}

fn resize(world: &World, cpu: &str) {
    let pod = world.server.get(&resources::PODS, &World::key()).unwrap();
    let generation = pod.generation() + 1;
    world.server.edit(&resources::PODS, &World::key(), |pod| {
        let mut containers = pod.items_at(&["spec", "containers"]).to_vec();
        for list in ["requests", "limits"] {
            containers[0].set(&["resources", list, "cpu"], cpu);
        }
        pod.set(&["spec", "containers"], containers);
        pod.set(&["metadata", "generation"], generation);
    });
}

fn given(world: &World) -> String {
    let status = world.status("web").and_then(|status| status.resources);
    status.and_then(|resources| Some(resources.limits?.get("cpu")?.0.clone())).unwrap_or_default()
}

fn quota(world: &World) -> i64 {
    world.cri.config("web").linux.unwrap().resources.unwrap().cpu_quota
}

#[tokio::test(start_paused = true)]
async fn a_container_is_given_what_it_asks_for() {
    let mut world = World::new().await;
    world.create(spec("100m", "NotRequired"));
    world.until_phase("Running").await;
    assert_eq!((given(&world).as_str(), quota(&world)), ("100m", 10_000));
    resize(&world, "200m");
    world.until("it grows", || given(&world) == "200m").await;
    assert_eq!((quota(&world), world.status("web").unwrap().restart_count), (20_000, 0));
    world.until("it is told", || world.condition("PodResizeInProgress").0.is_empty()).await;
    let done = "ResizeCompleted: Pod resize completed: {\"containers\":[{\"name\":\"web\",\"resources\":\
        {\"limits\":{\"cpu\":\"200m\"},\"requests\":{\"cpu\":\"200m\"}}}],\"generation\":2}";
    world.until("the event", || world.has_event(done)).await;
    // A kubelet that begins again knows what it gave.
    world.start().await;
    resize(&world, "50m");
    world.until("it shrinks", || given(&world) == "50m").await;
    assert_eq!(quota(&world), 5_000);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_or_never_comes() {
    let world = World::new().await;
    let cpus = std::thread::available_parallelism().unwrap().get();
    world.create(spec("100m", "NotRequired"));
    world.create_named("other", json!({"containers": [{"name": "o", "resources": {"requests": {"cpu": "900m"}}}]}));
    world.until_phase("Running").await;
    resize(&world, &(cpus + 1).to_string());
    world.until("it can't be", || world.condition("PodResizePending") == ("True".into(), "Infeasible".into())).await;
    resize(&world, &cpus.to_string());
    world.until("it waits", || world.condition("PodResizePending") == ("True".into(), "Deferred".into())).await;
    assert_eq!((given(&world).as_str(), quota(&world)), ("100m", 10_000));
    let options = client::DeleteOptions::default().grace(1);
    let other = apimachinery::ObjectKey::new("ns", "other");
    world.server.client().delete(&resources::PODS, &other, &options).await.unwrap();
    world.until("there is room", || given(&world) == cpus.to_string()).await;
    world.until("it is told", || world.condition("PodResizePending").0.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_container_may_ask_to_be_started_again() {
    let world = World::new().await;
    world.create(spec("100m", "RestartContainer"));
    world.until_phase("Running").await;
    resize(&world, "200m");
    world.until("it grows", || given(&world) == "200m" && world.status("web").unwrap().restart_count == 1).await;
    assert_eq!(quota(&world), 20_000);
    assert!(world.has_event("Killing: Container web resize requires restart"));
}
