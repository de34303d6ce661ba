//! Init containers and sidecars.

use serde_json::json;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn init_containers_run_one_after_the_other() {
    let world = World::new().await;
    world.create(json!({"initContainers": [{"name": "a"}, {"name": "b"}], "containers": [{"name": "web"}]}));
    world.until("a runs", || world.cri.is_running("a")).await;
    world.until_waiting("web", "PodInitializing").await;
    assert_eq!(world.phase(), "Pending");
    world
        .until("it is told", || world.condition("Initialized") == ("False".into(), "ContainersNotInitialized".into()))
        .await;
    assert!(!world.cri.is_running("b"));
    world.cri.end("a", 0);
    world.until("b runs", || world.cri.is_running("b")).await;
    world.cri.end("b", 0);
    world.until_phase("Running").await;
    assert_eq!(world.condition("Initialized").0, "True");
    let log: Vec<_> = world.cri.take_log().into_iter().filter(|line| line.starts_with("start")).collect();
    assert_eq!(log, ["start a", "start b", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_is_tried_again() {
    let world = World::new().await;
    world.cri.ends("a", Some(1));
    world.create(json!({"initContainers": [{"name": "a"}], "containers": [{"name": "web"}]}));
    world.until_waiting("a", "CrashLoopBackOff").await;
    assert_eq!(world.phase(), "Pending");
    world.cri.ends("a", Some(0));
    world.until_phase("Running").await;
}

#[tokio::test(start_paused = true)]
async fn a_failing_init_container_fails_a_pod_that_never_restarts() {
    let world = World::new().await;
    world.cri.ends("a", Some(1));
    world.create(json!({"restartPolicy": "Never", "initContainers": [{"name": "a"}], "containers": [{"name": "web"}]}));
    world.until_phase("Failed").await;
    assert!(!world.cri.take_log().contains(&"start web".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn sidecars_run_beside_and_end_last() {
    let world = World::new().await;
    world.create(json!({"initContainers": [
        {"name": "s1", "restartPolicy": "Always", "startupProbe": {"exec": {"command": ["up"]}, "periodSeconds": 1}},
        {"name": "s2", "restartPolicy": "Always"},
        {"name": "i"}], "containers": [{"name": "web"}]}));
    world.until("i runs", || world.cri.is_running("i")).await;
    assert!(world.cri.is_running("s1") && world.cri.is_running("s2") && !world.cri.is_running("web"));
    world.cri.end("i", 0);
    world.until_phase("Running").await;
    world.cri.end("s1", 1);
    world
        .until("the sidecar runs again", || {
            world.cri.is_running("s1") && world.status("s1").unwrap().restart_count == 1
        })
        .await;
    world.cri.take_log();
    world.delete(30).await;
    world.until_gone().await;
    let stops: Vec<_> = world.cri.take_log().into_iter().filter(|line| line.starts_with("stop")).collect();
    let order: Vec<&str> = stops.iter().map(|stop| stop.split(' ').nth(1).unwrap()).collect();
    assert_eq!(order, ["web", "s2", "s1"]);
}

#[tokio::test(start_paused = true)]
async fn sidecars_do_not_keep_a_pod_from_ending() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Never", "initContainers": [{"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    world.cri.end("web", 0);
    world.until_phase("Succeeded").await;
    assert!(!world.cri.is_running("s"));
}
