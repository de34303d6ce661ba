//! Waiting for a revision without being woken by each one before it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// The revisions that somebody waits for.
#[derive(Default)]
pub(super) struct Milestones(Mutex<BTreeMap<u64, Arc<Notify>>>);

impl Milestones {
    /// Waits until `reached`, which is asked at first and when `revision` is passed.
    pub(super) async fn wait(&self, revision: u64, reached: impl Fn() -> bool) {
        loop {
            if reached() {
                return;
            }
            let milestone = self.0.lock().entry(revision).or_default().clone();
            // Made before the look, so that it is not passed in between.
            let passed = milestone.notified();
            if reached() {
                return;
            }
            passed.await;
        }
    }

    /// Wakes those who wait for `revision` or one before it, in order.
    pub(super) fn pass(&self, revision: u64) {
        let mut waited = self.0.lock();
        while let Some(next) = waited.first_entry().filter(|next| *next.key() <= revision) {
            next.remove().notify_waiters();
        }
    }
}
