use client::DeleteOptions;

use super::*;

fn namespace(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Namespace","metadata":{{"name":"{name}"}},"spec":{{"finalizers":["kubernetes"]}},"status":{{"phase":"Active"}}}}"#
    )
}

/// A pod that takes half a minute to end.
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"ns"},"status":{"phase":"Running"},
    "spec":{"nodeName":"n1","terminationGracePeriodSeconds":30,"containers":[]}}"#;

#[tokio::test(start_paused = true)]
async fn a_namespace_gets_its_account_and_certificate() {
    let cluster = Cluster::start();
    cluster.put(&resources::NAMESPACES, &namespace("ns"));
    let account = || cluster.server.get(&resources::SERVICE_ACCOUNTS, &key("default"));
    let bundle =
        || cluster.value(&resources::CONFIG_MAPS, "kube-root-ca.crt").str_at(&["data", "ca.crt"]).map(str::to_owned);
    eventually("both are there", || account().is_some() && bundle().as_deref() == Some("CA")).await;
    cluster.server.remove(&resources::SERVICE_ACCOUNTS, &key("default"));
    cluster.server.edit(&resources::CONFIG_MAPS, &key("kube-root-ca.crt"), |map| {
        map.set(&["data", "ca.crt"], "forged");
        map.set(&["data", "more"], "x");
    });
    eventually("both are restored", || account().is_some() && bundle().as_deref() == Some("CA")).await;
    assert_eq!(cluster.value(&resources::CONFIG_MAPS, "kube-root-ca.crt").at(&["data", "more"]), None);
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_namespace_is_emptied_first() {
    let cluster = Cluster::start();
    for name in ["ns", "other"] {
        cluster.put(&resources::NAMESPACES, &namespace(name));
    }
    let secret = |ns: &str, more: &str| {
        format!(r#"{{"apiVersion":"v1","kind":"Secret","metadata":{{"name":"s","namespace":"{ns}"{more}}}}}"#)
    };
    cluster.put(&resources::SECRETS, &secret("ns", r#","finalizers":["example.com/hold"]"#));
    cluster.put(&resources::SECRETS, &secret("other", ""));
    cluster.put(&resources::PODS, POD);
    sleep(1).await;
    let client = cluster.server.client();
    client.delete(&resources::NAMESPACES, &ObjectKey::cluster("ns"), &DeleteOptions::default()).await.unwrap();
    let reason = |r#type: &str| {
        let namespace = cluster.value(&resources::NAMESPACES, "ns");
        let conditions = namespace.items_at(&["status", "conditions"]).to_vec();
        let found = conditions.into_iter().find(|condition| condition.str_at(&["type"]) == Some(r#type));
        found.map(|c| format!("{}: {}", c.str_at(&["reason"]).unwrap(), c.str_at(&["message"]).unwrap()))
    };
    eventually("the pod is told to end, and to be waited for", || {
        reason("NamespaceContentRemaining").as_deref()
            == Some("SomeResourcesRemain: Some resources are remaining: pods. has 1 resource instances")
    })
    .await;
    assert_eq!(cluster.value(&resources::NAMESPACES, "ns").str_at(&["status", "phase"]), Some("Terminating"));
    assert!(!cluster.server.get(&resources::SECRETS, &key("s")).unwrap().is_deleting(), "pods go first");
    cluster.server.remove(&resources::PODS, &key("p"));
    let before = client.env().monotonic();
    eventually("the secret waits for its finalizer", || {
        reason("NamespaceFinalizersRemaining").as_deref()
            == Some("SomeFinalizersRemain: Some content in the namespace has finalizers remaining: example.com/hold in 1 resource instances")
    })
    .await;
    assert!((client.env().monotonic() - before).as_secs() < 2, "the pod's end is noticed");
    let held = cluster.server.get(&resources::SECRETS, &key("s")).unwrap();
    let mut value = held.to_value();
    value.remove(&["metadata", "finalizers"]);
    client.update(&resources::SECRETS, &value).await.unwrap();
    eventually("the namespace is gone", || {
        cluster.server.get(&resources::NAMESPACES, &ObjectKey::cluster("ns")).is_none()
    })
    .await;
    assert!(cluster.server.get(&resources::CONFIG_MAPS, &key("kube-root-ca.crt")).is_none());
    assert!(cluster.server.get(&resources::SECRETS, &ObjectKey::new("other", "s")).is_some());
}

#[tokio::test(start_paused = true)]
async fn pods_that_do_not_end_in_time_are_told() {
    let cluster = Cluster::start();
    cluster.put(&resources::NAMESPACES, &namespace("ns"));
    cluster.put(&resources::NODES, &node("n1"));
    let _alive = cluster.heartbeat(&["n1"]);
    cluster.put(&resources::PODS, POD);
    sleep(1).await;
    let client = cluster.server.client();
    client.delete(&resources::NAMESPACES, &ObjectKey::cluster("ns"), &DeleteOptions::default()).await.unwrap();
    let failure = || {
        let namespace = cluster.value(&resources::NAMESPACES, "ns");
        let conditions = namespace.items_at(&["status", "conditions"]).to_vec();
        let found = conditions.into_iter().find(|c| c.str_at(&["type"]) == Some("NamespaceDeletionContentFailure"));
        found.map(|c| format!("{}: {}", c.str_at(&["reason"]).unwrap(), c.str_at(&["message"]).unwrap()))
    };
    sleep(20).await;
    let well = "ContentDeleted: All content successfully deleted, may be waiting on finalization";
    assert_eq!(failure().as_deref(), Some(well));
    let expect = "ContentDeletionFailed: Failed to delete all resource types, 1 remaining: failed to delete pods for namespace: ns, \
                  err: unexpected items still remain in namespace: ns for gvr: /v1, Resource=pods";
    eventually("it is told", || failure().as_deref() == Some(expect)).await;
    cluster.server.remove(&resources::PODS, &key("p"));
    eventually("the namespace is gone", || {
        cluster.server.get(&resources::NAMESPACES, &ObjectKey::cluster("ns")).is_none()
    })
    .await;
}
