//! A DaemonSet's revisions: finding or making that of its template, and forgetting the oldest.

use std::collections::BTreeSet;

use apimachinery::{Selector, Value};
use client::{Client, Error, PatchKind, resources};

use super::DaemonSets;
use super::view::{Daemon, DaemonSet, REVISION};
use crate::claim::Claim;
use crate::history::{self, Draft, Made, Revision};
use crate::meta::write_status_at;

pub(super) struct History {
    /// That of the template as it is.
    pub current: Revision,
    pub old: Vec<Revision>,
}

impl DaemonSets {
    pub(super) async fn history(
        &self,
        client: &Client,
        set: &DaemonSet,
        selector: &Selector,
        pods: &[Daemon],
    ) -> Result<History, Error> {
        let claim = Claim {
            client,
            owner: &set.object,
            owner_resource: &resources::DAEMON_SETS,
            selector,
            dependents: &self.revisions,
            wanted: &|_| true,
        };
        let data = history::patch_of(&set.spec.template);
        let (mut same, mut old) = (Vec::new(), Vec::new());
        for object in claim.claim().await? {
            let mut revision = Revision::read(object);
            if revision.object.label(REVISION).is_none() {
                revision = label(client, &revision).await?;
            }
            if revision.data == data { same.push(revision) } else { old.push(revision) }
        }
        let number = old.iter().map(|revision| revision.number).max().unwrap_or_default() + 1;
        let current = match same.len() {
            0 => make(client, set, number).await?,
            _ => {
                let current = keep_one(client, same, pods).await?;
                if current.number < number { history::renumber(client, &current, number).await? } else { current }
            }
        };
        Ok(History { current, old })
    }
}

async fn make(client: &Client, set: &DaemonSet, number: i64) -> Result<Revision, Error> {
    let collisions = set.status.collision_count;
    let draft = Draft { owner: &set.object, template: &set.spec.template, number, hash_label: REVISION, collisions };
    match draft.make(client, collisions).await? {
        Made::Revision(revision) => Ok(revision),
        Made::Collision(error) => {
            // The next attempt gets another hash.
            let mut fields = Value::object();
            fields.set(&["collisionCount"], set.status.collision_count.unwrap_or_default() + 1);
            write_status_at(client, &resources::DAEMON_SETS, &set.object, &fields).await?;
            Err(error)
        }
    }
}

/// A revision without a hash goes by its name.
async fn label(client: &Client, revision: &Revision) -> Result<Revision, Error> {
    let mut value = revision.object.to_value();
    value.set(&["metadata", "labels", REVISION], revision.name());
    client.update(&resources::CONTROLLER_REVISIONS, &value).await.map(Revision::read)
}

/// Of several revisions with the same template the newest stays, and their pods become its own.
async fn keep_one(client: &Client, mut same: Vec<Revision>, pods: &[Daemon]) -> Result<Revision, Error> {
    history::sort(&mut same);
    let kept = same.remove(same.len() - 1);
    if same.is_empty() {
        return Ok(kept);
    }
    let hash = kept.object.label(REVISION).unwrap_or_default();
    for pod in pods.iter().filter(|pod| pod.object.label(REVISION) != Some(hash)) {
        let mut patch = Value::object();
        patch.set(&["metadata", "labels", REVISION], hash);
        client.patch(&resources::PODS, pod.object.key(), PatchKind::Merge, &patch).await?;
    }
    for revision in &same {
        history::delete(client, revision).await?;
    }
    Ok(kept)
}

/// Deletes the oldest revisions beyond the limit that no pod has.
pub(super) async fn forget(client: &Client, set: &DaemonSet, old: &[Revision], pods: &[Daemon]) -> Result<(), Error> {
    let Some(limit) = set.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Ok(());
    };
    let mut old = old.to_vec();
    history::sort(&mut old);
    let surplus = old.len().saturating_sub(limit);
    let live: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.object.label(REVISION)).collect();
    let dead = old.iter().filter(|revision| revision.object.label(REVISION).is_none_or(|hash| !live.contains(hash)));
    for revision in dead.take(surplus) {
        history::delete(client, revision).await?;
    }
    Ok(())
}
