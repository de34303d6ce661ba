//! From a pod to its best node, or to why there is none.

use std::collections::BTreeSet;

use crate::diagnosis::Diagnosis;
use crate::extender::Extender;
use crate::framework::{Cycle, Filters, Finality, Forked, Point, Profile, Whom};
use crate::node::NodeInfo;
use crate::nominator::Promises;

/// At least so many nodes are looked at, and at least this percentage of all.
const MIN_NODES: usize = 100;
const MIN_PERCENTAGE: usize = 5;

/// How nodes are searched.
#[derive(Default)]
pub struct Search {
    /// Where the next search begins.
    start: usize,
    /// Of profiles that don't say; 0: by the size of the cluster.
    pub default_percentage: u32,
}

/// The best node.
pub struct Evaluated<'a> {
    pub node: String,
    pub filters: Filters<'a>,
    /// The nodes that suit, each with its total; empty totals if there is only one.
    pub feasible: Vec<&'a NodeInfo>,
    pub totals: Vec<i64>,
    /// Each plugin's weighted scores, in the order of `feasible`.
    pub scores: Vec<(&'static str, Vec<i64>)>,
}

/// Why there is no node.
pub enum Problem<'a> {
    Unsuitable { diagnosis: Box<Diagnosis>, filters: Option<Filters<'a>> },
    Error(String),
}

/// Looks for the best node; ties are broken by `random(n)`, a number below `n`.
pub async fn evaluate<'a>(
    profile: &'a Profile,
    cycle: Cycle<'a>,
    promises: &Promises,
    search: &mut Search,
    extenders: &[Extender],
    random: &(dyn Fn(u64) -> u64 + Sync),
) -> Result<Evaluated<'a>, Problem<'a>> {
    let mut diagnosis = Diagnosis { nodes: cycle.snapshot.len(), ..Diagnosis::default() };
    let filters = match profile.pre_filter(cycle) {
        Ok(filters) => filters,
        Err((rejection, _)) if rejection.finality == Finality::Error => {
            return Err(Problem::Error(rejection.message()));
        }
        Err((rejection, plugins)) => {
            diagnosis.pre_filter = rejection.message();
            diagnosis.plugins = plugins;
            diagnosis.absent = Some(rejection);
            return Err(Problem::Unsuitable { diagnosis: Box::new(diagnosis), filters: None });
        }
    };
    let mut feasible = match promised(cycle, &filters, promises) {
        // Whoever fails here is asked again about all nodes.
        Some(node) => {
            extender_filter(extenders, cycle, vec![node], &mut Diagnosis::default()).await.unwrap_or_default()
        }
        None => Vec::new(),
    };
    if feasible.is_empty() {
        let percentage = profile.percentage.unwrap_or(search.default_percentage);
        let choosy = !profile.at(Point::Score).is_empty() || extenders.iter().any(Extender::is_choosy);
        let limit = move |nodes| if choosy { nodes_to_find(nodes, percentage) } else { 1 };
        feasible = find(cycle, &filters, promises, search, &limit, &mut diagnosis).map_err(Problem::Error)?;
        feasible = extender_filter(extenders, cycle, feasible, &mut diagnosis).await?;
    }
    if feasible.is_empty() {
        return Err(Problem::Unsuitable { diagnosis: Box::new(diagnosis), filters: Some(filters) });
    }
    if let [only] = feasible.as_slice() {
        let node = only.name().to_owned();
        return Ok(Evaluated { node, filters, feasible, totals: Vec::new(), scores: Vec::new() });
    }
    let scores = score(profile, cycle, &feasible, &filters);
    let mut totals = vec![0; feasible.len()];
    for (total, weighted) in scores.iter().flat_map(|(_, weighted)| totals_of(weighted)) {
        totals[total] += weighted;
    }
    let asked = extenders.iter().map(|extender| extender.prioritize(cycle.pod, &feasible));
    for extended in futures_util::future::join_all(asked).await {
        extended.iter().zip(&mut totals).for_each(|(score, total)| *total += score);
    }
    let best = totals.iter().copied().max().unwrap_or_default();
    let ties: Vec<usize> = (0..totals.len()).filter(|i| totals[*i] == best).collect();
    let chosen = ties[random(ties.len() as u64) as usize];
    Ok(Evaluated { node: feasible[chosen].name().to_owned(), filters, feasible, totals, scores })
}

fn totals_of(weighted: &[i64]) -> impl Iterator<Item = (usize, i64)> {
    weighted.iter().copied().enumerate()
}

/// The node that the pod was promised, if it suits still.
fn promised<'a>(cycle: Cycle<'a>, filters: &Filters<'a>, promises: &Promises) -> Option<&'a NodeInfo> {
    if cycle.pod.nominated.is_empty() {
        return None;
    }
    let node = cycle.snapshot.get(&cycle.pod.nominated)?;
    filters.check_with_nominated(cycle.pod, node, promises).is_ok().then_some(node)
}

