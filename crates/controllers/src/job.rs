//! A Job runs pods until enough of them have succeeded, or it is clear that they won't. Upstream: pkg/controller/job.
//!
//! No pod is counted twice or forgotten, wherever the controller is interrupted: each carries a finalizer until the status names
//! its uid as ended and uncounted ([`track`]); only then the finalizer goes, and only then the counter rises and the uid goes.

mod backoff;
mod indexes;
mod manage;
mod orphans;
mod pod;
mod policy;
mod track;
pub(crate) mod view;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Selector};
use client::{
    Client, Controller, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Resource, Watch,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Setup;
use crate::claim::Claim;
use crate::meta::{CONTROLLER_INDEX, between, by_controller};
use crate::replica_set::owners_of;

use backoff::Failures;
use indexes::Indexes;
pub(crate) use orphans::OrphanedPods;
use pod::{FINALIZER, JobPods, Member, Phase};
use policy::Verdict;
use view::{Condition, Spec, Status, View};

pub(crate) const JOBS: Resource = Resource::namespaced("batch", "v1", "jobs");

/// News of pods are gathered this long, so that a large Job's status isn't written for each of its pods.
const BATCH: Duration = Duration::from_secs(1);

/// Nothing is waited for longer than this without looking again.
const FAR: Duration = Duration::from_secs(7 * 24 * 3600);

const COMPLETE: &str = "Complete";
const FAILED: &str = "Failed";
const FAILURE_TARGET: &str = "FailureTarget";
const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";

pub(crate) struct Jobs {
    jobs: Informer,
    pods: JobPods,
    events: EventRecorder,
    memories: Mutex<HashMap<ObjectKey, Memory>>,
}

/// What the controller remembers of a Job; when that is lost, pods come a little too early at worst.
#[derive(Clone, Default)]
struct Memory {
    uid: String,
    failures: Failures,
    failed_requests: u32,
    /// The generation that was seen when something was last written, and when.
    written: Option<(i64, Instant)>,
}

/// A Job on its way through one reconcile.
struct Sync<'a> {
    jobs: &'a Jobs,
    client: &'a Client,
    object: Arc<Object>,
    spec: &'a Spec,
    status: Status,
    members: Vec<Member>,
    now: Timestamp,
    /// As the status had them; and with the pods that ended since.
    succeeded_before: Indexes,
    succeeded_indexes: Indexes,
    failed_indexes: Option<Indexes>,
    succeeded: i64,
    failed: i64,
    active: i64,
    ready: i64,
    terminating: i64,
    failures: Failures,
    /// How the Job ends, once it is clear.
    end: Option<Condition>,
    /// The last failed pod of each index whose next pod is still to be made: it keeps its finalizer until then, for the count of
    /// failures that it carries.
    replaced: BTreeMap<i64, Member>,
    again: Option<Duration>,
}

impl Jobs {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let pods = setup.pods.informer.clone();
        pods.index(CONTROLLER_INDEX, by_controller);
        Jobs {
            jobs: setup.informers.of(&JOBS),
            pods: JobPods::new(pods),
            events: setup.recorder("job-controller", "job-controller"),
            memories: Mutex::default(),
        }
    }

    /// What is remembered of this very Job.
    fn memory(&self, object: &Object) -> Memory {
        let mut memories = self.memories.lock();
        let memory = memories.entry(object.key().clone()).or_default();
        if memory.uid != object.uid() {
            *memory = Memory { uid: object.uid().to_owned(), ..Memory::default() };
        }
        memory.clone()
    }

    /// How long to wait for more news: not when somebody changed the Job, or no pod runs any more.
    fn batches(&self, ctx: &ReconcileContext, object: &Object, memory: &Memory) -> Option<Duration> {
        let (generation, at) = memory.written?;
        let left = BATCH.checked_sub(ctx.env().monotonic() - at).filter(|left| !left.is_zero())?;
        if generation != object.generation() || object.is_deleting() {
            return None;
        }
        let pods = self.pods.informer.by_index(CONTROLLER_INDEX, object.uid());
        pods.into_iter().any(|pod| self.pods.member(pod).pod.is_active()).then_some(left)
    }

    async fn claim(
        &self,
        ctx: &ReconcileContext,
        object: &Arc<Object>,
        spec: &Spec,
    ) -> Result<Vec<Member>, ReconcileError> {
        let selector = Selector::from_label_selector(Some(&spec.selector))?;
        let claim = Claim {
            client: ctx.client(),
            owner: object,
            owner_resource: &JOBS,
            selector: &selector,
            dependents: &self.pods.informer,
            wanted: &|_| true,
        };
        let claimed = claim.claim_with_finalizer(FINALIZER).await?;
        Ok(claimed.into_iter().map(|pod| self.pods.member(pod)).collect())
    }
}

