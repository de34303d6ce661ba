//! A structural schema of a CustomResourceDefinition, compiled once: what pruning, defaulting, validation and server-side apply
//! walk along.

mod default;
mod format;
mod merge;
mod prune;
mod validate;

use std::collections::BTreeMap;
use std::sync::OnceLock;

use apimachinery::Value;
use regex::Regex;

pub(crate) use merge::Arena;
pub(crate) use prune::metadata_error;

/// What one value may be.
#[derive(Debug, Default)]
pub(crate) struct Node {
    /// Empty: any.
    pub ty: String,
    pub format: String,
    pub nullable: bool,
    pub preserve_unknown: bool,
    pub embedded: bool,
    pub int_or_string: bool,
    /// `atomic`, `set` or `map`; empty where nothing is said.
    pub list_type: String,
    pub list_keys: Vec<String>,
    pub atomic_map: bool,
    pub properties: BTreeMap<String, Node>,
    pub additional: Additional,
    pub items: Option<Box<Node>>,
    pub default: Option<Value>,
    pub limits: Limits,
    pub required: Vec<String>,
    pub values: Vec<Value>,
    pub all_of: Vec<Node>,
    pub any_of: Vec<Node>,
    pub one_of: Vec<Node>,
    pub not: Option<Box<Node>>,
    /// `x-kubernetes-validations` as given.
    pub rules: Vec<Value>,
}

/// What becomes of members that no property names.
#[derive(Debug, Default)]
pub(crate) enum Additional {
    #[default]
    Unsaid,
    Bool(bool),
    Schema(Box<Node>),
}

/// Bounds of numbers, texts, lists and objects.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    pub maximum: Option<f64>,
    pub exclusive_maximum: bool,
    pub minimum: Option<f64>,
    pub exclusive_minimum: bool,
    pub multiple_of: Option<f64>,
    pub max_length: Option<i64>,
    pub min_length: Option<i64>,
    pub max_items: Option<i64>,
    pub min_items: Option<i64>,
    pub unique_items: bool,
    pub max_properties: Option<i64>,
    pub min_properties: Option<i64>,
    pub pattern: String,
    compiled: OnceLock<Option<Regex>>,
}

impl Limits {
    /// The pattern, compiled when it is first needed.
    pub(super) fn regex(&self) -> Option<&Regex> {
        self.compiled.get_or_init(|| Regex::new(&self.pattern).ok()).as_ref()
    }
}

impl Node {
    /// Reads a JSONSchemaProps.
    pub(crate) fn read(schema: &Value) -> Node {
        let text = |key: &str| schema.str_at(&[key]).unwrap_or_default().to_owned();
        let flag = |key: &str| schema.bool_at(&[key]).unwrap_or_default();
        let list = |key: &str| schema.items_at(&[key]);
        let texts = |key: &str| list(key).iter().filter_map(Value::as_str).map(str::to_owned).collect();
        let nodes = |key: &str| list(key).iter().map(Node::read).collect();
        let float = |key: &str| schema.get(key).and_then(Value::as_f64);
        let whole = |key: &str| schema.i64_at(&[key]);
        let boxed =
            |key: &str| schema.get(key).filter(|value| value.as_object().is_some()).map(Node::read).map(Box::new);
        let members = schema.get("properties").and_then(Value::as_object);
        Node {
            ty: text("type"),
            format: text("format"),
            nullable: flag("nullable"),
            preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
            embedded: flag("x-kubernetes-embedded-resource"),
            int_or_string: flag("x-kubernetes-int-or-string"),
            list_type: text("x-kubernetes-list-type"),
            list_keys: texts("x-kubernetes-list-map-keys"),
            atomic_map: text("x-kubernetes-map-type") == "atomic",
            properties: members
                .into_iter()
                .flat_map(|map| map.iter())
                .map(|(k, v)| (k.to_owned(), Node::read(v)))
                .collect(),
            additional: match schema.get("additionalProperties") {
                Some(Value::Bool(allows)) => Additional::Bool(*allows),
                Some(value @ Value::Object(_)) => Additional::Schema(Box::new(Node::read(value))),
                _ => Additional::Unsaid,
            },
            items: boxed("items"),
            default: schema.get("default").filter(|value| !value.is_null()).cloned(),
            limits: Limits {
                maximum: float("maximum"),
                exclusive_maximum: flag("exclusiveMaximum"),
                minimum: float("minimum"),
                exclusive_minimum: flag("exclusiveMinimum"),
                multiple_of: float("multipleOf"),
                max_length: whole("maxLength"),
                min_length: whole("minLength"),
                max_items: whole("maxItems"),
                min_items: whole("minItems"),
                unique_items: flag("uniqueItems"),
                max_properties: whole("maxProperties"),
                min_properties: whole("minProperties"),
                pattern: text("pattern"),
                compiled: OnceLock::new(),
            },
            required: texts("required"),
            values: list("enum").to_vec(),
            all_of: nodes("allOf"),
            any_of: nodes("anyOf"),
            one_of: nodes("oneOf"),
            not: boxed("not"),
            rules: list("x-kubernetes-validations").to_vec(),
        }
    }

    /// The schema of a member.
    pub(crate) fn member(&self, name: &str) -> Option<&Node> {
        self.properties.get(name).or(match &self.additional {
            Additional::Schema(node) => Some(node),
            _ => None,
        })
    }

    /// The schema under a path of properties.
    pub(crate) fn walk(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, name| node.member(name))
    }

    /// Whether any rule is in this node or below it.
    pub(crate) fn has_rules(&self) -> bool {
        !self.rules.is_empty()
            || self.properties.values().any(Node::has_rules)
            || self.items.as_deref().is_some_and(Node::has_rules)
            || matches!(&self.additional, Additional::Schema(node) if node.has_rules())
            || self.all_of.iter().any(Node::has_rules)
    }
}

/// A member's path: `spec.foo`.
fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
