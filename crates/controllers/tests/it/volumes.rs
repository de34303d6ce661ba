use std::sync::Arc;

use super::*;
use client::DeleteOptions;

const CLASSES: Resource = Resource::cluster("storage.k8s.io", "v1", "storageclasses");
const ATTRIBUTES: Resource = Resource::cluster("storage.k8s.io", "v1", "volumeattributesclasses");
const CLAIMS: Resource = resources::PERSISTENT_VOLUME_CLAIMS;
const VOLUMES: Resource = resources::PERSISTENT_VOLUMES;

/// A class `name` whose volumes `x.example.com/p` makes.
fn class(cluster: &Cluster, name: &str, more: &str) {
    cluster.put_yaml(
        &CLASSES,
        &format!(
            "{{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {{name: {name}}}, provisioner: x.example.com/p, {more}}}"
        ),
    );
}

fn claim(cluster: &Cluster, name: &str, spec: &str) -> Arc<Object> {
    cluster.put_yaml(
        &CLAIMS,
        &format!(
            "{{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {{name: {name}, namespace: ns, finalizers: [kubernetes.io/pvc-protection]}},
               spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}, {spec}}}, status: {{phase: Pending}}}}"
        ),
    )
}

fn volume(cluster: &Cluster, name: &str, spec: &str) -> Arc<Object> {
    annotated_volume(cluster, name, "", spec)
}

fn annotated_volume(cluster: &Cluster, name: &str, annotations: &str, spec: &str) -> Arc<Object> {
    cluster.put_yaml(
        &VOLUMES,
        &format!(
            "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}, annotations: {{{annotations}}}, finalizers: [kubernetes.io/pv-protection]}},
               spec: {{accessModes: [ReadWriteOnce], capacity: {{storage: 1Gi}}, persistentVolumeReclaimPolicy: Retain, hostPath: {{path: /x}}, {spec}}},
               status: {{phase: Pending}}}}"
        ),
    )
}

fn pod(cluster: &Cluster, name: &str, node: &str, volumes: &str) -> Arc<Object> {
    cluster.put_yaml(
        &resources::PODS,
        &format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns}}, spec: {{nodeName: '{node}', containers: [], volumes: [{volumes}]}},
               status: {{phase: Pending}}}}"
        ),
    )
}

fn phase(cluster: &Cluster, resource: &Resource, name: &str) -> String {
    cluster.value(resource, name).str_at(&["status", "phase"]).unwrap_or("gone").to_owned()
}

/// `phase volume [annotations]` of a claim.
fn state(cluster: &Cluster, name: &str) -> String {
    let value = cluster.value(&CLAIMS, name);
    let annotations = value.at(&["metadata", "annotations"]).and_then(Value::as_object);
    let keys = annotations.into_iter().flat_map(|map| map.iter().map(|(key, _)| key.rsplit('/').next().unwrap()));
    let keys: Vec<&str> = keys.collect();
    format!("{} {} {keys:?}", phase(cluster, &CLAIMS, name), value.str_at(&["spec", "volumeName"]).unwrap_or("-"))
}

/// `phase claim uid? [annotations]` of a volume.
fn volume_state(cluster: &Cluster, name: &str) -> String {
    let value = cluster.value(&VOLUMES, name);
    let annotations = value.at(&["metadata", "annotations"]).and_then(Value::as_object);
    let keys = annotations.into_iter().flat_map(|map| map.iter().map(|(key, _)| key.rsplit('/').next().unwrap()));
    let keys: Vec<&str> = keys.collect();
    let claim = value.str_at(&["spec", "claimRef", "name"]).unwrap_or("-");
    let known = if value.at(&["spec", "claimRef", "uid"]).is_some() { "bound" } else { "open" };
    format!("{} {claim} {known} {keys:?}", phase(cluster, &VOLUMES, name))
}

async fn becomes(cluster: &Cluster, claim: &str, expect: &str) {
    let mut last = String::new();
    let wait = tokio::time::timeout(Duration::from_secs(120), async {
        while last != expect {
            Env::system().sleep(Duration::from_millis(5)).await;
            last = state(cluster, claim);
        }
    });
    let in_time = wait.await.is_ok();
    assert!(in_time, "claim {claim} is {last}, not {expect}");
}

