//! Transactions.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::Invalid;
use crate::{PrefixLength, Revision};

/// What a caller prepared along with a value, and meets again in the live watch event of that write (not in events read
/// back from history).
pub type Tag = Arc<dyn Any + Send + Sync>;

/// The most operations, and the most compares, of a transaction. etcd allows as many.
pub const MAX_OPS: usize = 128;

/// The most resources that a transaction may write keys of.
pub const MAX_PREFIXES: usize = 16;

/// The longest key.
pub const MAX_KEY_BYTES: usize = 4096;

/// Operations that happen together, or not at all, if every compare holds.
///
/// They share a revision, the transaction's, but for those that are followed by others of the same resource (by
/// [`PrefixLength`]): these have the revisions just before, in their order, so that revisions are unique within the watch of a
/// resource. Whoever reads the newest sees all or none of them.
#[derive(Clone, Debug, Default)]
pub struct Txn {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What is done.
    pub ops: Vec<Op>,
}

/// A condition: the key was last written at this revision.
#[derive(Clone, Debug)]
pub struct Compare {
    /// The key.
    pub key: Bytes,
    /// The revision of its last write; 0 when it must not exist.
    pub mod_revision: Revision,
}

/// One operation of a transaction.
#[derive(Clone)]
pub struct Op {
    /// The key; each at most once in a transaction.
    pub key: Bytes,
    /// What happens to it.
    pub action: Action,
    /// Handed to the watchers with the event.
    pub tag: Option<Tag>,
}

/// What an operation does.
#[derive(Clone, Debug)]
pub enum Action {
    /// Writes the value.
    Put {
        /// The new value.
        value: Bytes,
        /// When given, [`Store::expire`](crate::Store::expire) deletes the key so long after this write, to the second.
        ttl: Option<Duration>,
    },
    /// Deletes the key; nothing happens, and no revision is used, when there is none.
    Delete,
}

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The transaction's revision, the last that it took; when it changed nothing, the store's.
    pub revision: Revision,
    /// How many of its operations changed something.
    pub changed: usize,
}

impl Txn {
    /// An empty transaction.
    pub fn new() -> Txn {
        Txn::default()
    }

    /// Writes a key that must not exist yet.
    pub fn create(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        Txn::update(key, value, 0)
    }

    /// Writes a key that was last written at `mod_revision`.
    pub fn update(key: impl Into<Bytes>, value: impl Into<Bytes>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn::new().expect(key.clone(), mod_revision).put(key, value)
    }

    /// Deletes a key that was last written at `mod_revision`.
    pub fn remove(key: impl Into<Bytes>, mod_revision: Revision) -> Txn {
        let key = key.into();
        Txn::new().expect(key.clone(), mod_revision).delete(key)
    }

    /// Adds a condition; `mod_revision` 0 says that the key must not exist.
    pub fn expect(mut self, key: impl Into<Bytes>, mod_revision: Revision) -> Txn {
        self.compares.push(Compare { key: key.into(), mod_revision });
        self
    }

    /// Adds a write.
    pub fn put(mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Txn {
        let action = Action::Put { value: value.into(), ttl: None };
        self.ops.push(Op { key: key.into(), action, tag: None });
        self
    }

    /// Adds a deletion.
    pub fn delete(mut self, key: impl Into<Bytes>) -> Txn {
        self.ops.push(Op { key: key.into(), action: Action::Delete, tag: None });
        self
    }

    /// Gives the last operation a tag.
    pub fn tag(mut self, tag: Tag) -> Txn {
        if let Some(op) = self.ops.last_mut() {
            op.tag = Some(tag);
        }
        self
    }

    /// Gives the last operation, when it is a write, a time to live.
    pub fn ttl(mut self, time: Duration) -> Txn {
        if let Some(Op { action: Action::Put { ttl, .. }, .. }) = self.ops.last_mut() {
            *ttl = Some(time);
        }
        self
    }

    /// The bytes of its keys and values.
    pub fn size(&self) -> usize {
        let op = |op: &Op| op.key.len() + op.value().map_or(0, |value| value.len());
        self.ops.iter().map(op).sum::<usize>() + self.compares.iter().map(|compare| compare.key.len()).sum::<usize>()
    }

    /// Checks what holds for every engine.
    pub(crate) fn validate(&self, prefix_length: PrefixLength, max_value_bytes: usize) -> Result<(), Invalid> {
        if self.ops.len() > MAX_OPS || self.compares.len() > MAX_OPS {
            return Err(Invalid::TooManyOps { ops: self.ops.len(), compares: self.compares.len() });
        }
        for key in self.ops.iter().map(|op| &op.key).chain(self.compares.iter().map(|compare| &compare.key)) {
            if key.is_empty() || key.len() > MAX_KEY_BYTES {
                return Err(Invalid::KeyLength { length: key.len() });
            }
        }
        for (at, op) in self.ops.iter().enumerate() {
            let length = op.value().map_or(0, |value| value.len());
            if length > max_value_bytes {
                return Err(Invalid::ValueTooLarge { key: op.key.clone(), length, limit: max_value_bytes });
            }
            if self.ops[..at].iter().any(|other| other.key == op.key) {
                return Err(Invalid::SameKey { key: op.key.clone() });
            }
        }
        if self.ops.len() > MAX_PREFIXES {
            let prefixes: BTreeSet<&[u8]> = self.ops.iter().map(|op| op.prefix(prefix_length)).collect();
            if prefixes.len() > MAX_PREFIXES {
                return Err(Invalid::TooManyPrefixes { prefixes: prefixes.len() });
            }
        }
        Ok(())
    }
}

impl Op {
    /// What its key has in common with others of its resource.
    pub(crate) fn prefix(&self, prefix_length: PrefixLength) -> &[u8] {
        &self.key[..prefix_length(&self.key).min(self.key.len())]
    }

    /// What it writes.
    pub fn value(&self) -> Option<&Bytes> {
        match &self.action {
            Action::Put { value, .. } => Some(value),
            Action::Delete => None,
        }
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Op").field("key", &self.key).field("action", &self.action).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource_prefix_length;

    #[test]
    fn bad_transactions_are_named() {
        let check = |txn: Txn, expect: &str| {
            let result =
                txn.validate(resource_prefix_length, 10).map_or_else(|invalid| invalid.to_string(), |()| "ok".into());
            assert_eq!(result, expect);
        };
        check(Txn::new(), "ok");
        check(Txn::new().put("/r/pods/a", "x").put("/r/nodes/a", "x").delete("/r/services/specs/a"), "ok");
        check(Txn::new().put("/r/pods/a", "x").delete("/r/pods/b"), "ok");
        check(Txn::new().put("/r/pods/a", "x").delete("/r/pods/a"), "\"/r/pods/a\" twice in one transaction");
        check(Txn::new().put("", "x"), "a key of 0 bytes (1 to 4096 are allowed)");
        check(Txn::new().expect(vec![b'x'; 4097], 0), "a key of 4097 bytes (1 to 4096 are allowed)");
        check(Txn::new().put("a", "12345678901"), "the value of \"a\" has 11 bytes (at most 10 are allowed)");
        let many = |count: usize| (0..count).fold(Txn::new(), |txn, n| txn.put(format!("{n}"), ""));
        check(many(16), "ok");
        check(many(17), "keys of 17 resources in one transaction (16 are allowed)");
        check(many(129), "129 operations and 0 compares in one transaction (128 each are allowed)");
        let pods = (0..128).fold(Txn::new(), |txn, n| txn.put(format!("/r/pods/{n}"), ""));
        check(pods, "ok");
    }
}
