//! Revisions: what a ReplicaSet remembers of its Deployment, and how many old sets are kept.

use std::collections::BTreeMap;

use client::{DeleteOptions, EventType, IgnoreNotFound, ObjectReference, ReconcileError, resources};

use super::Rollout;
use super::hash::HASH_LABEL;
use super::view::{DESIRED, Deployment, MAX_REPLICAS, REVISION, ReplicaSet, comparable};

const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const ROLLBACK_TO: &str = "deprecated.deployment.rollback.to";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How long the list of earlier revisions may grow.
const HISTORY_LENGTH: usize = 2000;

/// The annotations that Deployments and their sets don't share.
const OWN: [&str; 6] = [LAST_APPLIED, REVISION, REVISION_HISTORY, DESIRED, MAX_REPLICAS, ROLLBACK_TO];

/// The annotations that the set of the current template lacks; none at all as long as its revision is no number. Upstream:
/// SetNewReplicaSetAnnotations.
pub(super) fn annotations_for(
    deployment: &Deployment,
    current: &BTreeMap<String, String>,
    revision: i64,
    exists: bool,
) -> BTreeMap<String, String> {
    let old = current.get(REVISION);
    let old_number = match old.map(String::as_str) {
        None | Some("") => 0,
        Some(old) => match old.parse::<i64>() {
            Ok(number) => number,
            Err(_) => return BTreeMap::new(),
        },
    };
    let copied = deployment.annotations.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
    let mut wanted: BTreeMap<String, String> = copied.map(|(name, value)| (name.clone(), value.clone())).collect();
    if old_number < revision {
        wanted.insert(REVISION.to_owned(), revision.to_string());
        if let Some(old) = old {
            wanted.insert(REVISION_HISTORY.to_owned(), remember(current.get(REVISION_HISTORY), old));
        }
    }
    if !exists {
        wanted.extend(size_annotations(deployment));
    }
    wanted.retain(|name, value| current.get(name) != Some(value));
    wanted
}

/// The annotations from which a later change of size is told and shared out.
pub(super) fn size_annotations(deployment: &Deployment) -> [(String, String); 2] {
    let replicas = deployment.spec.replicas;
    [
        (DESIRED.to_owned(), replicas.to_string()),
        (MAX_REPLICAS.to_owned(), (replicas + deployment.max_surge()).to_string()),
    ]
}

/// The revision that the deprecated annotation asks to go back to; 0: the one before.
pub(super) fn rollback_to(deployment: &Deployment) -> Option<i64> {
    deployment.annotations.get(ROLLBACK_TO)?.parse().ok()
}

/// `history` with `old` at its end, its beginning dropped where it gets too long.
fn remember(history: Option<&String>, old: &str) -> String {
    let mut history = history.cloned().unwrap_or_default();
    if history.is_empty() {
        return old.to_owned();
    }
    while history.len() + old.len() + 1 > HISTORY_LENGTH {
        match history.split_once(',') {
            Some((_, rest)) => history = rest.to_owned(),
            None => return old.to_owned(),
        }
    }
    format!("{history},{old}")
}

