//! Values against a schema, with upstream's messages. Upstream: kube-openapi pkg/validation/validate, apiextensions
//! pkg/apiserver/validation.

use apimachinery::{FieldError, Number, Value};

use super::{Additional, Node, below, format};

impl Node {
    /// Names everything that is wrong with a value. What is as it was in `old` may stay. Upstream: CRDValidationRatcheting.
    pub(crate) fn check(&self, value: &Value, old: Option<&Value>, errors: &mut Vec<FieldError>) {
        check(self, value, old, "", errors);
    }
}

/// An error whose message names the path, as `spec.foo in body must be …`.
fn invalid(path: &str, value: impl Into<Value>, why: &str, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::invalid(field(path), value, format!("{path} in body {why}")));
}

/// What stands before the message; the root has no name.
fn field(path: &str) -> String {
    if path.is_empty() { "<nil>".to_owned() } else { path.to_owned() }
}

/// What several schemas say together belongs to no field.
fn combined(path: &str, words: &str, errors: &mut Vec<FieldError>) {
    errors.push(FieldError::invalid("<nil>", "", format!("{path:?} must {words}")));
}

fn check(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    if old == Some(value) {
        return;
    }
    let fits = check_type(node, value, path, errors);
    if value.is_null() || !fits {
        check_values(node, value, path, errors);
        return;
    }
    check_combinations(node, value, path, errors);
    match value {
        Value::String(text) => check_text(node, text, path, errors),
        Value::Number(_) => check_number(node, value, path, errors),
        Value::Array(items) => check_list(node, items, old, path, errors),
        _ => {}
    }
    check_values(node, value, path, errors);
    if let Value::Object(_) = value {
        check_object(node, value, old, path, errors);
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(Number::Int(_)) => "integer",
        Value::Number(Number::Float(_)) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Upstream shows the type where it found another one than it wants.
fn check_type(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) -> bool {
    let wanted = if node.int_or_string { "integer,string" } else { &node.ty };
    if wanted.is_empty() {
        return true;
    }
    let found = type_of(value);
    let whole = matches!(value, Value::Number(Number::Float(f)) if f.fract() == 0.0);
    let fits = match value {
        Value::Null => node.nullable,
        _ => wanted
            .split(',')
            .any(|wanted| wanted == found || wanted == "number" && found == "integer" || wanted == "integer" && whole),
    };
    if !fits {
        let why = format!("{path} in body must be of type {wanted}: {found:?}");
        errors.push(FieldError::type_invalid(field(path), found, why));
    }
    fits
}

fn check_values(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let same = |known: &Value| match (known.as_f64(), value.as_f64()) {
        (Some(known), Some(value)) => known == value,
        _ => known == value,
    };
    if node.values.is_empty() || node.values.iter().any(same) {
        return;
    }
    let known: Vec<String> =
        node.values.iter().map(|known| known.as_str().map_or_else(|| known.to_string(), str::to_owned)).collect();
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    errors.push(FieldError::not_supported(field(path), value, &known));
}

fn check_text(node: &Node, text: &str, path: &str, errors: &mut Vec<FieldError>) {
    let limits = &node.limits;
    let length = text.chars().count() as i64;
    if let Some(max) = limits.max_length.filter(|max| length > *max) {
        errors.push(FieldError::too_long(field(path), max.max(0) as usize));
    }
    if let Some(min) = limits.min_length.filter(|min| length < *min) {
        invalid(path, text, &format!("should be at least {min} chars long"), errors);
    }
    if !limits.pattern.is_empty() && limits.regex().is_some_and(|regex| !regex.is_match(text)) {
        invalid(path, text, &format!("should match '{}'", limits.pattern), errors);
    }
    if !node.format.is_empty() && !format::fits(&node.format, text) {
        let why = format!("{path} in body must be of type {}: {text:?}", node.format);
        errors.push(FieldError::type_invalid(field(path), text, why));
    }
}

fn check_number(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let limits = &node.limits;
    let Some(number) = value.as_f64() else { return };
    if let Some(factor) = limits.multiple_of.filter(|factor| *factor > 0.0) {
        let quotient = number / factor;
        if (quotient - quotient.round()).abs() > 1e-9 {
            invalid(path, value, &format!("should be a multiple of {}", plain(factor)), errors);
        }
    }
    match (limits.maximum, limits.exclusive_maximum) {
        (Some(max), true) if number >= max => {
            invalid(path, value, &format!("should be less than {}", plain(max)), errors);
        }
        (Some(max), false) if number > max => {
            invalid(path, value, &format!("should be less than or equal to {}", plain(max)), errors);
        }
        _ => {}
    }
    match (limits.minimum, limits.exclusive_minimum) {
        (Some(min), true) if number <= min => {
            invalid(path, value, &format!("should be greater than {}", plain(min)), errors);
        }
        (Some(min), false) if number < min => {
            invalid(path, value, &format!("should be greater than or equal to {}", plain(min)), errors);
        }
        _ => {}
    }
    if node.format == "int32" && !(f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&number) {
        let why = "Checked value must be of type integer with format int32";
        errors.push(FieldError::invalid(field(path), value, why));
    }
}

/// A number as Go's `%v` shows it.
fn plain(number: f64) -> String {
    if number.abs() >= 1e21 { format!("{number:e}").replace('e', "e+") } else { number.to_string() }
}

fn check_list(node: &Node, items: &[Value], old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let limits = &node.limits;
    let count = items.len() as i64;
    if let Some(item) = node.items.as_deref() {
        for (index, value) in items.iter().enumerate() {
            check(item, value, node.item_before(value, old), &format!("{path}[{index}]"), errors);
        }
    }
    if let Some(min) = limits.min_items.filter(|min| count < *min) {
        invalid(path, count, &format!("should have at least {min} items"), errors);
    }
    if let Some(max) = limits.max_items.filter(|max| count > *max) {
        errors.push(FieldError::too_many(field(path), items.len(), max.max(0) as usize));
    }
    if limits.unique_items && (1..items.len()).any(|index| items[..index].contains(&items[index])) {
        invalid(path, "", "shouldn't contain duplicates", errors);
    }
}

impl Node {
    /// What an item of this list was before: by its keys in a list of type map, else unknown.
    pub(crate) fn item_before<'v>(&self, item: &Value, old: Option<&'v Value>) -> Option<&'v Value> {
        let old = old?.as_array()?;
        match self.list_type.as_str() {
            "map" => old.iter().find(|known| self.list_keys.iter().all(|key| known.get(key) == item.get(key))),
            "set" => old.iter().find(|known| *known == item),
            _ => None,
        }
    }
}

