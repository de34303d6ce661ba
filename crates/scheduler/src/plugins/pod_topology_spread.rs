//! Pods of one kind are spread evenly over places.

mod constraint;

use std::sync::Arc;

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, MAX_SCORE, NodeFilter, Plugin, Prepared, Rejection, Scorer};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Topology;
use constraint::{Constraint, has_all_keys, merged_selector};

const HOSTNAME: &str = "kubernetes.io/hostname";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    default_constraints: Vec<TopologySpreadConstraint>,
    defaulting_type: String,
}

pub struct PodTopologySpread {
    defaults: Vec<TopologySpreadConstraint>,
    /// The defaults are ours, so nodes without the labels aren't left out.
    system: bool,
}

impl PodTopologySpread {
    pub fn new(args: Args) -> Result<PodTopologySpread, String> {
        match args.defaulting_type.as_str() {
            "" | "System" => {
                if !args.default_constraints.is_empty() {
                    return Err(
                        "defaultConstraints: Invalid value: when .defaultingType is System, this must be empty".into(),
                    );
                }
                let constraint = |key: &str, skew| TopologySpreadConstraint {
                    topology_key: key.into(),
                    max_skew: skew,
                    when_unsatisfiable: "ScheduleAnyway".into(),
                    ..TopologySpreadConstraint::default()
                };
                let defaults = vec![constraint(HOSTNAME, 3), constraint("topology.kubernetes.io/zone", 5)];
                Ok(PodTopologySpread { defaults, system: true })
            }
            "List" => {
                for (i, constraint) in args.default_constraints.iter().enumerate() {
                    if constraint.label_selector.is_some() {
                        return Err(format!(
                            "defaultConstraints[{i}].labelSelector: Forbidden: constraint must not define a selector, as they deduced for each pod"
                        ));
                    }
                    if constraint.max_skew <= 0 {
                        return Err(format!(
                            "defaultConstraints[{i}].maxSkew: Invalid value: {}: not in valid range (0, inf)",
                            constraint.max_skew
                        ));
                    }
                }
                Ok(PodTopologySpread { defaults: args.default_constraints, system: false })
            }
            other => {
                Err(format!("defaultingType: Unsupported value: {other:?}: supported values: \"List\", \"System\""))
            }
        }
    }

    fn constraints(&self, pod: &PodInfo, cluster: &Cluster, action: &str) -> Vec<Constraint> {
        let of = |all: &[TopologySpreadConstraint]| {
            let those = all.iter().filter(|constraint| constraint.when_unsatisfiable == action);
            those.map(|constraint| Constraint::new(constraint, &pod.labels)).collect::<Vec<_>>()
        };
        if !pod.spread.is_empty() {
            return of(&pod.spread);
        }
        let mut constraints = of(&self.defaults);
        if !constraints.is_empty() {
            match merged_selector(pod, cluster) {
                Some(selector) => constraints.iter_mut().for_each(|c| c.selector = selector.clone()),
                None => constraints.clear(),
            }
        }
        constraints
    }
}

impl Plugin for PodTopologySpread {
    fn name(&self) -> &'static str {
        "PodTopologySpread"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let constraints = self.constraints(cycle.pod, cycle.cluster, "DoNotSchedule");
        if constraints.is_empty() {
            return Ok(Prepared::Skip);
        }
        let counted = constraints.iter().map(|constraint| Counted::new(constraint, &constraints, cycle)).collect();
        Ok(Prepared::Filter(Box::new(Filter { pod: cycle.pod, constraints, counted })))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, nodes: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        let constraints = self.constraints(cycle.pod, cycle.cluster, "ScheduleAnyway");
        if constraints.is_empty() {
            return None;
        }
        let strict = !cycle.pod.spread.is_empty() || !self.system;
        Some(Box::new(Evenness::new(cycle, constraints, nodes, strict)))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, cluster: &Cluster) -> bool {
        let constraints = || self.constraints(pod, cluster, "DoNotSchedule");
        let counted = |other: &PodInfo| {
            other.key.namespace == pod.key.namespace
                && constraints().iter().any(|constraint| rules::selects(&constraint.selector, &other.labels))
        };
        match event {
            ClusterEvent::Pod(change) => {
                change.old.as_deref().is_some_and(counted) != change.new.as_deref().is_some_and(counted)
                    || match (&change.old, &change.new) {
                        (Some(old), Some(new)) => old.labels != new.labels && counted(new),
                        _ => false,
                    }
            }
            ClusterEvent::Own(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => old.labels != new.labels || old.tolerations != new.tolerations,
                _ => true,
            },
            ClusterEvent::Node(change) => {
                let constraints = constraints();
                let counts = |node: &NodeInfo| has_all_keys(node, &constraints);
                match (change.old.as_deref(), change.new.as_deref()) {
                    (Some(old), Some(new)) => {
                        let moved = |c: &Constraint| old.label(&c.key) != new.label(&c.key);
                        counts(old) != counts(new)
                            || counts(new) && (constraints.iter().any(moved) || old.taints() != new.taints())
                    }
                    (old, new) => old.or(new).is_some_and(counts),
                }
            }
            _ => false,
        }
    }
}

