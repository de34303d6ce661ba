//! From the typed views of selectors to one that matches.

use std::collections::BTreeMap;

use apimachinery::{Operator, Requirement, Selector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// An absent selector selects nothing, an empty one everything; so does, as the API server admits none, one with an unknown operator
/// select nothing.
pub fn label_selector(selector: Option<&LabelSelector>) -> Selector {
    let Some(selector) = selector else { return Selector::nothing() };
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push(Requirement { key: key.clone(), operator: Operator::Equals, values: vec![value.clone()] });
    }
    for expression in selector.match_expressions.iter().flatten() {
        let operator = match expression.operator.as_str() {
            "In" => Operator::In,
            "NotIn" => Operator::NotIn,
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            _ => return Selector::nothing(),
        };
        requirements.push(Requirement {
            key: expression.key.clone(),
            operator,
            values: expression.values.clone().unwrap_or_default(),
        });
    }
    Selector::new(requirements)
}

/// Whether `labels` satisfy `selector`.
pub fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.matches_with(|key| labels.get(key).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_selects_nothing_and_empty_everything() {
        let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
        let check = |selector: serde_json::Value, expect: bool| {
            let parsed: Option<LabelSelector> = serde_json::from_value(selector.clone()).unwrap();
            assert_eq!(selects(&label_selector(parsed.as_ref()), &labels), expect, "{selector}");
        };
        check(json!(null), false);
        check(json!({}), true);
        check(json!({"matchLabels": {"app": "web"}}), true);
        check(json!({"matchLabels": {"app": "web", "tier": "db"}}), false);
        check(json!({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}), false);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), true);
        check(json!({"matchExpressions": [{"key": "tier", "operator": "Near"}]}), false);
    }
}
