//! HorizontalPodAutoscaler v1 has one CPU target; what else v2 says travels in annotations. Upstream: pkg/apis/autoscaling/v1
//! conversion.

use apimachinery::{Map, Value};

const METRICS: &str = "autoscaling.alpha.kubernetes.io/metrics";
const CURRENT_METRICS: &str = "autoscaling.alpha.kubernetes.io/current-metrics";
const CONDITIONS: &str = "autoscaling.alpha.kubernetes.io/conditions";
const BEHAVIOR: &str = "autoscaling.alpha.kubernetes.io/behavior";

pub(super) fn to_v2(value: &mut Value) {
    let mut metrics = take_json(value, METRICS).and_then(|json| json.as_array().cloned()).unwrap_or_default();
    if let Some(target) = value.remove(&["spec", "targetCPUUtilizationPercentage"]) {
        metrics.push(cpu(target, "target", "averageUtilization"));
    }
    if !metrics.is_empty() {
        value.set(&["spec", "metrics"], metrics);
    }
    if let Some(behavior) = take_json(value, BEHAVIOR) {
        value.set(&["spec", "behavior"], behavior);
    }
    let mut current = take_json(value, CURRENT_METRICS).and_then(|json| json.as_array().cloned()).unwrap_or_default();
    if let Some(now) = value.remove(&["status", "currentCPUUtilizationPercentage"]) {
        current.push(cpu(now, "current", "averageUtilization"));
    }
    if !current.is_empty() {
        value.set(&["status", "currentMetrics"], current);
    }
    if let Some(conditions) = take_json(value, CONDITIONS) {
        value.set(&["status", "conditions"], conditions);
    }
}

pub(super) fn to_v1(value: &mut Value) {
    let (cpu, others) = split_cpu(value.remove(&["spec", "metrics"]), "target");
    if let Some(target) = cpu {
        value.set(&["spec", "targetCPUUtilizationPercentage"], target);
    }
    put_json(value, METRICS, others);
    let behavior = value.remove(&["spec", "behavior"]).filter(|behavior| !behavior.is_null());
    put_json(value, BEHAVIOR, behavior);
    let (cpu, others) = split_cpu(value.remove(&["status", "currentMetrics"]), "current");
    if let Some(current) = cpu {
        value.set(&["status", "currentCPUUtilizationPercentage"], current);
    }
    put_json(value, CURRENT_METRICS, others);
    let conditions =
        value.remove(&["status", "conditions"]).filter(|list| list.as_array().is_some_and(|items| !items.is_empty()));
    put_json(value, CONDITIONS, conditions);
    if value.get("status").is_some() && value.at(&["status", "currentReplicas"]).is_none() {
        value.set(&["status", "currentReplicas"], 0);
    }
}

/// A v2 metric of CPU utilisation.
fn cpu(percent: Value, side: &'static str, member: &'static str) -> Value {
    let mut amount = Map::default();
    amount.insert(member, percent);
    if side == "target" {
        amount.insert("type", "Utilization");
    }
    let mut metric = Value::object();
    metric.set(&["type"], "Resource");
    metric.set(&["resource", "name"], "cpu");
    metric.set(&["resource", side], amount);
    metric
}

/// The first CPU utilisation among v2 metrics, and the other metrics.
fn split_cpu(metrics: Option<Value>, side: &str) -> (Option<Value>, Option<Value>) {
    let mut found = None;
    let Some(Value::Array(mut items)) = metrics else { return (None, None) };
    items.retain(|metric| {
        let percent = metric.at(&["resource", side, "averageUtilization"]).filter(|percent| !percent.is_null());
        let is_cpu =
            metric.str_at(&["type"]) == Some("Resource") && metric.str_at(&["resource", "name"]) == Some("cpu");
        if !is_cpu || percent.is_none() || found.is_some() {
            return true;
        }
        found = percent.cloned();
        false
    });
    (found, (!items.is_empty()).then_some(Value::Array(items)))
}

fn take_json(value: &mut Value, annotation: &str) -> Option<Value> {
    let text = value.remove(&["metadata", "annotations", annotation])?;
    if value.at(&["metadata", "annotations"]).and_then(Value::as_object).is_some_and(Map::is_empty) {
        value.remove(&["metadata", "annotations"]);
    }
    Value::parse(text.as_str()?.as_bytes()).ok()
}

fn put_json(value: &mut Value, annotation: &str, json: Option<Value>) {
    if let Some(json) = json {
        value.set(&["metadata", "annotations", annotation], json.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_say_the_same() {
        let v1 =
            Value::parse(br#"{"metadata":{"name":"a"},"spec":{"maxReplicas":3,"targetCPUUtilizationPercentage":80}}"#)
                .unwrap();
        let mut value = v1.clone();
        to_v2(&mut value);
        assert_eq!(
            value.items_at(&["spec", "metrics"])[0].i64_at(&["resource", "target", "averageUtilization"]),
            Some(80)
        );
        to_v1(&mut value);
        assert_eq!(value, v1);

        let v2 = br#"{"metadata":{"name":"a"},"spec":{"maxReplicas":3,"metrics":[{"type":"Pods","pods":{"metric":{"name":"x"}}}]}}"#;
        let v2 = Value::parse(v2).unwrap();
        let mut value = v2.clone();
        to_v1(&mut value);
        assert_eq!(value.at(&["spec", "metrics"]), None);
        to_v2(&mut value);
        assert_eq!(value, v2);
    }
}
