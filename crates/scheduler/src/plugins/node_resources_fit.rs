//! A node must have what a pod requests; by how much of it would be used, nodes are compared.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Deserialize;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection, Scorer};
use crate::node::NodeInfo;
use crate::plugins::allocation::{ResourceSpec, Usage, cpu_and_memory, ratio_score};
use crate::pod::PodInfo;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    ignored_resources: BTreeSet<String>,
    ignored_resource_groups: BTreeSet<String>,
    scoring_strategy: Option<Strategy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Strategy {
    r#type: String,
    resources: Vec<ResourceSpec>,
    requested_to_capacity_ratio: Option<Ratio>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Ratio {
    shape: Vec<ShapePoint>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ShapePoint {
    utilization: i64,
    score: i64,
}

pub struct NodeResourcesFit {
    ignored: BTreeSet<String>,
    ignored_groups: BTreeSet<String>,
    prefers: Prefers,
    resources: Vec<ResourceSpec>,
}

/// Which nodes score higher.
enum Prefers {
    /// Those with most left.
    Least,
    /// Those with least left.
    Most,
    /// By points of (used percent, score).
    Shape(Vec<(i64, i64)>),
}

impl NodeResourcesFit {
    pub fn new(args: Args) -> Result<NodeResourcesFit, String> {
        let strategy = args.scoring_strategy.unwrap_or_default();
        let prefers = match strategy.r#type.as_str() {
            "" | "LeastAllocated" => Prefers::Least,
            "MostAllocated" => Prefers::Most,
            "RequestedToCapacityRatio" => Prefers::Shape(shape(strategy.requested_to_capacity_ratio)?),
            other => {
                return Err(format!(
                    "scoringStrategy.type: Unsupported value: {other:?}: supported values: \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\""
                ));
            }
        };
        let mut resources = strategy.resources;
        for (i, resource) in resources.iter_mut().enumerate() {
            if resource.weight == 0 {
                resource.weight = 1;
            }
            if !(1..=100).contains(&resource.weight) {
                return Err(format!(
                    "scoringStrategy.resources[{i}].weight: Invalid value: {}: resource weight of {} not in valid range [1, 100]",
                    resource.weight, resource.name
                ));
            }
        }
        if resources.is_empty() {
            resources = cpu_and_memory();
        }
        Ok(NodeResourcesFit {
            ignored: args.ignored_resources,
            ignored_groups: args.ignored_resource_groups,
            prefers,
            resources,
        })
    }

    /// What the node lacks for the pod beside those on it and `others`; with `used` false, if it were empty.
    fn lacks(&self, pod: &PodInfo, node: &NodeInfo, used: bool, others: &[Arc<PodInfo>]) -> Result<(), Rejection> {
        let mut reasons: Vec<std::borrow::Cow<'static, str>> = Vec::new();
        let mut unresolvable = false;
        let count = if used { (node.pods().len() + others.len()) as i64 } else { 0 };
        if count + 1 > node.capacity() {
            reasons.push("Too many pods".into());
        }
        type Amount = fn(&rules::Resources, &str) -> i64;
        let mut check = |name: &str, reason: &'static str, wanted: i64, all: i64, taken: i64, amount: Amount| {
            let theirs = || others.iter().map(|other| amount(&other.requests, name)).sum::<i64>();
            if wanted > 0 && wanted > all - if used { taken + theirs() } else { 0 } {
                reasons.push(if reason.is_empty() { format!("Insufficient {name}").into() } else { reason.into() });
                unresolvable |= wanted > all;
            }
        };
        let (wants, all, taken) = (&pod.requests, node.allocatable(), node.requested());
        check("", "Insufficient cpu", wants.milli_cpu, all.milli_cpu, taken.milli_cpu, |r, _| r.milli_cpu);
        check("", "Insufficient memory", wants.memory, all.memory, taken.memory, |r, _| r.memory);
        check(
            "",
            "Insufficient ephemeral-storage",
            wants.ephemeral_storage,
            all.ephemeral_storage,
            taken.ephemeral_storage,
            |r, _| r.ephemeral_storage,
        );
        for (name, wanted) in &wants.others {
            if !self.is_ignored(name) {
                check(name, "", *wanted, all.get(name), taken.get(name), rules::Resources::get);
            }
        }
        if reasons.is_empty() {
            return Ok(());
        }
        let rejection = if unresolvable { Rejection::unresolvable("") } else { Rejection::because("") };
        Err(Rejection { reasons, ..rejection })
    }

    /// Only extended resources may be ignored: those with a domain that isn't Kubernetes' own.
    fn is_ignored(&self, name: &str) -> bool {
        let Some((group, _)) = name.split_once('/') else { return false };
        !group.ends_with("kubernetes.io") && (self.ignored.contains(name) || self.ignored_groups.contains(group))
    }
}

