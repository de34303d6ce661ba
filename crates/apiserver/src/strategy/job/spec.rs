//! What a Job's spec may say. Upstream: validateJobSpec and what it calls.

use apimachinery::validation::{dns1123_subdomain, pattern_error};
use apimachinery::{FieldError, FieldErrorKind, Value};

use super::super::field::{Errors, Path, Report, has, int, items, member, text};
use super::super::pod;
use super::indexes;

const MAX_INDEXED_PARALLELISM: i64 = 100_000;
const MAX_FAILED_INDEXES: i64 = 100_000;
/// Above so many completions, less of the rest is allowed where indexes have limits of their own.
const MANY_COMPLETIONS: i64 = 100_000;
const LIMIT_OF_MANY: i64 = 10_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_CONDITIONS: usize = 20;
const MAX_MANAGER: usize = 63;
const MAX_INDEXES_TEXT: usize = 64 * 1024;
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const PATH_PATTERN: &str = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";

pub(in super::super) fn validate(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished"] {
        errors.non_negative(path, spec, key);
    }
    for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        errors.non_negative(path, spec, key);
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec.str_at(&["managedBy"]) {
        validate_manager(manager, &path.child("managedBy"), errors);
    }
    let mode = text(spec, "completionMode");
    let is_indexed = mode == "Indexed";
    if has(spec, "completionMode") {
        errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    }
    if is_indexed {
        validate_indexed(spec, path, errors);
    }
    if matches!(mode, "" | "NonIndexed") {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"].into_iter().filter(|key| has(spec, key)) {
            errors.invalid(&path.child(key), int(spec, key), "requires indexed completion mode");
        }
    }
    if let Some(policy) = member(spec, "podFailurePolicy") {
        validate_failure_policy(spec, policy, &path.child("podFailurePolicy"), errors);
    }
    if let Some(policy) = member(spec, "successPolicy") {
        let path = path.child("successPolicy");
        match is_indexed {
            true => validate_success_policy(spec, policy, &path, errors),
            false => errors.invalid(&path, policy, "requires indexed completion mode"),
        }
    }
    if let Some(policy) = spec.str_at(&["podReplacementPolicy"]) {
        let path = path.child("podReplacementPolicy");
        match has(spec, "podFailurePolicy") {
            true => errors.one_of(&path, policy, &["Failed"]),
            false => errors.one_of(&path, policy, &["Failed", "TerminatingOrFailed"]),
        }
    }
    validate_template(spec, path, errors);
}

/// What the author of an Indexed Job may not expect.
pub(in super::super) fn warning(spec: &Value, path: &str) -> Option<String> {
    let large = text(spec, "completionMode") == "Indexed"
        && int(spec, "completions") > MANY_COMPLETIONS
        && int(spec, "parallelism") > LIMIT_OF_MANY;
    large.then(|| {
        format!(
            "{path}: In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, Kubernetes \
             might not be able to track completedIndexes when a big number of indexes fail"
        )
    })
}

