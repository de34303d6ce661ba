//! Volumes follow what they are made from.

use client::resources;
use serde_json::json;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn config_maps_are_mounted_and_kept_current() {
    let world = World::new().await;
    world.create(json!({"volumes": [{"name": "v", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}}],
        "containers": [{"name": "web", "volumeMounts": [{"name": "v", "mountPath": "/c"}, {"name": "e", "mountPath": "/e"}]}]}));
    let failed = "FailedMount: MountVolume.SetUp failed for volume \"v\" : configmap \"cm\" not found";
    world.until("it is missed", || world.has_event(failed)).await;
    world.until_waiting("web", "ContainerCreating").await;
    let put = |value: &str| {
        let map = json!({"metadata": {"name": "cm", "namespace": "ns"}, "data": {"k": value}});
        world.server.put(&resources::CONFIG_MAPS, &map.to_string())
    };
    put("1");
    world.until_phase("Running").await;
    let mounts = world.cri.config("web").mounts;
    let mount = mounts.iter().find(|mount| mount.container_path == "/c").unwrap();
    assert!(mount.readonly);
    let file = std::path::Path::new(&mount.host_path).join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "1");
    let began = world.env.monotonic();
    put("2");
    world.until("it changes", || std::fs::read_to_string(&file).is_ok_and(|text| text == "2")).await;
    assert!((world.env.monotonic() - began).as_secs() < 2);
    world.delete(1).await;
    world.until_gone().await;
    assert!(!file.exists());
}

#[tokio::test(start_paused = true)]
async fn the_sandbox_knows_the_clusters_dns() {
    let world = World::new().await;
    world.create(json!({"containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let dns = world.cri.sandbox_config().dns_config.unwrap();
    assert_eq!(dns.servers, ["10.96.0.10"]);
    assert_eq!(dns.searches[..3], ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local"]);
    assert_eq!(dns.options, ["ndots:5"]);
}

#[tokio::test(start_paused = true)]
async fn services_are_in_the_environment() {
    let world = World::new().await;
    let service = json!({"metadata": {"name": "redis", "namespace": "ns"},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 6379}]}});
    world.server.put(&resources::SERVICES, &service.to_string());
    world.create(json!({"containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let envs = world.cri.config("web").envs;
    assert!(envs.iter().any(|one| one.key == "REDIS_SERVICE_HOST" && one.value == "10.96.0.7"));
}

#[tokio::test(start_paused = true)]
async fn last_words_are_told() {
    let world = World::new().await;
    world.create(json!({"restartPolicy": "Never", "containers": [{"name": "web"}]}));
    world.until_phase("Running").await;
    let mounts = world.cri.config("web").mounts;
    let file = mounts.iter().find(|mount| mount.container_path == "/dev/termination-log").unwrap();
    std::fs::write(&file.host_path, "that was it").unwrap();
    world.cri.end("web", 2);
    world.until_phase("Failed").await;
    let end = world.status("web").unwrap().state.unwrap().terminated.unwrap();
    assert_eq!((end.exit_code, end.message.as_deref()), (2, Some("that was it")));
}

#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_in_time() {
    let world = World::new().await;
    world.create(json!({"volumes": [{"name": "v", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}]}}],
        "containers": [{"name": "web", "volumeMounts": [{"name": "v", "mountPath": "/t"}]}]}));
    world.until_phase("Running").await;
    let mounts = world.cri.config("web").mounts;
    let mount = mounts.iter().find(|mount| mount.container_path == "/t").unwrap();
    let file = std::path::Path::new(&mount.host_path).join("token");
    let first = std::fs::read_to_string(&file).unwrap();
    assert!(first.starts_with("\"p\" at "), "{first}");
    let began = world.env.monotonic();
    world.until("it changes", || std::fs::read_to_string(&file).unwrap() != first).await;
    let took = (world.env.monotonic() - began).as_secs();
    assert!((795..=805).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn claims_are_mounted_once_they_are_bound() {
    let world = World::new().await;
    let data = world.folder.path().join("claimed");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "kept").unwrap();
    let claim =
        json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}});
    world.server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &claim.to_string());
    world.create(json!({"volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c"}}],
        "containers": [{"name": "web", "volumeMounts": [{"name": "v", "mountPath": "/c", "subPath": "part"}]}]}));
    let failed = "FailedMount: Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], \
        failed to process volumes=[v]: error processing PVC ns/c: PVC is not bound";
    world.until("it is missed", || world.has_event(failed)).await;
    let volume = json!({"metadata": {"name": "pv"}, "spec": {"local": {"path": data}, "claimRef": {"uid": "u"}}});
    world.server.put(&resources::PERSISTENT_VOLUMES, &volume.to_string());
    world.server.edit(&resources::PERSISTENT_VOLUME_CLAIMS, &apimachinery::ObjectKey::new("ns", "c"), |claim| {
        claim.set(&["spec", "volumeName"], "pv");
        claim.set(&["status", "phase"], "Bound");
    });
    let began = world.env.monotonic();
    world.until_phase("Running").await;
    assert!((world.env.monotonic() - began).as_secs() < 5);
    assert!(data.join("part").is_dir());
    world.delete(1).await;
    world.until_gone().await;
    assert_eq!(std::fs::read_to_string(data.join("file")).unwrap(), "kept");
}
