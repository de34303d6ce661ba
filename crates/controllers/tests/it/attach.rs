//! Volumes of CSI drivers, attached and detached.

use super::*;

const ATTACHMENTS: Resource = Resource::cluster("storage.k8s.io", "v1", "volumeattachments");
const DRIVERS: Resource = Resource::cluster("storage.k8s.io", "v1", "csidrivers");
const VOLUME: &str = "kubernetes.io/csi/csi.example^handle-v";

fn cluster() -> Cluster {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&ATTACHMENTS, "VolumeAttachment");
    Cluster::start_with(server, |config| config.controllers = vec!["attachdetach".to_owned()])
}

fn put_nodes(cluster: &Cluster) {
    for name in ["n1", "n2"] {
        cluster.put(&resources::NODES, &node(name));
        edit_node(cluster, name, |node| {
            node.set(&["metadata", "annotations", "volumes.kubernetes.io/controller-managed-attach-detach"], "true");
        });
    }
}

fn edit_node(cluster: &Cluster, name: &str, edit: impl FnOnce(&mut Value)) {
    cluster.server.edit(&resources::NODES, &ObjectKey::cluster(name), edit);
}

fn in_use(cluster: &Cluster, name: &str, volumes: &[&str]) {
    edit_node(cluster, name, |node| node.set(&["status", "volumesInUse"], volumes.to_vec()));
}

/// A bound claim `c` on the volume `v`.
fn put_claim(cluster: &Cluster, modes: &str) {
    let spec = format!(r#""accessModes":[{modes}],"capacity":{{"storage":"1Gi"}}"#);
    cluster.put(
        &resources::PERSISTENT_VOLUMES,
        &format!(
            r#"{{"apiVersion":"v1","kind":"PersistentVolume","metadata":{{"name":"v"}},"status":{{"phase":"Bound"}},
                "spec":{{{spec},"csi":{{"driver":"csi.example","volumeHandle":"handle-v"}},"claimRef":{{"namespace":"ns","name":"c","uid":"c-1"}}}}}}"#
        ),
    );
    cluster.put(
        &resources::PERSISTENT_VOLUME_CLAIMS,
        &format!(
            r#"{{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{{"name":"c","namespace":"ns","uid":"c-1"}},
                "spec":{{"accessModes":[{modes}],"volumeName":"v"}},"status":{{"phase":"Bound"}}}}"#
        ),
    );
}

fn put_user(cluster: &Cluster, name: &str, on: &str) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns"}},
            "spec":{{"nodeName":"{on}","volumes":[{{"name":"d","persistentVolumeClaim":{{"claimName":"c"}}}}]}},"status":{{"phase":"Pending"}}}}"#
    );
    cluster.put(&resources::PODS, &json);
}

/// The attachment to this node.
fn attachment(cluster: &Cluster, on: &str) -> Option<Arc<Object>> {
    let mut all = cluster.server.list(&ATTACHMENTS).into_iter();
    all.rfind(|one| one.to_value().str_at(&["spec", "nodeName"]) == Some(on))
}

/// What the driver's own controller does.
fn attached(cluster: &Cluster, on: &str) {
    let name = attachment(cluster, on).unwrap().key().clone();
    cluster.server.edit(&ATTACHMENTS, &name, |one| one.set(&["status", "attached"], true));
}

