//! IngressClass. Upstream: pkg/apis/networking/validation ValidateIngressClass.

use apimachinery::{FieldError, Value};

use super::field::{Path, Report, immutable};
use super::{Context, Strategy};

pub(super) struct IngressClass;

impl Strategy for IngressClass {
    fn resource(&self) -> (&'static str, &'static str) {
        ("networking.k8s.io", "ingressclasses")
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        if let Some(parameters) = value.at_mut(&["spec", "parameters"]).filter(|parameters| !parameters.is_null()) {
            super::field::fill(parameters, "scope", "Cluster");
        }
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let controller = new.str_at(&["spec", "controller"]).unwrap_or_default();
        let path = Path::new("spec.controller");
        if controller.is_empty() {
            errors.required(&path, "");
        } else if controller.len() > 250 {
            errors.push(FieldError::too_long("spec.controller", 250));
        } else if !controller.contains('/') {
            errors.invalid(&path, controller, "must be a domain-prefixed path (such as \"acme.io/foo\")");
        }
        if let Some(parameters) = new.at(&["spec", "parameters"]).filter(|parameters| !parameters.is_null()) {
            let path = Path::new("spec.parameters");
            errors.needs(&path, parameters, "kind");
            errors.needs(&path, parameters, "name");
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let path = ["spec", "controller"];
        immutable(errors, &Path::new("spec.controller"), new.at(&path), old.at(&path));
    }
}
