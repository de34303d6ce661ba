//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`): which plugins decide, and how.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::framework::{Enabled, Plugin, Point, Profile};
use crate::plugins::{self, Parts};

/// Why a configuration can't be used: every mistake, one a line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid scheduler configuration:\n  {}", .0.join("\n  "))]
pub struct ConfigError(pub Vec<String>);

/// A configuration as it is written. Fields that concern the process (leader election, connection, health) are accepted and not used.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Configuration {
    pub api_version: String,
    pub kind: String,
    parallelism: i64,
    /// 0: as many as the size of the cluster suggests.
    pub percentage_of_nodes_to_score: u32,
    pod_initial_backoff_seconds: u64,
    pod_max_backoff_seconds: u64,
    profiles: Vec<ProfileSpec>,
    pub extenders: Vec<ExtenderSpec>,
    leader_election: Value,
    client_connection: Value,
    health_bind_address: Value,
    metrics_bind_address: Value,
    enable_profiling: Value,
    enable_contention_profiling: Value,
    delay_cache_until_active: Value,
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration {
            api_version: API_VERSION.into(),
            kind: KIND.into(),
            parallelism: 16,
            percentage_of_nodes_to_score: 0,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
            leader_election: Value::Null,
            client_connection: Value::Null,
            health_bind_address: Value::Null,
            metrics_bind_address: Value::Null,
            enable_profiling: Value::Null,
            enable_contention_profiling: Value::Null,
            delay_cache_until_active: Value::Null,
        }
    }
}

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct ProfileSpec {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<u32>,
    /// By point, and `multiPoint`.
    plugins: BTreeMap<String, PluginSet>,
    plugin_config: Vec<PluginArgs>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginSet {
    enabled: Vec<Choice>,
    disabled: Vec<Choice>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct Choice {
    name: String,
    weight: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct PluginArgs {
    name: String,
    args: Value,
}

/// A server that is asked besides the plugins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExtenderSpec {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Value,
    pub http_timeout: Value,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<Value>,
    pub ignorable: bool,
}

impl Configuration {
    /// Reads YAML's JSON form.
    pub fn parse(value: &Value) -> Result<Configuration, ConfigError> {
        let configuration = Configuration::deserialize(value).map_err(|error| ConfigError(vec![format!("{error}")]))?;
        let mut errors = configuration.mistakes();
        if errors.is_empty() {
            errors.extend(configuration.profiles(&Parts::default()).err().into_iter().flat_map(|error| error.0));
        }
        if errors.is_empty() { Ok(configuration) } else { Err(ConfigError(errors)) }
    }

    pub(crate) fn backoff(&self) -> (Duration, Duration) {
        (Duration::from_secs(self.pod_initial_backoff_seconds), Duration::from_secs(self.pod_max_backoff_seconds))
    }

    fn mistakes(&self) -> Vec<String> {
        let mut errors = Vec::new();
        if self.api_version != API_VERSION || self.kind != KIND {
            let (version, kind) = (&self.api_version, &self.kind);
            errors
                .push(format!("no kind {kind:?} is registered for version {version:?}: {API_VERSION} {KIND} is read"));
        }
        if self.parallelism <= 0 {
            errors.push(format!(
                "parallelism: Invalid value: {}: should be an integer value greater than zero",
                self.parallelism
            ));
        }
        if self.percentage_of_nodes_to_score > 100 {
            let value = self.percentage_of_nodes_to_score;
            errors.push(format!("percentageOfNodesToScore: Invalid value: {value}: not in valid range [0-100]"));
        }
        let (first, longest) = (self.pod_initial_backoff_seconds, self.pod_max_backoff_seconds);
        if first == 0 {
            errors.push("podInitialBackoffSeconds: Invalid value: 0: must be greater than 0".into());
        }
        if longest < first {
            errors.push(format!(
                "podMaxBackoffSeconds: Invalid value: {longest}: must be greater than or equal to PodInitialBackoffSeconds"
            ));
        }
        let mut names = BTreeSet::new();
        for (i, profile) in self.profiles.iter().enumerate() {
            match profile.scheduler_name.as_deref() {
                Some("") => errors.push(format!("profiles[{i}].schedulerName: Required value")),
                None if self.profiles.len() > 1 => {
                    errors.push(format!("profiles[{i}].schedulerName: Required value"));
                }
                name => {
                    let name = name.unwrap_or(crate::DEFAULT_NAME);
                    if !names.insert(name) {
                        errors.push(format!("profiles[{i}].schedulerName: Duplicate value: {name:?}"));
                    }
                }
            }
        }
        for (i, extender) in self.extenders.iter().enumerate() {
            if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
                let weight = extender.weight;
                errors.push(format!(
                    "extenders[{i}].weight: Invalid value: {weight}: must have a positive weight applied to it"
                ));
            }
        }
        if self.extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count() > 1 {
            errors.push("extenders: Invalid value: found more than one extender implementing bind".into());
        }
        errors
    }

    /// The profiles, their plugins made; one with the defaults if none is named.
    pub(crate) fn profiles(&self, parts: &Parts) -> Result<Vec<Profile>, ConfigError> {
        let mut errors = Vec::new();
        let default = [ProfileSpec::default()];
        let specs = if self.profiles.is_empty() { &default[..] } else { &self.profiles[..] };
        let mut profiles = Vec::new();
        for (i, spec) in specs.iter().enumerate() {
            match make(spec, parts) {
                Ok(profile) => profiles.push(profile),
                Err(mistakes) => errors.extend(mistakes.iter().map(|mistake| format!("profiles[{i}].{mistake}"))),
            }
        }
        if errors.is_empty() { Ok(profiles) } else { Err(ConfigError(errors)) }
    }
}

fn make(spec: &ProfileSpec, parts: &Parts) -> Result<Profile, Vec<String>> {
    let mut errors = Vec::new();
    for (point, set) in &spec.plugins {
        if point != "multiPoint" && !Point::ALL.iter().any(|(name, _)| name == point) {
            errors.push(format!("plugins.{point}: unknown extension point"));
        }
        for (i, choice) in set.enabled.iter().enumerate() {
            if plugins::known(&choice.name).is_none() {
                errors.push(format!("plugins.{point}.enabled[{i}]: {} does not exist", choice.name));
            }
        }
    }
    let mut made: BTreeMap<&str, Arc<dyn Plugin>> = BTreeMap::new();
    for known in plugins::ALL {
        let given: Vec<&PluginArgs> = spec.plugin_config.iter().filter(|args| args.name == known.name).collect();
        if given.len() > 1 {
            errors.push(format!("pluginConfig: Duplicate value: {:?}: repeated config for plugin", known.name));
        }
        match (known.make)(given.first().map_or(&Value::Null, |given| &given.args), parts) {
            Ok(plugin) => drop(made.insert(known.name, plugin)),
            Err(error) => errors.push(format!("pluginConfig[{}].args.{error}", known.name)),
        }
    }
    for (i, args) in spec.plugin_config.iter().enumerate() {
        if plugins::known(&args.name).is_none() {
            errors.push(format!("pluginConfig[{i}].name: Invalid value: {:?}: no such plugin", args.name));
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let points = Point::ALL.map(|(name, point)| enabled(spec, name, point, &made));
    for (at, least) in [(Point::QueueSort, "queue sort"), (Point::Bind, "bind")] {
        if points[at as usize].is_empty() {
            errors.push(format!("plugins: at least one {least} plugin is needed"));
        }
    }
    if points[Point::QueueSort as usize].len() > 1 {
        errors.push("plugins: only one queue sort plugin can be enabled".into());
    }
    let name = spec.scheduler_name.clone().unwrap_or_else(|| crate::DEFAULT_NAME.into());
    let profile = Profile::new(name, points, spec.percentage_of_nodes_to_score);
    if errors.is_empty() { Ok(profile) } else { Err(errors) }
}

/// Who is asked at a point: those named there that are also enabled everywhere, the others enabled everywhere, the others named there.
fn enabled(spec: &ProfileSpec, name: &str, point: Point, made: &BTreeMap<&str, Arc<dyn Plugin>>) -> Vec<Enabled> {
    let none = PluginSet::default();
    let set = spec.plugins.get(name).unwrap_or(&none);
    let everywhere = everywhere(spec.plugins.get("multiPoint").unwrap_or(&none));
    let can = |name: &str| plugins::known(name).is_some_and(|known| known.points.contains(&point));
    let off = |name: &str| set.disabled.iter().any(|choice| choice.name == name || choice.name == "*");
    let mut chosen: Vec<(&str, i64)> = Vec::new();
    let mut choose = |name, weight| {
        if can(name) && !chosen.iter().any(|(known, _)| *known == name) {
            chosen.push((name, weight));
        }
    };
    for choice in set.enabled.iter().filter(|choice| everywhere.iter().any(|(name, _)| *name == choice.name)) {
        choose(&choice.name, choice.weight);
    }
    for (name, weight) in everywhere.iter().filter(|(name, _)| !off(name)) {
        choose(name, *weight);
    }
    for choice in &set.enabled {
        choose(&choice.name, choice.weight);
    }
    let make = |(name, weight): (&str, i64)| Enabled { plugin: made[name].clone(), weight: weight.max(1) };
    chosen.into_iter().map(make).collect()
}

/// The defaults, as `multiPoint` changes them, with weights.
fn everywhere(set: &PluginSet) -> Vec<(&str, i64)> {
    let off = |name: &str| set.disabled.iter().any(|choice| choice.name == name || choice.name == "*");
    let chosen = |name: &str| set.enabled.iter().find(|choice| choice.name == name);
    let mut all: Vec<(&str, i64)> = Vec::new();
    for known in plugins::ALL.iter().filter(|known| !off(known.name)) {
        all.push((known.name, chosen(known.name).map_or(known.weight, |choice| choice.weight)));
    }
    for choice in &set.enabled {
        if !all.iter().any(|(name, _)| *name == choice.name) {
            all.push((&choice.name, choice.weight));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn names(profile: &Profile, point: Point) -> Vec<(&'static str, i64)> {
        profile.at(point).iter().map(|enabled| (enabled.plugin.name(), enabled.weight)).collect()
    }

    fn profile(spec: Value) -> Profile {
        let value = json!({"apiVersion": API_VERSION, "kind": KIND, "profiles": [spec]});
        Configuration::parse(&value).unwrap().profiles(&Parts::default()).unwrap().remove(0)
    }

    #[test]
    fn the_defaults_are_upstreams() {
        let scores = names(&plugins::default_profile(), Point::Score);
        assert_eq!(
            scores,
            [
                ("TaintToleration", 3),
                ("NodeAffinity", 2),
                ("NodeResourcesFit", 1),
                ("VolumeBinding", 1),
                ("PodTopologySpread", 2),
                ("InterPodAffinity", 2),
                ("NodeResourcesBalancedAllocation", 1),
                ("ImageLocality", 1),
            ]
        );
    }

    #[test]
    fn plugins_are_chosen_and_weighed() {
        let chosen = profile(
            json!({"plugins": {"score": {"disabled": [{"name": "*"}], "enabled": [{"name": "ImageLocality", "weight": 5}]}}}),
        );
        assert_eq!(names(&chosen, Point::Score), [("ImageLocality", 5)]);
        let few = json!([{"name": "PrioritySort"}, {"name": "DefaultBinder"}, {"name": "NodeAffinity", "weight": 7}]);
        let chosen = profile(json!({"plugins": {"multiPoint": {"disabled": [{"name": "*"}], "enabled": few}}}));
        assert_eq!(names(&chosen, Point::Score), [("NodeAffinity", 7)]);
        assert_eq!(names(&chosen, Point::PostFilter), []);
        let chosen = profile(json!({"plugins": {"filter": {"disabled": [{"name": "NodePorts"}]}}}));
        assert!(!names(&chosen, Point::Filter).iter().any(|(name, _)| *name == "NodePorts"));
    }

    #[test]
    fn every_mistake_is_told() {
        let check = |change: Value, expect: &str| {
            let mut value = json!({"apiVersion": API_VERSION, "kind": KIND});
            value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = Configuration::parse(&value).unwrap_err().to_string();
            assert!(error.contains(expect), "{error}");
        };
        check(json!({"kind": "Pod"}), "no kind \"Pod\" is registered");
        check(json!({"parallelism": 0}), "parallelism: Invalid value: 0");
        check(json!({"percentageOfNodesToScore": 101}), "not in valid range [0-100]");
        check(json!({"podMaxBackoffSeconds": 0}), "podMaxBackoffSeconds: Invalid value: 0");
        check(json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}), "Duplicate value: \"a\"");
        check(json!({"profiles": [{"plugins": {"score": {"enabled": [{"name": "Best"}]}}}]}), "Best does not exist");
        check(json!({"profiles": [{"plugins": {"sort": {}}}]}), "plugins.sort: unknown extension point");
        let args = json!([{"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 101}}]);
        check(json!({"profiles": [{"pluginConfig": args}]}), "hardPodAffinityWeight: Invalid value: 101");
        check(json!({"colour": "red"}), "unknown field `colour`");
    }
}
