use client::fake::Reaction;

use super::*;

fn replica_set(replicas: i64) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{{"name":"rs","namespace":"ns","generation":1}},"spec":{{"replicas":{replicas},
        "minReadySeconds":5,"selector":{{"matchLabels":{{"app":"a"}}}},"template":{{"metadata":{{"labels":{{"app":"a","x":"y"}},"annotations":{{"k":"v"}}}},
        "spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

fn pod(name: &str, labels: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","labels":{labels}}},"spec":{{"containers":[]}}}}"#
    )
}

fn status(cluster: &Cluster, field: &str) -> i64 {
    cluster.value(&resources::REPLICA_SETS, "rs").i64_at(&["status", field]).unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn pods_are_made_and_counted() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::REPLICA_SETS, &replica_set(5));
    eventually("they are ready", || status(&cluster, "readyReplicas") == 5).await;
    assert_eq!(status(&cluster, "availableReplicas"), 0, "not for five seconds");
    sleep(6).await;
    assert_eq!(status(&cluster, "availableReplicas"), 5);
    assert_eq!((status(&cluster, "fullyLabeledReplicas"), status(&cluster, "observedGeneration")), (5, 1));
    let pods = cluster.server.list(&resources::PODS);
    assert_eq!(pods.len(), 5, "and no one too many meanwhile");
    assert!(pods.iter().all(|pod| pod.name().starts_with("rs-") && pod.controller().unwrap().block_owner_deletion));
    assert_eq!(pods[0].to_value().str_at(&["metadata", "annotations", "k"]), Some("v"));
    eventually("it is told", || !cluster.events("SuccessfulCreate").is_empty()).await;

    // One that ends is replaced; one that is deleted too.
    cluster.server.edit(&resources::PODS, pods[0].key(), |pod| pod.set(&["status", "phase"], "Failed"));
    cluster.server.remove(&resources::PODS, pods[1].key());
    eventually("they are replaced", || cluster.server.list(&resources::PODS).len() == 6).await;
    cluster.settles().await;
    assert_eq!(status(&cluster, "replicas"), 5);
    let creations = cluster.server.writes().iter().filter(|write| *write == "POST /api/v1/namespaces/ns/pods").count();
    assert_eq!(creations, 7);

    cluster.server.edit(&resources::REPLICA_SETS, &key("rs"), |set| set.set(&["spec", "replicas"], 2));
    eventually("the rest goes", || status(&cluster, "replicas") == 2).await;
}

#[tokio::test(start_paused = true)]
async fn pods_are_adopted_and_released() {
    let cluster = Cluster::start();
    cluster.put(&resources::PODS, &pod("mine", r#"{"app":"a"}"#));
    cluster.put(&resources::PODS, &pod("other", r#"{"app":"b"}"#));
    cluster.put(&resources::REPLICA_SETS, &replica_set(2));
    eventually("one is adopted, one made", || cluster.owned(&resources::PODS, "rs").len() == 2).await;
    assert!(cluster.server.get(&resources::PODS, &key("mine")).unwrap().controller().is_some());
    assert!(cluster.server.get(&resources::PODS, &key("other")).unwrap().controller().is_none());
    // A pod whose labels no longer match goes its own way, and is replaced.
    cluster.server.edit(&resources::PODS, &key("mine"), |pod| pod.set(&["metadata", "labels", "app"], "c"));
    eventually("it is released", || {
        cluster.server.get(&resources::PODS, &key("mine")).unwrap().controller().is_none()
            && cluster.owned(&resources::PODS, "rs").len() == 2
    })
    .await;
    // And comes back as one too many.
    cluster.server.edit(&resources::PODS, &key("mine"), |pod| pod.set(&["metadata", "labels", "app"], "a"));
    eventually("three are two", || cluster.server.list(&resources::PODS).len() == 3).await;
}

#[tokio::test(start_paused = true)]
async fn replication_controllers_do_the_same() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::PODS, &pod("mine", r#"{"app":"a","more":"b"}"#));
    cluster.put(&resources::PODS, &pod("other", r#"{"app":"b"}"#));
    cluster.put(
        &resources::REPLICATION_CONTROLLERS,
        r#"{"apiVersion":"v1","kind":"ReplicationController","metadata":{"name":"rc","namespace":"ns","generation":1},"spec":{"replicas":3,
        "selector":{"app":"a"},"template":{"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#,
    );
    let status = |field: &str| {
        cluster.value(&resources::REPLICATION_CONTROLLERS, "rc").i64_at(&["status", field]).unwrap_or_default()
    };
    eventually("one is adopted, two made", || status("readyReplicas") == 3).await;
    assert_eq!((status("replicas"), status("observedGeneration")), (3, 1));
    assert_eq!(cluster.owned(&resources::PODS, "rc").len(), 3);
    let adopted = cluster.server.get(&resources::PODS, &key("mine")).unwrap();
    assert_eq!(adopted.controller().map(|owner| owner.kind.as_str()), Some("ReplicationController"));
    // A pod that it no longer selects goes its own way.
    cluster.server.edit(&resources::PODS, &key("mine"), |pod| pod.set(&["metadata", "labels", "app"], "c"));
    eventually("it is released and replaced", || {
        cluster.server.get(&resources::PODS, &key("mine")).unwrap().controller().is_none()
            && cluster.owned(&resources::PODS, "rc").len() == 3
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_made_is_told() {
    let cluster = Cluster::start();
    let mut refusals = 3;
    cluster.server.react(move |request| {
        if request.method != http::Method::POST || !request.target.contains("/pods") || refusals == 0 {
            return None;
        }
        refusals -= 1;
        let pods = apimachinery::GroupResource::new("", "pods");
        Some(Reaction::Refuse(apimachinery::Status::forbidden(&pods, "rs-x", "exceeded quota")))
    });
    cluster.put(&resources::REPLICA_SETS, &replica_set(4));
    let conditions =
        |cluster: &Cluster| cluster.value(&resources::REPLICA_SETS, "rs").items_at(&["status", "conditions"]).to_vec();
    eventually("the failure is told", || !conditions(&cluster).is_empty()).await;
    let failure = &conditions(&cluster)[0];
    assert_eq!(
        (failure.str_at(&["type"]), failure.str_at(&["reason"])),
        (Some("ReplicaFailure"), Some("FailedCreate"))
    );
    assert_eq!(failure.str_at(&["message"]), Some("pods \"rs-x\" is forbidden: exceeded quota"));
    eventually("it is overcome", || status(&cluster, "replicas") == 4 && conditions(&cluster).is_empty()).await;
    let told = cluster.events("FailedCreate");
    assert_eq!(told, ["Error creating: pods \"rs-x\" is forbidden: exceeded quota"]);
}
