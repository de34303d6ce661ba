use super::deployment::{ROLLING, deployment};
use super::*;

fn budget(spec: &str) -> String {
    format!(
        r#"{{"apiVersion":"policy/v1","kind":"PodDisruptionBudget","metadata":{{"name":"b","namespace":"ns","generation":1}},
        "spec":{{"selector":{{"matchLabels":{{"app":"web"}}}},{spec}}}}}"#
    )
}

impl Cluster {
    fn budget(&self) -> (i64, i64, i64, i64) {
        let count = |field: &str| self.number(&resources::POD_DISRUPTION_BUDGETS, "b", field);
        (count("disruptionsAllowed"), count("currentHealthy"), count("desiredHealthy"), count("expectedPods"))
    }

    fn budget_condition(&self) -> (String, String) {
        let value = self.value(&resources::POD_DISRUPTION_BUDGETS, "b");
        let Some(condition) = value.items_at(&["status", "conditions"]).first() else { return Default::default() };
        let text = |key: &str| condition.str_at(&[key]).unwrap_or_default().to_owned();
        (text("reason"), text("message"))
    }
}

fn pod(name: &str, owner: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","labels":{{"app":"web"}},"ownerReferences":[{owner}]}},
            "spec":{{"containers":[{{"name":"c","image":"x"}}]}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn budgets_are_counted_by_owners() {
    for (spec, expect) in [
        (r#""minAvailable":3"#, (1, 4, 3, 4)),
        (r#""minAvailable":"50%""#, (2, 4, 2, 4)),
        (r#""maxUnavailable":1"#, (1, 4, 3, 4)),
        (r#""maxUnavailable":"30%""#, (2, 4, 2, 4)),
        (r#""minAvailable":9"#, (0, 4, 9, 4)),
    ] {
        let cluster = Cluster::start();
        let _kubelet = Kubelet::start(&cluster.server);
        let _alive = cluster.put_node("n1");
        cluster.put(&resources::DEPLOYMENTS, &deployment(4, ROLLING, "v1"));
        cluster.put(&resources::POD_DISRUPTION_BUDGETS, &budget(spec));
        eventually(spec, || cluster.budget() == expect).await;
        let reason = if expect.0 > 0 { "SufficientPods" } else { "InsufficientPods" };
        assert_eq!(cluster.budget_condition(), (reason.to_owned(), String::new()));
        cluster.settles().await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_counted_allows_nothing() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    // A config map has no scale.
    let owner = cluster.put(
        &resources::CONFIG_MAPS,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"m","namespace":"ns"}}"#,
    );
    let reference =
        format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","name":"m","uid":"{}","controller":true}}"#, owner.uid());
    cluster.put(&resources::PODS, &pod("p", &reference));
    cluster.put(&resources::POD_DISRUPTION_BUDGETS, &budget(r#""maxUnavailable":1"#));
    let failed = ("SyncFailed".to_owned(), "configmaps does not implement the scale subresource".to_owned());
    eventually("the condition says why", || cluster.budget_condition() == failed).await;
    cluster.settles().await;
    assert!(!cluster.events("CalculateExpectedPodCountFailed").is_empty());
    // A number needs no owners.
    cluster.edit_set(&resources::POD_DISRUPTION_BUDGETS, "b", |value| {
        value.remove(&["spec", "maxUnavailable"]);
        value.set(&["spec", "minAvailable"], 1);
    });
    eventually("it is counted", || cluster.budget() == (0, 1, 1, 1)).await;
    cluster.put(&resources::PODS, &pod("q", ""));
    eventually("it is counted again", || cluster.budget() == (1, 2, 1, 2)).await;
}

#[tokio::test(start_paused = true)]
async fn evicted_pods_count_as_gone_for_a_while() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    for name in ["a", "b", "c"] {
        cluster.put(&resources::PODS, &pod(name, ""));
    }
    cluster.put(&resources::POD_DISRUPTION_BUDGETS, &budget(r#""minAvailable":1"#));
    eventually("it is counted", || cluster.budget() == (2, 3, 1, 3)).await;
    // As the eviction writes it, and the pod stays.
    let now = format!("{:.0}", cluster.server.client().env().now());
    cluster.server.edit(&resources::POD_DISRUPTION_BUDGETS, &key("b"), |budget| {
        budget.set(&["status", "disruptedPods", "a"], &now);
        budget.set(&["status", "disruptedPods", "gone"], &now);
        budget.set(&["status", "disruptionsAllowed"], 1);
    });
    let condition = format!(
        r#"[{{"type":"Ready","status":"True","lastTransitionTime":"{now}"}},
            {{"type":"DisruptionTarget","status":"True","reason":"EvictionByEvictionAPI","lastTransitionTime":"{now}"}}]"#
    );
    cluster.server.edit(&resources::PODS, &key("a"), |pod| {
        pod.set(&["status", "conditions"], Value::parse(condition.as_bytes()).unwrap());
    });
    eventually("it counts as gone", || cluster.budget() == (1, 2, 1, 3)).await;
    let noted = cluster.value(&resources::POD_DISRUPTION_BUDGETS, "b");
    assert_eq!(noted.at(&["status", "disruptedPods"]).unwrap().as_object().unwrap().len(), 1);
    sleep(125).await;
    assert_eq!(cluster.budget(), (2, 3, 1, 3));
    let pod = cluster.value(&resources::PODS, "a");
    let target =
        pod.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("DisruptionTarget"));
    assert_eq!(target.unwrap().str_at(&["status"]), Some("False"));
    assert_eq!(cluster.events("NotDeleted").len(), 1);
    cluster.settles().await;
}
