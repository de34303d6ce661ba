//! PriorityClass. Upstream: pkg/apis/scheduling/validation.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, fill, immutable, int, text};
use super::{Context, Strategy};

const HIGHEST: i64 = 1_000_000_000;
/// The cluster's own classes.
const SYSTEM: [(&str, i64); 2] =
    [("system-node-critical", 2 * HIGHEST + 1000), ("system-cluster-critical", 2 * HIGHEST)];

pub(super) struct PriorityClass;

impl Strategy for PriorityClass {
    fn resource(&self) -> (&'static str, &'static str) {
        ("scheduling.k8s.io", "priorityclasses")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn keeps(&self, name: &str) -> Option<&'static str> {
        let known = SYSTEM.iter().any(|(system, _)| *system == name);
        known.then_some("this is a system priority class and cannot be deleted")
    }

    fn default(&self, value: &mut Value) {
        fill(value, "preemptionPolicy", "PreemptLowerPriority");
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let name = new.str_at(&["metadata", "name"]).unwrap_or_default();
        let value = int(new, "value");
        if name.starts_with("system-") {
            let why = match SYSTEM.iter().find(|(known, _)| *known == name) {
                None => Some(format!("{name} is not a known system priority class")),
                Some((_, known)) if *known != value => Some(format!("value of {name} PriorityClass must be {known}")),
                Some(_) if new.bool_at(&["globalDefault"]) == Some(true) => {
                    Some(format!("globalDefault of {name} PriorityClass must be false"))
                }
                Some(_) => None,
            };
            if let Some(why) = why {
                let why = format!(
                    "priority class names with 'system-' prefix are reserved for system use only. error: {why}"
                );
                errors.forbidden(&Path::new("metadata.name"), why);
            }
        } else if value > HIGHEST {
            let why = format!("maximum allowed value of a user defined priority is {HIGHEST}");
            errors.forbidden(&Path::new("value"), why);
        }
        let policy = text(new, "preemptionPolicy");
        errors.needs_one_of(&Path::new("preemptionPolicy"), policy, &["PreemptLowerPriority", "Never"]);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        if int(new, "value") != int(old, "value") {
            errors.forbidden(&Path::new("value"), "may not be changed in an update.");
        }
        immutable(errors, &Path::new("preemptionPolicy"), new.get("preemptionPolicy"), old.get("preemptionPolicy"));
    }
}
