use parking_lot::Mutex;

use super::*;

pub(super) fn deployment(replicas: i64, strategy: &str, image: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"Deployment","metadata":{{"name":"web","namespace":"ns","generation":1,"annotations":{{"note":"x"}}}},
        "spec":{{"replicas":{replicas},"revisionHistoryLimit":2,"progressDeadlineSeconds":600,"selector":{{"matchLabels":{{"app":"web"}}}},
        "strategy":{strategy},"template":{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}}}}}"#
    )
}

pub(super) const ROLLING: &str =
    r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"}}"#;
const RECREATE: &str = r#"{"type":"Recreate"}"#;

impl Cluster {
    pub(super) fn edit_deployment(&self, edit: impl FnOnce(&mut Value)) {
        self.server.edit(&resources::DEPLOYMENTS, &key("web"), |value| {
            edit(value);
            let generation = value.i64_at(&["metadata", "generation"]).unwrap();
            value.set(&["metadata", "generation"], generation + 1);
        });
    }

    pub(super) fn set_image(&self, image: &str) {
        self.edit_deployment(|value| {
            let containers = format!(r#"[{{"name":"c","image":"{image}"}}]"#);
            value.set(&["spec", "template", "spec", "containers"], Value::parse(containers.as_bytes()).unwrap());
        });
    }

    pub(super) fn complete(&self) -> bool {
        let web = self.value(&resources::DEPLOYMENTS, "web");
        let wanted = web.i64_at(&["spec", "replicas"]);
        let counts = ["replicas", "updatedReplicas", "availableReplicas", "readyReplicas"];
        web.i64_at(&["status", "observedGeneration"]) == web.i64_at(&["metadata", "generation"])
            && counts.iter().all(|name| web.i64_at(&["status", name]).unwrap_or_default() == wanted.unwrap_or_default())
    }

    fn condition(&self, r#type: &str) -> (String, String) {
        let web = self.value(&resources::DEPLOYMENTS, "web");
        let conditions = web.items_at(&["status", "conditions"]);
        let found = conditions.iter().find(|condition| condition.str_at(&["type"]) == Some(r#type));
        let text = |name| found.and_then(|condition| condition.str_at(&[name])).unwrap_or_default().to_owned();
        (text("status"), text("reason"))
    }

    /// The sizes of the Deployment's sets by revision.
    pub(super) fn sizes(&self) -> Vec<(String, i64)> {
        let mut sizes: Vec<_> = self
            .owned(&resources::REPLICA_SETS, "web")
            .iter()
            .map(|set| {
                let set = set.to_value();
                let revision = set.str_at(&["metadata", "annotations", "deployment.kubernetes.io/revision"]);
                (revision.unwrap_or_default().to_owned(), set.i64_at(&["spec", "replicas"]).unwrap())
            })
            .collect();
        sizes.sort();
        sizes
    }
}

#[tokio::test(start_paused = true)]
async fn a_rollout_moves_within_its_limits_and_back() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(4, ROLLING, "v1"));
    eventually("the first rollout is complete", || cluster.complete()).await;
    cluster.settles().await;
    assert_eq!(cluster.condition("Available"), ("True".into(), "MinimumReplicasAvailable".into()));
    assert_eq!(cluster.condition("Progressing"), ("True".into(), "NewReplicaSetAvailable".into()));
    let pods = cluster.server.list(&resources::PODS);
    let set = &cluster.owned(&resources::REPLICA_SETS, "web")[0];
    let hash = set.label("pod-template-hash").unwrap();
    assert_eq!(set.name(), format!("web-{hash}"));
    assert!(pods.iter().all(|pod| pod.label("pod-template-hash") == Some(hash) && pod.label("app") == Some("web")));
    assert_eq!(set.to_value().str_at(&["metadata", "annotations", "note"]), Some("x"));

    // Never more than five pods, never fewer than three of them ready.
    let limits = Arc::new(Mutex::new((0, usize::MAX)));
    let watcher = Informer::start(&cluster.server.client(), resources::PODS, Selection::all());
    watcher.synced().await;
    let _subscription = watcher.on_event({
        let (limits, server) = (limits.clone(), cluster.server.clone());
        move |_| {
            let pods = server.list(&resources::PODS);
            let live = pods.iter().filter(|pod| !pod.is_deleting());
            let ready = live.clone().filter(|pod| pod.to_value().str_at(&["status", "podIP"]).is_some()).count();
            let mut limits = limits.lock();
            *limits = (limits.0.max(live.count()), limits.1.min(ready));
        }
    });
    cluster.set_image("v2");
    eventually("the second rollout is complete", || cluster.complete() && cluster.sizes().len() == 2).await;
    let (most, fewest) = *limits.lock();
    assert!(most <= 5 && fewest >= 3, "{most} {fewest}");
    assert_eq!(cluster.sizes(), [("1".into(), 0), ("2".into(), 4)]);
    let revision = &["metadata", "annotations", "deployment.kubernetes.io/revision"];
    eventually("the revision is told", || cluster.value(&resources::DEPLOYMENTS, "web").str_at(revision) == Some("2"))
        .await;

    cluster.set_image("v1");
    eventually("the third rollout is complete", || cluster.complete() && cluster.sizes()[1].0 == "3").await;
    assert_eq!(cluster.sizes(), [("2".into(), 0), ("3".into(), 4)]);
    let set = cluster
        .owned(&resources::REPLICA_SETS, "web")
        .into_iter()
        .find(|set| set.label("pod-template-hash") == Some(hash));
    let history = &["metadata", "annotations", "deployment.kubernetes.io/revision-history"];
    assert_eq!(set.unwrap().to_value().str_at(history), Some("1"));

    // Old sets beyond the limit go.
    for image in ["v4", "v5", "v6"] {
        cluster.set_image(image);
        eventually("the rollout is complete", || cluster.complete()).await;
        cluster.settles().await;
    }
    assert_eq!(cluster.sizes(), [("4".into(), 0), ("5".into(), 0), ("6".into(), 4)]);
    assert!(!cluster.events("ScalingReplicaSet").is_empty());
}

#[tokio::test(start_paused = true)]
async fn size_and_pause() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    eventually("it runs", || cluster.complete()).await;
    for size in [10, 0, 3] {
        cluster.edit_deployment(|value| value.set(&["spec", "replicas"], size));
        eventually("it has its size", || {
            cluster.sizes() == [("1".to_owned(), size)] && cluster.server.list(&resources::PODS).len() == size as usize
        })
        .await;
        cluster.settles().await;
    }
    cluster.edit_deployment(|value| value.set(&["spec", "paused"], true));
    eventually("it is paused", || cluster.condition("Progressing").1 == "DeploymentPaused").await;
    cluster.set_image("v2");
    cluster.settles().await;
    assert_eq!(cluster.sizes(), [("1".to_owned(), 3)]);
    cluster.edit_deployment(|value| value.set(&["spec", "replicas"], 4));
    eventually("a paused one is scaled", || cluster.sizes() == [("1".to_owned(), 4)]).await;
    cluster.edit_deployment(|value| drop(value.remove(&["spec", "paused"])));
    eventually("it rolls on", || cluster.complete() && cluster.sizes().len() == 2).await;
    cluster.settles().await;
    assert_eq!(cluster.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn a_rollout_that_gets_stuck_says_so_and_recovers() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(4, ROLLING, "v1"));
    eventually("it runs", || cluster.complete()).await;
    cluster.set_image("bad");
    sleep(590).await;
    assert_eq!(cluster.condition("Progressing").1, "ReplicaSetUpdated");
    sleep(20).await;
    assert_eq!(cluster.condition("Progressing"), ("False".into(), "ProgressDeadlineExceeded".into()));
    assert_eq!(cluster.sizes(), [("1".to_owned(), 3), ("2".to_owned(), 2)]);
    assert_eq!(cluster.condition("Available").0, "True");
    cluster.set_image("v3");
    eventually("it recovers", || cluster.complete()).await;
    cluster.settles().await;
    assert_eq!(cluster.condition("Progressing").1, "NewReplicaSetAvailable");
}

