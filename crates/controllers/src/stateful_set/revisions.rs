//! Which revision a set's pods have, and which they shall have.

use super::Sync;
use crate::history::{self, Draft, Made, Revision};
use client::Error;

/// The label on revisions that carries their hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// The revisions that matter.
pub(super) struct Chosen {
    /// The one that the last complete rollout made everywhere.
    pub current: Revision,
    /// That of the template as it is.
    pub update: Revision,
    pub collisions: i64,
}

impl Sync<'_> {
    /// Finds or makes the revision of the set's template; `history` is sorted. `None` for a set that is going and whose
    /// revisions went already.
    pub(super) async fn choose_revisions(&self, history: &mut [Revision]) -> Result<Option<Chosen>, Error> {
        history::sort(history);
        let set = self.set;
        let mut collisions = set.status.collision_count.unwrap_or_default();
        let number = history.last().map_or(1, |newest| newest.number + 1);
        let data = history::patch_of(&set.spec.template);
        let newest_equal = history.iter().rposition(|revision| revision.data == data);
        let update = match newest_equal {
            Some(at) if at + 1 == history.len() || history.last().is_some_and(|newest| newest.data == data) => {
                history[history.len() - 1].clone()
            }
            // The template was rolled back.
            Some(at) => history::renumber(self.client, &history[at], number).await?,
            // Written otherwise, by somebody else, and yet the same.
            None if history.last().is_some_and(|newest| newest.puts_back(&set.spec.template)) => {
                history[history.len() - 1].clone()
            }
            None if set.object.is_deleting() => return Ok(None),
            None => self.make_revision(number, &mut collisions).await?,
        };
        let current = history.iter().find(|revision| revision.name() == set.status.current_revision);
        let current = current.unwrap_or(&update).clone();
        Ok(Some(Chosen { current, update, collisions }))
    }

    async fn make_revision(&self, number: i64, collisions: &mut i64) -> Result<Revision, Error> {
        let draft = Draft {
            owner: &self.set.object,
            template: &self.set.spec.template,
            number,
            hash_label: HASH_LABEL,
            collisions: Some(*collisions),
        };
        loop {
            match draft.make(self.client, Some(*collisions)).await? {
                Made::Revision(revision) => return Ok(revision),
                Made::Collision(_) => *collisions += 1,
            }
        }
    }

    /// Deletes the oldest revisions beyond the limit that no pod has.
    pub(super) async fn forget_revisions(
        &self,
        history: &[Revision],
        chosen: &Chosen,
        live: &[String],
    ) -> Result<(), Error> {
        let Some(limit) = self.set.spec.revision_history_limit.and_then(|limit| usize::try_from(limit).ok()) else {
            return Ok(());
        };
        let is_live = |name: &str| {
            name == chosen.current.name()
                || name == chosen.update.name()
                || live.iter().any(|revision| revision == name)
        };
        let old: Vec<_> = history.iter().filter(|revision| !is_live(revision.name())).collect();
        for revision in old.iter().take(old.len().saturating_sub(limit)) {
            history::delete(self.client, revision).await?;
        }
        Ok(())
    }
}
