//! Claims and volumes as decisions read them, and which volume a claim may have: thousands are kept, and a typed volume alone, with room for every
//! kind of source, takes several KiB. Upstream: component-helpers storage/volume.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Quantity, Selector};
use k8s_openapi::api::core::v1::{
    NodeSelector, PersistentVolume, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeSpec,
    TopologySelectorTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use rules::NodeLabels;

use crate::cluster::{Kept, view};

/// The node that the scheduler chose for a claim to be provisioned on.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: it is bound both ways.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume: a controller chose the claim, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The class before there was a field for it.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The provisioner of classes whose volumes people make by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// A PersistentVolumeClaim. Texts are empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct Claim {
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
    /// The UID of the controlling owner.
    pub controller: String,
    pub deleting: bool,
    /// Its volume is gone.
    pub lost: bool,
    pub class: String,
    /// The volume that it names.
    pub volume: String,
    /// Whether it and its volume name each other for good.
    pub complete: bool,
    pub annotated: bool,
    /// Where it is to be provisioned, once that is decided.
    pub selected_node: Option<String>,
    /// The storage that it asks for.
    pub size: Option<Quantity>,
    pub access_modes: Vec<String>,
    block: bool,
    attributes_class: String,
    selector: Option<Selector>,
}

/// A PersistentVolume. Texts are empty where there is none.
#[derive(Clone, Debug, Default)]
pub struct Volume {
    pub name: String,
    pub revision: u64,
    pub labels: BTreeMap<String, String>,
    pub class: String,
    /// Whom it is for.
    pub claim: Option<ClaimReference>,
    /// A controller chose the claim, not a person.
    pub by_controller: bool,
    /// Driver and handle, of a volume of a CSI driver.
    pub csi: Option<(String, String)>,
    deleting: bool,
    available: bool,
    size: Quantity,
    access_modes: Vec<String>,
    block: bool,
    attributes_class: String,
    /// The nodes that reach it.
    nodes: Option<Box<NodeSelector>>,
}

/// A volume's `spec.claimRef`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClaimReference {
    pub key: ObjectKey,
    /// Empty: any claim of this name.
    pub uid: String,
}

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

fn class(metadata: &ObjectMeta, field: Option<String>) -> String {
    annotation(metadata, BETA_CLASS).map(str::to_owned).or(field).unwrap_or_default()
}

impl Claim {
    fn new(claim: PersistentVolumeClaim, revision: u64) -> Claim {
        let PersistentVolumeClaim { metadata, spec, status } = claim;
        let PersistentVolumeClaimSpec {
            access_modes,
            resources,
            selector,
            storage_class_name,
            volume_attributes_class_name,
            volume_mode,
            volume_name,
            ..
        } = spec.unwrap_or_default();
        let requests = resources.and_then(|resources| resources.requests);
        let owners = metadata.owner_references.iter().flatten();
        let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
        Claim {
            controller: controller.map(|owner| owner.uid.clone()).unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            lost: status.and_then(|status| status.phase).as_deref() == Some("Lost"),
            class: class(&metadata, storage_class_name),
            volume: volume_name.unwrap_or_default(),
            complete: annotation(&metadata, BIND_COMPLETED).is_some(),
            annotated: metadata.annotations.is_some(),
            selected_node: annotation(&metadata, SELECTED_NODE).map(str::to_owned),
            size: requests.as_ref().and_then(|requests| requests.get("storage")).map(rules::parse_quantity),
            access_modes: access_modes.unwrap_or_default(),
            block: volume_mode.as_deref() == Some("Block"),
            attributes_class: volume_attributes_class_name.unwrap_or_default(),
            selector: selector.map(|selector| rules::label_selector(Some(&selector))),
            uid: metadata.uid.unwrap_or_default(),
            key: ObjectKey::new(metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default()),
            revision,
        }
    }

    /// The claim as it will be when it is to be provisioned on the node.
    pub fn on(&self, node: &str) -> Claim {
        Claim { selected_node: Some(node.to_owned()), annotated: true, ..self.clone() }
    }

