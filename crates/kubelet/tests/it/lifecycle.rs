//! A pod from its creation to its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use apimachinery::{FieldError, GroupKind, Status};
use client::fake::Reaction;
use client::resources;
use serde_json::json;

use crate::world::World;

fn one() -> serde_json::Value {
    json!({"containers": [{"name": "web"}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_and_is_deleted() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    let pod = world.pod().unwrap();
    let status = pod.status.as_ref().unwrap();
    assert_eq!(status.pod_ip.as_deref(), Some("10.1.0.1"));
    assert_eq!(status.host_ip.as_deref(), Some("127.0.0.9"));
    assert_eq!(status.qos_class.as_deref(), Some("BestEffort"));
    assert_eq!(status.observed_generation, Some(1));
    for condition in ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"] {
        assert_eq!(world.condition(condition).0, "True", "{condition}");
    }
    let web = world.status("web").unwrap();
    assert!(web.ready && web.started == Some(true) && web.restart_count == 0);
    assert!(web.container_id.unwrap().starts_with("fake://container-"));
    let log = world.cri.take_log();
    assert_eq!(log, ["sandbox p 0", "create web 0", "start web"]);
    world.until("events are written", || world.events().len() >= 3).await;
    assert_eq!(
        world.events(),
        [
            "Pulled: Container image \"app:1\" already present on machine and can be accessed by the pod",
            "Created: Container created",
            "Started: Container started",
        ]
    );

    let uid = pod.metadata.uid.unwrap();
    let folder = world.config.root.join("pods").join(&uid);
    assert!(folder.join("etc-hosts").exists());
    world.delete(5).await;
    world.until_gone().await;
    assert_eq!(world.cri.take_log()[..1], ["stop web 5"]);
    world.until("nothing is left", || world.cri.counts() == (0, 0) && !folder.exists()).await;
    let group = world.group().child("kubelet/besteffort").unwrap().child(&format!("pod{uid}")).unwrap();
    assert!(!group.exists());
    world.until("the end is told", || world.has_event("Killing: Stopping container web")).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_ends_well_succeeds_and_stays() {
    let world = World::new().await;
    world.cri.ends("web", Some(0));
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "web"}]}));
    world.until_phase("Succeeded").await;
    assert_eq!(world.condition("Ready"), ("False".into(), "PodCompleted".into()));
    assert_eq!(world.condition("Initialized"), ("True".into(), "PodCompleted".into()));
    assert_eq!(world.status("web").unwrap().state.unwrap().terminated.unwrap().exit_code, 0);
    world.env.sleep(Duration::from_secs(60)).await;
    assert_eq!(world.cri.counts(), (1, 1), "its log can still be read");
    world.delete(30).await;
    world.until_gone().await;
    world.until("nothing is left", || world.cri.counts() == (0, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_without_restart_fails_the_pod() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "a"}, {"name": "b"}]}));
    world.until_phase("Running").await;
    world.cri.end("a", 3);
    world.until("a has ended", || world.status("a").unwrap().state.unwrap().terminated.is_some()).await;
    assert_eq!(world.phase(), "Running");
    assert_eq!(world.condition("Ready"), ("False".into(), "ContainersNotReady".into()));
    world.cri.end("b", 0);
    world.until_phase("Failed").await;
    assert_eq!(world.condition("ContainersReady"), ("False".into(), "PodFailed".into()));
}

