//! What is read of a Job, and the status that is written.

use apimachinery::{Object, Value};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::meta::{count, list, one, seconds};

/// The value of `spec.managedBy` that means this controller.
const OWN_NAME: &str = "kubernetes.io/job-controller";

#[derive(Deserialize)]
pub(super) struct View {
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default = "one")]
    pub parallelism: i64,
    pub completions: Option<i64>,
    pub active_deadline_seconds: Option<i64>,
    #[serde(default = "six")]
    pub backoff_limit: i64,
    pub backoff_limit_per_index: Option<i64>,
    pub max_failed_indexes: Option<i64>,
    #[serde(default)]
    pub completion_mode: String,
    #[serde(default)]
    pub suspend: bool,
    pub selector: Value,
    #[serde(default)]
    pub template: Value,
    pub pod_failure_policy: Option<FailurePolicy>,
    pub success_policy: Option<SuccessPolicy>,
    #[serde(default)]
    pod_replacement_policy: String,
    managed_by: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct FailurePolicy {
    #[serde(default)]
    pub rules: Vec<FailureRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FailureRule {
    #[serde(default)]
    pub action: String,
    pub on_exit_codes: Option<OnExitCodes>,
    #[serde(default)]
    pub on_pod_conditions: Vec<OnPodCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OnExitCodes {
    pub container_name: Option<String>,
    #[serde(default)]
    pub operator: String,
    #[serde(default)]
    pub values: Vec<i64>,
}

#[derive(Deserialize)]
pub(super) struct OnPodCondition {
    pub r#type: String,
    #[serde(default)]
    pub status: String,
}

#[derive(Deserialize)]
pub(super) struct SuccessPolicy {
    #[serde(default)]
    pub rules: Vec<SuccessRule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SuccessRule {
    pub succeeded_indexes: Option<String>,
    pub succeeded_count: Option<i64>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub active: i64,
    pub ready: Option<i64>,
    pub terminating: Option<i64>,
    pub succeeded: i64,
    pub failed: i64,
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    pub completed_indexes: String,
    pub failed_indexes: Option<String>,
    pub uncounted_terminated_pods: Uncounted,
    pub conditions: Vec<Condition>,
}

/// Pods, by uid, whose end the status knows of and whose finalizer is still to be removed before they are counted.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Uncounted {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub succeeded: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    pub r#type: String,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
}

fn six() -> i64 {
    6
}

impl Spec {
    pub(super) fn is_indexed(&self) -> bool {
        self.completion_mode == "Indexed"
    }

    pub(super) fn is_managed_elsewhere(&self) -> bool {
        self.managed_by.as_deref().is_some_and(|name| name != OWN_NAME)
    }

    /// Whether pods are replaced only when they have ended, not already when they are being deleted.
    pub(super) fn replaces_only_failed(&self) -> bool {
        self.pod_replacement_policy == "Failed" || self.pod_failure_policy.is_some()
    }

    /// Whether the index is one that the Job has.
    pub(super) fn has_index(&self, index: Option<i64>) -> bool {
        index.is_some_and(|index| index < self.completions.unwrap_or_default())
    }
}

impl Status {
    pub(super) fn is_finished(&self) -> bool {
        finished(&self.conditions).is_some()
    }

    pub(super) fn find(&self, r#type: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.r#type == r#type)
    }

    pub(super) fn find_true(&self, r#type: &str) -> Option<&Condition> {
        self.find(r#type).filter(|condition| condition.status == "True")
    }

    /// Puts a condition there, or changes it. One that is not there is not put there to be false. Upstream:
    /// ensureJobConditionStatus.
    pub(super) fn ensure(&mut self, condition: Condition) -> bool {
        let same = |known: &Condition| {
            (&known.status, &known.reason, &known.message) == (&condition.status, &condition.reason, &condition.message)
        };
        match self.conditions.iter_mut().find(|known| known.r#type == condition.r#type) {
            Some(known) if same(known) => false,
            Some(known) => {
                *known = condition;
                true
            }
            None if condition.status == "False" => false,
            None => {
                self.conditions.push(condition);
                true
            }
        }
    }

    /// The members of the status, as they are written; null is not there.
    pub(super) fn fields(&self) -> Value {
        let mut fields = Value::object();
        let or_null = |value: Option<Value>| value.unwrap_or(Value::Null);
        let text = |text: &str| if text.is_empty() { Value::Null } else { text.into() };
        fields.set(&["conditions"], list(&self.conditions));
        fields.set(&["startTime"], or_null(self.start_time.map(|time| seconds(time).into())));
        fields.set(&["completionTime"], or_null(self.completion_time.map(|time| seconds(time).into())));
        fields.set(&["active"], count(self.active));
        fields.set(&["succeeded"], count(self.succeeded));
        fields.set(&["failed"], count(self.failed));
        fields.set(&["terminating"], or_null(self.terminating.map(Value::from)));
        fields.set(&["completedIndexes"], text(&self.completed_indexes));
        fields.set(&["failedIndexes"], or_null(self.failed_indexes.as_deref().map(Value::from)));
        let uncounted = Value::from_serialize(&self.uncounted_terminated_pods).expect("views are plain data");
        fields.set(&["uncountedTerminatedPods"], uncounted);
        fields.set(&["ready"], or_null(self.ready.map(Value::from)));
        fields
    }
}

impl Condition {
    pub(super) fn new(
        r#type: &str,
        status: &str,
        reason: &str,
        message: impl Into<String>,
        now: Timestamp,
    ) -> Condition {
        Condition {
            r#type: r#type.to_owned(),
            status: status.to_owned(),
            last_probe_time: Some(seconds(now)),
            last_transition_time: Some(seconds(now)),
            reason: reason.to_owned(),
            message: message.into(),
        }
    }
}

/// The condition that says that a Job has ended: `Complete` or `Failed`.
pub(crate) fn finished(conditions: &[Condition]) -> Option<&Condition> {
    let ends = |condition: &&Condition| matches!(condition.r#type.as_str(), "Complete" | "Failed");
    conditions.iter().filter(ends).find(|condition| condition.status == "True")
}

/// What others than this controller read of a Job's end.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Outcome {
    pub start_time: Option<Timestamp>,
    pub completion_time: Option<Timestamp>,
    pub conditions: Vec<Condition>,
}

/// Reads a Job's end; a Job that cannot be read has not ended.
pub(crate) fn outcome(job: &Object) -> Outcome {
    #[derive(Deserialize)]
    struct Wire {
        #[serde(default)]
        status: Outcome,
    }
    serde_json::from_slice::<Wire>(job.body()).map(|job| job.status).unwrap_or_default()
}
