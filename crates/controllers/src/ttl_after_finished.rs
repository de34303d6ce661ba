//! Jobs that have ended go after `ttlSecondsAfterFinished`. Upstream: pkg/controller/ttlafterfinished.

use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use client::{
    Controller, DeleteOptions, Event, IgnoreNotFound, Informer, Propagation, ReconcileContext, ReconcileError, Requeue,
    Watch,
};
use jiff::Timestamp;

use crate::Setup;
use crate::job::{JOBS, view};
use crate::meta::between;

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
    let left = between(now, expires);
    (!left.is_zero()).then(|| Requeue::After(left.min(FAR)))
}

/// When the Job is to go, if it has a time to live and says when it ended.
fn expires(job: &Object) -> Option<Timestamp> {
    let outcome = view::outcome(job);
    let end = view::finished(&outcome.conditions)?;
    let seconds = job.to_value().i64_at(&["spec", "ttlSecondsAfterFinished"])?;
    let ended: Timestamp = end.last_transition_time.as_ref()?.parse().ok()?;
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
        ctx.client().delete(&JOBS, key, &options).await.ignore_not_found()?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_goes_some_time_after_its_end() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        let check = |ttl: &str, end: &str, expect: Option<Requeue>| {
            let json = format!(
                r#"{{"apiVersion":"batch/v1","kind":"Job","metadata":{{"name":"j"}},"spec":{{{ttl}}},"status":{{"conditions":[{end}]}}}}"#
            );
            assert_eq!(remaining(&Object::parse(json.as_bytes()).unwrap(), now), expect, "{ttl} {end}");
        };
        let ended = |end: &str, at: &str| format!(r#"{{"type":"{end}","status":"True","lastTransitionTime":"{at}"}}"#);
        let ttl = r#""ttlSecondsAfterFinished":15"#;
        check(ttl, "", Some(Requeue::No));
        check("", &ended("Complete", "2026-01-01T00:00:00Z"), Some(Requeue::No));
        check(ttl, &ended("Suspended", "2026-01-01T00:00:00Z"), Some(Requeue::No));
        check(ttl, &ended("Complete", "2026-01-01T00:00:00Z"), Some(Requeue::After(Duration::from_secs(5))));
        check(ttl, &ended("Failed", "2025-12-31T23:59:55Z"), None);
        // Nobody knows when it ended.
        check(ttl, r#"{"type":"Complete","status":"True"}"#, Some(Requeue::No));
    }
}