    /// Whether it is bound for good.
    pub fn is_bound(&self) -> bool {
        !self.volume.is_empty() && self.complete
    }
}

impl Volume {
    fn new(volume: PersistentVolume, revision: u64) -> Volume {
        let PersistentVolume { metadata, spec, status } = volume;
        let PersistentVolumeSpec {
            access_modes,
            capacity,
            claim_ref,
            csi,
            node_affinity,
            storage_class_name,
            volume_attributes_class_name,
            volume_mode,
            ..
        } = spec.unwrap_or_default();
        let size = capacity.as_ref().and_then(|capacity| capacity.get("storage")).map(rules::parse_quantity);
        Volume {
            class: class(&metadata, storage_class_name),
            claim: claim_ref.map(|reference| ClaimReference {
                key: ObjectKey::new(reference.namespace.unwrap_or_default(), reference.name.unwrap_or_default()),
                uid: reference.uid.unwrap_or_default(),
            }),
            by_controller: annotation(&metadata, BOUND_BY_CONTROLLER).is_some(),
            csi: csi.map(|csi| (csi.driver, csi.volume_handle)),
            deleting: metadata.deletion_timestamp.is_some(),
            available: status.and_then(|status| status.phase).as_deref() == Some("Available"),
            size: size.unwrap_or_default(),
            access_modes: access_modes.unwrap_or_default(),
            block: volume_mode.as_deref() == Some("Block"),
            attributes_class: volume_attributes_class_name.unwrap_or_default(),
            nodes: node_affinity.and_then(|affinity| affinity.required).map(Box::new),
            labels: metadata.labels.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            revision,
        }
    }

    /// The volume as it will be when it is for this claim.
    pub fn bound(&self, claim: ClaimReference, by_controller: bool) -> Volume {
        Volume { claim: Some(claim), by_controller, ..self.clone() }
    }

    /// Whether it is for this claim (and, if it names a uid, for this incarnation of it).
    pub fn is_for(&self, claim: &Claim) -> bool {
        self.claim.as_ref().is_some_and(|reference| {
            reference.key == claim.key && (reference.uid.is_empty() || reference.uid == claim.uid)
        })
    }

    /// Whether it can be reached from the node.
    pub fn reaches(&self, node: &dyn NodeLabels) -> bool {
        self.nodes.as_ref().is_none_or(|selector| rules::matches_node_selector(selector, &Nameless(node)))
    }

    /// Whether the claim could have it, wherever its pod runs, as far as it isn't another's.
    fn fits(&self, claim: &Claim) -> bool {
        (self.claim.is_none() || self.is_for(claim))
            && self.size >= claim.size.unwrap_or_default()
            && self.block == claim.block
            && self.attributes_class == claim.attributes_class
            && !self.deleting
    }

    /// Whether the claim could have it although neither names the other.
    fn suits(&self, claim: &Claim) -> bool {
        self.available
            && claim.selector.as_ref().is_none_or(|selector| rules::selects(selector, &self.labels))
            && self.class == claim.class
            && claim.access_modes.iter().all(|mode| self.access_modes.contains(mode))
    }
}

/// A node of whom only labels count, never the name as a field.
struct Nameless<'a>(&'a dyn NodeLabels);

impl NodeLabels for Nameless<'_> {
    fn name(&self) -> &str {
        ""
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.0.label(key)
    }
}

/// The volumes that a claim which waits for its first consumer could have, on whatever node, best first: one that names it already, else the smallest.
pub fn suiting(claim: &Claim, mut volumes: Vec<Arc<Volume>>) -> Vec<Arc<Volume>> {
    if let Some(named) = volumes.iter().find(|volume| volume.is_for(claim) && volume.fits(claim)) {
        return vec![named.clone()];
    }
    volumes.retain(|volume| volume.fits(claim) && volume.suits(claim));
    volumes.sort_by_key(|volume| volume.size);
    volumes
}

