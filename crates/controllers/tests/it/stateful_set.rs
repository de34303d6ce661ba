use super::*;

pub(super) fn stateful_set(replicas: i64, more: &str, image: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"StatefulSet","metadata":{{"name":"db","namespace":"ns","generation":1}},
        "spec":{{"replicas":{replicas},"serviceName":"db","revisionHistoryLimit":2,"selector":{{"matchLabels":{{"app":"db"}}}},
        "updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{{"partition":0}}}}{more},
        "template":{{"metadata":{{"labels":{{"app":"db"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}}}}}"#
    )
}

const CLAIMS: &str =
    r#","volumeClaimTemplates":[{"metadata":{"name":"data"},"spec":{"accessModes":["ReadWriteOnce"]}}]"#;

impl Cluster {
    pub(super) fn edit_set(&self, resource: &Resource, name: &str, edit: impl FnOnce(&mut Value)) {
        self.server.edit(resource, &key(name), |value| {
            edit(value);
            let generation = value.i64_at(&["metadata", "generation"]).unwrap();
            value.set(&["metadata", "generation"], generation + 1);
        });
    }

    pub(super) fn set_image_of(&self, resource: &Resource, name: &str, image: &str) {
        self.edit_set(resource, name, |value| {
            let containers = format!(r#"[{{"name":"c","image":"{image}"}}]"#);
            value.set(&["spec", "template", "spec", "containers"], Value::parse(containers.as_bytes()).unwrap());
        });
    }

    /// The status's number; 0 where it is left out.
    pub(super) fn number(&self, resource: &Resource, name: &str, field: &str) -> i64 {
        self.value(resource, name).i64_at(&["status", field]).unwrap_or_default()
    }

    fn db(&self, field: &str) -> i64 {
        self.number(&resources::STATEFUL_SETS, "db", field)
    }

    fn db_complete(&self) -> bool {
        let value = self.value(&resources::STATEFUL_SETS, "db");
        let wanted = value.i64_at(&["spec", "replicas"]).unwrap_or_default();
        let revisions =
            ["currentRevision", "updateRevision"].map(|name| value.str_at(&["status", name]).map(str::to_owned));
        let counts = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        value.i64_at(&["status", "observedGeneration"]) == value.i64_at(&["metadata", "generation"])
            && counts.iter().all(|count| self.db(count) == wanted)
            && revisions[0].is_some()
            && revisions[0] == revisions[1]
    }

    /// Name and image of every pod.
    pub(super) fn pods(&self) -> Vec<(String, String)> {
        let image = |pod: &Object| {
            let value = pod.to_value();
            value.items_at(&["spec", "containers"])[0].str_at(&["image"]).unwrap_or_default().to_owned()
        };
        self.server.list(&resources::PODS).iter().map(|pod| (pod.name().to_owned(), image(pod))).collect()
    }

    fn names(&self, resource: &Resource) -> Vec<String> {
        self.server.list(resource).iter().map(|object| object.name().to_owned()).collect()
    }

    /// What was created and deleted of `plural`, in order.
    fn log(&self, plural: &str) -> Vec<String> {
        let writes = self.server.requests().into_iter().filter(|seen| {
            matches!(seen.method, http::Method::POST | http::Method::DELETE)
                && seen.target.split('?').next().unwrap().contains(&format!("/{plural}"))
        });
        writes
            .map(|seen| match seen.method {
                http::Method::POST => {
                    let body = Value::parse(&seen.body).unwrap();
                    format!("+{}", body.str_at(&["metadata", "name"]).unwrap_or_default())
                }
                _ => format!("-{}", seen.target.split('?').next().unwrap().rsplit('/').next().unwrap()),
            })
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn pods_come_one_after_the_other_and_keep_their_names() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(3, CLAIMS, "v1"));
    eventually("the set is complete", || cluster.db_complete()).await;
    cluster.settles().await;
    assert_eq!(cluster.log("pods"), ["+db-0", "+db-1", "+db-2"]);
    assert_eq!(cluster.log("persistentvolumeclaims"), ["+data-db-0", "+data-db-1", "+data-db-2"]);
    let pod = cluster.value(&resources::PODS, "db-1");
    assert_eq!(pod.str_at(&["metadata", "labels", "apps.kubernetes.io/pod-index"]), Some("1"));
    assert_eq!(pod.str_at(&["metadata", "labels", "statefulset.kubernetes.io/pod-name"]), Some("db-1"));
    assert_eq!(pod.str_at(&["spec", "hostname"]), Some("db-1"));
    assert_eq!(pod.str_at(&["spec", "subdomain"]), Some("db"));
    let claim =
        pod.items_at(&["spec", "volumes"])[0].str_at(&["persistentVolumeClaim", "claimName"]).map(str::to_owned);
    assert_eq!(claim.as_deref(), Some("data-db-1"));
    let revision = cluster.value(&resources::STATEFUL_SETS, "db");
    let revision = revision.str_at(&["status", "updateRevision"]).unwrap();
    assert_eq!(pod.str_at(&["metadata", "labels", "controller-revision-hash"]), Some(revision));
    let told = cluster.events("SuccessfulCreate");
    assert!(told.contains(&"Create Pod db-0 in StatefulSet db successful".to_owned()), "{told:?}");
    assert!(told.contains(&"Create Claim data-db-0 Pod db-0 in StatefulSet db success".to_owned()), "{told:?}");

    // A pod that fails comes again, with its claim.
    cluster.server.forget_requests();
    cluster.server.edit(&resources::PODS, &key("db-1"), |pod| pod.set(&["status", "phase"], "Failed"));
    eventually("the pod is replaced", || cluster.log("pods") == ["-db-1", "+db-1"] && cluster.db_complete()).await;
    assert_eq!(cluster.log("persistentvolumeclaims"), Vec::<String>::new());

    cluster.server.forget_requests();
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| value.set(&["spec", "replicas"], 1));
    eventually("scaled down", || cluster.db_complete() && cluster.pods().len() == 1).await;
    assert_eq!(cluster.log("pods"), ["-db-2", "-db-1"]);
    assert_eq!(cluster.names(&resources::PERSISTENT_VOLUME_CLAIMS).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_rollout_goes_from_the_last_and_stops_at_what_is_broken() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(3, "", "v1"));
    eventually("the set is complete", || cluster.db_complete()).await;
    cluster.server.forget_requests();
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v2");
    eventually("rolled out", || cluster.db_complete() && cluster.pods().iter().all(|(_, image)| image == "v2")).await;
    assert_eq!(cluster.log("pods"), ["-db-2", "+db-2", "-db-1", "+db-1", "-db-0", "+db-0"]);

    // Only what is at or above the partition.
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| {
        value.set(&["spec", "updateStrategy", "rollingUpdate", "partition"], 2);
    });
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v3");
    eventually("the partition is rolled", || cluster.db("updatedReplicas") == 1 && cluster.db("readyReplicas") == 3)
        .await;
    cluster.settles().await;
    let images = |cluster: &Cluster| cluster.pods().into_iter().map(|(_, image)| image).collect::<Vec<_>>();
    assert_eq!(images(&cluster), ["v2", "v2", "v3"]);
    assert_eq!(cluster.db("currentReplicas"), 2);
    // A pod below the partition that goes comes back as it was.
    cluster.server.remove(&resources::PODS, &key("db-0"));
    eventually("it is back", || cluster.db("readyReplicas") == 3 && cluster.pods().len() == 3).await;
    assert_eq!(images(&cluster), ["v2", "v2", "v3"]);

    // What never gets ready holds up the rest, also after the template is mended, until somebody deletes the pod.
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| {
        value.set(&["spec", "updateStrategy", "rollingUpdate", "partition"], 0);
    });
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "bad");
    eventually("one is broken", || images(&cluster)[2] == "bad").await;
    cluster.settles().await;
    assert_eq!(images(&cluster), ["v2", "v2", "bad"]);
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v4");
    cluster.settles().await;
    assert_eq!(images(&cluster), ["v2", "v2", "bad"]);
    cluster.server.remove(&resources::PODS, &key("db-2"));
    eventually("it goes on", || cluster.db_complete()).await;
    assert_eq!(images(&cluster), ["v4", "v4", "v4"]);
    cluster.settles().await;
    // The current revision and two more.
    assert_eq!(cluster.names(&resources::CONTROLLER_REVISIONS).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn going_back_makes_the_old_revision_the_newest() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(1, "", "v1"));
    eventually("the set is complete", || cluster.db_complete()).await;
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v2");
    eventually("rolled out", || cluster.db_complete() && cluster.pods()[0].1 == "v2").await;
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v1");
    eventually("rolled back", || cluster.db_complete() && cluster.pods()[0].1 == "v1").await;
    let revisions = cluster.server.list(&resources::CONTROLLER_REVISIONS);
    let mut numbers: Vec<_> = revisions.iter().map(|revision| revision.to_value().i64_at(&["revision"])).collect();
    numbers.sort();
    assert_eq!(numbers, [Some(2), Some(3)]);
    let data = revisions[0].to_value();
    assert_eq!(data.str_at(&["data", "spec", "template", "$patch"]), Some("replace"));
    assert_eq!(data.str_at(&["metadata", "labels", "app"]), Some("db"));
}

