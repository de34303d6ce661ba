//! The extension points and what passes through them.
//!
//! A [`Plugin`] implements those it needs; what it finds out about a pod once per attempt, it returns as a [`NodeFilter`] or a
//! [`Scorer`], which are then asked for each node. So there is no shared bag of state: what filters nodes owns what it needs.

mod profile;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use apimachinery::ObjectKey;
use futures_util::future::BoxFuture;
use k8s_openapi::api::resource::v1::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use k8s_openapi::api::storage::v1::{CSIDriver, CSINode, CSIStorageCapacity, StorageClass, VolumeAttachment};

pub use profile::{Enabled, Filters, Forked, Point, Profile, Whom};

use crate::cluster::Cluster;
use crate::diagnosis::Diagnosis;
use crate::node::NodeInfo;
use crate::nominator::Promises;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use crate::storage::{Claim, Volume};

/// What an attempt is about, and what it may look at.
#[derive(Clone, Copy)]
pub struct Cycle<'a> {
    pub pod: &'a Arc<PodInfo>,
    pub snapshot: &'a Snapshot,
    pub cluster: &'a Arc<Cluster>,
}

/// How final a rejection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// If other pods were gone, the answer might be another.
    Unschedulable,
    /// Whatever happens to other pods.
    Unresolvable,
    /// Nothing is known: something failed.
    Error,
}

/// Why a node, or every node, does not suit a pod; the texts are counted into the pod's event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub reasons: Vec<Cow<'static, str>>,
    pub finality: Finality,
    /// Who said so; set by the framework.
    pub plugin: &'static str,
}

impl Rejection {
    pub fn because(reason: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { reasons: vec![reason.into()], finality: Finality::Unschedulable, plugin: "" }
    }

    pub fn unresolvable(reason: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { finality: Finality::Unresolvable, ..Rejection::because(reason) }
    }

    pub fn error(reason: impl Into<Cow<'static, str>>) -> Rejection {
        Rejection { finality: Finality::Error, ..Rejection::because(reason) }
    }

    pub fn message(&self) -> String {
        self.reasons.join(", ")
    }
}

/// What a plugin found out about a pod before nodes are looked at.
pub enum Prepared<'a> {
    /// It has nothing to say about this pod.
    Skip,
    Filter(Box<dyn NodeFilter + 'a>),
    /// Only these nodes can suit, and of these the filter decides.
    Among(BTreeSet<String>, Box<dyn NodeFilter + 'a>),
}

/// Decides about nodes for one pod, during one attempt.
pub trait NodeFilter: Send + Sync {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection>;

    /// Whether the answer may change with the pods on nodes.
    fn by_pods(&self) -> bool {
        true
    }

    /// The answer if these pods were on the node too; `None`: a node with them must be made to know.
    fn filter_beside(&self, node: &NodeInfo, _others: &[Arc<PodInfo>]) -> Option<Result<(), Rejection>> {
        (!self.by_pods()).then(|| self.filter(node))
    }

    /// Another pod is supposed to be on the node.
    fn add(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// A pod is supposed to be gone from the node.
    fn remove(&mut self, _pod: &PodInfo, _node: &NodeInfo) {}

    /// A copy on which suppositions can be tried; `None`: suppositions don't change it.
    fn fork<'a>(&self) -> Option<Box<dyn NodeFilter + 'a>>
    where
        Self: 'a,
    {
        None
    }

    /// How what was found out while filtering compares nodes; `None`: they are alike.
    fn scorer(&self) -> Option<Box<dyn Scorer + '_>> {
        None
    }

    /// Gives something back that may help the pod, as no node suits it; says what.
    fn give_back(&self) -> Option<&'static str> {
        None
    }

    /// What each claim of the pod that has no devices yet would get on the node.
    fn allocations(&self, _node: &NodeInfo) -> Vec<(ObjectKey, AllocationResult)> {
        Vec::new()
    }

    /// What to do before the pod is bound to the node, and how to undo it.
    fn reserve(&self, _node: &NodeInfo) -> Result<Option<Box<dyn Reservation>>, Rejection> {
        Ok(None)
    }
}

/// Compares nodes for one pod, during one attempt.
pub trait Scorer: Send + Sync {
    /// How well the node suits; only scores of one plugin compare.
    fn score(&self, node: &NodeInfo) -> i64;

    /// Brings this plugin's scores, of these nodes, into 0..=100.
    fn normalize(&self, _scores: &mut [i64], _nodes: &[&NodeInfo]) {}
}

/// Something taken for a pod on its way to its node.
pub trait Reservation: Send + Sync {
    /// Whose it is.
    fn plugin(&self) -> &'static str;

    /// Makes it so, through the API; the text of an error becomes the pod's event.
    fn pre_bind<'a>(&'a self, pod: &'a PodInfo, node: &'a str) -> BoxFuture<'a, Result<(), String>>;

    /// Takes it back: the pod won't be bound.
    fn undo(&self, pod: &PodInfo);
}

