//! Makes room for a pod by removing less important ones.
//!
//! What to remove is worked out here; removing them goes on beside the next attempts ([`Preempting`]).

mod candidates;

use std::collections::HashSet;
use std::sync::Arc;

use apimachinery::Selector;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::diagnosis::{Diagnosis, Rejections};
use crate::framework::{Candidate, ClusterEvent, Failed, Finality, Plugin, PostFiltered, Preemption, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use candidates::select_victims;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    min_candidate_nodes_percentage: usize,
    min_candidate_nodes_absolute: usize,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            api_version: String::new(),
            kind: String::new(),
            min_candidate_nodes_percentage: 10,
            min_candidate_nodes_absolute: 100,
        }
    }
}

/// The pods for which others are being removed right now.
#[derive(Debug, Default)]
pub struct Preempting(Mutex<HashSet<String>>);

impl Preempting {
    pub fn begin(&self, uid: &str) {
        self.0.lock().insert(uid.to_owned());
    }

    pub fn end(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

pub struct DefaultPreemption {
    percentage: usize,
    absolute: usize,
    preempting: Arc<Preempting>,
}

impl DefaultPreemption {
    pub fn new(args: Args, preempting: Arc<Preempting>) -> Result<DefaultPreemption, String> {
        let (percentage, absolute) = (args.min_candidate_nodes_percentage, args.min_candidate_nodes_absolute);
        if percentage > 100 {
            return Err(format!(
                "minCandidateNodesPercentage: Invalid value: {percentage}: not in valid range [0, 100]"
            ));
        }
        if percentage == 0 && absolute == 0 {
            return Err("minCandidateNodesPercentage, minCandidateNodesAbsolute: cannot both be zero".into());
        }
        Ok(DefaultPreemption { percentage, absolute, preempting })
    }

    fn preempt(&self, failed: &Failed<'_, '_>) -> PostFiltered {
        if let Some(reason) = not_eligible(failed) {
            return PostFiltered { message: reason.into(), ..PostFiltered::default() };
        }
        let nodes: Vec<&NodeInfo> = failed.cycle.snapshot.nodes().collect();
        let helpful = |node: &&NodeInfo| failed.diagnosis.finality(node.slot) == Finality::Unschedulable;
        let possible: Vec<&NodeInfo> = nodes.iter().copied().filter(helpful).collect();
        let mut unhelpful = Diagnosis { nodes: nodes.len(), ..Diagnosis::default() };
        let candidates = match failed.filters {
            Some(filters) if !possible.is_empty() => {
                self.dry_run(failed, filters, &possible, &mut unhelpful.rejections)
            }
            _ => Vec::new(),
        };
        if failed.others_agree && !candidates.is_empty() {
            return PostFiltered { candidates, last: true, ..PostFiltered::default() };
        }
        match best(candidates) {
            Some(candidate) => make_room(candidate),
            None => {
                unhelpful.absent = Some(Rejection::unresolvable("Preemption is not helpful for scheduling"));
                PostFiltered { nominated: Some(String::new()), message: unhelpful.message(), ..PostFiltered::default() }
            }
        }
    }

    /// Tries nodes from a random one on, until there are enough that break no budget to choose from.
    fn dry_run<'a>(
        &self,
        failed: &Failed<'a, '_>,
        filters: &crate::framework::Filters<'a>,
        possible: &[&NodeInfo],
        rejections: &mut Rejections,
    ) -> Vec<Candidate> {
        let budgets = failed.cycle.cluster.budgets.list(|_, _| true);
        let enough = (possible.len() * self.percentage / 100).max(self.absolute).min(possible.len());
        let offset = (failed.random)(possible.len() as u64) as usize;
        let mut forked = filters.fork();
        let (mut harmless, mut violating) = (Vec::new(), Vec::new());
        for i in 0..possible.len() {
            let node = possible[(offset + i) % possible.len()];
            match select_victims(failed, &mut forked, node, &budgets) {
                Ok(candidate) if candidate.violations == 0 => harmless.push(candidate),
                Ok(candidate) => violating.push(candidate),
                Err(rejection) => rejections.insert(node.slot, rejection),
            }
            if !harmless.is_empty() && harmless.len() + violating.len() >= enough {
                break;
            }
        }
        harmless.extend(violating);
        harmless
    }
}

/// Takes the best candidate of those that everybody agreed to.
pub(crate) fn choose(candidates: Vec<Candidate>) -> PostFiltered {
    best(candidates).map_or_else(
        || PostFiltered { message: "preemption: no candidate node for preemption".into(), ..PostFiltered::default() },
        make_room,
    )
}

fn make_room(candidate: Candidate) -> PostFiltered {
    PostFiltered {
        nominated: Some(candidate.node.clone()),
        work: Some(Preemption { node: candidate.node, victims: candidate.victims }),
        last: true,
        ..PostFiltered::default()
    }
}

/// Why the pod may not push others aside.
fn not_eligible(failed: &Failed<'_, '_>) -> Option<&'static str> {
    let pod = failed.cycle.pod;
    if !pod.preempts {
        return Some("not eligible due to preemptionPolicy=Never.");
    }
    let node = failed.cycle.snapshot.get(&pod.nominated)?;
    if failed.diagnosis.finality(node.slot) == Finality::Unresolvable {
        return None;
    }
    let ending = |other: &Arc<PodInfo>| other.priority < pod.priority && other.terminating && other.preempted;
    node.pods().iter().any(ending).then_some("not eligible due to a terminating pod on the nominated node.")
}

/// The candidate whose victims are missed least. Upstream: preemption.pickOneNodeForPreemption.
fn best(mut candidates: Vec<Candidate>) -> Option<Candidate> {
    type Cost = fn(&Candidate) -> i64;
    let costs: [Cost; 5] = [
        |c| c.violations as i64,
        |c| c.victims.first().map_or(i64::MIN, |pod| i64::from(pod.priority)),
        |c| c.victims.iter().map(|pod| i64::from(pod.priority) + i64::from(i32::MAX) + 1).sum(),
        |c| c.victims.len() as i64,
        |c| -c.earliest_start(),
    ];
    for cost in costs {
        let least = candidates.iter().map(cost).min()?;
        candidates.retain(|candidate| cost(candidate) == least);
    }
    candidates.into_iter().next()
}

impl Plugin for DefaultPreemption {
    fn name(&self) -> &'static str {
        "DefaultPreemption"
    }

    fn pre_enqueue(&self, pod: &PodInfo) -> Result<(), String> {
        if self.preempting.0.lock().contains(&pod.uid) {
            return Err("waiting for the preemption for this pod to be finished".into());
        }
        Ok(())
    }

    fn post_filter(&self, failed: &Failed<'_, '_>) -> Option<PostFiltered> {
        let mut answer = self.preempt(failed);
        if !answer.message.is_empty() {
            answer.message = format!("preemption: {}", answer.message);
        }
        Some(answer)
    }

    fn helps(&self, _: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        matches!(event, ClusterEvent::Pod(change) if change.is_removed())
    }
}

/// Whether a budget is about the pod.
fn protects(budget: &crate::cluster::Budget, pod: &PodInfo) -> bool {
    let selector: &Selector = &budget.selector;
    budget.namespace == pod.key.namespace
        && !pod.labels.is_empty()
        && !selector.is_everything()
        && rules::selects(selector, &pod.labels)
        && !budget.disrupted.contains(&pod.key.name)
}

#[cfg(test)]
mod tests;
