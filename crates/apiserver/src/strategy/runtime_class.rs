//! RuntimeClass. Upstream: pkg/apis/node/validation.

use apimachinery::validation::dns1123_label;
use apimachinery::{FieldError, Value};

use super::field::{Path, Report, immutable, text};
use super::{Context, Strategy, pod};

pub(super) struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn resource(&self) -> (&'static str, &'static str) {
        ("node.k8s.io", "runtimeclasses")
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let handler = text(new, "handler");
        errors.problems(&Path::new("handler"), handler, dns1123_label(handler));
        if let Some(fixed) = new.at(&["overhead", "podFixed"]) {
            let mut limits = Value::object();
            limits.set(&["limits"], fixed);
            pod::resources::requirements(&limits, &[], &Path::new("overhead"), errors);
        }
        let tolerations = new.items_at(&["scheduling", "tolerations"]);
        pod::scheduling::tolerations(tolerations, &Path::new("scheduling.tolerations"), errors);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        immutable(errors, &Path::new("handler"), new.get("handler"), old.get("handler"));
    }
}
