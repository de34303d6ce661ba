//! Evictions ask disruption budgets.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::fixture::Fixture;

const PODS: &str = "/api/v1/namespaces/default/pods";
const BUDGETS: &str = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";

async fn pod(fixture: &Fixture, name: &str, ready: bool) {
    let pod = json!({"metadata": {"name": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}});
    fixture.ok("POST", PODS, &pod.to_string()).await;
    let status = if ready { "True" } else { "False" };
    let status = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": status}]}});
    fixture.ok("PATCH", &format!("{PODS}/{name}/status"), &status.to_string()).await;
}

/// A budget as the controller would have counted it.
async fn budget(fixture: &Fixture, name: &str, spec: Value, allowed: i64, healthy: i64, desired: i64) {
    let mut spec = spec;
    spec["selector"] = json!({"matchLabels": {"app": "web"}});
    fixture.ok("POST", BUDGETS, &json!({"metadata": {"name": name}, "spec": spec}).to_string()).await;
    let status = json!({"status": {"observedGeneration": 1, "disruptionsAllowed": allowed, "currentHealthy": healthy,
        "desiredHealthy": desired, "expectedPods": healthy}});
    fixture.ok("PATCH", &format!("{BUDGETS}/{name}/status"), &status.to_string()).await;
}

async fn evict(fixture: &Fixture, name: &str, options: Value) -> super::fixture::Reply {
    let body =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}, "deleteOptions": options});
    fixture.send("POST", &format!("{PODS}/{name}/eviction"), &body.to_string()).await
}

#[tokio::test]
async fn a_budget_is_never_exceeded() {
    let fixture = Fixture::start().await;
    let names: Vec<String> = (0..12).map(|n| format!("p{n}")).collect();
    for name in &names {
        pod(&fixture, name, true).await;
    }
    budget(&fixture, "b", json!({"minAvailable": 9}), 3, 12, 9).await;
    let dry = evict(&fixture, "p0", json!({"dryRun": ["All"]})).await;
    assert_eq!(dry.code, 201, "{}", dry.text);
    let replies = join_all(names.iter().map(|name| evict(&fixture, name, json!({})))).await;
    let (let_go, refused): (Vec<_>, Vec<_>) = replies.iter().partition(|reply| reply.code == 201);
    assert_eq!((let_go.len(), refused.len()), (3, 9));
    for reply in refused {
        assert_eq!(reply.code, 429, "{}", reply.text);
        assert_eq!(reply.json["message"], "Cannot evict pod as it would violate the pod's disruption budget.");
        assert_eq!(reply.json["details"]["causes"][0]["reason"], "DisruptionBudget");
        assert!(!reply.headers.contains_key("retry-after"));
    }
    let left = fixture.ok("GET", &format!("{BUDGETS}/b"), "").await;
    assert_eq!(left["status"]["disruptionsAllowed"], 0);
    assert_eq!(left["status"]["disruptedPods"].as_object().unwrap().len(), 3);
    assert_eq!(left["status"]["conditions"][0]["reason"], "InsufficientPods");
    let gone = fixture.ok("GET", PODS, "").await;
    let going = gone["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_string());
    let marked = going.clone().filter(|pod| {
        let conditions = pod["status"]["conditions"].as_array().unwrap();
        conditions.iter().any(|known| known["type"] == "DisruptionTarget" && known["reason"] == "EvictionByEvictionAPI")
    });
    assert_eq!((going.count(), marked.count()), (3, 3));
}

#[tokio::test]
async fn pods_that_are_no_loss_may_go() {
    let fixture = Fixture::start().await;
    for (name, ready) in [("sick", false), ("well", true), ("pending", true)] {
        pod(&fixture, name, ready).await;
    }
    fixture.ok("PATCH", &format!("{PODS}/pending/status"), r#"{"status":{"phase":"Pending"}}"#).await;
    budget(&fixture, "b", json!({"minAvailable": 2}), 0, 1, 2).await;
    assert_eq!(evict(&fixture, "pending", json!({})).await.code, 201);
    let refused = evict(&fixture, "sick", json!({})).await;
    assert_eq!(refused.code, 429, "{}", refused.text);
    let why = "The disruption budget b needs 2 healthy pods and has 1 currently";
    assert_eq!(refused.json["details"]["causes"][0]["message"], why);
    fixture.ok("PATCH", &format!("{BUDGETS}/b"), r#"{"spec":{"unhealthyPodEvictionPolicy":"AlwaysAllow"}}"#).await;
    assert_eq!(evict(&fixture, "sick", json!({})).await.code, 201);
    // The budget was edited, and nobody has counted it since.
    let uncounted = evict(&fixture, "well", json!({})).await;
    assert_eq!((uncounted.code, uncounted.headers["retry-after"].as_bytes()), (429, &b"10"[..]));
}

#[tokio::test]
async fn several_budgets_and_preconditions_refuse() {
    let fixture = Fixture::start().await;
    pod(&fixture, "p", true).await;
    budget(&fixture, "a", json!({"maxUnavailable": 1}), 1, 1, 0).await;
    let other = evict(&fixture, "p", json!({"preconditions": {"uid": "11111111-1111-4111-8111-111111111111"}})).await;
    assert_eq!(other.code, 409, "{}", other.text);
    assert!(other.text.contains("does not match the UID in record"), "{}", other.text);
    budget(&fixture, "b", json!({"maxUnavailable": 1}), 1, 1, 0).await;
    let several = evict(&fixture, "p", json!({})).await;
    assert_eq!(several.code, 500, "{}", several.text);
    assert!(several.text.contains("more than one PodDisruptionBudget"), "{}", several.text);
}
