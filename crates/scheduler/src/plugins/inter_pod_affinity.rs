//! Pods that want, or refuse, to be in one place with others.

use std::sync::Arc;

use serde::Deserialize;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, MAX_SCORE, NodeFilter, Plugin, Prepared, Rejection, Scorer};
use crate::node::NodeInfo;
use crate::pod::{PodInfo, Term};
use crate::snapshot::{Namespaces, Query, TermUse, Topology};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    hard_pod_affinity_weight: i64,
    ignore_preferred_terms_of_existing_pods: bool,
}

impl Default for Args {
    fn default() -> Args {
        Args {
            api_version: String::new(),
            kind: String::new(),
            hard_pod_affinity_weight: 1,
            ignore_preferred_terms_of_existing_pods: false,
        }
    }
}

pub struct InterPodAffinity {
    hard_weight: i64,
    ignore_existing: bool,
}

impl InterPodAffinity {
    pub fn new(args: Args) -> Result<InterPodAffinity, String> {
        let weight = args.hard_pod_affinity_weight;
        if !(0..=100).contains(&weight) {
            return Err(format!("hardPodAffinityWeight: Invalid value: {weight}: not in valid range [0-100]"));
        }
        Ok(InterPodAffinity { hard_weight: weight, ignore_existing: args.ignore_preferred_terms_of_existing_pods })
    }
}

/// How many pods count against or for each place of one topology.
#[derive(Clone)]
struct Counts {
    topology: Arc<Topology>,
    by_domain: Vec<i64>,
}

impl Counts {
    fn new(topology: Arc<Topology>) -> Counts {
        Counts { by_domain: vec![0; topology.size()], topology }
    }

    fn add(&mut self, slot: u32, by: i64) {
        if let Some(domain) = self.topology.domain(slot) {
            self.by_domain[domain as usize] += by;
        }
    }

    /// `None`: the node is no such place.
    fn at(&self, slot: u32) -> Option<i64> {
        self.topology.domain(slot).map(|domain| self.by_domain[domain as usize])
    }
}

impl Plugin for InterPodAffinity {
    fn name(&self) -> &'static str {
        "InterPodAffinity"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let pod = cycle.pod;
        let labels = cycle.cluster.namespace_labels(&pod.key.namespace);
        let mut refusing: Vec<(String, Counts)> = Vec::new();
        for (term, slots) in cycle.snapshot.terms(TermUse::RequiredAnti) {
            if term.matches(pod, &labels) {
                let counts = entry(&mut refusing, &term.topology_key, cycle);
                slots.iter().for_each(|(slot, count)| counts.add(*slot, *count));
            }
        }
        let refused = refusing.iter().any(|(_, counts)| counts.by_domain.iter().any(|count| *count > 0));
        let affinity = &pod.affinity;
        if !refused && affinity.required.is_empty() && affinity.required_anti.is_empty() {
            return Ok(Prepared::Skip);
        }
        let anti = affinity.required_anti.iter().map(|term| (term.clone(), matching(cycle, term))).collect();
        let required = affinity.required.iter().map(|term| (term.clone(), all_matching(cycle, term))).collect();
        let filter = Filter { cycle, refusing, required, anti };
        Ok(Prepared::Filter(Box::new(filter)))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        let pod = cycle.pod;
        let own = pod.affinity.preferred.iter().map(|(weight, term)| (*weight, term));
        let own = own.chain(pod.affinity.preferred_anti.iter().map(|(weight, term)| (-weight, term)));
        let mut places: Vec<(String, Counts)> = Vec::new();
        let mut preferring = false;
        for (weight, term) in own {
            preferring = true;
            let slots = cycle.snapshot.matching(&query(cycle, term));
            let counts = entry(&mut places, &term.topology_key, cycle);
            let some = slots.iter().enumerate().filter(|(_, count)| **count > 0);
            some.for_each(|(slot, count)| counts.add(slot as u32, weight * i64::from(*count)));
        }
        if preferring || !self.ignore_existing {
            let labels = cycle.cluster.namespace_labels(&pod.key.namespace);
            let required = cycle.snapshot.terms(TermUse::Required).map(|(term, slots)| (self.hard_weight, term, slots));
            let preferred = cycle.snapshot.terms(TermUse::Preferred).map(|(term, slots)| (1, term, slots));
            for (weight, term, slots) in required.chain(preferred) {
                if weight != 0 && term.matches(pod, &labels) {
                    let counts = entry(&mut places, &term.topology_key, cycle);
                    slots.iter().for_each(|(slot, count)| counts.add(*slot, weight * count));
                }
            }
        }
        let any = places.iter().any(|(_, counts)| counts.by_domain.iter().any(|count| *count != 0));
        any.then(|| Box::new(Nearness { places }) as Box<dyn Scorer + 'a>)
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, cluster: &Cluster) -> bool {
        let matches_all = |other: &PodInfo| {
            let labels = cluster.namespace_labels(&other.key.namespace);
            let required = &pod.affinity.required;
            !required.is_empty() && required.iter().all(|term| term.matches(other, &labels))
        };
        let in_the_way = |other: &PodInfo| {
            let labels = cluster.namespace_labels(&other.key.namespace);
            pod.affinity.required_anti.iter().any(|term| term.matches(other, &labels)) || {
                let mine = cluster.namespace_labels(&pod.key.namespace);
                other.affinity.required_anti.iter().any(|term| term.matches(pod, &mine))
            }
        };
        match event {
            ClusterEvent::Pod(change) => {
                let (old, new) = (change.old.as_deref(), change.new.as_deref());
                new.is_some_and(matches_all) && !old.is_some_and(matches_all)
                    || old.is_some_and(in_the_way) && !new.is_some_and(in_the_way)
            }
            ClusterEvent::Node(change) => match (&change.old, &change.new) {
                (_, None) => false,
                (None, Some(new)) => pod.affinity.required.iter().all(|t| new.label(&t.topology_key).is_some()),
                (Some(old), Some(new)) => old.labels() != new.labels(),
            },
            _ => false,
        }
    }
}

