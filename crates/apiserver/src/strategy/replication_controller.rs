//! ReplicationController. Upstream: pkg/registry/core/replicationcontroller.

use apimachinery::{FieldError, Map, Selector, Value};

use super::field::{Path, Report, entries, fill_absent, member};
use super::{Context, Strategy, keep, pod, workload};

pub(super) struct ReplicationController;

impl Strategy for ReplicationController {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "replicationcontrollers")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let labels = value.at(&["spec", "template", "metadata", "labels"]).cloned();
        let Some(spec) = value.get_mut("spec") else { return };
        fill_absent(spec, "replicas", 1);
        let empty = |value: Option<&Value>| value.and_then(Value::as_object).is_none_or(Map::is_empty);
        if let Some(labels) = labels.clone().filter(|_| empty(spec.get("selector"))) {
            spec.set(&["selector"], labels);
        }
        if let Some(template) = spec.get_mut("template") {
            pod::defaults::template(template);
        }
        if let Some(labels) = labels.filter(|_| empty(value.at(&["metadata", "labels"]))) {
            value.set(&["metadata", "labels"], labels);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        errors.non_negative(&path, spec, "minReadySeconds");
        let labels = entries(spec, "selector").filter_map(|(key, value)| Some((key, value.as_str()?)));
        if Selector::from_labels(labels).is_everything() {
            errors.required(&path.child("selector"), "");
        }
        errors.non_negative(&path, spec, "replicas");
        // A plain map selects as `matchLabels` do.
        let mut like = spec.clone();
        if let Some(labels) = member(spec, "selector") {
            let mut selector = Value::object();
            selector.set(&["matchLabels"], labels);
            like.set(&["selector"], selector);
        }
        workload::template(&like, "ReplicationController", &path, errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let counts = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];
            return workload::status_counts(new.get("status").unwrap_or(&Value::Null), &counts, errors);
        }
        self.validate(ctx, new, errors);
    }
}
