use super::*;

const QUOTAS: Resource = Resource::namespaced("", "v1", "resourcequotas");

impl Cluster {
    fn put_quota(&self, name: &str, hard: &str, rest: &str) {
        self.put(
            &QUOTAS,
            &format!(
                r#"{{"apiVersion":"v1","kind":"ResourceQuota","metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{"hard":{hard}{rest}}}}}"#
            ),
        );
    }

    fn used(&self, name: &str) -> String {
        self.value(&QUOTAS, name).at(&["status", "used"]).map(|used| used.to_string()).unwrap_or_default()
    }

    fn put_pod(&self, name: &str, rest: &str) {
        self.put(
            &resources::PODS,
            &format!(
                r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{{rest}"containers":[{{"name":"c",
                "resources":{{"requests":{{"cpu":"250m"}}}}}}]}}}}"#
            ),
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_counted() {
    let cluster = Cluster::start();
    cluster.put_pod("a", "");
    cluster.put_pod("b", r#""activeDeadlineSeconds":5,"#);
    cluster.put_quota("all", r#"{"pods":"5","requests.cpu":"2","count/configmaps":"9","services":"1"}"#, "");
    cluster.put_quota("ending", r#"{"pods":"5"}"#, r#","scopes":["Terminating"]"#);
    eventually("they are counted", || {
        cluster.used("all") == r#"{"count/configmaps":"0","pods":"2","requests.cpu":"500m","services":"0"}"#
            && cluster.used("ending") == r#"{"pods":"1"}"#
    })
    .await;
    let hard = cluster.value(&QUOTAS, "all").at(&["status", "hard"]).map(|hard| hard.to_string());
    assert_eq!(hard.as_deref(), Some(r#"{"count/configmaps":"9","pods":"5","requests.cpu":"2","services":"1"}"#));
    // What ends or goes is given back.
    cluster.server.edit(&resources::PODS, &key("b"), |pod| pod.set(&["status", "phase"], "Succeeded"));
    eventually("the ended one is given back", || cluster.used("ending") == r#"{"pods":"0"}"#).await;
    cluster.server.remove(&resources::PODS, &key("a"));
    eventually("the one that is gone too", || cluster.used("all").contains(r#""pods":"0","requests.cpu":"0""#)).await;
    // A charge that came to nothing.
    cluster.server.edit(&QUOTAS, &key("all"), |quota| quota.set(&["status", "used", "pods"], "3"));
    eventually("it is given back", || cluster.used("all").contains(r#""pods":"0""#)).await;
    // The limits change.
    cluster.server.edit(&QUOTAS, &key("all"), |quota| {
        quota.set(&["spec", "hard"], Value::parse(br#"{"secrets":"1"}"#).unwrap());
    });
    eventually("it is counted anew", || cluster.used("all") == r#"{"secrets":"0"}"#).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_will_not_go_ceases_to_count() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    cluster.put_pod("a", r#""nodeName":"n1","#);
    cluster.put_quota("q", r#"{"pods":"5"}"#, "");
    eventually("it is counted", || cluster.used("q") == r#"{"pods":"1"}"#).await;
    let now = format!("{:.0}", cluster.server.client().env().now() + Duration::from_secs(30));
    cluster.server.edit(&resources::PODS, &key("a"), |pod| {
        pod.set(&["metadata", "deletionTimestamp"], now.as_str());
        pod.set(&["metadata", "deletionGracePeriodSeconds"], 30);
    });
    sleep(50).await;
    assert_eq!(cluster.used("q"), r#"{"pods":"1"}"#);
    sleep(20).await;
    assert_eq!(cluster.used("q"), r#"{"pods":"0"}"#);
}

#[tokio::test(start_paused = true)]
async fn a_count_never_undoes_a_charge() {
    let cluster = Cluster::start();
    cluster.put_quota("q", r#"{"pods":"100"}"#, "");
    eventually("nothing is used", || cluster.used("q") == r#"{"pods":"0"}"#).await;
    // News of pods don't come while they are made and charged.
    cluster.server.hold_watches(&resources::PODS, true);
    for n in 1..=20 {
        cluster.put_pod(&format!("p{n}"), "");
        cluster.server.edit(&QUOTAS, &key("q"), |quota| quota.set(&["status", "used", "pods"], n.to_string()));
        sleep(1).await;
        assert_eq!(cluster.used("q"), format!(r#"{{"pods":"{n}"}}"#));
    }
    sleep(10).await;
    assert_eq!(cluster.used("q"), r#"{"pods":"20"}"#);
}