/// Upstream: IsDomainPrefixedPath.
fn validate_manager(manager: &str, path: &Path<'_>, errors: &mut Errors) {
    match manager.split_once('/') {
        _ if manager.is_empty() => errors.required(path, ""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            errors.problems(path, host, dns1123_subdomain(host));
            let allowed = |c: char| c.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(c);
            if !rest.chars().all(allowed) {
                errors.invalid(path, rest, pattern_error("Invalid path", PATH_PATTERN, &[]));
            }
        }
        _ => errors.invalid(path, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if manager.len() > MAX_MANAGER {
        errors.add(FieldError::too_long(path.to_string(), MAX_MANAGER));
    }
}

fn validate_indexed(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let number = |key: &str| has(spec, key).then(|| int(spec, key));
    let (completions, parallelism, max_failed) =
        (number("completions"), number("parallelism"), number("maxFailedIndexes"));
    if completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if let Some(parallelism) = parallelism.filter(|n| *n > MAX_INDEXED_PARALLELISM) {
        let why = format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.invalid(&path.child("parallelism"), parallelism, why);
    }
    let at = path.child("maxFailedIndexes");
    if let Some(max) = max_failed.filter(|max| completions.is_some_and(|completions| *max > completions)) {
        errors.invalid(&at, max, "must be less than or equal to completions");
    }
    if let Some(max) = max_failed.filter(|max| *max > MAX_FAILED_INDEXES) {
        errors.invalid(&at, max, format!("must be less than or equal to {MAX_FAILED_INDEXES}"));
    }
    if completions.is_none_or(|n| n <= MANY_COMPLETIONS) || !has(spec, "backoffLimitPerIndex") {
        return;
    }
    if max_failed.is_none() {
        errors.required(&at, &format!("must be specified when completions is above {MANY_COMPLETIONS}"));
    }
    for (key, n) in [("parallelism", parallelism), ("maxFailedIndexes", max_failed)] {
        if let Some(n) = n.filter(|n| *n > LIMIT_OF_MANY) {
            let why = format!(
                "must be less than or equal to {LIMIT_OF_MANY} when completions are above {MANY_COMPLETIONS} and used with \
                 backoff limit per index"
            );
            errors.invalid(&path.child(key), n, why);
        }
    }
}

fn validate_template(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let template_path = path.child("template");
    let empty = Value::object();
    let template = spec.get("template").unwrap_or(&empty);
    pod::validation::template(template, &template_path, errors);
    let pod = template_path.child("spec");
    let path = pod.child("restartPolicy");
    match template.str_at(&["spec", "restartPolicy"]).unwrap_or_default() {
        "Never" => {}
        "OnFailure" if has(spec, "podFailurePolicy") => {
            errors.invalid(&path, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" => {}
        "Always" | "" => errors.required(&path, "valid values: \"OnFailure\", \"Never\""),
        other => errors.not_supported(&path, other, &["OnFailure", "Never"]),
    }
}

fn validate_failure_policy(spec: &Value, policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("rules");
    let rules = items(policy, "rules");
    if rules.len() > MAX_RULES {
        errors.add(FieldError::too_many(path.to_string(), rules.len(), MAX_RULES));
    }
    let names = |list: &str| spec.items_at(&["template", "spec", list]).iter().map(|container| text(container, "name"));
    let containers: Vec<&str> = names("containers").chain(names("initContainers")).collect();
    for (i, rule) in rules.iter().enumerate() {
        validate_rule(spec, rule, &containers, &path.index(i), errors);
    }
}

/// A rule looks at exit codes or at conditions. Upstream: validatePodFailurePolicyRule.
fn validate_rule(spec: &Value, rule: &Value, containers: &[&str], path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("action");
    match text(rule, "action") {
        "" => errors.required(&at, &values(&ACTIONS)),
        "FailIndex" if !has(spec, "backoffLimitPerIndex") => {
            errors.invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        action => errors.one_of(&at, action, &ACTIONS),
    }
    if let Some(codes) = member(rule, "onExitCodes") {
        validate_exit_codes(codes, containers, &path.child("onExitCodes"), errors);
    }
    let conditions = items(rule, "onPodConditions");
    validate_conditions(conditions, &path.child("onPodConditions"), errors);
    match (has(rule, "onExitCodes"), conditions.is_empty()) {
        (true, false) => errors.add(bare(path, "specifying both OnExitCodes and OnPodConditions is not supported")),
        (false, true) => errors.add(bare(path, "specifying one of OnExitCodes and OnPodConditions is required")),
        _ => {}
    }
}

fn validate_conditions(conditions: &[Value], path: &Path<'_>, errors: &mut Errors) {
    const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
    if conditions.len() > MAX_CONDITIONS {
        errors.add(FieldError::too_many(path.to_string(), conditions.len(), MAX_CONDITIONS));
    }
    for (i, pattern) in conditions.iter().enumerate() {
        let path = path.index(i);
        errors.qualified(&path.child("type"), text(pattern, "type"));
        let at = path.child("status");
        match text(pattern, "status") {
            "" => errors.required(&at, &values(&STATUSES)),
            status => errors.one_of(&at, status, &STATUSES),
        }
    }
}

fn validate_exit_codes(codes: &Value, containers: &[&str], path: &Path<'_>, errors: &mut Errors) {
    const OPERATORS: [&str; 2] = ["In", "NotIn"];
    let operator = text(codes, "operator");
    match operator {
        "" => errors.required(&path.child("operator"), &values(&OPERATORS)),
        operator => errors.one_of(&path.child("operator"), operator, &OPERATORS),
    }
    if let Some(name) = codes.str_at(&["containerName"]).filter(|name| !containers.contains(name)) {
        let why = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, why);
    }
    let at = path.child("values");
    let listed = items(codes, "values");
    if listed.is_empty() {
        errors.invalid(&at, listed.to_vec(), "at least one value is required");
    } else if listed.len() > MAX_EXIT_CODES {
        errors.add(FieldError::too_many(at.to_string(), listed.len(), MAX_EXIT_CODES));
    }
    for (i, value) in listed.iter().enumerate() {
        if operator == "In" && value.as_i64() == Some(0) {
            errors.invalid(&at.index(i), value, "must not be 0 for the In operator");
        }
        if listed[..i].contains(value) {
            errors.duplicate(&at.index(i), value);
        }
    }
    if !listed.is_sorted_by_key(|value| value.as_i64()) {
        errors.invalid(&at, listed.to_vec(), "must be ordered");
    }
}

fn validate_success_policy(spec: &Value, policy: &Value, path: &Path<'_>, errors: &mut Errors) {
    let path = path.child("rules");
    let rules = items(policy, "rules");
    if rules.is_empty() {
        errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if rules.len() > MAX_RULES {
        errors.add(FieldError::too_many(path.to_string(), rules.len(), MAX_RULES));
    }
    let completions = int(spec, "completions");
    for (i, rule) in rules.iter().enumerate() {
        let path = path.index(i);
        let (count, listed) = (rule.i64_at(&["succeededCount"]), rule.str_at(&["succeededIndexes"]));
        if count.is_none() && listed.is_none() {
            errors.required(&path, "at least one of succeededCount or succeededIndexes must be specified");
        }
        let mut total = 0;
        if let Some(listed) = listed {
            let at = path.child("succeededIndexes");
            if listed.len() > MAX_INDEXES_TEXT {
                errors.add(FieldError::too_long(at.to_string(), MAX_INDEXES_TEXT));
            }
            match indexes::count(listed, completions) {
                Ok(count) => total = count,
                Err(why) => errors.invalid(&at, listed, format!("error parsing succeededIndexes: {why}")),
            }
        }
        let Some(count) = count else { continue };
        errors.non_negative(&path, rule, "succeededCount");
        let at = path.child("succeededCount");
        let most = |n: i64, what: &str| format!("must be less than or equal to {n} (the number of {what})");
        if count > completions {
            errors.invalid(&at, count, most(completions, "specified completions"));
        }
        if listed.is_some() && count > total {
            errors.invalid(&at, count, most(total, "indexes in the specified succeededIndexes field"));
        }
    }
}

/// The hint that a required value's error gives.
fn values(values: &[&str]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| format!("{value:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

/// An error that shows no value where others of its kind do.
pub(super) fn bare(path: &Path<'_>, why: &str) -> FieldError {
    FieldError { kind: FieldErrorKind::Invalid, field: path.to_string(), shown: why.to_owned(), detail: String::new() }
}