fn reported(cluster: &Cluster, node: &str) -> Vec<String> {
    let value = cluster.value(&resources::NODES, node);
    let attached = value.items_at(&["status", "volumesAttached"]).iter();
    attached.map(|volume| volume.str_at(&["name"]).unwrap_or_default().to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_volume_follows_its_pods() {
    let cluster = cluster();
    put_nodes(&cluster);
    put_claim(&cluster, r#""ReadWriteOnce""#);
    put_user(&cluster, "one", "n1");
    eventually("it is to be attached", || attachment(&cluster, "n1").is_some()).await;
    let value = attachment(&cluster, "n1").unwrap().to_value();
    assert_eq!(value.str_at(&["spec", "attacher"]), Some("csi.example"));
    assert_eq!(value.str_at(&["spec", "source", "persistentVolumeName"]), Some("v"));
    assert_eq!(reported(&cluster, "n1"), Vec::<String>::new());
    attached(&cluster, "n1");
    eventually("the node is told", || reported(&cluster, "n1") == [VOLUME]).await;
    let told = || cluster.events("SuccessfulAttachVolume");
    eventually("the pod is told", || !told().is_empty()).await;
    assert_eq!(told(), [r#"AttachVolume.Attach succeeded for volume "v" "#]);
    in_use(&cluster, "n1", &[VOLUME]);
    // Another node's pod cannot have it too.
    put_user(&cluster, "two", "n2");
    let failed = || cluster.events("FailedAttachVolume");
    eventually("it is refused", || !failed().is_empty()).await;
    assert_eq!(failed(), [r#"Multi-Attach error for volume "v" Volume is already used by pod(s) one"#]);
    // The first pod goes; its node still has the volume mounted.
    cluster.server.remove(&resources::PODS, &key("one"));
    sleep(1000).await;
    assert!(attachment(&cluster, "n1").is_some() && attachment(&cluster, "n2").is_none());
    assert_eq!(reported(&cluster, "n1"), [VOLUME]);
    in_use(&cluster, "n1", &[]);
    eventually("it is detached", || attachment(&cluster, "n1").is_none()).await;
    eventually("the other has it", || attachment(&cluster, "n2").is_some()).await;
    eventually("the node is told", || reported(&cluster, "n1").is_empty()).await;
    assert_eq!(failed().len(), 1);
    attached(&cluster, "n2");
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn several_nodes_share_what_may_be_shared() {
    let cluster = cluster();
    put_nodes(&cluster);
    put_claim(&cluster, r#""ReadWriteMany""#);
    put_user(&cluster, "one", "n1");
    put_user(&cluster, "two", "n2");
    eventually("both have it", || attachment(&cluster, "n1").is_some() && attachment(&cluster, "n2").is_some()).await;
    // What the driver says of it, pods are told.
    let name = attachment(&cluster, "n1").unwrap().key().clone();
    cluster.server.edit(&ATTACHMENTS, &name, |one| one.set(&["status", "attachError", "message"], "no such disk"));
    let failed = || cluster.events("FailedAttachVolume");
    eventually("it is told", || !failed().is_empty()).await;
    assert_eq!(failed(), [r#"AttachVolume.Attach failed for volume "v" : no such disk"#]);
    // A pod that has ended uses nothing.
    cluster.server.edit(&resources::PODS, &key("one"), |pod| pod.set(&["status", "phase"], "Succeeded"));
    eventually("it is detached", || attachment(&cluster, "n1").is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn pods_are_told_of_a_driver_that_does_not_attach() {
    let cluster = cluster();
    put_nodes(&cluster);
    put_claim(&cluster, r#""ReadWriteOnce""#);
    put_user(&cluster, "one", "n1");
    eventually("it is to be attached", || attachment(&cluster, "n1").is_some()).await;
    sleep(100).await;
    let failed = || cluster.events("FailedAttachVolume");
    assert!(failed().is_empty());
    eventually("it is told", || !failed().is_empty()).await;
    let expect = "AttachVolume.Attach failed for volume \"v\" : timed out waiting for external-attacher of csi.example CSI driver to \
                  attach volume handle-v";
    assert_eq!(failed(), [expect]);
    attached(&cluster, "n1");
    eventually("the pod is told", || !cluster.events("SuccessfulAttachVolume").is_empty()).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn who_begins_anew_tells_nothing_that_is_known() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&ATTACHMENTS, "VolumeAttachment");
    // sha256 of the handle, the driver's name and the node's.
    let name = "csi-914e93e19838c01aed768911e57d7e48625d5591f26c9e00374df4e51a841ac2";
    let attachment = format!(
        r#"{{"apiVersion":"storage.k8s.io/v1","kind":"VolumeAttachment","metadata":{{"name":"{name}"}},"status":{{"attached":true}},
            "spec":{{"attacher":"csi.example","nodeName":"n1","source":{{"persistentVolumeName":"v"}}}}}}"#
    );
    server.put(&ATTACHMENTS, &attachment);
    let cluster = Cluster::start_with(server, |config| config.controllers = vec!["attachdetach".to_owned()]);
    put_claim(&cluster, r#""ReadWriteOnce""#);
    put_user(&cluster, "one", "n1");
    sleep(1).await;
    put_nodes(&cluster);
    edit_node(&cluster, "n1", |node| {
        let mut volume = Value::object();
        volume.set(&["name"], VOLUME);
        volume.set(&["devicePath"], "");
        node.set(&["status", "volumesAttached"], vec![volume]);
    });
    sleep(600).await;
    assert_eq!(reported(&cluster, "n1"), [VOLUME]);
    assert_eq!(cluster.events("SuccessfulAttachVolume"), Vec::<String>::new());
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn what_need_not_be_attached_is_not() {
    let cluster = cluster();
    put_nodes(&cluster);
    cluster.put(
        &DRIVERS,
        r#"{"apiVersion":"storage.k8s.io/v1","kind":"CSIDriver","metadata":{"name":"csi.example"},"spec":{"attachRequired":false}}"#,
    );
    put_claim(&cluster, r#""ReadWriteOnce""#);
    sleep(1).await;
    put_user(&cluster, "one", "n1");
    // A kubelet that attaches itself is left alone.
    cluster.put(&resources::NODES, &node("n3"));
    put_user(&cluster, "three", "n3");
    sleep(600).await;
    assert_eq!(cluster.server.list(&ATTACHMENTS).len(), 0);
    cluster
        .server
        .edit(&DRIVERS, &ObjectKey::cluster("csi.example"), |driver| driver.set(&["spec", "attachRequired"], true));
    eventually("it is now", || attachment(&cluster, "n1").is_some()).await;
    sleep(600).await;
    assert!(attachment(&cluster, "n3").is_none());
}

#[tokio::test(start_paused = true)]
async fn nodes_that_are_lost_give_volumes_up() {
    let mut cluster = cluster();
    put_nodes(&cluster);
    put_claim(&cluster, r#""ReadWriteOnce""#);
    put_user(&cluster, "one", "n1");
    eventually("it is to be attached", || attachment(&cluster, "n1").is_some()).await;
    attached(&cluster, "n1");
    in_use(&cluster, "n1", &[VOLUME]);
    let unwell = |cluster: &Cluster| {
        edit_node(cluster, "n1", |node| {
            node.set(&["status", "conditions"], Value::parse(br#"[{"type":"Ready","status":"Unknown"}]"#).unwrap());
        });
    };
    unwell(&cluster);
    cluster.server.remove(&resources::PODS, &key("one"));
    sleep(300).await;
    assert!(attachment(&cluster, "n1").is_some());
    sleep(70).await;
    assert!(attachment(&cluster, "n1").is_none(), "after six minutes");
    // Nobody need wait where somebody says that the node is gone, also after a restart of the controllers.
    put_user(&cluster, "again", "n1");
    eventually("it is to be attached", || attachment(&cluster, "n1").is_some()).await;
    attached(&cluster, "n1");
    eventually("the node is told", || reported(&cluster, "n1") == [VOLUME]).await;
    cluster.restart();
    sleep(10).await;
    assert!(attachment(&cluster, "n1").is_some());
    edit_node(&cluster, "n1", |node| {
        let taint = br#"[{"key":"node.kubernetes.io/out-of-service","effect":"NoExecute"}]"#;
        node.set(&["spec", "taints"], Value::parse(taint).unwrap());
    });
    cluster.server.remove(&resources::PODS, &key("again"));
    sleep(5).await;
    assert!(attachment(&cluster, "n1").is_none());
    // Attachments that others made are theirs.
    cluster.put(
        &ATTACHMENTS,
        r#"{"apiVersion":"storage.k8s.io/v1","kind":"VolumeAttachment","metadata":{"name":"mine"},"spec":{"attacher":"csi.example","nodeName":"n1",
            "source":{"persistentVolumeName":"v"}}}"#,
    );
    sleep(1000).await;
    assert!(attachment(&cluster, "n1").is_some());
}
