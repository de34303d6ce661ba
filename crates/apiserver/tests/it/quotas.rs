//! Quotas are charged with what is written, and limit ranges are kept.

use futures_util::future::join_all;
use serde_json::{Value, json};
use store::{WatchQuery, WatchStream};

use crate::fixture::Fixture;

const QUOTAS: &str = "/api/v1/namespaces/default/resourcequotas";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn put_quota(fixture: &Fixture, name: &str, hard: Value) {
    put_scoped_quota(fixture, name, hard, json!([])).await;
}

/// A quota as its controller leaves it when nothing is used.
async fn put_scoped_quota(fixture: &Fixture, name: &str, hard: Value, scopes: Value) {
    let spec = json!({"hard": hard, "scopes": scopes});
    let mut quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": spec});
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
    // One transaction, of which each quota has a revision of its own and the object the last.
    let revision = async |target: String| {
        let object = fixture.ok("GET", &target, "").await;
        object["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap()
    };
    let (a, b) = (revision(format!("{QUOTAS}/a")).await, revision(format!("{QUOTAS}/b")).await);
    assert_eq!((a + 1, b), (b, revision(format!("{MAPS}/m1")).await));
    // A quota that limits quotas.
    put_quota(&fixture, "c", json!({"resourcequotas": "2"})).await;
    let quota = |name: &str| json!({"metadata": {"name": name}, "spec": {"hard": {"pods": "1"}}}).to_string();
    for (name, code) in [("d", 201), ("c", 409), ("e", 201), ("f", 403)] {
        assert_eq!(fixture.send("POST", QUOTAS, &quota(name)).await.code, code, "{name}");
    }
    assert_eq!(used(&fixture, "c").await, json!({"resourcequotas": "2"}));
}

/// A creation that everybody tries at once.
async fn race(fixture: &Fixture, resource: &client::Resource, object: Value, quotas: &[(&str, &str)]) {
    let client = crate::clients::over_tls(fixture);
    let create = async |n: usize| {
        let mut object = object.clone();
        object["metadata"] = json!({"name": format!("m{n}"), "namespace": "default"});
        client.create(resource, &apimachinery::Value::parse(object.to_string().as_bytes()).unwrap()).await
    };
    let answers = join_all((0..50).map(create)).await;
    let (made, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), refused.len()), (17, 33), "{object}");
    assert!(
        refused.iter().all(|answer| answer.as_ref().is_err_and(|error| error.to_string().contains("exceeded quota: ")))
    );
    for (name, limited) in quotas {
        assert_eq!(used(fixture, name).await[limited], "17", "{name}");
    }
}

/// The keys that were written up to a revision. A server that is just up may still write something of its own.
async fn written(mut writes: WatchStream, last: u64) -> Vec<String> {
    let mut keys = Vec::new();
    let mut through = 0;
    while through < last {
        let batch = writes.next().await.unwrap();
        through = batch.through;
        keys.extend(batch.events.iter().map(|event| String::from_utf8_lossy(&event.key).into_owned()));
    }
    keys
}

#[tokio::test(flavor = "multi_thread")]
async fn a_race_for_several_quotas() {
    let fixture = Fixture::start().await;
    put_quota(&fixture, "a", json!({"count/configmaps": "17", "count/widgets.example.com": "18"})).await;
    put_quota(&fixture, "b", json!({"configmaps": "19"})).await;
    put_quota(&fixture, "c", json!({"count/configmaps": "18", "count/widgets.example.com": "17"})).await;
    let before = fixture.store.revision();
    let writes = fixture.store.watch(WatchQuery::default().after(before)).await.unwrap();
    // Who writes quotas meanwhile doesn't disturb.
    let touch = async {
        for n in 0..20 {
            let patch = json!({"metadata": {"annotations": {"n": n.to_string()}}}).to_string();
            fixture.ok("PATCH", &format!("{QUOTAS}/b"), &patch).await;
        }
    };
    let maps = client::resources::CONFIG_MAPS;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    tokio::join!(
        race(&fixture, &maps, map, &[("a", "count/configmaps"), ("b", "configmaps"), ("c", "count/configmaps")]),
        touch
    );
    // What is refused doesn't write, nor does who tries again.
    let written = written(writes, fixture.store.revision()).await;
    let count = |prefix: &str| written.iter().filter(|key| key.starts_with(prefix)).count();
    assert_eq!((count("/registry/resourcequotas/"), count("/registry/configmaps/default/")), (17 * 3 + 20, 17));
    crate::crds::define(&fixture, &crate::crds::widgets()).await;
    let widgets = client::Resource::namespaced("example.com", "v1", "widgets");
    let widget = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"size": 1}});
    race(&fixture, &widgets, widget, &[("a", "count/widgets.example.com"), ("c", "count/widgets.example.com")]).await;
}

