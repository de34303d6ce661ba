//! Nodes keep off pods that don't tolerate their taints.

use k8s_openapi::api::core::v1::Toleration;

use crate::cache::NodeInfo;
use crate::framework::{ClusterEvent, Plugin, PodInfo, Rejection, normalize_to_max};

pub struct TaintToleration;

impl Plugin for TaintToleration {
    fn name(&self) -> &'static str {
        "TaintToleration"
    }

    fn filter(&self, pod: &PodInfo, node: &NodeInfo) -> Result<(), Rejection> {
        match rules::untolerated(node.taints(), tolerations(pod), &["NoSchedule", "NoExecute"]) {
            None => Ok(()),
            Some(taint) => {
                let value = taint.value.as_deref().unwrap_or_default();
                Err(Rejection::unresolvable(format!("node(s) had untolerated taint {{{}: {value}}}", taint.key)))
            }
        }
    }

    /// How many soft taints of the node the pod does not tolerate.
    fn score(&self, pod: &PodInfo, node: &NodeInfo) -> Option<i64> {
        let soft = node.taints().iter().filter(|taint| taint.effect == "PreferNoSchedule");
        let relevant: Vec<&Toleration> = tolerations(pod)
            .iter()
            .filter(|t| matches!(t.effect.as_deref(), None | Some("" | "PreferNoSchedule")))
            .collect();
        Some(soft.filter(|taint| !relevant.iter().any(|t| rules::tolerates(t, taint))).count() as i64)
    }

    fn normalize(&self, scores: &mut [i64]) {
        normalize_to_max(scores, true);
    }

    fn weight(&self) -> i64 {
        3
    }

    fn helps(&self, pod: &PodInfo, event: &ClusterEvent) -> bool {
        event.node().is_some_and(|node| self.filter(pod, node).is_ok())
    }
}

fn tolerations(pod: &PodInfo) -> &[Toleration] {
    pod.spec().tolerations.as_deref().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{node, pod};

    #[test]
    fn hard_taints_filter() {
        let tainted = node(json!({"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}), json!({}));
        let rejection = TaintToleration.filter(&pod(json!({})), &tainted).unwrap_err();
        assert_eq!(rejection.reasons, ["node(s) had untolerated taint {k: v}"]);
        assert!(TaintToleration.filter(&pod(json!({"tolerations": [{"operator": "Exists"}]})), &tainted).is_ok());
    }

    #[test]
    fn soft_taints_score() {
        let tainted = node(json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}), json!({}));
        assert!(TaintToleration.filter(&pod(json!({})), &tainted).is_ok());
        let mut scores = [TaintToleration.score(&pod(json!({})), &tainted).unwrap(), 0];
        TaintToleration.normalize(&mut scores);
        assert_eq!(scores, [0, 100]);
    }
}