#[tokio::test(start_paused = true)]
async fn a_shorter_grace_period_counts() {
    let world = World::new().await;
    world.cri.stubborn("web");
    world.create(one());
    world.until_phase("Running").await;
    world.cri.take_log();
    let began = world.env.monotonic();
    world.delete(600).await;
    world.until("it is asked to end", || world.cri.take_log().contains(&"stop web 600".to_owned())).await;
    world.delete(3).await;
    world.until_gone().await;
    assert!(world.env.monotonic() - began < Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_taken_away_ends_too() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    world.server.remove(&resources::PODS, &World::key());
    world.until("nothing is left", || world.cri.counts() == (0, 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_the_same_name_is_another_one() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    let first = world.status("web").unwrap().container_id;
    world.server.remove(&resources::PODS, &World::key());
    world.create(one());
    world.until_phase("Running").await;
    assert_ne!(world.status("web").unwrap().container_id, first);
    world.until("the first is gone", || world.cri.counts() == (1, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_more_is_told_of_a_pod_that_was_made_again() {
    let world = World::new().await;
    let old = world.create(one()).uid().to_owned();
    world.until_phase("Running").await;
    // The kubelet doesn't hear of it while the old one's container ends and comes again.
    world.server.hold_watches(&resources::PODS, true);
    world.server.remove(&resources::PODS, &World::key());
    world.create(one());
    let (told, mentioned) = (Arc::new(AtomicUsize::new(0)), old.clone());
    let count = told.clone();
    world.server.react(move |request| {
        let names_it = String::from_utf8_lossy(&request.body).contains(&mentioned);
        if !request.target.starts_with("/api/v1/namespaces/ns/pods/p/status") || !names_it {
            return None;
        }
        count.fetch_add(1, SeqCst);
        let other = FieldError::invalid("metadata.uid", mentioned.clone(), "field is immutable");
        Some(Reaction::Refuse(Status::invalid(&GroupKind { group: String::new(), kind: "Pod".into() }, "p", &[other])))
    });
    world.cri.take_log();
    world.cri.end("web", 1);
    world.until("it comes again", || world.cri.take_log().contains(&"start web".to_owned())).await;
    world.env.sleep(Duration::from_secs(60)).await;
    assert_eq!(told.load(SeqCst), 1);
    world.server.hold_watches(&resources::PODS, false);
    world.until_phase("Running").await;
    assert_ne!(world.pod().unwrap().metadata.uid, Some(old));
}

#[tokio::test(start_paused = true)]
async fn hooks_run() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web", "lifecycle": {
        "postStart": {"exec": {"command": ["begin"]}}, "preStop": {"exec": {"command": ["finish"]}}}}]}));
    world.until_phase("Running").await;
    world.until("it was begun", || world.cri.take_log().contains(&"exec begin".to_owned())).await;
    world.delete(30).await;
    world.until_gone().await;
    let log = world.cri.take_log();
    let position = |text: &str| log.iter().position(|line| line.starts_with(text)).unwrap();
    assert!(position("exec finish") < position("stop web"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_restarts_the_container() {
    let world = World::new().await;
    world.cri.command("begin", 1);
    world
        .create(json!({"containers": [{"name": "web", "lifecycle": {"postStart": {"exec": {"command": ["begin"]}}}}]}));
    world.until("the failure is told", || world.has_event("FailedPostStartHook: PostStartHook failed")).await;
    world.until("it is restarted", || world.status("web").is_some_and(|web| web.restart_count > 0)).await;
}

#[tokio::test(start_paused = true)]
async fn too_long_a_run_fails_the_pod() {
    let world = World::new().await;
    world.create(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let began = world.env.monotonic();
    world.until_phase("Failed").await;
    let took = world.env.monotonic() - began;
    assert!((55..70).contains(&took.as_secs()), "{took:?}");
    let status = world.pod().unwrap().status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    assert!(!world.cri.is_running("web"));
}

#[tokio::test(start_paused = true)]
async fn a_crash_leaves_containers_running_and_they_are_adopted() {
    let mut world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    let before = world.status("web").unwrap();
    world.cri.take_log();
    let writes = world.server.writes().len();
    world.start().await;
    world.handle.clone().unwrap().reported().await;
    world.env.sleep(Duration::from_secs(30)).await;
    assert_eq!(world.cri.take_log(), Vec::<String>::new());
    assert_eq!(world.status("web").unwrap(), before);
    let of_pod = world.server.writes()[writes..].iter().filter(|write| write.contains("/pods/")).count();
    assert_eq!(of_pod, 0, "nothing changed, nothing is told");
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_pods_that_are_gone_is_ended() {
    let mut world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    world.kubelet = None;
    world.server.remove(&resources::PODS, &World::key());
    world.start().await;
    world.until("nothing is left", || world.cri.counts() == (0, 0)).await;
    let pods = world.config.root.join("pods");
    world.until("no folder is left", || std::fs::read_dir(&pods).unwrap().count() == 0).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_stop_everything_runs_again() {
    let mut world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    let writes = world.server.writes().len();
    world.handle.clone().unwrap().stop_all(Duration::from_secs(9)).await.unwrap();
    assert_eq!(world.cri.counts(), (0, 0));
    assert!(!world.group().child("kubelet").unwrap().exists());
    let told = world.server.writes();
    assert!(told[writes..].iter().all(|write| !write.contains("/pods/")), "{told:?}");
    let before = world.status("web").unwrap();
    assert!(before.state.unwrap().running.is_some());
    world.start().await;
    world.handle.clone().unwrap().reported().await;
    assert_eq!(world.status("web").unwrap().restart_count, 1, "what was told before the stop holds no more");
    world.until("it runs again", || world.cri.is_running("web")).await;
    world.until_phase("Running").await;
    let last = world.status("web").unwrap().last_state.unwrap().terminated.unwrap();
    assert_eq!((last.exit_code, last.reason.as_deref()), (137, Some("ContainerStatusUnknown")));
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_fit_are_refused() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web", "resources": {"requests": {"cpu": "100000"}}}]}));
    world.until_phase("Failed").await;
    let status = world.pod().unwrap().status.unwrap();
    assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
    assert!(
        status
            .message
            .unwrap()
            .starts_with("Pod was rejected: Node didn't have enough resource: cpu, requested: 100000000")
    );
    assert_eq!(world.cri.counts(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn large_logs_are_rotated() {
    let world = World::new().await;
    let uid = world.create(one()).uid().to_owned();
    world.until_phase("Running").await;
    let folder = world.config.logs.join(format!("ns_p_{uid}/web"));
    std::fs::write(folder.join("0.log"), vec![b'x'; 11 << 20]).unwrap();
    world.until("it is rotated", || std::fs::read_dir(&folder).unwrap().count() == 2).await;
    world.until("a new one is begun", || std::fs::metadata(folder.join("0.log")).is_ok_and(|log| log.len() == 0)).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_image_restarts_the_container() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    world.until("it is ready", || world.condition("Ready").0 == "True").await;
    world.cri.can_pull("app:2");
    world.cri.pulls_take(std::time::Duration::from_millis(300));
    world.server.forget_requests();
    world.server.edit(&resources::PODS, &World::key(), |pod| {
        let mut containers = pod.items_at(&["spec", "containers"]).to_vec();
        containers[0].set(&["image"], "app:2");
        pod.set(&["spec", "containers"], apimachinery::Value::Array(containers));
    });
    world.until("it is restarted", || world.status("web").unwrap().restart_count == 1).await;
    world.until("it is told", || world.has_event("Killing: Container web definition changed, will be restarted")).await;
    let told = world.server.requests();
    let told: Vec<serde_json::Value> = told
        .iter()
        .filter(|seen| seen.target.contains("/pods/p/status"))
        .map(|seen| serde_json::from_slice(&seen.body).unwrap())
        .collect();
    assert!(!told.is_empty());
    for status in told {
        let conditions = status["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let unready = conditions.iter().any(|c| c["type"] == "Ready" && c["status"] == "False");
        assert!(!unready, "the successor is there before the end is told: {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn runtime_classes_name_handlers() {
    let world = World::new().await;
    world.create(json!({"runtimeClassName": "other", "containers": [{"name": "web"}]}));
    let missing = "FailedCreatePodSandBox: Failed to create pod sandbox: failed to get sandbox runtime: RuntimeClass \"other\" not found";
    world.until("it is missed", || world.has_event(missing)).await;
    let classes = client::Resource::cluster("node.k8s.io", "v1", "runtimeclasses");
    world.server.put(&classes, r#"{"metadata":{"name":"other"},"handler":"vm"}"#);
    world.until_phase("Running").await;
    assert!(world.cri.take_log().contains(&"handler vm".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn debug_containers_are_added() {
    let world = World::new().await;
    world.create(one());
    world.until_phase("Running").await;
    world.server.edit(&resources::PODS, &World::key(), |pod| {
        let debug = json!([{"name": "debug", "image": "app:1", "imagePullPolicy": "IfNotPresent", "targetContainerName": "web"}]);
        pod.set(&["spec", "ephemeralContainers"], apimachinery::Value::parse(debug.to_string().as_bytes()).unwrap());
    });
    world.until("it runs", || world.status("debug").is_some_and(|debug| debug.state.unwrap().running.is_some())).await;
    let linux = world.cri.config("debug").linux.unwrap().security_context.unwrap();
    assert!(linux.namespace_options.unwrap().target_id.starts_with("container-"));
    world.cri.end("debug", 0);
    world.until("its end is told", || world.status("debug").unwrap().state.unwrap().terminated.is_some()).await;
    assert_eq!(world.phase(), "Running");
}
