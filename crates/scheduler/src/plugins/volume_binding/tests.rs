use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::*;
use crate::plugins::tests::{Try, claim, on_node, pod, volume};
use crate::storage::{BIND_COMPLETED, SELECTED_NODE};

fn using(claims: &[&str]) -> PodInfo {
    let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
    pod(json!({"volumes": claims.iter().map(volume).collect::<Vec<_>>()}))
}

fn class(cluster: &Cluster, name: &str, provisioner: &str, more: Value) {
    let mut class =
        json!({"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": "WaitForFirstConsumer"});
    class.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let class: StorageClass = serde_json::from_value(class).unwrap();
    cluster.classes.set(ObjectKey::cluster(name), Arc::new(class), 1);
}

fn asks(class: &str, size: &str) -> Value {
    json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}})
}

fn has(class: &str, size: &str, zone: &str) -> Value {
    let mut spec = json!({"storageClassName": class, "accessModes": ["ReadWriteOnce"], "capacity": {"storage": size}});
    if !zone.is_empty() {
        spec["nodeAffinity"] = json!({"required": {"nodeSelectorTerms":
            [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}});
    }
    spec
}

fn check(pod: PodInfo, world: impl Fn(&Cluster), expect: [&str; 2]) {
    let plugin = VolumeBinding::new(Args::default(), None);
    let mut tried = Try::new_on(&plugin, pod, &[on_node("n1", "a"), on_node("n2", "b")]);
    world(&tried.cluster);
    assert_eq!(["n1", "n2"].map(|name| tried.on_known(name)), expect);
}

#[test]
fn claims_decide_before_nodes_do() {
    let all = |reason| [reason, reason];
    check(pod(json!({})), |_| {}, all(""));
    check(using(&["c"]), |_| {}, all("persistentvolumeclaim \"c\" not found"));
    let immediate = "pod has unbound immediate PersistentVolumeClaims";
    check(using(&["c"]), |cluster| claim(cluster, "c", asks("none", "1Gi"), json!({})), all(immediate));
    check(
        using(&["c"]),
        |cluster| {
            class(cluster, "now", "p", json!({"volumeBindingMode": "Immediate"}));
            claim(cluster, "c", asks("now", "1Gi"), json!({}));
        },
        all(immediate),
    );
    let ephemeral = || pod(json!({"volumes": [{"name": "v", "ephemeral": {}}]}));
    check(
        ephemeral(),
        |_| {},
        all("waiting for ephemeral volume controller to create the persistentvolumeclaim \"p-v\""),
    );
    check(
        ephemeral(),
        |cluster| claim(cluster, "p-v", asks("s", "1Gi"), json!({})),
        all("PVC ns/p-v was not created for pod ns/p (pod is not owner)"),
    );
}

#[test]
fn bound_claims_bind_the_pod_to_their_volumes_nodes() {
    let bound = |cluster: &Cluster| {
        claim(cluster, "c", json!({"volumeName": "v"}), json!({BIND_COMPLETED: "yes"}));
    };
    check(using(&["c"]), bound, [VOLUME_GONE; 2]);
    check(
        using(&["c"]),
        |cluster| {
            bound(cluster);
            volume(cluster, "v", has("s", "1Gi", "b"), json!({}));
        },
        [NODE_CONFLICT, ""],
    );
}

#[test]
fn waiting_claims_find_a_volume_or_are_provisioned() {
    let world = |provisioner: &'static str, more: Value| {
        move |cluster: &Cluster| {
            class(cluster, "s", provisioner, more.clone());
            claim(cluster, "c", asks("s", "2Gi"), json!({}));
            claim(cluster, "d", asks("s", "1Gi"), json!({}));
            volume(cluster, "small", has("s", "1Gi", ""), json!({}));
            volume(cluster, "large", has("s", "9Gi", "a"), json!({}));
        }
    };
    let manual = NO_PROVISIONER;
    check(using(&["c"]), world(manual, json!({})), ["", NO_VOLUME]);
    check(using(&["d"]), world(manual, json!({})), ["", ""]);
    check(using(&["c", "d"]), world(manual, json!({})), ["", NO_VOLUME]);
    check(using(&["c", "d"]), world("made.by/us", json!({})), ["", ""]);
    let only_b = json!({"allowedTopologies": [{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]});
    check(using(&["c"]), world("made.by/us", only_b.clone()), ["", ""]);
    let chosen = |cluster: &Cluster| {
        world("made.by/us", json!({}))(cluster);
        claim(cluster, "c", asks("s", "2Gi"), json!({SELECTED_NODE: "n2"}));
    };
    check(using(&["c"]), chosen, [NO_VOLUME, ""]);
}

#[test]
fn drivers_that_tell_capacities_are_believed() {
    let world = |cluster: &Cluster| {
        class(cluster, "s", "csi.io", json!({}));
        claim(cluster, "c", asks("s", "2Gi"), json!({}));
        let driver = json!({"metadata": {"name": "csi.io"}, "spec": {"storageCapacity": true}});
        cluster.csi_drivers.set(ObjectKey::cluster("csi.io"), Arc::new(serde_json::from_value(driver).unwrap()), 1);
        let capacity = json!({"metadata": {"name": "x", "namespace": "ns"}, "storageClassName": "s", "capacity": "5Gi",
            "nodeTopology": {"matchLabels": {"zone": "b"}}});
        let capacity = Arc::new(serde_json::from_value(capacity).unwrap());
        cluster.csi_capacities.set(ObjectKey::new("ns", "x"), capacity, 1);
    };
    check(using(&["c"]), world, [NO_SPACE, ""]);
}
