use serde_json::{Value, json};

use super::*;
use crate::framework::Change;
use crate::plugins::tests::{Try, on_node, pod};

fn plugin() -> DynamicResources {
    DynamicResources::new(Args::default(), None, None).unwrap()
}

fn put(cluster: &Cluster, mut claim: Value) -> Arc<ResourceClaim> {
    claim["metadata"]["namespace"] = json!("ns");
    let claim: Arc<ResourceClaim> = Arc::new(serde_json::from_value(claim).unwrap());
    cluster.follow_claim(&key_of(&claim), Some(claim.clone()), 1);
    claim
}

fn slice(cluster: &Cluster, node: &str, devices: &[&str]) {
    let devices: Vec<_> = devices.iter().map(|name| json!({"name": name})).collect();
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    let spec = json!({"driver": "d", "nodeName": node, "pool": pool, "devices": devices});
    let slice = serde_json::from_value(json!({"metadata": {"name": node}, "spec": spec})).unwrap();
    cluster.slices.set(ObjectKey::cluster(node), Arc::new(slice), 1);
}

fn class(cluster: &Cluster) {
    let class = serde_json::from_value(json!({"metadata": {"name": "gpu"}, "spec": {}})).unwrap();
    cluster.device_classes.set(ObjectKey::cluster("gpu"), Arc::new(class), 1);
}

fn wants(claim: &str) -> PodInfo {
    pod(json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}))
}

fn asks(name: &str) -> Value {
    let exactly = json!({"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1});
    json!({"metadata": {"name": name, "uid": name}, "spec": {"devices": {"requests": [{"name": "r", "exactly": exactly}]}}})
}

fn has(name: &str, node: &str, device: &str) -> Value {
    let mut claim = asks(name);
    let result = json!({"request": "r", "driver": "d", "pool": node, "device": device});
    claim["status"] = json!({"allocation": {"devices": {"results": [result]}}});
    claim
}

#[test]
fn claims_are_allocated_where_the_pod_goes() {
    let check = |claim: Value, expect: [&str; 2]| {
        let plugin = plugin();
        let mut tried = Try::new_on(&plugin, wants("c"), &[on_node("n1", "a"), on_node("n2", "b")]);
        if !claim.is_null() {
            put(&tried.cluster, claim);
        }
        class(&tried.cluster);
        slice(&tried.cluster, "n2", &["x"]);
        assert_eq!(["n1", "n2"].map(|name| tried.on_known(name)), expect);
    };
    check(json!(null), ["could not find ResourceClaim \"ns/c\""; 2]);
    check(asks("c"), ["cannot allocate all claims", ""]);
    let mut unknown = asks("c");
    unknown["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = json!("absent");
    check(unknown, ["request r: device class absent does not exist"; 2]);
    let terms = json!([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]);
    let mut allocated = asks("c");
    allocated["status"] = json!({"allocation": {"nodeSelector": {"nodeSelectorTerms": terms}}});
    check(allocated, ["resourceclaim not available on the node", ""]);
}

#[test]
fn a_device_is_given_once() {
    let plugin = plugin();
    let mut tried = Try::new_on(&plugin, wants("c"), &[on_node("n1", "a")]);
    class(&tried.cluster);
    slice(&tried.cluster, "n1", &["x"]);
    put(&tried.cluster, asks("c"));
    let other = put(&tried.cluster, has("other", "n1", "x"));
    assert_eq!(tried.on_known("n1"), "cannot allocate all claims");
    tried.cluster.follow_claim(&key_of(&other), None, 2);
    assert_eq!(tried.on_known("n1"), "");
    let devices = HashSet::from([DeviceId::new("d", "n1", "x")]);
    tried.cluster.devices.begin(ObjectKey::new("ns", "other"), devices.clone());
    assert_eq!(tried.on_known("n1"), "cannot allocate all claims");
    assert!(tried.cluster.devices.end(&ObjectKey::new("ns", "other")));
    tried.cluster.devices.begin(ObjectKey::new("ns", "c"), devices);
    assert_eq!(tried.on_known("n1"), "resource claim ns/c is in the process of being allocated");
}

#[test]
fn pods_wait_for_their_claims_before_they_are_tried() {
    let cluster = Arc::new(Cluster::default());
    let plugin = DynamicResources::new(Args::default(), None, Some(cluster.clone())).unwrap();
    let check = |pod: &PodInfo, expect: &str| {
        assert_eq!(plugin.pre_enqueue(pod).err().unwrap_or_default(), expect);
    };
    let generated = pod(json!({"resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t"}]}));
    check(&pod(json!({})), "");
    check(&generated, "pod \"ns/p\": ResourceClaim not created yet");
    check(&wants("c"), "could not find ResourceClaim \"ns/c\"");
    put(&cluster, asks("c"));
    check(&wants("c"), "");
    let mut made = generated.clone();
    made.resource_claims[0].claim = ClaimName::Made("c".into());
    check(&made, "ResourceClaim ns/c was not created for pod ns/p (pod is not owner)");
    let mut own = asks("c");
    own["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]);
    put(&cluster, own);
    check(&made, "");
    made.resource_claims[0].claim = ClaimName::Needless;
    check(&made, "");
}

#[test]
fn what_helps() {
    let cluster = Cluster::default();
    let mine = put(&cluster, asks("c"));
    let other = put(&cluster, asks("other"));
    let plugin = plugin();
    let check = |event: ClusterEvent, expect: bool| {
        assert_eq!(plugin.helps(&wants("c"), &event, &cluster), expect, "{event:?}");
    };
    let change = |old: Option<&Arc<ResourceClaim>>, new: Option<&Arc<ResourceClaim>>| {
        ClusterEvent::ResourceClaim(Change { old: old.cloned(), new: new.cloned() })
    };
    let allocated = Arc::new(serde_json::from_value(has("other", "n1", "x")).unwrap());
    check(change(None, Some(&mine)), true);
    check(change(Some(&mine), Some(&mine)), false);
    check(change(None, Some(&other)), false);
    check(change(Some(&allocated), Some(&other)), true);
    check(change(Some(&other), Some(&allocated)), false);
    check(change(Some(&allocated), None), false);
    let class = Arc::new(Default::default());
    check(ClusterEvent::DeviceClass(Change { old: None, new: Some(class) }), true);
}

#[test]
fn durations_of_the_configuration() {
    let check = |text: &str, expect: Option<Option<u64>>| {
        let args = Args { filter_timeout: Some(text.into()), ..Args::default() };
        let plugin = DynamicResources::new(args, None, None).ok();
        assert_eq!(plugin.map(|plugin| plugin.patience.map(|patience| patience.as_secs())), expect, "{text}");
    };
    check("5s", Some(Some(5)));
    check("1m30s", Some(Some(90)));
    check("0s", Some(None));
    check("-1s", None);
}
