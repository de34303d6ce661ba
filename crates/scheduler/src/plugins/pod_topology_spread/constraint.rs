//! One constraint, and the pods and nodes that it is about.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{ObjectKey, Operator, Requirement, Selector};
use k8s_openapi::api::core::v1::TopologySpreadConstraint;

use crate::cluster::Cluster;
use crate::node::NodeInfo;
use crate::plugins::node_affinity;
use crate::pod::PodInfo;
use crate::snapshot::{Namespaces, Query};

#[derive(Clone, Debug)]
pub struct Constraint {
    pub max_skew: i32,
    pub min_domains: i32,
    pub key: String,
    pub selector: Selector,
    /// Nodes that the pod's affinity or the nodes' taints keep it off don't count.
    honors_affinity: bool,
    honors_taints: bool,
}

impl Constraint {
    pub fn new(constraint: &TopologySpreadConstraint, labels: &BTreeMap<String, String>) -> Constraint {
        let mut selector = rules::label_selector(constraint.label_selector.as_ref());
        let keys = constraint.match_label_keys.iter().flatten();
        let same = keys.filter_map(|key| {
            let values = vec![labels.get(key)?.clone()];
            Some(Requirement { key: key.clone(), operator: Operator::Equals, values })
        });
        let same: Vec<Requirement> = same.collect();
        if !same.is_empty() && constraint.label_selector.is_some() {
            // The API server may have put them there already.
            let missing = same.into_iter().filter(|r| {
                !selector.requirements().iter().any(|known| known.key == r.key && known.values == r.values)
            });
            let missing: Vec<Requirement> = missing.collect();
            selector = Selector::new(selector.requirements().iter().cloned().chain(missing).collect());
        }
        Constraint {
            max_skew: constraint.max_skew,
            min_domains: constraint.min_domains.unwrap_or(1),
            key: constraint.topology_key.clone(),
            selector,
            honors_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honors_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    /// The pods that it is about. An empty selector is about none.
    pub fn query(&self, pod: &PodInfo) -> Query {
        let selector = if self.selector.is_everything() { Selector::nothing() } else { self.selector.clone() };
        Query {
            namespaces: Namespaces::These(BTreeSet::from([pod.key.namespace.clone()])),
            selector,
            terminating: false,
        }
    }

    /// Whether every node's pods count: there is nothing that the pod's affinity or taints say.
    pub fn counts_all(&self, pod: &PodInfo) -> bool {
        !self.honors_taints && (!self.honors_affinity || pod.node_selector.is_empty() && pod.node_affinity.is_none())
    }

    /// Whether the node's pods count.
    pub fn counts(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honors_affinity || node_affinity::allows(pod, node))
            && (!self.honors_taints
                || rules::tolerates_all(node.taints(), &pod.tolerations, &["NoSchedule", "NoExecute"]))
    }
}

/// Whether the node has the label of every constraint.
pub fn has_all_keys(node: &NodeInfo, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| node.label(&constraint.key).is_some())
}

/// What the pod's Services and its controller select; `None` if that is nothing in particular. Upstream: helper.DefaultSelector.
pub fn merged_selector(pod: &PodInfo, cluster: &Cluster) -> Option<Selector> {
    let mut labels: BTreeMap<String, String> = BTreeMap::new();
    let services = cluster.services.list(|key, selector| {
        key.namespace == pod.key.namespace && selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
    });
    for selector in services {
        labels.extend(selector.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    let mut more = Vec::new();
    if let Some((version, kind, name)) = &pod.controller {
        let key = ObjectKey::new(&pod.key.namespace, name);
        match (version.as_str(), kind.as_str()) {
            ("v1", "ReplicationController") => {
                if let Some(selector) = cluster.replication_controllers.get(&key) {
                    labels.extend(selector.iter().map(|(key, value)| (key.clone(), value.clone())));
                }
            }
            ("apps/v1", "ReplicaSet") => more.extend(cluster.replica_sets.get(&key)),
            ("apps/v1", "StatefulSet") => more.extend(cluster.stateful_sets.get(&key)),
            _ => {}
        }
    }
    let own = Selector::from_labels(labels.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let all = own.requirements().iter().chain(more.iter().flat_map(|selector| selector.requirements()));
    let selector = Selector::new(all.cloned().collect());
    (!selector.is_everything()).then_some(selector)
}
