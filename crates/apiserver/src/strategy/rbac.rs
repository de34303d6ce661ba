//! Roles and bindings. Upstream: pkg/apis/rbac/validation. Who may write what is in them is the gate's matter.

use apimachinery::validation::{NameFormat, dns1123_subdomain};
use apimachinery::{FieldError, Value};

use super::field::{fill, items_mut};
use super::{Context, Strategy};

const GROUP: &str = "rbac.authorization.k8s.io";

/// One of the four kinds.
pub(super) struct Rbac(pub &'static str);

impl Strategy for Rbac {
    fn resource(&self) -> (&'static str, &'static str) {
        ("rbac.authorization.k8s.io", self.0)
    }

    /// `system:node` is a name here.
    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    /// Upstream: pkg/apis/rbac/v1 SetDefaults_RoleBinding, SetDefaults_Subject.
    fn default(&self, value: &mut Value) {
        if !self.0.ends_with("bindings") {
            return;
        }
        if let Some(reference) = value.get_mut("roleRef") {
            fill(reference, "apiGroup", GROUP);
        }
        for subject in items_mut(value, "subjects") {
            if matches!(subject.str_at(&["kind"]), Some("User" | "Group")) {
                fill(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        if self.0.ends_with("bindings") {
            validate_binding(new, self.0 == "rolebindings", errors);
        } else {
            validate_rules(new, self.0 == "roles", errors);
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        if self.0.ends_with("bindings") && new.get("roleRef") != old.get("roleRef") {
            let shown = new.get("roleRef").cloned().unwrap_or_default();
            errors.push(FieldError::invalid("roleRef", shown, "cannot change roleRef"));
        }
    }
}

fn validate_rules(role: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    for (i, rule) in role.items_at(&["rules"]).iter().enumerate() {
        let at = |member: &str| format!("rules[{i}].{member}");
        let empty = |member: &str| rule.items_at(&[member]).is_empty();
        if empty("verbs") {
            errors.push(FieldError::required(at("verbs"), "verbs must contain at least one value"));
        }
        if !empty("nonResourceURLs") {
            if namespaced {
                let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                let why = "namespaced rules cannot apply to non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, why));
            }
            if !empty("apiGroups") || !empty("resources") || !empty("resourceNames") {
                let urls = rule.get("nonResourceURLs").cloned().unwrap_or_default();
                let why = "rules cannot apply to both regular resources and non-resource URLs";
                errors.push(FieldError::invalid(at("nonResourceURLs"), urls, why));
            }
            continue;
        }
        if empty("apiGroups") {
            errors.push(FieldError::required(at("apiGroups"), "resource rules must supply at least one api group"));
        }
        if empty("resources") {
            errors.push(FieldError::required(at("resources"), "resource rules must supply at least one resource"));
        }
    }
}

fn validate_binding(binding: &Value, namespaced: bool, errors: &mut Vec<FieldError>) {
    let text = |of: &Value, member: &str| of.str_at(&[member]).unwrap_or_default().to_owned();
    let reference = binding.get("roleRef").cloned().unwrap_or_default();
    if text(&reference, "apiGroup") != GROUP {
        errors.push(FieldError::not_supported("roleRef.apiGroup", text(&reference, "apiGroup"), &[GROUP]));
    }
    let kinds: &[&str] = if namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    if !kinds.contains(&text(&reference, "kind").as_str()) {
        errors.push(FieldError::not_supported("roleRef.kind", text(&reference, "kind"), kinds));
    }
    if text(&reference, "name").is_empty() {
        errors.push(FieldError::required("roleRef.name", ""));
    }
    for (i, subject) in binding.items_at(&["subjects"]).iter().enumerate() {
        let at = |member: &str| format!("subjects[{i}].{member}");
        if text(subject, "name").is_empty() {
            errors.push(FieldError::required(at("name"), ""));
        }
        let (kind, group) = (text(subject, "kind"), text(subject, "apiGroup"));
        match kind.as_str() {
            "ServiceAccount" => {
                let name = text(subject, "name");
                if !name.is_empty() {
                    let problems = dns1123_subdomain(&name);
                    errors.extend(problems.into_iter().map(|why| FieldError::invalid(at("name"), &name, why)));
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(at("apiGroup"), group, &[""]));
                }
                if !namespaced && text(subject, "namespace").is_empty() {
                    errors.push(FieldError::required(at("namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(FieldError::not_supported(at("apiGroup"), group, &[GROUP]));
                }
            }
            _ => errors.push(FieldError::not_supported(at("kind"), kind, &["ServiceAccount", "User", "Group"])),
        }
    }
}
