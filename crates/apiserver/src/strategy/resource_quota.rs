//! ResourceQuota. Upstream: validation.ValidateResourceQuota.

use std::collections::BTreeSet;

use apimachinery::{FieldError, Value};
use rules::quota::Amounts;

use super::field::{Errors, Path, Report, entries, items, member, text};
use super::{Context, Strategy, keep, pod};

const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];

/// What can be limited without naming a group.
const STANDARD: [&str; 19] = [
    "configmaps",
    "cpu",
    "ephemeral-storage",
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "memory",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
    "requests.storage",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];

/// What of these pods are limited in.
const POD_COMPUTE: [&str; 6] = ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

pub(super) struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "resourcequotas")
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        for (holder, lists) in [("spec", &["hard"][..]), ("status", &["hard", "used"])] {
            let parent = Path::new(holder);
            for list in lists {
                let path = parent.child(list);
                for (name, amount) in entries(new.get(holder).unwrap_or(&empty), list) {
                    let known = pod::resources::name(&path.key(name), name, errors);
                    if !name.contains('/') && !is_standard(name) {
                        errors.invalid(&path.key(name), name, "must be a standard resource for quota");
                    }
                    if known {
                        pod::resources::amount(&path.key(name), name, amount, errors);
                    }
                }
            }
        }
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec");
        let shown = items(spec, "scopes").to_vec();
        let scopes: Vec<&str> = shown.iter().filter_map(Value::as_str).collect();
        let at = path.child("scopes");
        for scope in &scopes {
            if !SCOPES.contains(scope) {
                errors.invalid(&at, shown.clone(), "unsupported scope");
            }
            for _ in unsuited(spec, scope) {
                errors.invalid(&at, shown.clone(), "unsupported scope applied to resource");
            }
        }
        for _ in conflicts(&scopes) {
            errors.invalid(&at, shown.clone(), "conflicting scopes");
        }
        if let Some(selector) = member(spec, "scopeSelector") {
            let path = path.child("scopeSelector");
            validate_selector(spec, selector, &path.child("matchExpressions"), errors);
        }
    }

    /// Who may request more than there are limits for can't use it all.
    fn warnings(&self, _ctx: &Context<'_>, new: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() {
            return Vec::new();
        }
        let hard = Amounts::read(new.at(&["spec", "hard"]));
        let warning = |name: &str| {
            let (prefixed, limits) = (format!("requests.{name}"), format!("limits.{name}"));
            let bare = name != "ephemeral-storage" && hard.get(&prefixed).is_none();
            let requests = if bare { name } else { prefixed.as_str() };
            let (request, limit) = (hard.get(requests)?, hard.get(&limits)?);
            (request > limit)
                .then(|| format!("ResourceQuota {requests} ({request}) should be less than {limits} ({limit})"))
        };
        ["cpu", "memory", "ephemeral-storage"].into_iter().filter_map(warning).collect()
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        let scopes = |quota: &Value| -> BTreeSet<String> {
            quota.items_at(&["spec", "scopes"]).iter().map(Value::to_string).collect()
        };
        if scopes(new) != scopes(old) {
            let shown = new.items_at(&["spec", "scopes"]).to_vec();
            errors.invalid(&Path::new("spec.scopes"), shown, "field is immutable");
        }
    }
}

/// The pairs of scopes that exclude each other.
fn conflicts(scopes: &[&str]) -> impl Iterator<Item = [&'static str; 2]> {
    let pairs = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];
    pairs.into_iter().filter(|pair| pair.iter().all(|scope| scopes.contains(scope)))
}

/// The limited resources that a scope says nothing about.
fn unsuited<'a>(spec: &'a Value, scope: &str) -> impl Iterator<Item = &'a str> {
    let suits: fn(&str) -> bool = match scope {
        "BestEffort" => |name| name == "pods",
        "VolumeAttributesClass" => |name| matches!(name, "persistentvolumeclaims" | "requests.storage"),
        scope if SCOPES.contains(&scope) => |name| name == "pods" || POD_COMPUTE.contains(&name),
        _ => |_| true,
    };
    entries(spec, "hard").map(|(name, _)| name).filter(move |name| is_standard(name) && !suits(name))
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-")
}

/// Upstream: validateScopedResourceSelectorRequirement.
fn validate_selector(spec: &Value, selector: &Value, path: &Path<'_>, errors: &mut Errors) {
    let mut scopes = Vec::new();
    for requirement in items(selector, "matchExpressions") {
        let (scope, operator) = (text(requirement, "scopeName"), text(requirement, "operator"));
        let values = items(requirement, "values");
        if !SCOPES.contains(&scope) {
            errors.invalid(&path.child("scopeName"), scope, "unsupported scope");
        }
        for _ in unsuited(spec, scope) {
            errors.invalid(path, selector, "unsupported scope applied to resource");
        }
        let chooses = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if !chooses && SCOPES.contains(&scope) && operator != "Exists" {
            let why = "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, \
                       ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
                       ResourceQuotaScopeCrossNamespacePodAffinity";
            errors.invalid(&path.child("operator"), operator, why);
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector";
                errors.required(&path.child("values"), why);
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector";
                errors.invalid(&path.child("values"), values.to_vec(), why);
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            operator => errors.invalid(&path.child("operator"), operator, "not a valid selector operator"),
        }
        scopes.push(scope);
    }
    for _ in conflicts(&scopes) {
        errors.invalid(path, items(spec, "scopes").to_vec(), "conflicting scopes");
    }
}
