//! What people write that they should not: upstream's outcome, and nobody runs in circles.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use client::fake::Reaction;

use super::daemon_set::{REPLACE, daemon_set};
use super::deployment::{ROLLING, deployment};
use super::job::{CRON_JOBS, JOBS, job};
use super::stateful_set::stateful_set;
use super::*;

/// A controller that goes on for ever writes more than this.
const CALM: usize = 2;

impl Cluster {
    /// What is written in a minute, but for what holds leases.
    async fn writes_in_a_minute(&self) -> Vec<String> {
        self.server.forget_requests();
        sleep(60).await;
        self.server.writes().into_iter().filter(|write| !write.contains("/leases/")).collect()
    }

    /// After ten minutes there is nothing left to write.
    async fn is_calm(&self, what: &str) {
        sleep(600).await;
        let writes = self.writes_in_a_minute().await;
        assert!(writes.len() <= CALM, "{what}: {} writes in a minute: {writes:?}", writes.len());
    }

    fn owners_of_pods(&self) -> Vec<(String, usize)> {
        let mut owners = std::collections::BTreeMap::<String, usize>::new();
        for pod in self.server.list(&resources::PODS) {
            let owner = pod.controller().map(|owner| owner.name.clone()).unwrap_or_default();
            *owners.entry(owner).or_default() += 1;
        }
        owners.into_iter().collect()
    }
}

fn replica_set(name: &str, replicas: i64) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"ReplicaSet","metadata":{{"name":"{name}","namespace":"ns","generation":1}},"spec":{{"replicas":{replicas},
        "selector":{{"matchLabels":{{"app":"web"}}}},"template":{{"metadata":{{"labels":{{"app":"web"}}}},"spec":{{"containers":[{{"name":"c","image":"i"}}]}}}}}}}}"#
    )
}

/// Refuses pods beyond `most`, as a quota does, and counts how often they are asked for.
fn refuse_pods(server: &FakeServer, most: usize) -> Arc<AtomicUsize> {
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, world) = (asked.clone(), server.clone());
    server.react(move |request| {
        if request.method != http::Method::POST || !request.target.ends_with("/pods") {
            return None;
        }
        count.fetch_add(1, SeqCst);
        let full = world.list(&resources::PODS).len() >= most;
        let why = format!("exceeded quota: q, requested: pods=1, used: pods={most}, limited: pods={most}");
        full.then(|| Reaction::Refuse(apimachinery::Status::forbidden(&resources::PODS.group_resource(), "", &why)))
    });
    asked
}

