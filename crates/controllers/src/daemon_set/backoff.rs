//! How long to wait before a failed pod of a node is deleted: each time twice as long, lest controller and kubelet chase each other.
//! Upstream: client-go util/flowcontrol Backoff.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::meta::between;

const FIRST: Duration = Duration::from_secs(1);
const MOST: Duration = Duration::from_secs(15 * 60);

/// A set's uid, the generation of it that was acted on, and the node.
pub(super) type Key = (String, i64, String);

#[derive(Default)]
pub(super) struct FailedPods(Mutex<HashMap<Key, Entry>>);

struct Entry {
    pause: Duration,
    at: Timestamp,
}

impl FailedPods {
    /// `Err` with the pause while the last deletion there was not long enough ago; else notes another.
    pub(super) fn delete_now(&self, key: Key, now: Timestamp) -> Result<(), Duration> {
        let mut entries = self.0.lock();
        entries.retain(|_, entry| !is_forgotten(entry, now));
        match entries.get_mut(&key) {
            Some(entry) if between(entry.at, now) < entry.pause => Err(entry.pause),
            Some(entry) => {
                *entry = Entry { pause: (entry.pause * 2).min(MOST), at: now };
                Ok(())
            }
            None => {
                entries.insert(key, Entry { pause: FIRST, at: now });
                Ok(())
            }
        }
    }
}

fn is_forgotten(entry: &Entry, now: Timestamp) -> bool {
    between(entry.at, now) > MOST * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double() {
        let failed = FailedPods::default();
        let key = || ("uid".to_owned(), 1, "n1".to_owned());
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        assert_eq!(failed.delete_now(key(), at(0)), Ok(()));
        assert_eq!(failed.delete_now(key(), at(0)), Err(Duration::from_secs(1)));
        assert_eq!(failed.delete_now(key(), at(1)), Ok(()));
        assert_eq!(failed.delete_now(key(), at(2)), Err(Duration::from_secs(2)));
        assert_eq!(failed.delete_now(key(), at(3)), Ok(()));
        assert_eq!(failed.delete_now(("uid".to_owned(), 1, "n2".to_owned()), at(3)), Ok(()));
        // Forgotten after twice the longest pause.
        assert_eq!(failed.delete_now(key(), at(3 + 1801)), Ok(()));
        assert_eq!(failed.delete_now(key(), at(3 + 1802)), Ok(()));
    }
}
