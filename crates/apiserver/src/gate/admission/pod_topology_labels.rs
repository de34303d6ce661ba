//! Pods that are bound get the zone and the region of their node as labels.

use apimachinery::{ObjectKey, Status, Value};

use super::{Plugin, Write};
use crate::registry::Operation;

pub(super) struct PodTopologyLabels;

const LABELS: [&str; 2] = ["topology.kubernetes.io/region", "topology.kubernetes.io/zone"];

impl Plugin for PodTopologyLabels {
    fn admit(&self, write: &Write<'_>, pod: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let binds = match (write.operation, write.subresource) {
            (Operation::Create, subresource) => subresource.is_empty(),
            (_, subresource) => subresource == "binding",
        };
        if !binds || !write.is_of("", "pods") {
            return Ok(());
        }
        let node = pod.str_at(&["spec", "nodeName"]).filter(|node| !node.is_empty());
        let Some(node) = node.and_then(|node| write.objects.get("", "nodes", &ObjectKey::cluster(node))) else {
            return Ok(());
        };
        for label in LABELS {
            if let Some(value) = node.label(label) {
                pod.set(&["metadata", "labels", label], value);
            }
        }
        Ok(())
    }
}
