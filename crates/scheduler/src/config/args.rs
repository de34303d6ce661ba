//! What is wrong with plugins' arguments. Upstream: apis/config/validation/validation_pluginargs.go.

use std::collections::BTreeSet;

use serde_json::Value;

/// Every mistake in the arguments of a plugin, each with its path below `args`.
pub(super) fn mistakes(plugin: &str, args: &Value) -> Vec<String> {
    let mut found = Found::default();
    match plugin {
        "DefaultPreemption" => preemption(args, &mut found),
        "DynamicResources" => devices(args, &mut found),
        "InterPodAffinity" => {
            let weight = args["hardPodAffinityWeight"].as_i64();
            found.range(weight, "hardPodAffinityWeight", 0..=100, "not in valid range [0, 100]");
        }
        "NodeAffinity" => added_affinity(&args["addedAffinity"], &mut found),
        "NodeResourcesBalancedAllocation" => balanced(args, &mut found),
        "NodeResourcesFit" => fit(args, &mut found),
        "PodTopologySpread" => spread(args, &mut found),
        "VolumeBinding" => {
            if let Some(timeout) = args["bindTimeoutSeconds"].as_i64().filter(|timeout| *timeout < 0) {
                let why = "invalid BindTimeoutSeconds, should not be a negative value";
                found.invalid("bindTimeoutSeconds", timeout, why);
            }
            if !args["shape"].is_null() {
                let why = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring";
                found.invalid("shape", &args["shape"], why);
            }
        }
        _ => {}
    }
    found.0
}

#[derive(Default)]
struct Found(Vec<String>);

impl Found {
    fn invalid(&mut self, path: &str, value: impl std::fmt::Display, why: &str) {
        self.0.push(format!("{path}: Invalid value: {value}: {why}"));
    }

    fn range(&mut self, value: Option<i64>, path: &str, valid: std::ops::RangeInclusive<i64>, why: &str) {
        if let Some(value) = value.filter(|value| !valid.contains(value)) {
            self.invalid(path, value, why);
        }
    }

    fn unsupported(&mut self, path: &str, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        self.0.push(format!("{path}: Unsupported value: {value:?}: supported values: {}", supported.join(", ")));
    }
}