fn shape(ratio: Option<Ratio>) -> Result<Vec<(i64, i64)>, String> {
    let path = "scoringStrategy.requestedToCapacityRatio.shape";
    let points = ratio.map(|ratio| ratio.shape).unwrap_or_default();
    if points.is_empty() {
        return Err(format!("{path}: Required value: at least one point must be specified"));
    }
    for (i, point) in points.iter().enumerate() {
        if !(0..=100).contains(&point.utilization) {
            let value = point.utilization;
            return Err(format!("{path}[{i}].utilization: Invalid value: {value}: not in valid range [0-100]"));
        }
        if i > 0 && points[i - 1].utilization >= point.utilization {
            let value = point.utilization;
            return Err(format!(
                "{path}[{i}].utilization: Invalid value: {value}: utilization values must be sorted in increasing order"
            ));
        }
        if !(0..=10).contains(&point.score) {
            return Err(format!("{path}[{i}].score: Invalid value: {}: not in valid range [0-10]", point.score));
        }
    }
    // Points say 0 to 10, scores are 0 to 100.
    Ok(points.iter().map(|point| (point.utilization, point.score * 10)).collect())
}

impl Plugin for NodeResourcesFit {
    fn name(&self) -> &'static str {
        "NodeResourcesFit"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        Ok(Prepared::Filter(Box::new(Filter { plugin: self, pod: cycle.pod })))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        Some(Box::new(Compare { plugin: self, pod: cycle.pod }))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        match event {
            ClusterEvent::Node(change) => {
                let Some(new) = &change.new else { return false };
                // As if it were empty: what is on it is told by the pods' own events.
                self.lacks(pod, new, false, &[]).is_ok() && change.old.as_deref().is_none_or(|old| grew(pod, old, new))
            }
            // Its place among the node's pods is free at least.
            ClusterEvent::Pod(change) if change.is_removed() => true,
            ClusterEvent::Pod(change) | ClusterEvent::Own(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => wanted(pod).any(|name| old.requests.get(name) > new.requests.get(name)),
                _ => false,
            },
            _ => false,
        }
    }
}

/// The names of what the pod requests any of.
fn wanted(pod: &PodInfo) -> impl Iterator<Item = &str> {
    let others = pod.requests.others.keys().map(String::as_str);
    ["cpu", "memory", "ephemeral-storage"].into_iter().chain(others).filter(|name| pod.requests.get(name) > 0)
}

fn grew(pod: &PodInfo, old: &NodeInfo, new: &NodeInfo) -> bool {
    std::iter::once("pods").chain(wanted(pod)).any(|name| new.allocatable().get(name) > old.allocatable().get(name))
}

struct Filter<'a> {
    plugin: &'a NodeResourcesFit,
    pod: &'a PodInfo,
}

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        self.plugin.lacks(self.pod, node, true, &[])
    }

    fn filter_beside(&self, node: &NodeInfo, others: &[Arc<PodInfo>]) -> Option<Result<(), Rejection>> {
        Some(self.plugin.lacks(self.pod, node, true, others))
    }
}

struct Compare<'a> {
    plugin: &'a NodeResourcesFit,
    pod: &'a PodInfo,
}

