//! Quotas are charged with what is written, and limit ranges are kept.

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fixture::Fixture;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A quota as its controller leaves it when nothing is used.
async fn put_quota(fixture: &Fixture, name: &str, hard: Value) {
    let mut quota =
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": hard}});
    assert_eq!(fixture.send("POST", QUOTAS, &quota.to_string()).await.code, 201);
    let used: serde_json::Map<_, _> = hard.as_object().unwrap().keys().map(|key| (key.clone(), json!("0"))).collect();
    quota["status"] = json!({"hard": hard, "used": used});
    let reply = fixture.send("PUT", &format!("{QUOTAS}/{name}/status"), &quota.to_string()).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
}

async fn used(fixture: &Fixture, name: &str) -> Value {
    let reply = fixture.send("GET", &format!("{QUOTAS}/{name}"), "").await;
    serde_json::from_str::<Value>(&reply.text).unwrap()["status"]["used"].clone()
}

#[tokio::test]
async fn a_quota_is_never_exceeded() {
    let fixture = Fixture::start().await;
    put_quota(&fixture, "q", json!({"count/configmaps": "10"})).await;
    let create = async |n: usize| {
        let body = json!({"metadata": {"name": format!("m{n}")}}).to_string();
        fixture.send("POST", MAPS, &body).await
    };
    let replies = join_all((0..40).map(create)).await;
    let made = replies.iter().filter(|reply| reply.code == 201).count();
    assert_eq!((made, used(&fixture, "q").await), (10, json!({"count/configmaps": "10"})));
    let refused = replies.iter().find(|reply| reply.code == 403).unwrap();
    let why =
        "exceeded quota: q, requested: count/configmaps=1, used: count/configmaps=10, limited: count/configmaps=10";
    assert!(refused.text.contains(why), "{}", refused.text);
    // What isn't written is not charged.
    put_quota(&fixture, "r", json!({"secrets": "5"})).await;
    let secret = json!({"metadata": {"name": "s"}}).to_string();
    let secrets = "/api/v1/namespaces/default/secrets";
    assert_eq!(fixture.send("POST", &format!("{secrets}?dryRun=All"), &secret).await.code, 201);
    for code in [201, 409] {
        assert_eq!(fixture.send("POST", secrets, &secret).await.code, code);
    }
    assert_eq!(used(&fixture, "r").await, json!({"secrets": "1"}));
}

#[tokio::test]
async fn several_quotas_are_charged() {
    let fixture = Fixture::start().await;
    put_quota(&fixture, "a", json!({"configmaps": "3"})).await;
    put_quota(&fixture, "b", json!({"count/configmaps": "2"})).await;
    let mut codes = Vec::new();
    for n in 0..3 {
        let body = json!({"metadata": {"name": format!("m{n}")}}).to_string();
        codes.push(fixture.send("POST", MAPS, &body).await.code);
    }
    assert_eq!(codes, [201, 201, 403]);
    assert_eq!(used(&fixture, "a").await, json!({"configmaps": "2"}));
    assert_eq!(used(&fixture, "b").await, json!({"count/configmaps": "2"}));
    // A quota that limits quotas.
    put_quota(&fixture, "c", json!({"resourcequotas": "1"})).await;
    let quota = |name: &str| json!({"metadata": {"name": name}, "spec": {"hard": {"pods": "1"}}}).to_string();
    assert_eq!(fixture.send("POST", QUOTAS, &quota("d")).await.code, 201);
    assert_eq!(fixture.send("POST", QUOTAS, &quota("e")).await.code, 403);
}

#[tokio::test]
async fn an_update_is_charged_the_difference() {
    let fixture = Fixture::start().await;
    put_quota(&fixture, "q", json!({"services": "1", "services.nodeports": "1"})).await;
    let service = |kind: &str, ports: &[u16]| {
        let ports: Vec<Value> = ports.iter().map(|port| json!({"name": format!("p{port}"), "port": port})).collect();
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"type": kind, "ports": ports}}).to_string()
    };
    assert_eq!(fixture.send("POST", SERVICES, &service("ClusterIP", &[80, 81])).await.code, 201);
    let at = format!("{SERVICES}/s");
    let reply = fixture.send("PUT", &at, &service("NodePort", &[80, 81])).await;
    assert_eq!(reply.code, 403, "{}", reply.text);
    assert!(reply.text.contains("exceeded quota: q, requested: services.nodeports=2"), "{}", reply.text);
    let reply = fixture.send("PUT", &at, &service("NodePort", &[80])).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(used(&fixture, "q").await, json!({"services": "1", "services.nodeports": "1"}));
}

#[tokio::test]
async fn limit_ranges_are_kept() {
    let fixture = Fixture::start().await;
    fixture.account("default").await;
    let range = json!({"metadata": {"name": "r"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "300m"}, "defaultRequest": {"cpu": "100m", "memory": "1Mi"}, "min": {"cpu": "50m"},
            "max": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "4"}},
        {"type": "Pod", "max": {"cpu": "600m"}},
        {"type": "PersistentVolumeClaim", "max": {"storage": "2Gi"}}]}});
    let reply = fixture.send("POST", "/api/v1/namespaces/default/limitranges", &range.to_string()).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let create = async |containers: Value| {
        let pod = json!({"metadata": {"generateName": "p-"}, "spec": {"containers": containers}});
        fixture.send("POST", "/api/v1/namespaces/default/pods", &pod.to_string()).await
    };
    let container = |name: &str, resources: Value| json!({"name": name, "image": "i", "resources": resources});
    let reply = create(json!([container("a", json!({}))])).await;
    let pod: Value = serde_json::from_str(&reply.text).unwrap();
    let resources = json!({"limits": {"cpu": "300m"}, "requests": {"cpu": "100m", "memory": "1Mi"}});
    assert_eq!(pod["spec"]["containers"][0]["resources"], resources, "{}", reply.text);
    let note = "LimitRanger plugin set: cpu, memory request for container a; cpu limit for container a";
    assert_eq!(pod["metadata"]["annotations"]["kubernetes.io/limit-ranger"], note);
    let cpu = |request: &str, limit: &str| json!({"requests": {"cpu": request}, "limits": {"cpu": limit}});
    let cases = [
        (json!([container("a", cpu("10m", "20m"))]), "minimum cpu usage per Container is 50m, but request is 10m"),
        (json!([container("a", cpu("400m", "1"))]), "maximum cpu usage per Container is 500m, but limit is 1"),
        (
            json!([container("a", cpu("50m", "500m"))]),
            "cpu max limit to request ratio per Container is 4, but provided ratio is 10.000000",
        ),
        (
            json!([container("a", cpu("200m", "400m")), container("b", cpu("200m", "400m"))]),
            "maximum cpu usage per Pod is 600m, but limit is 800m",
        ),
    ];
    for (containers, why) in cases {
        let reply = create(containers).await;
        assert!(reply.code == 403 && reply.text.contains(why), "{}", reply.text);
    }
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "3Gi"}}}});
    let reply = fixture.send("POST", "/api/v1/namespaces/default/persistentvolumeclaims", &claim.to_string()).await;
    assert!(
        reply.text.contains("maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        "{}",
        reply.text
    );
}