/// How many pods that one constraint is about are in each place.
#[derive(Clone)]
struct Counted {
    topology: Arc<Topology>,
    /// By domain; `None`: no node that counts is there.
    pods: Vec<Option<i64>>,
    /// In the place with the fewest, or 0 if there are too few places.
    least: i64,
    min_domains: i32,
}

/// Calls `each` with slot and place of every node that has the labels of all these constraints and whose pods count for `constraint`. Nodes
/// themselves are looked at only if the constraint says so: there are many.
fn for_each_place(
    cycle: Cycle<'_>,
    constraint: &Constraint,
    all: &[Constraint],
    topology: &Topology,
    mut each: impl FnMut(u32, u32),
) {
    let others = all.iter().filter(|other| other.key != constraint.key);
    let others: Vec<Arc<Topology>> = others.map(|other| cycle.snapshot.topology(&other.key)).collect();
    let counts_all = constraint.counts_all(cycle.pod);
    for slot in 0..cycle.snapshot.slots() as u32 {
        let Some(domain) = topology.domain(slot) else { continue };
        if others.iter().all(|other| other.domain(slot).is_some())
            && (counts_all || cycle.snapshot.slot(slot).is_some_and(|node| constraint.counts(cycle.pod, node)))
        {
            each(slot, domain);
        }
    }
}

impl Counted {
    fn new(constraint: &Constraint, all: &[Constraint], cycle: Cycle<'_>) -> Counted {
        let topology = cycle.snapshot.topology(&constraint.key);
        let matching = cycle.snapshot.matching(&constraint.query(cycle.pod));
        let mut pods = vec![None; topology.size()];
        for_each_place(cycle, constraint, all, &topology, |slot, domain| {
            let here = matching.get(slot as usize).copied().unwrap_or_default();
            *pods[domain as usize].get_or_insert(0) += i64::from(here);
        });
        let mut counted = Counted { topology, pods, least: 0, min_domains: constraint.min_domains };
        counted.find_least();
        counted
    }

    fn find_least(&mut self) {
        let mut domains = 0;
        let mut least = i64::from(i32::MAX);
        for count in self.pods.iter().flatten() {
            domains += 1;
            least = least.min(*count);
        }
        self.least = if domains < self.min_domains { 0 } else { least };
    }
}

#[derive(Clone)]
struct Filter<'a> {
    pod: &'a PodInfo,
    constraints: Vec<Constraint>,
    counted: Vec<Counted>,
}

impl Filter<'_> {
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        if pod.key.namespace != self.pod.key.namespace || !has_all_keys(node, &self.constraints) {
            return;
        }
        for (constraint, counted) in self.constraints.iter().zip(&mut self.counted) {
            if !rules::selects(&constraint.selector, &pod.labels) || !constraint.counts(self.pod, node) {
                continue;
            }
            if let Some(domain) = counted.topology.domain(node.slot) {
                *counted.pods[domain as usize].get_or_insert(0) += by;
                counted.find_least();
            }
        }
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for (constraint, counted) in self.constraints.iter().zip(&self.counted) {
            let Some(domain) = counted.topology.domain(node.slot) else {
                let reason = "node(s) didn't match pod topology spread constraints (missing required label)";
                return Err(Rejection::unresolvable(reason));
            };
            let itself = i64::from(rules::selects(&constraint.selector, &self.pod.labels));
            let here = counted.pods[domain as usize].unwrap_or_default();
            if here + itself - counted.least > i64::from(constraint.max_skew) {
                return Err(Rejection::because("node(s) didn't match pod topology spread constraints"));
            }
        }
        Ok(())
    }

    fn add(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, 1);
    }

    fn remove(&mut self, pod: &PodInfo, node: &NodeInfo) {
        self.suppose(pod, node, -1);
    }

    fn fork<'b>(&self) -> Option<Box<dyn NodeFilter + 'b>>
    where
        Self: 'b,
    {
        Some(Box::new(self.clone()))
    }
}