/// Whether a claim's class allows the node (`allowedTopologies`); no terms: every node.
pub fn allows(terms: &[TopologySelectorTerm], node: &dyn NodeLabels) -> bool {
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut requirements = term.match_label_expressions.iter().flatten();
            requirements.all(|r| node.label(&r.key).is_some_and(|here| r.values.iter().any(|value| value == here)))
        })
}

impl Kept for Claim {
    fn read(object: &Object) -> Option<Claim> {
        Some(Claim::new(view(object)?, object.revision()))
    }
}

impl Kept for Volume {
    fn read(object: &Object) -> Option<Volume> {
        Some(Volume::new(view(object)?, object.revision()))
    }
}

#[cfg(test)]
impl Claim {
    pub fn of(claim: serde_json::Value) -> Claim {
        Claim::new(serde_json::from_value(claim).unwrap(), 1)
    }
}

#[cfg(test)]
impl Volume {
    pub fn of(volume: serde_json::Value) -> Volume {
        Volume::new(serde_json::from_value(volume).unwrap(), 1)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Node;
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, spec: Value) -> Arc<Volume> {
        let mut all = json!({"capacity": {"storage": size}, "storageClassName": "s", "accessModes": ["ReadWriteOnce"]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let metadata = json!({"name": name, "labels": {"disk": name}});
        Arc::new(Volume::of(json!({"metadata": metadata, "spec": all, "status": {"phase": "Available"}})))
    }

    fn claim(name: &str, spec: Value) -> Claim {
        let mut all = json!({"resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "s", "accessModes": ["ReadWriteOnce"]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Claim::of(json!({"metadata": {"name": name, "namespace": "ns", "uid": "u"}, "spec": all}))
    }

    fn node() -> Node {
        serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "a"}}})).unwrap()
    }

    #[test]
    fn the_smallest_that_suits_comes_first() {
        let near = |zone: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}})
        };
        let volumes = vec![
            volume("small", "1Gi", json!({})),
            volume("large", "9Gi", json!({})),
            volume("right", "2Gi", json!({})),
            volume("far", "2Gi", near("b")),
            volume("block", "2Gi", json!({"volumeMode": "Block"})),
            volume("named", "5Gi", json!({"claimRef": {"name": "mine", "namespace": "ns"}})),
            volume("other", "5Gi", json!({"claimRef": {"name": "theirs", "namespace": "ns", "uid": "gone"}})),
            volume("near", "3Gi", near("a")),
        ];
        let check = |name: &str, spec: Value, expect: &[&str]| {
            let found = suiting(&claim(name, spec.clone()), volumes.clone());
            let reached = found.iter().filter(|volume| volume.reaches(&node())).map(|volume| volume.name.as_str());
            assert_eq!(reached.collect::<Vec<_>>(), expect, "{name} {spec}");
        };
        check("c", json!({}), &["right", "near", "large"]);
        check("c", json!({"volumeMode": "Block"}), &["block"]);
        check("c", json!({"selector": {"matchLabels": {"disk": "large"}}}), &["large"]);
        check("c", json!({"storageClassName": "other"}), &[]);
        check("c", json!({"accessModes": ["ReadWriteMany"]}), &[]);
        check("c", json!({"resources": {"requests": {"storage": "10Gi"}}}), &[]);
        check("mine", json!({}), &["named"]);
        check("theirs", json!({"resources": {"requests": {"storage": "9Gi"}}}), &["large"]);
    }

    #[test]
    fn topologies_restrict() {
        let check = |terms: Value, expect: bool| {
            let parsed: Vec<TopologySelectorTerm> = serde_json::from_value(terms.clone()).unwrap();
            assert_eq!(allows(&parsed, &node()), expect, "{terms}");
        };
        check(json!([]), true);
        check(json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]}]), true);
        check(json!([{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]), false);
    }

    #[test]
    fn names_of_nodes_reach_no_volume() {
        let by_name = json!({"nodeAffinity": {"required": {"nodeSelectorTerms":
            [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]}}});
        assert!(!volume("v", "1Gi", by_name).reaches(&node()));
    }
}
