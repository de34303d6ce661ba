//! Our own client over both transports: it sees the same.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::resources::{CONFIG_MAPS, LEASES, NODES, PODS, SECRETS, SERVICE_ACCOUNTS};
use client::{Client, Informers, PatchKind, Selection, Tls, TlsConfig, discover};
use pki::CertificateSpec;

use crate::fixture::Fixture;

pub fn over_tls(fixture: &Fixture) -> Client {
    let admin =
        fixture.pki.certificate("admin", &CertificateSpec::client("kubernetes-admin", "system:masters")).unwrap();
    let config = TlsConfig {
        server: format!("https://{}", fixture.address),
        ca: fixture.pki.ca().certificate_pem().into(),
        identity: Some((admin.certificate_pem().into(), admin.key_pem().into())),
        ..TlsConfig::default()
    };
    Client::new(fixture.env.clone(), Arc::new(Tls::new(fixture.env.clone(), &config).unwrap()), "test")
}

fn in_process(fixture: &Fixture) -> Client {
    Client::new(fixture.env.clone(), Arc::new(fixture.admin.clone()), "test")
}

fn map(name: &str) -> Value {
    let json =
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"{name}","namespace":"default"}}}}"#);
    Value::parse(json.as_bytes()).unwrap()
}

#[tokio::test]
async fn both_transports_see_the_same() {
    let fixture = Fixture::start().await;
    for client in [in_process(&fixture), over_tls(&fixture)] {
        let created = client.create(&CONFIG_MAPS, &map("a")).await.unwrap();
        let key = ObjectKey::new("default", "a");
        let read = client.get(&CONFIG_MAPS, &key).await.unwrap();
        assert_eq!((read.to_json(), read.revision()), (created.to_json(), created.revision()));
        let mut value = read.to_value();
        value.set(&["data", "k"], "v");
        let updated = client.update(&CONFIG_MAPS, &value).await.unwrap();
        assert!(client.update(&CONFIG_MAPS, &value).await.unwrap_err().is_conflict());
        assert!(updated.revision() > read.revision());
        assert!(client.create(&CONFIG_MAPS, &map("a")).await.unwrap_err().is_already_exists());
        client.delete(&CONFIG_MAPS, &key, &Default::default()).await.unwrap();
        assert!(client.get(&CONFIG_MAPS, &key).await.unwrap_err().is_not_found());
        let (resources, failed) = discover(&client).await.unwrap();
        assert!(failed.is_empty());
        assert_eq!(resources.iter().filter(|resource| resource.kind == "Deployment").count(), 1);
    }
}

#[tokio::test]
async fn informers_follow_many_writers() {
    const WRITES: usize = 100;
    let fixture = Fixture::start().await;
    let (local, tls) = (in_process(&fixture), over_tls(&fixture));
    local.create(&CONFIG_MAPS, &map("before")).await.unwrap();
    let informers = [Informers::new(local.clone()), Informers::new(tls.clone())];
    let followed: Vec<_> = informers
        .iter()
        .flat_map(|informers| [informers.of(&CONFIG_MAPS), informers.selected(&CONFIG_MAPS, Selection::default())])
        .collect();
    for informer in &followed {
        informer.synced().await;
        assert!(informer.get(&ObjectKey::new("default", "before")).is_some());
    }
    let writes = (0..WRITES).map(|n| {
        let client = if n % 2 == 0 { &local } else { &tls };
        async move { client.create(&CONFIG_MAPS, &map(&format!("m{n}"))).await.unwrap().revision() }
    });
    let revisions = futures_util::future::join_all(writes).await;
    let newest = *revisions.iter().max().unwrap();
    for informer in &followed {
        let followed = tokio::time::timeout(Duration::from_secs(60), informer.wait_for(newest)).await;
        followed.expect("the informer follows");
        let ours = informer.list("default").iter().filter(|object| object.name().starts_with('m')).count();
        assert_eq!(ours, WRITES);
    }
}

