//! Objects from a server elsewhere, without what no controller reads: of ten thousand pods that is half of the memory.
//!
//! Pods are therefore not to be written back as informers know them: a write is a patch, or an edit of what the server has just answered.

use apimachinery::Value;
use client::trim::{each, keep, retain};

pub(crate) fn trim(object: &mut Value) -> Vec<(&'static str, String)> {
    object.remove(&["metadata", "managedFields"]);
    if object.str_at(&["kind"]) != Some("Pod") {
        return Vec::new();
    }
    pod(object);
    let text = |path: &[&str]| object.str_at(path).unwrap_or_default().to_owned();
    vec![("spec.nodeName", text(&["spec", "nodeName"])), ("status.phase", text(&["status", "phase"]))]
}

const APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

const SPEC: &[&str] = &[
    "activeDeadlineSeconds",
    "affinity",
    "containers",
    "hostname",
    "initContainers",
    "nodeName",
    "overhead",
    "priorityClassName",
    "resourceClaims",
    "resources",
    "subdomain",
    "tolerations",
    "volumes",
];

const STATUS: &[&str] = &[
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "initContainerStatuses",
    "message",
    "phase",
    "podIP",
    "podIPs",
    "reason",
    "resourceClaimStatuses",
    "startTime",
];

const CONTAINER: &[&str] = &["name", "ports", "resources", "restartPolicy"];
const CONTAINER_STATUS: &[&str] = &["name", "ready", "resources", "restartCount", "state"];
const VOLUMES: &[&str] = &["ephemeral", "persistentVolumeClaim", "secret"];

fn pod(object: &mut Value) {
    object.remove(&["metadata", "annotations", APPLIED]);
    object.remove(&["metadata", "generateName"]);
    keep(object, &["spec"], SPEC);
    keep(object, &["status"], STATUS);
    for list in ["containers", "initContainers"] {
        each(object, &["spec", list], |container| keep(container, &[], CONTAINER));
    }
    for list in ["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"] {
        each(object, &["status", list], |status| keep(status, &[], CONTAINER_STATUS));
    }
    retain(object, &["spec", "volumes"], |volume| VOLUMES.iter().any(|source| volume.get(source).is_some()));
}

#[cfg(test)]
pub(crate) mod tests {
    use apimachinery::Object;
    use jiff::Timestamp;

    use super::*;
    use crate::pod_view::PodView;
    use crate::{resource_claim, storage};

    /// A pod, whole and trimmed.
    pub(crate) fn pods() -> [Object; 2] {
        let whole = Value::parse(include_bytes!("trim/pod.json")).unwrap();
        let mut trimmed = whole.clone();
        let fields = trim(&mut trimmed);
        assert_eq!(fields, [("spec.nodeName", "n1".to_owned()), ("status.phase", "Running".to_owned())]);
        [Object::from_answer(&whole).unwrap(), Object::with_fields(&trimmed, 77, fields).unwrap()]
    }

    #[test]
    fn nothing_is_missing_that_is_read_of_pods() {
        let [whole, trimmed] = pods();
        let read = |pod: &Object| {
            let value = pod.to_value();
            let usage = rules::quota::Resource::new("", "pods").usage(&value, Timestamp::UNIX_EPOCH).to_value();
            let claims = (storage::claims_of(pod), storage::is_terminated(&value), resource_claim::has_claims(pod));
            let parts = [
                &["metadata", "annotations", "fake/exit"][..],
                &["metadata", "finalizers"],
                &["spec", "affinity"],
                &["spec", "priorityClassName"],
                &["spec", "resourceClaims"],
                &["spec", "tolerations"],
                &["status", "conditions"],
                &["status", "reason"],
                &["status", "resourceClaimStatuses"],
                &["status", "startTime"],
            ];
            let parts = parts.map(|path| value.at(path).map(Value::to_string).unwrap_or_else(|| panic!("{path:?}")));
            format!("{:#?} {usage} {claims:?} {parts:#?} {:?}", PodView::of(pod), crate::meta::node_of(pod))
        };
        assert_eq!(read(&trimmed), read(&whole));
    }

    #[test]
    fn the_rest_of_a_pod_goes() {
        let [_, trimmed] = pods();
        let text = String::from_utf8(trimmed.to_json()).unwrap();
        for gone in ["managedFields", APPLIED, "configMap", "livenessProbe", "imageID", "volumeMounts"] {
            assert!(!text.contains(gone), "{gone}");
        }
    }
}
