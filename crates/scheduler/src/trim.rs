//! What is left of objects that come over the wire: most of a body is nothing that plugins ask for, and thousands are kept.

use apimachinery::Value;
use client::trim::{each, keep, retain};

/// Leaves what [`PodInfo`](crate::pod::PodInfo) and [`NodeInfo`](crate::node::NodeInfo) read, and selectors.
pub(crate) fn trim(object: &mut Value) -> Vec<(&'static str, String)> {
    match object.str_at(&["kind"]) {
        Some("Pod") => pod(object),
        Some("Node") => node(object),
        Some("ReplicaSet" | "ReplicationController" | "Service" | "StatefulSet") => selecting(object),
        _ => drop(object.remove(&["metadata", "managedFields"])),
    }
    Vec::new()
}

const METADATA: &[&str] =
    &["deletionTimestamp", "generation", "labels", "name", "namespace", "ownerReferences", "resourceVersion", "uid"];

const POD_SPEC: &[&str] = &[
    "affinity",
    "containers",
    "initContainers",
    "nodeName",
    "nodeSelector",
    "overhead",
    "preemptionPolicy",
    "priority",
    "resourceClaims",
    "resources",
    "schedulerName",
    "schedulingGates",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
];

const POD_STATUS: &[&str] = &[
    "conditions",
    "containerStatuses",
    "ephemeralContainerStatuses",
    "initContainerStatuses",
    "nominatedNodeName",
    "phase",
    "resourceClaimStatuses",
    "startTime",
];

const CONTAINER: &[&str] = &["image", "name", "ports", "resources", "restartPolicy"];
const CONTAINER_STATUS: &[&str] = &["allocatedResources", "name", "resources"];
const CONDITIONS: &[&str] = &["DisruptionTarget", "PodResizeInProgress", "PodResizePending", "PodScheduled"];
const VOLUMES: &[&str] =
    &["awsElasticBlockStore", "ephemeral", "gcePersistentDisk", "iscsi", "persistentVolumeClaim", "rbd"];

fn pod(object: &mut Value) {
    keep(object, &["metadata"], METADATA);
    keep(object, &["spec"], POD_SPEC);
    keep(object, &["status"], POD_STATUS);
    for list in ["containers", "initContainers"] {
        each(object, &["spec", list], |container| keep(container, &[], CONTAINER));
    }
    for list in ["containerStatuses", "ephemeralContainerStatuses", "initContainerStatuses"] {
        each(object, &["status", list], |status| keep(status, &[], CONTAINER_STATUS));
    }
    retain(object, &["spec", "volumes"], |volume| VOLUMES.iter().any(|source| volume.get(source).is_some()));
    retain(object, &["status", "conditions"], |condition| {
        condition.str_at(&["type"]).is_some_and(|name| CONDITIONS.contains(&name))
    });
}

fn node(object: &mut Value) {
    keep(object, &["metadata"], METADATA);
    keep(object, &["spec"], &["taints", "unschedulable"]);
    keep(object, &["status"], &["allocatable", "images"]);
}

fn selecting(object: &mut Value) {
    keep(object, &["metadata"], METADATA);
    keep(object, &["spec"], &["selector"]);
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{Node, Pod};

    use super::*;
    use crate::node::NodeInfo;
    use crate::pod::PodInfo;

    fn trimmed(json: &str) -> (Value, Value) {
        let whole = Value::parse(json.as_bytes()).unwrap();
        let mut trimmed = whole.clone();
        assert!(trim(&mut trimmed).is_empty());
        (whole, trimmed)
    }

    #[test]
    fn nothing_is_missing_that_is_read_of_pods() {
        let (whole, trimmed) = trimmed(include_str!("trim/pod.json"));
        let read = |value: &Value| format!("{:#?}", PodInfo::new(&value.view::<Pod>().unwrap()));
        assert_eq!(read(&trimmed), read(&whole));
        for gone in ["managedFields", "annotations", "configMap", "livenessProbe", "imageID", "Initialized"] {
            assert!(!trimmed.to_string().contains(gone), "{gone}");
        }
    }

    #[test]
    fn nothing_is_missing_that_is_read_of_nodes() {
        let (whole, trimmed) = trimmed(include_str!("trim/node.json"));
        let read = |value: &Value| {
            let node = NodeInfo::new(value.view::<Node>().unwrap());
            let facts = (node.labels(), node.taints(), node.unschedulable(), node.allocatable(), node.images());
            format!("{} {} {facts:#?}", node.name(), node.capacity())
        };
        assert_eq!(read(&trimmed), read(&whole));
        assert!(trimmed.to_json().len() * 2 < whole.to_json().len());
    }
}
