//! Nodes keep off pods that don't tolerate their taints.

use k8s_openapi::api::core::v1::Toleration;

use crate::cluster::Cluster;
use crate::framework::{ClusterEvent, Cycle, NodeFilter, Plugin, Prepared, Rejection, Scorer, normalize_to_max};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

pub struct TaintToleration;

const HARD: [&str; 2] = ["NoSchedule", "NoExecute"];

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn pre_filter<'a>(&'a self, cycle: Cycle<'a>) -> Result<Prepared<'a>, Rejection> {
        let everything = |t: &Toleration| {
            let none = |text: &Option<String>| text.as_deref().unwrap_or_default().is_empty();
            none(&t.key) && none(&t.effect) && t.operator.as_deref() == Some("Exists")
        };
        if cycle.pod.tolerations.iter().any(everything) {
            return Ok(Prepared::Skip);
        }
        Ok(Prepared::Filter(Box::new(Filter(&cycle.pod.tolerations))))
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        let soft = |t: &&Toleration| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule"));
        Some(Box::new(Soft(cycle.pod.tolerations.iter().filter(soft).collect())))
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent, _: &Cluster) -> bool {
        let tolerated = |node: &NodeInfo| rules::tolerates_all(node.taints(), &pod.tolerations, &HARD);
        match event {
            ClusterEvent::Node(change) => {
                change.new.as_deref().is_some_and(tolerated) && !change.old.as_deref().is_some_and(tolerated)
            }
            ClusterEvent::Own(change) => match (&change.old, &change.new) {
                (Some(old), Some(new)) => old.tolerations != new.tolerations,
                _ => true,
            },
            _ => false,
        }
    }
}

struct Filter<'a>(&'a [Toleration]);

impl NodeFilter for Filter<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if rules::tolerates_all(node.taints(), self.0, &HARD) {
            return Ok(());
        }
        Err(Rejection::unresolvable("node(s) had untolerated taint(s)"))
    }

    fn by_pods(&self) -> bool {
        false
    }
}

/// The tolerations that are about soft taints.
struct Soft<'a>(Vec<&'a Toleration>);

impl Scorer for Soft<'_> {
    /// How many soft taints of the node the pod does not tolerate.
    fn score(&self, node: &NodeInfo) -> i64 {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        soft.filter(|taint| !self.0.iter().any(|toleration| rules::tolerates(toleration, taint))).count() as i64
    }

    fn normalize(&self, scores: &mut [i64], _: &[&NodeInfo]) {
        normalize_to_max(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, named, node, pod};

    #[test]
    fn hard_taints_filter() {
        let tainted = node(json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}), json!({}));
        let check = |spec, expect: &str| assert_eq!(Try::new(&TaintToleration, pod(spec)).on(&tainted), expect);
        check(json!({}), "node(s) had untolerated taint(s)");
        check(json!({"tolerations": [{"operator": "Exists"}]}), "");
    }

    #[test]
    fn soft_taints_score() {
        let tainted = named("a", json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}));
        let mut tried = Try::new(&TaintToleration, pod(json!({})));
        assert_eq!(tried.on(&tainted), "");
        assert_eq!(tried.scores(&[&tainted, &named("b", json!({}))]), [0, 100]);
    }
}
