//! What makes a pod one of the set: its name, its labels, its claims.

use std::collections::BTreeMap;

use apimachinery::{Object, Value};

use super::view::{POD_INDEX, POD_NAME, REVISION, Replica, StatefulSet, parent_and_ordinal};
use crate::replica_set::pod_from;

impl StatefulSet {
    /// The pod of `ordinal` by `template`, which belongs to `revision`.
    pub(super) fn new_pod(&self, template: &Value, revision: &str, ordinal: i64) -> Value {
        let mut pod = pod_from(template, &self.object);
        self.set_identity(&mut pod, ordinal);
        pod.set(&["spec", "hostname"], self.pod_name(ordinal));
        match self.spec.service_name.as_str() {
            "" => drop(pod.remove(&["spec", "subdomain"])),
            service => pod.set(&["spec", "subdomain"], service),
        }
        pod.set(&["metadata", "labels", REVISION], revision);
        self.set_storage(&mut pod, ordinal);
        pod
    }

    pub(super) fn set_identity(&self, pod: &mut Value, ordinal: i64) {
        let name = self.pod_name(ordinal);
        pod.set(&["metadata", "name"], &name);
        pod.set(&["metadata", "labels", POD_NAME], name);
        pod.set(&["metadata", "labels", POD_INDEX], ordinal.to_string());
    }

    /// Gives the pod the volumes of the claim templates in place of others of the same names.
    pub(super) fn set_storage(&self, pod: &mut Value, ordinal: i64) {
        if self.spec.volume_claim_templates.is_empty() {
            return;
        }
        let mut volumes = BTreeMap::new();
        for template in &self.spec.volume_claim_templates {
            let mut volume = Value::object();
            let name = template.str_at(&["metadata", "name"]).unwrap_or_default();
            volume.set(&["name"], name);
            volume.set(&["persistentVolumeClaim", "claimName"], self.claim_name(template, ordinal));
            volumes.insert(name.to_owned(), volume);
        }
        let own = pod.items_at(&["spec", "volumes"]).to_vec();
        let others =
            own.into_iter().filter(|volume| !volumes.contains_key(volume.str_at(&["name"]).unwrap_or_default()));
        let others: Vec<Value> = others.collect();
        pod.set(&["spec", "volumes"], volumes.into_values().chain(others).collect::<Vec<_>>());
    }

    /// By its name.
    pub(super) fn is_member(&self, pod: &Object) -> bool {
        parent_and_ordinal(pod.name()).is_some_and(|(parent, _)| parent == self.name())
    }

    pub(super) fn identity_matches(&self, replica: &Replica) -> bool {
        let Some(pod) = replica.object() else { return true };
        replica.ordinal >= 0 && pod.name() == self.pod_name(replica.ordinal) && pod.label(POD_NAME) == Some(pod.name())
    }

    pub(super) fn storage_matches(&self, replica: &Replica) -> bool {
        if self.spec.volume_claim_templates.is_empty() {
            return true;
        }
        let Some(pod) = replica.object() else { return true };
        let pod = pod.to_value();
        let volumes = pod.items_at(&["spec", "volumes"]);
        self.spec.volume_claim_templates.iter().all(|template| {
            let name = template.str_at(&["metadata", "name"]);
            let volume = volumes.iter().find(|volume| volume.str_at(&["name"]) == name);
            let claim = volume.and_then(|volume| volume.str_at(&["persistentVolumeClaim", "claimName"]));
            claim == Some(self.claim_name(template, replica.ordinal).as_str())
        })
    }

    /// The claims of the pod of `ordinal`, as they are to be created.
    pub(super) fn claims(&self, ordinal: i64) -> Vec<Value> {
        let labels = self.spec.selector.get("matchLabels").and_then(Value::as_object);
        let claim = |template: &Value| {
            let mut claim = template.clone();
            claim.set(&["apiVersion"], "v1");
            claim.set(&["kind"], "PersistentVolumeClaim");
            claim.set(&["metadata", "name"], self.claim_name(template, ordinal));
            claim.set(&["metadata", "namespace"], self.object.namespace());
            for (key, value) in labels.into_iter().flat_map(|labels| labels.iter()) {
                claim.set(&["metadata", "labels", key], value);
            }
            claim
        };
        self.spec.volume_claim_templates.iter().map(claim).collect()
    }
}