async fn extender_filter<'a>(
    extenders: &[Extender],
    cycle: Cycle<'a>,
    mut feasible: Vec<&'a NodeInfo>,
    diagnosis: &mut Diagnosis,
) -> Result<Vec<&'a NodeInfo>, Problem<'a>> {
    for extender in extenders {
        if !feasible.is_empty() {
            feasible = extender.filter(cycle.pod, feasible, cycle.snapshot, diagnosis).await.map_err(Problem::Error)?;
        }
    }
    Ok(feasible)
}

/// Enough nodes that suit, from where the last search ended on.
fn find<'a>(
    cycle: Cycle<'a>,
    filters: &Filters<'a>,
    promises: &Promises,
    search: &mut Search,
    limit: &dyn Fn(usize) -> usize,
    diagnosis: &mut Diagnosis,
) -> Result<Vec<&'a NodeInfo>, String> {
    let snapshot = cycle.snapshot;
    let all = snapshot.len();
    let among: Option<Vec<&NodeInfo>> =
        filters.among.as_ref().map(|names| names.iter().filter_map(|name| snapshot.get(name)).collect());
    if among.is_some() {
        let names: Vec<&str> = filters.restricting.iter().copied().collect();
        let reason = format!("node(s) didn't satisfy plugin(s) [{}]", names.join(" "));
        diagnosis.absent = Some(crate::framework::Rejection::unresolvable(reason));
        diagnosis.plugins = filters.restricting.clone();
    }
    let count = among.as_ref().map_or(all, Vec::len);
    let enough = limit(count);
    let mut feasible = Vec::with_capacity(enough);
    let mut looked = 0;
    let mut plugins = BTreeSet::new();
    let mut last = "";
    let mut error = None;
    // Copied once, if at all: most nodes are promised to nobody, or each to somebody.
    let mut forked: Option<Forked<'_>> = None;
    for i in 0..count {
        let node = match &among {
            Some(nodes) => nodes[(search.start + i) % nodes.len()],
            None => snapshot.at(search.start + i),
        };
        looked += 1;
        let answer = match promises.outranking(node.name(), cycle.pod).as_slice() {
            [] => filters.check(node),
            others => forked.get_or_insert_with(|| filters.fork()).check_with(others, node, Whom::All),
        };
        match answer {
            Ok(()) => {
                feasible.push(node);
                if feasible.len() >= enough {
                    break;
                }
            }
            Err(rejection) if rejection.finality == Finality::Error => {
                error = Some(rejection.message());
                break;
            }
            Err(rejection) => {
                // Mostly it is the same as for the node before: no need to look it up.
                if !std::ptr::eq(last, rejection.plugin) {
                    plugins.insert(rejection.plugin);
                    last = rejection.plugin;
                }
                diagnosis.rejections.insert(node.slot, rejection);
            }
        }
    }
    diagnosis.plugins.extend(plugins);
    // The next search begins elsewhere, also after one that failed.
    search.start = (search.start + looked) % all;
    error.map_or(Ok(feasible), Err)
}

/// Upstream: numFeasibleNodesToFind.
fn nodes_to_find(all: usize, percentage: u32) -> usize {
    if all < MIN_NODES {
        return all;
    }
    let percentage = match percentage as usize {
        0 => 50usize.saturating_sub(all / 125).max(MIN_PERCENTAGE),
        given => given,
    };
    (all * percentage / 100).max(MIN_NODES)
}

/// Each plugin's weighted scores.
fn score<'a>(
    profile: &'a Profile,
    cycle: Cycle<'a>,
    nodes: &[&'a NodeInfo],
    filters: &Filters<'a>,
) -> Vec<(&'static str, Vec<i64>)> {
    let scorers = profile.pre_score(cycle, nodes, filters);
    let weigh = |(name, weight, scorer): &(&'static str, i64, Box<dyn crate::framework::Scorer + '_>)| {
        let mut scores: Vec<i64> = nodes.iter().map(|node| scorer.score(node)).collect();
        scorer.normalize(&mut scores, nodes);
        scores.iter_mut().for_each(|score| *score *= weight);
        (*name, scores)
    };
    scorers.iter().map(weigh).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_clusters_are_searched_in_part() {
        let check = |all, percentage, expect| assert_eq!(nodes_to_find(all, percentage), expect);
        check(10, 0, 10);
        check(100, 0, 100);
        check(1000, 0, 420);
        check(5000, 0, 500);
        check(6000, 0, 300);
        check(1000, 100, 1000);
        check(1000, 1, 100);
    }
}
