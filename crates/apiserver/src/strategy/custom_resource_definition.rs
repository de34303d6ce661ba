//! CustomResourceDefinitions. Upstream: apiextensions pkg/registry/customresourcedefinition.

use apimachinery::{FieldError, Value};

use crate::extension::{canonical, check_create, check_update, mark_for_deletion};
use crate::strategy::{Context, Strategy};

pub(super) struct CustomResourceDefinition;

/// Held until all objects of the definition are gone.
pub(crate) const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";

impl Strategy for CustomResourceDefinition {
    fn resource(&self) -> (&'static str, &'static str) {
        crate::extension::DEFINITIONS
    }

    fn has_generation(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn default(&self, value: &mut Value) {
        canonical(value);
        let is_empty = |value: &Value, path: &[&str]| value.str_at(path).unwrap_or_default().is_empty();
        let kind = value.str_at(&["spec", "names", "kind"]).unwrap_or_default().to_owned();
        if is_empty(value, &["spec", "names", "singular"]) && !kind.is_empty() {
            value.set(&["spec", "names", "singular"], kind.to_lowercase());
        }
        if is_empty(value, &["spec", "names", "listKind"]) && !kind.is_empty() {
            value.set(&["spec", "names", "listKind"], format!("{kind}List"));
        }
        if value.at(&["spec", "conversion"]).is_none() {
            value.set(&["spec", "conversion", "strategy"], "None");
        }
        let service = ["spec", "conversion", "webhook", "clientConfig", "service"];
        if value.at(&service).is_some_and(|service| service.get("port").is_none()) {
            value.set(&[&service[..], &["port"]].concat(), 443);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        note_stored(new);
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        note_stored(new);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        check_create(new, errors);
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        check_update(new, old, ctx.subresource, errors);
    }

    fn deletes_in_steps(&self) -> bool {
        true
    }

    fn is_held(&self, object: &Value) -> bool {
        object.at(&["metadata", "deletionTimestamp"]).is_none()
    }

    fn begin_deletion(&self, ctx: &Context<'_>, object: &mut Value) {
        object.remove(&["metadata", "deletionGracePeriodSeconds"]);
        mark_for_deletion(object, CLEANUP, ctx.env.now());
    }
}

/// The version that is stored from now on is one of those that are.
fn note_stored(new: &mut Value) {
    let versions = new.items_at(&["spec", "versions"]).iter();
    let stored = versions.filter(|version| version.bool_at(&["storage"]) == Some(true));
    let stored: Vec<Value> = stored.filter_map(|version| version.get("name").cloned()).collect();
    let mut known = new.items_at(&["status", "storedVersions"]).to_vec();
    for name in stored {
        if !known.contains(&name) {
            known.push(name);
        }
    }
    new.set(&["status", "storedVersions"], known);
}
