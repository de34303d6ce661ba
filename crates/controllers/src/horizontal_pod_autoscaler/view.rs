//! What is read of HorizontalPodAutoscalers, and what is written back.

use std::sync::Arc;

use apimachinery::{Object, Quantity, Value};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};

use crate::meta::{Condition, list, one, seconds};

#[derive(Deserialize)]
pub(super) struct View {
    pub spec: Spec,
    #[serde(default)]
    pub status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub scale_target_ref: Target,
    #[serde(default = "one")]
    pub min_replicas: i64,
    pub max_replicas: i64,
    #[serde(default)]
    pub metrics: Vec<Value>,
    pub behavior: Option<Behavior>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Target {
    #[serde(default)]
    pub api_version: String,
    pub kind: String,
    pub name: String,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Behavior {
    pub scale_up: Rules,
    pub scale_down: Rules,
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Rules {
    pub stabilization_window_seconds: Option<i64>,
    /// `Max`, `Min` or `Disabled`.
    pub select_policy: String,
    pub policies: Vec<Policy>,
    pub tolerance: Option<Value>,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Policy {
    /// `Pods` or `Percent`.
    pub r#type: String,
    pub value: i64,
    pub period_seconds: i64,
}

/// How far from its target a metric may be without anything being done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tolerances {
    pub up: f64,
    pub down: f64,
}

const TOLERANCE: f64 = 0.1;

impl Spec {
    pub(super) fn tolerances(&self) -> Tolerances {
        let of = |rules: &Rules| {
            let given = rules.tolerance.as_ref().and_then(|value| Quantity::from_value(value)?.ok());
            given.map_or(TOLERANCE, Quantity::as_f64)
        };
        match &self.behavior {
            Some(behavior) => Tolerances { up: of(&behavior.scale_up), down: of(&behavior.scale_down) },
            None => Tolerances { up: TOLERANCE, down: TOLERANCE },
        }
    }
}

impl Tolerances {
    pub(super) fn allow(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

#[derive(Clone, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub current_replicas: i64,
    pub desired_replicas: i64,
    pub last_scale_time: Option<String>,
    #[serde(deserialize_with = "or_nothing")]
    pub current_metrics: Vec<Value>,
    #[serde(deserialize_with = "or_nothing")]
    conditions: Vec<Condition>,
}

/// The API tells an empty list here as `null`.
fn or_nothing<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}

impl Status {
    /// The transition time changes only with the status.
    pub(super) fn set(&mut self, r#type: &str, status: &str, reason: &str, message: impl Into<String>, now: Timestamp) {
        let mut condition = Condition::new(r#type, status, reason, message);
        let known = self.conditions.iter().position(|known| known.r#type == r#type);
        let same = known.map(|at| &self.conditions[at]).filter(|known| known.status == status);
        condition.last_transition_time = match same {
            Some(known) => known.last_transition_time.clone(),
            None => Some(seconds(now)),
        };
        match known {
            Some(at) => self.conditions[at] = condition,
            None => self.conditions.push(condition),
        }
    }

    pub(super) fn fields(&self) -> Value {
        let mut fields = Value::object();
        let count = |n: i64| if n == 0 { Value::Null } else { n.into() };
        fields.set(&["currentReplicas"], count(self.current_replicas));
        fields.set(&["desiredReplicas"], self.desired_replicas);
        fields.set(&["lastScaleTime"], self.last_scale_time.clone());
        let metrics = self.current_metrics.clone();
        fields.set(&["currentMetrics"], if metrics.is_empty() { Value::Null } else { Value::Array(metrics) });
        fields.set(&["conditions"], list(&self.conditions));
        fields
    }
}

pub(super) fn read(object: &Arc<Object>) -> Result<View, serde_json::Error> {
    serde_json::from_slice(object.body())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_metrics_is_read() {
        let json = r#"{"apiVersion":"autoscaling/v2","kind":"HorizontalPodAutoscaler","metadata":{"name":"web","namespace":"ns"},
            "spec":{"scaleTargetRef":{"kind":"Deployment","name":"web"},"maxReplicas":3},
            "status":{"currentMetrics":null,"desiredReplicas":0}}"#;
        let object = Arc::new(Object::parse(json.as_bytes()).unwrap());
        assert!(read(&object).unwrap().status.current_metrics.is_empty());
    }
}
