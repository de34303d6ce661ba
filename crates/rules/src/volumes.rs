//! Which volume a claim may have. Upstream: component-helpers storage/volume.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Quantity, Selector};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, TopologySelectorTerm};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::{label_selector, matches_node_selector, parse_quantity, selects};

/// The node that the scheduler chose for a claim to be provisioned on.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: it is bound both ways.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a volume or claim: a controller chose the other, not a person.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// The class before there was a field for it.
const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The provisioner of classes whose volumes people make by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

fn annotation<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(name).map(String::as_str)
}

/// The name of the claim's class; empty for none.
pub fn claim_class(claim: &PersistentVolumeClaim) -> &str {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&claim.metadata, BETA_CLASS).or_else(field).unwrap_or_default()
}

/// The name of the volume's class; empty for none.
pub fn volume_class(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, BETA_CLASS).or_else(field).unwrap_or_default()
}

/// The volume that the claim names; empty for none.
pub fn claim_volume(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or_default()
}

/// Whether the claim is bound for good.
pub fn claim_is_bound(claim: &PersistentVolumeClaim) -> bool {
    !claim_volume(claim).is_empty() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// The node chosen for the claim, if one was.
pub fn selected_node(claim: &PersistentVolumeClaim) -> Option<&str> {
    annotation(&claim.metadata, SELECTED_NODE)
}

/// The storage that the claim asks for.
pub fn claim_size(claim: &PersistentVolumeClaim) -> Option<Quantity> {
    claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").map(parse_quantity)
}

fn volume_size(volume: &PersistentVolume) -> Quantity {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")).map(parse_quantity).unwrap_or_default()
}

/// Whether the volume names this claim (and, if it names a uid, this incarnation of it).
pub fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let Some(reference) = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref()) else { return false };
    let uid = reference.uid.as_deref().unwrap_or_default();
    reference.name == claim.metadata.name
        && reference.namespace == claim.metadata.namespace
        && (uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

/// Whether the volume can be reached from the node.
pub fn volume_reaches(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref());
    let required = affinity.and_then(|affinity| affinity.required.as_ref());
    required.is_none_or(|selector| {
        // Only labels count here, never the node's name as a field.
        let bare = Node {
            metadata: ObjectMeta { labels: node.metadata.labels.clone(), ..ObjectMeta::default() },
            ..Node::default()
        };
        matches_node_selector(selector, &bare)
    })
}

/// Whether a claim's class allows the node (`allowedTopologies`); no terms: every node.
pub fn matches_topology(terms: &[TopologySelectorTerm], node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    terms.is_empty()
        || terms.iter().any(|term| {
            let requirements = term.match_label_expressions.as_deref().unwrap_or_default();
            requirements.iter().all(|r| label(&r.key).is_some_and(|value| r.values.contains(value)))
        })
}

/// Whether class, size, modes, attributes and claim reference let the claim have the volume, wherever its pod runs; the claim's selector is
/// given parsed.
fn suits(claim: &PersistentVolumeClaim, selector: Option<&Selector>, volume: &PersistentVolume) -> bool {
    let none = BTreeMap::new();
    let phase = volume.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Available")
        && selector.is_none_or(|selector| selects(selector, volume.metadata.labels.as_ref().unwrap_or(&none)))
        && volume_class(volume) == claim_class(claim)
}

fn modes_match(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let mode = |mode: Option<&str>| mode.unwrap_or("Filesystem").to_owned();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    let offered = volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_deref());
    mode(wanted) == mode(offered)
}

fn attributes_match(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let wanted = claim.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    let offered = volume.spec.as_ref().and_then(|spec| spec.volume_attributes_class_name.as_deref());
    wanted.unwrap_or_default() == offered.unwrap_or_default()
}

/// Whether the volume has every access mode that the claim asks for.
pub fn access_modes_match(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    let wanted = claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    wanted.iter().all(|mode| offered.contains(mode))
}

/// The volume for a claim: one that names it already, else the smallest that suits. With a node, only volumes that it reaches and that
/// have the claim's access modes count; without one, a claim that waits for its first consumer (`waits`) gets only one that names it.
/// `taken` are the names of volumes given to other claims.
pub fn find_volume<'a, V: std::borrow::Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
    node: Option<&Node>,
    taken: &BTreeSet<String>,
    waits: bool,
) -> Option<&'a V> {
    let size = claim_size(claim).unwrap_or_default();
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()).map(|s| label_selector(Some(s)));
    let mut best: Option<(&V, Quantity)> = None;
    for candidate in volumes {
        let volume: &PersistentVolume = candidate.borrow();
        let named = is_bound_to(volume, claim);
        let refers = volume.spec.as_ref().is_some_and(|spec| spec.claim_ref.is_some());
        let name = volume.metadata.name.as_deref().unwrap_or_default();
        let has = volume_size(volume);
        if taken.contains(name)
            || refers && !named
            || has < size
            || !modes_match(claim, volume)
            || !attributes_match(claim, volume)
            || volume.metadata.deletion_timestamp.is_some()
        {
            continue;
        }
        let reached = node.is_none_or(|node| volume_reaches(volume, node));
        if named {
            return reached.then_some(candidate);
        }
        if node.is_none() && waits || !suits(claim, selector.as_ref(), volume) || !reached {
            continue;
        }
        if node.is_some() && !access_modes_match(claim, volume) {
            continue;
        }
        if best.as_ref().is_none_or(|(_, least)| has < *least) {
            best = Some((candidate, has));
        }
    }
    best.map(|(volume, _)| volume)
}

