//! The one thing kept in memory: which records each key has.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use bytes::Bytes;

use super::record::Version;
use crate::{Error, Revision};

#[derive(Debug)]
pub(super) struct Index {
    /// Each key's records, oldest first; never empty.
    keys: BTreeMap<Bytes, Vec<Version>>,
    /// When keys expire; may name some that were written again or deleted since.
    expiring: BTreeSet<(u32, Bytes)>,
    /// The newest revision in it.
    pub(super) revision: Revision,
    /// The newest compacted revision.
    pub(super) compacted: Revision,
}

impl Index {
    pub(super) fn new(revision: Revision, compacted: Revision) -> Index {
        Index { keys: BTreeMap::new(), expiring: BTreeSet::new(), revision, compacted }
    }

    /// Adds a record newer than all others.
    pub(super) fn push(&mut self, key: &[u8], version: Version) {
        match self.keys.get_mut(key) {
            Some(history) => history.push(version),
            None => {
                // A copy, as the caller's bytes may keep a larger buffer alive.
                self.keys.insert(Bytes::copy_from_slice(key), vec![version]);
            }
        }
        if version.expires != 0 {
            self.expiring.insert((version.expires, Bytes::copy_from_slice(key)));
        }
        self.revision = self.revision.max(version.id.revision());
    }

    /// The key's newest record, unless that is a deletion.
    pub(super) fn live(&self, key: &[u8]) -> Option<Version> {
        self.keys.get(key).and_then(|history| history.last()).filter(|version| !version.deleted()).copied()
    }

    /// The key's value as of a revision.
    pub(super) fn live_at(&self, key: &[u8], revision: Revision) -> Option<Version> {
        self.keys.get(key).and_then(|history| at(history, revision))
    }

    /// Checks that `requested` can be read; the newest when `None`.
    pub(super) fn readable(&self, requested: Option<Revision>) -> Result<Revision, Error> {
        match requested {
            None => Ok(self.revision),
            Some(requested) if requested < self.compacted => {
                Err(Error::Compacted { requested, compacted: self.compacted })
            }
            Some(requested) if requested > self.revision => Err(Error::Future { requested, current: self.revision }),
            Some(requested) => Ok(requested),
        }
    }

    /// The keys from `start` to before `end` (empty: no end) with their values as of `revision`.
    pub(super) fn range(
        &self,
        start: &[u8],
        end: &[u8],
        revision: Revision,
    ) -> impl Iterator<Item = (&Bytes, Version)> + use<'_> {
        let upper = if end.is_empty() { Bound::Unbounded } else { Bound::Excluded(end) };
        let bounds = (Bound::Included(start), upper);
        // A range that ends before it starts is empty; the map would panic.
        let range = (end.is_empty() || start < end).then(|| self.keys.range::<[u8], _>(bounds));
        range.into_iter().flatten().filter_map(move |(key, history)| Some((key, at(history, revision)?)))
    }

    /// The keys after `cursor` with all their records.
    pub(super) fn histories(&self, cursor: Bound<&[u8]>) -> impl Iterator<Item = (&Bytes, &[Version])> {
        self.keys.range::<[u8], _>((cursor, Bound::Unbounded)).map(|(key, history)| (key, history.as_slice()))
    }

    /// Forgets what [`superseded`] names.
    pub(super) fn prune(&mut self, key: &[u8], revision: Revision) {
        let Some(history) = self.keys.get_mut(key) else { return };
        let dropped = superseded(history, revision).len();
        history.drain(..dropped);
        if history.is_empty() {
            self.keys.remove(key);
        } else if history.capacity() > 4 * history.len() {
            history.shrink_to_fit();
        }
    }

    /// The keys whose time has passed at `now` (Unix seconds), with the revision to delete.
    pub(super) fn expired(&mut self, now: u32) -> Vec<(Bytes, Revision)> {
        let due: Vec<_> = self.expiring.range(..(now.saturating_add(1), Bytes::new())).cloned().collect();
        let mut expired = Vec::new();
        for due in due {
            match self.live(&due.1).filter(|live| live.expires == due.0) {
                Some(live) => expired.push((due.1, live.id.revision())),
                // Written again or deleted since, maybe by the last expiry.
                None => drop(self.expiring.remove(&due)),
            }
        }
        expired
    }
}

/// The value among a key's records as of `revision`.
fn at(history: &[Version], revision: Revision) -> Option<Version> {
    let version = history.iter().rfind(|version| version.id.revision() <= revision)?;
    (!version.deleted()).then_some(*version)
}

/// The records that a compaction at `revision` gives up: all up to it but the newest, and that too if it's a deletion.
pub(super) fn superseded(history: &[Version], revision: Revision) -> &[Version] {
    match history.iter().rposition(|version| version.id.revision() <= revision) {
        None => &[],
        Some(newest) if history[newest].deleted() => &history[..=newest],
        Some(newest) => &history[..newest],
    }
}