/// A node on which a pod would fit if the victims were gone.
#[derive(Clone, Debug)]
pub struct Candidate {
    pub node: String,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a budget protects.
    pub violations: usize,
}

/// What a plugin did for a pod that no node suits.
#[derive(Debug, Default)]
pub struct PostFiltered {
    /// Where there would be room; others have a say in which of these it will be.
    pub candidates: Vec<Candidate>,
    /// Where the pod will have a place: `Some("")` takes back what was said before, `None` leaves it.
    pub nominated: Option<String>,
    /// Part of the pod's event.
    pub message: String,
    /// Work to do meanwhile.
    pub work: Option<Preemption>,
    /// Nobody else is to be asked.
    pub last: bool,
}

/// Pods to remove from a node to make room.
#[derive(Debug)]
pub struct Preemption {
    pub node: String,
    pub victims: Vec<Arc<PodInfo>>,
}

/// What a plugin sees of a failed attempt.
pub struct Failed<'a, 'b> {
    pub cycle: Cycle<'a>,
    pub diagnosis: &'b Diagnosis,
    /// `None`: it failed before nodes were looked at.
    pub filters: Option<&'b Filters<'a>>,
    pub promises: &'b Promises,
    /// A number below its argument.
    pub random: &'b (dyn Fn(u64) -> u64 + Sync),
    /// Others have a say in which pods have to go.
    pub others_agree: bool,
}

/// An object's state before and after; at least one is there.
#[derive(Debug)]
pub struct Change<T> {
    pub old: Option<Arc<T>>,
    pub new: Option<Arc<T>>,
}

impl<T> Clone for Change<T> {
    fn clone(&self) -> Change<T> {
        Change { old: self.old.clone(), new: self.new.clone() }
    }
}

impl<T> Change<T> {
    pub fn removed(old: Arc<T>) -> Change<T> {
        Change { old: Some(old), new: None }
    }

    pub fn is_added(&self) -> bool {
        self.old.is_none()
    }

    pub fn is_removed(&self) -> bool {
        self.new.is_none()
    }
}

/// What happened in the cluster that may make a waiting pod schedulable.
#[derive(Clone, Debug)]
pub enum ClusterEvent {
    Node(Change<NodeInfo>),
    /// Of a pod that has a node.
    Pod(Change<PodInfo>),
    /// The waiting pod itself changed.
    Own(Change<PodInfo>),
    Claim(Change<Claim>),
    Volume(Change<Volume>),
    Class(Change<StorageClass>),
    CsiNode(Change<CSINode>),
    CsiDriver(Change<CSIDriver>),
    Capacity(Change<CSIStorageCapacity>),
    Attachment(Change<VolumeAttachment>),
    ResourceClaim(Change<ResourceClaim>),
    DeviceClass(Change<DeviceClass>),
    ResourceSlice(Change<ResourceSlice>),
}

/// One reason to prefer or to exclude nodes, or one thing to do on a pod's way.
pub trait Plugin: Send + Sync {
    /// Upstream's name of the plugin.
    fn name(&self) -> &'static str;

    /// Whether the pod may be tried at all; the reason if not.
    fn pre_enqueue(&self, _pod: &PodInfo) -> Result<(), String> {
        Ok(())
    }

    /// Which of two pods is tried first; only the plugin that sorts the queue answers.
    fn queue_sort(&self) -> Option<fn(&PodInfo) -> i64> {
        None
    }

    /// What there is to know about the pod before nodes are looked at.
    fn pre_filter<'a>(&'a self, _cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        Ok(Prepared::Skip)
    }

    /// Tries to help a pod that no node suits. `None`: it doesn't.
    fn post_filter(&self, _failed: &Failed<'_, '_>) -> Option<PostFiltered> {
        None
    }

    /// How to compare these nodes for the pod; `None`: they are alike.
    fn pre_score<'a>(&'a self, _cycle: Cycle<'a>, _nodes: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        None
    }

    /// Whether the pod may go to the node now; it may take its time.
    fn permit<'a>(&'a self, _pod: &'a PodInfo, _node: &'a str) -> Option<BoxFuture<'a, Result<(), Rejection>>> {
        None
    }

    /// Binds the pod. `None`: another plugin shall.
    fn bind<'a>(
        &'a self,
        _client: &'a client::Client,
        _pod: &'a PodInfo,
        _node: &'a str,
    ) -> Option<BoxFuture<'a, Result<(), client::Error>>> {
        None
    }

    /// The pod is bound.
    fn post_bind(&self, _pod: &PodInfo, _node: &str) {}

    /// Whether the event may make a pod that this plugin rejected schedulable.
    fn helps(&self, _pod: &PodInfo, _event: &ClusterEvent, _cluster: &Cluster) -> bool {
        false
    }
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
