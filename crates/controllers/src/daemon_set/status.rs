//! What a DaemonSet's status says.

use std::time::Duration;

use apimachinery::Value;
use client::{Client, Error, IgnoreNotFound, resources};

use super::Sync;
use super::view::DaemonSet;
use crate::meta::{between, count, write_status};

#[derive(Debug, Default, PartialEq)]
pub(super) struct Status {
    desired: i64,
    current: i64,
    misscheduled: i64,
    ready: i64,
    updated: i64,
    available: i64,
}

impl Sync<'_> {
    pub(super) fn status(&self) -> Status {
        let mut status = Status::default();
        for node in self.nodes {
            let pods = node.metadata.name.as_ref().and_then(|name| self.pods.get(name));
            let oldest = pods.and_then(|pods| pods.iter().min_by(|a, b| a.seniority().cmp(&b.seniority())));
            if !self.set.fits(node).0 {
                status.misscheduled += i64::from(oldest.is_some());
                continue;
            }
            status.desired += 1;
            let Some(pod) = oldest else { continue };
            status.current += 1;
            status.ready += i64::from(pod.view.is_ready());
            status.available += i64::from(pod.is_available(self.set.min_ready(), self.now));
            status.updated += i64::from(pod.is_updated(self.set, &self.hash));
        }
        status
    }
}

impl Status {
    /// Writes the status unless it says all this already.
    pub(super) async fn write(&self, client: &Client, set: &DaemonSet) -> Result<(), Error> {
        let mut fields = Value::object();
        fields.set(&["observedGeneration"], count(set.object.generation()));
        fields.set(&["desiredNumberScheduled"], self.desired);
        fields.set(&["currentNumberScheduled"], self.current);
        fields.set(&["numberMisscheduled"], self.misscheduled);
        fields.set(&["numberReady"], self.ready);
        fields.set(&["updatedNumberScheduled"], count(self.updated));
        fields.set(&["numberAvailable"], count(self.available));
        fields.set(&["numberUnavailable"], count(self.desired - self.available));
        write_status(client, &resources::DAEMON_SETS, &set.object, fields).await.ignore_not_found()
    }

    /// When the next ready pod will have been ready for long enough: also one that surges beside an older, which alone is counted.
    pub(super) fn next_available_in(&self, sync: &Sync<'_>) -> Option<Duration> {
        let since = sync.pods.values().flatten().filter_map(|pod| pod.view.ready_since);
        let at = since.filter_map(|since| since.checked_add(sync.set.min_ready()).ok());
        let left = at.map(|at| between(sync.now, at));
        left.filter(|left| !left.is_zero()).min().map(|left| left + Duration::from_millis(1))
    }
}
