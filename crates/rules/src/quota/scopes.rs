//! Which objects a quota is about.

use apimachinery::Value;
use k8s_openapi::api::core::v1::PodSpec;

use super::{Resource, is_terminating};

/// A requirement of a quota's scopes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    name: String,
    operator: String,
    values: Vec<String>,
}

impl Scope {
    /// Those of a ResourceQuota: its scopes, and what its selector asks for.
    pub(super) fn all(quota: &Value) -> Vec<Scope> {
        let plain = quota.items_at(&["spec", "scopes"]).iter().filter_map(Value::as_str);
        let plain =
            plain.map(|name| Scope { name: name.to_owned(), operator: "Exists".to_owned(), values: Vec::new() });
        let selected = quota.items_at(&["spec", "scopeSelector", "matchExpressions"]).iter().map(|requirement| {
            let text = |key: &str| requirement.str_at(&[key]).unwrap_or_default().to_owned();
            let values = requirement.items_at(&["values"]).iter().filter_map(Value::as_str).map(str::to_owned);
            Scope { name: text("scopeName"), operator: text("operator"), values: values.collect() }
        });
        plain.chain(selected).collect()
    }

    pub(super) fn has(&self, resource: Resource<'_>, object: &Value) -> bool {
        match (resource.group, resource.plural) {
            ("", "pods") => self.has_pod(object),
            ("", "persistentvolumeclaims") if self.name == "VolumeAttributesClass" => {
                let classes = volume_classes(object);
                match self.operator.as_str() {
                    "Exists" => !classes.is_empty(),
                    _ if classes.is_empty() => self.selects(None),
                    _ => classes.into_iter().any(|class| self.selects(Some(class))),
                }
            }
            _ => false,
        }
    }

    fn has_pod(&self, pod: &Value) -> bool {
        match self.name.as_str() {
            "Terminating" => is_terminating(pod),
            "NotTerminating" => !is_terminating(pod),
            "BestEffort" => is_best_effort(pod),
            "NotBestEffort" => !is_best_effort(pod),
            "PriorityClass" => {
                let class = pod.str_at(&["spec", "priorityClassName"]).filter(|class| !class.is_empty());
                self.selects(class)
            }
            "CrossNamespacePodAffinity" => crosses_namespaces(pod),
            _ => false,
        }
    }

    /// As a label selector would, on a label that there is or is not.
    fn selects(&self, class: Option<&str>) -> bool {
        let listed = class.is_some_and(|class| self.values.iter().any(|value| value == class));
        match self.operator.as_str() {
            "Exists" => class.is_some(),
            "DoesNotExist" => class.is_none(),
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        }
    }
}

fn is_best_effort(pod: &Value) -> bool {
    let spec = pod.get("spec").and_then(|spec| spec.view::<PodSpec>().ok());
    spec.is_none_or(|spec| crate::qos_class(&spec) == crate::QosClass::BestEffort)
}

/// Whether terms of pod affinity look into other namespaces.
fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| !term.items_at(&["namespaces"]).is_empty() || term.get("namespaceSelector").is_some();
    ["podAffinity", "podAntiAffinity"].into_iter().any(|kind| {
        let list = |name: &str| pod.items_at(&["spec", "affinity", kind, name]);
        let preferred = list("preferredDuringSchedulingIgnoredDuringExecution").iter();
        list("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || preferred.filter_map(|term| term.get("podAffinityTerm")).any(crosses)
    })
}

/// The classes of volume attributes that a claim names, has, or is on the way to.
fn volume_classes(claim: &Value) -> Vec<&str> {
    let paths: [&[&str]; 3] = [
        &["spec", "volumeAttributesClassName"],
        &["status", "currentVolumeAttributesClassName"],
        &["status", "modifyVolumeStatus", "targetVolumeAttributesClassName"],
    ];
    paths.into_iter().filter_map(|path| claim.str_at(path)).filter(|class| !class.is_empty()).collect()
}
