//! Node. Upstream: pkg/registry/core/node.

use apimachinery::validation::{cidr_legacy, label_value};
use apimachinery::{FieldError, Value};

use super::field::{Errors, Path, Report, entries, has, items, text};
use super::{Context, Strategy, keep, pod};

pub(super) struct Node;

impl Strategy for Node {
    fn resource(&self) -> (&'static str, &'static str) {
        ("", "nodes")
    }

    /// A kubelet registers its node whole.
    fn keeps_status_on_create(&self) -> bool {
        true
    }

    fn default(&self, value: &mut Value) {
        let capacity = value.at(&["status", "capacity"]).cloned();
        if let Some(capacity) = capacity.filter(|_| value.at(&["status", "allocatable"]).is_none_or(Value::is_null)) {
            value.set(&["status", "allocatable"], capacity);
        }
        let Some(spec) = value.get_mut("spec") else { return };
        // `podCIDR` is the first of `podCIDRs`.
        let first = items(spec, "podCIDRs").first().and_then(Value::as_str).unwrap_or_default().to_owned();
        let single = text(spec, "podCIDR").to_owned();
        if first.is_empty() && !single.is_empty() {
            spec.set(&["podCIDRs"], vec![single]);
        } else if !first.is_empty() && single.is_empty() {
            spec.set(&["podCIDR"], first);
        }
    }

    fn prepare_subresource(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        keep(new, old, &["spec"]);
    }

    fn validate(&self, _ctx: &Context<'_>, new: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let spec = new.get("spec").unwrap_or(&empty);
        common(new, spec, errors);
        let path = Path::new("spec.podCIDRs");
        let blocks: Vec<&str> = items(spec, "podCIDRs").iter().filter_map(Value::as_str).collect();
        for (i, block) in blocks.iter().enumerate() {
            errors.problems(&path.index(i), block, cidr_legacy(block));
        }
        let sixes = blocks.iter().filter(|block| block.contains(':')).count();
        if blocks.len() > 2 || blocks.len() == 2 && sixes != 1 {
            let why = "may specify no more than one CIDR for each IP family";
            errors.invalid(&path, items(spec, "podCIDRs").to_vec(), why);
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value, errors: &mut Vec<FieldError>) {
        let empty = Value::object();
        let (spec, before) = (new.get("spec").unwrap_or(&empty), old.get("spec").unwrap_or(&empty));
        common(new, spec, errors);
        let addresses = new.items_at(&["status", "addresses"]);
        for (i, address) in addresses.iter().enumerate().filter(|(i, address)| addresses[..*i].contains(address)) {
            errors.duplicate(&Path::new("status.addresses").index(i), address);
        }
        let had = !items(before, "podCIDRs").is_empty();
        if had && items(spec, "podCIDRs") != items(before, "podCIDRs") {
            let why = "node updates may not change podCIDR except from \"\" to valid";
            errors.forbidden(&Path::new("spec.podCIDRs"), why);
        }
        if !text(before, "providerID").is_empty() && text(spec, "providerID") != text(before, "providerID") {
            let why = "node updates may not change providerID except from \"\" to valid";
            errors.forbidden(&Path::new("spec.providerID"), why);
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, new: &Value, _old: Option<&Value>) -> Vec<String> {
        let mut warnings = Vec::new();
        let Some(spec) = new.get("spec") else { return warnings };
        if has(spec, "configSource") {
            warnings.push("spec.configSource: the feature is no longer supported".to_owned());
        }
        if !text(spec, "externalID").is_empty() {
            warnings.push("spec.externalID: this field is deprecated, and is unused by Kubernetes".to_owned());
        }
        warnings
    }
}

fn common(node: &Value, spec: &Value, errors: &mut Errors) {
    taints(items(spec, "taints"), &Path::new("metadata.taints"), errors);
    let empty = Value::object();
    let status = node.get("status").unwrap_or(&empty);
    for list in ["capacity", "allocatable"] {
        let status_path = Path::new("status");
        let path = status_path.child(list);
        for (name, amount) in entries(status, list) {
            pod::resources::amount(&path.child(name), name, amount, errors);
        }
    }
}

/// Upstream: validateNodeTaints.
fn taints(taints: &[Value], path: &Path<'_>, errors: &mut Errors) {
    for (i, taint) in taints.iter().enumerate() {
        let path = path.index(i);
        let (key, value, effect) = (text(taint, "key"), text(taint, "value"), text(taint, "effect"));
        errors.qualified(&path.child("key"), key);
        let problems = label_value(value);
        if !problems.is_empty() {
            errors.invalid(&path.child("value"), value, problems.join(";"));
        }
        pod::scheduling::taint_effect(effect, &path.child("effect"), errors);
        if taints[..i].iter().any(|earlier| text(earlier, "key") == key && text(earlier, "effect") == effect) {
            let mut error = FieldError::duplicate(path.to_string(), taint);
            error.detail = "taints must be unique by key and effect pair".to_owned();
            errors.add(error);
        }
    }
}
