//! What kinds that make pods from a template share: the selector, the template, rollout amounts.

use apimachinery::validation::{percent, validate_label_selector};
use apimachinery::{Map, Object, Selector, Value};

use super::field::{Errors, NEGATIVE, Path, Report, int, items, member, text};
use super::pod;

/// A label selector that is there and not empty; `kind` is the word upstream's sentence has.
pub(super) fn selector(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("selector");
    let Some(selector) = member(spec, "selector") else { return errors.required(&path, "") };
    errors.extend(validate_label_selector(selector, &path.to_string(), false));
    let empty = |key: &str| selector.get(key).and_then(Value::as_object).is_none_or(Map::is_empty);
    if empty("matchLabels") && items(selector, "matchExpressions").is_empty() {
        errors.invalid(&path, selector, format!("empty selector is invalid for {kind}"));
    }
    // Upstream's deployments and stateful sets say it once more, as a whole.
    if matches!(kind, "deployment" | "statefulset" | "replica set")
        && Selector::from_label_selector(Some(selector)).is_err()
    {
        errors.invalid(&path, selector, "invalid label selector");
    }
}

/// Whether a label selector selects pods of the template.
pub(super) fn selects(selector: Option<&Value>, template: &Value) -> bool {
    let mut labels = Value::object();
    labels.set(&["apiVersion"], "v1");
    labels.set(&["kind"], "Pod");
    labels.set(&["metadata", "name"], "template");
    if let Some(given) = template.at(&["metadata", "labels"]) {
        labels.set(&["metadata", "labels"], given);
    }
    let Ok(selector) = Selector::from_label_selector(selector) else { return true };
    Object::new(&labels, 0).is_ok_and(|object| selector.is_everything() || selector.matches(&object))
}

/// The template of a kind whose pods run until they are deleted; `kind` is how upstream's sentence calls it.
pub(super) fn template(spec: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("template");
    let Some(template) = member(spec, "template") else { return errors.required(&path, "") };
    if !selects(member(spec, "selector"), template) {
        let metadata = path.child("metadata");
        let labels = template.at(&["metadata", "labels"]).cloned().unwrap_or_default();
        errors.invalid(&metadata.child("labels"), labels, "`selector` does not match template `labels`");
    }
    pod::validation::template(template, &path, errors);
    let pod = path.child("spec");
    let policy = template.str_at(&["spec", "restartPolicy"]).unwrap_or_default();
    errors.one_of(&pod.child("restartPolicy"), policy, &["Always"]);
    if template.at(&["spec", "activeDeadlineSeconds"]).is_some() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&pod.child("activeDeadlineSeconds"), why);
    }
}

/// What the author of a new template should know of its pods.
pub(super) fn warnings(new: &Value, old: Option<&Value>) -> Vec<String> {
    let of = |workload: &Value| workload.at(&["spec", "template"]).cloned().unwrap_or_default();
    match old {
        Some(old) if of(old) == of(new) => Vec::new(),
        _ => pod::validation::warnings(&of(new), "spec.template."),
    }
}

/// An integer that is not negative, or a percentage.
pub(super) fn int_or_percent(holder: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child(key);
    match member(holder, key) {
        Some(Value::String(value)) => errors.problems(&path, value, percent(value)),
        Some(value) => {
            if let Some(n) = value.as_i64().filter(|n| *n < 0) {
                errors.invalid(&path, n, NEGATIVE);
            }
        }
        None => {}
    }
}

/// A percentage of at most 100.
pub(super) fn at_most_all(holder: &Value, key: &str, path: &Path<'_>, errors: &mut Errors) {
    let value = text(holder, key);
    let number = value.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok());
    if number.is_some_and(|number| number > 100) {
        errors.invalid(&path.child(key), value, "must not be greater than 100%");
    }
}

/// Whether an amount is 0 or `0%`, or says nothing.
pub(super) fn is_zero(holder: &Value, key: &str) -> bool {
    match member(holder, key) {
        Some(Value::String(value)) => {
            value.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()).unwrap_or(0) == 0
        }
        _ => int(holder, key) == 0,
    }
}

/// Counts in a status: none negative, none above `replicas`.
pub(super) fn status_counts(status: &Value, counts: &[&str], errors: &mut Errors) {
    let path = Path::new("status");
    errors.non_negative(&path, status, "observedGeneration");
    errors.non_negative(&path, status, "replicas");
    for key in counts {
        errors.non_negative(&path, status, key);
    }
    for key in counts.iter().filter(|key| **key != "unavailableReplicas") {
        if int(status, key) > int(status, "replicas") {
            errors.invalid(&path.child(key), int(status, key), "cannot be greater than status.replicas");
        }
    }
    if int(status, "availableReplicas") > int(status, "readyReplicas") {
        let why = "cannot be greater than readyReplicas";
        errors.invalid(&path.child("availableReplicas"), int(status, "availableReplicas"), why);
    }
}

/// A counter that never goes back.
pub(super) fn not_decremented(new: &Value, old: &Value, key: &str, errors: &mut Errors) {
    let of = |object: &Value| object.i64_at(&["status", key]);
    let status = Path::new("status");
    if of(old).is_some_and(|old| of(new).is_none_or(|new| new < old)) {
        errors.invalid(&status.child(key), of(new), "cannot be decremented");
    }
}
