//! How fast nodes of a zone may be emptied: slower when much of it is silent, as then the fault may be ours.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use tokio::time::Instant;

use super::health;

/// What changes within this time is judged together: upstream looks that often.
const TOGETHER: Duration = Duration::from_secs(5);
/// One node each, in a zone that is mostly well.
const INTERVAL: Duration = Duration::from_secs(10);
/// One node each, in a large zone that is mostly silent. In a small one, none.
const SLOW_INTERVAL: Duration = Duration::from_secs(100);
/// From here on a zone counts as mostly silent; and as large.
const SILENT_PERCENT: usize = 55;
const LARGE: usize = 50;
/// Nodes with this label do not count.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// What was found when the zones were last looked at.
#[derive(Default)]
pub(super) struct Zones {
    /// When they are looked at next, as something changed.
    due: Option<Instant>,
    /// Nobody at all was heard of: it is us who hear nothing.
    deaf: bool,
    /// Names of the nodes that were not ready, or did not report in time.
    silent: BTreeSet<String>,
    zones: BTreeMap<String, Zone>,
}

struct Zone {
    /// How long after one node the next may follow, if any may.
    pace: Option<Duration>,
    next: Instant,
}

#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The node's turn has come, or it had it before.
    Evict,
    /// Not before the zones are judged again.
    Not,
    Later(Duration),
}

impl Zones {
    /// Something changed that counts: soon the zones are to be judged.
    pub(super) fn changed(&mut self, now: Instant) {
        self.due.get_or_insert(now + TOGETHER);
    }

    /// When they are to be judged, if they are.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the node was silent when its zone was judged.
    pub(super) fn is_silent(&self, node: &Object) -> bool {
        self.silent.contains(node.name())
    }

    /// Judges the zones by all nodes; `expired` tells those whose time to report is over, whatever they said last.
    /// Returns those that are not ready: for them something may have changed.
    pub(super) fn judge(
        &mut self,
        nodes: &[Arc<Object>],
        expired: impl Fn(&Object) -> bool,
        now: Instant,
    ) -> Vec<ObjectKey> {
        self.due = None;
        self.silent.clear();
        let mut unready = Vec::new();
        // Of each zone the nodes that count, and how many of them are silent.
        let mut found: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for node in nodes {
            let silent = health::ready(node).as_deref() != Some("True") || expired(node);
            if silent {
                self.silent.insert(node.name().to_owned());
                unready.push(node.key().clone());
            }
            let (all, silent_ones) = found.entry(zone_of(node)).or_default();
            if node.label(EXCLUDED).is_none() {
                *all += 1;
                *silent_ones += usize::from(silent);
            }
        }
        let (all, silent) = found.values().fold((0, 0), |sum, (all, silent)| (sum.0 + all, sum.1 + silent));
        self.deaf = all > 0 && all == silent;
        self.zones.retain(|name, _| found.contains_key(name));
        for (name, (all, silent)) in found {
            let zone = self.zones.entry(name).or_insert(Zone { pace: Some(INTERVAL), next: now });
            zone.set_pace(if self.deaf { None } else { pace(all, silent) }, now);
        }
        unready
    }

    /// Whether a node that is not ready is emptied now, which uses up its zone's turn. `already`: that was begun before.
    pub(super) fn may_evict(&mut self, node: &Object, now: Instant, already: bool) -> Verdict {
        if self.deaf {
            return Verdict::Not;
        }
        if already {
            return Verdict::Evict;
        }
        let Some(zone) = self.zones.get_mut(&zone_of(node)).filter(|_| self.silent.contains(node.name())) else {
            return Verdict::Not;
        };
        match zone.pace {
            None => Verdict::Not,
            Some(_) if now < zone.next => Verdict::Later(zone.next - now),
            Some(pace) => {
                zone.next = now + pace;
                Verdict::Evict
            }
        }
    }

    /// The node that had its turn could not be tainted: another may have it.
    pub(super) fn give_back(&mut self, node: &Object, now: Instant) {
        if let Some(zone) = self.zones.get_mut(&zone_of(node)) {
            zone.next = now;
        }
    }
}

