//! Images: pulled, missing, refused.

use client::resources;
use serde_json::{Value as Json, json};

use crate::world::World;

fn pod(image: &str, policy: &str) -> Json {
    json!({"containers": [{"name": "web", "image": image, "imagePullPolicy": policy}]})
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_pulled() {
    let world = World::new().await;
    world.cri.can_pull("r.example/new:1");
    world.create(pod("r.example/new:1", "IfNotPresent"));
    world.until_phase("Running").await;
    assert!(world.cri.take_log().contains(&"pull r.example/new:1".to_owned()));
    world.until("it is told", || world.events().len() >= 4).await;
    let events = world.events();
    assert_eq!(events[0], "Pulling: Pulling image \"r.example/new:1\"");
    assert!(events[1].starts_with("Pulled: Successfully pulled image \"r.example/new:1\" in "), "{}", events[1]);
    assert!(events[1].ends_with("Image size: 1234 bytes."));
}

#[tokio::test(start_paused = true)]
async fn a_present_image_is_pulled_if_it_always_is() {
    let world = World::new().await;
    world.cri.can_pull("app:1");
    world.create(pod("app:1", "Always"));
    world.until_phase("Running").await;
    assert!(world.cri.take_log().contains(&"pull app:1".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_and_recover() {
    let world = World::new().await;
    world.create(pod("none:1", "IfNotPresent"));
    world.until_waiting("web", "ErrImagePull").await;
    let text = "rpc error: code = NotFound desc = no such image: none:1";
    assert_eq!(world.waiting("web").unwrap().1, text);
    world.until_waiting("web", "ImagePullBackOff").await;
    assert_eq!(world.waiting("web").unwrap().1, format!("Back-off pulling image \"none:1\": ErrImagePull: {text}"));
    assert_eq!(world.phase(), "Pending");
    world.until("it is told", || world.has_event("BackOff: Back-off pulling image \"none:1\"")).await;
    for event in [format!("Failed: Failed to pull image \"none:1\": {text}"), "Failed: Error: ErrImagePull".into()] {
        assert!(world.has_event(&event), "{event}: {:?}", world.events());
    }
    let pulls = world.cri.take_log().iter().filter(|line| line.starts_with("pull")).count();
    assert!(pulls <= 2, "{pulls}");
    world.cri.can_pull("none:1");
    world.until_phase("Running").await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_work_says_so() {
    let check = async |spec: Json, reason: &str, message: &str| {
        let world = World::new().await;
        world.create(spec);
        world.until_waiting("web", reason).await;
        assert_eq!(world.waiting("web").unwrap().1, message);
    };
    check(
        pod("none:1", "Never"),
        "ErrImageNeverPull",
        "Container image \"none:1\" is not present with pull policy of Never",
    )
    .await;
    check(
        pod("Bad:Name:x", "IfNotPresent"),
        "InvalidImageName",
        "Failed to apply default image tag \"Bad:Name:x\": couldn't parse image name \"Bad:Name:x\": invalid reference format",
    )
    .await;
    check(
        json!({"containers": [{"name": "web", "env": [{"name": "A",
            "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]}]}),
        "CreateContainerConfigError",
        "configmap \"cm\" not found",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn pull_secrets_are_used() {
    let world = World::new().await;
    let config = json!({"auths": {"r.example": {"username": "me", "password": "x"}}}).to_string();
    let data = {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(config)
    };
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson",
        "metadata": {"name": "pull", "namespace": "ns"}, "data": {".dockerconfigjson": data}});
    world.server.put(&resources::SECRETS, &secret.to_string());
    world.cri.can_pull("r.example/a:1");
    world.create(
        json!({"imagePullSecrets": [{"name": "pull"}], "containers": [{"name": "web", "image": "r.example/a:1"}]}),
    );
    world.until_phase("Running").await;
    assert!(world.cri.take_log().contains(&"pull r.example/a:1 me".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_missing_config_map_is_waited_for() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web", "envFrom": [{"configMapRef": {"name": "cm"}}]}]}));
    world.until_waiting("web", "CreateContainerConfigError").await;
    let began = world.env.monotonic();
    world.server.put(&resources::CONFIG_MAPS, r#"{"metadata":{"name":"cm","namespace":"ns"},"data":{"A":"1"}}"#);
    world.until_phase("Running").await;
    assert!((world.env.monotonic() - began).as_secs() < 2, "the change itself wakes the pod");
    let envs = world.cri.config("web").envs;
    assert!(envs.iter().any(|one| one.key == "A" && one.value == "1"));
}
