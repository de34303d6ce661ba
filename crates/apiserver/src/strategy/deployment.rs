//! Deployment. Upstream: pkg/registry/apps/deployment, pkg/apis/apps/v1 defaults, pkg/apis/apps/validation.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, fill_absent, has, immutable, int, member, text};
use super::{Context, Strategy, keep, pod, workload};

pub(super) struct Deployment;

impl Strategy for Deployment {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apps", "deployments")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "replicas", 1);
        fill_absent(spec, "revisionHistoryLimit", 10);
        fill_absent(spec, "progressDeadlineSeconds", 600);
        let strategy = spec.make_object().entry("strategy");
        fill(strategy, "type", "RollingUpdate");
        if text(strategy, "type") == "RollingUpdate" {
            let rolling = strategy.make_object().entry("rollingUpdate");
            fill_absent(rolling, "maxUnavailable", "25%");
            fill_absent(rolling, "maxSurge", "25%");
        }
        if let Some(template) = spec.get_mut("template") {
            pod::defaults::template(template);
        }
    }

    /// Annotations count as well as the spec: they are copied to the replica sets.
    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        let annotations = ["metadata", "annotations"];
        if new.at(&annotations) != old.at(&annotations) && new.get("spec") == old.get("spec") {
            let generation = old.i64_at(&["metadata", "generation"]).unwrap_or_default();
            new.set(&["metadata", "generation"], generation + 1);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
        keep(new, old, &["metadata", "labels"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        errors.non_negative(&path, spec, "replicas");
        workload::selector(spec, "deployment", &path, errors);
        workload::template(spec, "ReplicaSet", &path, errors);
        strategy(spec.get("strategy").unwrap_or(&empty), &path.child("strategy"), errors);
        errors.non_negative(&path, spec, "minReadySeconds");
        errors.non_negative(&path, spec, "revisionHistoryLimit");
        errors.non_negative(&path, spec, "progressDeadlineSeconds");
        if let Some(seconds) = spec.i64_at(&["progressDeadlineSeconds"])
            && seconds <= int(spec, "minReadySeconds")
        {
            errors.invalid(&path.child("progressDeadlineSeconds"), seconds, "must be greater than minReadySeconds");
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let counts = ["updatedReplicas", "readyReplicas", "availableReplicas", "unavailableReplicas"];
            workload::status_counts(new.get("status").unwrap_or(&Value::Null), &counts, errors);
            return workload::not_decremented(new, old, "collisionCount", errors);
        }
        self.validate(ctx, new, errors);
        let path = ["spec", "selector"];
        immutable(errors, &Path::new("spec.selector"), new.at(&path), old.at(&path));
    }
}

fn strategy(strategy: &Value, path: &Path<'_>, errors: &mut Vec<FieldError>) {
    let rolling_path = path.child("rollingUpdate");
    match text(strategy, "type") {
        "Recreate" if has(strategy, "rollingUpdate") => {
            errors.forbidden(&rolling_path, "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => {
            let Some(rolling) = member(strategy, "rollingUpdate") else {
                return errors.required(&rolling_path, "this should be defaulted and never be nil");
            };
            workload::int_or_percent(rolling, "maxUnavailable", &rolling_path, errors);
            workload::int_or_percent(rolling, "maxSurge", &rolling_path, errors);
            if workload::is_zero(rolling, "maxUnavailable") && workload::is_zero(rolling, "maxSurge") {
                let shown = rolling.get("maxUnavailable").cloned().unwrap_or_default();
                errors.invalid(&rolling_path.child("maxUnavailable"), shown, "may not be 0 when `maxSurge` is 0");
            }
            workload::at_most_all(rolling, "maxUnavailable", &rolling_path, errors);
        }
        other => {
            let mut error = FieldError::not_supported(path.to_string(), other, &["Recreate", "RollingUpdate"]);
            // Shown as upstream's internal type.
            error.shown = format!("{{\"Type\":{other:?},\"RollingUpdate\":null}}");
            errors.add(error);
        }
    }
}