/// The fewer of its kind are where a node is, the better.
struct Evenness {
    constraints: Vec<Weighed>,
    /// By slot: these nodes aren't compared.
    ignored: Vec<bool>,
}

struct Weighed {
    max_skew: i32,
    topology: Arc<Topology>,
    /// By domain, or by slot where each node is a place of its own.
    pods: Vec<i64>,
    by_slot: bool,
    /// The more places, the more a single pod counts.
    weight: f64,
}

impl Evenness {
    fn new(cycle: Cycle<'_>, constraints: Vec<Constraint>, nodes: &[&NodeInfo], strict: bool) -> Evenness {
        let left_out = |node: &NodeInfo| strict && !has_all_keys(node, &constraints);
        let mut ignored = vec![false; cycle.snapshot.slots()];
        let compared: Vec<&NodeInfo> = nodes.iter().copied().filter(|node| !left_out(node)).collect();
        for node in nodes.iter().filter(|node| left_out(node)) {
            ignored[node.slot as usize] = true;
        }
        let weigh = |constraint: &Constraint| {
            let topology = cycle.snapshot.topology(&constraint.key);
            let matching = cycle.snapshot.matching(&constraint.query(cycle.pod));
            let by_slot = constraint.key == HOSTNAME;
            let (pods, places) = if by_slot {
                (matching.iter().map(|count| i64::from(*count)).collect(), compared.len())
            } else {
                let mut wanted = vec![false; topology.size()];
                let mut unlabelled = false;
                for node in &compared {
                    match topology.domain(node.slot) {
                        Some(domain) => wanted[domain as usize] = true,
                        // Nodes without the label are one place more, where such nodes are compared at all.
                        None => unlabelled = true,
                    }
                }
                let mut pods = vec![0; topology.size()];
                let all = if strict { &constraints[..] } else { &[] };
                for_each_place(cycle, constraint, all, &topology, |slot, domain| {
                    if wanted[domain as usize] {
                        pods[domain as usize] += i64::from(matching.get(slot as usize).copied().unwrap_or_default());
                    }
                });
                (pods, wanted.iter().filter(|wanted| **wanted).count() + usize::from(unlabelled))
            };
            let weight = ((places + 2) as f64).ln();
            Weighed { max_skew: constraint.max_skew, topology, pods, by_slot, weight }
        };
        Evenness { constraints: constraints.iter().map(weigh).collect(), ignored }
    }
}

impl Scorer for Evenness {
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.ignored[node.slot as usize] {
            return 0;
        }
        let mut score = 0.0;
        for constraint in &self.constraints {
            let Some(domain) = constraint.topology.domain(node.slot) else { continue };
            let at = if constraint.by_slot { node.slot } else { domain };
            let pods = constraint.pods.get(at as usize).copied().unwrap_or_default();
            score += pods as f64 * constraint.weight + f64::from(constraint.max_skew - 1);
        }
        score.round() as i64
    }

    fn normalize(&self, scores: &mut [i64], nodes: &[&NodeInfo]) {
        let ignored = |node: &NodeInfo| self.ignored[node.slot as usize];
        let compared = || scores.iter().zip(nodes).filter(|(_, node)| !ignored(node)).map(|(score, _)| *score);
        let most = compared().max().unwrap_or_default().max(0);
        let least = compared().min().unwrap_or(i64::MAX);
        for (score, node) in scores.iter_mut().zip(nodes) {
            *score = if ignored(node) {
                0
            } else if most == 0 {
                MAX_SCORE
            } else {
                MAX_SCORE * (most + least - *score) / most
            };
        }
    }
}

#[cfg(test)]
mod tests;
