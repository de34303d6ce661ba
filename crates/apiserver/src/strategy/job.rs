//! Job. Upstream: pkg/registry/batch/job, pkg/apis/batch/v1 defaults, pkg/apis/batch/validation.

mod indexes;
mod spec;
mod status;

use apimachinery::validation::{dns1123_label, validate_label_selector};
use apimachinery::{FieldError, Map, Selector, Value};

use super::field::{Errors, Path, Report, fill, fill_absent, flag, has, immutable, int, items_mut, member, text};
use super::{Context, Strategy, keep, pod, workload};
pub(super) use spec::{validate as validate_spec, warning as spec_warning};

const OWNER_LABEL: &str = "batch.kubernetes.io/controller-uid";
const NAME_LABEL: &str = "batch.kubernetes.io/job-name";

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
        let labels = [(OWNER_LABEL, &uid), (NAME_LABEL, &name), ("controller-uid", &uid), ("job-name", &name)];
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
        validate_job(new, true, errors);
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        if old.is_none() {
            warnings.extend(name_warning(new));
        }
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        if old.is_none_or(|old| old.get("spec") != new.get("spec")) {
            warnings.extend(spec::warning(spec, "spec"));
        }
        warnings.extend(workload::warnings(new, old));
        warnings
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return status::validate(new, old, errors);
        }
        let had = |label: &str| old.at(&["spec", "template", "metadata", "labels", label]).is_some();
        validate_job(new, had(NAME_LABEL) && had(OWNER_LABEL), errors);
        let empty = Value::object();
        let (spec, before) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
        let path = Path::new("spec");
        validate_completions(spec, before, &path, errors);
        immutable(errors, &path.child("selector"), spec.get("selector"), before.get("selector"));
        validate_template_update(spec, before, old, &path, errors);
        for key in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
            immutable(errors, &path.child(key), spec.get(key), before.get(key));
        }
    }
}

/// Upstream: ValidateJob. `prefixed`: whether labels are required that old Jobs don't have.
fn validate_job(job: &Value, prefixed: bool, errors: &mut Errors) {
    let empty = Value::object();
    let spec = job.get("spec").unwrap_or(&empty);
    let path = Path::new("spec");
    let name = job.str_at(&["metadata", "name"]).unwrap_or_default();
    let uid = job.str_at(&["metadata", "uid"]).unwrap_or_default();
    if !flag(spec, "manualSelector") && has(spec, "selector") {
        validate_generated(spec, (name, uid), prefixed, errors);
    }
    spec::validate(spec, &path, errors);
    match member(spec, "selector") {
        None => errors.required(&path.child("selector"), ""),
        Some(selector) => errors.extend(validate_label_selector(selector, "spec.selector", false)),
    }
    let template = spec.get("template").unwrap_or(&empty);
    if !workload::selects(member(spec, "selector"), template) {
        let labels = template.at(&["metadata", "labels"]).cloned().unwrap_or_default();
        let at = Path::new("spec.template.metadata.labels");
        errors.invalid(&at, labels, "`selector` does not match template `labels`");
    }
    let completions = int(spec, "completions");
    if text(spec, "completionMode") == "Indexed" && completions > 0 {
        let hostname = format!("{name}-{}", completions - 1);
        if !dns1123_label(&hostname).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {hostname}");
            errors.invalid(&Path::new("metadata.name"), name, why);
        }
    }
}

/// Labels and selector that were made for the Job must be there. Upstream: validateGeneratedSelector.
fn validate_generated(spec: &Value, (name, uid): (&str, &str), prefixed: bool, errors: &mut Errors) {
    let labels_path = Path::new("spec.template.metadata.labels");
    let labels = spec.at(&["template", "metadata", "labels"]).cloned().unwrap_or_default();
    let expected = [("controller-uid", uid), ("job-name", name), (OWNER_LABEL, uid), (NAME_LABEL, name)];
    let expected = if prefixed { &expected[..] } else { &expected[..2] };
    for (key, value) in expected {
        let path = labels_path.key(key);
        let why = format!("must be '{value}'");
        match labels.get(key).and_then(Value::as_str) {
            None => errors.required(&path, &why),
            Some(own) if own != *value => errors.invalid(&path, labels.clone(), why),
            Some(_) => {}
        }
    }
    let selector = member(spec, "selector");
    let mut pod = Value::object();
    for (key, value) in expected {
        pod.set(&["metadata", "labels", key], *value);
    }
    if Selector::from_label_selector(selector).is_ok() && !workload::selects(selector, &pod) {
        errors.invalid(&Path::new("spec.selector"), selector, "`selector` not auto-generated");
    }
}

/// Indexed Jobs grow and shrink with their parallelism.
fn validate_completions(new: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("completions");
    if text(new, "completionMode") != "Indexed" {
        return immutable(errors, &at, new.get("completions"), old.get("completions"));
    }
    let changed = has(new, "completions") && new.get("completions") != old.get("completions");
    if changed && int(new, "completions") != int(new, "parallelism") {
        let why = "can only be modified in tandem with spec.parallelism";
        errors.invalid(&at, int(new, "completions"), why);
    }
}

/// Where the pods of a suspended Job that never began may go can be changed still. Upstream: validatePodTemplateUpdate.
fn validate_template_update(new: &Value, before: &Value, old: &Value, path: &Path<'_>, errors: &mut Errors) {
    let unbegun = flag(before, "suspend") && old.at(&["status", "startTime"]).is_none_or(Value::is_null);
    let template = new.get("template").cloned().unwrap_or_default();
    let mut expected = before.get("template").cloned().unwrap_or_default();
    if unbegun {
        const FREE: [&[&str]; 6] = [
            &["metadata", "labels"],
            &["metadata", "annotations"],
            &["spec", "nodeSelector"],
            &["spec", "tolerations"],
            &["spec", "schedulingGates"],
            &["spec", "affinity", "nodeAffinity"],
        ];
        for path in FREE {
            keep(&mut expected, &template, path);
        }
        let affinity = ["spec", "affinity"];
        if template.at(&affinity).is_none()
            && expected.at(&affinity).and_then(Value::as_object).is_some_and(Map::is_empty)
        {
            expected.remove(&affinity);
        }
    }
    if template != expected {
        immutable(errors, &path.child("template"), new.get("template"), before.get("template"));
    }
}

/// Names of Jobs and CronJobs become parts of host names.
pub(super) fn name_warning(object: &Value) -> Option<String> {
    let problems = dns1123_label(object.str_at(&["metadata", "name"]).unwrap_or_default());
    let shown: Vec<String> = problems.iter().map(ToString::to_string).collect();
    (!shown.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is \
             recommended: [{}]",
            shown.join(" ")
        )
    })
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
    default_template(spec);
}

/// The part of the defaults that a job template inside a CronJob gets too.
pub(super) fn default_template(spec: &mut Value) {
    if let Some(policy) = spec.get_mut("podFailurePolicy") {
        for rule in items_mut(policy, "rules") {
            items_mut(rule, "onPodConditions").for_each(|pattern| fill(pattern, "status", "True"));
        }
    }
    if let Some(template) = spec.get_mut("template") {
        pod::defaults::template(template);
    }
}
