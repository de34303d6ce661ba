//! How fast nodes of a zone may be emptied: slower when much of it is silent, as then the fault may be ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::Object;
use client::Informer;
use tokio::time::Instant;

use super::health;

/// One node each, in a zone that is mostly well.
const INTERVAL: Duration = Duration::from_secs(10);
/// One node each, in a large zone that is mostly silent. In a small one, none.
const SLOW_INTERVAL: Duration = Duration::from_secs(100);
/// From here on a zone counts as mostly silent; and as large.
const SILENT_PERCENT: usize = 55;
const LARGE: usize = 50;

/// When a node of each zone was last begun to be emptied.
#[derive(Default)]
pub(super) struct Zones(BTreeMap<String, Instant>);

pub(super) enum Verdict {
    Evict,
    /// Not while the cluster is like this.
    Never,
    Later(Duration),
}

impl Zones {
    /// `already`: the node's pods are being evicted.
    pub(super) fn may_evict(&mut self, nodes: &Informer, node: &Object, now: Instant, already: bool) -> Verdict {
        let all = nodes.list("");
        let silent = |node: &&Arc<Object>| health::ready(node) != "True";
        if all.iter().all(|node| silent(&node)) {
            // Every node at once: it is us who hear nothing.
            return Verdict::Never;
        }
        if already {
            return Verdict::Evict;
        }
        let zone = zone_of(node);
        let here: Vec<_> = all.iter().filter(|node| zone_of(node) == zone).collect();
        let silent_here = here.iter().filter(|node| silent(node)).count();
        let partial = silent_here > 2 && silent_here * 100 >= here.len() * SILENT_PERCENT && silent_here < here.len();
        let interval = match (partial, here.len() > LARGE) {
            (false, _) => INTERVAL,
            (true, true) => SLOW_INTERVAL,
            (true, false) => return Verdict::Never,
        };
        if let Some(last) = self.0.get(&zone).filter(|last| now < **last + interval) {
            return Verdict::Later(*last + interval - now);
        }
        self.0.insert(zone, now);
        Verdict::Evict
    }
}

/// Region and zone.
fn zone_of(node: &Object) -> String {
    let label = |name| node.label(name).unwrap_or_default();
    format!("{}:{}", label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}
