use std::collections::HashSet;

use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use super::*;

/// Knows `true`, `false`, `fail`, and `name == x`.
struct ByName;

impl Selectors for ByName {
    fn matches(&self, expression: &str, _: &str, device: &Device) -> Result<bool, SelectorError> {
        match expression.strip_prefix("name == ") {
            Some(name) => Ok(device.name == name),
            None if expression == "fail" => Err(SelectorError::Runtime("no such key: a".into())),
            None => Ok(expression == "true"),
        }
    }
}

fn slice(name: &str, spec: Value) -> Arc<ResourceSlice> {
    let mut whole = json!({"driver": "d.io", "pool": {"name": "pool", "generation": 1, "resourceSliceCount": 1}});
    for (key, value) in spec.as_object().unwrap() {
        whole[key] = value.clone();
    }
    Arc::new(serde_json::from_value(json!({"metadata": {"name": name}, "spec": whole})).unwrap())
}

use k8s_openapi::api::resource::v1::ResourceSlice;

fn device(name: &str) -> Value {
    json!({"name": name})
}

fn exactly(more: Value) -> Value {
    let mut exactly = json!({"deviceClassName": "c", "allocationMode": "ExactCount", "count": 1});
    for (key, value) in more.as_object().unwrap() {
        exactly[key] = value.clone();
    }
    exactly
}

fn claim(devices: Value) -> Arc<ResourceClaim> {
    let claim = json!({"metadata": {"name": "claim", "namespace": "ns"}, "spec": {"devices": devices}});
    Arc::new(serde_json::from_value(claim).unwrap())
}

fn one(more: Value) -> Arc<ResourceClaim> {
    claim(json!({"requests": [{"name": "r", "exactly": exactly(more)}]}))
}

/// `request=device` for each device of each claim, `no` or the error.
fn check_with(
    slices: &[Arc<ResourceSlice>],
    taken: &[&str],
    claims: &[Arc<ResourceClaim>],
    expect: &str,
) -> Option<AllocationResult> {
    let inventory = Inventory::new(slices.iter().cloned());
    let taken: HashSet<&str> = taken.iter().copied().collect();
    let node: Node = serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a"}}})).unwrap();
    let class = |name: &str| {
        let config = json!([{"opaque": {"driver": "d.io", "parameters": {"of": name}}}]);
        let class = json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": "true"}}], "config": config}});
        (name != "absent").then(|| Arc::new(serde_json::from_value(class).unwrap()))
    };
    let allocator = Allocator {
        inventory: &inventory,
        taken: &|id| taken.contains(&*id.device),
        class: &class,
        selectors: &ByName,
        late: &|| false,
    };
    let answer = allocator.allocate(&node, claims);
    let told = match &answer {
        Ok(None) => "no".to_owned(),
        Err(error) => error.to_string(),
        Ok(Some(results)) => {
            let results =
                results.iter().flat_map(|result| result.devices.iter().flat_map(|d| d.results.iter().flatten()));
            results.map(|result| format!("{}={}", result.request, result.device)).collect::<Vec<_>>().join(" ")
        }
    };
    assert_eq!(told, expect);
    answer.ok().flatten().and_then(|results| results.into_iter().next())
}

fn check(slices: &[Arc<ResourceSlice>], claims: &[Arc<ResourceClaim>], expect: &str) -> Option<AllocationResult> {
    check_with(slices, &[], claims, expect)
}

fn three() -> Vec<Arc<ResourceSlice>> {
    vec![slice("s", json!({"nodeName": "n1", "devices": [device("a"), device("b"), device("c")]}))]
}

