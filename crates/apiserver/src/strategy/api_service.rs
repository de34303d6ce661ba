//! APIService: who answers for a group version. Upstream: kube-aggregator pkg/registry/apiservice.

use apimachinery::validation::{NameFormat, dns1035_label};
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill_absent, flag, int, member, text};
use super::{Context, Strategy};
use crate::registry::timestamp;

pub(super) struct ApiService;

impl Strategy for ApiService {
    fn resource(&self) -> (&'static str, &'static str) {
        ("apiregistration.k8s.io", "apiservices")
    }

    /// `v1.` for the core group.
    fn name_format(&self) -> NameFormat {
        NameFormat::PathSegment
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, value: &mut Value) {
        if let Some(service) = value.at_mut(&["spec", "service"]).filter(|service| !service.is_null()) {
            fill_absent(service, "port", 443);
        }
    }

    /// What this server answers for itself is there at once.
    fn prepare_create(&self, ctx: &Context<'_>, new: &mut Value) {
        if new.at(&["spec", "service"]).is_none_or(Value::is_null) {
            new.set(&["status", "conditions"], vec![local_condition(&timestamp(ctx.env.now()))]);
        }
    }

    fn validate(&self, ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        if ctx.subresource == "status" {
            return validate_status(new, errors);
        }
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        let (group, version) = (text(spec, "group"), text(spec, "version"));
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        let required = format!("{version}.{group}");
        if name != required {
            let why = format!("must be `spec.version+\".\"+spec.group`: {required:?}");
            errors.invalid(&Path::new("metadata.name"), name, why);
        }
        let path = Path::new("spec");
        if group.is_empty() && version != "v1" {
            errors.required(&path.child("group"), "only v1 may have an empty group and it better be legacy kube");
        }
        if !group.is_empty() {
            errors.subdomain(&path.child("group"), group);
        }
        errors.problems(&path.child("version"), version, dns1035_label(version));
        let mut priority = |key: &str, highest: i64| {
            let value = int(spec, key);
            if value <= 0 || value > highest {
                errors.invalid(&path.child(key), value, format!("must be positive and less than {highest}"));
            }
        };
        priority("groupPriorityMinimum", 20_000);
        priority("versionPriority", 1000);
        let bundle = text(spec, "caBundle");
        let insecure = flag(spec, "insecureSkipTLSVerify");
        let insecure_path = path.child("insecureSkipTLSVerify");
        let Some(service) = member(spec, "service") else {
            if !bundle.is_empty() {
                let shown = format!("{} bytes", bundle_length(bundle));
                errors.invalid(&path.child("caBundle"), shown, "local APIServices may not have a caBundle");
            }
            if insecure {
                errors.invalid(&insecure_path, true, "local APIServices may not have insecureSkipTLSVerify");
            }
            return;
        };
        let path = path.child("service");
        for key in ["namespace", "name"] {
            if text(service, key).is_empty() {
                errors.required(&path.child(key), "");
            }
        }
        if insecure && !bundle.is_empty() {
            errors.invalid(&insecure_path, true, "may not be true if caBundle is present");
        }
    }
}

fn validate_status(new: &Value, errors: &mut Vec<FieldError>) {
    let path = Path::new("status.conditions");
    for (index, condition) in new.items_at(&["status", "conditions"]).iter().enumerate() {
        let status = text(condition, "status");
        if !matches!(status, "True" | "False" | "Unknown") {
            errors.not_supported(&path.index(index).child("status"), status, &["True", "False", "Unknown"]);
        }
    }
}

fn bundle_length(base64: &str) -> usize {
    base64.trim_end_matches('=').len() * 3 / 4
}

/// What is said of a group version that this server answers for itself.
pub(crate) fn local_condition(now: &str) -> Value {
    let mut condition = Value::object();
    condition.set(&["type"], "Available");
    condition.set(&["status"], "True");
    condition.set(&["lastTransitionTime"], now);
    condition.set(&["reason"], "Local");
    condition.set(&["message"], "Local APIServices are always available");
    condition
}
