//! How much of a node would be used: what both plugins about resources compare by. Upstream: noderesources resourceAllocationScorer.

use serde::Deserialize;

use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// A resource, and how much it counts.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ResourceSpec {
    pub name: String,
    pub weight: i64,
}

/// What is compared unless the configuration says otherwise.
pub fn cpu_and_memory() -> Vec<ResourceSpec> {
    ["cpu", "memory"].map(|name| ResourceSpec { name: name.to_owned(), weight: 1 }).to_vec()
}

/// How much of a resource would be used if the pod came.
pub struct Usage {
    pub used: i64,
    /// Never 0.
    pub all: i64,
}

impl Usage {
    /// `None`: the node has none of it, or the pod asks for none of something special. `real`: without least amounts.
    pub fn of(name: &str, pod: &PodInfo, node: &NodeInfo, real: bool) -> Option<Usage> {
        let special = !matches!(name, "cpu" | "memory" | "ephemeral-storage");
        let (wanted, used) = match real || special || name == "ephemeral-storage" {
            true => (pod.requests.get(name), node.requested().get(name)),
            false => (pod.scored_requests.get(name), node.scored_requests().get(name)),
        };
        let all = node.allocatable().get(name);
        if special && wanted == 0 || all == 0 { None } else { Some(Usage { used: used + wanted, all }) }
    }
}

/// The score at `percent` on the line through `points` of (percent, score). Upstream: helper.BuildBrokenLinearFunction.
pub fn ratio_score(points: &[(i64, i64)], percent: i64) -> i64 {
    for (i, (at, score)) in points.iter().enumerate() {
        if percent <= *at {
            let Some((before, from)) = i.checked_sub(1).map(|i| points[i]) else { return points[0].1 };
            return from + (score - from) * (percent - before) / (at - before);
        }
    }
    points.last().map_or(0, |(_, score)| *score)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_lie_on_the_line() {
        let points = [(10, 100), (50, 20), (90, 60)];
        let check = |percent, expect| assert_eq!(ratio_score(&points, percent), expect, "{percent}");
        check(0, 100);
        check(10, 100);
        check(30, 60);
        check(50, 20);
        check(70, 40);
        check(100, 60);
    }
}
