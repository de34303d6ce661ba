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

/// Of two nodes one has two pods, the other a younger one: nodes are compared only among sets that somebody controls.
#[tokio::test(start_paused = true)]
async fn a_set_of_its_own_does_not_look_at_nodes() {
    for (owners, expect) in [
        ("", "young"),
        (
            r#","ownerReferences":[{"apiVersion":"apps/v1","kind":"Deployment","name":"d","uid":"d","controller":true}]"#,
            "old-2",
        ),
    ] {
        let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
        let cluster = Cluster::start_some(server, &["replicaset-controller"]);
        for (name, node, since) in [
            ("old-1", "n1", "2025-12-01T00:00:00Z"),
            ("old-2", "n1", "2025-12-31T00:00:00Z"),
            ("young", "n2", "2025-12-31T23:59:00Z"),
        ] {
            let mut pod = Value::parse(pod(name, r#"{"app":"a"}"#).as_bytes()).unwrap();
            pod.set(&["spec", "nodeName"], node);
            pod.set(&["status", "phase"], "Running");
            let ready = format!(r#"[{{"type":"Ready","status":"True","lastTransitionTime":"{since}"}}]"#);
            pod.set(&["status", "conditions"], Value::parse(ready.as_bytes()).unwrap());
            cluster.server.put_value(&resources::PODS, pod);
        }
        let set = replica_set(2).replace(r#""generation":1"#, &format!(r#""generation":1{owners}"#));
        cluster.put(&resources::REPLICA_SETS, &set);
        eventually("one is told to go", || !cluster.events("SuccessfulDelete").is_empty()).await;
        assert_eq!(cluster.events("SuccessfulDelete"), [format!("Deleted pod: {expect}")]);
    }
}

/// Somebody deletes a set and leaves its pods, and the set's informer lags behind the pods'.
#[tokio::test(start_paused = true)]
async fn a_set_that_was_just_deleted_makes_no_pods_for_those_it_lost() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_some(server, &["replicaset-controller"]);
    let _kubelet = Kubelet::start(&cluster.server);
    cluster.put(&resources::REPLICA_SETS, &replica_set(2));
    eventually("they are ready", || status(&cluster, "readyReplicas") == 2).await;
    cluster.settles().await;
    cluster.server.forget_requests();
    cluster.server.hold_watches(&resources::REPLICA_SETS, true);
    cluster.server.edit(&resources::REPLICA_SETS, &key("rs"), |set| {
        set.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z");
        set.set(&["metadata", "finalizers"], vec!["orphan"]);
    });
    for pod in cluster.server.list(&resources::PODS) {
        cluster.server.edit(&resources::PODS, pod.key(), |pod| drop(pod.remove(&["metadata", "ownerReferences"])));
    }
    sleep(60).await;
    cluster.server.hold_watches(&resources::REPLICA_SETS, false);
    cluster.settles().await;
    let of_pods: Vec<String> = cluster.server.writes().into_iter().filter(|write| write.contains("/pods")).collect();
    assert_eq!(of_pods, Vec::<String>::new());
    assert!(cluster.server.list(&resources::PODS).iter().all(|pod| pod.controller().is_none()));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_deleted_is_told() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    cluster.put(&resources::REPLICA_SETS, &replica_set(2));
    eventually("they are ready", || status(&cluster, "readyReplicas") == 2).await;
    cluster.server.react(|request| {
        if request.method != http::Method::DELETE || !request.target.contains("/pods/") {
            return None;
        }
        let pods = apimachinery::GroupResource::new("", "pods");
        Some(Reaction::Refuse(apimachinery::Status::forbidden(&pods, "rs-x", "not today")))
    });
    cluster.server.edit(&resources::REPLICA_SETS, &key("rs"), |set| set.set(&["spec", "replicas"], 1));
    let told = || {
        let set = cluster.value(&resources::REPLICA_SETS, "rs");
        let condition = set.items_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        ["type", "reason", "message"].map(|field| condition.str_at(&[field]).unwrap_or_default().to_owned())
    };
    let why = r#"unable to delete pods: pods "rs-x" is forbidden: not today"#;
    eventually("it is told", || told() == ["ReplicaFailure", "FailedDelete", why]).await;
}
