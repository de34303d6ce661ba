//! A CronJob makes a Job whenever its schedule says so. Upstream: pkg/controller/cronjob.
//!
//! A start's name is made from its time, so that no start happens twice, whoever was interrupted. Nothing is polled: after each
//! look the CronJob comes again at its next start.

mod schedule;
mod view;

use std::sync::{Arc, OnceLock};

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Client, Controller, DeleteOptions, Error, Event, EventRecorder, IgnoreNotFound, Informer, Propagation,
    ReconcileContext, ReconcileError, Requeue, Resource, Watch, Workqueue,
};
use env::Env;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use rules::cron::{Schedule, time_zone, zone_of};

use crate::Setup;
use crate::job::{JOBS, view as job};
use crate::meta::{CONTROLLER_INDEX, by_controller, controller_reference, created, write_status};

use schedule::Plan;
use view::{Reference, Spec, Status, View};

const CRON_JOBS: Resource = Resource::namespaced("batch", "v1", "cronjobs");
const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

pub(crate) struct CronJobs {
    cron_jobs: Informer,
    jobs: Informer,
    events: EventRecorder,
    queue: Arc<OnceLock<Workqueue<ObjectKey>>>,
    env: Env,
}

/// A Job that the CronJob made, with its end.
struct Child {
    object: Arc<Object>,
    outcome: job::Outcome,
}

/// A CronJob on its way through one reconcile.
struct Sync<'a> {
    client: &'a Client,
    events: &'a EventRecorder,
    object: &'a Arc<Object>,
    spec: &'a Spec,
    status: Status,
    children: Vec<Child>,
    now: Timestamp,
}

impl CronJobs {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let jobs = setup.informers.of(&JOBS);
        jobs.index(CONTROLLER_INDEX, by_controller);
        CronJobs {
            cron_jobs: setup.informers.of(&CRON_JOBS),
            jobs,
            events: setup.recorder("cronjob-controller", "cronjob-controller"),
            queue: Arc::default(),
            env: setup.client.env().clone(),
        }
    }
}

impl Child {
    fn ended(&self) -> Option<&str> {
        job::finished(&self.outcome.conditions).map(|condition| condition.r#type.as_str())
    }
}

impl Sync<'_> {
    /// Deletes the oldest Jobs that ended, beyond those that are to be kept.
    async fn limit_history(&mut self) {
        let limits =
            [("Complete", self.spec.successful_jobs_history_limit), ("Failed", self.spec.failed_jobs_history_limit)];
        for (end, limit) in limits {
            let Some(limit) = limit else { continue };
            let mut ended: Vec<&Child> = self.children.iter().filter(|child| child.ended() == Some(end)).collect();
            // Those that never began come last.
            let order = |child: &&Child| {
                let start = child.outcome.start_time;
                (start.is_none(), start, child.object.name().to_owned())
            };
            ended.sort_by_key(order);
            let surplus = ended.len().saturating_sub(limit);
            let surplus: Vec<Arc<Object>> = ended.into_iter().take(surplus).map(|child| child.object.clone()).collect();
            for job in surplus {
                self.delete(&job).await;
            }
        }
    }

