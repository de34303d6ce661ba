//! Claims of devices: made for pods as upstream's controller makes them, and read after the scheduler wrote what they got.

use anyhow::{Context, Result};
use apimachinery::{ObjectKey, Value as Any};
use client::{Client, PatchKind, Resource, resources};
use serde_json::{Map, Value, json};
use testkit::placements::Scenario;

pub(super) const RESOURCE_CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");

/// What upstream's scheduler says when it takes devices from a claim.
pub(super) const TAKEN_BACK: &str = "deallocation of ResourceClaim completed";

/// Makes the pod, and the claims of its templates.
pub(super) async fn make_for(client: &Client, scenario: &Scenario, at: usize) -> Result<()> {
    let pod = client.create(&resources::PODS, &Any::from_serialize(&scenario.pods[at])?).await?;
    for claim in scenario.made_for(at, pod.uid()) {
        let made = client.create(&RESOURCE_CLAIMS, &Any::from_serialize(&claim)?).await;
        made.with_context(|| format!("creating {claim}"))?;
    }
    Ok(())
}

/// Tells the pod which claims were made for it.
pub(super) async fn tell(client: &Client, pod: &Value) -> Result<()> {
    let patch = Any::from_serialize(&json!({"status": pod["status"]}))?;
    client.patch_status(&resources::PODS, &key_of(pod), PatchKind::Merge, &patch).await?;
    Ok(())
}

/// What the pod's claims have, by their names.
pub(super) async fn allocations(client: &Client, scenario: &Scenario, at: usize, pod: &ObjectKey) -> Result<Value> {
    let mut allocations = Map::new();
    for name in names(&scenario.pods[at]) {
        let claim = client.get(&RESOURCE_CLAIMS, &ObjectKey::new(&pod.namespace, &name)).await?.to_value();
        let claim: Value = serde_json::from_slice(&claim.to_json())?;
        allocations.insert(name, claim["status"]["allocation"].clone());
    }
    Ok(Value::Object(allocations))
}

/// The claims that a pod means, made for it or not.
fn names(pod: &Value) -> Vec<String> {
    let entries = pod["spec"]["resourceClaims"].as_array().into_iter().flatten();
    let made = pod["status"]["resourceClaimStatuses"].as_array().into_iter().flatten();
    entries.chain(made).filter_map(|entry| entry["resourceClaimName"].as_str().map(str::to_owned)).collect()
}

/// Why the pod (`namespace/name`) was not placed before a claim was taken back for its sake, as the log tells it.
pub(super) fn taken_back(log: &str, pod: &str) -> Option<String> {
    let about = format!("pod=\"{pod}\"");
    // A pod of the same name in an earlier scenario is none of this one's: only what came after its last beginning counts.
    let began = log.rfind(&format!("\"Add event for unscheduled pod\" {about}")).unwrap_or_default();
    let mut lines = log[began..].lines().filter(|line| line.contains(&about) && line.contains(TAKEN_BACK));
    let line = lines.find(|line| line.contains("Unable to schedule pod"))?;
    let rest = &line[line.find(" err=\"")? + 6..];
    // Quotes within it are escaped.
    let end = rest.match_indices('"').map(|(at, _)| at).find(|at| !rest[..*at].ends_with('\\'))?;
    Some(rest[..end].replace("\\\"", "\""))
}

/// Takes the claim's finalizers off: nobody else is there to do it.
pub(super) async fn let_go(client: &Client, claim: &ObjectKey) -> Result<()> {
    let patch = Any::from_serialize(&json!({"metadata": {"finalizers": null}}))?;
    client.patch(&RESOURCE_CLAIMS, claim, PatchKind::Merge, &patch).await?;
    Ok(())
}

fn key_of(object: &Value) -> ObjectKey {
    let text = |key: &str| object["metadata"][key].as_str().unwrap_or_default().to_owned();
    ObjectKey::new(text("namespace"), text("name"))
}
