//! ValidatingAdmissionPolicy and its binding. Upstream: pkg/apis/admissionregistration/validation.

use apimachinery::validation::{
    dns1035_label, dns1123_subdomain, path_segment, qualified_name, validate_label_selector,
};
use apimachinery::{FieldError, FieldErrorKind, Value};
use cel::Type;
use cel::admission::Declarations;

use super::field::{Errors, Path, Report, fill_absent, has, items, items_mut, member, text};
use super::{Context, Strategy};
use crate::gate::worded_mistake;

pub(super) struct ValidatingAdmissionPolicy;
pub(super) struct ValidatingAdmissionPolicyBinding;

const MAX_CONDITIONS: usize = 64;
const MAX_ANNOTATIONS: usize = 20;
const MAX_ANNOTATION: usize = 5 * 1024;

impl Strategy for ValidatingAdmissionPolicy {
    fn resource(&self) -> (&'static str, &'static str) {
        ("admissionregistration.k8s.io", "validatingadmissionpolicies")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec").filter(|spec| !spec.is_null()) else { return };
        fill_absent(spec, "failurePolicy", "Fail");
        if let Some(constraints) = spec.get_mut("matchConstraints").filter(|constraints| !constraints.is_null()) {
            default_resources(constraints);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Errors) {
        let null = Value::Null;
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        policy(name, new.get("spec").unwrap_or(&null), true, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Errors) {
        if ctx.subresource == "status" {
            return;
        }
        let null = Value::Null;
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        let same = |key: &str| new.at(&["spec", key]) == old.at(&["spec", key]);
        let conditions = !(same("paramKind") && same("matchConditions"));
        policy(name, new.get("spec").unwrap_or(&null), conditions, errors);
    }
}

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn resource(&self) -> (&'static str, &'static str) {
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, value: &mut Value) {
        let resources = value.at_mut(&["spec", "matchResources"]).filter(|resources| !resources.is_null());
        if let Some(resources) = resources {
            default_resources(resources);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Errors) {
        let null = Value::Null;
        let spec = new.get("spec").unwrap_or(&null);
        let path = Path::new("spec");
        match text(spec, "policyName") {
            "" => errors.required(&path.child("policyName"), ""),
            name => errors.problems(&path.child("policyName"), name, dns1123_subdomain(name)),
        }
        if let Some(reference) = member(spec, "paramRef") {
            param_ref(reference, &path.child("paramRef"), errors);
        }
        if let Some(resources) = member(spec, "matchResources") {
            match_resources(resources, &path.child("matchResources"), errors);
        }
        actions(items(spec, "validationActions"), &path.child("validationActions"), errors);
    }
}

fn default_resources(resources: &mut Value) {
    fill_absent(resources, "matchPolicy", "Equivalent");
    fill_absent(resources, "namespaceSelector", Value::object());
    fill_absent(resources, "objectSelector", Value::object());
    for list in ["resourceRules", "excludeResourceRules"] {
        for rule in items_mut(resources, list) {
            fill_absent(rule, "scope", "*");
        }
    }
}

fn policy(name: &str, spec: &Value, conditions: bool, errors: &mut Errors) {
    let path = Path::new("spec");
    errors.needs_one_of(&path.child("failurePolicy"), text(spec, "failurePolicy"), &["Fail", "Ignore"]);
    if let Some(kind) = member(spec, "paramKind") {
        param_kind(kind, &path.child("paramKind"), errors);
    }
    let constraints = path.child("matchConstraints");
    match member(spec, "matchConstraints") {
        None => errors.required(&constraints, ""),
        Some(resources) => {
            match_resources(resources, &constraints, errors);
            if items(resources, "resourceRules").is_empty() {
                errors.required(&constraints.child("resourceRules"), "");
            }
        }
    }
    let params = has(spec, "paramKind").then_some(None);
    let mut declared = Declarations { params, authorizer: true, ..Declarations::default() };
    if conditions {
        match_conditions(items(spec, "matchConditions"), &declared, &path.child("matchConditions"), errors);
    }
    for (i, variable) in items(spec, "variables").iter().enumerate() {
        let list = path.child("variables");
        declare(variable, &mut declared, &list.index(i), errors);
    }
    let (validations, annotations) = (items(spec, "validations"), items(spec, "auditAnnotations"));
    if validations.is_empty() && annotations.is_empty() {
        let why = "validations or auditAnnotations must contain at least one item";
        errors.required(&path.child("validations"), why);
        errors.required(&path.child("auditAnnotations"), why);
    }
    for (i, item) in validations.iter().enumerate() {
        let list = path.child("validations");
        validation(item, &declared, &list.index(i), errors);
    }
    audit_annotations(name, annotations, &declared, &path.child("auditAnnotations"), errors);
}

fn param_kind(kind: &Value, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("apiVersion");
    let version = text(kind, "apiVersion");
    let parts: Vec<&str> = version.split('/').collect();
    match parts.as_slice() {
        _ if version.is_empty() => errors.required(&at, ""),
        ["", ""] => errors.invalid(&at, version, "version must be specified"),
        [group, version_only] => {
            if !group.is_empty() {
                joined(errors, &at, group, "", dns1123_subdomain(group));
            }
            if version_only.is_empty() {
                errors.invalid(&at, version, "version must be specified");
            } else {
                joined(errors, &at, version_only, "", dns1035_label(version_only));
            }
        }
        [only] => joined(errors, &at, only, "", dns1035_label(only)),
        _ => errors.invalid(&at, version, format!("unexpected GroupVersion string: {version}")),
    }
    match text(kind, "kind") {
        "" => errors.required(&path.child("kind"), ""),
        name => {
            let prefix = "may have mixed case, but should otherwise match: ";
            joined(errors, &path.child("kind"), name, prefix, dns1035_label(&name.to_lowercase()));
        }
    }
}

fn label_selector(selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.extend(validate_label_selector(selector, &path.to_string(), false));
}

/// All problems of a text as one error.
fn joined(errors: &mut Errors, path: &Path<'_>, value: &str, prefix: &str, problems: Vec<String>) {
    if !problems.is_empty() {
        errors.invalid(path, value, format!("{prefix}{}", problems.join(",")));
    }
}

fn match_resources(resources: &Value, path: &Path<'_>, errors: &mut Errors) {
    errors.needs_one_of(&path.child("matchPolicy"), text(resources, "matchPolicy"), &["Equivalent", "Exact"]);
    for key in ["namespaceSelector", "objectSelector"] {
        match member(resources, key) {
            None => errors.required(&path.child(key), ""),
            Some(selector) => label_selector(selector, &path.child(key), errors),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for (i, item) in items(resources, list).iter().enumerate() {
            rule(item, &path.child(list).index(i), errors);
        }
    }
}

fn texts(list: &[Value]) -> impl Iterator<Item = &str> {
    list.iter().filter_map(Value::as_str)
}

fn rule(rule: &Value, path: &Path<'_>, errors: &mut Errors) {
    let names = items(rule, "resourceNames");
    for (i, name) in texts(names).enumerate() {
        let list = path.child("resourceNames");
        errors.problems(&list.index(i), name, path_segment(name));
        if texts(&names[..i]).any(|earlier| earlier == name) {
            errors.duplicate(&list.index(i), name);
        }
    }
    for (key, what) in [("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let list = items(rule, key);
        if list.is_empty() {
            errors.required(&path.child(key), "");
        }
        if list.len() > 1 && texts(list).any(|item| item == "*") {
            let detail = format!("if '*' is present, must not specify other {what}");
            errors.invalid(&path.child(key), Value::Array(list.to_vec()), detail);
        }
        for (i, item) in texts(list).enumerate() {
            let at = path.child(key);
            match key {
                "operations" => errors.one_of(&at.index(i), item, &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]),
                "apiVersions" if item.is_empty() => errors.required(&at.index(i), ""),
                _ => {}
            }
        }
    }
    rule_resources(items(rule, "resources"), &path.child("resources"), errors);
    if has(rule, "scope") {
        errors.one_of(&path.child("scope"), text(rule, "scope"), &["*", "Cluster", "Namespaced"]);
    }
}

fn rule_resources(list: &[Value], path: &Path<'_>, errors: &mut Errors) {
    if list.is_empty() {
        errors.required(path, "");
    }
    let (mut any_sub, mut any_resource): (Vec<&str>, Vec<&str>) = Default::default();
    let mut plain = false;
    for (i, item) in texts(list).enumerate() {
        if item.is_empty() {
            errors.required(&path.index(i), "");
            continue;
        }
        let Some((resource, sub)) = item.split_once('/') else {
            plain = item != "*";
            continue;
        };
        if any_sub.contains(&resource) {
            errors.invalid(&path.index(i), item, format!("if '{resource}/*' is present, must not specify {item}"));
        }
        if any_resource.contains(&sub) {
            errors.invalid(&path.index(i), item, format!("if '*/{sub}' is present, must not specify {item}"));
        }
        if sub == "*" {
            any_sub.push(resource);
        }
        if resource == "*" {
            any_resource.push(sub);
        }
    }
    let all = || Value::Array(list.to_vec());
    if list.len() > 1 && texts(list).any(|item| item == "*/*") {
        errors.invalid(path, all(), "if '*/*' is present, must not specify other resources");
    }
    if plain && texts(list).any(|item| item == "*") {
        errors.invalid(path, all(), "if '*' is present, must not specify other resources without subresources");
    }
}

/// An expression that must compile.
fn expression(
    text: &str,
    declared: &Declarations,
    outputs: &[Type],
    path: &Path<'_>,
    errors: &mut Errors,
) -> Option<Type> {
    match declared.environment().compile(text, outputs) {
        Ok(program) => return Some(program.output().clone()),
        Err(error) if error.is_program() => {
            let (field, detail) = (path.to_string(), worded_mistake(&error));
            errors.add(FieldError { kind: FieldErrorKind::Internal, field, shown: String::new(), detail });
        }
        Err(error) => errors.invalid(path, text, worded_mistake(&error)),
    }
    None
}

pub(super) fn match_conditions(list: &[Value], declared: &Declarations, path: &Path<'_>, errors: &mut Errors) {
    if list.len() > MAX_CONDITIONS {
        errors.add(FieldError::too_many(path.to_string(), list.len(), MAX_CONDITIONS));
    }
    for (i, condition) in list.iter().enumerate() {
        let at = path.index(i);
        match text(condition, "expression").trim() {
            "" => errors.required(&at.child("expression"), ""),
            trimmed => drop(expression(trimmed, declared, &[Type::Bool], &at.child("expression"), errors)),
        }
        match text(condition, "name") {
            "" => errors.required(&at.child("name"), ""),
            name => {
                errors.problems(&at.child("name"), name, qualified_name(name));
                if list[..i].iter().any(|earlier| text(earlier, "name") == name) {
                    errors.duplicate(&at.child("name"), name);
                }
            }
        }
    }
}

fn declare(variable: &Value, declared: &mut Declarations, path: &Path<'_>, errors: &mut Errors) {
    let name = text(variable, "name");
    if name.trim().is_empty() {
        errors.required(&path.child("name"), "name is not specified");
    } else if !cel::is_identifier(name) {
        errors.invalid(&path.child("name"), name, "must be a valid CEL identifier");
    }
    let written = text(variable, "expression");
    if written.trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
        return;
    }
    let ty = expression(written, declared, &[], &path.child("expression"), errors);
    declared.variables.push((name.to_owned(), ty.unwrap_or(Type::Dyn)));
}

fn validation(validation: &Value, declared: &Declarations, path: &Path<'_>, errors: &mut Errors) {
    let written = text(validation, "expression");
    if written.trim().is_empty() {
        errors.required(&path.child("expression"), "expression is not specified");
    } else {
        expression(written, declared, &[Type::Bool], &path.child("expression"), errors);
    }
    let message = text(validation, "messageExpression");
    let at = path.child("messageExpression");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&at, message, "must be non-empty if specified");
    } else if !message.is_empty() {
        let declared = Declarations { authorizer: false, ..declared.clone() };
        expression(message, &declared, &[Type::String], &at, errors);
    }
    let message = text(validation, "message");
    let at = path.child("message");
    if !message.is_empty() && message.trim().is_empty() {
        errors.invalid(&at, message, "must be non-empty if specified");
    } else if message.trim().contains(['\n', '\r']) {
        errors.invalid(&at, message, "must not contain line breaks");
    }
    if has(validation, "reason") {
        let reasons = ["Forbidden", "Invalid", "RequestEntityTooLarge"];
        errors.one_of(&path.child("reason"), text(validation, "reason"), &reasons);
    }
}

