//! Paths of fields, formatted only when an error needs them, and the short words validation is written in.

use std::fmt;

use apimachinery::validation::{
    Problems, dns1123_label, dns1123_subdomain, label_value, port_name, port_number, qualified_name,
};
use apimachinery::{FieldError, Value};

/// What validation collects.
pub(super) type Errors = Vec<FieldError>;

pub(super) const NEGATIVE: &str = "must be greater than or equal to 0";
pub(super) const NOT_POSITIVE: &str = "must be greater than zero";

/// A field's path as a chain on the stack.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy)]
enum Part<'a> {
    Child(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    pub(super) const fn new(name: &'a str) -> Path<'a> {
        Path { parent: None, part: Part::Child(name) }
    }

    pub(super) fn child<'b>(&'b self, name: &'b str) -> Path<'b> {
        Path { parent: Some(self), part: Part::Child(name) }
    }

    pub(super) fn index(&self, index: usize) -> Path<'_> {
        Path { parent: Some(self), part: Part::Index(index) }
    }

    pub(super) fn key<'b>(&'b self, key: &'b str) -> Path<'b> {
        Path { parent: Some(self), part: Part::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.part {
            Part::Child(name) if self.parent.is_none() => f.write_str(name),
            Part::Child(name) => write!(f, ".{name}"),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// What can be wrong with a field.
pub(super) trait Report {
    fn add(&mut self, error: FieldError);

    fn required(&mut self, path: &Path<'_>, detail: &str) {
        self.add(FieldError::required(path.to_string(), detail));
    }

    fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(FieldError::invalid(path.to_string(), value, detail));
    }

    fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(FieldError::forbidden(path.to_string(), detail));
    }

    fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(FieldError::duplicate(path.to_string(), value));
    }

    fn not_found(&mut self, path: &Path<'_>, value: &str) {
        self.add(FieldError::not_found(path.to_string(), value));
    }

    fn not_supported(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        self.add(FieldError::not_supported(path.to_string(), value, supported));
    }

    /// One error for each problem of a text's format.
    fn problems(&mut self, path: &Path<'_>, value: &str, problems: Problems) {
        for problem in problems {
            self.invalid(path, value, problem);
        }
    }

    fn label(&mut self, path: &Path<'_>, value: &str) {
        self.problems(path, value, dns1123_label(value));
    }

    fn subdomain(&mut self, path: &Path<'_>, value: &str) {
        self.problems(path, value, dns1123_subdomain(value));
    }

    fn qualified(&mut self, path: &Path<'_>, value: &str) {
        self.problems(path, value, qualified_name(value));
    }

    /// A value of the list.
    fn one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if !supported.contains(&value) {
            self.not_supported(path, value, supported);
        }
    }

    /// A value of the list, which must be there.
    fn needs_one_of(&mut self, path: &Path<'_>, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(path, "");
        } else {
            self.one_of(path, value, supported);
        }
    }

    /// A text that must not be empty.
    fn needs(&mut self, parent: &Path<'_>, value: &Value, key: &str) {
        if text(value, key).is_empty() {
            self.required(&parent.child(key), "");
        }
    }

    /// An integer member that is not below zero, where it is given.
    fn non_negative(&mut self, parent: &Path<'_>, value: &Value, key: &str) {
        if let Some(n) = value.i64_at(&[key]).filter(|n| *n < 0) {
            self.invalid(&parent.child(key), n, NEGATIVE);
        }
    }

    fn port(&mut self, path: &Path<'_>, port: i64) {
        for problem in port_number(port) {
            self.invalid(path, port, problem);
        }
    }

    /// A port's number or name.
    fn port_or_name(&mut self, path: &Path<'_>, port: Option<&Value>) {
        match port {
            Some(Value::String(name)) => self.problems(path, name, port_name(name)),
            Some(number) => self.port(path, number.as_i64().unwrap_or_default()),
            None => self.port(path, 0),
        }
    }

    fn label_text(&mut self, path: &Path<'_>, value: &str) {
        self.problems(path, value, label_value(value));
    }

    /// An IP address as fields take it that are older than its canonical form.
    fn ip(&mut self, path: &Path<'_>, value: &str) -> bool {
        let problems = apimachinery::validation::ip_legacy(value);
        let valid = problems.is_empty();
        self.problems(path, value, problems);
        valid
    }
}

impl Report for Errors {
    fn add(&mut self, error: FieldError) {
        self.push(error);
    }
}

/// A string member; empty where there is none.
pub(super) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// An integer member; 0 where there is none.
pub(super) fn int(value: &Value, key: &str) -> i64 {
    value.get(key).and_then(Value::as_i64).unwrap_or_default()
}

pub(super) fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool).unwrap_or_default()
}

pub(super) fn items<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The members of an object that is a member.
pub(super) fn entries<'v>(value: &'v Value, key: &str) -> impl Iterator<Item = (&'v str, &'v Value)> + use<'v> {
    value.get(key).and_then(Value::as_object).into_iter().flat_map(|map| map.iter())
}

/// A member that is there and not null.
pub(super) fn member<'v>(value: &'v Value, key: &str) -> Option<&'v Value> {
    value.get(key).filter(|member| !member.is_null())
}

/// Whether a member is there and not null.
pub(super) fn has(value: &Value, key: &str) -> bool {
    member(value, key).is_some()
}

/// Puts `default` where a member is absent, null, empty or 0.
pub(super) fn fill(value: &mut Value, key: &'static str, default: impl Into<Value>) {
    let empty = match value.get(key) {
        None | Some(Value::Null) => true,
        Some(Value::String(text)) => text.is_empty(),
        Some(other) => other.as_i64() == Some(0),
    };
    if empty {
        value.make_object().insert(key, default);
    }
}

/// Puts `default` where a member is absent or null.
pub(super) fn fill_absent(value: &mut Value, key: &'static str, default: impl Into<Value>) {
    if !has(value, key) {
        value.make_object().insert(key, default);
    }
}

/// The items of a list to edit.
pub(super) fn items_mut<'v>(value: &'v mut Value, key: &str) -> impl Iterator<Item = &'v mut Value> + use<'v> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// Takes `field is immutable` errors for a change of a member.
pub(super) fn immutable(errors: &mut Errors, path: &Path<'_>, new: Option<&Value>, old: Option<&Value>) {
    let null = Value::Null;
    let (new, old) = (new.unwrap_or(&null), old.unwrap_or(&null));
    errors.extend(apimachinery::validation::immutable(&path.to_string(), new, old));
}
