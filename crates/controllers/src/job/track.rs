//! From pods that ended to counters: the status names them, then their finalizers go, then the counters rise. Upstream:
//! trackJobStatusAndRemoveFinalizers.

use std::collections::HashSet;

use apimachinery::{Object, Value};
use client::{Client, Error, IgnoreNotFound, PatchKind, resources};
use futures_util::future::join_all;

use super::pod::{FINALIZER, Member, Phase};
use super::{COMPLETE, FAILED, FAILURE_TARGET, JOBS, SUCCESS_CRITERIA_MET, Sync, policy};
use crate::meta::{metadata, write_status_at};

/// No more uncounted pods than this are named in a status, which would grow too long.
const MOST_UNCOUNTED: usize = 500;

impl Sync<'_> {
    /// Writes the status, once or twice, with the finalizers' removal between.
    pub(super) async fn track(&mut self) -> Result<(), Error> {
        let mut tracked: HashSet<String> =
            self.members.iter().filter(|m| m.pod.is_tracked).map(|m| m.object.uid().to_owned()).collect();
        (self.status.active, self.status.ready) = (self.active, Some(self.ready));
        self.status.terminating = Some(self.terminating);
        self.raise_counters(&tracked);
        let (ended, all) = self.name_uncounted();
        self.write_indexes();
        self.name_end();
        self.flush().await?;
        // Not before: what was not written has to be found again.
        self.remember_failures();

        let removals = join_all(ended.iter().map(|member| remove_finalizer(self.client, &member.object))).await;
        for (member, _) in ended.iter().zip(&removals).filter(|(_, removal)| removal.is_ok()) {
            tracked.remove(member.object.uid());
        }
        self.raise_counters(&tracked);
        let removed = removals.into_iter().collect::<Result<(), Error>>();
        let finished = removed.is_ok() && all && self.finish();
        self.flush().await?;
        if finished {
            self.tell_end();
        }
        removed
    }

    /// Counts the uncounted pods that have no finalizer any more, or are gone.
    fn raise_counters(&mut self, tracked: &HashSet<String>) {
        let status = &mut self.status;
        let uncounted = &mut status.uncounted_terminated_pods;
        for (uids, counter) in
            [(&mut uncounted.succeeded, &mut status.succeeded), (&mut uncounted.failed, &mut status.failed)]
        {
            let before = uids.len();
            uids.retain(|uid| tracked.contains(uid));
            *counter += (before - uids.len()) as i64;
        }
    }

    /// Names pods that ended in the status. The result is whose finalizers may go then, and whether that's all there are.
    fn name_uncounted(&mut self) -> (Vec<Member>, bool) {
        let (mut ended, mut new_indexes) = (Vec::new(), 0);
        let mut all = true;
        let fails = self.end.as_ref().is_some_and(|end| end.r#type != SUCCESS_CRITERIA_MET);
        let mut named: HashSet<String> = {
            let known = &self.status.uncounted_terminated_pods;
            known.succeeded.iter().chain(&known.failed).cloned().collect()
        };
        for member in self.members.iter().filter(|member| member.pod.is_tracked) {
            let (pod, uid) = (&member.pod, member.object.uid());
            let failed = pod.is_failed(self.spec);
            if !self.may_go(member, failed) {
                continue;
            }
            ended.push(member.clone());
            let uncounted = &mut self.status.uncounted_terminated_pods;
            let is_mine = !self.spec.is_indexed() || self.spec.has_index(pod.index);
            let known_failed = uncounted.failed.iter().any(|known| known == uid);
            if pod.phase == Phase::Succeeded && !known_failed {
                if self.spec.is_indexed() {
                    // An index is counted once, whatever pods it had.
                    let is_known = pod.index.is_some_and(|index| self.succeeded_before.has(index));
                    new_indexes += usize::from(is_mine && !is_known);
                } else if named.insert(uid.to_owned()) {
                    uncounted.succeeded.push(uid.to_owned());
                }
            } else if (failed || fails)
                && is_mine
                && policy::judge(self.spec, member).counts()
                && named.insert(uid.to_owned())
            {
                // Of a Job that failed, every pod did.
                uncounted.failed.push(uid.to_owned());
            }
            if new_indexes + uncounted.succeeded.len() + uncounted.failed.len() >= MOST_UNCOUNTED {
                all = false;
                break;
            }
        }
        (ended, all)
    }

    /// Whether the pod's finalizer may go. Upstream: canRemoveFinalizer.
    fn may_go(&self, member: &Member, failed: bool) -> bool {
        if self.object.is_deleting() || self.end.is_some() || member.pod.phase == Phase::Succeeded {
            return true;
        }
        let awaits_successor = || {
            let last = member.pod.index.and_then(|index| self.replaced.get(&index));
            last.is_some_and(|last| last.object.uid() == member.object.uid())
        };
        failed && !awaits_successor()
    }

    fn write_indexes(&mut self) {
        if !self.spec.is_indexed() {
            return;
        }
        self.status.succeeded = self.succeeded_indexes.total();
        self.status.completed_indexes = self.succeeded_indexes.to_string();
        self.status.failed_indexes = self.failed_indexes.as_ref().map(ToString::to_string);
    }

    /// Says how the Job will end, before the finalizers go that it was found out by.
    fn name_end(&mut self) {
        let Some(end) = self.end.take() else { return };
        let last = match end.r#type.as_str() {
            FAILURE_TARGET => FAILED,
            SUCCESS_CRITERIA_MET => COMPLETE,
            _ => {
                self.end = Some(end);
                return;
            }
        };
        self.end = Some(self.condition(last, &end.reason, end.message.clone()));
        if self.status.find_true(&end.r#type).is_none() {
            self.status.conditions.push(end);
        }
    }

    /// Ends the Job when every pod is gone and counted.
    fn finish(&mut self) -> bool {
        let uncounted = &self.status.uncounted_terminated_pods;
        let waits = !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty() || self.terminating > 0;
        let Some(end) = self.end.clone().filter(|_| !waits) else { return false };
        if end.r#type == COMPLETE {
            self.status.completion_time = Some(self.now);
        }
        self.status.ensure(end);
        true
    }

    fn tell_end(&self) {
        let (Some(end), events, job) = (&self.end, &self.jobs.events, &self.object) else { return };
        if end.r#type != COMPLETE {
            let reason = match end.reason.as_str() {
                "PodFailurePolicy" => "PodFailurePolicy",
                "DeadlineExceeded" => "DeadlineExceeded",
                "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
                "FailedIndexes" => "FailedIndexes",
                _ => "BackoffLimitExceeded",
            };
            return events.warning(job, reason, end.message.clone());
        }
        if self.spec.completions.is_some_and(|completions| self.status.succeeded > completions) {
            let why = "Too many succeeded pods running after completion count reached";
            events.warning(job, "TooManySucceededPods", why);
        }
        events.normal(job, "Completed", "Job completed");
    }

    /// Writes the status at the revision it was read at, unless it says all this already.
    async fn flush(&mut self) -> Result<(), Error> {
        match write_status_at(self.client, &JOBS, &self.object, &self.status.fields()).await {
            Ok(object) => {
                self.object = object;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn remember_failures(&self) {
        if let Some(memory) = self.jobs.memories.lock().get_mut(self.object.key()) {
            memory.failures = self.failures.clone();
        }
    }
}

/// Removes the tracking finalizer from this very pod; one that is gone has none.
pub(super) async fn remove_finalizer(client: &Client, pod: &Object) -> Result<(), Error> {
    let finalizers = metadata(pod).items_at(&["finalizers"]).to_vec();
    let Some(at) = finalizers.iter().position(|finalizer| finalizer.as_str() == Some(FINALIZER)) else { return Ok(()) };
    let path = format!("/metadata/finalizers/{at}");
    let operation = |op: &str, path: &str, value: Option<&str>| {
        let mut operation = Value::object();
        operation.set(&["op"], op);
        operation.set(&["path"], path);
        if let Some(value) = value {
            operation.set(&["value"], value);
        }
        operation
    };
    let patch = Value::Array(vec![
        operation("test", "/metadata/uid", Some(pod.uid())),
        operation("test", &path, Some(FINALIZER)),
        operation("remove", &path, None),
    ]);
    client.patch(&resources::PODS, pod.key(), PatchKind::Json, &patch).await.ignore_not_found()
}
