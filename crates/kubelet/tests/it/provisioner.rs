//! Folders become volumes, and free space again.

use std::path::PathBuf;
use std::time::Duration;

use apimachinery::ObjectKey;
use client::fake::FakeServer;
use client::{Resource, TaskGuard, resources};
use env::{Env, FailAction};
use kubelet::provisioner::{self, PROVISIONER};
use serde_json::{Value as Json, json};

const CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");

struct Disk {
    env: Env,
    server: FakeServer,
    folder: tempfile::TempDir,
    running: Option<TaskGuard>,
}

impl Disk {
    fn new() -> Disk {
        let env = Env::seeded(3, "2026-01-01T00:00:00Z".parse().unwrap());
        let server = FakeServer::new(env.clone());
        let mut disk = Disk { env, server, folder: tempfile::tempdir().unwrap(), running: None };
        disk.class("local", json!({}));
        disk.start();
        disk
    }

    fn start(&mut self) {
        let (volumes, claims) = (self.path("volumes"), self.path("claims"));
        let config = provisioner::Config { client: self.server.client(), node_name: "n1".into(), volumes, claims };
        self.running = Some(TaskGuard::new(self.env.spawn(provisioner::run(config))));
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn class(&self, name: &str, more: Json) {
        let mut class = json!({"metadata": {"name": name}, "provisioner": PROVISIONER, "reclaimPolicy": "Delete",
            "volumeBindingMode": "WaitForFirstConsumer"});
        class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.server.put(&CLASSES, &class.to_string());
    }

    fn claim(&self, name: &str, uid: &str, node: &str, more: Json) {
        let mut spec = json!({"storageClassName": "local", "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
            "resources": {"requests": {"storage": "2Gi"}}});
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let claim = json!({"metadata": {"name": name, "namespace": "ns", "uid": uid, "annotations": {
            "volume.kubernetes.io/storage-provisioner": PROVISIONER, "volume.kubernetes.io/selected-node": node}},
            "spec": spec, "status": {"phase": "Pending"}});
        self.server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &claim.to_string());
    }

    fn volume(&self, name: &str) -> Option<Json> {
        let found = self.server.get(&resources::PERSISTENT_VOLUMES, &ObjectKey::cluster(name))?;
        Some(serde_json::from_slice(&found.to_json()).unwrap())
    }

    fn set_phase(&self, name: &str, phase: &str) {
        self.server.edit(&resources::PERSISTENT_VOLUMES, &ObjectKey::cluster(name), |volume| {
            volume.set(&["status", "phase"], phase);
        });
    }

    fn has_event(&self, text: &str) -> bool {
        self.server.list(&resources::EVENTS).iter().any(|event| {
            let event = event.to_value();
            let told = format!("{}: {}", event.str_at(&["reason"]).unwrap(), event.str_at(&["message"]).unwrap());
            told.contains(text)
        })
    }