#[tokio::test(start_paused = true)]
async fn a_parallel_set_waits_for_nobody() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let more = r#","podManagementPolicy":"Parallel","ordinals":{"start":5}"#;
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(3, more, "bad"));
    eventually("all pods are there", || cluster.pods().len() == 3).await;
    cluster.settles().await;
    assert_eq!(cluster.names(&resources::PODS), ["db-5", "db-6", "db-7"]);
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| value.set(&["spec", "replicas"], 1));
    eventually("scaled down", || cluster.pods().len() == 1).await;
    assert_eq!(cluster.names(&resources::PODS), ["db-5"]);
}

#[tokio::test(start_paused = true)]
async fn more_pods_than_memory_are_asked_for() {
    for (policy, made) in [("OrderedReady", 1), ("Parallel", 20)] {
        let cluster = Cluster::start();
        let world = cluster.server.clone();
        cluster.server.react(move |request| {
            let makes_pod =
                request.method == http::Method::POST && request.target.split('?').next()?.ends_with("/pods");
            let full = makes_pod && world.list(&resources::PODS).len() >= 30;
            let refused =
                || apimachinery::Status::forbidden(&resources::PODS.group_resource(), "db", "exceeded quota: q");
            full.then(|| client::fake::Reaction::Refuse(refused()))
        });
        let more = format!(r#","podManagementPolicy":"{policy}""#);
        cluster.put(&resources::STATEFUL_SETS, &stateful_set(i64::from(i32::MAX), &more, "v1"));
        eventually("pods are made", || cluster.pods().len() >= made).await;
        assert!(cluster.log("pods").contains(&format!("+db-{}", made - 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordered_set_waits_until_its_pod_is_available() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(2, r#","minReadySeconds":60"#, "v1"));
    eventually("the first is ready", || cluster.db("readyReplicas") == 1).await;
    sleep(30).await;
    assert_eq!((cluster.pods().len(), cluster.db("availableReplicas")), (1, 0));
    sleep(40).await;
    assert_eq!((cluster.pods().len(), cluster.db("availableReplicas")), (2, 1));
    eventually("all are available", || cluster.db_complete()).await;
}

#[tokio::test(start_paused = true)]
async fn claims_go_as_the_policy_says() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let policy = r#","persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete","whenScaled":"Delete"}"#;
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(2, &format!("{CLAIMS}{policy}"), "v1"));
    eventually("the set is complete", || cluster.db_complete()).await;
    cluster.settles().await;
    let owner = |cluster: &Cluster, claim: &str| {
        let claim = cluster.value(&resources::PERSISTENT_VOLUME_CLAIMS, claim);
        claim.items_at(&["metadata", "ownerReferences"])[0].str_at(&["kind"]).unwrap_or_default().to_owned()
    };
    assert_eq!(owner(&cluster, "data-db-1"), "StatefulSet");
    // The claim goes with the pod, through the garbage collector; a new pod gets a new one.
    let uid = cluster
        .value(&resources::PERSISTENT_VOLUME_CLAIMS, "data-db-1")
        .str_at(&["metadata", "uid"])
        .map(str::to_owned);
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| value.set(&["spec", "replicas"], 1));
    eventually("the claim is gone", || cluster.names(&resources::PERSISTENT_VOLUME_CLAIMS) == ["data-db-0"]).await;
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| value.set(&["spec", "replicas"], 2));
    eventually("scaled up", || cluster.db_complete()).await;
    let new = cluster
        .value(&resources::PERSISTENT_VOLUME_CLAIMS, "data-db-1")
        .str_at(&["metadata", "uid"])
        .map(str::to_owned);
    assert_ne!(uid, new);
    // Retained again: nobody owns the claims.
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |value| {
        value.remove(&["spec", "persistentVolumeClaimRetentionPolicy"]);
    });
    eventually("nobody owns the claims", || {
        let claims = cluster.server.list(&resources::PERSISTENT_VOLUME_CLAIMS);
        claims.iter().all(|claim| claim.owners().is_empty())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_left_alone() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    // One with the right labels and another name, one with a right name and another owner, one with the right name and labels.
    let pod = |name: &str, labels: &str, owners: &str| {
        format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","labels":{labels},"ownerReferences":[{owners}]}},
                "spec":{{"containers":[{{"name":"c","image":"x"}}]}}}}"#
        )
    };
    let other = r#"{"apiVersion":"apps/v1","kind":"StatefulSet","name":"db","uid":"another","controller":true}"#;
    let app = r#"{"app":"db"}"#;
    cluster.put(&resources::PODS, &pod("stray", app, ""));
    cluster.put(&resources::PODS, &pod("db-0", app, ""));
    cluster.put(&resources::PODS, &pod("db-1", app, other));
    // Revisions that somebody wrote by hand: of the right labels, with any data.
    let revision = |name: &str, labels: &str, data: &str| {
        format!(
            r#"{{"apiVersion":"apps/v1","kind":"ControllerRevision","metadata":{{"name":"{name}","namespace":"ns","labels":{labels}}},
                "revision":7,"data":{data}}}"#
        )
    };
    let odd = r#"{"spec":{"replicas":99,"template":{"spec":{"nodeName":"n7"}}}}"#;
    cluster.put(&resources::CONTROLLER_REVISIONS, &revision("odd", app, odd));
    cluster.put(&resources::CONTROLLER_REVISIONS, &revision("foreign", r#"{"app":"x"}"#, "{}"));
    let set = cluster.put(&resources::STATEFUL_SETS, &stateful_set(2, "", "v1"));
    sleep(120).await;
    let owner = |name: &str| {
        let pod = cluster.value(&resources::PODS, name);
        pod.items_at(&["metadata", "ownerReferences"]).first().and_then(|o| o.str_at(&["uid"])).map(str::to_owned)
    };
    assert_eq!(owner("stray"), None);
    assert_eq!(owner("db-0").as_deref(), Some(set.uid()));
    // Its owner is no more: the garbage collector deletes it, then the set makes its own.
    eventually("the second pod is ours", || owner("db-1").as_deref() == Some(set.uid())).await;
    let odd = cluster.value(&resources::CONTROLLER_REVISIONS, "odd");
    assert_eq!(odd.items_at(&["metadata", "ownerReferences"])[0].str_at(&["uid"]), Some(set.uid()));
    let foreign = cluster.value(&resources::CONTROLLER_REVISIONS, "foreign");
    assert!(foreign.items_at(&["metadata", "ownerReferences"]).is_empty());
    eventually("the set is complete", || cluster.db_complete()).await;
    let ours = cluster.value(&resources::STATEFUL_SETS, "db");
    let newest = ours.str_at(&["status", "updateRevision"]).unwrap().to_owned();
    assert_eq!(cluster.value(&resources::CONTROLLER_REVISIONS, &newest).i64_at(&["revision"]), Some(8));
    assert_eq!(ours.i64_at(&["spec", "replicas"]), Some(2));
}

#[tokio::test(start_paused = true)]
async fn pods_that_cannot_be_made_are_asked_for_ever_more_rarely() {
    let cluster = Cluster::start();
    cluster.server.react(|request| {
        let makes_pod = request.method == http::Method::POST && request.target.split('?').next()?.ends_with("/pods");
        let refused =
            || apimachinery::Status::forbidden(&resources::PODS.group_resource(), "db-0", "exceeded quota: q");
        makes_pod.then(|| client::fake::Reaction::Refuse(refused()))
    });
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(1, "", "v1"));
    sleep(60).await;
    let told = cluster.events("FailedCreate");
    let message = "Create Pod db-0 in StatefulSet db failed error: pods \"db-0\" is forbidden: exceeded quota: q";
    assert_eq!(told, [message]);
    cluster.server.forget_requests();
    sleep(600).await;
    // Events count up; nothing else is written.
    let writes = cluster.server.writes().into_iter().filter(|write| !write.contains("/events")).collect::<Vec<_>>();
    assert!(writes.len() < 10, "{writes:?}");
}

