//! Where a pod may run: affinity, tolerations, topology spread, gates.

use apimachinery::Value;
use apimachinery::validation::{dns1123_label, label_value, validate_label_selector};

use super::super::field::{Errors, NOT_POSITIVE, Path, Report, int, items, member, text};

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

/// Upstream: validateAffinity.
pub(super) fn affinity(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let Some(affinity) = member(spec, "affinity") else { return };
    if let Some(node) = member(affinity, "nodeAffinity") {
        let path = path.child("nodeAffinity");
        if let Some(selector) = member(node, REQUIRED) {
            node_selector(selector, &path.child(REQUIRED), errors);
        }
        let preferred = path.child(PREFERRED);
        for (i, term) in items(node, PREFERRED).iter().enumerate() {
            let path = preferred.index(i);
            weight(term, &path, errors);
            if let Some(preference) = member(term, "preference") {
                node_selector_term(preference, true, &path.child("preference"), errors);
            }
        }
    }
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = member(affinity, key) else { continue };
        let path = path.child(key);
        let required = path.child(REQUIRED);
        for (i, term) in items(affinity, REQUIRED).iter().enumerate() {
            pod_affinity_term(term, &required.index(i), errors);
        }
        let preferred = path.child(PREFERRED);
        for (i, term) in items(affinity, PREFERRED).iter().enumerate() {
            let path = preferred.index(i);
            weight(term, &path, errors);
            if let Some(term) = member(term, "podAffinityTerm") {
                pod_affinity_term(term, &path.child("podAffinityTerm"), errors);
            }
        }
    }
}

fn weight(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    let weight = int(term, "weight");
    if !(1..=100).contains(&weight) {
        errors.invalid(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

/// Upstream: ValidateNodeSelector.
pub(crate) fn node_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    let terms = items(selector, "nodeSelectorTerms");
    let path = path.child("nodeSelectorTerms");
    if terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(term, false, &path.index(i), errors);
    }
}

fn node_selector_term(term: &Value, any_values: bool, path: &Path<'_>, errors: &mut Errors) {
    const WRONG: &str = "not a valid selector operator";
    let expressions = path.child("matchExpressions");
    for (i, requirement) in items(term, "matchExpressions").iter().enumerate() {
        let path = expressions.index(i);
        let values = items(requirement, "values");
        let values_path = path.child("values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.is_empty() => {
                errors.required(&values_path, "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errors.forbidden(&values_path, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
            }
            "Gt" | "Lt" if values.len() != 1 => {
                errors.required(&values_path, "must be specified single value when `operator` is 'Lt' or 'Gt'");
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
            other => errors.invalid(&path.child("operator"), other, WRONG),
        }
        errors.qualified(&path.child("key"), text(requirement, "key"));
        for (i, value) in values.iter().filter_map(Value::as_str).enumerate().filter(|_| !any_values) {
            errors.label_text(&values_path.index(i), value);
        }
    }
    let fields = path.child("matchFields");
    for (i, requirement) in items(term, "matchFields").iter().enumerate() {
        let path = fields.index(i);
        let values = items(requirement, "values");
        let values_path = path.child("values");
        match text(requirement, "operator") {
            "In" | "NotIn" if values.len() != 1 => {
                let why = "must be only one value when `operator` is 'In' or 'NotIn' for node field selector";
                errors.required(&values_path, why);
            }
            "In" | "NotIn" => {}
            other => errors.invalid(&path.child("operator"), other, WRONG),
        }
        match text(requirement, "key") {
            "metadata.name" => {
                for (i, value) in values.iter().filter_map(Value::as_str).enumerate() {
                    errors.subdomain(&values_path.index(i), value);
                }
            }
            other => errors.invalid(&path.child("key"), other, "not a valid field selector key"),
        }
    }
}

fn pod_affinity_term(term: &Value, path: &Path<'_>, errors: &mut Errors) {
    for key in ["labelSelector", "namespaceSelector"] {
        if let Some(selector) = member(term, key) {
            errors.extend(validate_label_selector(selector, &path.child(key).to_string(), false));
        }
    }
    for namespace in items(term, "namespaces").iter().filter_map(Value::as_str) {
        errors.problems(&path.child("namespace"), namespace, dns1123_label(namespace));
    }
    let matching = items(term, "matchLabelKeys");
    for key in ["matchLabelKeys", "mismatchLabelKeys"] {
        let path = path.child(key);
        let keys = items(term, key);
        if !keys.is_empty() && member(term, "labelSelector").is_none() {
            errors.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, name) in keys.iter().filter_map(Value::as_str).enumerate() {
            errors.qualified(&path.index(i), name);
        }
    }
    for (i, key) in matching.iter().enumerate() {
        if items(term, "mismatchLabelKeys").contains(key) {
            let path = path.child("matchLabelKeys");
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and mismatchLabelKeys");
        }
    }
    let topology = text(term, "topologyKey");
    if topology.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.qualified(&path.child("topologyKey"), topology);
}

/// Upstream: ValidateTolerations.
pub(crate) fn tolerations(list: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, toleration) in list.iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            errors.qualified(&path.child("key"), key);
        } else if operator != "Exists" {
            let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            errors.invalid(&path.child("operator"), operator, why);
        }
        if toleration.i64_at(&["tolerationSeconds"]).is_some() && effect != "NoExecute" {
            let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
            errors.invalid(&path.child("effect"), effect, why);
        }
        match operator {
            "Equal" | "" => {
                let problems = label_value(value);
                if !problems.is_empty() {
                    errors.invalid(&path.child("operator"), value, problems.join(";"));
                }
            }
            "Exists" if !value.is_empty() => {
                errors.invalid(&path.child("operator"), value, "value must be empty when `operator` is 'Exists'");
            }
            "Exists" => {}
            other => errors.not_supported(&path.child("operator"), other, &["Equal", "Exists"]),
        }
        if !effect.is_empty() {
            errors.one_of(&path.child("effect"), effect, &EFFECTS);
        }
    }
}