#[tokio::test(start_paused = true)]
async fn nobody_insists_where_a_namespace_is_going() {
    for (resource, json) in [
        (resources::REPLICA_SETS, replica_set("web", 20)),
        (resources::STATEFUL_SETS, stateful_set(3, "", "v1")),
        (resources::DAEMON_SETS, daemon_set(REPLACE, "v1")),
        (JOBS, job(r#""parallelism":4,"completions":20,"#)),
    ] {
        let cluster = Cluster::start();
        let _alive = cluster.put_node("n1");
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        cluster.server.react(move |request| {
            if request.method != http::Method::POST || !request.target.ends_with("/pods") {
                return None;
            }
            if count.fetch_add(1, SeqCst) > 1000 {
                return None; // who asks without a pause would never let the clock go on
            }
            let message = "namespace ns is being terminated";
            let status = apimachinery::Status::forbidden(&resources::PODS.group_resource(), "", message);
            Some(Reaction::Refuse(status.with_cause("NamespaceTerminating", message, "metadata.namespace")))
        });
        cluster.put(&resource, &json);
        sleep(120).await;
        let asked = asked.load(SeqCst);
        assert!((1..=60).contains(&asked), "{} asked {asked} times", resource.plural);
    }
}

#[tokio::test(start_paused = true)]
async fn each_keeps_its_own_where_selectors_overlap() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let mut set = Value::parse(stateful_set(2, "", "v1").as_bytes()).unwrap();
    for path in [&["spec", "selector", "matchLabels"][..], &["spec", "template", "metadata", "labels"]] {
        set.set(path, Value::parse(br#"{"app":"web"}"#).unwrap());
    }
    cluster.put(&resources::STATEFUL_SETS, &set.to_string());
    cluster.put(&resources::REPLICA_SETS, &replica_set("one", 2));
    cluster.put(&resources::REPLICA_SETS, &replica_set("two", 3));
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    cluster.put(&resources::DEPLOYMENTS, &deployment(1, ROLLING, "v1").replace(r#""name":"web""#, r#""name":"other""#));
    sleep(60).await;
    let owners = cluster.owners_of_pods();
    let told: Vec<(&str, usize)> = owners
        .iter()
        .map(|(name, count)| (name.split_once('-').map_or(name.as_str(), |(name, _)| name), *count))
        .collect();
    assert_eq!(told, [("db", 2), ("one", 2), ("other", 1), ("two", 3), ("web", 2)]);
    // Who is nobody's is taken by one of them, and is one too many there.
    cluster.put(
        &resources::PODS,
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"stray","namespace":"ns","labels":{"app":"web"}},"spec":{"containers":[{"name":"c"}]}}"#,
    );
    sleep(60).await;
    assert_eq!(cluster.owners_of_pods(), owners);
    cluster.is_calm("overlapping selectors").await;
}

#[tokio::test(start_paused = true)]
async fn owners_that_lie_own_nothing() {
    let cluster = Cluster::start();
    let put = |resource: &Resource, name: &str, namespace: &str, owner: &str| {
        let kind = if resource.namespaced { "ConfigMap" } else { "Namespace" };
        let namespace = if resource.namespaced { format!(r#","namespace":"{namespace}""#) } else { String::new() };
        cluster.put(
            resource,
            &format!(
                r#"{{"apiVersion":"v1","kind":"{kind}","metadata":{{"name":"{name}"{namespace},"ownerReferences":[{owner}]}},"spec":{{"finalizers":["kubernetes"]}}}}"#
            ),
        )
    };
    let maps = resources::CONFIG_MAPS;
    let real = put(&maps, "real", "ns", "");
    let abroad = put(&maps, "abroad", "far", "");
    let owner = |kind: &str, name: &str, uid: &str| {
        let version = if kind == "ReplicaSet" { "apps/v1" } else { "v1" };
        format!(r#"{{"apiVersion":"{version}","kind":"{kind}","name":"{name}","uid":"{uid}","controller":true}}"#)
    };
    sleep(5).await;
    put(&maps, "owned", "ns", &owner("ConfigMap", "real", real.uid()));
    put(&maps, "absent", "ns", &owner("ConfigMap", "real", "no-such-uid"));
    put(&maps, "kind", "ns", &owner("ReplicaSet", "real", real.uid()));
    put(&maps, "namespace", "ns", &owner("ConfigMap", "abroad", abroad.uid()));
    put(&maps, "partly", "ns", &[owner("ConfigMap", "real", real.uid()), owner("Secret", "gone", "gone")].join(","));
    put(&resources::NAMESPACES, "cluster", "", &owner("ConfigMap", "real", real.uid()));
    sleep(60).await;
    let left: Vec<_> = cluster.server.list(&maps).iter().map(|map| map.name().to_owned()).collect();
    let left: Vec<_> = left.into_iter().filter(|name| name != "kube-root-ca.crt").collect();
    assert_eq!(left, ["abroad", "owned", "partly", "real"]);
    let partly = cluster.server.get(&maps, &key("partly")).unwrap();
    assert_eq!(partly.owners().len(), 1);
    // Nobody can say who owns what belongs to the whole cluster: it stays. It and what had its owner in another namespace were told once.
    assert!(cluster.server.get(&resources::NAMESPACES, &ObjectKey::cluster("cluster")).is_some());
    assert_eq!(cluster.events("OwnerRefInvalidNamespace").len(), 2);
    cluster.is_calm("owners that lie").await;
}

#[tokio::test(start_paused = true)]
async fn revisions_that_somebody_edited() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DEPLOYMENTS, &deployment(2, ROLLING, "v1"));
    cluster.put(&resources::STATEFUL_SETS, &stateful_set(2, "", "v1"));
    let path = ["metadata", "annotations", "deployment.kubernetes.io/revision"];
    let revision = |cluster: &Cluster| {
        let web = cluster.value(&resources::DEPLOYMENTS, "web");
        web.str_at(&path).unwrap_or_default().to_owned()
    };
    sleep(60).await;
    assert_eq!(revision(&cluster), "1");
    // What the Deployment says is put right by what its set says.
    cluster.server.edit(&resources::DEPLOYMENTS, &key("web"), |web| web.set(&path, "abc"));
    sleep(60).await;
    assert_eq!(revision(&cluster), "1");
    let set = cluster.owned(&resources::REPLICA_SETS, "web")[0].key().clone();
    cluster.server.edit(&resources::REPLICA_SETS, &set, |set| set.set(&path, "7"));
    sleep(60).await;
    assert_eq!(revision(&cluster), "7");
    cluster.set_image("v2");
    sleep(60).await;
    assert_eq!(revision(&cluster), "8");
    cluster.server.edit(&resources::REPLICA_SETS, &set, |set| set.set(&path, "seven"));
    cluster.is_calm("revisions of a Deployment").await;

    let history = |cluster: &Cluster| {
        let revisions = cluster.owned(&resources::CONTROLLER_REVISIONS, "db");
        let mut numbers: Vec<_> =
            revisions.iter().map(|revision| revision.to_value().i64_at(&["revision"]).unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let first = cluster.owned(&resources::CONTROLLER_REVISIONS, "db")[0].key().clone();
    cluster.server.edit(&resources::CONTROLLER_REVISIONS, &first, |revision| revision.set(&["revision"], 5));
    cluster.set_image_of(&resources::STATEFUL_SETS, "db", "v2");
    sleep(60).await;
    assert_eq!(history(&cluster), [5, 6]);
    for data in ["null", "[1,2]", r#"{"spec":{"template":7}}"#] {
        let last = cluster.owned(&resources::CONTROLLER_REVISIONS, "db").last().unwrap().key().clone();
        cluster.server.edit(&resources::CONTROLLER_REVISIONS, &last, |revision| {
            revision.set(&["data"], Value::parse(data.as_bytes()).unwrap());
        });
        cluster.is_calm(data).await;
        assert_eq!(
            cluster.pods().iter().filter(|(name, image)| name.starts_with("db-") && image == "v2").count(),
            2,
            "{data}"
        );
    }
    for revision in cluster.owned(&resources::CONTROLLER_REVISIONS, "db") {
        cluster.server.remove(&resources::CONTROLLER_REVISIONS, revision.key());
    }
    // Nobody follows revisions for their own sake, as upstream does not: the next look makes them anew.
    cluster.edit_set(&resources::STATEFUL_SETS, "db", |set| set.set(&["spec", "replicas"], 1));
    sleep(60).await;
    assert!(!history(&cluster).is_empty());
    cluster.is_calm("no revisions").await;
}

#[tokio::test(start_paused = true)]
async fn sizes_nobody_means() {
    for replicas in [-5, i64::from(i32::MIN)] {
        let cluster = Cluster::start();
        let _kubelet = Kubelet::start(&cluster.server);
        let _alive = cluster.put_node("n1");
        cluster.put(&resources::REPLICA_SETS, &replica_set("set", replicas));
        cluster.put(&resources::DEPLOYMENTS, &deployment(replicas, ROLLING, "v1"));
        cluster.put(&resources::STATEFUL_SETS, &stateful_set(replicas, "", "v1"));
        cluster.put(&JOBS, &job(&format!(r#""parallelism":{replicas},"completions":{replicas},"#)));
        cluster.is_calm("negative sizes").await;
        assert_eq!(cluster.owners_of_pods(), []);
    }
    let most = i64::from(i32::MAX);
    let parallel = stateful_set(most, r#","podManagementPolicy":"Parallel""#, "v1");
    for (what, resource, json, at_most) in [
        ("ReplicaSet", resources::REPLICA_SETS, replica_set("set", most), 1300),
        ("Deployment", resources::DEPLOYMENTS, deployment(most, ROLLING, "v1"), 1300),
        ("StatefulSet", resources::STATEFUL_SETS, parallel, 8000),
        ("Job", JOBS, job(&format!(r#""parallelism":{most},"completions":{most},"backoffLimit":6,"#)), 1300),
    ] {
        let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
        let asked = refuse_pods(&server, 700);
        let cluster = Cluster::start_with(server, |_| {});
        cluster.put(&resource, &json);
        sleep(600).await;
        // Bursts of at most 500, the first slowly; once refused, with pauses that double. A StatefulSet's batches grow over the
        // pods it has, so it asks for a whole burst each time.
        let first = asked.swap(0, SeqCst);
        assert!((700..at_most).contains(&first), "{what}: asked for {first} pods");
        sleep(60).await;
        let later = asked.load(SeqCst);
        assert!(later <= at_most / 16, "{what}: asked for {later} pods in a minute");
        assert_eq!(cluster.server.list(&resources::PODS).len(), 700, "{what}");
        assert!(!cluster.events("FailedCreate").is_empty(), "{what}");
    }
}

#[tokio::test(start_paused = true)]
async fn schedules_that_never_fire() {
    let cluster = Cluster::start();
    for (n, (schedule, zone)) in [
        ("0 0 31 2 *", "Etc/UTC"),
        ("0 0 30 2 *", "Etc/UTC"),
        ("x y z", "Etc/UTC"),
        ("* * * *", "Etc/UTC"),
        ("61 * * * *", "Etc/UTC"),
        ("0 0 1 1 *", "Nowhere/Land"),
    ]
    .into_iter()
    .enumerate()
    {
        cluster.put(
            &CRON_JOBS,
            &format!(
                r#"{{"apiVersion":"batch/v1","kind":"CronJob","metadata":{{"name":"c{n}","namespace":"ns","uid":"c{n}"}},"spec":{{"schedule":"{schedule}",
                "timeZone":"{zone}","concurrencyPolicy":"Allow","jobTemplate":{{"spec":{{"template":{{"spec":{{"containers":[]}}}}}}}}}}}}"#
            ),
        );
    }
    sleep(400 * 24 * 3600).await;
    assert_eq!(cluster.server.list(&JOBS).len(), 0);
    cluster.is_calm("schedules").await;
}

/// Ends each pod as failed, a second after it was made.
fn failing_kubelet(server: &FakeServer) -> TaskGuard {
    let (server, env) = (server.clone(), server.client().env().clone());
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            env.sleep(Duration::from_secs(1)).await;
            for pod in server.list(&resources::PODS) {
                if pod.is_deleting() {
                    server.remove(&resources::PODS, pod.key());
                } else if pod.to_value().str_at(&["status", "phase"]).is_none() {
                    run_pod(&server, pod.key(), "10.0.0.1");
                    set_ready(&server, pod.key(), false);
                    server.edit(&resources::PODS, pod.key(), |pod| pod.set(&["status", "phase"], "Failed"));
                }
            }
        }
    }))
}

/// How many pods are made in each of some stretches of so many minutes.
async fn pods_made(cluster: &Cluster, minutes: u64) -> Vec<usize> {
    let mut made = Vec::new();
    for _ in 0..4 {
        cluster.server.forget_requests();
        sleep(minutes * 60).await;
        made.push(
            cluster
                .server
                .writes()
                .iter()
                .filter(|write| write.starts_with("POST") && write.ends_with("/pods"))
                .count(),
        );
    }
    made
}

#[tokio::test(start_paused = true)]
async fn pods_that_always_fail_are_made_more_and_more_seldom() {
    for (what, resource, json, first, last) in [
        ("Job", JOBS, job(r#""parallelism":1,"completions":1,"backoffLimit":1000,"#), 5..=9, 5..=8),
        ("DaemonSet", resources::DAEMON_SETS, daemon_set(REPLACE, "v1"), 8..=14, 2..=6),
    ] {
        let cluster = Cluster::start();
        let _alive = cluster.put_node("n1");
        let _kubelet = failing_kubelet(&cluster.server);
        cluster.put(&resource, &json);
        let made = pods_made(&cluster, 60).await;
        println!("{what}: {made:?} pods an hour");
        assert!(made[0] >= *first.start() && made[0] <= 4 + *first.end() * 2, "{what}: {made:?}");
        assert!(made[3] >= *last.start() && made[3] <= *last.end(), "{what}: {made:?}");
    }
}

/// Upstream too makes another as soon as one has failed, and leaves it to kubelets how often that is: never more than one for each.
#[tokio::test(start_paused = true)]
async fn pods_that_fail_are_replaced_one_for_one() {
    let parallel = stateful_set(3, r#","podManagementPolicy":"Parallel""#, "v1");
    for (what, resource, json, at_once) in [
        ("ReplicaSet", resources::REPLICA_SETS, replica_set("web", 3), 3),
        ("Deployment", resources::DEPLOYMENTS, deployment(3, ROLLING, "v1"), 3),
        ("StatefulSet", resources::STATEFUL_SETS, stateful_set(3, "", "v1"), 1),
        ("parallel StatefulSet", resources::STATEFUL_SETS, parallel, 3),
    ] {
        let cluster = Cluster::start();
        let _alive = cluster.put_node("n1");
        let _kubelet = failing_kubelet(&cluster.server);
        cluster.put(&resource, &json);
        sleep(10).await;
        let writes = cluster.writes_in_a_minute().await;
        let made = writes.iter().filter(|write| write.starts_with("POST") && write.ends_with("/pods")).count();
        println!("{what}: {} writes for {made} pods a minute", writes.len());
        // Each lives for a second; one of a StatefulSet has to go before the next can come.
        assert!((20 * at_once..=61 * at_once).contains(&made), "{what}: {made}");
        assert!(writes.len() <= 7 * made, "{what}: {} writes for {made} pods", writes.len());
    }
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_full_is_counted_no_more_than_needed() {
    const FULL: usize = 5;
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let asked = refuse_pods(&server, FULL);
    let cluster = Cluster::start_with(server, |_| {});
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    let quotas = Resource::namespaced("", "v1", "resourcequotas");
    let quota = r#"{"apiVersion":"v1","kind":"ResourceQuota","metadata":{"name":"q","namespace":"ns"},"spec":{"hard":{"pods":"5"}}}"#;
    cluster.put(&quotas, quota);
    cluster.put(&resources::REPLICA_SETS, &replica_set("web", 20));
    let used = || cluster.value(&quotas, "q").str_at(&["status", "used", "pods"]).map(str::to_owned);
    eventually("it is full", || used().as_deref() == Some("5")).await;
    // Somebody deletes pods all the time: whoever was refused comes again, and so do the counts.
    cluster.server.forget_requests();
    asked.store(0, SeqCst);
    for _ in 0..60 {
        let pod = cluster.server.list(&resources::PODS)[0].key().clone();
        cluster.server.remove(&resources::PODS, &pod);
        sleep(1).await;
    }
    let counts = cluster.server.writes().into_iter().filter(|write| write.contains("/resourcequotas/")).count();
    let asked_for = asked.swap(0, SeqCst);
    println!("{counts} counts and {asked_for} pods asked for, for 60 that went");
    // One that is made, two that are refused together as batches double, and one at each look after that.
    assert!(counts <= 2 * 60 && asked_for <= 6 * 60, "{counts} counts, {asked_for} pods asked for");
    sleep(3600).await;
    asked.store(0, SeqCst);
    let writes = cluster.writes_in_a_minute().await;
    let counts = writes.iter().filter(|write| write.contains("/resourcequotas/")).count();
    assert_eq!((counts, used().as_deref()), (0, Some("5")));
    assert!(asked.load(SeqCst) <= CALM && writes.len() <= 3 * CALM, "{writes:?}");
}