fn audit_annotations(name: &str, list: &[Value], declared: &Declarations, path: &Path<'_>, errors: &mut Errors) {
    if list.len() > MAX_ANNOTATIONS {
        let detail = format!("must not have more than {MAX_ANNOTATIONS} auditAnnotations");
        errors.invalid(path, Value::Array(list.to_vec()), detail);
    }
    for (i, annotation) in list.iter().enumerate() {
        let at = path.index(i);
        let key = text(annotation, "key");
        if name.is_empty() {
            errors.invalid(&at.child("key"), key, "requires metadata.name be non-empty");
        } else {
            let whole = format!("{name}/{key}");
            errors.problems(&at.child("key"), &whole, qualified_name(&whole));
        }
        let value = at.child("valueExpression");
        match text(annotation, "valueExpression").trim() {
            "" => errors.required(&value, "valueExpression is not specified"),
            long if long.len() > MAX_ANNOTATION => {
                errors.required(&value, &format!("must not exceed {MAX_ANNOTATION} bytes in length"));
            }
            trimmed => drop(expression(trimmed, declared, &[Type::String, Type::Null], &value, errors)),
        }
        if list[..i].iter().any(|earlier| text(earlier, "key") == key) {
            errors.duplicate(&at.child("key"), key);
        }
    }
}

