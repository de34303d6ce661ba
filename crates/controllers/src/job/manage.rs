//! Making and deleting pods. Upstream: manageJob, deleteActivePods, deleteJobPods.

use std::cmp::Ordering;
use std::time::Duration;

use apimachinery::{Object, Value};
use client::{DeleteOptions, Error, resources};
use futures_util::future::join_all;

use super::pod::{COMPLETION_INDEX, FINALIZER, INDEX_FAILURES, INDEX_IGNORED_FAILURES, Member};
use super::policy::{Verdict, judge};
use super::{Sync, backoff, track};
use crate::meta::cut;
use crate::replica_set::pod_from;

/// No more pods than this are made or deleted at a time.
const BURST: i64 = 500;
/// The first batch of creations; each later one is twice as large, as long as all succeed.
const FIRST_BATCH: usize = 1;
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// The longest prefix of a generated name.
const LONGEST_PREFIX: usize = 58;

impl Sync<'_> {
    /// Brings the number of active pods nearer to what it should be.
    pub(super) async fn manage(&mut self) -> Result<(), Error> {
        if self.spec.suspend {
            let surplus = self.surplus(self.active);
            return self.delete_uncounted(surplus).await;
        }
        let wanted = match self.spec.completions {
            None if self.succeeded > 0 => self.active,
            None => self.spec.parallelism,
            Some(completions) => (completions - self.succeeded).min(self.spec.parallelism).max(0),
        };
        let mut surplus = self.surplus((self.active - wanted).max(0));
        surplus.truncate(BURST as usize);
        if !surplus.is_empty() {
            return self.delete_uncounted(surplus).await;
        }
        let terminating = if self.spec.replaces_only_failed() { self.terminating } else { 0 };
        let missing = wanted - terminating - self.active;
        if missing <= 0 {
            return Ok(());
        }
        if self.spec.backoff_limit_per_index.is_none() {
            let pause = self.failures.remaining(self.now);
            if !pause.is_zero() {
                self.come_back(pause);
                return Ok(());
            }
        }
        let missing = missing.min(BURST) as usize;
        if !self.spec.is_indexed() {
            return self.create(vec![None; missing]).await;
        }
        let (now, later) = self.due(self.pending_indexes(missing));
        match later {
            Some(pause) if now.is_empty() => {
                self.come_back(pause);
                Ok(())
            }
            _ => self.create(now.into_iter().map(Some).collect()).await,
        }
    }

    /// Those of the active pods that are to go: at least so many, and all whose index is wrong or another's too.
    fn surplus(&self, at_least: i64) -> Vec<Member> {
        let active: Vec<&Member> = self.members.iter().filter(|member| member.pod.is_active()).collect();
        let (mut surplus, mut left) = (Vec::new(), active.clone());
        if self.spec.is_indexed() {
            left.clear();
            // The members are in order of their indexes.
            for same in active.chunk_by(|a, b| a.pod.index == b.pod.index) {
                let mut same = same.to_vec();
                same.sort_by(|a, b| first_to_go(a, b));
                if self.spec.has_index(same[0].pod.index) {
                    left.extend(same.pop());
                }
                surplus.extend(same);
            }
        }
        let more = usize::try_from(at_least).unwrap_or_default().saturating_sub(surplus.len());
        if more > 0 {
            left.sort_by(|a, b| first_to_go(a, b));
            surplus.extend(left.into_iter().take(more));
        }
        surplus.into_iter().cloned().collect()
    }

    /// The first indexes that have no pod yet and need one.
    fn pending_indexes(&self, count: usize) -> Vec<i64> {
        let only_failed = self.spec.replaces_only_failed();
        let held = self.members.iter().filter(|m| m.pod.is_active() || only_failed && m.pod.is_terminating());
        let mut taken = self.succeeded_indexes.with(held.filter_map(|member| member.pod.index));
        if let Some(failed) = &self.failed_indexes {
            taken = taken.union(failed);
        }
        taken.first_missing(count, self.spec.completions.unwrap_or_default())
    }

    /// The indexes whose pause is over, and otherwise the shortest pause.
    fn due(&self, indexes: Vec<i64>) -> (Vec<i64>, Option<Duration>) {
        let pause = |index: &i64| {
            self.replaced.get(index).map_or(Duration::ZERO, |last| {
                let failures = u32::try_from(last.pod.all_index_failures() + 1).unwrap_or(u32::MAX);
                backoff::remaining(failures, last.pod.finished, self.now)
            })
        };
        let shortest = indexes.iter().map(pause).filter(|pause| !pause.is_zero()).min();
        (indexes.into_iter().filter(|index| pause(index).is_zero()).collect(), shortest)
    }

    /// Makes pods, one for each item, in batches that double as long as all succeed.
    async fn create(&mut self, indexes: Vec<Option<i64>>) -> Result<(), Error> {
        let template = self.template();
        let (mut left, mut batch) = (indexes.as_slice(), FIRST_BATCH);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(|index| self.create_one(&template, *index))).await;
            self.active += results.iter().filter(|result| result.is_ok()).count() as i64;
            results.into_iter().collect::<Result<(), Error>>()?;
            left = later;
            batch *= 2;
        }
        Ok(())
    }

    async fn create_one(&self, template: &Value, index: Option<i64>) -> Result<(), Error> {
        let job = &self.object;
        let mut pod = template.clone();
        if let Some(index) = index {
            self.number(&mut pod, index);
        }
        match self.client.create(&resources::PODS, &pod).await {
            Ok(pod) => {
                self.jobs.events.normal(job, "SuccessfulCreate", format!("Created pod: {}", pod.name()));
                Ok(())
            }
            // Nothing can be created there any more, and nothing need be.
            Err(error) if error.is_namespace_terminating() => Ok(()),
            Err(error) => {
                self.jobs.events.warning(job, "FailedCreate", format!("Error creating: {error}"));
                Err(error)
            }
        }
    }

    /// The pod that the template describes, as the Job's own.
    fn template(&self) -> Value {
        let mut pod = pod_from(&self.spec.template, &self.object);
        let mut finalizers = pod.items_at(&["metadata", "finalizers"]).to_vec();
        if !finalizers.iter().any(|finalizer| finalizer.as_str() == Some(FINALIZER)) {
            finalizers.push(FINALIZER.into());
        }
        pod.set(&["metadata", "finalizers"], finalizers);
        if self.spec.is_indexed() {
            for list in ["initContainers", "containers"] {
                let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
                containers.into_iter().flatten().for_each(add_index_variable);
            }
        }
        pod
    }

    /// Makes a pod that of an index.
    fn number(&self, pod: &mut Value, index: i64) {
        let number = index.to_string();
        pod.set(&["metadata", "annotations", COMPLETION_INDEX], number.as_str());
        pod.set(&["metadata", "labels", COMPLETION_INDEX], number.as_str());
        pod.set(&["metadata", "generateName"], prefix(&self.object, index));
        pod.set(&["spec", "hostname"], format!("{}-{index}", self.object.name()));
        if self.spec.backoff_limit_per_index.is_none() {
            return;
        }
        let (mut counted, mut ignored) = (0, 0);
        if let Some(last) = self.replaced.get(&index) {
            (counted, ignored) = (last.pod.index_failures, last.pod.index_ignored_failures);
            match judge(self.spec, last) {
                Verdict::Ignore => ignored += 1,
                _ => counted += 1,
            }
        }
        pod.set(&["metadata", "annotations", INDEX_FAILURES], counted.to_string());
        if ignored > 0 {
            pod.set(&["metadata", "annotations", INDEX_IGNORED_FAILURES], ignored.to_string());
        }
    }

    /// Deletes the active pods of a Job that ends. They keep their finalizers: [`track`] counts them. As long as one could not
    /// be deleted, the Job's end is not told.
    pub(super) async fn delete_active(&mut self) -> Result<(), Error> {
        let active: Vec<Member> = self.members.iter().filter(|member| member.pod.is_active()).cloned().collect();
        let deleted = self.delete(&active, false).await;
        if self.active > 0 {
            self.end = None;
        }
        deleted
    }

    /// Deletes pods that are not to count, as nothing is wrong with them.
    async fn delete_uncounted(&mut self, pods: Vec<Member>) -> Result<(), Error> {
        self.delete(&pods, true).await
    }

    async fn delete(&mut self, pods: &[Member], untrack: bool) -> Result<(), Error> {
        let results = join_all(pods.iter().map(|member| self.delete_one(member, untrack))).await;
        for (member, _) in pods.iter().zip(&results).filter(|(_, result)| result.is_ok()) {
            self.active -= 1;
            self.terminating += 1;
            self.ready -= i64::from(member.pod.is_ready);
        }
        results.into_iter().collect()
    }

    async fn delete_one(&self, member: &Member, untrack: bool) -> Result<(), Error> {
        let (job, pod) = (&self.object, &member.object);
        if untrack && member.pod.is_tracked {
            track::remove_finalizer(self.client, pod).await?;
        }
        match self.client.delete(&resources::PODS, pod.key(), &DeleteOptions::uid(pod.uid())).await {
            Ok(_) => {
                self.jobs.events.normal(job, "SuccessfulDelete", format!("Deleted pod: {}", pod.name()));
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => {
                self.jobs.events.warning(job, "FailedDelete", format!("Error deleting: {error}"));
                Err(error)
            }
        }
    }
}

