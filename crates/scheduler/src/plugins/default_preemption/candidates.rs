//! Whom to remove from one node.

use std::sync::Arc;

use jiff::Timestamp;

use super::protects;
use crate::cluster::Budget;
use crate::framework::{Candidate, Failed, Forked, Rejection, Whom};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

impl Candidate {
    /// When the oldest of the most important victims started.
    pub fn earliest_start(&self) -> i64 {
        let highest = self.victims.iter().map(|pod| pod.priority).max().unwrap_or_default();
        let those = self.victims.iter().filter(|pod| pod.priority == highest);
        let starts = those.map(|pod| pod.started.unwrap_or(Timestamp::MAX));
        starts
            .min()
            .map_or(i64::MIN + 1, |start| start.as_nanosecond().clamp(i64::MIN as i128 + 1, i64::MAX as i128) as i64)
    }
}

/// Supposes all less important pods gone, then lets back as many as fit, those that budgets protect and important ones first.
pub fn select_victims(
    failed: &Failed<'_, '_>,
    forked: &mut Forked<'_>,
    node: &NodeInfo,
    budgets: &[Arc<Budget>],
) -> Result<Candidate, Rejection> {
    let pod = failed.cycle.pod;
    let mut potential: Vec<Arc<PodInfo>> =
        node.pods().iter().filter(|other| other.priority < pod.priority).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::unresolvable("No preemption victims found for incoming pod"));
    }
    let mut supposed = node.clone();
    while let Some(at) = supposed.pods().iter().rposition(|other| other.priority < pod.priority) {
        let other = supposed.take(at);
        forked.remove(&other, &supposed);
    }
    let promised = failed.promises.outranking(node.name(), pod);
    let answer = forked.check_with(&promised, &supposed, Whom::All);
    if let Err(rejection) = answer {
        potential.iter().for_each(|other| forked.add(other, &supposed));
        return Err(rejection);
    }
    potential.sort_by(|a, b| match (a.outranks(b), b.outranks(a)) {
        (true, _) => std::cmp::Ordering::Less,
        (_, true) => std::cmp::Ordering::Greater,
        _ => std::cmp::Ordering::Equal,
    });
    let (protected, others) = split_by_budgets(&potential, budgets);
    let both = !protected.is_empty() && !others.is_empty();
    let mut victims = Vec::new();
    let mut violations = 0;
    for (candidate, violates) in
        protected.into_iter().map(|pod| (pod, true)).chain(others.into_iter().map(|pod| (pod, false)))
    {
        supposed.put(candidate.clone());
        forked.add(&candidate, &supposed);
        if forked.check_with(&promised, &supposed, Whom::ByPods).is_err() {
            supposed.pop();
            forked.remove(&candidate, &supposed);
            victims.push(candidate);
            violations += usize::from(violates);
        }
    }
    // What was supposed here must not be for the next node.
    victims.iter().for_each(|victim| forked.add(victim, &supposed));
    if victims.is_empty() {
        return Err(Rejection::error(format!("expected at least one victim pod on node {:?}", node.name())));
    }
    if both {
        victims.sort_by(|a, b| match (a.outranks(b), b.outranks(a)) {
            (true, _) => std::cmp::Ordering::Less,
            (_, true) => std::cmp::Ordering::Greater,
            _ => std::cmp::Ordering::Equal,
        });
    }
    Ok(Candidate { node: node.name().to_owned(), victims, violations })
}

/// Those whose removal would break a budget, counting those before them, and those whose wouldn't.
fn split_by_budgets(pods: &[Arc<PodInfo>], budgets: &[Arc<Budget>]) -> (Vec<Arc<PodInfo>>, Vec<Arc<PodInfo>>) {
    let mut allowed: Vec<i32> = budgets.iter().map(|budget| budget.allowed).collect();
    pods.iter().cloned().partition(|pod| {
        let mut violates = false;
        for (budget, left) in budgets.iter().zip(&mut allowed) {
            if protects(budget, pod) {
                *left -= 1;
                violates |= *left < 0;
            }
        }
        violates
    })
}
