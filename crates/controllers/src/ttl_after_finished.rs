//! Jobs that have ended go after `ttlSecondsAfterFinished`. Upstream: pkg/controller/ttlafterfinished.

use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{
    Controller, DeleteOptions, Event, Informer, Propagation, ReconcileContext, ReconcileError, Requeue, Watch,
};
use jiff::Timestamp;

use crate::Setup;
use crate::job::{JOBS, view};
use crate::meta::time;

/// A pause longer than this is made in parts.
const FAR: Duration = Duration::from_secs(7 * 24 * 3600);

pub(crate) struct TtlAfterFinished {
    jobs: Informer,
}

impl TtlAfterFinished {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        TtlAfterFinished { jobs: setup.informers.of(&JOBS) }
    }
}

/// When to look at the Job again; `None` when its time is up.
fn remaining(job: &Object, now: Timestamp) -> Option<Requeue> {
    let Some(expires) = expires(job).filter(|_| !job.is_deleting()) else { return Some(Requeue::No) };
    let left = Duration::try_from(expires.duration_since(now)).unwrap_or_default();
    (!left.is_zero()).then(|| Requeue::After(left.min(FAR)))
}

/// When the Job is to go, if it has ended and has a time to live.
fn expires(job: &Object) -> Option<Timestamp> {
    let outcome = view::outcome(job);
    let end = view::finished(&outcome.conditions)?;
    let seconds = job.to_value().i64_at(&["spec", "ttlSecondsAfterFinished"])?;
    let ended = time(end.last_transition_time.as_deref());
    ended.checked_add(Duration::from_secs(seconds.max(0) as u64)).ok()
}

impl Controller for TtlAfterFinished {
    fn name(&self) -> &'static str {
        "ttl-after-finished-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let ended = |event: &Event| match event {
            Event::Deleted(_) => Vec::new(),
            event => expires(event.object()).map(|_| event.object().key().clone()).into_iter().collect(),
        };
        vec![Watch::new(self.jobs.clone(), ended)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(job) = self.jobs.get(key) else { return Ok(Requeue::No) };
        if let Some(wait) = remaining(&job, ctx.env().now()) {
            return Ok(wait);
        }
        // The time to live may have been changed meanwhile.
        let Some(job) = ctx.client().find(&JOBS, key).await? else { return Ok(Requeue::No) };
        if let Some(wait) = remaining(&job, ctx.env().now()) {
            return Ok(wait);
        }
        let options = DeleteOptions::uid(job.uid()).propagation(Propagation::Foreground);
        match ctx.client().delete(&JOBS, key, &options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(Requeue::No),
        }
    }
}
