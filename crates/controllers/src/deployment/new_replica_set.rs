//! Finding or making the ReplicaSet of the current template. Upstream: getNewReplicaSet.

use apimachinery::{ObjectKey, Value};
use client::{PatchKind, ReconcileError, resources};

use super::Rollout;
use super::hash::{HASH_LABEL, hash};
use super::history::annotations_for;
use super::view::{REVISION, ReplicaSet, comparable};
use crate::meta::{Condition, controller_reference, cut};

/// How many bytes an object's name may have.
const LONGEST_NAME: usize = 253;

impl Rollout<'_> {
    /// Brings the set of the current template up to date, if there is one.
    pub(super) async fn find_new_replica_set(&mut self) -> Result<(), ReconcileError> {
        let Some(set) = self.new.take() else { return Ok(()) };
        let revision = self.next_revision();
        let min_ready = self.deployment.spec.min_ready_seconds;
        let changed = annotations_for(&self.deployment, &set.annotations, revision, true);
        let set = if changed.is_empty() && set.min_ready_seconds == min_ready {
            set
        } else {
            let mut patch = Value::object();
            for (name, value) in changed {
                patch.set(&["metadata", "annotations", &name], value);
            }
            patch.set(&["spec", "minReadySeconds"], min_ready);
            self.patch_set(&set, patch).await?
        };
        let revision = set.annotations.get(REVISION).cloned().unwrap_or_default();
        let untold =
            self.deployment.progress_deadline().is_some() && self.deployment.condition("Progressing").is_none();
        let message = format!("Found new replica set {:?}", set.name());
        let condition = untold.then(|| Condition::new("Progressing", "True", "FoundNewReplicaSet", message));
        self.tell_revision(&revision, condition);
        self.new = Some(set);
        Ok(())
    }

    /// Like [`Rollout::find_new_replica_set`], and creates it if there is none.
    pub(super) async fn ensure_new_replica_set(&mut self) -> Result<(), ReconcileError> {
        if self.new.is_some() {
            return self.find_new_replica_set().await;
        }
        let revision = self.next_revision();
        let body = self.new_set_body(revision);
        let created = self.client.create(&resources::REPLICA_SETS, &body).await;
        let (set, existed) = match created {
            Ok(object) => (ReplicaSet::read(object)?, false),
            Err(error) if error.is_already_exists() => (self.take_or_collide(&body, error).await?, true),
            // Nothing can be created there any more, and nothing need be.
            Err(error) if error.is_namespace_terminating() => return Err(error.into()),
            Err(error) => {
                let name = body.str_at(&["metadata", "name"]).unwrap_or_default();
                let message = format!("Failed to create new replica set {name:?}: {error}");
                self.events.warning(&self.deployment.object, "ReplicaSetCreateError", message.clone());
                if self.deployment.progress_deadline().is_some() {
                    let reason = "ReplicaSetCreateError";
                    let told = self.write_condition(Condition::new("Progressing", "False", reason, message)).await;
                    // What went wrong first is the error to tell.
                    told.unwrap_or_else(|error| {
                        tracing::debug!(error = error.as_ref() as &dyn std::error::Error, "not told")
                    });
                }
                return Err(error.into());
            }
        };
        if !existed && set.replicas > 0 {
            let message = format!("Scaled up replica set {} from 0 to {}", set.name(), set.replicas);
            self.events.normal(&self.deployment.object, "ScalingReplicaSet", message);
        }
        let message = format!("Created new replica set {:?}", set.name());
        let told = !existed && self.deployment.progress_deadline().is_some();
        let condition = told.then(|| Condition::new("Progressing", "True", "NewReplicaSetCreated", message));
        self.tell_revision(&revision.to_string(), condition);
        self.new = Some(set);
        Ok(())
    }

    /// The set of that name if it is ours and of this template; else the next attempt gets another hash.
    async fn take_or_collide(&mut self, body: &Value, error: client::Error) -> Result<ReplicaSet, ReconcileError> {
        let name = body.str_at(&["metadata", "name"]).unwrap_or_default();
        let key = ObjectKey::new(self.deployment.object.namespace(), name);
        let object = self.client.get(&resources::REPLICA_SETS, &key).await?;
        let set = ReplicaSet::read(object)?;
        let ours = set.object.controller().is_some_and(|owner| owner.uid == self.deployment.object.uid());
        if ours && comparable(&set.template) == comparable(&self.deployment.spec.template) {
            return Ok(set);
        }
        let collisions = self.deployment.status.collision_count.unwrap_or_default() + 1;
        let mut fields = Value::object();
        fields.set(&["collisionCount"], collisions);
        self.write_status_fields(fields).await?;
        Err(error.into())
    }

    fn new_set_body(&self, revision: i64) -> Value {
        let deployment = &self.deployment;
        let hash = hash(&deployment.spec.template, deployment.status.collision_count);
        let mut template = deployment.spec.template.clone();
        template.set(&["metadata", "labels", HASH_LABEL], &hash);
        let mut selector = deployment.spec.selector.clone();
        selector.set(&["matchLabels", HASH_LABEL], &hash);
        let mut body = Value::object();
        body.set(&["apiVersion"], "apps/v1");
        body.set(&["kind"], "ReplicaSet");
        body.set(&["metadata", "name"], set_name(deployment.object.name(), &hash));
        body.set(&["metadata", "namespace"], deployment.object.namespace());
        body.set(&["metadata", "ownerReferences"], vec![controller_reference(&deployment.object)]);
        body.set(&["metadata", "labels"], template.at(&["metadata", "labels"]).cloned().unwrap_or_default());
        for (name, value) in annotations_for(deployment, &Default::default(), revision, false) {
            body.set(&["metadata", "annotations", &name], value);
        }
        body.set(&["spec", "replicas"], self.new_set_size(0));
        body.set(&["spec", "minReadySeconds"], deployment.spec.min_ready_seconds);
        body.set(&["spec", "selector"], selector);
        body.set(&["spec", "template"], template);
        body
    }

    /// How large the new set, of `current` size, may become now.
    pub(super) fn new_set_size(&self, current: i64) -> i64 {
        let wanted = self.deployment.spec.replicas;
        if !self.deployment.is_rolling() {
            return wanted;
        }
        let room = wanted + self.deployment.max_surge() - self.all().map(|set| set.replicas).sum::<i64>();
        if room <= 0 {
            return current;
        }
        current + room.min(wanted - current)
    }

    fn next_revision(&self) -> i64 {
        self.old.iter().map(ReplicaSet::revision).max().unwrap_or_default() + 1
    }

    /// Patches one of the sets and returns it as it then is.
    pub(super) async fn patch_set(&self, set: &ReplicaSet, mut patch: Value) -> Result<ReplicaSet, ReconcileError> {
        patch.set(&["metadata", "uid"], set.object.uid());
        let key = set.object.key();
        let object = self.client.patch(&resources::REPLICA_SETS, key, PatchKind::Merge, &patch).await?;
        Ok(ReplicaSet::read(object)?)
    }
}

/// The Deployment's name, cut where it gets too long, and the hash.
fn set_name(deployment: &str, hash: &str) -> String {
    format!("{}-{hash}", cut(deployment, LONGEST_NAME - 1 - hash.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut() {
        assert_eq!(set_name("web", "abc"), "web-abc");
        let name = set_name(&"x".repeat(253), "6c8d9f4b57");
        assert_eq!((name.len(), name.ends_with("x-6c8d9f4b57")), (LONGEST_NAME, true));
    }
}