#[tokio::test(start_paused = true)]
async fn recreate_never_runs_two_versions() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(3, RECREATE, "v1"));
    eventually("it runs", || cluster.complete()).await;
    let mixed = Arc::new(Mutex::new(false));
    let watcher = Informer::start(&cluster.server.client(), resources::PODS, Selection::all());
    let _subscription = watcher.on_event({
        let (mixed, server) = (mixed.clone(), cluster.server.clone());
        move |_| {
            let pods = server.list(&resources::PODS);
            let mut hashes: Vec<_> = pods.iter().map(|pod| pod.label("pod-template-hash")).collect();
            hashes.dedup();
            *mixed.lock() |= hashes.len() > 1;
        }
    });
    cluster.set_image("v2");
    eventually("it is complete", || cluster.complete() && cluster.sizes().len() == 2).await;
    assert!(!*mixed.lock());
    assert_eq!(cluster.sizes(), [("1".to_owned(), 0), ("2".to_owned(), 3)]);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_got_round() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(1, ROLLING, "v1"));
    eventually("it runs", || cluster.complete()).await;
    let name = cluster.owned(&resources::REPLICA_SETS, "web")[0].name().to_owned();
    cluster.server.remove(&resources::DEPLOYMENTS, &key("web"));
    eventually("all is collected", || cluster.server.list(&resources::REPLICA_SETS).is_empty()).await;
    let foreign = format!(
        r#"{{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{"replicas":0,
            "selector":{{"matchLabels":{{"app":"x"}}}},"template":{{"metadata":{{"labels":{{"app":"x"}}}}}}}}}}"#
    );
    cluster.put(&resources::REPLICA_SETS, &foreign);
    cluster.put(&resources::DEPLOYMENTS, &deployment(1, ROLLING, "v1"));
    eventually("it runs under another name", || cluster.complete()).await;
    assert_eq!(cluster.value(&resources::DEPLOYMENTS, "web").i64_at(&["status", "collisionCount"]), Some(1));
    assert_eq!(cluster.owned(&resources::REPLICA_SETS, "web").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_annotation_rolls_back() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let cause = &["metadata", "annotations", "kubernetes.io/change-cause"];
    let mut first = Value::parse(deployment(1, ROLLING, "v1").as_bytes()).unwrap();
    first.set(cause, "first");
    cluster.server.put_value(&resources::DEPLOYMENTS, first);
    eventually("it runs", || cluster.complete()).await;
    cluster.edit_deployment(|value| {
        value.set(cause, "second");
        value.set(&["metadata", "annotations", "late"], "yes");
        value.set(&["spec", "template", "spec", "restartPolicy"], "Always");
    });
    eventually("it rolls on", || cluster.complete() && cluster.sizes().len() == 2).await;
    cluster.settles().await;
    let annotation = &["metadata", "annotations", "deprecated.deployment.rollback.to"];
    cluster.server.edit(&resources::DEPLOYMENTS, &key("web"), |value| value.set(annotation, "0"));
    eventually("it rolls back", || cluster.complete() && cluster.sizes() == [("2".into(), 0), ("3".into(), 1)]).await;
    let web = cluster.value(&resources::DEPLOYMENTS, "web");
    assert_eq!(web.at(annotation), None);
    // Its annotations are those of the revision again.
    assert_eq!((web.str_at(cause), web.at(&["metadata", "annotations", "late"])), (Some("first"), None));
    eventually("it is told", || {
        cluster.events("DeploymentRollback") == ["Rolled back deployment \"web\" to revision 1"]
    })
    .await;
}