impl Rollout<'_> {
    /// Takes template and annotations of an earlier revision, and the annotation that asked for it away. The template as it is becomes a
    /// revision before, so that it can be gone back to. Upstream: rollback.go.
    pub(super) async fn roll_back(&mut self, revision: i64) -> Result<(), ReconcileError> {
        self.ensure_new_replica_set().await?;
        self.write_untold().await?;
        let deployment = &self.deployment;
        let mut revisions: Vec<i64> = self.all().map(ReplicaSet::revision).collect();
        revisions.sort_unstable();
        let wanted = match revision {
            // Sets without a revision are none to go back to.
            0 => revisions.iter().rev().nth(1).copied().filter(|revision| *revision > 0),
            revision => Some(revision),
        };
        let mut value = deployment.object.to_value();
        value.remove(&["metadata", "annotations", ROLLBACK_TO]);
        let set = wanted.and_then(|wanted| self.all().find(|set| set.revision() == wanted));
        let told = match set {
            None if revision == 0 => {
                (EventType::Warning, "DeploymentRollbackRevisionNotFound", "Unable to find last revision.".to_owned())
            }
            None => {
                let message = "Unable to find the revision to rollback to.".to_owned();
                (EventType::Warning, "DeploymentRollbackRevisionNotFound", message)
            }
            Some(set) if comparable(&set.template) == comparable(&deployment.spec.template) => {
                let message = format!(
                    "The rollback revision contains the same template as current deployment {:?}",
                    deployment.object.name()
                );
                (EventType::Warning, "DeploymentRollbackTemplateUnchanged", message)
            }
            Some(set) => {
                let mut template = set.template.clone();
                template.remove(&["metadata", "labels", HASH_LABEL]);
                value.set(&["spec", "template"], template);
                let kept = deployment.annotations.iter().filter(|(name, _)| OWN.contains(&name.as_str()));
                let taken = set.annotations.iter().filter(|(name, _)| !OWN.contains(&name.as_str()));
                let annotations = kept.chain(taken).filter(|(name, _)| *name != ROLLBACK_TO);
                value.remove(&["metadata", "annotations"]);
                for (name, annotation) in annotations {
                    value.set(&["metadata", "annotations", name], annotation);
                }
                let message =
                    format!("Rolled back deployment {:?} to revision {}", deployment.object.name(), set.revision());
                (EventType::Normal, "DeploymentRollback", message)
            }
        };
        self.client.update(&resources::DEPLOYMENTS, &value).await?;
        self.events.event(ObjectReference::to(&deployment.object), told.0, told.1, told.2);
        Ok(())
    }

    /// Deletes the oldest sets beyond the limit that have no pods.
    pub(super) async fn clean_up(&self) -> Result<(), ReconcileError> {
        let Some(limit) = self.deployment.history_limit() else { return Ok(()) };
        let mut old: Vec<_> = self.old.iter().filter(|set| !set.object.is_deleting()).collect();
        let surplus = old.len().saturating_sub(limit);
        old.sort_by_key(|set| (set.revision(), set.created));
        for set in old.into_iter().take(surplus) {
            let settled = set.object.generation() <= set.status.observed_generation;
            if set.status.replicas != 0 || set.replicas != 0 || !settled {
                continue;
            }
            let options = DeleteOptions::uid(set.object.uid());
            self.client.delete(&resources::REPLICA_SETS, set.object.key(), &options).await.ignore_not_found()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_is_no_number_is_left_alone() {
        let json = r#"{"metadata":{"name":"d","annotations":{"note":"new"}},"spec":{"selector":{},"template":{}}}"#;
        let object = std::sync::Arc::new(apimachinery::Object::parse(json.as_bytes()).unwrap());
        let deployment = Deployment::read(&object).unwrap();
        let check = |revision: &str, expect: &[(&str, &str)]| {
            let current = BTreeMap::from([(REVISION.to_owned(), revision.to_owned())]);
            let wanted = annotations_for(&deployment, &current, 3, true);
            let wanted: Vec<_> = wanted.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(wanted, expect, "{revision}");
        };
        check("3", &[("note", "new")]);
        check("2", &[(REVISION, "3"), (REVISION_HISTORY, "2"), ("note", "new")]);
        check("two", &[]);
    }

    #[test]
    fn earlier_revisions_are_remembered_up_to_a_length() {
        assert_eq!(remember(None, "1"), "1");
        assert_eq!(remember(Some(&"1,2".to_owned()), "3"), "1,2,3");
        let long = vec!["7"; 1000].join(",");
        let longer = remember(Some(&long), "12");
        assert!(longer.len() <= HISTORY_LENGTH && longer.ends_with("7,12"));
    }
}
