//! HorizontalPodAutoscaler, in the shape of v2. Upstream: pkg/apis/autoscaling v2 defaults, validation.

use apimachinery::validation::path_segment;
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, fill, fill_absent, has, int, items, member, text};
use super::{Context, Strategy, keep};

const SOURCES: [(&str, &str); 5] = [
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
    ("External", "external"),
    ("ContainerResource", "containerResource"),
];

pub(super) struct HorizontalPodAutoscaler;

impl Strategy for HorizontalPodAutoscaler {
    fn resource(&self) -> (&'static str, &'static str) {
        ("autoscaling", "horizontalpodautoscalers")
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "minReplicas", 1);
        if items(spec, "metrics").is_empty() {
            let mut metric = Value::object();
            metric.set(&["type"], "Resource");
            metric.set(&["resource", "name"], "cpu");
            metric.set(&["resource", "target", "type"], "Utilization");
            metric.set(&["resource", "target", "averageUtilization"], 80);
            spec.set(&["metrics"], vec![metric]);
        }
        let Some(behavior) = spec.get_mut("behavior").filter(|behavior| !behavior.is_null()) else { return };
        rules(behavior, "scaleUp", &[("Percent", 100), ("Pods", 4)], Some(0));
        rules(behavior, "scaleDown", &[("Percent", 100)], None);
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let (least, most) = (spec.i64_at(&["minReplicas"]), int(spec, "maxReplicas"));
        if let Some(least) = least.filter(|least| *least < 1) {
            errors.invalid(&path.child("minReplicas"), least, "must be greater than or equal to 1");
        }
        if most < 1 {
            errors.invalid(&path.child("maxReplicas"), most, "must be greater than 0");
        }
        if least.is_some_and(|least| most < least) {
            errors.invalid(&path.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
        }
        let target = spec.get("scaleTargetRef").unwrap_or(&empty);
        let target_path = path.child("scaleTargetRef");
        for key in ["kind", "name"] {
            let path = target_path.child(key);
            match text(target, key) {
                "" => errors.required(&path, ""),
                value => errors.problems(&path, value, path_segment(value)),
            }
        }
        let version = text(target, "apiVersion");
        let core = text(target, "kind") == "ReplicationController" && version == "v1";
        if !core && !version.contains('/') {
            let path = target_path.child("apiVersion");
            errors.invalid(&path, version, "apiVersion must specify API group");
        }
        metrics(spec, &path.child("metrics"), errors);
        let scales_to_zero =
            items(spec, "metrics").iter().any(|metric| matches!(text(metric, "type"), "Object" | "External"));
        if least == Some(0) && !scales_to_zero {
            let why = "must specify at least one Object or External metric to support scaling to zero replicas";
            errors.forbidden(&path.child("metrics"), why);
        }
        if let Some(behavior) = member(spec, "behavior") {
            let path = path.child("behavior");
            for key in ["scaleUp", "scaleDown"] {
                scaling_rules(behavior.get(key).unwrap_or(&empty), &path.child(key), errors);
            }
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let status = new.get("status").unwrap_or(&Value::Null);
            for key in ["currentReplicas", "desiredReplicas"] {
                errors.non_negative(&Path::new("status"), status, key);
            }
            return;
        }
        self.validate(ctx, new, errors);
    }
}

/// Upstream: validateScalingRules.
fn scaling_rules(rules: &Value, path: &Path<'_>, errors: &mut Errors) {
    let window = path.child("stabilizationWindowSeconds");
    match rules.i64_at(&["stabilizationWindowSeconds"]) {
        Some(seconds) if seconds < 0 => errors.invalid(&window, seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > 3600 => errors.invalid(&window, seconds, "must be less than or equal to 3600"),
        _ => {}
    }
    if let Some(policy) = rules.str_at(&["selectPolicy"]) {
        errors.one_of(&path.child("selectPolicy"), policy, &["Disabled", "Max", "Min"]);
    }
    let policies = path.child("policies");
    for (i, policy) in items(rules, "policies").iter().enumerate() {
        let path = policies.index(i);
        errors.one_of(&path.child("type"), text(policy, "type"), &["Percent", "Pods"]);
        for key in ["value", "periodSeconds"] {
            if int(policy, key) <= 0 {
                errors.invalid(&path.child(key), int(policy, key), super::field::NOT_POSITIVE);
            }
        }
        if int(policy, "periodSeconds") > 1800 {
            errors.invalid(
                &path.child("periodSeconds"),
                int(policy, "periodSeconds"),
                "must be less than or equal to 1800",
            );
        }
    }
}

/// Scaling rules where a behavior is given at all. Upstream: GenerateHPAScaleUpRules, GenerateHPAScaleDownRules.
fn rules(behavior: &mut Value, key: &str, policies: &[(&str, i64)], window: Option<i64>) {
    let rules = behavior.make_object().entry(key);
    fill(rules, "selectPolicy", "Max");
    if let Some(window) = window {
        fill_absent(rules, "stabilizationWindowSeconds", window);
    }
    if items(rules, "policies").is_empty() {
        let policy = |(kind, amount): &(&str, i64)| {
            let mut policy = Value::object();
            policy.set(&["type"], *kind);
            policy.set(&["value"], *amount);
            policy.set(&["periodSeconds"], 15);
            policy
        };
        // Upstream lists pods before percents.
        rules.set(&["policies"], policies.iter().rev().map(policy).collect::<Vec<_>>());
    }
}

fn metrics(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for (i, metric) in items(spec, "metrics").iter().enumerate() {
        let path = path.index(i);
        let kind = text(metric, "type");
        let Some((_, source)) = SOURCES.iter().find(|(known, _)| *known == kind) else {
            match kind {
                "" => errors.required(&path.child("type"), "must specify a metric source type"),
                other => {
                    let known = ["ContainerResource", "External", "Object", "Pods", "Resource"];
                    errors.not_supported(&path.child("type"), other, &known);
                }
            }
            continue;
        };
        let Some(value) = member(metric, source) else {
            errors.required(&path.child(source), "must populate the given metric source");
            continue;
        };
        let path = path.child(source);
        if matches!(kind, "Resource" | "ContainerResource") {
            if text(value, "name").is_empty() {
                errors.required(&path.child("name"), "must specify a resource name");
            }
            if kind == "ContainerResource" && text(value, "container").is_empty() {
                errors.required(&path.child("container"), "must specify a container");
            }
        } else if value.str_at(&["metric", "name"]).unwrap_or_default().is_empty() {
            let metric = path.child("metric");
            errors.required(&metric.child("name"), "must specify a metric name");
        }
        let target_path = path.child("target");
        match member(value, "target") {
            None => errors.required(&target_path.child("type"), "must specify a metric target type"),
            Some(target) => {
                let known = ["AverageValue", "Utilization", "Value"];
                errors.needs_one_of(&target_path.child("type"), text(target, "type"), &known);
                if let Some(percent) = target.i64_at(&["averageUtilization"]).filter(|percent| *percent < 1) {
                    errors.invalid(&target_path.child("averageUtilization"), percent, "must be greater than 0");
                }
                if kind == "Resource" && !has(target, "averageUtilization") && !has(target, "averageValue") {
                    let why = "must set either a target raw value or a target utilization";
                    errors.required(&target_path.child("averageUtilization"), why);
                }
            }
        }
    }
}