/// How far a rollout to pods that never get ready goes, by size, surge and how many may be missing: the old and the new.
#[tokio::test(start_paused = true)]
async fn limits_are_numbers_or_parts_of_the_size() {
    let check = async |size: i64, surge: &str, missing: &str, expect: [i64; 2]| {
        let cluster = Cluster::start();
        let _kubelet = Kubelet::start(&cluster.server);
        let _alive = cluster.put_node("n1");
        let strategy =
            format!(r#"{{"type":"RollingUpdate","rollingUpdate":{{"maxSurge":{surge},"maxUnavailable":{missing}}}}}"#);
        cluster.put(&resources::DEPLOYMENTS, &deployment(size, &strategy, "v1"));
        eventually("it runs", || cluster.complete()).await;
        cluster.set_image("bad");
        cluster.settles().await;
        let [old, new] = expect;
        assert_eq!(cluster.sizes(), [("1".to_owned(), old), ("2".to_owned(), new)], "{size} {surge} {missing}");
    };
    check(10, "3", "2", [8, 5]).await;
    check(10, "\"25%\"", "\"25%\"", [8, 5]).await;
    check(10, "\"1%\"", "\"1%\"", [10, 1]).await;
    check(1, "\"25%\"", "\"25%\"", [1, 1]).await;
    check(3, "0", "1", [2, 1]).await;
    check(5, "2", "0", [5, 2]).await;
    check(2, "\"100%\"", "\"100%\"", [0, 2]).await;
    // Both come out as nothing: then one may be missing.
    check(3, "0", "\"1%\"", [2, 1]).await;
}

/// Upstream's own example: of five more pods, the larger set gets three and the smaller one two.
#[tokio::test(start_paused = true)]
async fn a_rollout_under_way_is_scaled_in_proportion() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let strategy = r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":3,"maxUnavailable":2}}"#;
    cluster.put(&resources::DEPLOYMENTS, &deployment(10, strategy, "v1"));
    eventually("it runs", || cluster.complete()).await;
    cluster.set_image("bad");
    cluster.settles().await;
    assert_eq!(cluster.sizes(), [("1".to_owned(), 8), ("2".to_owned(), 5)]);
    cluster.edit_deployment(|value| value.set(&["spec", "replicas"], 15));
    eventually("both grew", || cluster.sizes() == [("1".to_owned(), 11), ("2".to_owned(), 7)]).await;
    // Smaller again, and good again.
    cluster.edit_deployment(|value| value.set(&["spec", "replicas"], 5));
    eventually("both shrank", || cluster.sizes().iter().map(|(_, size)| size).sum::<i64>() <= 8).await;
    cluster.set_image("v1");
    eventually("it is as it was", || cluster.complete() && cluster.sizes() == [("2".into(), 0), ("3".into(), 5)]).await;
    cluster.settles().await;
}

