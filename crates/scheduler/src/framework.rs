//! The extension points and what passes through them.
//!
//! A [`Plugin`] implements those it needs. Order and weights are those of [`crate::plugins::all`].

use std::sync::Arc;

use apimachinery::ObjectKey;
use k8s_openapi::api::core::v1::Pod;
use rules::{HostPort, Resources};

use crate::cache::NodeInfo;

/// A pod with what every plugin asks for worked out once.
#[derive(Clone, Debug)]
pub struct PodInfo {
    pub key: ObjectKey,
    pub uid: String,
    pub priority: i32,
    pub requests: Resources,
    /// Like `requests`, with least amounts where nothing is requested.
    pub scored_requests: Resources,
    pub ports: Vec<HostPort>,
    pub pod: Arc<Pod>,
}

impl PodInfo {
    pub fn new(pod: Pod) -> PodInfo {
        let spec = pod.spec.as_ref();
        PodInfo {
            key: ObjectKey::new(
                pod.metadata.namespace.clone().unwrap_or_default(),
                pod.metadata.name.clone().unwrap_or_default(),
            ),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            priority: spec.and_then(|spec| spec.priority).unwrap_or_default(),
            requests: spec.map(rules::pod_requests).unwrap_or_default(),
            scored_requests: spec.map(rules::scored_pod_requests).unwrap_or_default(),
            ports: spec.map(rules::host_ports).unwrap_or_default(),
            pod: Arc::new(pod),
        }
    }

    /// What events about the pod refer to.
    pub fn reference(&self) -> client::ObjectReference {
        client::ObjectReference {
            api_version: "v1".into(),
            kind: "Pod".into(),
            namespace: self.key.namespace.clone(),
            name: self.key.name.clone(),
            uid: self.uid.clone(),
            resource_version: self.pod.metadata.resource_version.clone().unwrap_or_default(),
            field_path: String::new(),
        }
    }

    pub fn spec(&self) -> &k8s_openapi::api::core::v1::PodSpec {
        self.pod.spec.as_ref().expect("the API server admits no pod without a spec")
    }
}

/// Why a node does not suit a pod; the texts are counted into the pod's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<String>,
    /// Nothing that happens to other pods can change it.
    pub unresolvable: bool,
}

impl Rejection {
    pub fn because(reason: impl Into<String>) -> Rejection {
        Rejection { reasons: vec![reason.into()], unresolvable: false }
    }

    pub fn unresolvable(reason: impl Into<String>) -> Rejection {
        Rejection { unresolvable: true, ..Rejection::because(reason) }
    }
}

/// What happened in the cluster that may make a waiting pod schedulable.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    NodeAdded(Arc<NodeInfo>),
    NodeChanged {
        old: Arc<NodeInfo>,
        new: Arc<NodeInfo>,
    },
    /// A pod left a node, or asks for less of it.
    PodRemoved(Arc<PodInfo>),
}

impl ClusterEvent {
    /// The node that came or changed.
    pub fn node(&self) -> Option<&NodeInfo> {
        match self {
            ClusterEvent::NodeAdded(node) | ClusterEvent::NodeChanged { new: node, .. } => Some(node),
            ClusterEvent::PodRemoved(_) => None,
        }
    }
}

/// One reason to prefer or to exclude nodes.
pub trait Plugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the pod may be queued at all; the reason if not.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    /// Whether the node can take the pod.
    fn filter(&self, _pod: &PodInfo, _node: &NodeInfo) -> Result<(), Rejection> {
        Ok(())
    }

    /// How well the node suits; only scores of one plugin compare. `None`: this plugin doesn't score.
    fn score(&self, _pod: &PodInfo, _node: &NodeInfo) -> Option<i64> {
        None
    }

    /// Brings this plugin's scores into 0..=100.
    fn normalize(&self, _scores: &mut [i64]) {}

    /// How much this plugin's normalised scores count.
    fn weight(&self) -> i64 {
        1
    }

    /// Whether the event may make a pod that this plugin rejected schedulable.
    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool;
}

/// The highest normalised score.
pub const MAX_SCORE: i64 = 100;

/// Stretches scores so that the highest becomes [`MAX_SCORE`]; `reverse` turns the order round.
pub fn normalize_to_max(scores: &mut [i64], reverse: bool) {
    let max = scores.iter().copied().max().unwrap_or_default();
    for score in scores {
        let stretched = if max == 0 { 0 } else { *score * MAX_SCORE / max };
        *score = if reverse { MAX_SCORE - stretched } else { stretched };
    }
}