fn check_object(node: &Node, value: &Value, old: Option<&Value>, path: &str, errors: &mut Vec<FieldError>) {
    let Some(map) = value.as_object() else { return };
    let count = map.len() as i64;
    if let Some(min) = node.limits.min_properties.filter(|min| count < *min) {
        invalid(path, count, &format!("should have at least {min} properties"), errors);
    }
    if let Some(max) = node.limits.max_properties.filter(|max| count > *max) {
        errors.push(FieldError::too_many(field(path), map.len(), max.max(0) as usize));
    }
    let before = |name: &str| old.and_then(|old| old.get(name));
    for (name, member) in map.iter().filter(|(name, _)| !node.properties.contains_key(*name)) {
        match &node.additional {
            Additional::Bool(false) => {
                let why = format!("{path}.{name} in body is a forbidden property");
                errors.push(FieldError::invalid(field(path), "", why));
            }
            Additional::Schema(additional) => check(additional, member, before(name), &below(path, name), errors),
            _ => {}
        }
    }
    for (name, property) in &node.properties {
        if let Some(member) = map.get(name) {
            check(property, member, before(name), &below(path, name), errors);
        }
    }
    for name in node.required.iter().filter(|name| !map.contains_key(name)) {
        errors.push(FieldError::required(below(path, name), ""));
    }
}

fn check_combinations(node: &Node, value: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let problems = |part: &Node| {
        let mut found = Vec::new();
        check(part, value, None, path, &mut found);
        found
    };
    // What the closest one lacks helps most.
    let closest = |tried: Vec<Vec<FieldError>>| tried.into_iter().min_by_key(Vec::len).unwrap_or_default();
    if !node.any_of.is_empty() {
        let tried: Vec<Vec<FieldError>> = node.any_of.iter().map(problems).collect();
        if !tried.iter().any(Vec::is_empty) {
            combined(path, "validate at least one schema (anyOf)", errors);
            errors.extend(closest(tried));
        }
    }
    if !node.one_of.is_empty() {
        let tried: Vec<Vec<FieldError>> = node.one_of.iter().map(problems).collect();
        match tried.iter().filter(|tried| tried.is_empty()).count() {
            1 => {}
            0 => {
                combined(path, "validate one and only one schema (oneOf). Found none valid", errors);
                errors.extend(closest(tried));
            }
            many => {
                let words = format!("validate one and only one schema (oneOf). Found {many} valid alternatives");
                combined(path, &words, errors);
            }
        }
    }
    if !node.all_of.is_empty() {
        let tried: Vec<Vec<FieldError>> = node.all_of.iter().map(problems).collect();
        let valid = tried.iter().filter(|tried| tried.is_empty()).count();
        if valid < tried.len() {
            errors.extend(tried.into_iter().flatten());
            let more = if valid == 0 { ". None validated" } else { "" };
            combined(path, &format!("validate all the schemas (allOf){more}"), errors);
        }
    }
    if node.not.as_deref().is_some_and(|not| problems(not).is_empty()) {
        combined(path, "not validate the schema (not)", errors);
    }
}
