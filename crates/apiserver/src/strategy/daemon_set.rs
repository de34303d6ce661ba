//! DaemonSet. Upstream: pkg/registry/apps/daemonset.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, fill_absent, immutable, text};
use super::{Context, Strategy, keep, pod, workload};

pub(super) struct DaemonSet;

/// Counts the changes of the template, for clients of older API versions.
const TEMPLATE_GENERATION: [&str; 3] = ["metadata", "annotations", "deprecated.daemonset.template.generation"];

impl Strategy for DaemonSet {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apps", "daemonsets")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "revisionHistoryLimit", 10);
        let update = spec.make_object().entry("updateStrategy");
        fill(update, "type", "RollingUpdate");
        if text(update, "type") == "RollingUpdate" {
            let rolling = update.make_object().entry("rollingUpdate");
            fill_absent(rolling, "maxUnavailable", 1);
            fill_absent(rolling, "maxSurge", 0);
        }
        if let Some(template) = spec.get_mut("template") {
            pod::defaults::template(template);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        new.set(&TEMPLATE_GENERATION, "1");
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["status"]);
        let before = old.str_at(&TEMPLATE_GENERATION).and_then(|count| count.parse::<i64>().ok()).unwrap_or(1);
        let template = ["spec", "template"];
        let changed = new.at(&template) != old.at(&template);
        new.set(&TEMPLATE_GENERATION, (before + i64::from(changed)).to_string());
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        workload::selector(spec, "daemonset", &path, errors);
        workload::template(spec, "DaemonSet", &path, errors);
        errors.non_negative(&path, spec, "minReadySeconds");
        let update = spec.get("updateStrategy").unwrap_or(&empty);
        let update_path = path.child("updateStrategy");
        match text(update, "type") {
            "OnDelete" => {}
            "RollingUpdate" => {
                let rolling = update.get("rollingUpdate").unwrap_or(&empty);
                let path = update_path.child("rollingUpdate");
                for key in ["maxUnavailable", "maxSurge"] {
                    workload::int_or_percent(rolling, key, &path, errors);
                    workload::at_most_all(rolling, key, &path, errors);
                }
                match (workload::is_zero(rolling, "maxUnavailable"), workload::is_zero(rolling, "maxSurge")) {
                    (true, true) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
                    (false, false) => {
                        let shown = rolling.get("maxSurge").cloned().unwrap_or_default();
                        errors.invalid(
                            &path.child("maxSurge"),
                            shown,
                            "may not be set when maxUnavailable is non-zero",
                        );
                    }
                    _ => {}
                }
            }
            other => errors.not_supported(&update_path.child("type"), other, &["RollingUpdate", "OnDelete"]),
        }
        errors.non_negative(&path, spec, "revisionHistoryLimit");
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let status = new.get("status").unwrap_or(&Value::Null);
            let counts = [
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
            ];
            for key in counts {
                errors.non_negative(&Path::new("status"), status, key);
            }
            return workload::not_decremented(new, old, "collisionCount", errors);
        }
        self.validate(ctx, new, errors);
        let path = ["spec", "selector"];
        immutable(errors, &Path::new("spec.selector"), new.at(&path), old.at(&path));
    }
}