/// The volumes that [`find_volume`] would choose from for a claim that waits for its first consumer, on whatever node, best first.
pub fn suiting_volumes<'a, V: std::borrow::Borrow<PersistentVolume>>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [V],
) -> Vec<&'a V> {
    let size = claim_size(claim).unwrap_or_default();
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref()).map(|s| label_selector(Some(s)));
    let possible = |volume: &PersistentVolume| {
        let free = volume.spec.as_ref().is_none_or(|spec| spec.claim_ref.is_none());
        (free || is_bound_to(volume, claim))
            && volume_size(volume) >= size
            && modes_match(claim, volume)
            && attributes_match(claim, volume)
            && volume.metadata.deletion_timestamp.is_none()
    };
    if let Some(named) = volumes.iter().find(|v| is_bound_to((*v).borrow(), claim) && possible((*v).borrow())) {
        return vec![named];
    }
    let mut found: Vec<&V> = volumes
        .iter()
        .filter(|v| {
            let volume: &PersistentVolume = (*v).borrow();
            possible(volume) && suits(claim, selector.as_ref(), volume) && access_modes_match(claim, volume)
        })
        .collect();
    found.sort_by_key(|v| volume_size((*v).borrow()));
    found
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, spec: Value) -> PersistentVolume {
        let mut all = json!({"capacity": {"storage": size}, "storageClassName": "s", "accessModes": ["ReadWriteOnce"]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": name, "labels": {"disk": name}}, "spec": all,
            "status": {"phase": "Available"}}))
        .unwrap()
    }

    fn claim(spec: Value) -> PersistentVolumeClaim {
        let mut all = json!({"resources": {"requests": {"storage": "2Gi"}}, "storageClassName": "s", "accessModes": ["ReadWriteOnce"]});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": all})).unwrap()
    }

    #[test]
    fn the_smallest_that_suits_is_chosen() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "labels": {"zone": "a"}}})).unwrap();
        let near = |zone: &str| {
            json!({"nodeAffinity": {"required": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}})
        };
        let volumes = [
            volume("small", "1Gi", json!({})),
            volume("large", "9Gi", json!({})),
            volume("right", "2Gi", json!({})),
            volume("far", "2Gi", near("b")),
            volume("block", "2Gi", json!({"volumeMode": "Block"})),
            volume("named", "5Gi", json!({"claimRef": {"name": "mine", "namespace": "ns"}})),
            volume("near", "3Gi", near("a")),
        ];
        let check = |spec: Value, taken: &[&str], expect: Option<&str>| {
            let taken: BTreeSet<String> = taken.iter().map(|name| (*name).to_owned()).collect();
            let found = find_volume(&claim(spec.clone()), &volumes, Some(&node), &taken, true);
            assert_eq!(found.and_then(|v| v.metadata.name.as_deref()), expect, "{spec}");
            let wanted = claim(spec.clone());
            let mut suiting = suiting_volumes(&wanted, &volumes).into_iter();
            let free = |v: &&PersistentVolume| {
                volume_reaches(v, &node) && !taken.contains(v.metadata.name.as_deref().unwrap())
            };
            assert_eq!(suiting.find(free).and_then(|v| v.metadata.name.as_deref()), expect, "{spec}");
        };
        check(json!({}), &[], Some("right"));
        check(json!({}), &["right"], Some("near"));
        check(json!({"volumeMode": "Block"}), &[], Some("block"));
        check(json!({"selector": {"matchLabels": {"disk": "large"}}}), &[], Some("large"));
        check(json!({"storageClassName": "other"}), &[], None);
        check(json!({"accessModes": ["ReadWriteMany"]}), &[], None);
        check(json!({"resources": {"requests": {"storage": "10Gi"}}}), &[], None);
        assert!(find_volume(&claim(json!({})), &volumes, None, &BTreeSet::new(), true).is_none());
        let mut mine = claim(json!({}));
        mine.metadata.name = Some("mine".into());
        let found = find_volume(&mine, &volumes, None, &BTreeSet::new(), true);
        assert_eq!(found.and_then(|v| v.metadata.name.as_deref()), Some("named"));
    }

    #[test]
    fn topologies_restrict() {
        let node: Node = serde_json::from_value(json!({"metadata": {"labels": {"zone": "a"}}})).unwrap();
        let check = |terms: Value, expect: bool| {
            let parsed: Vec<TopologySelectorTerm> = serde_json::from_value(terms.clone()).unwrap();
            assert_eq!(matches_topology(&parsed, &node), expect, "{terms}");
        };
        check(json!([]), true);
        check(json!([{"matchLabelExpressions": [{"key": "zone", "values": ["a", "b"]}]}]), true);
        check(json!([{"matchLabelExpressions": [{"key": "zone", "values": ["b"]}]}]), false);
    }
}
