//! Nodes whose resources would be used alike are preferred.

use serde::Deserialize;

use crate::framework::{Cycle, MAX_SCORE, Plugin, Scorer};
use crate::node::NodeInfo;
use crate::plugins::allocation::{ResourceSpec, Usage, cpu_and_memory};
use crate::pod::PodInfo;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Args {
    pub api_version: String,
    pub kind: String,
    resources: Vec<ResourceSpec>,
}

pub struct NodeResourcesBalancedAllocation {
    resources: Vec<ResourceSpec>,
}

impl NodeResourcesBalancedAllocation {
    pub fn new(args: Args) -> NodeResourcesBalancedAllocation {
        let resources = if args.resources.is_empty() { cpu_and_memory() } else { args.resources };
        NodeResourcesBalancedAllocation { resources }
    }
}

impl Plugin for NodeResourcesBalancedAllocation {
    fn name(&self) -> &'static str {
        "NodeResourcesBalancedAllocation"
    }

    fn pre_score<'a>(&'a self, cycle: Cycle<'a>, _: &[&'a NodeInfo]) -> Option<Box<dyn Scorer + 'a>> {
        // A pod that requests nothing of it balances nothing.
        let asks = self.resources.iter().any(|resource| cycle.pod.requests.get(&resource.name) != 0);
        asks.then(|| Box::new(Balance { resources: &self.resources, pod: cycle.pod }) as Box<dyn Scorer + 'a>)
    }
}

struct Balance<'a> {
    resources: &'a [ResourceSpec],
    pod: &'a PodInfo,
}

impl Scorer for Balance<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let usages = self.resources.iter().filter_map(|resource| Usage::of(&resource.name, self.pod, node, true));
        let fractions: Vec<f64> = usages.map(|usage| (usage.used as f64 / usage.all as f64).min(1.0)).collect();
        let deviation = match fractions.as_slice() {
            [a, b] => ((a - b) / 2.0).abs(),
            [] | [_] => 0.0,
            many => {
                let mean = many.iter().sum::<f64>() / many.len() as f64;
                (many.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / many.len() as f64).sqrt()
            }
        };
        ((1.0 - deviation) * MAX_SCORE as f64) as i64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::{Try, node, pod};

    #[test]
    fn even_use_scores_highest() {
        let node = node(json!({}), json!({"cpu": "4", "memory": "4Gi"}));
        let check = |cpu: &str, memory: &str, expect: &[i64]| {
            let pod =
                pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}));
            let plugin = NodeResourcesBalancedAllocation::new(Args::default());
            assert_eq!(Try::new(&plugin, pod).scores(&[&node]), expect);
        };
        check("2", "2Gi", &[100]);
        check("4", "0", &[50]);
        check("0", "0", &[]);
    }
}