fn entry<'c>(all: &'c mut Vec<(String, Counts)>, key: &str, cycle: Cycle<'_>) -> &'c mut Counts {
    let at = all.iter().position(|(known, _)| known == key).unwrap_or_else(|| {
        all.push((key.to_owned(), Counts::new(cycle.snapshot.topology(key))));
        all.len() - 1
    });
    &mut all[at].1
}

/// The pods that a term of the pod itself is about.
fn query(cycle: Cycle<'_>, term: &Term) -> Query {
    let namespaces = if term.namespace_selector.is_everything() {
        Namespaces::All
    } else {
        let mut names = term.namespaces.clone();
        let chosen = cycle.cluster.namespaces.names(|labels| rules::selects(&term.namespace_selector, labels));
        names.extend(chosen);
        Namespaces::These(names)
    };
    Query { namespaces, selector: term.selector.clone(), terminating: true }
}

fn matching(cycle: Cycle<'_>, term: &Term) -> Counts {
    let mut counts = Counts::new(cycle.snapshot.topology(&term.topology_key));
    for (slot, count) in cycle.snapshot.matching(&query(cycle, term)).iter().enumerate().filter(|(_, n)| **n > 0) {
        counts.add(slot as u32, i64::from(*count));
    }
    counts
}

/// The pods that all required terms are about, by the places of one of them.
fn all_matching(cycle: Cycle<'_>, term: &Arc<Term>) -> Counts {
    let required = &cycle.pod.affinity.required;
    let same = |other: &Arc<Term>| other.selector == term.selector && other.namespaces == term.namespaces;
    if required.iter().all(|other| same(other) && other.namespace_selector == term.namespace_selector) {
        return matching(cycle, term);
    }
    let mut counts = Counts::new(cycle.snapshot.topology(&term.topology_key));
    for node in cycle.snapshot.nodes() {
        let pods = node.pods().iter().filter(|pod| matches_all(cycle.cluster, required, pod)).count();
        counts.add(node.slot, pods as i64);
    }
    counts
}

fn matches_all(cluster: &Cluster, terms: &[Arc<Term>], pod: &PodInfo) -> bool {
    let labels = cluster.namespace_labels(&pod.key.namespace);
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, &labels))
}

#[derive(Clone)]
struct Filter<'a> {
    cycle: Cycle<'a>,
    /// Pods whose own terms refuse this one, by topology key.
    refusing: Vec<(String, Counts)>,
    required: Vec<(Arc<Term>, Counts)>,
    anti: Vec<(Arc<Term>, Counts)>,
}

