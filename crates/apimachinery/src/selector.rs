//! Selectors: which objects a list, a watch or a controller is about.
//!
//! Upstream: apimachinery pkg/labels, pkg/fields, and `LabelSelectorAsSelector`.

mod field;
mod parse;

use std::fmt;

pub use field::{FieldRequirement, FieldSelector};

use crate::validation::{label_value, qualified_name};
use crate::{FieldError, Object, Value};

/// A condition on an object's labels: all requirements hold. The default selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Sorted by key.
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// A condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

/// How a label relates to a requirement's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    In,
    NotIn,
    Equals,
    DoubleEquals,
    NotEquals,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// A text or a LabelSelector that is no selector; the message is upstream's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(pub String);

impl Selector {
    pub fn everything() -> Selector {
        Selector::default()
    }

    pub fn nothing() -> Selector {
        Selector { nothing: true, ..Selector::default() }
    }

    /// Reads `a=b,c!=d,e in (x,y),!f`.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        parse::parse(text).map(Selector::new)
    }

    pub fn new(mut requirements: Vec<Requirement>) -> Selector {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Selector { requirements, nothing: false }
    }

    /// From a map of labels, unchecked (a Service's or ReplicationController's `spec.selector`); an empty map selects everything.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> Selector {
        let equals = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        Selector::new(labels.into_iter().map(equals).collect())
    }

    /// From a `LabelSelector`: an absent one selects nothing, an empty one everything.
    pub fn from_label_selector(selector: Option<&Value>) -> Result<Selector, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(Selector::nothing());
        };
        let mut requirements = Vec::new();
        let labels = selector.get("matchLabels").and_then(Value::as_object);
        for (key, value) in labels.into_iter().flat_map(|map| map.iter()) {
            let values = vec![value.as_str().unwrap_or_default().to_owned()];
            requirements.push(Requirement::checked(key, Operator::Equals, values, "")?);
        }
        for expression in selector.items_at(&["matchExpressions"]) {
            let operator = match expression.str_at(&["operator"]).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("{other:?} is not a valid label selector operator"))),
            };
            let key = expression.str_at(&["key"]).unwrap_or_default();
            let values = expression.items_at(&["values"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
            requirements.push(Requirement::checked(key, operator, values, "")?);
        }
        Ok(Selector::new(requirements))
    }

    /// Whether `object`'s labels satisfy it.
    pub fn matches(&self, object: &Object) -> bool {
        self.matches_with(|key| object.label(key))
    }

    /// Whether the labels in a map value (`metadata.labels`) satisfy it.
    pub fn matches_value(&self, labels: Option<&Value>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// Whether the labels that `label` looks up satisfy it.
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.holds(label(&requirement.key)))
    }

    /// Whether it selects everything.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl Requirement {
    /// A requirement whose key and values are valid; `path` leads to it in error messages.
    pub(crate) fn checked(
        key: &str,
        operator: Operator,
        values: Vec<String>,
        path: &str,
    ) -> Result<Requirement, SelectorError> {
        let dot = if path.is_empty() { "" } else { "." };
        let mut errors = Vec::new();
        let problems = qualified_name(key);
        if !problems.is_empty() {
            errors.push(FieldError::invalid(format!("{path}{dot}key"), key, problems.join("; ")));
        }
        let at = format!("{path}{dot}values");
        let count = match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                Some("for 'in', 'notin' operators, values set can't be empty")
            }
            Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
                Some("exact-match compatibility requires one single value")
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                Some("values set must be empty for exists and does not exist")
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                Some("for 'Gt', 'Lt' operators, exactly one value is required")
            }
            _ => None,
        };
        errors.extend(count.map(|detail| FieldError::invalid(&at, values.clone(), detail)));
        for (i, value) in values.iter().enumerate() {
            if matches!(operator, Operator::GreaterThan | Operator::LessThan) && value.parse::<i64>().is_err() {
                let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
                errors.push(FieldError::invalid(format!("{at}[{i}]"), value, detail));
            }
            let problems = label_value(value);
            if !problems.is_empty() {
                errors.push(FieldError::invalid(format!("{at}[{i}][{key}]"), value, problems.join("; ")));
            }
        }
        match errors.as_slice() {
            [] => Ok(Requirement { key: key.to_owned(), operator, values }),
            [one] => Err(SelectorError(one.to_string())),
            many => {
                let texts: Vec<String> = many.iter().map(FieldError::to_string).collect();
                Err(SelectorError(format!("[{}]", texts.join(", "))))
            }
        }
    }

    /// Whether the label, absent or not, satisfies it.
    pub fn holds(&self, label: Option<&str>) -> bool {
        let listed = |label: &str| self.values.iter().any(|value| value == label);
        let numbers = || Some((label?.parse::<i64>().ok()?, self.values.first()?.parse::<i64>().ok()?));
        match self.operator {
            Operator::In | Operator::Equals | Operator::DoubleEquals => label.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !label.is_some_and(listed),
            Operator::Exists => label.is_some(),
            Operator::DoesNotExist => label.is_none(),
            Operator::GreaterThan => numbers().is_some_and(|(label, value)| label > value),
            Operator::LessThan => numbers().is_some_and(|(label, value)| label < value),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        let mut values: Vec<&str> = self.values.iter().map(String::as_str).collect();
        values.sort_unstable();
        let values = values.join(",");
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<&'a str> {
        move |key| pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    #[test]
    fn texts_select() {
        let check = |text: &str, pairs: &[(&str, &str)], expect: bool| {
            assert_eq!(Selector::parse(text).unwrap().matches_with(labels(pairs)), expect, "{text} {pairs:?}");
        };
        check("", &[("a", "b")], true);
        check("a=b", &[("a", "b")], true);
        check("a==b", &[("a", "c")], false);
        check("a=b", &[], false);
        check("a!=b", &[], true);
        check("a!=b", &[("a", "b")], false);
        check("a", &[("a", "")], true);
        check("!a", &[("a", "")], false);
        check("!a", &[], true);
        check("a in (x, y)", &[("a", "y")], true);
        check("a in (x,y)", &[("a", "z")], false);
        check("a notin (x,y)", &[], true);
        check("a notin (x,y)", &[("a", "x")], false);
        check("a>5", &[("a", "6")], true);
        check("a<5", &[("a", "x")], false);
        check("a=,b", &[("a", ""), ("b", "1")], true);
        check("a in (,x)", &[("a", "")], true);
        check("in in (in)", &[("in", "in")], true);
        assert!(!Selector::nothing().matches_with(labels(&[])));
    }

    #[test]
    fn texts_are_normalized() {
        for (text, expect) in [
            ("b=1,a in (y,x)", "a in (x,y),b=1"),
            ("a notin ( x )", "a notin (x)"),
            (" x , !y ", "x,!y"),
            ("a != b", "a!=b"),
            ("a>1,a<9", "a>1,a<9"),
            ("a in ()", "a in ()"),
        ] {
            assert_eq!(Selector::parse(text).unwrap().to_string(), expect);
        }
    }

    #[test]
    fn bad_texts_are_refused_with_upstreams_sentences() {
        for (text, expect) in [
            ("x=a||y=b", "unable to parse requirement: values[0][x]: Invalid value: \"a||y\": a valid label must be"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("(a)", "found '(', expected: !, identifier, or 'end of string'"),
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("a in (x", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=(", "unable to parse requirement: found '(', expected: identifier"),
            ("!", "unable to parse requirement: found '', expected: identifier"),
            ("a b=c", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("ä=b", "unable to parse requirement: <nil>: Invalid value: \"ä\": name part must consist of"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            let error = Selector::parse(text).unwrap_err().0;
            assert!(error.starts_with(expect), "{text}: {error}");
        }
    }

    #[test]
    fn label_selectors_select() {
        let read = |json: &str| Selector::from_label_selector(Some(&Value::parse(json.as_bytes()).unwrap()));
        assert_eq!(Selector::from_label_selector(None).unwrap(), Selector::nothing());
        assert!(read("{}").unwrap().is_everything());
        let selector = read(
            r#"{"matchLabels":{"app":"web"},"matchExpressions":[{"key":"tier","operator":"NotIn","values":["x"]},{"key":"a","operator":"Exists"}]}"#,
        );
        assert_eq!(selector.unwrap().to_string(), "a,app=web,tier notin (x)");
        let error = read(r#"{"matchExpressions":[{"key":"a","operator":"Is"}]}"#).unwrap_err();
        assert_eq!(error.0, "\"Is\" is not a valid label selector operator");
        let error = read(r#"{"matchExpressions":[{"key":"a","operator":"In"}]}"#).unwrap_err();
        assert_eq!(error.0, "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty");
    }

    #[test]
    fn objects_and_values_are_matched() {
        let value = Value::parse(br#"{"metadata":{"labels":{"a":"b"}}}"#).unwrap();
        let selector = Selector::from_labels([("a", "b")]);
        assert!(selector.matches(&Object::new(&value, 1).unwrap()));
        assert!(selector.matches_value(value.at(&["metadata", "labels"])));
        assert!(!selector.matches_value(None));
    }
}
