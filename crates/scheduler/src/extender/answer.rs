//! What extenders answer. As upstream's decoder does, fields are found in any case.

use std::collections::BTreeMap;

use serde_json::Value;

/// The field called so, if it is given.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let members = value.as_object()?;
    let given = members
        .get(name)
        .or_else(|| members.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value));
    given.filter(|value| !value.is_null())
}

/// The nodes that a filter lets pass. `by_name`: it need only name them.
pub(super) fn names(answer: &Value, by_name: bool) -> Vec<&str> {
    if let Some(names) = field(answer, "NodeNames").filter(|_| by_name) {
        return names.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    }
    let items = field(answer, "Nodes").and_then(|nodes| nodes.get("items")).and_then(Value::as_array);
    items.into_iter().flatten().filter_map(|node| node.pointer("/metadata/name").and_then(Value::as_str)).collect()
}

/// Reasons by node.
pub(super) fn reasons(answer: &Value, name: &str) -> BTreeMap<String, String> {
    let members = field(answer, name).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(node, why)| Some((node.clone(), why.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_are_named_or_listed() {
        let check = |answer: Value, by_name, expect: &[&str]| assert_eq!(names(&answer, by_name), expect, "{answer}");
        let listed = json!({"Nodes": {"items": [{"metadata": {"name": "b"}}, {"metadata": {"name": "a"}}]}});
        check(listed.clone(), false, &["b", "a"]);
        check(listed, true, &["b", "a"]);
        check(json!({"NodeNames": ["a"]}), true, &["a"]);
        check(json!({"nodenames": ["a"]}), true, &["a"]);
        check(json!({"NodeNames": ["a"]}), false, &[]);
        check(json!({"NodeNames": null, "Nodes": null}), true, &[]);
        assert_eq!(reasons(&json!({"failedNodes": {"a": "no"}}), "FailedNodes").len(), 1);
    }
}