impl Filter<'_> {
    fn suppose(&mut self, pod: &PodInfo, node: &NodeInfo, by: i64) {
        let cycle = self.cycle;
        let mine = cycle.cluster.namespace_labels(&cycle.pod.key.namespace);
        for term in &pod.affinity.required_anti {
            if term.matches(cycle.pod, &mine) {
                entry(&mut self.refusing, &term.topology_key, cycle).add(node.slot, by);
            }
        }
        let labels = cycle.cluster.namespace_labels(&pod.key.namespace);
        if matches_all(cycle.cluster, &cycle.pod.affinity.required, pod) {
            self.required.iter_mut().for_each(|(_, counts)| counts.add(node.slot, by));
        }
        for (term, counts) in &mut self.anti {
            if term.matches(pod, &labels) {
                counts.add(node.slot, by);
            }
        }
    }

    fn required_satisfied(&self, slot: u32) -> bool {
        let mut here = true;
        for (_, counts) in &self.required {
            match counts.at(slot) {
                None => return false,
                Some(count) => here &= count > 0,
            }
        }
        // The first of a group that wants to be together may go anywhere.
        here || {
            let none = self.required.iter().all(|(_, counts)| counts.by_domain.iter().all(|count| *count == 0));
            none && matches_all(self.cycle.cluster, &self.cycle.pod.affinity.required, self.cycle.pod)
        }
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.required_satisfied(node.slot) {
            return Err(Rejection::unresolvable("node(s) didn't match pod affinity rules"));
        }
        if self.anti.iter().any(|(_, counts)| counts.at(node.slot).is_some_and(|count| count > 0)) {
            return Err(Rejection::because("node(s) didn't match pod anti-affinity rules"));
        }
        if self.refusing.iter().any(|(_, counts)| counts.at(node.slot).is_some_and(|count| count > 0)) {
            return Err(Rejection::because("node(s) didn't satisfy existing pods anti-affinity rules"));
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

/// What each place is worth, by topology key.
struct Nearness {
    places: Vec<(String, Counts)>,
}

impl Scorer for Nearness {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.places.iter().filter_map(|(_, counts)| counts.at(node.slot)).sum()
    }

    fn normalize(&self, scores: &mut [i64], _: &[&NodeInfo]) {
        let least = scores.iter().copied().min().unwrap_or_default();
        let span = scores.iter().copied().max().unwrap_or_default() - least;
        for score in scores {
            *score = if span > 0 { (MAX_SCORE as f64 * ((*score - least) as f64 / span as f64)) as i64 } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::tests::{Try, labelled, on_node};

    fn plugin() -> InterPodAffinity {
        InterPodAffinity::new(Args::default()).unwrap()
    }

    fn terms(key: &str, app: &str) -> Value {
        json!([{"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}}])
    }

    fn requires(kind: &str, key: &str, app: &str) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": terms(key, app)}}})
    }

    /// Two nodes in zone a, one in zone b, one without a zone; a `db` pod on the first.
    fn nodes(db: Value) -> Vec<NodeInfo> {
        let mut nodes = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("none", "")].map(|(name, zone)| on_node(name, zone));
        nodes[0].add(Arc::new(labelled("db", db)));
        nodes.to_vec()
    }

    #[test]
    fn rules_filter() {
        const FAR: &str = "node(s) didn't match pod affinity rules";
        const NEAR: &str = "node(s) didn't match pod anti-affinity rules";
        const REFUSED: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
        let check = |db: Value, spec: Value, expect: [&str; 4]| {
            let nodes = nodes(db);
            let plugin = plugin();
            let mut tried = Try::new_on(&plugin, labelled("web", spec.clone()), &nodes);
            assert_eq!([0, 1, 2, 3].map(|i: usize| tried.on_known(nodes[i].name())), expect, "{spec}");
        };
        check(json!({}), json!({}), ["", "", "", ""]);
        check(json!({}), requires("podAffinity", "zone", "db"), ["", "", FAR, FAR]);
        check(json!({}), requires("podAffinity", "zone", "web"), ["", "", "", FAR]);
        check(json!({}), requires("podAffinity", "zone", "other"), [FAR; 4]);
        check(json!({}), requires("podAntiAffinity", "zone", "db"), [NEAR, NEAR, "", ""]);
        check(json!({}), requires("podAntiAffinity", "host", "db"), [NEAR, "", "", ""]);
        check(requires("podAntiAffinity", "zone", "web"), json!({}), [REFUSED, REFUSED, "", ""]);
    }

    #[test]
    fn preferences_score() {
        let prefers = |kind: &str, key: &str, weight: i32| {
            json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": weight, "podAffinityTerm": terms(key, "db")[0]}]}}})
        };
        let check = |db: Value, spec: Value, expect: &[i64]| {
            let nodes = nodes(db);
            let plugin = plugin();
            let mut tried = Try::new_on(&plugin, labelled("web", spec.clone()), &nodes);
            assert_eq!(tried.scores_known(), expect, "{spec}");
        };
        check(json!({}), json!({}), &[]);
        check(json!({}), prefers("podAffinity", "zone", 5), &[100, 100, 0, 0]);
        check(json!({}), prefers("podAntiAffinity", "host", 5), &[0, 100, 100, 100]);
        // A pod there that needs such neighbours draws them too.
        check(requires("podAffinity", "zone", "web"), json!({}), &[100, 100, 0, 0]);
    }

    #[test]
    fn suppositions_change_the_answer() {
        let nodes = nodes(json!({}));
        let pod = labelled("web", requires("podAntiAffinity", "zone", "db"));
        let plugin = plugin();
        let mut tried = Try::new_on(&plugin, pod, &nodes);
        let victim = nodes[0].pods()[0].clone();
        assert_eq!(tried.without("a2", "a1", &victim), "");
        assert_eq!(tried.on_known("a2"), "node(s) didn't match pod anti-affinity rules");
    }
}