/// A cluster with the StatefulSets' controller alone, whose set has the members `more`, and the pods that it makes.
async fn alone(more: &str, pods: usize) -> (Cluster, Kubelet) {
    alone_with(rules::Features::default(), more, pods).await
}

async fn alone_with(features: rules::Features, more: &str, pods: usize) -> (Cluster, Kubelet) {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_with(server, |config| {
        config.controllers = vec!["statefulset-controller".to_owned()];
        config.features = features;
    });
    let kubelet = Kubelet::start(&cluster.server);
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(pods as i64, more, "v1"));
    eventually("the pods are there", || cluster.db("readyReplicas") == pods as i64).await;
    (cluster, kubelet)
}

#[tokio::test(start_paused = true)]
async fn a_revision_in_older_words_stays_the_newest() {
    let (cluster, _kubelet) = alone("", 2).await;
    let revision = cluster.server.list(&resources::CONTROLLER_REVISIONS)[0].key().clone();
    // As versions before 1.34 wrote it.
    cluster.server.edit(&resources::CONTROLLER_REVISIONS, &revision, |revision| {
        revision.set(&["data", "spec", "template", "metadata", "creationTimestamp"], Value::Null);
    });
    cluster.server.forget_requests();
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |set| set.set(&["spec", "minReadySeconds"], 1));
    eventually("it is looked at", || cluster.db("observedGeneration") == 2).await;
    cluster.settles().await;
    assert_eq!(cluster.names(&resources::CONTROLLER_REVISIONS), [revision.name.to_string()]);
    assert_eq!(cluster.log("pods"), Vec::<String>::new());
    // What says something else is another revision.
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v2");
    eventually("rolled out", || cluster.db_complete() && cluster.pods().iter().all(|(_, image)| image == "v2")).await;
    assert_eq!(cluster.names(&resources::CONTROLLER_REVISIONS).len(), 2);
}

