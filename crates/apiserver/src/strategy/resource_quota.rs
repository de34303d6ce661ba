//! ResourceQuota. Upstream: validation.ValidateResourceQuota.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, entries, items};
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
                    let counted = name.starts_with("count/");
                    let known = counted || pod::resources::name(&path.key(name), name, errors);
                    if !name.contains('/') && !STANDARD.contains(&name) && !name.starts_with("hugepages-") {
                        errors.invalid(&path.key(name), name, "must be a standard resource for quota");
                    }
                    if known {
                        pod::resources::amount(&path.key(name), name, amount, errors);
                    }
                }
            }
        }
        let spec = new.get("spec").unwrap_or(&empty);
        let path = Path::new("spec.scopes");
        let scopes: Vec<&str> = items(spec, "scopes").iter().filter_map(Value::as_str).collect();
        for _ in scopes.iter().filter(|scope| !SCOPES.contains(scope)) {
            errors.invalid(&path, items(spec, "scopes").to_vec(), "unsupported scope");
        }
        for pair in [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]] {
            if pair.iter().all(|scope| scopes.contains(scope)) {
                errors.invalid(&path, items(spec, "scopes").to_vec(), "conflicting scopes");
            }
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        self.validate(ctx, new, errors);
        let sorted = |quota: &Value| {
            let mut scopes: Vec<String> = quota.items_at(&["spec", "scopes"]).iter().map(Value::to_string).collect();
            scopes.sort_unstable();
            scopes
        };
        if sorted(new) != sorted(old) {
            let shown = new.items_at(&["spec", "scopes"]).to_vec();
            errors.invalid(&Path::new("spec.scopes"), shown, "field is immutable");
        }
    }
}
