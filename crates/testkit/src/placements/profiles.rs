//! The profiles that wide scenarios' pods name.

use serde_json::{Value, json};

use super::{Maker, ZONE};

/// The names of all profiles.
pub const PROFILES: [&str; 6] = ["default-scheduler", "packs", "ratio", "few", "lists", "tenth"];

/// A `KubeSchedulerConfiguration` with all profiles.
pub fn configuration() -> Value {
    let fit = |strategy: Value| json!({"name": "NodeResourcesFit", "args": {"scoringStrategy": strategy}});
    let both = json!([{"name": "cpu", "weight": 3}, {"name": "memory", "weight": 1}]);
    let shape =
        json!([{"utilization": 0, "score": 2}, {"utilization": 40, "score": 10}, {"utilization": 100, "score": 1}]);
    let ratio =
        json!({"type": "RequestedToCapacityRatio", "resources": both, "requestedToCapacityRatio": {"shape": shape}});
    let affinity = json!({"preferredDuringSchedulingIgnoredDuringExecution":
        [{"weight": 40, "preference": {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}}]});
    json!({"apiVersion": "kubescheduler.config.k8s.io/v1", "kind": "KubeSchedulerConfiguration",
    "leaderElection": {"leaderElect": false},
    "profiles": [
        {"schedulerName": "default-scheduler"},
        {"schedulerName": "packs", "pluginConfig": [
            fit(json!({"type": "MostAllocated", "resources": [{"name": "cpu", "weight": 1}, {"name": "example.com/gpu", "weight": 5}]})),
            {"name": "NodeAffinity", "args": {"addedAffinity": affinity}},
            {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 50, "ignorePreferredTermsOfExistingPods": true}}]},
        {"schedulerName": "ratio", "pluginConfig": [fit(ratio)]},
        {"schedulerName": "few", "plugins": {
            "score": {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 7}, {"name": "TaintToleration", "weight": 2}]},
            "filter": {"disabled": [{"name": "NodePorts"}]},
            "postFilter": {"disabled": [{"name": "DefaultPreemption"}]}}},
        {"schedulerName": "lists", "pluginConfig": [
            {"name": "PodTopologySpread", "args": {"defaultingType": "List", "defaultConstraints":
                [{"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "ScheduleAnyway"}]}},
            {"name": "NodeResourcesFit", "args": {"ignoredResources": ["example.com/gpu"]}}]},
        {"schedulerName": "tenth", "percentageOfNodesToScore": 10},
    ]})
}

impl Maker {
    /// Who places a pod.
    pub(super) fn profile(&self, theme: u64) -> &'static str {
        match theme {
            // Whom it pushes aside is what this is about.
            2 => "default-scheduler",
            5 => PROFILES[1 + self.below(5) as usize],
            _ => PROFILES[self.below(5) as usize],
        }
    }
}
