//! What is told at a glance is what reading the whole tells.

use apimachinery::Value as Any;
use client::fake::FakeServer;
use env::Env;
use serde_json::{Value, json};

use super::*;
use crate::{Config, Configuration};

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "generation": 1, "resourceVersion": "5", "labels": {"app": "a", "tier": "b"}},
        "spec": {"schedulerName": "default-scheduler", "priority": 7, "containers":
            [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"phase": "Pending"}})
}

/// What the cache has after an attempt placed the pod on `n`, if a glance is enough at each of these states of it.
fn glanced(states: &[Value]) -> Option<Arc<PodInfo>> {
    let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
    let config =
        Config { env: env.clone(), client: FakeServer::new(env).client(), configuration: Configuration::default() };
    let (shared, _lanes) = crate::assemble(config, Arc::default());
    let info = PodInfo::new(&serde_json::from_value(pod()).unwrap());
    shared.cache.lock().assume(Arc::new(info), "n");
    for state in states {
        let revision: u64 = state["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap();
        let json = Any::from_serialize(state).unwrap().to_json();
        assert_eq!(glance(&shared, &json, 0)?, revision);
    }
    shared.cache.lock().pod("u").cloned()
}

#[tokio::test]
async fn a_glance_tells_what_reading_tells() {
    let bound = {
        let mut pod = pod();
        pod["metadata"]["resourceVersion"] = "6".into();
        pod["spec"]["nodeName"] = "n".into();
        pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "True"}]);
        pod
    };
    let runs = {
        let mut pod = bound.clone();
        pod["metadata"]["resourceVersion"] = "7".into();
        pod["status"]["phase"] = "Running".into();
        pod["status"]["startTime"] = "2026-01-01T00:00:00Z".into();
        pod["status"]["containerStatuses"] = json!([{"name": "c", "ready": false}]);
        pod
    };
    let enough = |states: &[&Value]| {
        let states: Vec<Value> = states.iter().map(|state| (*state).clone()).collect();
        let read = PodInfo::new(&serde_json::from_value(states.last().unwrap().clone()).unwrap());
        assert_eq!(format!("{:?}", glanced(&states).unwrap()), format!("{read:?}"));
    };
    enough(&[&bound]);
    enough(&[&bound, &runs]);
    enough(&[&runs]);
    let not_enough = |state: &Value, path: &str, value: Value| {
        let mut changed = state.clone();
        let (parent, key) = path.rsplit_once('/').unwrap();
        changed.pointer_mut(parent).unwrap()[key] = value;
        assert!(glanced(&[bound.clone(), state.clone()]).is_some());
        assert!(glanced(&[bound.clone(), changed.clone()]).is_none(), "{changed}");
    };
    for state in [&bound, &runs] {
        not_enough(state, "/metadata/generation", json!(2));
        not_enough(state, "/metadata/labels/tier", json!("c"));
        not_enough(state, "/metadata/labels/more", json!("c"));
        not_enough(state, "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"));
        not_enough(state, "/metadata/uid", json!("other"));
        not_enough(state, "/spec/nodeName", json!("elsewhere"));
        not_enough(state, "/spec/nodeName", json!(""));
        not_enough(state, "/status/phase", json!("Failed"));
        not_enough(state, "/status/phase", json!("Succeeded"));
    }
    not_enough(&runs, "/status/conditions", json!([{"type": "PodResizePending", "status": "True"}]));
    not_enough(&runs, "/status/conditions", json!([{"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}]));
    not_enough(&runs, "/status/containerStatuses", json!([{"name": "c", "resources": {"requests": {"cpu": "2"}}}]));
    not_enough(&runs, "/status/containerStatuses", json!([{"name": "c", "allocatedResources": {"cpu": "2"}}]));
    not_enough(&runs, "/status/resourceClaimStatuses", json!([{"name": "g", "resourceClaimName": "x"}]));
    assert!(glanced(&[bound.clone(), runs.clone(), bound]).is_none(), "it ran");
    // Its conditions change while it runs.
    let mut ready = runs.clone();
    ready["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    let kept = glanced(&[runs.clone(), ready]).unwrap();
    assert_eq!(kept.revision, 7);
}
