//! Label selectors as Go's generated code prints them, which messages of upstream's controllers contain.

use apimachinery::Value;

/// `nil` where there is no selector.
pub(crate) fn shown(selector: Option<&Value>) -> String {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else { return "nil".to_owned() };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let labels = selector.at(&["matchLabels"]).and_then(Value::as_object);
    let mut labels: Vec<String> = labels
        .into_iter()
        .flat_map(|labels| labels.iter())
        .map(|(key, value)| format!("{key}: {},", text(value)))
        .collect();
    labels.sort();
    let expressions = selector.items_at(&["matchExpressions"]).iter().map(|expression| {
        let values: Vec<String> = expression.items_at(&["values"]).iter().map(text).collect();
        let [key, operator] = ["key", "operator"].map(|of| expression.str_at(&[of]).unwrap_or_default());
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{}],}},", values.join(" "))
    });
    let (labels, expressions) = (labels.concat(), expressions.collect::<String>());
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_as_go_shows_them() {
        let check = |json: &str, expect: &str| assert_eq!(shown(Value::parse(json.as_bytes()).ok().as_ref()), expect);
        check(
            r#"{"matchLabels":{"b":"2","a":"1"}}"#,
            "&LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},MatchExpressions:[]LabelSelectorRequirement{},}",
        );
        check(
            r#"{"matchExpressions":[{"key":"a","operator":"In","values":["x","y"]},{"key":"b","operator":"Exists"}]}"#,
            "&LabelSelector{MatchLabels:map[string]string{},MatchExpressions:[]LabelSelectorRequirement{\
             LabelSelectorRequirement{Key:a,Operator:In,Values:[x y],},LabelSelectorRequirement{Key:b,Operator:Exists,Values:[],},},}",
        );
        check("null", "nil");
    }
}