/// Upstream's feature gate for more than one missing pod is off by default.
#[tokio::test(start_paused = true)]
async fn one_pod_at_a_time_is_rolled_whatever_may_be_missing() {
    let (cluster, _kubelet) = alone(r#","podManagementPolicy":"Parallel""#, 3).await;
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |set| {
        set.set(&["spec", "updateStrategy", "rollingUpdate", "maxUnavailable"], 3);
    });
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "bad");
    cluster.settles().await;
    let images: Vec<String> = cluster.pods().into_iter().map(|(_, image)| image).collect();
    assert_eq!(images, ["v1", "v1", "bad"]);
}

#[tokio::test(start_paused = true)]
async fn as_many_pods_are_rolled_as_may_be_missing_where_the_feature_is_on() {
    let check = async |may_be_missing: Value, partition: i64, expect: &[&str]| {
        let features = rules::Features { max_unavailable_stateful_set: true, ..Default::default() };
        // An ordered set would make only the first of them again, as that one never gets ready.
        let (cluster, _kubelet) = alone_with(features, r#","podManagementPolicy":"Parallel""#, expect.len()).await;
        cluster.edit_set(&resources::STATEFUL_SETS, "db", |set| {
            let rolling = ["spec", "updateStrategy", "rollingUpdate"];
            set.set(&[&rolling[..], &["maxUnavailable"]].concat(), may_be_missing.clone());
            set.set(&[&rolling[..], &["partition"]].concat(), partition);
        });
        cluster.set_image_of(&resources::STATEFUL_SETS, "db", "bad");
        cluster.settles().await;
        let images: Vec<String> = cluster.pods().into_iter().map(|(_, image)| image).collect();
        assert_eq!(images, expect, "{may_be_missing:?} of {}, from {partition}", expect.len());
    };
    check(2.into(), 0, &["v1", "v1", "bad", "bad"]).await;
    check("75%".into(), 0, &["v1", "bad", "bad", "bad"]).await;
    check("10%".into(), 0, &["v1", "v1", "v1", "bad"]).await;
    check(3.into(), 2, &["v1", "v1", "bad", "bad"]).await;
    check(Value::Null, 0, &["v1", "bad"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_another_controls_is_told_and_left_alone() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_some(server, &["statefulset-controller"]);
    let _kubelet = Kubelet::start(&cluster.server);
    cluster.put(
        &resources::PERSISTENT_VOLUME_CLAIMS,
        r#"{"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"name":"data-db-0","namespace":"ns","ownerReferences":
            [{"apiVersion":"example.com/v1","kind":"Thing","name":"x","uid":"x","controller":true}]},"spec":{}}"#,
    );
    let policy = r#","persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Delete","whenScaled":"Retain"}"#;
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(1, &format!("{CLAIMS}{policy}"), "v1"));
    eventually("the pod runs", || cluster.db("readyReplicas") == 1).await;
    cluster.settles().await;
    let claim = cluster.server.get(&resources::PERSISTENT_VOLUME_CLAIMS, &key("data-db-0")).unwrap();
    assert_eq!(claim.owners().iter().map(|owner| owner.uid.as_str()).collect::<Vec<_>>(), ["x"]);
    let why = "PersistentVolumeClaim data-db-0 has a conflicting OwnerReference that acts as a manging controller, the retention \
               policy is ignored for this claim";
    assert_eq!(cluster.events("ConflictingController"), [why]);
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_set_without_service_have_no_subdomain() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_some(server, &["statefulset-controller"]);
    let mut set = Value::parse(stateful_set(1, "", "v1").as_bytes()).unwrap();
    set.remove(&["spec", "serviceName"]);
    set.set(&["spec", "template", "spec", "subdomain"], "template");
    cluster.server.put_value(&resources::STATEFUL_SETS, set);
    eventually("the pod is made", || cluster.pods().len() == 1).await;
    let pod = cluster.value(&resources::PODS, "db-0");
    assert_eq!((pod.str_at(&["spec", "hostname"]), pod.str_at(&["spec", "subdomain"])), (Some("db-0"), None));
}