impl<'a> Sync<'a> {
    fn new(
        jobs: &'a Jobs,
        ctx: &'a ReconcileContext,
        object: Arc<Object>,
        spec: &'a Spec,
        mut status: Status,
        mut members: Vec<Member>,
        memory: &Memory,
    ) -> Sync<'a> {
        let now = ctx.env().now();
        if status.start_time.is_none() && !spec.suspend {
            status.start_time = Some(now);
        }
        members.sort_by(|a, b| a.pod.index.cmp(&b.pod.index).then_with(|| a.object.key().cmp(b.object.key())));
        let count = |counted: fn(&Member) -> bool| members.iter().filter(|member| counted(member)).count() as i64;
        let mut sync = Sync {
            jobs,
            client: ctx.client(),
            object,
            spec,
            now,
            active: count(|member| member.pod.is_active()),
            ready: count(|member| member.pod.is_active() && member.pod.is_ready),
            terminating: count(|member| member.pod.is_terminating()),
            members,
            succeeded_before: Indexes::default(),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            succeeded: 0,
            failed: 0,
            failures: Failures::default(),
            end: None,
            replaced: BTreeMap::new(),
            again: None,
            status,
        };
        sync.count_ends(memory);
        sync
    }

    /// Counts the pods that ended and are not in the status yet.
    fn count_ends(&mut self, memory: &Memory) {
        let uncounted = &self.status.uncounted_terminated_pods;
        let is_new = |member: &&Member, known: &[String]| {
            member.pod.is_tracked
                && !known.iter().any(|uid| uid == member.object.uid())
                && (!self.spec.is_indexed() || self.spec.has_index(member.pod.index))
        };
        let succeeded: Vec<&Member> = self.members.iter().filter(|m| is_new(m, &uncounted.succeeded)).collect();
        let succeeded: Vec<&Member> = succeeded.into_iter().filter(|m| m.pod.phase == Phase::Succeeded).collect();
        let failed: Vec<&Member> = self.members.iter().filter(|m| is_new(m, &uncounted.failed)).collect();
        let failed: Vec<&Member> = failed.into_iter().filter(|m| m.pod.is_failed(self.spec)).collect();
        let counted = failed.iter().filter(|member| policy::judge(self.spec, member).counts()).count();
        self.succeeded = self.status.succeeded + (succeeded.len() + uncounted.succeeded.len()) as i64;
        self.failed = self.status.failed + (counted + uncounted.failed.len()) as i64;
        self.failures = memory.failures.with(&succeeded, &failed);
    }

    /// Makes and deletes pods, and finds out whether the Job ends. Upstream: the middle of syncJob.
    async fn decide(&mut self) -> Result<(), client::Error> {
        self.end = self.end_known_before().or_else(|| self.failure());
        if self.end.is_none()
            && let Some(seconds) = self.spec.active_deadline_seconds.filter(|_| !self.spec.suspend)
        {
            self.come_back(self.deadline_in(seconds));
        }
        if self.spec.is_indexed() {
            self.read_indexes();
        }
        if self.end.is_some() {
            return self.delete_active().await;
        }
        if self.object.is_deleting() {
            self.end_if_complete();
            return Ok(());
        }
        let managed = self.manage().await;
        if !self.end_if_complete() {
            self.tell_suspension();
        }
        managed
    }

    /// The end that an earlier reconcile found, or the failure that the policy names.
    fn end_known_before(&self) -> Option<Condition> {
        if let Some(met) = self.status.find_true(SUCCESS_CRITERIA_MET) {
            return Some(met.clone());
        }
        if let Some(target) = self.status.find_true(FAILURE_TARGET) {
            return Some(self.condition(FAILED, &target.reason, target.message.clone()));
        }
        let failed = self.members.iter().filter(|member| member.pod.is_failed(self.spec));
        let mut verdicts = failed.map(|member| policy::judge(self.spec, member));
        let why = verdicts.find_map(|verdict| match verdict {
            Verdict::FailJob(why) => Some(why),
            _ => None,
        })?;
        Some(self.condition(FAILURE_TARGET, "PodFailurePolicy", why))
    }

    fn failure(&self) -> Option<Condition> {
        if self.failed > self.spec.backoff_limit || self.restarts_exceed_limit() {
            let why = "Job has reached the specified backoff limit";
            return Some(self.condition(FAILURE_TARGET, "BackoffLimitExceeded", why));
        }
        let deadline = self.spec.active_deadline_seconds.filter(|_| !self.spec.suspend)?;
        let why = "Job was active longer than specified deadline";
        self.deadline_in(deadline).is_zero().then(|| self.condition(FAILURE_TARGET, "DeadlineExceeded", why))
    }

    /// Where containers are restarted in place, restarts count instead of pods.
    fn restarts_exceed_limit(&self) -> bool {
        if self.spec.template.str_at(&["spec", "restartPolicy"]) != Some("OnFailure") {
            return false;
        }
        let running = self.members.iter().filter(|m| matches!(m.pod.phase, Phase::Running | Phase::Pending));
        let restarts: i64 = running.map(|member| member.pod.restarts).sum();
        restarts >= self.spec.backoff_limit.max(1)
    }

    fn deadline_in(&self, seconds: i64) -> Duration {
        // That a Job is being resumed is found out later: the time before its pause counts until then, as upstream's.
        let Some(start) = self.status.start_time else { return FAR };
        Duration::from_secs(seconds.max(0) as u64).saturating_sub(between(start, self.now))
    }

    /// Which indexes succeeded and failed, and whether the Job ends of that.
    fn read_indexes(&mut self) {
        let completions = self.spec.completions.unwrap_or_default();
        let tracked = self.members.iter().filter(|m| m.pod.is_tracked && self.spec.has_index(m.pod.index));
        let of = |member: &Member| member.pod.index.unwrap_or_default();
        self.succeeded_before = Indexes::parse(&self.status.completed_indexes, completions);
        let newly = tracked.clone().filter(|member| member.pod.phase == Phase::Succeeded).map(of);
        self.succeeded_indexes = self.succeeded_before.with(newly);
        self.succeeded = self.succeeded_indexes.total();
        if let Some(limit) = self.spec.backoff_limit_per_index {
            let known = Indexes::parse(self.status.failed_indexes.as_deref().unwrap_or_default(), completions);
            let failed = known.with(tracked.filter(|member| self.index_failed(member, limit)).map(of));
            if self.end.is_none() {
                self.end = self.too_many_indexes_failed(&failed, completions);
            }
            self.failed_indexes = Some(failed);
            self.replaced = self.find_replaced();
        }
        if self.end.is_none()
            && let Some(why) = policy::succeeds(self.spec, &self.succeeded_indexes)
        {
            self.end = Some(self.condition(SUCCESS_CRITERIA_MET, "SuccessPolicy", why));
        }
    }

    fn index_failed(&self, member: &Member, limit: i64) -> bool {
        if !member.pod.is_failed(self.spec) {
            return false;
        }
        match policy::judge(self.spec, member) {
            Verdict::FailIndex => true,
            verdict => verdict.counts() && member.pod.index_failures >= limit,
        }
    }

    fn too_many_indexes_failed(&self, failed: &Indexes, completions: i64) -> Option<Condition> {
        if self.spec.max_failed_indexes.is_some_and(|max| failed.total() > max) {
            let why = "Job has exceeded the specified maximal number of failed indexes";
            return Some(self.condition(FAILURE_TARGET, "MaxFailedIndexesExceeded", why));
        }
        let all = failed.total() > 0 && failed.total() + self.succeeded_indexes.total() >= completions;
        all.then(|| self.condition(FAILURE_TARGET, "FailedIndexes", "Job has failed indexes"))
    }

    /// Upstream: getPodsWithDelayedDeletionPerIndex.
    fn find_replaced(&self) -> BTreeMap<i64, Member> {
        let active: Vec<i64> = self.members.iter().filter(|m| m.pod.is_active()).filter_map(|m| m.pod.index).collect();
        let active = Indexes::default().with(active);
        let is_over = |index: i64| {
            let failed = self.failed_indexes.as_ref().is_some_and(|failed| failed.has(index));
            failed || self.succeeded_indexes.has(index) || active.has(index)
        };
        let mut replaced: BTreeMap<i64, Member> = BTreeMap::new();
        let candidates = self.members.iter().filter(|m| m.pod.is_tracked && self.spec.has_index(m.pod.index));
        for member in candidates.filter(|member| member.pod.is_failed(self.spec)) {
            let index = member.pod.index.unwrap_or_default();
            let later = |known: &Member| {
                known.pod.all_index_failures() <= member.pod.all_index_failures()
                    && known.pod.finished <= member.pod.finished
            };
            if !is_over(index) && replaced.get(&index).is_none_or(later) {
                replaced.insert(index, member.clone());
            }
        }
        replaced
    }

    /// Ends a Job of which enough pods have succeeded.
    fn end_if_complete(&mut self) -> bool {
        let complete = match self.spec.completions {
            // A work queue: one success means that the rest will end too.
            None => self.succeeded > 0 && self.active == 0,
            Some(completions) => self.succeeded >= completions && self.active == 0,
        };
        if complete {
            let why = "Reached expected number of succeeded pods";
            self.end = Some(self.condition(SUCCESS_CRITERIA_MET, "CompletionsReached", why));
        }
        complete
    }

    fn tell_suspension(&mut self) {
        let (status, reason, told, why) = match self.spec.suspend {
            true => ("True", "JobSuspended", "Suspended", "Job suspended"),
            false => ("False", "JobResumed", "Resumed", "Job resumed"),
        };
        if !self.status.ensure(Condition::new("Suspended", status, reason, why, self.now)) {
            return;
        }
        self.jobs.events.normal(&self.object, told, why);
        if !self.spec.suspend {
            // The deadline counts from here.
            self.status.start_time = Some(self.now);
        }
    }

    fn condition(&self, r#type: &str, reason: &str, message: impl Into<String>) -> Condition {
        Condition::new(r#type, "True", reason, message, self.now)
    }

    fn come_back(&mut self, after: Duration) {
        let after = after.min(FAR);
        self.again = Some(self.again.map_or(after, |again| again.min(after)));
    }
}

