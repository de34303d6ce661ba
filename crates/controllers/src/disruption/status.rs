//! What a budget's status says.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{Client, Error, IgnoreNotFound, resources};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Counted;
use crate::meta::{count, list, seconds, write_status_at};

const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    observed_generation: i64,
    pub disrupted_pods: BTreeMap<String, String>,
    disruptions_allowed: i64,
    current_healthy: i64,
    desired_healthy: i64,
    expected_pods: i64,
    conditions: Vec<Condition>,
}

/// As `metav1.Condition`: reason and message are always there.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    r#type: String,
    status: String,
    #[serde(skip_serializing_if = "is_zero")]
    observed_generation: i64,
    last_transition_time: Option<String>,
    reason: String,
    message: String,
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

impl Status {
    /// The status by what was counted.
    pub(super) fn counted(
        &self,
        budget: &Object,
        counted: &Counted,
        healthy: i64,
        disrupted_pods: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Status {
        let allowed = if counted.expected <= 0 { 0 } else { (healthy - counted.desired).max(0) };
        let mut status = Status {
            observed_generation: budget.generation(),
            disrupted_pods,
            disruptions_allowed: allowed,
            current_healthy: healthy,
            desired_healthy: counted.desired,
            expected_pods: counted.expected,
            conditions: self.conditions.clone(),
        };
        let (value, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
        status.set(value, reason, "", now);
        status
    }

    /// The status when nothing could be counted.
    pub(super) fn failed(&self, message: &str, now: Timestamp) -> Status {
        let mut status = Status { disruptions_allowed: 0, ..self.clone() };
        status.set("False", "SyncFailed", message, now);
        status
    }

    /// The transition time changes only with the status.
    fn set(&mut self, value: &str, reason: &str, message: &str, now: Timestamp) {
        let known = self.conditions.iter().position(|condition| condition.r#type == DISRUPTION_ALLOWED);
        let since = known.map(|at| &self.conditions[at]).filter(|known| known.status == value);
        let since = since.and_then(|known| known.last_transition_time.clone()).unwrap_or_else(|| seconds(now));
        let condition = Condition {
            r#type: DISRUPTION_ALLOWED.to_owned(),
            status: value.to_owned(),
            observed_generation: self.observed_generation,
            last_transition_time: Some(since),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        match known {
            Some(at) => self.conditions[at] = condition,
            None => self.conditions.push(condition),
        }
    }

    /// Writes the status unless the budget has it; evictions write it too, so only at the revision that it was made for.
    pub(super) async fn write(&self, client: &Client, budget: &Arc<Object>) -> Result<(), Error> {
        let mut fields = Value::object();
        fields.set(&["observedGeneration"], count(self.observed_generation));
        let mut disrupted = Value::object();
        for (pod, since) in &self.disrupted_pods {
            disrupted.set(&[pod], since);
        }
        let none = self.disrupted_pods.is_empty();
        fields.set(&["disruptedPods"], if none { Value::Null } else { disrupted });
        fields.set(&["disruptionsAllowed"], self.disruptions_allowed);
        fields.set(&["currentHealthy"], self.current_healthy);
        fields.set(&["desiredHealthy"], self.desired_healthy);
        fields.set(&["expectedPods"], self.expected_pods);
        fields.set(&["conditions"], list(&self.conditions));
        write_status_at(client, &resources::POD_DISRUPTION_BUDGETS, budget, &fields).await.ignore_not_found()
    }
}
