//! What a set's status says.

use apimachinery::Value;
use client::{Error, IgnoreNotFound, resources};

use super::Sync;
use super::revisions::Chosen;
use super::view::Replica;
use crate::meta::{count, write_status};

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    pub replicas: i64,
    pub ready: i64,
    pub available: i64,
    pub current: i64,
    pub updated: i64,
    current_revision: String,
    update_revision: String,
    collisions: i64,
}

impl Sync<'_> {
    pub(super) fn status_of<'a>(&self, pods: impl IntoIterator<Item = &'a Replica>, chosen: &Chosen) -> Status {
        let mut status = Status {
            current_revision: chosen.current.name().to_owned(),
            update_revision: chosen.update.name().to_owned(),
            collisions: chosen.collisions,
            ..Status::default()
        };
        for pod in pods.into_iter().filter(|pod| pod.is_created()) {
            status.replicas += 1;
            if pod.is_running_and_ready() {
                status.ready += 1;
                status.available += i64::from(pod.is_available(self.set.min_ready(), self.now));
            }
            if !pod.is_terminating() {
                status.current += i64::from(pod.revision == status.current_revision);
                status.updated += i64::from(pod.revision == status.update_revision);
            }
        }
        status
    }

    /// Writes the status unless it says all this already. A rollout that is complete makes its revision the current one.
    pub(super) async fn write_status(&self, status: &Status) -> Result<(), Error> {
        let mut status = status.clone();
        let wanted = self.set.replicas();
        let rolls = self.set.spec.update_strategy.r#type == "RollingUpdate";
        if rolls && [status.updated, status.ready, status.replicas] == [wanted; 3] {
            status.current = status.updated;
            status.current_revision.clone_from(&status.update_revision);
        }
        let mut fields = Value::object();
        fields.set(&["observedGeneration"], count(self.set.object.generation()));
        fields.set(&["replicas"], status.replicas);
        fields.set(&["readyReplicas"], count(status.ready));
        fields.set(&["currentReplicas"], count(status.current.max(0)));
        fields.set(&["updatedReplicas"], count(status.updated));
        fields.set(&["availableReplicas"], status.available);
        fields.set(&["currentRevision"], status.current_revision);
        fields.set(&["updateRevision"], status.update_revision);
        fields.set(&["collisionCount"], status.collisions);
        write_status(self.client, &resources::STATEFUL_SETS, &self.set.object, fields).await.ignore_not_found()
    }
}
