//! Job. Upstream: pkg/registry/batch/job, pkg/apis/batch/v1 defaults, pkg/apis/batch/validation.

use apimachinery::validation::validate_label_selector;
use apimachinery::{FieldError, Map, Value};

use super::field::{
    Errors, Path, Report, fill, fill_absent, flag, has, immutable, int, items, items_mut, member, text,
};
use super::{Context, Strategy, keep, pod, workload};

const OWNER_LABEL: &str = "batch.kubernetes.io/controller-uid";

pub(super) struct Job;

impl Strategy for Job {
    fn resource(&self) -> (&'static str, &'static str) {
        ("batch", "jobs")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let labels = value.at(&["spec", "template", "metadata", "labels"]).cloned();
        let own = value.at(&["metadata", "labels"]).and_then(Value::as_object);
        if let Some(labels) = labels.filter(|_| own.is_none_or(Map::is_empty)) {
            value.set(&["metadata", "labels"], labels);
        }
        if let Some(spec) = value.get_mut("spec") {
            default_spec(spec);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        let text = |value: &Value, key: &str| value.str_at(&["metadata", key]).unwrap_or_default().to_owned();
        let (uid, name) = (text(new, "uid"), text(new, "name"));
        let Some(spec) = new.get_mut("spec").filter(|spec| !flag(spec, "manualSelector")) else { return };
        let labels = [
            (OWNER_LABEL, &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ];
        for (key, value) in labels {
            let path = ["template", "metadata", "labels", key];
            if spec.at(&path).is_none() {
                spec.set(&path, value.as_str());
            }
        }
        if spec.at(&["selector", "matchLabels", OWNER_LABEL]).is_none() {
            spec.set(&["selector", "matchLabels", OWNER_LABEL], uid);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        validate_spec(spec, &path, errors);
        match member(spec, "selector") {
            None => errors.required(&path.child("selector"), ""),
            Some(selector) => {
                errors.extend(validate_label_selector(selector, "spec.selector", false));
                let template = spec.get("template").unwrap_or(&empty);
                if !workload::selects(Some(selector), template) {
                    let labels = template.at(&["metadata", "labels"]).cloned().unwrap_or_default();
                    let at = Path::new("spec.template.metadata.labels");
                    errors.invalid(&at, labels, "`selector` does not match template `labels`");
                }
            }
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            let status = new.get("status").unwrap_or(&Value::Null);
            for key in ["active", "succeeded", "failed", "ready", "terminating"] {
                errors.non_negative(&Path::new("status"), status, key);
            }
            return;
        }
        self.validate(ctx, new, errors);
        let empty = Value::object();
        let (new, before) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
        let path = Path::new("spec");
        // Indexed jobs grow and shrink with their parallelism.
        let elastic = text(new, "completionMode") == "Indexed" && int(new, "completions") == int(new, "parallelism");
        if !elastic {
            immutable(errors, &path.child("completions"), new.get("completions"), before.get("completions"));
        }
        for key in
            ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
        {
            immutable(errors, &path.child(key), new.get(key), before.get(key));
        }
        // What a suspended job that never began asks of nodes may change still.
        let unbegun = flag(before, "suspend") && old.at(&["status", "startTime"]).is_none_or(Value::is_null);
        let mut munged = new.get("template").cloned().unwrap_or_default();
        let template = before.get("template").cloned().unwrap_or_default();
        if unbegun {
            for path in [
                &["metadata"][..],
                &["spec", "nodeSelector"],
                &["spec", "affinity"],
                &["spec", "tolerations"],
                &["spec", "schedulingGates"],
            ] {
                keep(&mut munged, &template, path);
            }
        }
        if munged != template {
            immutable(errors, &path.child("template"), new.get("template"), before.get("template"));
        }
    }
}

/// Defaults of a Job's spec. Upstream: SetDefaults_Job.
fn default_spec(spec: &mut Value) {
    if !has(spec, "completions") && !has(spec, "parallelism") {
        spec.set(&["completions"], 1);
    }
    fill_absent(spec, "parallelism", 1);
    let limit = if has(spec, "backoffLimitPerIndex") { i64::from(i32::MAX) } else { 6 };
    fill_absent(spec, "backoffLimit", limit);
    fill(spec, "completionMode", "NonIndexed");
    fill_absent(spec, "suspend", false);
    let replacement = if has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
    fill(spec, "podReplacementPolicy", replacement);
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
        }
    }
    default_template(spec);
}

/// The part of the defaults that a job template inside a CronJob gets too.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(template) = spec.get_mut("template") {
        pod::defaults::template(template);
    }
}

/// Upstream: validateJobSpec.
pub(super) fn validate_spec(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        errors.non_negative(path, spec, key);
    }
    if let Some(mode) = spec.str_at(&["completionMode"]) {
        errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
        if mode == "Indexed" && !has(spec, "completions") {
            errors.required(&path.child("completions"), "when completion mode is Indexed");
        }
    }
    if has(spec, "backoffLimitPerIndex") && text(spec, "completionMode") != "Indexed" {
        let shown = int(spec, "backoffLimitPerIndex");
        errors.invalid(&path.child("backoffLimitPerIndex"), shown, "requires indexed completion mode");
    }
    let template_path = path.child("template");
    let empty = Value::object();
    let template = spec.get("template").unwrap_or(&empty);
    pod::validation::template(template, &template_path, errors);
    let pod = template_path.child("spec");
    match template.str_at(&["spec", "restartPolicy"]).unwrap_or_default() {
        "OnFailure" | "Never" => {}
        "Always" | "" => errors.required(&pod.child("restartPolicy"), "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&pod.child("restartPolicy"), other, &["OnFailure", "Never"]),
    }
    if let Some(policy) = member(spec, "podFailurePolicy") {
        if template.str_at(&["spec", "restartPolicy"]) != Some("Never") {
            let shown = template.str_at(&["spec", "restartPolicy"]).unwrap_or_default();
            errors.invalid(
                &pod.child("restartPolicy"),
                shown,
                "only \"Never\" is supported when podFailurePolicy is specified",
            );
        }
        let policy_path = path.child("podFailurePolicy");
        let rules = policy_path.child("rules");
        for (i, rule) in items(policy, "rules").iter().enumerate() {
            let path = rules.index(i);
            errors.needs_one_of(
                &path.child("action"),
                text(rule, "action"),
                &["Count", "FailIndex", "FailJob", "Ignore"],
            );
        }
    }
}