    async fn until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = self.env.monotonic() + Duration::from_secs(600);
        while !done() {
            assert!(self.env.monotonic() < deadline, "waited in vain: {what}");
            self.env.sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_gets_a_folder_until_it_is_released() {
    let disk = Disk::new();
    disk.claim("data", "11-22", "n1", json!({}));
    disk.until("the volume", || disk.volume("pvc-11-22").is_some()).await;
    let path = disk.path("volumes/pvc-11-22");
    let volume = disk.volume("pvc-11-22").unwrap();
    assert_eq!(volume["metadata"]["annotations"]["pv.kubernetes.io/provisioned-by"], PROVISIONER);
    assert_eq!(volume["metadata"]["finalizers"], json!(["external-provisioner.volume.kubernetes.io/finalizer"]));
    assert_eq!(
        volume["spec"],
        json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"}, "local": {"path": path},
            "claimRef": {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "namespace": "ns", "name": "data", "uid": "11-22"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}},
            "persistentVolumeReclaimPolicy": "Delete", "storageClassName": "local", "volumeMode": "Filesystem"})
    );
    disk.until("events", || disk.has_event("ProvisioningSucceeded: Successfully provisioned volume pvc-11-22")).await;
    assert_eq!(std::fs::read_link(disk.path("claims/ns/data")).unwrap(), path);
    std::fs::write(path.join("file"), "x").unwrap();
    disk.set_phase("pvc-11-22", "Bound");
    disk.set_phase("pvc-11-22", "Released");
    disk.until("it is removed", || disk.volume("pvc-11-22").is_none()).await;
    assert!(!path.exists() && !disk.path("claims/ns/data").is_symlink());
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_kept_stays() {
    let disk = Disk::new();
    disk.claim("data", "11", "n1", json!({}));
    disk.until("the volume", || disk.volume("pvc-11").is_some()).await;
    std::fs::write(disk.path("volumes/pvc-11/file"), "x").unwrap();
    disk.server.edit(&resources::PERSISTENT_VOLUMES, &ObjectKey::cluster("pvc-11"), |volume| {
        volume.set(&["spec", "persistentVolumeReclaimPolicy"], "Retain");
        volume.set(&["status", "phase"], "Bound");
    });
    let held =
        || disk.volume("pvc-11").unwrap()["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    disk.until("nobody holds it", || !held()).await;
    disk.server.remove(&resources::PERSISTENT_VOLUME_CLAIMS, &ObjectKey::new("ns", "data"));
    disk.set_phase("pvc-11", "Released");
    disk.claim("data", "33-4", "n1", json!({}));
    disk.until("the second volume", || disk.volume("pvc-33-4").is_some()).await;
    assert_eq!(std::fs::read_link(disk.path("claims/ns/data")).unwrap(), disk.path("volumes/pvc-11"));
    assert_eq!(std::fs::read_link(disk.path("claims/ns/data-33")).unwrap(), disk.path("volumes/pvc-33-4"));
    assert!(disk.path("volumes/pvc-11/file").exists());
}

#[tokio::test(start_paused = true)]
async fn what_a_folder_cannot_be_is_told() {
    let disk = Disk::new();
    disk.class("odd", json!({"parameters": {"size": "big"}}));
    let check = async |uid: &str, more: Json, expect: &str| {
        disk.claim(&format!("c{uid}"), uid, "n1", more);
        disk.until(expect, || {
            disk.has_event("ProvisioningFailed: failed to provision volume") && disk.has_event(expect)
        })
        .await;
        assert!(disk.volume(&format!("pvc-{uid}")).is_none());
    };
    check(
        "1",
        json!({"accessModes": ["ReadWriteMany"]}),
        "the access mode ReadWriteMany is for volumes of several nodes",
    )
    .await;
    check("2", json!({"volumeMode": "Block"}), "it has no volumes with volumeMode Block").await;
    check("3", json!({"storageClassName": "odd"}), "the class has the parameter \"size\"").await;
    // Others' claims are none of its business.
    disk.claim("far", "4", "n2", json!({}));
    disk.claim("here", "5", "n1", json!({}));
    disk.until("its own", || disk.volume("pvc-5").is_some()).await;
    assert!(disk.volume("pvc-4").is_none() && !disk.path("volumes/pvc-4").exists());
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_step_is_made_good() {
    for step in ["provisioner.folder-made", "provisioner.folder-removed"] {
        let mut disk = Disk::new();
        disk.env.arm(step, Some(FailAction::Error));
        disk.claim("data", "11", "n1", json!({}));
        if step == "provisioner.folder-removed" {
            disk.until("the volume", || disk.volume("pvc-11").is_some()).await;
            disk.set_phase("pvc-11", "Released");
            disk.until("no folder", || !disk.path("volumes/pvc-11").exists()).await;
            assert!(disk.volume("pvc-11").is_some());
        } else {
            disk.until("the folder", || disk.path("volumes/pvc-11").exists()).await;
            assert!(disk.volume("pvc-11").is_none());
        }
        disk.running = None;
        disk.env.arm(step, None);
        disk.start();
        disk.until("it is done", || disk.volume("pvc-11").is_some() == (step == "provisioner.folder-made")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn folders_that_nobody_was_given_go() {
    let mut disk = Disk::new();
    disk.running = None;
    std::fs::create_dir_all(disk.path("volumes/pvc-gone")).unwrap();
    std::fs::create_dir_all(disk.path("volumes/pvc-full/data")).unwrap();
    disk.start();
    disk.until("it is swept", || !disk.path("volumes/pvc-gone").exists()).await;
    assert!(disk.path("volumes/pvc-full/data").exists());
}
