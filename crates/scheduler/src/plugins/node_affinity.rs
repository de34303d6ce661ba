//! Node selectors and node affinity, those that the configuration adds to every pod among them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{self, NodeSelectorTerm, PreferredSchedulingTerm};
use serde::Deserialize;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection, Scorer, normalize_to_max};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    added_affinity: Option<v1::NodeAffinity>,
}

pub struct NodeAffinity {
    added: v1::NodeAffinity,
}

impl NodeAffinity {
    pub fn new(args: Args) -> NodeAffinity {
        NodeAffinity { added: args.added_affinity.unwrap_or_default() }
    }
}

impl Plugin for NodeAffinity {
    fn name(&self) -> &'static str {
        "NodeAffinity"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let filter = Filter::new(self, cycle.pod);
        if filter.added.is_none() && filter.required.is_none() && filter.selector.is_empty() {
            return Ok(Prepared::Skip);
        }
        match filter.required.and_then(named_nodes) {
            Some(names) if names.is_empty() => Err(Rejection::unresolvable("pod affinity terms conflict")),
            Some(names) => Ok(Prepared::Among(names, Box::new(filter))),
            None => Ok(Prepared::Filter(Box::new(filter))),
        }
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        let of = |affinity: &'a v1::NodeAffinity| {
            affinity.preferred_during_scheduling_ignored_during_execution.as_deref().unwrap_or_default()
        };
        let own = cycle.pod.node_affinity.as_deref().map(of).unwrap_or_default();
        let added = of(&self.added);
        if own.is_empty() && added.is_empty() {
            return None;
        }
        Some(Box::new(Preferred(added.iter().chain(own).filter(|term| term.weight != 0).collect())))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        let ClusterEvent::Node(change) = event else { return false };
        let filter = Filter::new(self, pod);
        let suits = |node: &NodeInfo| filter.filter(node).is_ok();
        change.new.as_deref().is_some_and(suits) && !change.old.as_deref().is_some_and(suits)
    }
}

struct Filter<'a> {
    added: Option<&'a [NodeSelectorTerm]>,
    required: Option<&'a [NodeSelectorTerm]>,
    selector: &'a BTreeMap<String, String>,
}

impl<'a> Filter<'a> {
    fn new(plugin: &'a NodeAffinity, pod: &'a PodInfo) -> Filter<'a> {
        let required = |affinity: &'a v1::NodeAffinity| {
            let selector = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
            Some(selector.node_selector_terms.as_slice())
        };
        Filter {
            added: required(&plugin.added),
            required: pod.node_affinity.as_deref().and_then(required),
            selector: &pod.node_selector,
        }
    }
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.added.is_none_or(|terms| one_matches(terms, node)) {
            return Err(Rejection::unresolvable("node(s) didn't match scheduler-enforced node affinity"));
        }
        if selected(self.selector, node) && self.required.is_none_or(|terms| one_matches(terms, node)) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) didn't match Pod's node affinity/selector"))
    }

    fn by_pods(&self) -> bool {
        false
    }
}

/// Whether a pod's own selector and required affinity allow the node.
pub fn allows(pod: &PodInfo, node: &NodeInfo) -> bool {
    let affinity = pod.node_affinity.as_deref();
    let required = affinity.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref());
    selected(&pod.node_selector, node)
        && required.is_none_or(|selector| one_matches(&selector.node_selector_terms, node))
}

fn selected(selector: &BTreeMap<String, String>, node: &NodeInfo) -> bool {
    selector.iter().all(|(key, value)| node.label(key) == Some(value))
}

fn one_matches(terms: &[NodeSelectorTerm], node: &NodeInfo) -> bool {
    terms.iter().any(|term| rules::matches_node_term(term, node))
}

/// The nodes that the terms name; `None`: some term names none.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for term in terms {
        let fields = term.match_fields.iter().flatten();
        let named = fields.filter(|field| field.key == "metadata.name" && field.operator == "In");
        let sets = named.map(|field| field.values.iter().flatten().cloned().collect::<BTreeSet<String>>());
        all.extend(sets.reduce(|a, b| &a & &b)?);
    }
    (!terms.is_empty()).then_some(all)
}

/// The preferred terms, those with no weight left out.
struct Preferred<'a>(Vec<&'a PreferredSchedulingTerm>);

impl Scorer for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let matching = self.0.iter().filter(|term| rules::matches_node_term(&term.preference, node));
        matching.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, scores: &mut [i64], _: &[&NodeInfo]) {
        normalize_to_max(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::tests::{Try, named, node, pod};

    const NO: &str = "node(s) didn't match Pod's node affinity/selector";

    #[test]
    fn selectors_filter() {
        let check = |zone: &str, expect: &str| {
            let plugin = NodeAffinity::new(Args::default());
            let answer =
                Try::new(&plugin, pod(json!({"nodeSelector": {"zone": zone}}))).on(&node(json!({}), json!({})));
            assert_eq!(answer, expect);
        };
        check("a", "");
        check("b", NO);
    }

    #[test]
    fn added_affinity_is_everybodys() {
        let added = json!({"addedAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
                [{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}]}}});
        let plugin = NodeAffinity::new(serde_json::from_value(added).unwrap());
        let answer = Try::new(&plugin, pod(json!({}))).on(&node(json!({}), json!({})));
        assert_eq!(answer, "node(s) didn't match scheduler-enforced node affinity");
    }

    #[test]
    fn terms_that_name_nodes_restrict_the_search() {
        let by_name =
            |names: Value| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": names}]});
        let check = |terms: Value, expect: Option<&[&str]>| {
            let parsed: Vec<NodeSelectorTerm> = serde_json::from_value(terms.clone()).unwrap();
            let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(named_nodes(&parsed), expect, "{terms}");
        };
        check(json!([by_name(json!(["a"])), by_name(json!(["b"]))]), Some(&["a", "b"]));
        check(json!([by_name(json!(["a"])), {"matchExpressions": [{"key": "k", "operator": "Exists"}]}]), None);
        check(
            json!([{"matchFields": [
            {"key": "metadata.name", "operator": "In", "values": ["a"]},
            {"key": "metadata.name", "operator": "In", "values": ["b"]}]}]),
            Some(&[]),
        );
    }

    #[test]
    fn preferences_score() {
        let zone = |zone: &str, weight: i32| json!({"weight": weight, "preference": {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}});
        let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
            [zone("a", 1), zone("b", 3)]}}});
        let plugin = NodeAffinity::new(Args::default());
        let nodes = ["a", "b", "c"].map(|name| named(name, json!({})));
        let scores = Try::new(&plugin, pod(spec)).scores(&nodes.each_ref());
        assert_eq!(scores, [33, 100, 0]);
    }
}
