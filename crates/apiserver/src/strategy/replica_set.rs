//! ReplicaSet. Upstream: pkg/registry/apps/replicaset.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill_absent, immutable};
use super::{Context, Strategy, keep, pod, workload};

pub(super) struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apps", "replicasets")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "replicas", 1);
        if let Some(template) = spec.get_mut("template") {
            pod::defaults::template(template);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        errors.non_negative(&path, spec, "replicas");
        errors.non_negative(&path, spec, "minReadySeconds");
        workload::selector(spec, "deployment", &path, errors);
        workload::template(spec, "ReplicaSet", &path, errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            return workload::status_counts(new.get("status").unwrap_or(&Value::Null), &counts, errors);
        }
        self.validate(ctx, new, errors);
        let path = ["spec", "selector"];
        immutable(errors, &Path::new("spec.selector"), new.at(&path), old.at(&path));
    }
}