impl Zone {
    /// Who had to wait at the old pace has to wait at the new one, from now on.
    fn set_pace(&mut self, pace: Option<Duration>, now: Instant) {
        if self.pace == pace {
            return;
        }
        let waits = self.pace.is_none() || now < self.next;
        if let Some(pace) = pace.filter(|_| waits) {
            self.next = now + pace;
        }
        self.pace = pace;
    }
}

/// The pace in a zone of so many nodes, so many of them silent.
fn pace(all: usize, silent: usize) -> Option<Duration> {
    let mostly_silent = silent > 2 && silent * 100 >= all * SILENT_PERCENT && silent < all;
    match (mostly_silent, all > LARGE) {
        (false, _) => Some(INTERVAL),
        (true, true) => Some(SLOW_INTERVAL),
        (true, false) => None,
    }
}

/// Whether the change is one that a zone is judged by.
pub(super) fn concerns(old: &Object, new: &Object) -> bool {
    let excluded = |node: &Object| node.label(EXCLUDED).is_some();
    health::ready(old) != health::ready(new) || zone_of(old) != zone_of(new) || excluded(old) != excluded(new)
}

/// Region and zone.
fn zone_of(node: &Object) -> String {
    let label = |name| node.label(name).unwrap_or_default();
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, ready: bool) -> Arc<Object> {
        let status = if ready { "True" } else { "False" };
        let json = format!(
            r#"{{"apiVersion":"v1","kind":"Node","metadata":{{"name":"{name}","labels":{{"topology.kubernetes.io/zone":"{}"}}}},
                "status":{{"conditions":[{{"type":"Ready","status":"{status}"}}]}}}}"#,
            &name[..1]
        );
        Arc::new(Object::parse(json.as_bytes()).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_taken_and_given_back() {
        let start = env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH).monotonic();
        let at = |seconds| start + Duration::from_secs(seconds);
        let later = |seconds| Verdict::Later(Duration::from_secs(seconds));
        let mut zones = Zones::default();
        let (a, b, c) = (node("a1", false), node("a2", false), node("b1", true));
        assert_eq!(zones.may_evict(&a, at(0), false), Verdict::Not, "not judged yet");
        zones.changed(at(0));
        zones.changed(at(3));
        assert_eq!(zones.due(), Some(at(5)));
        assert_eq!(zones.judge(&[a.clone(), c.clone()], |_| false, at(5)), [a.key().clone()]);
        assert_eq!(zones.due(), None);
        assert_eq!(zones.may_evict(&b, at(5), false), Verdict::Not, "it was not silent then");
        zones.judge(&[a.clone(), b.clone(), c.clone()], |_| false, at(10));
        assert_eq!(zones.may_evict(&a, at(10), false), Verdict::Evict);
        assert_eq!(zones.may_evict(&b, at(12), false), later(8));
        zones.give_back(&a, at(12));
        assert_eq!(zones.may_evict(&b, at(12), false), Verdict::Evict);
        assert_eq!(zones.may_evict(&b, at(13), true), Verdict::Evict);
        // Nobody is heard of, and then one again: a whole interval passes first.
        let gone = node("b1", false);
        zones.judge(&[a.clone(), b.clone(), gone], |_| false, at(20));
        assert_eq!(zones.may_evict(&b, at(20), true), Verdict::Not);
        assert_eq!(zones.may_evict(&a, at(60), false), Verdict::Not);
        zones.judge(&[a.clone(), b, c], |_| false, at(100));
        assert_eq!(zones.may_evict(&a, at(100), false), later(10));
        assert_eq!(zones.may_evict(&a, at(110), false), Verdict::Evict);
    }

    #[test]
    fn the_pace_follows_the_share_of_silent_nodes() {
        let check = |all, silent, expect: Option<u64>| {
            assert_eq!(pace(all, silent), expect.map(Duration::from_secs), "{silent} of {all}");
        };
        check(3, 2, Some(10));
        check(5, 3, None);
        check(4, 4, Some(10));
        check(50, 27, Some(10));
        check(50, 28, None);
        check(51, 28, Some(10));
        check(51, 29, Some(100));
        check(51, 51, Some(10));
    }
}
