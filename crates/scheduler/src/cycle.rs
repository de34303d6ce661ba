//! One attempt to find a node for one pod.

pub(crate) mod bind;
mod evaluate;
pub(crate) mod fail;

use std::sync::Arc;

use client::EventType;

use crate::Shared;
use crate::diagnosis::Diagnosis;
use crate::extender::Extender;
use crate::framework::{Candidate, Cycle, Failed, Point, PostFiltered, Profile, Rejection, Reservation};
use crate::node::NodeInfo;
use crate::outbox::Letter;
use crate::plugins::default_preemption;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;

pub use evaluate::{Evaluated, Problem, Search, evaluate};

/// What attempts carry over from one to the next.
#[derive(Default)]
pub(crate) struct Engine {
    pub snapshot: Snapshot,
    pub search: Search,
}

/// Why there is no node for the pod.
pub(crate) enum Failure {
    /// No node suits.
    Unschedulable { message: String, plugins: Vec<&'static str>, after: PostFiltered },
    /// Something went wrong.
    Error(String),
}

/// A node, and what was taken there for the pod.
pub(crate) struct Chosen {
    pub node: String,
    pub reservations: Vec<Box<dyn Reservation>>,
}

/// Finds a node and begins to bind, or records why there is none.
pub(crate) async fn schedule(shared: &Arc<Shared>, engine: &mut Engine, pod: Arc<PodInfo>) {
    let Some(profile) = shared.profiles.get(&pod.scheduler).cloned() else { return shared.queue.remove(&pod.uid) };
    if pod.terminating {
        let message = format!("skip schedule deleting pod: {}", pod.key);
        shared.recorder(&pod).event(pod.reference(), EventType::Warning, "FailedScheduling", message);
        return shared.queue.remove(&pod.uid);
    }
    if shared.cache.lock().placed(&pod.uid).is_some() {
        return shared.queue.remove(&pod.uid);
    }
    let began = shared.env.monotonic();
    let changes = shared.cache.lock().changes();
    engine.snapshot.update(changes);
    let outcome = attempt(shared, engine, &profile, &pod).await;
    shared.attempts.record(shared.env.monotonic().duration_since(began));
    match outcome {
        Ok(chosen) => shared.outbox.post(pod, Letter::Bind(profile, chosen)),
        Err(failure) => fail::give_up(shared, pod, failure),
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    engine: &mut Engine,
    profile: &Arc<Profile>,
    pod: &Arc<PodInfo>,
) -> Result<Chosen, Failure> {
    if engine.snapshot.len() == 0 {
        let message = "no nodes available to schedule pods".to_owned();
        // Whoever is helped by a node would do.
        let after = PostFiltered { nominated: Some(String::new()), ..PostFiltered::default() };
        return Err(Failure::Unschedulable { message, plugins: vec!["NodeName"], after });
    }
    let Engine { snapshot, search } = engine;
    let cycle = Cycle { pod, snapshot, cluster: &shared.cluster };
    search.default_percentage = shared.percentage;
    let random = |n| shared.env.random_below(n);
    let promises = shared.nominator.promises();
    let evaluated = evaluate(profile, cycle, &promises, search, &shared.extenders, &random).await;
    match evaluated {
        Ok(Evaluated { node, filters, .. }) => {
            let node = snapshot.get(&node).expect("it was chosen from the snapshot");
            // What changes now is a copy only as long as somebody goes by what was before.
            drop(promises);
            reserve(shared, profile, &filters, pod, node)
        }
        Err(evaluate::Problem::Error(message)) => Err(Failure::Error(message)),
        Err(evaluate::Problem::Unsuitable { mut diagnosis, filters }) => {
            let failed = Failed {
                cycle,
                diagnosis: &diagnosis,
                filters: filters.as_ref(),
                promises: &promises,
                random: &random,
                others_agree: shared.extenders.iter().any(|extender| extender.preempts(pod)),
            };
            let mut after = profile.post_filter(&failed);
            if !after.candidates.is_empty() {
                after = agree(&shared.extenders, pod, after.candidates, snapshot).await;
            }
            diagnosis.post_filter.clone_from(&after.message);
            Err(unschedulable(*diagnosis, after))
        }
    }
}

/// Asks extenders whom the pod may push aside. Upstream: preemption.callExtenders.
async fn agree(
    extenders: &[Extender],
    pod: &Arc<PodInfo>,
    mut candidates: Vec<Candidate>,
    snapshot: &Snapshot,
) -> PostFiltered {
    for extender in extenders.iter().filter(|extender| extender.preempts(pod)) {
        match extender.preempt(pod, &candidates, snapshot).await {
            Ok(agreed) => candidates = agreed,
            Err(error) if extender.is_ignorable() => tracing::info!(error, "an extender that may be ignored fails"),
            Err(error) => return PostFiltered { message: format!("preemption: {error}"), ..PostFiltered::default() },
        }
        if candidates.is_empty() {
            break;
        }
    }
    default_preemption::choose(candidates)
}

fn unschedulable(diagnosis: Diagnosis, after: PostFiltered) -> Failure {
    let message = diagnosis.message();
    Failure::Unschedulable { message, plugins: diagnosis.plugins.into_iter().collect(), after }
}

/// Takes the node's resources, and what plugins take, for the pod: from here on they are gone for the next one.
fn reserve(
    shared: &Shared,
    profile: &Profile,
    filters: &crate::framework::Filters<'_>,
    pod: &Arc<PodInfo>,
    node: &NodeInfo,
) -> Result<Chosen, Failure> {
    shared.cache.lock().assume(pod.clone(), node.name());
    shared.nominator.remove(&pod.uid);
    let reserves = !profile.at(Point::Reserve).is_empty();
    match if reserves { filters.reserve(node) } else { Ok(Vec::new()) } {
        Ok(reservations) => Ok(Chosen { node: node.name().to_owned(), reservations }),
        Err((reservations, rejection)) => {
            reservations.iter().rev().for_each(|reservation| reservation.undo(pod));
            shared.cache.lock().forget(&pod.uid);
            Err(refused(node, rejection))
        }
    }
}

/// The one node that was chosen doesn't suit after all.
fn refused(node: &NodeInfo, rejection: Rejection) -> Failure {
    if rejection.finality == crate::framework::Finality::Error {
        return Failure::Error(format!("running Reserve plugin {:?}: {}", rejection.plugin, rejection.message()));
    }
    let mut diagnosis = Diagnosis { nodes: 1, ..Diagnosis::default() };
    diagnosis.plugins.insert(rejection.plugin);
    diagnosis.rejections.insert(node.slot, rejection);
    unschedulable(diagnosis, PostFiltered { nominated: Some(String::new()), ..PostFiltered::default() })
}