impl Controller for Jobs {
    fn name(&self) -> &'static str {
        "job-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let owners = self.jobs.clone();
        let of_pod = move |event: &Event| owners_of(event, &owners, &JOBS, "Job");
        vec![Watch::objects(self.jobs.clone()), Watch::new(self.pods.informer.clone(), of_pod)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.jobs.get(key) else {
            self.memories.lock().remove(key);
            return Ok(Requeue::No);
        };
        let View { spec, status } = serde_json::from_slice(object.body())?;
        if spec.is_managed_elsewhere() {
            return Ok(Requeue::No);
        }
        if status.is_finished() {
            self.memories.lock().remove(key);
            return Ok(Requeue::No);
        }
        if !matches!(spec.completion_mode.as_str(), "" | "NonIndexed" | "Indexed") {
            let why = "Skipped Job sync because completion mode is unknown";
            self.events.warning(&object, "UnknownCompletionMode", why);
            return Ok(Requeue::No);
        }
        let memory = self.memory(&object);
        if let Some(pause) = self.batches(ctx, &object, &memory) {
            return Ok(Requeue::After(pause));
        }
        let members = self.claim(ctx, &object, &spec).await?;
        let mut sync = Sync::new(self, ctx, object.clone(), &spec, status, members, &memory);
        let managed = sync.decide().await;
        sync.track().await?;
        let wrote = sync.object.revision() != object.revision();
        let mut memories = self.memories.lock();
        let memory = memories.entry(key.clone()).or_default();
        if wrote {
            memory.written = Some((object.generation(), ctx.env().monotonic()));
        }
        let mut again = sync.again;
        match managed {
            Ok(()) => memory.failed_requests = 0,
            Err(error) => {
                tracing::debug!(job = %key, error = &error as &dyn std::error::Error, "pods could not be made or deleted");
                memory.failed_requests += 1;
                let pause = backoff::of_requests(memory.failed_requests);
                again = Some(again.map_or(pause, |again| again.min(pause)));
            }
        }
        Ok(again.map_or(Requeue::No, Requeue::After))
    }
}
