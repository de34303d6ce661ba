//! LimitRange. Upstream: SetDefaults_LimitRangeItem, validation.ValidateLimitRange.

use apimachinery::validation::qualified_name;
use apimachinery::{FieldError, Format, Quantity, Value};

use super::field::{Errors, Path, Report, entries, has, items_mut, text};
use super::{Context, Strategy, pod};

pub(super) struct LimitRange;

impl Strategy for LimitRange {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "limitranges")
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let Some(spec) = value.get_mut("spec") else { return };
        for limit in items_mut(spec, "limits").filter(|limit| text(limit, "type") == "Container") {
            for (from, to) in [("max", "default"), ("default", "defaultRequest"), ("min", "defaultRequest")] {
                let amounts: Vec<(String, Value)> =
                    entries(limit, from).map(|(name, amount)| (name.to_owned(), amount.clone())).collect();
                for (name, amount) in amounts {
                    if limit.at(&[to, &name]).is_none() {
                        limit.set(&[to, &name], amount);
                    }
                }
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let path = Path::new("spec.limits");
        let limits = new.items_at(&["spec", "limits"]);
        for (i, limit) in limits.iter().enumerate() {
            let path = path.index(i);
            let kind = text(limit, "type");
            let problems = qualified_name(kind);
            if !problems.is_empty() {
                errors.problems(&path.child("type"), kind, problems);
            } else if !kind.contains('/') && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim") {
                errors.invalid(&path.child("type"), kind, "must be a standard limit type or fully qualified");
            }
            if limits[..i].iter().any(|earlier| text(earlier, "type") == kind) {
                errors.duplicate(&path.child("type"), kind);
            }
            validate_limit(limit, kind, &path, errors);
        }
    }
}

fn validate_limit(limit: &Value, kind: &str, path: &Path<'_>, errors: &mut Errors) {
    for list in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let path = path.child(list);
        if kind == "Pod" && matches!(list, "default" | "defaultRequest") {
            if has(limit, list) {
                errors.forbidden(&path, "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (name, _) in entries(limit, list) {
            match kind {
                "Pod" | "Container" => pod::resources::container_resource_name(&path.key(name), name, errors),
                _ => drop(pod::resources::name(&path.key(name), name, errors)),
            }
        }
    }
    let amount = |list: &str, name: &str| {
        let counts = kind != "Pod" || !list.starts_with("default");
        limit.at(&[list, name]).filter(|_| counts).and_then(Quantity::from_value).and_then(Result::ok)
    };
    let mut names: Vec<&str> = ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"]
        .iter()
        .flat_map(|list| entries(limit, list).map(|(name, _)| name))
        .collect();
    names.sort_unstable();
    names.dedup();
    if kind == "PersistentVolumeClaim" && amount("min", "storage").is_none() && amount("max", "storage").is_none() {
        let why = "either minimum or maximum storage value is required, but neither was provided";
        errors.required(&path.child("limits"), why);
    }
    // Smaller, larger, which of them is named by the field, how the two are called.
    const ORDER: [(&str, &str, &str, &str); 6] = [
        ("min", "max", "min", "min value {a} is greater than max value {b}"),
        ("min", "defaultRequest", "defaultRequest", "min value {a} is greater than default request value {b}"),
        ("defaultRequest", "max", "defaultRequest", "default request value {a} is greater than max value {b}"),
        (
            "defaultRequest",
            "default",
            "defaultRequest",
            "default request value {a} is greater than default limit value {b}",
        ),
        ("min", "default", "default", "min value {a} is greater than default value {b}"),
        ("default", "max", "default", "default value {a} is greater than max value {b}"),
    ];
    for name in names {
        for (smaller, larger, field, why) in ORDER {
            let (Some(a), Some(b)) = (amount(smaller, name), amount(larger, name)) else { continue };
            if a > b {
                let shown = match (field, smaller) {
                    ("default", "default") => b,
                    ("defaultRequest", "min") => b,
                    _ => a,
                };
                let path = path.child(field);
                let why = why.replace("{a}", &a.to_string()).replace("{b}", &b.to_string());
                errors.invalid(&path.key(name), shown.to_string(), why);
            }
        }
        if let Some(ratio) = amount("maxLimitRequestRatio", name) {
            let path = path.child("maxLimitRequestRatio");
            let range = amount("min", name).zip(amount("max", name));
            validate_ratio(ratio, range, &path.key(name), errors);
        }
        if let (Some(limit), Some(request)) = (amount("default", name), amount("defaultRequest", name))
            && limit != request
            && !pod::resources::is_overcommittable(name)
        {
            let path = path.child("defaultRequest");
            let why = format!("default value {limit} must equal to defaultRequest value {request} in {name}");
            errors.invalid(&path.key(name), request.to_string(), why);
        }
    }
}

/// A limit is not below its request, nor further from it than `range` allows: the least request, the highest limit.
fn validate_ratio(ratio: Quantity, range: Option<(Quantity, Quantity)>, path: &Path<'_>, errors: &mut Errors) {
    if ratio < Quantity::new(1, Format::DecimalSi) {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is less than 1"));
    }
    let Some((min, max)) = range else { return };
    let widest = max.as_f64() / min.as_f64();
    if ratio.as_f64() > widest {
        errors.invalid(path, ratio.to_string(), format!("ratio {ratio} is greater than max/min = {widest:.6}"));
    }
}
