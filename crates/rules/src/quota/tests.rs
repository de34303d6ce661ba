use super::*;

fn value(yaml: &str) -> Value {
    Value::parse(yaml.as_bytes()).unwrap()
}

fn quota(hard: &str, used: &str, spec: &str) -> Quota {
    Quota::read(&value(&format!(
        r#"{{"metadata":{{"name":"q"}},"spec":{spec},"status":{{"hard":{hard},"used":{used}}}}}"#
    )))
}

fn request<'a>(plural: &'a str, new: &'a Value, old: Option<&'a Value>) -> Request<'a> {
    Request { resource: Resource::new("", plural), new, old, enforced: true, now: Timestamp::UNIX_EPOCH }
}

const POD: &str = r#"{"spec":{"containers":[{"name":"a","resources":{"requests":{"cpu":"500m","memory":"252Mi","ephemeral-storage":"30Gi","x.y/z":"2"},"limits":{"cpu":"1"}}}]}}"#;

#[test]
fn pods_use() {
    let usage = Resource::new("", "pods").usage(&value(POD), Timestamp::UNIX_EPOCH);
    assert_eq!(
        usage.to_string(),
        "count/pods=1,cpu=500m,ephemeral-storage=30Gi,limits.cpu=1,memory=252Mi,pods=1,requests.cpu=500m,\
         requests.ephemeral-storage=30Gi,requests.memory=252Mi,requests.x.y/z=2"
    );
    let mut ended = value(POD);
    ended.set(&["status", "phase"], "Failed");
    assert_eq!(Resource::new("", "pods").usage(&ended, Timestamp::UNIX_EPOCH).to_string(), "count/pods=1");
}

#[test]
fn services_and_claims_use() {
    let check = |plural: &str, object: &str, expect: &str| {
        let usage = Resource::new("", plural).usage(&value(object), Timestamp::UNIX_EPOCH);
        assert_eq!(usage.to_string(), expect);
    };
    check(
        "services",
        r#"{"spec":{"type":"NodePort","ports":[{"port":1},{"port":2}]}}"#,
        "count/services=1,services=1,services.loadbalancers=0,services.nodeports=2",
    );
    check(
        "services",
        r#"{"spec":{"type":"LoadBalancer","allocateLoadBalancerNodePorts":false,"ports":[{"port":1},{"port":2,"nodePort":30000}]}}"#,
        "count/services=1,services=1,services.loadbalancers=1,services.nodeports=1",
    );
    check(
        "persistentvolumeclaims",
        r#"{"spec":{"storageClassName":"gold","resources":{"requests":{"storage":"1Gi"}}}}"#,
        "count/persistentvolumeclaims=1,gold.storageclass.storage.k8s.io/persistentvolumeclaims=1,\
         gold.storageclass.storage.k8s.io/requests.storage=1Gi,persistentvolumeclaims=1,requests.storage=1Gi",
    );
    check("secrets", "{}", "count/secrets=1,secrets=1");
    let claim = r#"{"spec":{"devices":{"requests":[
        {"exactly":{"deviceClassName":"a","allocationMode":"ExactCount","count":2}},
        {"exactly":{"deviceClassName":"b","allocationMode":"All"}},
        {"firstAvailable":[{"deviceClassName":"a","allocationMode":"ExactCount","count":3},
            {"deviceClassName":"c","allocationMode":"ExactCount","count":1},
            {"deviceClassName":"a","allocationMode":"ExactCount","count":1}]}]}}}"#;
    let usage = Resource::new("resource.k8s.io", "resourceclaims").usage(&value(claim), Timestamp::UNIX_EPOCH);
    assert_eq!(
        usage.to_string(),
        "a.deviceclass.resource.k8s.io/devices=5,b.deviceclass.resource.k8s.io/devices=32,\
         c.deviceclass.resource.k8s.io/devices=1,count/resourceclaims.resource.k8s.io=1"
    );
    assert_eq!(limited("a.deviceclass.resource.k8s.io/devices"), Some(("resource.k8s.io", "resourceclaims")));
    let usage = Resource::new("apps", "deployments").usage(&value("{}"), Timestamp::UNIX_EPOCH);
    assert_eq!(usage.to_string(), "count/deployments.apps=1");
}

#[test]
fn requests_are_charged_or_refused() {
    let pod = value(POD);
    let check = |hard: &str, used: &str, spec: &str, expect: Result<&str, &str>| {
        let charged = check(&[quota(hard, used, spec)], &request("pods", &pod, None));
        let shown = charged.map(|charges| charges.first().map(|(_, used)| used.to_string()).unwrap_or_default());
        assert_eq!(shown, expect.map(str::to_owned).map_err(str::to_owned), "{hard} {used}");
    };
    check(r#"{"pods":"5","cpu":"2"}"#, r#"{"pods":"1","cpu":"1"}"#, "{}", Ok("cpu=1500m,pods=2"));
    check(r#"{"secrets":"5"}"#, r#"{"secrets":"5"}"#, "{}", Ok(""));
    check(
        r#"{"pods":"5","cpu":"1","memory":"1Gi"}"#,
        r#"{"pods":"5","cpu":"600m","memory":"0"}"#,
        "{}",
        Err("exceeded quota: q, requested: cpu=500m,pods=1, used: cpu=600m,pods=5, limited: cpu=1,pods=5"),
    );
    check(
        r#"{"requests.x.y/z":"3"}"#,
        r#"{"requests.x.y/z":"2"}"#,
        "{}",
        Err("exceeded quota: q, requested: requests.x.y/z=2, used: requests.x.y/z=2, limited: requests.x.y/z=3"),
    );
    check(
        r#"{"limits.memory":"3"}"#,
        r#"{"limits.memory":"0"}"#,
        "{}",
        Err("failed quota: q: must specify limits.memory for: a"),
    );
    check(r#"{"pods":"3"}"#, "{}", "{}", Err("status unknown for quota: q, resources: pods"));
    check(r#"{"pods":"0"}"#, r#"{"pods":"0"}"#, r#"{"scopes":["BestEffort"]}"#, Ok(""));
    check(r#"{"pods":"3"}"#, r#"{"pods":"0"}"#, r#"{"scopes":["NotBestEffort","NotTerminating"]}"#, Ok("pods=1"));
    let class =
        r#"{"scopeSelector":{"matchExpressions":[{"scopeName":"PriorityClass","operator":"In","values":["high"]}]}}"#;
    check(r#"{"pods":"0"}"#, r#"{"pods":"0"}"#, class, Ok(""));
}

#[test]
fn updates_are_charged_by_the_difference() {
    let service = |kind: &str| value(&format!(r#"{{"spec":{{"type":"{kind}","ports":[{{"port":1}}]}}}}"#));
    let (plain, node) = (service("ClusterIP"), service("NodePort"));
    let quotas =
        [quota(r#"{"services":"1","services.nodeports":"1"}"#, r#"{"services":"1","services.nodeports":"0"}"#, "{}")];
    let charges = check(&quotas, &request("services", &node, Some(&plain))).unwrap();
    assert_eq!(charges[0].1.to_string(), "services=1,services.nodeports=1");
    assert_eq!(check(&quotas, &request("services", &plain, Some(&node))).unwrap(), []);
}