async fn volume_becomes(cluster: &Cluster, volume: &str, expect: &str) {
    let mut last = String::new();
    let wait = tokio::time::timeout(Duration::from_secs(120), async {
        while last != expect {
            Env::system().sleep(Duration::from_millis(5)).await;
            last = volume_state(cluster, volume);
        }
    });
    let in_time = wait.await.is_ok();
    assert!(in_time, "volume {volume} is {last}, not {expect}");
}

async fn told(cluster: &Cluster, reason: &str, message: &str) {
    eventually(&format!("{reason} {message}, but {:?}", cluster.events(reason)), || {
        cluster.events(reason).iter().any(|told| told == message)
    })
    .await;
}

const BOUND: &str = r#"["bind-completed", "bound-by-controller"]"#;

#[tokio::test(start_paused = true)]
async fn claims_take_what_is_there() {
    let cluster = Cluster::start();
    volume(&cluster, "big", "capacity: {storage: 9Gi}");
    volume(&cluster, "small", "capacity: {storage: 2Gi}");
    volume(&cluster, "tiny", "capacity: {storage: 1Mi}");
    volume_becomes(&cluster, "tiny", "Available - open []").await;
    claim(&cluster, "a", "storageClassName: ''");
    becomes(&cluster, "a", &format!("Bound small {BOUND}")).await;
    volume_becomes(&cluster, "small", r#"Bound a bound ["bound-by-controller"]"#).await;
    let bound = cluster.value(&CLAIMS, "a");
    assert_eq!(bound.str_at(&["status", "capacity", "storage"]), Some("2Gi"));
    assert_eq!(bound.items_at(&["status", "accessModes"]).len(), 1);
    let reference = cluster.value(&VOLUMES, "small");
    assert_eq!(reference.str_at(&["spec", "claimRef", "kind"]), Some("PersistentVolumeClaim"));
    // The next one waits until a volume comes that fits.
    claim(&cluster, "b", "storageClassName: '', selector: {matchLabels: {x: 'y'}}");
    told(&cluster, "FailedBinding", "no persistent volumes available for this claim and no storage class is set").await;
    cluster.server.edit(&VOLUMES, &ObjectKey::cluster("big"), |volume| volume.set(&["metadata", "labels", "x"], "y"));
    becomes(&cluster, "b", &format!("Bound big {BOUND}")).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn many_claims_never_share_a_volume() {
    let cluster = Cluster::start();
    for n in 0..20 {
        claim(&cluster, &format!("c{n}"), "storageClassName: s");
        volume(&cluster, &format!("v{n}"), "storageClassName: s");
    }
    eventually("all are bound", || (0..20).all(|n| phase(&cluster, &CLAIMS, &format!("c{n}")) == "Bound")).await;
    let mut taken: Vec<String> = (0..20)
        .map(|n| cluster.value(&CLAIMS, &format!("c{n}")).str_at(&["spec", "volumeName"]).unwrap().to_owned())
        .collect();
    taken.sort();
    taken.dedup();
    assert_eq!(taken.len(), 20);
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn either_side_may_choose() {
    let cluster = Cluster::start();
    // The claim names a volume that comes later.
    claim(&cluster, "a", "storageClassName: '', volumeName: v");
    sleep(5).await;
    assert_eq!(state(&cluster, "a"), "Pending v []");
    volume(&cluster, "v", "");
    becomes(&cluster, "a", r#"Bound v ["bind-completed"]"#).await;
    volume_becomes(&cluster, "v", r#"Bound a bound ["bound-by-controller"]"#).await;
    // It does not fit.
    volume(&cluster, "w", "volumeMode: Block");
    claim(&cluster, "b", "storageClassName: '', volumeName: w");
    told(&cluster, "VolumeMismatch", "Cannot bind to requested volume \"w\": incompatible volumeMode").await;
    // It is another's.
    claim(&cluster, "c", "storageClassName: '', volumeName: v");
    told(&cluster, "FailedBinding", "volume \"v\" already bound to a different claim.").await;
    assert_eq!(state(&cluster, "c"), "Pending v []");
    // A volume is kept for a claim, whatever its class.
    volume(&cluster, "kept", "storageClassName: other, claimRef: {namespace: ns, name: d}");
    volume_becomes(&cluster, "kept", "Available d open []").await;
    volume(&cluster, "free", "storageClassName: slow");
    claim(&cluster, "d", "storageClassName: slow");
    becomes(&cluster, "d", &format!("Bound kept {BOUND}")).await;
    volume_becomes(&cluster, "kept", "Bound d bound []").await;
    assert_eq!(volume_state(&cluster, "free"), "Available - open []");
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn who_makes_a_volume_is_asked_when_it_is_time() {
    let cluster = Cluster::start();
    class(&cluster, "now", "volumeBindingMode: Immediate");
    class(&cluster, "later", "volumeBindingMode: WaitForFirstConsumer");
    claim(&cluster, "a", "storageClassName: now");
    let asked = r#"["storage-provisioner", "storage-provisioner"]"#;
    becomes(&cluster, "a", &format!("Pending - {asked}")).await;
    told(
        &cluster,
        "ExternalProvisioning",
        "Waiting for a volume to be created either by the external provisioner 'x.example.com/p' or manually by the system \
         administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.",
    )
    .await;
    claim(&cluster, "b", "storageClassName: later");
    told(&cluster, "WaitForFirstConsumer", "waiting for first consumer to be created before binding").await;
    assert_eq!(state(&cluster, "b"), "Pending - []");
    pod(&cluster, "p", "", "{name: v, persistentVolumeClaim: {claimName: b}}");
    told(&cluster, "WaitForPodScheduled", "waiting for pod p to be scheduled").await;
    pod(&cluster, "q", "", "{name: v, persistentVolumeClaim: {claimName: b}}");
    told(&cluster, "WaitForPodScheduled", "waiting for pods p,q to be scheduled").await;
    let b = cluster.server.edit(&CLAIMS, &key("b"), |claim| {
        claim.set(&["metadata", "annotations", "volume.kubernetes.io/selected-node"], "n1");
    });
    let asked = r#"["storage-provisioner", "selected-node", "storage-provisioner"]"#;
    becomes(&cluster, "b", &format!("Pending - {asked}")).await;
    // The provisioner makes it.
    let spec = format!("storageClassName: later, claimRef: {{namespace: ns, name: b, uid: {}}}", b.uid());
    annotated_volume(&cluster, "pvc-b", "pv.kubernetes.io/provisioned-by: x.example.com/p", &spec);
    let all =
        r#"["bind-completed", "bound-by-controller", "storage-provisioner", "selected-node", "storage-provisioner"]"#;
    becomes(&cluster, "b", &format!("Bound pvc-b {all}")).await;
    volume_becomes(&cluster, "pvc-b", r#"Bound b bound ["provisioned-by"]"#).await;
    // Classes that nobody serves.
    claim(&cluster, "c", "storageClassName: none");
    told(&cluster, "ProvisioningFailed", "storageclass.storage.k8s.io \"none\" not found").await;
    cluster.put_yaml(
        &CLASSES,
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: none}, provisioner: kubernetes.io/no-provisioner}",
    );
    told(&cluster, "ProvisioningFailed", "no volume plugin matched name: kubernetes.io/no-provisioner").await;
    cluster.put_yaml(
        &CLASSES,
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: ebs}, provisioner: kubernetes.io/aws-ebs}",
    );
    claim(&cluster, "d", "storageClassName: ebs");
    eventually("the driver that took over is asked", || {
        let asked = ["metadata", "annotations", "volume.kubernetes.io/storage-provisioner"];
        cluster.value(&CLAIMS, "d").str_at(&asked) == Some("ebs.csi.aws.com")
    })
    .await;
    cluster.put_yaml(
        &CLASSES,
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: host}, provisioner: kubernetes.io/host-path}",
    );
    claim(&cluster, "e", "storageClassName: host");
    let disabled =
        "Failed to create provisioner: provisioning in volume plugin \"kubernetes.io/host-path\" is disabled";
    told(&cluster, "ProvisioningFailed", disabled).await;
    becomes(&cluster, "e", r#"Pending - ["storage-provisioner", "storage-provisioner"]"#).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn who_took_over_from_a_plugin_is_noted() {
    let cluster = Cluster::start();
    let volume = |name: &str, made_by: &str, policy: &str, finalizers: &str| {
        cluster.put_yaml(
            &VOLUMES,
            &format!(
                "{{apiVersion: v1, kind: PersistentVolume, metadata: {{name: {name}, finalizers: [{finalizers}],
                   annotations: {{pv.kubernetes.io/provisioned-by: {made_by}}}}},
                   spec: {{accessModes: [ReadWriteOnce], capacity: {{storage: 1Gi}}, persistentVolumeReclaimPolicy: {policy}, hostPath: {{path: /x}}}}}}"
            ),
        );
    };
    let (ours, other) = ("kubernetes.io/pv-controller", "external-provisioner.volume.kubernetes.io/finalizer");
    volume("taken-over", "kubernetes.io/aws-ebs", "Delete", &format!("{ours}, {other}"));
    volume("ours", "kubernetes.io/host-path", "Delete", other);
    volume("kept", "kubernetes.io/host-path", "Retain", ours);
    volume("others", "x.example.com/p", "Delete", other);
    let check = async |name: &str, migrated: Option<&str>, finalizers: &[&str]| {
        eventually(&format!("{name} is as it should be"), || {
            let value = cluster.value(&VOLUMES, name);
            let held: Vec<&str> =
                value.items_at(&["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect();
            let held: Vec<&str> = held.into_iter().filter(|held| *held != "kubernetes.io/pv-protection").collect();
            value.str_at(&["metadata", "annotations", "pv.kubernetes.io/migrated-to"]) == migrated && held == finalizers
        })
        .await;
    };
    check("taken-over", Some("ebs.csi.aws.com"), &[other]).await;
    check("ours", None, &[ours]).await;
    check("kept", None, &[]).await;
    check("others", None, &[other]).await;
    // The class's plugin was asked before its driver took over.
    let claim = cluster.put_yaml(
        &CLAIMS,
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a, namespace: ns,
           annotations: {volume.beta.kubernetes.io/storage-provisioner: kubernetes.io/gce-pd}},
           spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: none}, status: {phase: Pending}}",
    );
    eventually("it is noted", || {
        let noted = ["metadata", "annotations", "pv.kubernetes.io/migrated-to"];
        cluster.value(&CLAIMS, claim.name()).str_at(&noted) == Some("pd.csi.storage.gke.io")
    })
    .await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_default_class_that_comes_later_is_taken() {
    let cluster = Cluster::start();
    claim(&cluster, "none", "storageClassName: ''");
    claim(&cluster, "any", "volumeMode: Filesystem");
    sleep(5).await;
    cluster.put_yaml(
        &CLASSES,
        "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: s, annotations: {storageclass.kubernetes.io/is-default-class: 'true'}},
          provisioner: x, volumeBindingMode: WaitForFirstConsumer}",
    );
    eventually("the class is taken", || {
        cluster.value(&CLAIMS, "any").str_at(&["spec", "storageClassName"]) == Some("s")
    })
    .await;
    assert_eq!(cluster.value(&CLAIMS, "none").str_at(&["spec", "storageClassName"]), Some(""));
    told(&cluster, "WaitForFirstConsumer", "waiting for first consumer to be created before binding").await;
    cluster.settles().await;
}

