//! Creating and deleting pods until their number is right.

use std::collections::HashMap;
use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{Client, DeleteOptions, Error, resources};
use futures_util::future::join_all;

use super::{Member, ReplicaSets, View, rank};
use crate::meta::{CONTROLLER_INDEX, controller_reference};

/// No more pods than this at a time.
pub(super) const BURST: usize = 500;
/// The first batch of creations; each later one is twice as large, as long as all succeed.
const FIRST_BATCH: usize = 1;

/// How many pods were made or deleted, or the first error of several requests, after all were made.
pub(super) async fn manage(
    sets: &ReplicaSets,
    client: &Client,
    set: &Arc<Object>,
    view: &View,
    members: &[Member],
) -> Result<usize, Error> {
    let wanted = view.spec.replicas.max(0) as usize;
    if members.len() < wanted {
        let missing = (wanted - members.len()).min(BURST);
        tracing::debug!(replica_set = %set.key(), missing, "too few pods");
        return create(sets, client, set, &view.spec.template, missing).await;
    }
    let surplus = (members.len() - wanted).min(BURST);
    if surplus == 0 {
        return Ok(0);
    }
    tracing::debug!(replica_set = %set.key(), surplus, "too many pods");
    let crowds = crowds(sets, set);
    let crowd = |node: &str| crowds.get(node).copied().unwrap_or_default();
    let chosen = rank::to_delete(members, surplus, crowd, client.env().now());
    count(join_all(chosen.into_iter().map(|member| delete(sets, client, set, member))).await)
}

async fn create(
    sets: &ReplicaSets,
    client: &Client,
    set: &Arc<Object>,
    template: &Value,
    missing: usize,
) -> Result<usize, Error> {
    let pod = pod_from(template, set);
    let (mut created, mut batch) = (0, FIRST_BATCH.min(missing));
    while batch > 0 {
        let more = count(join_all((0..batch).map(|_| create_one(sets, client, set, &pod))).await)?;
        created += more;
        if more < batch {
            break;
        }
        batch = (2 * batch).min(missing - created);
    }
    Ok(created)
}

/// Whether there is one more.
async fn create_one(sets: &ReplicaSets, client: &Client, set: &Object, pod: &Value) -> Result<bool, Error> {
    match client.create_brief(&resources::PODS, pod).await {
        Ok(pod) => {
            sets.events.normal(set, "SuccessfulCreate", format!("Created pod: {}", pod.key.name));
            Ok(true)
        }
        // Nothing can be created there any more, and nothing need be.
        Err(error) if error.is_namespace_terminating() => Ok(false),
        Err(error) => {
            sets.events.warning(set, "FailedCreate", format!("Error creating: {error}"));
            Err(error)
        }
    }
}

/// Whether there is one less.
async fn delete(sets: &ReplicaSets, client: &Client, set: &Object, member: &Member) -> Result<bool, Error> {
    let pod = &member.object;
    match client.delete(&resources::PODS, pod.key(), &DeleteOptions::uid(pod.uid())).await {
        Ok(_) => {
            sets.events.normal(set, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
            Ok(true)
        }
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => {
            sets.events.warning(set, "FailedDelete", format!("Error deleting: {error}"));
            Err(error)
        }
    }
}

/// How many did something, or the first error.
fn count(results: Vec<Result<bool, Error>>) -> Result<usize, Error> {
    results.into_iter().try_fold(0, |sum, result| Ok(sum + usize::from(result?)))
}

/// The pod that the template describes, as the owner's own.
pub(crate) fn pod_from(template: &Value, owner: &Object) -> Value {
    let mut pod = Value::object();
    pod.set(&["apiVersion"], "v1");
    pod.set(&["kind"], "Pod");
    for field in ["annotations", "finalizers", "labels"] {
        if let Some(value) = template.at(&["metadata", field]) {
            pod.set(&["metadata", field], value);
        }
    }
    pod.set(&["metadata", "generateName"], format!("{}-", owner.name()));
    pod.set(&["metadata", "namespace"], owner.namespace());
    pod.set(&["metadata", "ownerReferences"], vec![controller_reference(owner)]);
    if let Some(spec) = template.get("spec") {
        pod.set(&["spec"], spec);
    }
    pod
}

/// How many active pods of this set and of its siblings are on each node.
fn crowds(sets: &ReplicaSets, set: &Object) -> HashMap<String, usize> {
    let siblings = sets.siblings(set);
    let pods = siblings.iter().flat_map(|sibling| sets.pods.informer.by_index(CONTROLLER_INDEX, sibling.uid()));
    let mut crowds = HashMap::new();
    for pod in pods.filter(|pod| sets.pods.is_active(pod)) {
        *crowds.entry(sets.pods.view(&pod).node.clone().unwrap_or_default()).or_default() += 1;
    }
    crowds
}