fn param_ref(reference: &Value, path: &Path<'_>, errors: &mut Errors) {
    const EXCLUSIVE: &str = "name and selector are mutually exclusive";
    let name = text(reference, "name");
    let selector = member(reference, "selector");
    if !name.is_empty() {
        errors.problems(&path.child("name"), name, path_segment(name));
        if selector.is_some() {
            errors.forbidden(&path.child("name"), EXCLUSIVE);
        }
    }
    if let Some(selector) = selector {
        label_selector(selector, &path.child("selector"), errors);
        if !name.is_empty() {
            errors.forbidden(&path.child("selector"), EXCLUSIVE);
        }
    }
    if name.is_empty() && selector.is_none() {
        errors.required(path, "one of name or selector must be specified");
    }
    let action = text(reference, "parameterNotFoundAction");
    errors.needs_one_of(&path.child("parameterNotFoundAction"), action, &["Deny", "Allow"]);
}

fn actions(list: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, action) in texts(list).enumerate() {
        errors.one_of(&path.index(i), action, &["Audit", "Deny", "Warn"]);
        if texts(&list[..i]).any(|earlier| earlier == action) {
            errors.duplicate(&path.index(i), action);
        }
    }
    let has = |action: &str| texts(list).any(|item| item == action);
    if has("Deny") && has("Warn") {
        let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
        errors.invalid(path, Value::Array(list.to_vec()), why);
    }
    if list.is_empty() {
        errors.required(path, "at least one validation action is required");
    }
}