/// Pods count once they have been ready for a while, and sets without pods are kept as many as wanted.
#[tokio::test(start_paused = true)]
async fn time_to_settle_and_history() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    eventually("it runs", || cluster.complete()).await;
    cluster.edit_deployment(|value| {
        value.set(&["spec", "minReadySeconds"], 30);
        value.set(&["spec", "revisionHistoryLimit"], 0);
    });
    cluster.settles().await;
    cluster.set_image("v2");
    // One more than wanted may be there: the second new one comes when the first has been ready for long enough.
    sleep(20).await;
    assert_eq!(cluster.sizes(), [("1".to_owned(), 2), ("2".to_owned(), 1)]);
    sleep(20).await;
    assert_eq!(cluster.sizes(), [("1".to_owned(), 1), ("2".to_owned(), 2)]);
    eventually("no old set is kept", || cluster.complete() && cluster.sizes() == [("2".to_owned(), 2)]).await;
    cluster.settles().await;
}

/// The Deployment's controller alone: the sets' status is what the test says.
async fn rollouts(size: i64, strategy: &str) -> Cluster {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_some(server, &["deployment-controller"]);
    cluster.put(&resources::DEPLOYMENTS, &deployment(size, strategy, "v1"));
    eventually("the first set is there", || cluster.sizes().len() == 1).await;
    cluster.report("1", size);
    cluster
}

impl Cluster {
    /// Lets the set of `revision` say that it has so many pods, all of them available.
    fn report(&self, revision: &str, pods: i64) {
        let path = ["metadata", "annotations", "deployment.kubernetes.io/revision"];
        let sets = self.server.list(&resources::REPLICA_SETS);
        let set = sets.iter().find(|set| set.to_value().str_at(&path) == Some(revision)).unwrap();
        self.server.edit(&resources::REPLICA_SETS, set.key(), |set| {
            for count in ["replicas", "readyReplicas", "availableReplicas"] {
                set.set(&["status", count], pods);
            }
            set.set(&["status", "observedGeneration"], 1);
        });
    }

    async fn has_sizes(&self, sizes: &[i64]) {
        self.settles().await;
        assert_eq!(self.sizes().into_iter().map(|(_, size)| size).collect::<Vec<_>>(), sizes);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_old_set_has_not_taken_notice_of_is_waited_for() {
    let cluster = rollouts(10, r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":3,"maxUnavailable":2}}"#).await;
    cluster.set_image("v2");
    cluster.has_sizes(&[8, 5]).await;
    // The old set still says ten, of which two are going: with three new ones there may be eleven available, and no one knows.
    cluster.report("2", 3);
    cluster.has_sizes(&[8, 5]).await;
    cluster.report("1", 8);
    cluster.has_sizes(&[5, 8]).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_sets_that_are_to_have_none_are_not_counted_on() {
    let cluster = rollouts(2, r#"{"type":"RollingUpdate","rollingUpdate":{"maxSurge":2,"maxUnavailable":0}}"#).await;
    cluster.set_image("v2");
    cluster.has_sizes(&[2, 2]).await;
    cluster.report("2", 2);
    cluster.has_sizes(&[0, 2]).await;
    // The first set still says that two are available.
    cluster.set_image("v3");
    cluster.has_sizes(&[0, 2, 2]).await;
    cluster.report("3", 1);
    cluster.has_sizes(&[0, 1, 2]).await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_are_ending_are_told_as_soon_as_a_set_is_there() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let cluster = Cluster::start_some(server, &["deployment-controller"]);
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    cluster.settles().await;
    let told = || cluster.value(&resources::DEPLOYMENTS, "web").i64_at(&["status", "terminatingReplicas"]);
    assert_eq!(told(), Some(0));
    // A set that was looked at by somebody who doesn't say it.
    cluster.report("1", 2);
    cluster.settles().await;
    assert_eq!(told(), None);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_is_going_is_asked_once() {
    let cluster = Cluster::start();
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    cluster.server.react(move |request| {
        if request.method != http::Method::POST || !request.target.ends_with("/replicasets") {
            return None;
        }
        *count.lock() += 1;
        let message = "namespace ns is being terminated";
        let sets = resources::REPLICA_SETS.group_resource();
        let status = apimachinery::Status::forbidden(&sets, "", message);
        Some(client::fake::Reaction::Refuse(status.with_cause("NamespaceTerminating", message, "metadata.namespace")))
    });
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    sleep(600).await;
    assert_eq!((*asked.lock(), cluster.events("ReplicaSetCreateError").len()), (1, 0));
}