impl Scorer for Compare<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (mut sum, mut weights) = (0, 0);
        let shaped = matches!(self.plugin.prefers, Prefers::Shape(_));
        for resource in &self.plugin.resources {
            let Some(Usage { used, all }) = Usage::of(&resource.name, self.pod, node, false) else { continue };
            let score = match &self.plugin.prefers {
                Prefers::Least => {
                    if used > all {
                        0
                    } else {
                        (all - used) * 100 / all
                    }
                }
                Prefers::Most => used.min(all) * 100 / all,
                Prefers::Shape(points) => ratio_score(points, if used > all { 100 } else { used * 100 / all }),
            };
            // Upstream counts a resource that scores nothing by shape as if it weren't named.
            if !shaped || score > 0 {
                sum += score * resource.weight;
                weights += resource.weight;
            }
        }
        match (weights, shaped) {
            (0, _) => 0,
            (_, false) => sum / weights,
            (_, true) => (sum as f64 / weights as f64).round() as i64,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::plugins::tests::{Try, node, pod};

    fn asking(cpu: &str, memory: &str) -> PodInfo {
        pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}))
    }

    fn fit(args: Value) -> NodeResourcesFit {
        NodeResourcesFit::new(serde_json::from_value(args).unwrap()).unwrap()
    }

    #[test]
    fn what_is_taken_is_missing() {
        let mut node = node(json!({}), json!({"cpu": "2", "memory": "1Gi", "pods": "2"}));
        let check = |pod: PodInfo, node: &NodeInfo, expect: &str| {
            assert_eq!(Try::new(&fit(json!({})), pod).on(node), expect);
        };
        check(asking("2", "1Gi"), &node, "");
        check(asking("2001m", "2Gi"), &node, "Insufficient cpu, Insufficient memory");
        node.add(Arc::new(asking("1500m", "1Mi")));
        check(asking("500m", "1Mi"), &node, "");
        check(asking("501m", "1Mi"), &node, "Insufficient cpu");
        let mut full = crate::plugins::tests::node(json!({}), json!({"cpu": "2", "memory": "1Gi", "pods": "1"}));
        full.add(Arc::new(pod(json!({}))));
        check(pod(json!({})), &full, "Too many pods");
    }

    #[test]
    fn extended_resources_may_be_ignored() {
        let asks = |name: &str| pod(json!({"containers": [{"name": "c", "resources": {"requests": {name: "1"}}}]}));
        let node = node(json!({}), json!({"pods": "9"}));
        let check = |args: Value, name: &str, expect: &str| {
            assert_eq!(Try::new(&fit(args), asks(name)).on(&node), expect);
        };
        check(json!({}), "x.io/gpu", "Insufficient x.io/gpu");
        check(json!({"ignoredResources": ["x.io/gpu"]}), "x.io/gpu", "");
        check(json!({"ignoredResourceGroups": ["x.io"]}), "x.io/gpu", "");
        check(json!({"ignoredResources": ["cpu"]}), "cpu", "Insufficient cpu");
    }

    #[test]
    fn strategies_compare() {
        let empty = node(json!({}), json!({"cpu": "4", "memory": "4Gi", "pods": "110"}));
        let mut busy = empty.clone();
        busy.add(Arc::new(asking("2", "2Gi")));
        let check = |strategy: Value, expect: [i64; 2]| {
            let plugin = fit(json!({"scoringStrategy": strategy}));
            assert_eq!(Try::new(&plugin, asking("1", "1Gi")).scores(&[&empty, &busy]), expect, "{strategy}");
        };
        check(json!({}), [75, 25]);
        check(json!({"type": "MostAllocated"}), [25, 75]);
        check(json!({"type": "MostAllocated", "resources": [{"name": "cpu"}, {"name": "x.io/gpu"}]}), [25, 75]);
        let shape =
            json!([{"utilization": 0, "score": 0}, {"utilization": 50, "score": 10}, {"utilization": 100, "score": 0}]);
        check(json!({"type": "RequestedToCapacityRatio", "requestedToCapacityRatio": {"shape": shape}}), [50, 50]);
    }

    #[test]
    fn mistakes_are_told() {
        let check = |strategy: Value, expect: &str| {
            let args = serde_json::from_value(json!({"scoringStrategy": strategy})).unwrap();
            assert!(NodeResourcesFit::new(args).err().unwrap().contains(expect));
        };
        check(json!({"type": "Best"}), "Unsupported value: \"Best\"");
        check(json!({"type": "RequestedToCapacityRatio"}), "at least one point must be specified");
        check(json!({"resources": [{"name": "cpu", "weight": 101}]}), "not in valid range [1, 100]");
    }
}