#[test]
fn taints_keep_claims_off() {
    let taint =
        |name: &str, effect: &str| json!({"name": name, "taints": [{"key": "k", "value": "v", "effect": effect}]});
    let devices = [taint("a", "NoSchedule"), taint("b", "NoExecute"), taint("c", "None"), device("d")];
    let slices = [slice("s", json!({"nodeName": "n1", "devices": devices}))];
    let tolerating = |toleration: Value, count: u32| one(json!({"count": count, "tolerations": [toleration]}));
    check(&slices, &[one(json!({"count": 2}))], "r=c r=d");
    check(&slices, &[one(json!({"count": 3}))], "no");
    check(&slices, &[one(json!({"allocationMode": "All"}))], "no");
    check(&slices, &[tolerating(json!({"operator": "Exists"}), 4)], "r=a r=b r=c r=d");
    check(
        &slices,
        &[tolerating(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoExecute"}), 3)],
        "r=b r=c r=d",
    );
    check(&slices, &[tolerating(json!({"key": "k", "operator": "Equal", "value": "w"}), 3)], "no");
    check(&slices, &[tolerating(json!({"key": "other", "operator": "Exists"}), 3)], "no");
}

#[test]
fn counts_and_all() {
    check(&three(), &[one(json!({}))], "r=a");
    check(&three(), &[one(json!({"count": 2})), one(json!({}))], "r=a r=b r=c");
    check(&three(), &[one(json!({"count": 4}))], "no");
    check(
        &three(),
        &[one(json!({"count": 33}))],
        "claim ns/claim: number of requested devices 33 exceeds the claim limit of 32",
    );
    check(&three(), &[one(json!({"allocationMode": "All"}))], "r=a r=b r=c");
    check_with(&three(), &["b"], &[one(json!({"allocationMode": "All"}))], "no");
    check_with(&three(), &["a"], &[one(json!({}))], "r=b");
    check(&[], &[one(json!({"allocationMode": "All"}))], "no");
    check(
        &three(),
        &[one(json!({"allocationMode": "Some"}))],
        "claim ns/claim, request r: unsupported count mode Some",
    );
}

#[test]
fn administrators_take_what_is_taken() {
    check_with(&three(), &["a", "b", "c"], &[one(json!({"adminAccess": true, "count": 3}))], "r=a r=b r=c");
    check_with(&three(), &["a"], &[one(json!({"adminAccess": true})), one(json!({"adminAccess": true}))], "r=a r=a");
    let result = check(&three(), &[one(json!({"adminAccess": true}))], "r=a").unwrap();
    assert_eq!(result.devices.unwrap().results.unwrap()[0].admin_access, Some(true));
}

#[test]
fn selectors_choose() {
    let selector = |text: &str| json!({"selectors": [{"cel": {"expression": text}}]});
    check(&three(), &[one(selector("name == b"))], "r=b");
    check(&three(), &[one(selector("false"))], "no");
    check(&three(), &[one(selector("fail"))], "claim ns/claim: selector #0: CEL runtime error: no such key: a");
    check_with(&three(), &["a", "b", "c"], &[one(selector("fail"))], "no");
    // The first request must leave the only device that suits the second one.
    let second =
        json!([{"name": "x", "exactly": exactly(json!({}))}, {"name": "y", "exactly": exactly(selector("name == a"))}]);
    check(&three(), &[claim(json!({"requests": second}))], "x=b y=a");
    check(
        &three(),
        &[one(json!({"deviceClassName": "absent"}))],
        "claim ns/claim, request r: could not retrieve device class absent: deviceclass.resource.k8s.io \"absent\" not found",
    );
}

#[test]
fn the_first_alternative_that_can_be_had() {
    let option = |name: &str, more: Value| {
        let mut option = exactly(more);
        option["name"] = json!(name);
        option
    };
    let options = |options: Value| claim(json!({"requests": [{"name": "r", "firstAvailable": options}]}));
    check(
        &three(),
        &[options(json!([option("many", json!({"count": 5})), option("few", json!({"count": 2}))]))],
        "r/few=a r/few=b",
    );
    let all = json!([option("many", json!({"count": 5})), option("all", json!({"allocationMode": "All"}))]);
    let result = check(&three(), &[options(all)], "r/all=a r/all=b r/all=c").unwrap();
    assert_eq!(result.devices.unwrap().config.unwrap()[0].requests, Some(vec!["r/all".to_owned()]));
    check(&three(), &[options(json!([option("x", json!({"count": 4}))]))], "no");
}

#[test]
fn pools_are_whole_and_of_the_newest_generation() {
    let part = |name: &str, generation: i64, count: i64, devices: &[&str]| {
        let pool = json!({"name": "pool", "generation": generation, "resourceSliceCount": count});
        let devices: Vec<_> = devices.iter().map(|name| device(name)).collect();
        slice(name, json!({"nodeName": "n1", "pool": pool, "devices": devices}))
    };
    check(&[part("s", 1, 2, &["a"])], &[one(json!({}))], "no");
    let being =
        "claim ns/claim, request r: asks for all devices, but resource pool d.io/pool is currently being updated";
    check(&[part("s", 1, 2, &["a"])], &[one(json!({"allocationMode": "All"}))], being);
    check(&[part("s", 1, 2, &["a"]), part("t", 1, 2, &["b"])], &[one(json!({"count": 2}))], "r=a r=b");
    check(&[part("s", 1, 1, &["a"]), part("t", 2, 1, &["b"])], &[one(json!({}))], "r=b");
    check(
        &[part("s", 1, 2, &["a"]), part("t", 1, 2, &["a"])],
        &[one(json!({}))],
        "invalid resource pools were encountered",
    );
    let elsewhere =
        slice("u", json!({"nodeName": "n2", "pool": {"name": "pool", "generation": 2, "resourceSliceCount": 2}}));
    check(&[part("s", 1, 2, &["a"]), elsewhere], &[one(json!({}))], "no");
}

#[test]
fn devices_share_an_attribute() {
    let with = |name: &str, key: &str, value: i64| json!({"name": name, "attributes": {key: {"int": value}}});
    let devices = json!([with("a", "numa", 0), with("b", "d.io/numa", 1), with("c", "numa", 1), device("d")]);
    let slices = [slice("s", json!({"allNodes": true, "devices": devices}))];
    let asks = |mode: Value| {
        claim(json!({
            "requests": [{"name": "r", "exactly": exactly(mode)}],
            "constraints": [{"matchAttribute": "d.io/numa"}],
        }))
    };
    let result = check(&slices, &[asks(json!({"count": 2}))], "r=b r=c").unwrap();
    assert_eq!(result.node_selector, None);
    check(&slices, &[asks(json!({"count": 3}))], "no");
    let cannot =
        "claim ns/claim, request r: cannot add device d.io/pool/b because a claim constraint would not be satisfied";
    check(&slices, &[asks(json!({"allocationMode": "All"}))], cannot);
}

#[test]
fn the_result_says_where() {
    let result = check(&three(), &[one(json!({}))], "r=a").unwrap();
    let field =
        json!({"nodeSelectorTerms": [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]});
    assert_eq!(serde_json::to_value(result.node_selector).unwrap(), field);
    let zone =
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}]});
    let slices = [slice("s", json!({"nodeSelector": zone, "devices": [device("a"), device("b")]}))];
    let result = check(&slices, &[one(json!({"count": 2}))], "r=a r=b").unwrap();
    assert_eq!(serde_json::to_value(result.node_selector).unwrap(), zone);
    let other =
        json!({"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]});
    check(&[slice("s", json!({"nodeSelector": other, "devices": [device("a")]}))], &[one(json!({}))], "no");
}
