//! Namespace: finalizers in `spec`, a phase, and a label that repeats the name. Upstream: pkg/registry/core/namespace.

use apimachinery::Value;
use apimachinery::validation::NameFormat;

use super::{Context, Strategy, keep};

pub(super) struct Namespace;

const FINALIZER: &str = "kubernetes";
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

impl Strategy for Namespace {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "namespaces")
    }

    fn name_format(&self) -> NameFormat {
        NameFormat::DnsLabel
    }

    fn default(&self, value: &mut Value) {
        if let Some(name) = value.str_at(&["metadata", "name"]).map(str::to_owned).filter(|name| !name.is_empty()) {
            value.set(&["metadata", "labels", NAME_LABEL], name);
        }
    }

    fn prepare_create(&self, _ctx: &Context<'_>, new: &mut Value) {
        new.set(&["status", "phase"], "Active");
        let finalizers = new.items_at(&["spec", "finalizers"]);
        if !finalizers.iter().any(|finalizer| finalizer.as_str() == Some(FINALIZER)) {
            let mut finalizers = finalizers.to_vec();
            finalizers.push(FINALIZER.into());
            new.set(&["spec", "finalizers"], finalizers);
        }
    }

    fn prepare_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec", "finalizers"]);
        keep(new, old, &["status"]);
    }

    fn prepare_subresource(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if ctx.subresource == "finalize" {
            keep(new, old, &["status"]);
        } else {
            keep(new, old, &["spec"]);
        }
    }

    fn deletes_in_steps(&self) -> bool {
        true
    }

    fn is_held(&self, object: &Value) -> bool {
        !object.items_at(&["spec", "finalizers"]).is_empty()
    }

    fn begin_deletion(&self, _ctx: &Context<'_>, object: &mut Value) {
        object.set(&["status", "phase"], "Terminating");
    }
}