async fn delete(cluster: &Cluster, resource: &Resource, key: &ObjectKey) {
    cluster.server.client().delete(resource, key, &DeleteOptions::default()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_a_volume_whose_claim_is_gone() {
    let check = async |annotations: &str, spec: &str, expect: &str, message: &str| {
        let cluster = Cluster::start();
        annotated_volume(&cluster, "v", annotations, spec);
        claim(&cluster, "a", "storageClassName: ''");
        eventually("it is bound", || phase(&cluster, &CLAIMS, "a") == "Bound").await;
        delete(&cluster, &CLAIMS, &key("a")).await;
        eventually(&format!("{spec}: {expect}"), || phase(&cluster, &VOLUMES, "v") == expect).await;
        assert_eq!(phase(&cluster, &CLAIMS, "a"), "gone");
        cluster.settles().await;
        assert_eq!(cluster.value(&VOLUMES, "v").str_at(&["status", "message"]).unwrap_or_default(), message, "{spec}");
        cluster
    };
    let external = "pv.kubernetes.io/provisioned-by: x.example.com/p";
    let delete_policy = "persistentVolumeReclaimPolicy: Delete";
    check(external, delete_policy, "Released", "").await;
    check("", &format!("{delete_policy}, csi: {{driver: d, volumeHandle: h}}"), "Released", "").await;
    let nobody = "error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched";
    check("", &format!("{delete_policy}, hostPath: null, nfs: {{server: s, path: /}}"), "Failed", nobody).await;
    let nobody = "error getting deleter volume plugin for volume \"v\": no volume plugin matched";
    check("", &format!("{delete_policy}, hostPath: null, fc: {{wwids: [w]}}"), "Failed", nobody).await;
    let elsewhere = "host_path deleter only supports /tmp/.+ but received provided /x";
    check("", delete_policy, "Failed", elsewhere).await;
    check("", &format!("{delete_policy}, hostPath: {{path: /tmp/x}}"), "gone", "").await;
    check("pv.kubernetes.io/provisioned-by: kubernetes.io/host-path", delete_policy, "Failed", elsewhere).await;
    let plugin = "pv.kubernetes.io/provisioned-by: kubernetes.io/glusterfs";
    check(plugin, delete_policy, "Failed", "no volume plugin matched name: kubernetes.io/glusterfs").await;
    let unknown = "Volume has unrecognized PersistentVolumeReclaimPolicy";
    check("", "persistentVolumeReclaimPolicy: Burn", "Failed", unknown).await;
    // Who is kept waits for a person, who takes the reference away.
    let cluster = check("", "", "Released", "").await;
    claim(&cluster, "b", "storageClassName: ''");
    sleep(5).await;
    assert_eq!(phase(&cluster, &CLAIMS, "b"), "Pending");
    cluster.server.edit(&VOLUMES, &ObjectKey::cluster("v"), |volume| drop(volume.remove(&["spec", "claimRef"])));
    becomes(&cluster, "b", &format!("Bound v {BOUND}")).await;
    // A claim of the same name is another one.
    delete(&cluster, &CLAIMS, &key("b")).await;
    eventually("it is released", || phase(&cluster, &VOLUMES, "v") == "Released").await;
    claim(&cluster, "b", "storageClassName: ''");
    sleep(60).await;
    assert_eq!((phase(&cluster, &VOLUMES, "v"), phase(&cluster, &CLAIMS, "b")), ("Released".into(), "Pending".into()));
}

#[tokio::test(start_paused = true)]
async fn lost_claims_and_volumes_that_come_too_late() {
    let cluster = Cluster::start();
    volume(&cluster, "v", "");
    claim(&cluster, "a", "storageClassName: ''");
    becomes(&cluster, "a", &format!("Bound v {BOUND}")).await;
    // The volume's object goes, whoever did it, and comes back.
    cluster.server.remove(&VOLUMES, &ObjectKey::cluster("v"));
    becomes(&cluster, "a", &format!("Lost v {BOUND}")).await;
    told(&cluster, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!").await;
    volume(&cluster, "v", "");
    becomes(&cluster, "a", &format!("Bound v {BOUND}")).await;
    // Somebody takes the claim's volume away from under it.
    cluster.server.edit(&VOLUMES, &ObjectKey::cluster("v"), |volume| {
        volume.set(&["spec", "claimRef", "uid"], "another");
    });
    told(&cluster, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly").await;
    // Two volumes were made for one claim: a made one goes, a chosen one stays chosen, ours is free again.
    let b = claim(&cluster, "b", "storageClassName: s");
    volume(&cluster, "first", "storageClassName: s");
    becomes(&cluster, "b", &format!("Bound first {BOUND}")).await;
    let reference = format!("storageClassName: s, claimRef: {{namespace: ns, name: b, uid: {}}}", b.uid());
    let made = "pv.kubernetes.io/provisioned-by: x.example.com/p";
    annotated_volume(&cluster, "made", made, &format!("{reference}, persistentVolumeReclaimPolicy: Delete"));
    volume_becomes(&cluster, "made", r#"Released b bound ["provisioned-by"]"#).await;
    volume(&cluster, "chosen", &reference);
    volume_becomes(&cluster, "chosen", "Available b open []").await;
    annotated_volume(&cluster, "ours", "pv.kubernetes.io/bound-by-controller: 'yes'", &reference);
    volume_becomes(&cluster, "ours", "Available - open []").await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_binding_is_completed_after_a_crash_at_any_step() {
    for steps in 0..5 {
        let cluster =
            Cluster::start_with(FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap())), |_| {});
        let mut left = steps;
        // The connection breaks at the n-th write of the binding, once after it has happened.
        cluster.server.react(move |request| {
            let write = request.method != http::Method::GET && request.target.contains("persistentvolume");
            if !write {
                return None;
            }
            left -= 1;
            (left == -1).then_some(client::fake::Reaction::LoseAnswer)
        });
        volume(&cluster, "v", "");
        claim(&cluster, "a", "storageClassName: ''");
        becomes(&cluster, "a", &format!("Bound v {BOUND}")).await;
        volume_becomes(&cluster, "v", r#"Bound a bound ["bound-by-controller"]"#).await;
        cluster.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_used_stays() {
    let cluster = Cluster::start();
    let _reports = cluster.put_node("n1");
    volume(&cluster, "v", "");
    claim(&cluster, "a", "storageClassName: ''");
    becomes(&cluster, "a", &format!("Bound v {BOUND}")).await;
    let p = pod(&cluster, "p", "n1", "{name: v, persistentVolumeClaim: {claimName: a}}");
    delete(&cluster, &CLAIMS, &key("a")).await;
    delete(&cluster, &VOLUMES, &ObjectKey::cluster("v")).await;
    cluster.settles().await;
    assert_eq!((phase(&cluster, &CLAIMS, "a"), phase(&cluster, &VOLUMES, "v")), ("Bound".into(), "Bound".into()));
    // Even one that has ended keeps its claim, as upstream has it.
    cluster.server.edit(&resources::PODS, p.key(), |pod| pod.set(&["status", "phase"], "Succeeded"));
    cluster.settles().await;
    assert_eq!(phase(&cluster, &CLAIMS, "a"), "Bound");
    cluster.server.remove(&resources::PODS, p.key());
    eventually("both go", || phase(&cluster, &CLAIMS, "a") == "gone" && phase(&cluster, &VOLUMES, "v") == "gone").await;
    // A pod without a node keeps nothing.
    claim(&cluster, "b", "storageClassName: ''");
    pod(&cluster, "q", "", "{name: v, persistentVolumeClaim: {claimName: b}}");
    delete(&cluster, &CLAIMS, &key("b")).await;
    eventually("it goes", || phase(&cluster, &CLAIMS, "b") == "gone").await;
    // Objects from before get their protection.
    cluster.put_yaml(
        &VOLUMES,
        "{apiVersion: v1, kind: PersistentVolume, metadata: {name: bare}, spec: {capacity: {storage: 1Gi}}}",
    );
    cluster.put_yaml(
        &ATTRIBUTES,
        "{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: gold}, driverName: d}",
    );
    let finalizer = |resource: &Resource, name: &str| {
        let value = cluster.value(resource, name);
        value.items_at(&["metadata", "finalizers"]).first().and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    eventually("they have finalizers", || {
        finalizer(&VOLUMES, "bare") == "kubernetes.io/pv-protection"
            && finalizer(&ATTRIBUTES, "gold") == "kubernetes.io/vac-protection"
    })
    .await;
    let user = claim(&cluster, "c", "storageClassName: '', volumeAttributesClassName: gold");
    sleep(5).await;
    delete(&cluster, &ATTRIBUTES, &ObjectKey::cluster("gold")).await;
    cluster.settles().await;
    assert!(!cluster.server.list(&ATTRIBUTES).is_empty());
    cluster.server.remove(&CLAIMS, user.key());
    eventually("the class goes", || cluster.server.list(&ATTRIBUTES).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn ephemeral_volumes_have_claims() {
    let cluster = Cluster::start();
    let volumes = "{name: e, ephemeral: {volumeClaimTemplate: {metadata: {labels: {l: x}}, spec: {accessModes: [ReadWriteOnce], \
                   storageClassName: '', resources: {requests: {storage: 1Gi}}}}}}";
    let p = pod(&cluster, "p", "", volumes);
    eventually("the claim is there", || cluster.server.get(&CLAIMS, &key("p-e")).is_some()).await;
    let made = cluster.server.get(&CLAIMS, &key("p-e")).unwrap();
    assert_eq!(made.controller().map(|owner| (owner.kind.as_str(), owner.uid.as_str())), Some(("Pod", p.uid())));
    assert_eq!(made.label("l"), Some("x"));
    assert_eq!(made.to_value().str_at(&["spec", "resources", "requests", "storage"]), Some("1Gi"));
    // Another's claim is in the way, and then no longer.
    claim(&cluster, "q-e", "storageClassName: ''");
    pod(&cluster, "q", "", volumes);
    told(&cluster, "FailedBinding", "ephemeral volume e: PVC ns/q-e was not created for pod ns/q (pod is not owner)")
        .await;
    cluster.server.remove(&CLAIMS, &key("q-e"));
    eventually("the pod's own is there", || {
        cluster.server.get(&CLAIMS, &key("q-e")).is_some_and(|claim| claim.controller().is_some())
    })
    .await;
    cluster.server.remove(&resources::PODS, &key("p"));
    eventually("it goes with its pod", || cluster.server.get(&CLAIMS, &key("p-e")).is_none()).await;
}

#[tokio::test(start_paused = true)]
async fn claims_grow() {
    let cluster = Cluster::start();
    annotated_volume(&cluster, "ours", "pv.kubernetes.io/provisioned-by: oxikube.io/local", "storageClassName: a");
    annotated_volume(&cluster, "theirs", "pv.kubernetes.io/provisioned-by: x.example.com/p", "storageClassName: b");
    volume(&cluster, "migrated", "storageClassName: c, hostPath: null, awsElasticBlockStore: {volumeID: v}");
    for name in ["a", "b", "c"] {
        claim(&cluster, name, &format!("storageClassName: {name}"));
        eventually("it is bound", || phase(&cluster, &CLAIMS, name) == "Bound").await;
        cluster.server.edit(&CLAIMS, &key(name), |claim| {
            claim.set(&["spec", "resources", "requests", "storage"], "3Gi");
        });
    }
    told(&cluster, "VolumeResizeSuccessful", "ExpandVolume succeeded for volume ns/a").await;
    told(&cluster, "ExternalExpanding", "waiting for an external controller to expand this PVC").await;
    let migrated = "CSI migration enabled for kubernetes.io/aws-ebs; waiting for external resizer to expand the pvc";
    told(&cluster, "ExternalExpanding", migrated).await;
    eventually("the driver is named", || {
        let resizer = ["metadata", "annotations", "volume.kubernetes.io/storage-resizer"];
        cluster.value(&CLAIMS, "c").str_at(&resizer) == Some("ebs.csi.aws.com")
    })
    .await;
    let a = cluster.value(&CLAIMS, "a");
    assert_eq!(a.str_at(&["status", "capacity", "storage"]), Some("3Gi"));
    assert_eq!(a.str_at(&["status", "allocatedResources", "storage"]), Some("3Gi"));
    assert!(
        a.items_at(&["status", "conditions"]).is_empty() && a.at(&["status", "allocatedResourceStatuses"]).is_none()
    );
    assert_eq!(cluster.value(&VOLUMES, "ours").str_at(&["spec", "capacity", "storage"]), Some("3Gi"));
    assert_eq!(cluster.value(&CLAIMS, "b").str_at(&["status", "capacity", "storage"]), Some("1Gi"));
    cluster.settles().await;
}