#[tokio::test]
async fn scopes_say_which_are_charged() {
    let fixture = Fixture::start().await;
    put_scoped_quota(&fixture, "best", json!({"pods": "1"}), json!(["BestEffort"])).await;
    put_scoped_quota(&fixture, "other", json!({"pods": "5", "requests.cpu": "1"}), json!(["NotBestEffort"])).await;
    put_scoped_quota(&fixture, "ends", json!({"pods": "5"}), json!(["Terminating"])).await;
    put_quota(&fixture, "all", json!({"pods": "3"})).await;
    let pods = "/api/v1/namespaces/default/pods";
    let create = async |name: &str, deadline: Value, cpu: Option<&str>| {
        let resources = cpu.map_or(json!({}), |cpu| json!({"requests": {"cpu": cpu}}));
        let pod = json!({"metadata": {"name": name}, "spec": {"activeDeadlineSeconds": deadline,
            "containers": [{"name": "c", "image": "i", "resources": resources}]}});
        fixture.send("POST", pods, &pod.to_string()).await
    };
    let told = async || {
        let mut told = Vec::new();
        for name in ["best", "other", "ends", "all"] {
            told.push(used(&fixture, name).await);
        }
        json!(told).to_string()
    };
    assert_eq!(create("a", json!(null), None).await.code, 201);
    assert_eq!(told().await, r#"[{"pods":"1"},{"pods":"0","requests.cpu":"0"},{"pods":"0"},{"pods":"1"}]"#);
    let reply = create("b", json!(9), None).await;
    assert!(
        reply.code == 403
            && reply.text.contains("exceeded quota: best, requested: pods=1, used: pods=1, limited: pods=1")
    );
    assert_eq!(create("b", json!(9), Some("600m")).await.code, 201);
    let charged = r#"[{"pods":"1"},{"pods":"1","requests.cpu":"600m"},{"pods":"1"},{"pods":"2"}]"#;
    assert_eq!(told().await, charged);
    // What one quota refuses, none is charged for.
    assert_eq!(create("c", json!(9), Some("500m")).await.code, 403);
    assert_eq!(told().await, charged);
    let resize = async |cpu: &str| {
        let body =
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}}).to_string();
        let media = "application/strategic-merge-patch+json";
        fixture.send_as("PATCH", &format!("{pods}/b/resize"), media, body.as_bytes(), &[]).await
    };
    let reply = resize("1100m").await;
    assert!(reply.code == 403 && reply.text.contains("requested: requests.cpu=500m"), "{}", reply.text);
    let reply = resize("900m").await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(told().await, charged.replace("600m", "900m"));
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
    put_quota(&fixture, "r", json!({"services.loadbalancers": "0", "services.nodeports": "5"})).await;
    put_quota(&fixture, "s", json!({"services.loadbalancers": "1"})).await;
    let reply = fixture.send("PUT", &at, &service("LoadBalancer", &[80])).await;
    assert!(
        reply.code == 403 && reply.text.contains("exceeded quota: r, requested: services.loadbalancers=1"),
        "{}",
        reply.text
    );
    fixture.ok("DELETE", &format!("{QUOTAS}/r"), "").await;
    let reply = fixture.send("PUT", &at, &service("LoadBalancer", &[80])).await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(used(&fixture, "s").await, json!({"services.loadbalancers": "1"}));
}

#[tokio::test]
async fn a_claim_that_grows_is_charged() {
    let fixture = Fixture::start().await;
    let class = json!({"metadata": {"name": "gold"}, "provisioner": "x.y/z", "allowVolumeExpansion": true});
    fixture.ok("POST", "/apis/storage.k8s.io/v1/storageclasses", &class.to_string()).await;
    let of_class = "gold.storageclass.storage.k8s.io/requests.storage";
    put_quota(&fixture, "a", json!({"requests.storage": "5Gi", "persistentvolumeclaims": "1"})).await;
    put_quota(&fixture, "b", json!({of_class: "4Gi"})).await;
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = json!({"metadata": {"name": "c"}, "spec": {"storageClassName": "gold", "accessModes": ["ReadWriteOnce"],
        "volumeName": "v", "resources": {"requests": {"storage": "1Gi"}}}});
    let mut claim = fixture.ok("POST", claims, &claim.to_string()).await;
    claim["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
    fixture.ok("PUT", &format!("{claims}/c/status"), &claim.to_string()).await;
    let grow = async |size: &str| {
        let patch = json!({"spec": {"resources": {"requests": {"storage": size}}}}).to_string();
        fixture.send("PATCH", &format!("{claims}/c"), &patch).await
    };
    let reply = grow("5Gi").await;
    assert!(
        reply.code == 403 && reply.text.contains(&format!("exceeded quota: b, requested: {of_class}=4Gi")),
        "{}",
        reply.text
    );
    let reply = grow("3Gi").await;
    assert_eq!(reply.code, 200, "{}", reply.text);
    assert_eq!(used(&fixture, "a").await, json!({"requests.storage": "3Gi", "persistentvolumeclaims": "1"}));
    assert_eq!(used(&fixture, "b").await, json!({of_class: "3Gi"}));
}

#[tokio::test]
async fn devices_are_charged_by_class() {
    let fixture = Fixture::start().await;
    let of_class = "gpu.deviceclass.resource.k8s.io/devices";
    put_quota(&fixture, "q", json!({of_class: "3", "count/resourceclaims.resource.k8s.io": "9"})).await;
    let create = async |name: &str, count: u64| {
        let requests = json!([{"name": "r", "exactly": {"deviceClassName": "gpu", "count": count}}]);
        let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": requests}}});
        fixture.send("POST", "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims", &claim.to_string()).await
    };
    let reply = create("a", 2).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let reply = create("b", 2).await;
    let why = format!("exceeded quota: q, requested: {of_class}=2, used: {of_class}=2, limited: {of_class}=3");
    assert!(reply.code == 403 && reply.text.contains(&why), "{}", reply.text);
    assert_eq!(used(&fixture, "q").await, json!({of_class: "2", "count/resourceclaims.resource.k8s.io": "1"}));
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
