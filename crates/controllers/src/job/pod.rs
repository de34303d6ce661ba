//! What the Job controller looks at in pods, read once for each revision.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use client::Informer;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

use super::view::Spec;
use crate::meta::parsed;
use crate::pod_view::{Restarts, restarts};
use crate::views::Views;

pub(super) const FINALIZER: &str = "batch.kubernetes.io/job-tracking";
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
pub(super) const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
pub(super) const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    #[default]
    Pending,
    Unknown,
    Running,
    Succeeded,
    Failed,
}

/// The part of a pod that decides over its Job.
#[derive(Debug, Default)]
pub(super) struct JobPod {
    pub phase: Phase,
    pub is_deleting: bool,
    /// Whether it has the finalizer that keeps it until it is counted.
    pub is_tracked: bool,
    pub index: Option<i64>,
    /// How often pods of this index failed before, and how often such a failure did not count.
    pub index_failures: i64,
    pub index_ignored_failures: i64,
    pub is_assigned: bool,
    pub ready_since: Option<Timestamp>,
    pub is_ready: bool,
    pub created: Timestamp,
    /// When it ended, or was last seen to.
    pub finished: Timestamp,
    pub restarts: i64,
    pub most_restarts: Restarts,
    pub conditions: Vec<(String, String)>,
    /// Containers, then init containers, that ended, with their exit codes.
    pub ended: Vec<(String, i64)>,
}

/// A pod of a Job.
#[derive(Clone)]
pub(super) struct Member {
    pub object: Arc<Object>,
    pub pod: Arc<JobPod>,
}

/// The views of the pods that belong to Jobs.
pub(super) struct JobPods {
    pub informer: Informer,
    views: Views<JobPod>,
}

impl JobPods {
    pub(super) fn new(informer: Informer) -> JobPods {
        JobPods { views: Views::new(informer.clone()), informer }
    }

    pub(super) fn member(&self, object: Arc<Object>) -> Member {
        Member { pod: self.views.get(&object, JobPod::of), object }
    }
}

impl JobPod {
    fn of(object: &Object) -> JobPod {
        match object.view::<Pod>() {
            Ok(pod) => JobPod { most_restarts: restarts(&parsed(object)), ..JobPod::read(&pod) },
            Err(error) => {
                tracing::warn!(pod = %object.key(), %error, "a pod cannot be read");
                JobPod { is_deleting: object.is_deleting(), ..JobPod::default() }
            }
        }
    }

    fn read(pod: &Pod) -> JobPod {
        let (metadata, status) = (&pod.metadata, pod.status.clone().unwrap_or_default());
        let empty = BTreeMap::new();
        let annotations = metadata.annotations.as_ref().unwrap_or(&empty);
        let number = |key: &str| annotations.get(key).and_then(|text| text.parse::<i64>().ok());
        let failures = |key: &str| number(key).filter(|n| (0..=i64::from(i32::MAX)).contains(n)).unwrap_or_default();
        let containers = status.container_statuses.as_deref().unwrap_or_default();
        let inits = status.init_container_statuses.as_deref().unwrap_or_default();
        let all = || containers.iter().chain(inits);
        let conditions = status.conditions.iter().flatten();
        JobPod {
            phase: match status.phase.as_deref() {
                Some("Running") => Phase::Running,
                Some("Succeeded") => Phase::Succeeded,
                Some("Failed") => Phase::Failed,
                Some("Unknown") => Phase::Unknown,
                _ => Phase::Pending,
            },
            is_deleting: metadata.deletion_timestamp.is_some(),
            is_tracked: metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER),
            index: number(COMPLETION_INDEX).filter(|index| *index >= 0),
            index_failures: failures(INDEX_FAILURES),
            index_ignored_failures: failures(INDEX_IGNORED_FAILURES),
            is_assigned: pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_ref())
                .is_some_and(|node| !node.is_empty()),
            ready_since: rules::ready_since(pod),
            is_ready: rules::is_ready(pod),
            created: metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            finished: finished(pod),
            restarts: all().map(|status| i64::from(status.restart_count)).sum(),
            most_restarts: Restarts::default(),
            conditions: conditions.map(|condition| (condition.type_.clone(), condition.status.clone())).collect(),
            ended: all().filter_map(exit_code).collect(),
        }
    }

    pub(super) fn is_active(&self) -> bool {
        self.phase < Phase::Succeeded && !self.is_deleting
    }

    pub(super) fn is_terminating(&self) -> bool {
        self.phase < Phase::Succeeded && self.is_deleting
    }

    /// Whether it counts as failed: deleted pods may never come to say so themselves. Upstream: isPodFailed.
    pub(super) fn is_failed(&self, spec: &Spec) -> bool {
        match self.phase {
            Phase::Failed => true,
            Phase::Succeeded => false,
            _ => self.is_deleting && !spec.replaces_only_failed(),
        }
    }

    /// All failures of the index before this pod.
    pub(super) fn all_index_failures(&self) -> i64 {
        self.index_failures + self.index_ignored_failures
    }
}

fn exit_code(status: &ContainerStatus) -> Option<(String, i64)> {
    let ended = status.state.as_ref()?.terminated.as_ref()?;
    Some((status.name.clone(), i64::from(ended.exit_code)))
}

/// When the pod ended: when its last container did, else when it ceased to be ready, else when it was deleted. Upstream:
/// getFinishedTime.
fn finished(pod: &Pod) -> Timestamp {
    let created = pod.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let Some(status) = pod.status.as_ref() else { return deleted(pod).unwrap_or(created) };
    let unready = || {
        let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready")?;
        (ready.status == "False").then(|| ready.last_transition_time.as_ref().map(|time| time.0)).flatten()
    };
    containers_finished(pod).or_else(unready).or_else(|| deleted(pod)).unwrap_or(created)
}

/// The end of the last container, if all have ended; sidecars end after the others.
fn containers_finished(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = inits.filter(|c| rules::is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let of_sidecars = status.init_container_statuses.iter().flatten().filter(|s| sidecars.contains(&s.name.as_str()));
    let all = status.container_statuses.iter().flatten().chain(of_sidecars);
    let ends: Option<Vec<Timestamp>> =
        all.map(|status| status.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0)).collect();
    ends?.into_iter().max()
}

fn deleted(pod: &Pod) -> Option<Timestamp> {
    let at = pod.metadata.deletion_timestamp.as_ref()?.0;
    let grace = pod.metadata.deletion_grace_period_seconds.unwrap_or_default().max(0) as u64;
    at.checked_sub(Duration::from_secs(grace)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trimmed_pod_tells_the_same() {
        let [whole, trimmed] = crate::trim::tests::pods().map(|pod| format!("{:#?}", JobPod::of(&pod)));
        assert_eq!(trimmed, whole);
        assert!(whole.contains("is_tracked: true") && whole.contains("restarts: 8"), "{whole}");
    }
}