#[tokio::test]
async fn a_pod_is_bound_and_evicted() {
    let fixture = Fixture::start().await;
    let client = in_process(&fixture);
    let pod = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},"spec":{"containers":[{"name":"c","image":"i"}]}}"#;
    let created = client.create(&PODS, &Value::parse(pod).unwrap()).await.unwrap();
    assert!(client.bind(created.key(), "other", "n1").await.unwrap_err().is_conflict());
    client.bind(created.key(), created.uid(), "n1").await.unwrap();
    let bound = client.get(&PODS, created.key()).await.unwrap();
    assert_eq!(bound.to_value().str_at(&["spec", "nodeName"]), Some("n1"));
    client.evict(created.key(), &Default::default()).await.unwrap();
    assert!(client.get(&PODS, created.key()).await.unwrap().is_deleting());
}

#[tokio::test]
async fn a_kubelet_may_do_its_work_and_no_other() {
    let fixture = Fixture::start().await;
    let admin = in_process(&fixture);
    let node = Client::new(fixture.env.clone(), Arc::new(fixture.node.clone()), "kubelet");
    let value = |json: &str| Value::parse(json.as_bytes()).unwrap();
    let in_default = |name: &str| ObjectKey::new("default", name);

    node.create(&NODES, &value(r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n1"}}"#)).await.unwrap();
    let other = value(r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"n2"}}"#);
    assert!(node.create(&NODES, &other).await.is_err(), "another node's object");
    let ready = value(r#"{"status":{"conditions":[{"type":"Ready","status":"True"}]}}"#);
    node.patch_status(&NODES, &ObjectKey::cluster("n1"), PatchKind::Strategic, &ready).await.unwrap();
    let lease = r#"{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{"name":"n1","namespace":"kube-node-lease"},
        "spec":{"holderIdentity":"n1","leaseDurationSeconds":40}}"#;
    node.create(&LEASES, &value(lease)).await.unwrap();

    for name in ["used", "unused"] {
        let secret =
            format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"{name}","namespace":"default"}}}}"#);
        admin.create(&SECRETS, &value(&secret)).await.unwrap();
    }
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"default"},"spec":{
        "containers":[{"name":"c","image":"i"}],"volumes":[{"name":"v","secret":{"secretName":"used"}}]}}"#;
    let pod = admin.create(&PODS, &value(pod)).await.unwrap();
    assert!(node.get(&SECRETS, &in_default("used")).await.unwrap_err().is_forbidden(), "not before the pod is here");
    admin.bind(pod.key(), pod.uid(), "n1").await.unwrap();
    node.get(&SECRETS, &in_default("used")).await.unwrap();
    assert!(node.get(&SECRETS, &in_default("unused")).await.unwrap_err().is_forbidden());

    let informers = Informers::new(node.clone());
    let mine = informers.selected(&PODS, Selection::all().fields("spec.nodeName=n1"));
    mine.synced().await;
    assert_eq!(mine.list("").len(), 1);
    let running = value(r#"{"status":{"phase":"Running"}}"#);
    node.patch_status(&PODS, pod.key(), PatchKind::Strategic, &running).await.unwrap();
    mine.until(|pods| pods.list("").iter().any(|pod| pod.to_value().str_at(&["status", "phase"]) == Some("Running")))
        .await;
    let token = format!(
        r#"{{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{{"boundObjectRef":{{"apiVersion":"v1","kind":"Pod","name":"p","uid":"{}"}}}}}}"#,
        pod.uid()
    );
    let issued =
        node.create_subresource(&SERVICE_ACCOUNTS, &in_default("default"), "token", &value(&token)).await.unwrap();
    assert!(issued.object().unwrap().to_value().str_at(&["status", "token"]).is_some());
    let unbound = value(r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}"#);
    assert!(node.create_subresource(&SERVICE_ACCOUNTS, &in_default("default"), "token", &unbound).await.is_err());
    let now = client::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    node.delete(&PODS, pod.key(), &now).await.unwrap();
    mine.until(|pods| pods.list("").is_empty()).await;
    assert!(node.get(&SECRETS, &in_default("used")).await.unwrap_err().is_forbidden(), "not after the pod is gone");
}
