//! PodDisruptionBudget. Upstream: pkg/apis/policy/validation.

use apimachinery::validation::validate_label_selector;
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, has, member};
use super::{Context, Strategy, keep, workload};

pub(super) struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn resource(&self) -> (&'static str, &'static str) {
        ("policy", "poddisruptionbudgets")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
            errors.invalid(&path, spec, "minAvailable and maxUnavailable cannot be both set");
        }
        for key in ["minAvailable", "maxUnavailable"] {
            workload::int_or_percent(spec, key, &path, errors);
            workload::at_most_all(spec, key, &path, errors);
        }
        if let Some(selector) = member(spec, "selector") {
            errors.extend(validate_label_selector(selector, "spec.selector", false));
        }
        if let Some(policy) = spec.str_at(&["unhealthyPodEvictionPolicy"]) {
            let known = ["AlwaysAllow", "IfHealthyBudget"];
            errors.one_of(&path.child("unhealthyPodEvictionPolicy"), policy, &known);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let status = new.get("status").unwrap_or(&Value::Null);
            for key in ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"] {
                errors.non_negative(&Path::new("status"), status, key);
            }
            return;
        }
        self.validate(ctx, new, errors);
    }
}
