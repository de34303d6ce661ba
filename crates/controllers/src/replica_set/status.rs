//! What a ReplicaSet's status says.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Selector, Value};
use client::{Client, Error, IgnoreNotFound, Resource};
use jiff::Timestamp;

use super::{Member, View};
use crate::meta::{Condition, between, count as number, list, now, write_status};

const REPLICA_FAILURE: &str = "ReplicaFailure";

/// How many pods are how far.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Counts {
    replicas: i64,
    fully_labeled: i64,
    ready: i64,
    available: i64,
    /// Pods that are ending; ReplicationControllers don't tell them.
    pub terminating: Option<i64>,
    /// When the next ready pod has been ready long enough.
    pub next_available_in: Option<Duration>,
}

pub(super) fn count(view: &View, members: &[Member], now: Timestamp) -> Counts {
    let labels = view.spec.template.at(&["metadata", "labels"]).and_then(Value::as_object);
    let labels = labels.into_iter().flat_map(|labels| labels.iter());
    let template = Selector::from_labels(labels.filter_map(|(key, value)| Some((key, value.as_str()?))));
    let min_ready = Duration::from_secs(view.spec.min_ready_seconds);
    let mut counts = Counts { replicas: members.len() as i64, ..Counts::default() };
    for member in members {
        counts.fully_labeled += i64::from(template.matches(&member.object));
        let Some(since) = member.view.ready_since else { continue };
        counts.ready += 1;
        let left = between(now, since + min_ready);
        if left.is_zero() {
            counts.available += 1;
            continue;
        }
        counts.next_available_in = Some(counts.next_available_in.map_or(left, |next| next.min(left)));
    }
    counts
}

/// Writes the status unless it says all this already. `failure` is what creating or deleting pods ran into.
pub(super) async fn write(
    client: &Client,
    resource: &Resource,
    set: &Arc<Object>,
    view: &View,
    counts: &Counts,
    members: usize,
    failure: Option<&Error>,
) -> Result<(), Error> {
    let mut conditions = view.status.conditions.clone();
    let known = Condition::find(&conditions, REPLICA_FAILURE).is_some();
    match failure {
        Some(error) if !known => {
            let (reason, why) = match (members as i64) < view.spec.replicas {
                true => ("FailedCreate", error.to_string()),
                false => ("FailedDelete", format!("unable to delete pods: {error}")),
            };
            let mut condition = Condition::new(REPLICA_FAILURE, "True", reason, why);
            condition.last_transition_time = Some(now(client.env()));
            conditions.push(condition);
        }
        None if known => conditions.retain(|condition| condition.r#type != REPLICA_FAILURE),
        _ => {}
    }
    let mut fields = Value::object();
    fields.set(&["replicas"], counts.replicas);
    fields.set(&["fullyLabeledReplicas"], number(counts.fully_labeled));
    fields.set(&["readyReplicas"], number(counts.ready));
    fields.set(&["availableReplicas"], number(counts.available));
    if let Some(terminating) = counts.terminating {
        fields.set(&["terminatingReplicas"], terminating);
    }
    fields.set(&["observedGeneration"], number(set.generation()));
    fields.set(&["conditions"], list(&conditions));
    write_status(client, resource, set, fields).await.ignore_not_found()
}
