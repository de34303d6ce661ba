//! PodTemplate. Upstream: pkg/registry/core/podtemplate.

use apimachinery::{FieldError, Value};

use super::field::Path;
use super::{Context, Strategy, pod};

pub(super) struct PodTemplate;

impl Strategy for PodTemplate {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "podtemplates")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn returns_deleted_object(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        if let Some(template) = value.get_mut("template") {
            pod::defaults::template(template);
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        pod::validation::template(new.get("template").unwrap_or(&Value::Null), &Path::new("template"), errors);
    }
}