/// Containers learn their index by a variable.
fn add_index_variable(container: &mut Value) {
    let mut variables = container.items_at(&["env"]).to_vec();
    if variables.iter().any(|variable| variable.str_at(&["name"]) == Some(INDEX_VARIABLE)) {
        return;
    }
    let mut variable = Value::object();
    variable.set(&["name"], INDEX_VARIABLE);
    variable.set(&["valueFrom", "fieldRef", "fieldPath"], format!("metadata.labels['{COMPLETION_INDEX}']"));
    variables.push(variable);
    container.set(&["env"], variables);
}

/// What the name of an index's pod begins with.
fn prefix(job: &Object, index: i64) -> String {
    let suffix = format!("-{index}-");
    format!("{}{suffix}", cut(job.name(), LONGEST_PREFIX - suffix.len()))
}

/// The order in which pods go when there are too many: those that have come least far first. Upstream: ActivePods.
fn first_to_go(a: &Member, b: &Member) -> Ordering {
    let (a, b) = (&a.pod, &b.pod);
    // Who has been ready, or there, for the shorter time; those without a time before all others.
    let ready = |pod: &super::pod::JobPod| pod.is_ready.then_some(pod.ready_since).flatten();
    a.is_assigned
        .cmp(&b.is_assigned)
        .then(a.phase.cmp(&b.phase))
        .then(a.is_ready.cmp(&b.is_ready))
        .then(ready(b).cmp(&ready(a)))
        .then(b.most_restarts.cmp(&a.most_restarts))
        .then(b.created.cmp(&a.created))
}
