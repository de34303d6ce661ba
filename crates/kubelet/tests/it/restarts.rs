//! Containers that end and are run again.

use serde_json::json;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_container_is_restarted_with_growing_pauses() {
    let world = World::new().await;
    let uid = world.create(json!({"containers": [{"name": "web"}]})).uid().to_owned();
    world.until_phase("Running").await;
    world.cri.end("web", 1);
    world
        .until("it runs again at once", || {
            world.status("web").unwrap().restart_count == 1 && world.cri.is_running("web")
        })
        .await;
    for (restarts, pause) in [(2, 10), (3, 20), (4, 40), (5, 80), (6, 160), (7, 300), (8, 300)] {
        let began = world.env.monotonic();
        world.cri.end("web", 1);
        world.until_waiting("web", "CrashLoopBackOff").await;
        let (_, message) = world.waiting("web").unwrap();
        let shown = match pause {
            80 => "1m20s".into(),
            160 => "2m40s".into(),
            300 => "5m0s".into(),
            pause => format!("{pause}s"),
        };
        assert_eq!(message, format!("back-off {shown} restarting failed container=web pod=p_ns({uid})"));
        assert_eq!(world.phase(), "Running");
        let last = world.status("web").unwrap().last_state.unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_deref()), (1, Some("Error")));
        world.until("it runs again", || world.status("web").unwrap().restart_count == restarts).await;
        let took = (world.env.monotonic() - began).as_secs_f64();
        assert!((pause as f64 - 0.1..pause as f64 + 1.0).contains(&took), "restart {restarts} took {took}");
    }
    world
        .until("the pause is told", || {
            world.has_event(&format!("BackOff: Back-off restarting failed container web in pod p_ns({uid})"))
        })
        .await;
    // A long run is a new beginning.
    world.until("it runs", || world.cri.is_running("web")).await;
    world.env.sleep(std::time::Duration::from_secs(11 * 60)).await;
    let began = world.env.monotonic();
    world.cri.end("web", 1);
    world.until("it runs again", || world.status("web").unwrap().restart_count == 9).await;
    assert!((world.env.monotonic() - began).as_secs() < 2);
}

#[tokio::test(start_paused = true)]
async fn only_the_last_dead_instance_is_kept() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    for restarts in 1..4 {
        world.cri.end("web", 1);
        world
            .until("it runs again", || {
                world.status("web").unwrap().restart_count == restarts && world.cri.is_running("web")
            })
            .await;
    }
    assert_eq!(world.cri.counts(), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn success_is_final_where_only_failures_are_restarted() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "OnFailure", "containers": [{"name": "a"}, {"name": "b"}]}));
    world.until_phase("Running").await;
    world.cri.end("a", 0);
    world.cri.end("b", 1);
    world.until("b runs again", || world.status("b").unwrap().restart_count == 1 && world.cri.is_running("b")).await;
    assert!(!world.cri.is_running("a"));
    world.cri.end("b", 0);
    world.until_phase("Succeeded").await;
}

#[tokio::test(start_paused = true)]
async fn rules_of_a_container_decide_before_the_pods() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "web", "restartPolicy": "Never",
        "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}]}));
    world.until_phase("Running").await;
    world.cri.end("web", 42);
    world
        .until("it runs again", || world.status("web").unwrap().restart_count == 1 && world.cri.is_running("web"))
        .await;
    world.cri.end("web", 1);
    world.until_phase("Failed").await;
}

#[tokio::test(start_paused = true)]
async fn a_broken_sandbox_is_replaced() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let ip = world.pod().unwrap().status.unwrap().pod_ip;
    world.cri.break_sandbox();
    world
        .until("it runs in another one", || {
            let pod = world.pod().unwrap();
            pod.status.unwrap().pod_ip != ip && world.cri.is_running("web")
        })
        .await;
    assert_eq!(world.status("web").unwrap().restart_count, 1);
    assert_eq!(world.cri.sandbox_config().metadata.unwrap().attempt, 1);
    world
        .until("it is told", || {
            world.has_event("SandboxChanged: Pod sandbox changed, it will be killed and re-created.")
        })
        .await;
}
