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

    fn deletion_warning(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set \
             propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn default(&self, value: &mut Value) {
        own_labels(value);
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
        // Upstream defaults once more when it reads what it stored.
        own_labels(new);
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
                let generated = selector.get("matchLabels").and_then(Value::as_object).map_or(0, Map::len) == 1
                    && selector.at(&["matchLabels", OWNER_LABEL]).is_some()
                    && items(selector, "matchExpressions").is_empty();
                if !flag(spec, "manualSelector") && !generated {
                    errors.invalid(&path.child("selector"), selector, "`selector` not auto-generated");
                }
                let template = spec.get("template").unwrap_or(&empty);
                if !workload::selects(Some(selector), template) {
                    let labels = template.at(&["metadata", "labels"]).cloned().unwrap_or_default();
                    let at = Path::new("spec.template.metadata.labels");
                    errors.invalid(&at, labels, "`selector` does not match template `labels`");
                }
            }
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        workload::warnings(new, old)
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

/// A job without labels has its template's.
fn own_labels(value: &mut Value) {
    let labels = value.at(&["spec", "template", "metadata", "labels"]).cloned();
    let own = value.at(&["metadata", "labels"]).and_then(Value::as_object);
    if let Some(labels) = labels.filter(|_| own.is_none_or(Map::is_empty)) {
        value.set(&["metadata", "labels"], labels);
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
    fill_absent(spec, "manualSelector", false);
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
    if let Some(policy) = spec.str_at(&["podReplacementPolicy"]) {
        let path = path.child("podReplacementPolicy");
        match has(spec, "podFailurePolicy") {
            true => errors.one_of(&path, policy, &["Failed"]),
            false => errors.one_of(&path, policy, &["Failed", "TerminatingOrFailed"]),
        }
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
        let policy_path = path.child("podFailurePolicy");
        let rules = policy_path.child("rules");
        for (i, rule) in items(policy, "rules").iter().enumerate() {
            let path = rules.index(i);
            errors.needs_one_of(
                &path.child("action"),
                text(rule, "action"),
                &["Count", "FailIndex", "FailJob", "Ignore"],
            );
            failure_rule(rule, &path, errors);
        }
        let shown = template.str_at(&["spec", "restartPolicy"]).unwrap_or_default();
        if shown != "Never" {
            let why = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.invalid(&pod.child("restartPolicy"), shown, why);
        }
    }
}

/// What a rule of a failure policy looks at: exit codes or conditions. Upstream: validatePodFailurePolicyRule.
fn failure_rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let conditions = items(rule, "onPodConditions");
    if let Some(codes) = member(rule, "onExitCodes") {
        let path = path.child("onExitCodes");
        let operator = text(codes, "operator");
        errors.needs_one_of(&path.child("operator"), operator, &["In", "NotIn"]);
        let values_path = path.child("values");
        let values = items(codes, "values");
        if values.is_empty() {
            errors.invalid(&values_path, values.to_vec(), "at least one value is required");
        }
        for (i, value) in values.iter().enumerate() {
            if operator == "In" && value.as_i64() == Some(0) {
                errors.invalid(&values_path.index(i), value, "must not be 0 for the In operator");
            }
            if values[..i].contains(value) {
                errors.duplicate(&values_path.index(i), value);
            }
        }
    }
    let both = "specifying both OnExitCodes and OnPodConditions is not supported";
    match (has(rule, "onExitCodes"), conditions.is_empty()) {
        (true, false) => errors.add(bare(path, both)),
        (false, true) => errors.add(bare(path, "specifying one of OnExitCodes and OnPodConditions is required")),
        _ => {}
    }
}

/// An error that shows no value where others of its kind do.
fn bare(path: &Path<'_>, why: &str) -> FieldError {
    FieldError {
        kind: apimachinery::FieldErrorKind::Invalid,
        field: path.to_string(),
        shown: why.to_owned(),
        detail: String::new(),
    }
}