    /// Brings the status up to date and starts what is due. Upstream: syncCronJob.
    async fn run(&mut self) -> Result<Requeue, Error> {
        self.note_ends();
        self.note_missing().await?;
        if self.object.is_deleting() {
            return Ok(Requeue::No);
        }
        let Some(own_zone) = own_zone(self.spec) else {
            let name = self.spec.time_zone.as_deref().unwrap_or_default();
            self.warn("UnknownTimeZone", format!("invalid timeZone: {name:?}: unknown time zone {name}"));
            return Ok(Requeue::No);
        };
        let zone = zone_of(&self.spec.schedule).unwrap_or_else(|| own_zone.clone());
        if self.spec.suspend {
            return Ok(Requeue::No);
        }
        if self.spec.schedule.contains("TZ") {
            let schedule = &self.spec.schedule;
            let why = format!(
                "CRON_TZ or TZ used in schedule {schedule:?} is not officially supported, see \
                 https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details"
            );
            self.warn("UnsupportedSchedule", why);
        }
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(error) => {
                self.warn("UnparseableSchedule", format!("unparseable schedule: {:?} : {error}", self.spec.schedule));
                return Ok(Requeue::No);
            }
        };
        let plan = plan_of(self.object, self.spec, &self.status, &schedule, &zone);
        let due = match plan.due(self.now) {
            Ok(due) => due,
            Err(error) => {
                self.warn("InvalidSchedule", format!("invalid schedule: {} : {error}", self.spec.schedule));
                return Ok(Requeue::No);
            }
        };
        if let Some(time) = due.latest {
            if due.is_many() {
                let why =
                    "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                self.warn("TooManyMissedTimes", why.to_owned());
            }
            if self.may_start(time) {
                self.replace_active().await?;
                self.start(time, &own_zone).await?;
            }
        }
        let plan = plan_of(self.object, self.spec, &self.status, &schedule, &zone);
        Ok(plan.next_in(self.now).map_or(Requeue::No, Requeue::After))
    }

    /// Takes Jobs that ended off the list of active ones.
    fn note_ends(&mut self) {
        for child in &self.children {
            let (job, known) = (&child.object, self.status.is_active(child.object.uid()));
            let Some(end) = child.ended() else {
                if !known {
                    let why = format!("Saw a job that the controller did not create or forgot: {}", job.name());
                    self.events.warning(self.object, "UnexpectedJob", why);
                }
                continue;
            };
            if known {
                self.status.forget(job.uid());
                let what = format!("Saw completed job: {}, condition: {end}", job.name());
                self.events.normal(self.object, "SawCompletedJob", what);
            }
            if end == "Complete" {
                // Later ones count; a missing time is before all others.
                self.status.last_successful_time = self.status.last_successful_time.max(child.outcome.completion_time);
            }
        }
    }

    /// Takes Jobs that are gone off the list of active ones.
    async fn note_missing(&mut self) -> Result<(), Error> {
        for active in self.status.active.clone() {
            if self.children.iter().any(|child| child.object.uid() == active.uid) {
                continue;
            }
            let key = ObjectKey::new(&*active.namespace, &*active.name);
            if self.client.find(&JOBS, &key).await?.is_none() {
                self.events.normal(self.object, "MissingJob", format!("Active job went missing: {}", active.name));
                self.status.forget(&active.uid);
            }
        }
        Ok(())
    }

    /// Whether the start that is due may be made, and was not made already.
    fn may_start(&self, time: Timestamp) -> bool {
        if let Some(deadline) = self.spec.starting_deadline_seconds
            && time.checked_add(SignedDuration::from_secs(deadline)).is_ok_and(|end| end < self.now)
        {
            let shown = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            self.warn("MissSchedule", format!("Missed scheduled time to start a job: {shown}"));
            return false;
        }
        let name = self.job_name(time);
        if self.status.active.iter().any(|active| active.name == name) || self.status.last_schedule_time == Some(time) {
            return false;
        }
        if self.spec.concurrency_policy == "Forbid" && !self.status.active.is_empty() {
            let why = "Not starting job because prior execution is running and concurrency policy is Forbid";
            self.events.normal(self.object, "JobAlreadyActive", why);
            return false;
        }
        true
    }

    async fn replace_active(&mut self) -> Result<(), Error> {
        if self.spec.concurrency_policy != "Replace" {
            return Ok(());
        }
        for active in self.status.active.clone() {
            let key = ObjectKey::new(&*active.namespace, &*active.name);
            match self.client.get(&JOBS, &key).await {
                Ok(job) => {
                    if let Some(error) = self.delete(&job).await {
                        return Err(error);
                    }
                }
                Err(error) => {
                    self.warn("FailedGet", format!("Get job: {error}"));
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Deletes a Job with its pods; the error if it failed.
    async fn delete(&mut self, job: &Object) -> Option<Error> {
        let options = DeleteOptions::uid(job.uid()).propagation(Propagation::Background);
        match self.client.delete(&JOBS, job.key(), &options).await {
            Err(error) if !error.is_not_found() => {
                self.warn("FailedDelete", format!("Deleted job: {error}"));
                Some(error)
            }
            _ => {
                self.status.forget(job.uid());
                self.events.normal(self.object, "SuccessfulDelete", format!("Deleted job {}", job.name()));
                None
            }
        }
    }

    async fn start(&mut self, time: Timestamp, zone: &TimeZone) -> Result<(), Error> {
        let body = self.job(time, zone);
        let job = match self.client.create(&JOBS, &body).await {
            Ok(job) => {
                self.events.normal(self.object, "SuccessfulCreate", format!("Created job {}", job.name()));
                job
            }
            Err(error) if error.is_already_exists() => {
                let key = ObjectKey::new(self.object.namespace(), self.job_name(time));
                let job = self.client.get(&JOBS, &key).await?;
                let is_mine = job.controller().is_some_and(|owner| owner.uid == self.object.uid());
                if !is_mine || self.status.is_active(job.uid()) {
                    return Ok(());
                }
                job
            }
            Err(error) => {
                if !error.is_namespace_terminating() {
                    self.warn("FailedCreate", format!("Error creating job: {error}"));
                }
                return Err(error);
            }
        };
        self.status.active.push(Reference::to(&job));
        self.status.last_schedule_time = Some(time);
        Ok(())
    }

    fn job_name(&self, time: Timestamp) -> String {
        format!("{}-{}", self.object.name(), time.as_second() / 60)
    }

    /// The Job of the start at `time`, which it tells in the CronJob's zone, whatever zone the schedule names.
    fn job(&self, time: Timestamp, zone: &TimeZone) -> Value {
        let template = &self.spec.job_template;
        let mut job = Value::object();
        job.set(&["apiVersion"], "batch/v1");
        job.set(&["kind"], "Job");
        job.set(&["metadata", "name"], self.job_name(time));
        job.set(&["metadata", "namespace"], self.object.namespace());
        for field in ["labels", "annotations"] {
            if let Some(value) = template.at(&["metadata", field]) {
                job.set(&["metadata", field], value);
            }
        }
        job.set(&["metadata", "annotations", SCHEDULED_AT], shown_in(time, zone));
        job.set(&["metadata", "ownerReferences"], vec![controller_reference(self.object)]);
        if let Some(spec) = template.get("spec") {
            job.set(&["spec"], spec);
        }
        job
    }

    fn warn(&self, reason: &'static str, why: String) {
        self.events.warning(self.object, reason, why);
    }
}

fn plan_of<'a>(object: &Object, spec: &Spec, status: &Status, schedule: &'a Schedule, zone: &'a TimeZone) -> Plan<'a> {
    Plan {
        schedule,
        zone,
        since: status.last_schedule_time.unwrap_or_else(|| created(object)),
        starting_deadline: spec.starting_deadline_seconds,
    }
}

/// The CronJob's time zone, `None` if there is no such. Without one it is UTC, as in a controller manager that runs in a container.
fn own_zone(spec: &Spec) -> Option<TimeZone> {
    time_zone(spec.time_zone.as_deref().unwrap_or_default())
}

/// RFC 3339 with the zone's offset.
fn shown_in(time: Timestamp, zone: &TimeZone) -> String {
    let shown = time.to_zoned(zone.clone());
    let format = if shown.offset().seconds() == 0 { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
    shown.strftime(format).to_string()
}

/// When a CronJob whose schedule was changed is due: starts that the new schedule would have had before are not made up for.
fn rescheduled(event: &Event, now: Timestamp) -> Option<std::time::Duration> {
    let read = |object: &Object| serde_json::from_slice::<View>(object.body()).ok();
    let (old, new) = (read(event.old()?)?, read(event.object())?);
    if (&old.spec.schedule, &old.spec.time_zone) == (&new.spec.schedule, &new.spec.time_zone) {
        return None;
    }
    let schedule = Schedule::parse(&new.spec.schedule).ok()?;
    let zone = zone_of(&new.spec.schedule).or_else(|| own_zone(&new.spec))?;
    plan_of(event.object(), &new.spec, &new.status, &schedule, &zone).next_in(now)
}

impl Controller for CronJobs {
    fn name(&self) -> &'static str {
        "cronjob-controller"
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        // Of several runs the first one's is as good: the others' controllers are new.
        let _ = self.queue.set(queue.clone());
    }

    fn watches(&self) -> Vec<Watch> {
        let (queue, env) = (self.queue.clone(), self.env.clone());
        let of_cron_job = move |event: &Event| {
            let key = event.object().key().clone();
            match (rescheduled(event, env.now()), queue.get()) {
                (Some(pause), Some(queue)) => {
                    queue.add_after(key, pause);
                    Vec::new()
                }
                _ => vec![key],
            }
        };
        vec![Watch::new(self.cron_jobs.clone(), of_cron_job), Watch::owned_by(self.jobs.clone(), "batch", "CronJob")]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.cron_jobs.get(key) else { return Ok(Requeue::No) };
        let View { spec, status } = serde_json::from_slice(object.body())?;
        let children = self.jobs.by_index(CONTROLLER_INDEX, object.uid()).into_iter();
        let mut sync = Sync {
            client: ctx.client(),
            events: &self.events,
            object: &object,
            spec: &spec,
            status,
            children: children.map(|object| Child { outcome: job::outcome(&object), object }).collect(),
            now: ctx.env().now(),
        };
        sync.limit_history().await;
        let result = sync.run().await;
        write_status(ctx.client(), &CRON_JOBS, &object, sync.status.fields()).await.ignore_not_found()?;
        Ok(result?)
    }
}
