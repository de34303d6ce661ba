//! Which nodes a pod may or would rather run on. Upstream: component-helpers scheduling/corev1/nodeaffinity.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// What nodes are chosen by: whoever knows many of them keeps little else.
pub trait NodeLabels {
    /// `metadata.name`; empty if it isn't to be chosen by.
    fn name(&self) -> &str;

    fn label(&self, key: &str) -> Option<&str>;
}

impl NodeLabels for Node {
    fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(key).map(String::as_str)
    }
}

/// Whether `spec.nodeSelector` and the required node affinity allow the node.
pub fn required_node_affinity(spec: &PodSpec, node: &dyn NodeLabels) -> bool {
    let selected = spec.node_selector.iter().flatten().all(|(key, value)| node.label(key) == Some(value));
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected && required.is_none_or(|selector| matches_node_selector(selector, node))
}

/// Whether one of the selector's terms matches the node.
pub fn matches_node_selector(selector: &NodeSelector, node: &dyn NodeLabels) -> bool {
    selector.node_selector_terms.iter().any(|term| matches_node_term(term, node))
}

/// Whether all requirements of the term hold for the node; a term without requirements matches nothing.
pub fn matches_node_term(term: &NodeSelectorTerm, node: &dyn NodeLabels) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let field = |key: &str| Some(node.name()).filter(|name| key == "metadata.name" && !name.is_empty());
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(|requirement| holds(requirement, node.label(&requirement.key)))
        && fields.iter().all(|requirement| holds(requirement, field(&requirement.key)))
}

fn holds(requirement: &NodeSelectorRequirement, actual: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = || actual.is_some_and(|actual| values.iter().any(|value| value == actual));
    let compare = |by: fn(&i64, &i64) -> bool| {
        let bound = values.first().and_then(|value| value.parse().ok());
        let number = actual.and_then(|actual| actual.parse().ok());
        matches!((number, bound), (Some(number), Some(bound)) if by(&number, &bound))
    };
    match requirement.operator.as_str() {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => actual.is_some(),
        "DoesNotExist" => actual.is_none(),
        "Gt" => compare(i64::gt),
        "Lt" => compare(i64::lt),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n1", "labels": {"zone": "a", "cpus": "8"}}})).unwrap()
    }

    #[test]
    fn required_terms_decide() {
        let check = |spec: serde_json::Value, expect: bool| {
            let mut full = json!({"containers": []});
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let parsed: PodSpec = serde_json::from_value(full).unwrap();
            assert_eq!(required_node_affinity(&parsed, &node()), expect, "{spec}");
        };
        let affinity = |term: serde_json::Value| {
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
                {"nodeSelectorTerms": [term]}}}})
        };
        check(json!({}), true);
        check(json!({"nodeSelector": {"zone": "a"}}), true);
        check(json!({"nodeSelector": {"zone": "b"}}), false);
        check(affinity(json!({})), false);
        let expression = |key: &str, operator: &str, values: serde_json::Value| {
            affinity(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        check(expression("zone", "In", json!(["a", "b"])), true);
        check(expression("zone", "NotIn", json!(["a"])), false);
        check(expression("disk", "NotIn", json!(["ssd"])), true);
        check(expression("zone", "Exists", json!([])), true);
        check(expression("zone", "DoesNotExist", json!([])), false);
        check(expression("cpus", "Gt", json!(["4"])), true);
        check(expression("cpus", "Lt", json!(["4"])), false);
        check(expression("zone", "Gt", json!(["4"])), false);
        check(affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]})), true);
        check(affinity(json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]})), false);
    }
}
