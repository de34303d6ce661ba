//! What a Deployment's status says, and when it is to be looked at again. Upstream: progress.go, sync.go.

use std::time::Duration;

use apimachinery::Value;
use client::{ReconcileError, Requeue, resources};
use jiff::{SignedDuration, Timestamp};

use super::Rollout;
use super::view::{Deployment, REVISION, ReplicaSet, Status};
use crate::meta::{Condition, between, count, list, seconds, set_status, time, write_status, written_status};

const PROGRESSING: &str = "Progressing";
const REPLICA_FAILURE: &str = "ReplicaFailure";
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";

impl Deployment {
    pub(super) fn condition(&self, r#type: &str) -> Option<&Condition> {
        Condition::find(&self.status.conditions, r#type)
    }
}

impl Status {
    /// Puts the condition there unless one with the same status and reason is. Upstream: SetDeploymentCondition.
    fn set(&mut self, mut condition: Condition, now: Timestamp) {
        if let Some(current) = Condition::find(&self.conditions, &condition.r#type) {
            if current.status == condition.status && current.reason == condition.reason {
                return;
            }
            if current.status == condition.status {
                condition.last_transition_time = current.last_transition_time.clone();
            }
        }
        condition.last_update_time.get_or_insert_with(|| seconds(now));
        condition.last_transition_time.get_or_insert_with(|| seconds(now));
        self.unset(&condition.r#type);
        self.conditions.push(condition);
    }

    fn unset(&mut self, r#type: &str) {
        self.conditions.retain(|condition| condition.r#type != r#type);
    }

    fn to_fields(&self) -> Value {
        let mut fields = Value::object();
        let counts = [
            ("observedGeneration", self.observed_generation),
            ("replicas", self.replicas),
            ("updatedReplicas", self.updated_replicas),
            ("readyReplicas", self.ready_replicas),
            ("availableReplicas", self.available_replicas),
            ("unavailableReplicas", self.unavailable_replicas),
        ];
        for (name, n) in counts {
            fields.set(&[name], count(n));
        }
        fields.set(&["terminatingReplicas"], self.terminating_replicas);
        fields.set(&["collisionCount"], self.collision_count);
        fields.set(&["conditions"], list(&self.conditions));
        fields
    }
}

impl Rollout<'_> {
    fn now(&self) -> Timestamp {
        self.client.env().now()
    }

    /// Everything asked for is there, available, and of the current template.
    pub(super) fn is_complete(&self, status: &Status) -> bool {
        let wanted = self.deployment.spec.replicas;
        status.updated_replicas == wanted
            && status.replicas == wanted
            && status.available_replicas == wanted
            && status.observed_generation >= self.deployment.object.generation()
    }

    /// Says that the Deployment is paused, or no longer is.
    pub(super) async fn tell_paused(&mut self) -> Result<(), ReconcileError> {
        let current = self.deployment.condition(PROGRESSING).map(|condition| condition.reason.clone());
        if self.deployment.progress_deadline().is_none() || current.as_deref() == Some(TIMED_OUT) {
            return Ok(());
        }
        let was = current.as_deref() == Some("DeploymentPaused");
        let condition = match (self.deployment.spec.paused, was) {
            (true, false) => Condition::new(PROGRESSING, "Unknown", "DeploymentPaused", "Deployment is paused"),
            (false, true) => Condition::new(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed"),
            _ => return Ok(()),
        };
        self.write_condition(condition).await
    }

    pub(super) async fn write_condition(&mut self, condition: Condition) -> Result<(), ReconcileError> {
        let mut status = self.deployment.status.clone();
        status.set(condition, self.now());
        let mut fields = Value::object();
        fields.set(&["conditions"], list(&status.conditions));
        self.write_status_fields(fields).await
    }

    /// Keeps the Deployment's own revision annotation, which goes with its status, and a condition for the next write of the status.
    pub(super) fn tell_revision(&mut self, revision: &str, condition: Option<Condition>) {
        let known = self.deployment.annotations.get(REVISION).is_some_and(|known| known == revision);
        if !revision.is_empty() && !known {
            self.deployment.annotations.insert(REVISION.to_owned(), revision.to_owned());
            self.untold = true;
        }
        if let Some(condition) = condition {
            let now = self.now();
            self.deployment.status.set(condition, now);
            self.untold = true;
        }
    }

    /// Writes what is kept, if the rest of the status will not be.
    pub(super) async fn write_untold(&mut self) -> Result<(), ReconcileError> {
        if !self.untold {
            return Ok(());
        }
        let mut fields = Value::object();
        fields.set(&["conditions"], list(&self.deployment.status.conditions));
        self.write_status_fields(fields).await
    }

    /// Writes `fields` of the status, and the revision if it is not told yet.
    pub(super) async fn write_status_fields(&mut self, fields: Value) -> Result<(), ReconcileError> {
        let object = match self.with_untold(&fields) {
            // A newer Deployment is looked at anew.
            Some(told) => self.client.update_status(&resources::DEPLOYMENTS, &told).await?,
            None => written_status(self.client, &resources::DEPLOYMENTS, &self.deployment.object, fields).await?,
        };
        // Only the status is taken over: this reconcile keeps to the spec that it began with.
        let fresh = Deployment::read(&object)?;
        self.deployment.status = fresh.status;
        if object.generation() == self.deployment.object.generation() {
            self.deployment.object = object;
        }
        Ok(())
    }

    /// The same, of a reconcile that does nothing more.
    async fn write_last_status(&mut self, status: &Status) -> Result<(), ReconcileError> {
        let fields = status.to_fields();
        match self.with_untold(&fields) {
            Some(told) => drop(self.client.update_status_brief(&resources::DEPLOYMENTS, &told).await?),
            None => write_status(self.client, &resources::DEPLOYMENTS, &self.deployment.object, fields).await?,
        }
        Ok(())
    }

    /// The Deployment with `fields` in its status and with the revision that is not told yet, if there is one: from now on it is.
    fn with_untold(&mut self, fields: &Value) -> Option<Value> {
        let mut told = std::mem::take(&mut self.untold).then(|| self.deployment.object.to_value())?;
        if let Some(revision) = self.deployment.annotations.get(REVISION) {
            told.set(&["metadata", "annotations", REVISION], revision);
        }
        set_status(&mut told, fields);
        Some(told)
    }

    /// The status by counting alone.
    pub(super) async fn write_plain_status(&mut self) -> Result<Requeue, ReconcileError> {
        let status = self.counted();
        self.write_last_status(&status).await?;
        Ok(Requeue::No)
    }

    /// The status with how the rollout gets on.
    pub(super) async fn write_rollout_status(&mut self) -> Result<Requeue, ReconcileError> {
        let now = self.now();
        let mut status = self.counted();
        self.judge_progress(&mut status, now);
        match self.replica_failure() {
            Some(condition) => status.set(condition, now),
            None => status.unset(REPLICA_FAILURE),
        }
        if self.untold || status != self.deployment.status {
            self.write_last_status(&status).await?;
        }
        Ok(self.when_stuck(&status, now))
    }

    fn judge_progress(&self, status: &mut Status, now: Timestamp) {
        if self.deployment.progress_deadline().is_none() {
            status.unset(PROGRESSING);
            return;
        }
        let current = Condition::find(&status.conditions, PROGRESSING).cloned();
        let settled = status.replicas == status.updated_replicas
            && current.as_ref().is_some_and(|condition| condition.reason == NEW_SET_AVAILABLE);
        if settled {
            return;
        }
        let what = match &self.new {
            Some(new) => format!("ReplicaSet {:?}", new.name()),
            None => format!("Deployment {:?}", self.deployment.object.name()),
        };
        if self.is_complete(status) {
            let message = format!("{what} has successfully progressed.");
            status.set(Condition::new(PROGRESSING, "True", NEW_SET_AVAILABLE, message), now);
        } else if self.has_progressed(status) {
            let mut condition =
                Condition::new(PROGRESSING, "True", "ReplicaSetUpdated", format!("{what} is progressing."));
            if let Some(current) = current.filter(|current| current.status == "True") {
                condition.last_transition_time = current.last_transition_time;
            }
            status.unset(PROGRESSING); // so that the time of the update is told
            status.set(condition, now);
        } else if self.has_timed_out(current.as_ref(), now) {
            let message = format!("{what} has timed out progressing.");
            status.set(Condition::new(PROGRESSING, "False", TIMED_OUT, message), now);
        }
    }

    fn has_progressed(&self, new: &Status) -> bool {
        let old = &self.deployment.status;
        new.updated_replicas > old.updated_replicas
            || new.replicas - new.updated_replicas < old.replicas - old.updated_replicas
            || new.ready_replicas > old.ready_replicas
            || new.available_replicas > old.available_replicas
    }

    fn has_timed_out(&self, current: Option<&Condition>, now: Timestamp) -> bool {
        let Some(current) = current else { return false };
        match current.reason.as_str() {
            NEW_SET_AVAILABLE => false,
            TIMED_OUT => true,
            _ => self.deadline_after(current).is_some_and(|deadline| deadline < now),
        }
    }

    fn deadline_after(&self, current: &Condition) -> Option<Timestamp> {
        let seconds = SignedDuration::from_secs(self.deployment.progress_deadline()?);
        time(current.last_update_time.as_deref()).checked_add(seconds).ok()
    }

    /// When to find out that there is no progress.
    fn when_stuck(&self, status: &Status, now: Timestamp) -> Requeue {
        let Some(current) = Condition::find(&status.conditions, PROGRESSING) else { return Requeue::No };
        if self.is_complete(status) || current.reason == TIMED_OUT || current.reason == NEW_SET_AVAILABLE {
            return Requeue::No;
        }
        let Some(deadline) = self.deadline_after(current) else { return Requeue::No };
        Requeue::After(between(now, deadline) + Duration::from_secs(1))
    }

    /// The new set's failure, else any set's.
    fn replica_failure(&self) -> Option<Condition> {
        let of = |set: &ReplicaSet| Condition::find(&set.status.conditions, REPLICA_FAILURE).cloned();
        let found = self.new.as_ref().and_then(of).or_else(|| self.old.iter().find_map(of))?;
        let time = found.last_transition_time.clone();
        Some(Condition { last_update_time: time, ..found })
    }

    fn counted(&self) -> Status {
        let sum = |of: fn(&ReplicaSet) -> i64| self.all().map(of).sum::<i64>();
        let available = sum(|set| set.status.available_replicas);
        let mut status = Status {
            observed_generation: self.deployment.object.generation(),
            replicas: sum(|set| set.status.replicas),
            updated_replicas: self.new.as_ref().map_or(0, |new| new.status.replicas),
            ready_replicas: sum(|set| set.status.ready_replicas),
            available_replicas: available,
            unavailable_replicas: (sum(|set| set.replicas) - available).max(0),
            terminating_replicas: self.all().map(ReplicaSet::terminating).sum(),
            collision_count: self.deployment.status.collision_count,
            conditions: self.deployment.status.conditions.clone(),
        };
        let enough = available >= self.deployment.spec.replicas - self.deployment.max_unavailable();
        let condition = if enough {
            Condition::new("Available", "True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
        } else {
            let message = "Deployment does not have minimum availability.";
            Condition::new("Available", "False", "MinimumReplicasUnavailable", message)
        };
        status.set(condition, self.now());
        status
    }
}