fn items(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> i64 {
    value[key].as_i64().unwrap_or_default()
}

fn preemption(args: &Value, found: &mut Found) {
    let percentage = args["minCandidateNodesPercentage"].as_i64().unwrap_or(10);
    let absolute = args["minCandidateNodesAbsolute"].as_i64().unwrap_or(100);
    found.range(Some(percentage), "minCandidateNodesPercentage", 0..=100, "not in valid range [0, 100]");
    found.range(Some(absolute), "minCandidateNodesAbsolute", 0..=i64::MAX, "not in valid range [0, inf)");
    if percentage == 0 && absolute == 0 {
        let zero = |other| format!("cannot be zero at the same time as {other}");
        found.invalid("minCandidateNodesPercentage", 0, &zero("minCandidateNodesAbsolute"));
        found.invalid("minCandidateNodesAbsolute", 0, &zero("minCandidateNodesPercentage"));
    }
}

fn devices(args: &Value, found: &mut Found) {
    if let Some(timeout) = args["filterTimeout"].as_str()
        && super::fields::seconds(timeout).is_some_and(|seconds| seconds < 0.0)
    {
        found.invalid("filterTimeout", format!("{timeout:?}"), "must be zero or positive");
    }
    if !args["bindingTimeout"].is_null() {
        let gates = "DRADeviceBindingConditions or DRAResourceClaimDeviceStatus feature gate is disabled";
        found.0.push(format!("bindingTimeout: Forbidden: {gates}"));
    }
}

fn balanced(args: &Value, found: &mut Found) {
    let mut names = BTreeSet::new();
    for (i, resource) in items(&args["resources"]) {
        let name = text(resource, "name");
        if !names.insert(name) {
            found.0.push(format!("resources[{i}].name: Duplicate value: {name:?}"));
        }
        // What isn't given is 1.
        if !matches!(number(resource, "weight"), 0 | 1) {
            found.invalid(&format!("resources[{i}].weight"), number(resource, "weight"), "must be 1");
        }
    }
}

fn fit(args: &Value, found: &mut Found) {
    for (i, name) in items(&args["ignoredResources"]) {
        label_name(name.as_str().unwrap_or_default(), &format!("ignoredResources[{i}]"), found);
    }
    for (i, group) in items(&args["ignoredResourceGroups"]) {
        let (group, path) = (group.as_str().unwrap_or_default(), format!("ignoredResourceGroups[{i}]"));
        if group.contains('/') {
            found.invalid(&path, format!("{group:?}"), "resource group name can't contain '/'");
        }
        label_name(group, &path, found);
    }
    let strategy = &args["scoringStrategy"];
    if strategy.is_null() {
        return;
    }
    let kinds = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    let kind = text(strategy, "type");
    if !kinds.contains(&kind) {
        found.unsupported("scoringStrategy.type", kind, &kinds);
    }
    for (i, resource) in items(&strategy["resources"]) {
        // What isn't given, or 0, is 1.
        let why = format!("resource weight of {} not in valid range (0, 100]", text(resource, "name"));
        let path = format!("scoringStrategy.resources[{i}].weight");
        found.range(Some(number(resource, "weight")), &path, 0..=100, &why);
    }
    let (ratio, path) = (&strategy["requestedToCapacityRatio"], "scoringStrategy.requestedToCapacityRatio");
    if kind == "RequestedToCapacityRatio" {
        match ratio.is_null() {
            true => {
                found.0.push(format!("{path}: Required value: must be specified when type is RequestedToCapacityRatio"))
            }
            false => shape(&ratio["shape"], &format!("{path}.shape"), found),
        }
    } else if !ratio.is_null() {
        found.0.push(format!("{path}: Forbidden: must be nil when type is not RequestedToCapacityRatio"));
    }
}

fn shape(points: &Value, path: &str, found: &mut Found) {
    let utilization: Vec<i64> = items(points).map(|(_, point)| number(point, "utilization")).collect();
    if utilization.is_empty() {
        return found.0.push(format!("{path}: Required value: at least one point must be specified"));
    }
    if let Some(i) = (1..utilization.len()).find(|i| utilization[i - 1] >= utilization[*i]) {
        found.invalid(&format!("{path}[{i}].utilization"), utilization[i], "values must be sorted in increasing order");
    }
    for (i, point) in items(points) {
        let (utilization, score) = (number(point, "utilization"), number(point, "score"));
        found.range(Some(utilization), &format!("{path}[{i}].utilization"), 0..=100, "not in valid range [0, 100]");
        found.range(Some(score), &format!("{path}[{i}].score"), 0..=10, "not in valid range [0, 10]");
    }
}

fn label_name(name: &str, path: &str, found: &mut Found) {
    for why in apimachinery::validation::qualified_name(name) {
        found.invalid(path, format!("{name:?}"), &why);
    }
}

fn spread(args: &Value, found: &mut Found) {
    let kind = args["defaultingType"].as_str().unwrap_or("System");
    let constraints = args["defaultConstraints"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !["System", "List"].contains(&kind) {
        found.unsupported("defaultingType", kind, &["System", "List"]);
    } else if kind == "System" && !constraints.is_empty() {
        found.invalid("defaultingType", "\"System\"", "when .defaultConstraints are not empty");
    }
    let identity = |constraint: &Value| {
        (text(constraint, "topologyKey").to_owned(), text(constraint, "whenUnsatisfiable").to_owned())
    };
    for (i, constraint) in constraints.iter().enumerate() {
        let path = format!("defaultConstraints[{i}]");
        let skew = number(constraint, "maxSkew");
        if skew <= 0 {
            found.invalid(&format!("{path}.maxSkew"), skew, "not in valid range (0, inf)");
        }
        let (key, action) = identity(constraint);
        let required = |field: &str| format!("{path}.{field}: Required value: can not be empty");
        match key.is_empty() {
            true => found.0.push(required("topologyKey")),
            false => label_name(&key, &format!("{path}.topologyKey"), found),
        }
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        if action.is_empty() {
            found.0.push(required("whenUnsatisfiable"));
        } else if !actions.contains(&action.as_str()) {
            found.unsupported(&format!("{path}.whenUnsatisfiable"), &action, &actions);
        }
        if !constraint["labelSelector"].is_null() {
            let why = "constraint must not define a selector, as they deduced for each pod";
            found.0.push(format!("{path}.labelSelector: Forbidden: {why}"));
        }
        if constraints[..i].iter().any(|other| identity(other) == (key.clone(), action.clone())) {
            found.0.push(format!("{path}: Duplicate value: \"{{{key}, {action}}}\""));
        }
    }
}

fn added_affinity(affinity: &Value, found: &mut Found) {
    let required = "addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    for (i, term) in items(&affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]) {
        node_term(term, &format!("{required}[{i}]"), found);
    }
    let preferred = "addedAffinity.preferredDuringSchedulingIgnoredDuringExecution";
    for (i, term) in items(&affinity["preferredDuringSchedulingIgnoredDuringExecution"]) {
        node_term(&term["preference"], &format!("{preferred}[{i}]"), found);
    }
}

fn node_term(term: &Value, path: &str, found: &mut Found) {
    let operators = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
    for (i, requirement) in items(&term["matchExpressions"]) {
        let path = format!("{path}.matchExpressions[{i}]");
        let operator = text(requirement, "operator");
        let values = requirement["values"].as_array().map_or(0, Vec::len);
        let mut values_must = |why: &str| found.invalid(&format!("{path}.values"), &requirement["values"], why);
        match operator {
            "In" | "NotIn" if values == 0 => values_must("for 'in', 'notin' operators, values set can't be empty"),
            "Exists" | "DoesNotExist" if values > 0 => {
                values_must("values set must be empty for exists and does not exist")
            }
            "Gt" | "Lt" if values != 1 => values_must("for 'Gt', 'Lt' operators, exactly one value is required"),
            _ if !operators.contains(&operator) => found.unsupported(&format!("{path}.operator"), operator, &operators),
            _ => {}
        }
        label_name(text(requirement, "key"), &format!("{path}.key"), found);
    }
}
