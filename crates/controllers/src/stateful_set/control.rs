//! Making a set's pods what they should be: creations in order, deletions in reverse, then the rollout.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{DeleteOptions, resources};
use futures_util::future::join_all;

use super::revisions::Chosen;
use super::status::Status;
use super::view::{Pod, Replica, StatefulSet};
use super::{Failure, Sync};
use crate::meta::scaled;

/// The first batch of a parallel set; each later one is twice as large, as long as all succeed.
const FIRST_BATCH: usize = 1;
/// No batch is larger, and no more pods are made at a time.
const MAX_BATCH: usize = 500;

/// Whether an ordered set may go on with its next pod.
#[derive(PartialEq)]
enum Step {
    Next,
    Wait,
}

impl Sync<'_> {
    /// Brings the pods nearer to what they should be, and counts them afterwards.
    pub(super) async fn manage(&self, pods: Vec<Replica>, chosen: &Chosen) -> (Status, Result<(), Failure>) {
        if self.set.object.is_deleting() {
            return (self.status_of(&pods, chosen), Ok(()));
        }
        let (replicas, condemned) = self.sort_out(pods, chosen);
        let established = self.establish(&replicas, &condemned).await;
        let mut status = self.status_of(replicas.iter().chain(&condemned), chosen);
        let result = match established {
            Ok(Step::Next) if replicas.len() as i64 == self.set.replicas() => {
                self.roll(&replicas, chosen, &mut status).await
            }
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        (status, result)
    }

    /// The pods of the set's ordinals in order, with the next missing ones made up, and those beyond, last first.
    fn sort_out(&self, pods: Vec<Replica>, chosen: &Chosen) -> (Vec<Replica>, Vec<Replica>) {
        let set = self.set;
        let (mut known, mut condemned) = (BTreeMap::new(), Vec::new());
        for pod in pods {
            if !set.has_place(pod.ordinal) {
                condemned.extend((pod.ordinal >= 0).then_some(pod));
            } else if pod.object().is_some_and(|object| object.name() == set.pod_name(pod.ordinal)) {
                known.insert(pod.ordinal, pod);
            } else {
                known.entry(pod.ordinal).or_insert(pod); // one like `web-007`
            }
        }
        condemned.sort_by_key(|pod| std::cmp::Reverse(pod.ordinal));
        // A set may ask for more pods than anybody has memory for.
        let mut room = if set.is_ordered() { 1 } else { MAX_BATCH };
        let (mut replicas, mut next) = (Vec::new(), set.start());
        let end = set.start() + set.replicas();
        for (ordinal, pod) in known.into_iter().map(|(ordinal, pod)| (ordinal, Some(pod))).chain([(end, None)]) {
            let missing = (next..ordinal).take(room);
            replicas.extend(missing.map(|ordinal| self.missing(ordinal, chosen)));
            room = room.saturating_sub((ordinal - next).try_into().unwrap_or(usize::MAX));
            next = ordinal + 1;
            replicas.extend(pod);
        }
        (replicas, condemned)
    }

    /// A pod that is to be made: below the partition by the current revision.
    fn missing(&self, ordinal: i64, chosen: &Chosen) -> Replica {
        let set = self.set;
        let strategy = &set.spec.update_strategy;
        let is_current = match &strategy.rolling_update {
            Some(rolling) => ordinal < set.start() + rolling.partition,
            None => strategy.r#type == "RollingUpdate" && ordinal < set.start() + set.status.current_replicas,
        };
        let revision = if is_current { &chosen.current } else { &chosen.update };
        let template = revision.template(&set.spec.template);
        let pod = set.new_pod(&template, revision.name(), ordinal);
        Replica { ordinal, revision: revision.name().to_owned(), pod: Pod::Missing(pod) }
    }

    /// Every ordinal has its pod and nothing is beyond. An ordered set waits for each pod before the next.
    async fn establish(&self, replicas: &[Replica], condemned: &[Replica]) -> Result<Step, Failure> {
        let min_ready = self.set.min_ready();
        let mut from_lowest = replicas.iter().chain(condemned.iter().rev());
        let first_unavailable = from_lowest.find(|pod| pod.is_unavailable(min_ready, self.now));
        if self.for_all(replicas, |pod| self.keep(pod)).await? == Step::Wait {
            return Ok(Step::Wait);
        }
        if self.for_all(condemned, |pod| self.release_claims(pod)).await? == Step::Wait {
            return Ok(Step::Wait);
        }
        self.for_all(condemned, |pod| {
            let is_first = first_unavailable.is_some_and(|first| std::ptr::eq(first, pod));
            self.remove(pod, is_first)
        })
        .await
    }

    async fn for_all<'p, F>(&self, pods: &'p [Replica], each: impl Fn(&'p Replica) -> F) -> Result<Step, Failure>
    where
        F: Future<Output = Result<Step, Failure>>,
    {
        if self.set.is_ordered() {
            for pod in pods {
                if each(pod).await? == Step::Wait {
                    return Ok(Step::Wait);
                }
            }
            return Ok(Step::Next);
        }
        let (mut left, mut batch) = (pods, FIRST_BATCH);
        while !left.is_empty() {
            let (now, later) = left.split_at(batch.min(left.len()));
            let results = join_all(now.iter().map(&each)).await;
            Failure::all(results.into_iter().filter_map(Result::err).collect())?;
            (left, batch) = (later, (2 * batch).min(MAX_BATCH));
        }
        Ok(Step::Next)
    }

    /// Sees to it that an ordinal's pod is there and is its own.
    async fn keep(&self, pod: &Replica) -> Result<Step, Failure> {
        let ordered = self.set.is_ordered();
        if pod.is_ended() {
            // Its successor is made once it is gone.
            if !pod.is_terminating() {
                self.delete(pod).await?;
            }
            return Ok(Step::Wait);
        }
        if !pod.is_created() {
            if self.has_stale_claim(pod) {
                return Ok(Step::Wait);
            }
            if let Pod::Missing(body) = &pod.pod {
                self.create(pod, body).await?;
            }
            if ordered {
                return Ok(Step::Wait);
            }
        }
        if pod.is_pending() {
            self.create_claims(pod.ordinal).await?;
            if let Err(failure) = self.settle_claims(pod).await {
                self.tell("Update", &pod_name(self.set, pod), Some(&failure));
                return Err(failure);
            }
        }
        let waits =
            pod.is_terminating() || !pod.is_running_and_ready() || !pod.is_available(self.set.min_ready(), self.now);
        if ordered && waits {
            return Ok(Step::Wait);
        }
        let (identity, storage) = (self.set.identity_matches(pod), self.set.storage_matches(pod));
        if identity && storage && self.claims_are_right(pod) {
            return Ok(Step::Next);
        }
        self.mend(pod, identity, storage).await?;
        Ok(Step::Next)
    }

    async fn create(&self, pod: &Replica, body: &Value) -> Result<(), Failure> {
        let name = pod_name(self.set, pod);
        let claims = self.create_claims(pod.ordinal).await;
        if let Err(failure) = claims {
            self.tell("Create", &name, Some(&failure));
            return Err(failure);
        }
        let created = match self.client.create(&resources::PODS, body).await {
            Err(error) if error.is_already_exists() => return Err(error.into()),
            result => result.map(drop).map_err(Failure::from),
        };
        if let Err(failure) = self.settle_claims(pod).await {
            self.tell("Update", &name, Some(&failure));
            return Err(failure);
        }
        self.tell("Create", &name, created.as_ref().err());
        created
    }

    /// Puts the pod's labels, volumes and claims right.
    async fn mend(&self, pod: &Replica, identity: bool, storage: bool) -> Result<(), Failure> {
        let Some(object) = pod.object() else { return Ok(()) };
        let mended = self.try_mend(pod, object, identity, storage).await;
        // Somebody wrote the pod meanwhile: the next attempt sees it as it is.
        if !matches!(&mended, Err(Failure::Client(error)) if error.is_conflict()) {
            self.tell("Update", object.name(), mended.as_ref().err());
        }
        mended
    }

    async fn try_mend(
        &self,
        pod: &Replica,
        object: &Arc<Object>,
        identity: bool,
        storage: bool,
    ) -> Result<(), Failure> {
        if !storage {
            self.create_claims(pod.ordinal).await?;
        }
        self.own_claims(pod).await?;
        if identity && storage {
            return Ok(());
        }
        // All of it, at the revision that was judged: what the informer has of it may be less.
        let mut value = self.client.get(&resources::PODS, object.key()).await?.to_value();
        value.set(&["metadata", "uid"], object.uid());
        value.set(&["metadata", "resourceVersion"], object.revision().to_string());
        if !identity {
            self.set.set_identity(&mut value, pod.ordinal);
        }
        if !storage {
            self.set.set_storage(&mut value, pod.ordinal);
        }
        self.client.update(&resources::PODS, &value).await?;
        Ok(())
    }

    /// Hands a condemned pod's claims to it if they are to go with it.
    async fn release_claims(&self, pod: &Replica) -> Result<Step, Failure> {
        self.own_claims(pod).await?;
        Ok(Step::Next)
    }

    /// Deletes a condemned pod. An ordered set waits until its successors are gone and its predecessors well.
    async fn remove(&self, pod: &Replica, is_first_unavailable: bool) -> Result<Step, Failure> {
        let ordered = self.set.is_ordered();
        if pod.is_terminating() {
            return Ok(if ordered { Step::Wait } else { Step::Next });
        }
        let well = pod.is_running_and_ready() && pod.is_available(self.set.min_ready(), self.now);
        if ordered && !well && !is_first_unavailable {
            return Ok(Step::Wait);
        }
        tracing::debug!(stateful_set = %self.set.object.key(), pod = pod_name(self.set, pod), "scaled down");
        self.delete(pod).await?;
        Ok(Step::Wait)
    }

    /// Deletes pods of other revisions than the newest, the last first.
    async fn roll(&self, replicas: &[Replica], chosen: &Chosen, status: &mut Status) -> Result<(), Failure> {
        let strategy = &self.set.spec.update_strategy;
        if strategy.r#type == "OnDelete" {
            return Ok(());
        }
        // Every ordinal has its pod by now.
        let rolling = strategy.rolling_update.as_ref();
        let partition = rolling.map_or(0, |rolling| rolling.partition.max(0)) as usize;
        let candidates = replicas.get(partition..).unwrap_or_default().iter().rev();
        let is_old = |pod: &Replica| pod.revision != chosen.update.name() && !pod.is_terminating();
        let is_unavailable = |pod: &Replica| pod.is_unavailable(self.set.min_ready(), self.now);
        let condemned: Vec<&Replica> = if self.max_unavailable {
            let limit = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
            let limit = limit.map_or(1, |limit| at_most(limit, self.set.replicas()));
            let unavailable = replicas.iter().filter(|pod| is_unavailable(pod)).count();
            candidates.filter(|pod| is_old(pod)).take(limit.saturating_sub(unavailable)).collect()
        } else {
            // One at a time, once all after it are available.
            let mut candidates = candidates.skip_while(|pod| !is_old(pod) && !is_unavailable(pod));
            candidates.next().filter(|pod| is_old(pod)).into_iter().collect()
        };
        for pod in condemned {
            self.delete(pod).await?;
            status.current -= 1;
        }
        Ok(())
    }

    async fn delete(&self, pod: &Replica) -> Result<(), Failure> {
        let Some(object) = pod.object() else { return Ok(()) };
        let deleted = self.client.delete(&resources::PODS, object.key(), &DeleteOptions::uid(object.uid())).await;
        let result = match deleted {
            Err(error) if error.is_not_found() => return Ok(()),
            result => result.map(drop).map_err(Failure::from),
        };
        self.tell("Delete", object.name(), result.as_ref().err());
        result
    }

    /// Tells of something done to a pod, or that it failed.
    fn tell(&self, verb: &'static str, pod: &str, failure: Option<&Failure>) {
        let set = self.set.name();
        let (done, failed) = match verb {
            "Create" => ("SuccessfulCreate", "FailedCreate"),
            "Update" => ("SuccessfulUpdate", "FailedUpdate"),
            _ => ("SuccessfulDelete", "FailedDelete"),
        };
        match failure {
            None => {
                self.events.normal(&self.set.object, done, format!("{verb} Pod {pod} in StatefulSet {set} successful"));
            }
            Some(failure) => {
                let message = format!("{verb} Pod {pod} in StatefulSet {set} failed error: {failure}");
                self.events.warning(&self.set.object, failed, message);
            }
        }
    }
}

fn pod_name(set: &StatefulSet, pod: &Replica) -> String {
    set.pod_name(pod.ordinal)
}

/// How many pods may be unavailable: a number, or a percentage rounded down; at least one.
fn at_most(limit: &Value, replicas: i64) -> usize {
    scaled(limit, replicas, f64::floor).max(1) as usize
}