/// A taint's effect, which must be there. Upstream: validateTaintEffect.
pub(crate) fn taint_effect(effect: &str, path: &Path<'_>, errors: &mut Errors) {
    errors.needs_one_of(path, effect, &EFFECTS);
}

/// Upstream: validateTopologySpreadConstraints.
pub(super) fn topology_spread(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let constraints = items(spec, "topologySpreadConstraints");
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        let (key, action) = (text(constraint, "topologyKey"), text(constraint, "whenUnsatisfiable"));
        if int(constraint, "maxSkew") <= 0 {
            errors.invalid(&path.child("maxSkew"), int(constraint, "maxSkew"), NOT_POSITIVE);
        }
        if key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        errors.one_of(&path.child("whenUnsatisfiable"), action, &["DoNotSchedule", "ScheduleAnyway"]);
        let same = |other: &Value| text(other, "topologyKey") == key && text(other, "whenUnsatisfiable") == action;
        if constraints[i + 1..].iter().any(same) {
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), format!("{{{key}, {action}}}"));
        }
        if let Some(domains) = constraint.i64_at(&["minDomains"]) {
            let path = path.child("minDomains");
            if domains <= 0 {
                errors.invalid(&path, domains, NOT_POSITIVE);
            }
            if action != "DoNotSchedule" {
                let why = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path, domains, why);
            }
        }
        for key in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
            if let Some(policy) = constraint.str_at(&[key]) {
                errors.one_of(&path.child(key), policy, &["Honor", "Ignore"]);
            }
        }
        let selector = member(constraint, "labelSelector");
        match_label_keys(constraint, selector, &path.child("matchLabelKeys"), errors);
        if let Some(selector) = selector {
            errors.extend(validate_label_selector(selector, &path.child("labelSelector").to_string(), false));
        }
    }
}

fn match_label_keys(constraint: &Value, selector: Option<&Value>, path: &Path<'_>, errors: &mut Errors) {
    let keys = items(constraint, "matchLabelKeys");
    if keys.is_empty() {
        return;
    }
    let Some(selector) = selector else {
        return errors.forbidden(path, "must not be specified when labelSelector is not set");
    };
    for (i, key) in keys.iter().filter_map(Value::as_str).enumerate() {
        errors.qualified(&path.index(i), key);
        let expression = |expression: &Value| text(expression, "key") == key;
        if selector.at(&["matchLabels", key]).is_some() || items(selector, "matchExpressions").iter().any(expression) {
            errors.invalid(&path.index(i), key, "exists in both matchLabelKeys and labelSelector");
        }
    }
}

/// Upstream: validateSchedulingGates, validateReadinessGates.
pub(super) fn gates(spec: &Value, path: &Path<'_>, errors: &mut Errors) {
    let readiness = path.child("readinessGates");
    for (i, gate) in items(spec, "readinessGates").iter().enumerate() {
        let gate_path = readiness.index(i);
        errors.qualified(&gate_path.child("conditionType"), text(gate, "conditionType"));
    }
    let scheduling = path.child("schedulingGates");
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in items(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        errors.qualified(&scheduling.index(i), name);
        if seen.contains(&name) {
            errors.duplicate(&scheduling.index(i), name);
        }
        seen.push(name);
    }
}

/// Labels that stand for the pod's own values of `matchLabelKeys`, put into the selectors. Upstream: mutatePodAffinity,
/// mutateTopologySpreadConstraints.
pub(super) fn expand_label_keys(pod: &mut Value) {
    let labels = pod.at(&["metadata", "labels"]).cloned().unwrap_or_default();
    for key in ["podAffinity", "podAntiAffinity"] {
        let Some(affinity) = pod.at_mut(&["spec", "affinity", key]) else { continue };
        for term in super::super::field::items_mut(affinity, REQUIRED) {
            expand(term, &labels);
        }
        for term in super::super::field::items_mut(affinity, PREFERRED) {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                expand(term, &labels);
            }
        }
    }
}

fn expand(term: &mut Value, labels: &Value) {
    if member(term, "labelSelector").is_none() {
        return;
    }
    let mut added = Vec::new();
    for (list, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term, list).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                let mut expression = Value::object();
                expression.set(&["key"], key);
                expression.set(&["operator"], operator);
                expression.set(&["values"], vec![value.clone()]);
                added.push(expression);
            }
        }
    }
    if added.is_empty() {
        return;
    }
    let mut expressions = term.items_at(&["labelSelector", "matchExpressions"]).to_vec();
    expressions.extend(added);
    term.set(&["labelSelector", "matchExpressions"], expressions);
}
