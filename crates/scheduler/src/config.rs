//! `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`): which plugins decide, and how.
//!
//! Read strictly: what the file says and nobody knows is a mistake. Texts are upstream's.

mod args;
mod election;
pub(crate) mod fields;
mod profile;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use client::LeaderElection;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::framework::Profile;
use crate::plugins::{self, Parts};
use election::ElectionSpec;

/// Why a configuration can't be used: every mistake.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid scheduler configuration: {}", together(.0))]
pub struct ConfigError(pub Vec<String>);

fn together(mistakes: &[String]) -> String {
    match mistakes {
        [only] => only.clone(),
        all => format!("[{}]", all.join(", ")),
    }
}

/// A configuration as it is written. `parallelism`, `clientConnection` and what concerns profiling are accepted and not used.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Configuration {
    parallelism: i64,
    /// 0: as many as the size of the cluster suggests.
    percentage_of_nodes_to_score: i64,
    pod_initial_backoff_seconds: i64,
    pod_max_backoff_seconds: i64,
    profiles: Vec<ProfileSpec>,
    pub(crate) extenders: Vec<ExtenderSpec>,
    leader_election: ElectionSpec,
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration {
            parallelism: 16,
            percentage_of_nodes_to_score: 0,
            pod_initial_backoff_seconds: 1,
            pod_max_backoff_seconds: 10,
            profiles: Vec::new(),
            extenders: Vec::new(),
            leader_election: ElectionSpec::default(),
        }
    }
}

const API_VERSION: &str = "kubescheduler.config.k8s.io/v1";
const KIND: &str = "KubeSchedulerConfiguration";

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProfileSpec {
    scheduler_name: Option<String>,
    percentage_of_nodes_to_score: Option<i64>,
    /// By point, and `multiPoint`.
    plugins: BTreeMap<String, PluginSet>,
    plugin_config: Vec<PluginArgs>,
}

impl ProfileSpec {
    fn name(&self) -> &str {
        self.scheduler_name.as_deref().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct PluginSet {
    enabled: Vec<Choice>,
    disabled: Vec<Choice>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Choice {
    name: String,
    weight: i64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct PluginArgs {
    name: String,
    args: Value,
}

/// A server that is asked besides the plugins.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ExtenderSpec {
    pub url_prefix: String,
    pub filter_verb: String,
    pub preempt_verb: String,
    pub prioritize_verb: String,
    pub weight: i64,
    pub bind_verb: String,
    #[serde(rename = "enableHTTPS")]
    pub enable_https: bool,
    pub tls_config: Option<ExtenderTls>,
    /// As Go writes durations.
    pub http_timeout: String,
    pub node_cache_capable: bool,
    pub managed_resources: Vec<ManagedResource>,
    pub ignorable: bool,
}

/// How an extender is believed, and how it believes us. Data is base64 of PEM.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ExtenderTls {
    pub insecure: bool,
    pub server_name: String,
    pub cert_file: String,
    pub key_file: String,
    pub ca_file: String,
    pub cert_data: String,
    pub key_data: String,
    pub ca_data: String,
}

/// An extended resource that an extender decides about.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ManagedResource {
    pub name: String,
    pub ignored_by_scheduler: bool,
}

impl Configuration {
    /// Reads a file, YAML or JSON. One without any content is the default configuration.
    ///
    /// # Errors
    /// Every mistake in it; only the first one if it can't be decoded.
    pub fn from_yaml(text: &str) -> Result<Configuration, ConfigError> {
        let only = |mistake: String| ConfigError(vec![mistake]);
        if text.trim().is_empty() {
            return Ok(Configuration::default());
        }
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(text).map_err(|error| only(yaml_error(&error)))?;
        let value = serde_json::to_value(value).map_err(|error| only(error.to_string()))?;
        Configuration::parse(&value)
    }

    /// Reads YAML's JSON form.
    ///
    /// # Errors
    /// As [`Configuration::from_yaml`].
    pub fn parse(value: &Value) -> Result<Configuration, ConfigError> {
        let only = |mistake: String| ConfigError(vec![mistake]);
        let mut configuration = decode(value).map_err(only)?;
        configuration.default_names();
        let mistakes = configuration.mistakes();
        if !mistakes.is_empty() {
            return Err(ConfigError(mistakes));
        }
        for extender in &configuration.extenders {
            crate::extender::check(extender).map_err(|error| only(format!("couldn't build extenders: {error}")))?;
        }
        configuration.profiles(&Parts::default())?;
        Ok(configuration)
    }

    /// Of profiles that say nothing of it; 0: by the size of the cluster.
    pub(crate) fn percentage(&self) -> u32 {
        self.percentage_of_nodes_to_score as u32
    }

    pub(crate) fn backoff(&self) -> (Duration, Duration) {
        let seconds = |seconds: i64| Duration::from_secs(seconds.unsigned_abs());
        (seconds(self.pod_initial_backoff_seconds), seconds(self.pod_max_backoff_seconds))
    }

    /// How the lease is held without which nothing is scheduled; `None`: there is none.
    pub(crate) fn election(&self, identity: String) -> Option<LeaderElection> {
        self.leader_election.election(identity)
    }

    /// The only profile need not have a name.
    fn default_names(&mut self) {
        if self.profiles.is_empty() {
            self.profiles.push(ProfileSpec::default());
        }
        if let [only] = self.profiles.as_mut_slice() {
            only.scheduler_name.get_or_insert_with(|| crate::DEFAULT_NAME.into());
        }
    }

    /// Upstream: ValidateKubeSchedulerConfiguration.
    fn mistakes(&self) -> Vec<String> {
        let mut errors = self.leader_election.mistakes();
        let mut invalid =
            |path: &str, value: i64, why: &str| errors.push(format!("{path}: Invalid value: {value}: {why}"));
        if self.parallelism <= 0 {
            invalid("parallelism", self.parallelism, "should be an integer value greater than zero");
        }
        self.profile_mistakes(&mut errors);
        errors.extend(percentage("percentageOfNodesToScore", Some(self.percentage_of_nodes_to_score)));
        let mut invalid =
            |path: &str, value: i64, why: &str| errors.push(format!("{path}: Invalid value: {value}: {why}"));
        let (first, longest) = (self.pod_initial_backoff_seconds, self.pod_max_backoff_seconds);
        if first <= 0 {
            invalid("podInitialBackoffSeconds", first, "must be greater than 0");
        }
        if longest < first {
            let why = "must be greater than or equal to PodInitialBackoffSeconds";
            invalid("podMaxBackoffSeconds", longest, why);
        }
        self.extender_mistakes(&mut errors);
        errors
    }

    fn profile_mistakes(&self, errors: &mut Vec<String>) {
        for (i, profile) in self.profiles.iter().enumerate() {
            let path = format!("profiles[{i}]");
            if profile.name().is_empty() {
                errors.push(format!("{path}.schedulerName: Required value"));
            }
            errors
                .extend(percentage(&format!("{path}.percentageOfNodesToScore"), profile.percentage_of_nodes_to_score));
            let mut seen = BTreeSet::new();
            for (j, config) in profile.plugin_config.iter().enumerate() {
                let path = format!("{path}.pluginConfig[{j}]");
                if !seen.insert(&config.name) {
                    errors.push(format!("{path}: Duplicate value: {:?}", config.name));
                }
                errors
                    .extend(args::mistakes(&config.name, &config.args).iter().map(|why| format!("{path}.args.{why}")));
            }
            if let Some(other) = self.profiles[..i].iter().position(|other| other.name() == profile.name()) {
                errors.push(format!(
                    "{path}.schedulerName: Duplicate value: {:?}, as profiles[{other}] is called",
                    profile.name()
                ));
            }
        }
        // One queue cannot be sorted in several ways.
        let sorts = |profile: &ProfileSpec| profile.plugins.get("queueSort").cloned().unwrap_or_default();
        for (i, profile) in self.profiles.iter().enumerate().skip(1) {
            let sort = sorts(profile);
            if sort != sorts(&self.profiles[0]) {
                let list = |choices: &[Choice]| match choices {
                    [] => Value::Null,
                    some => some.iter().map(|choice| json!({"Name": choice.name, "Weight": choice.weight})).collect(),
                };
                let value = json!({"Enabled": list(&sort.enabled), "Disabled": list(&sort.disabled)});
                let path = format!("profiles[{i}].plugins.queueSort");
                errors.push(format!("{path}: Invalid value: {value}: must be the same for all profiles"));
            }
        }
    }

    fn extender_mistakes(&self, errors: &mut Vec<String>) {
        let mut managed = BTreeSet::new();
        for (i, extender) in self.extenders.iter().enumerate() {
            if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
                let weight = extender.weight;
                let why = "must have a positive weight applied to it";
                errors.push(format!("extenders[{i}].weight: Invalid value: {weight}: {why}"));
            }
            for (j, resource) in extender.managed_resources.iter().enumerate() {
                let name = &resource.name;
                let mut invalid = |why: &str| {
                    errors.push(format!("extenders[{i}].managedResources[{j}].name: Invalid value: {name:?}: {why}"))
                };
                let problems = apimachinery::validation::qualified_name(name);
                problems.iter().for_each(|why| invalid(why));
                if problems.is_empty() && !is_extended(name) {
                    invalid("is an invalid extended resource name");
                }
                if !managed.insert(name) {
                    invalid("duplicate extender managed resource name");
                }
            }
        }
        let binders = self.extenders.iter().filter(|extender| !extender.bind_verb.is_empty()).count();
        if binders > 1 {
            let value = format!("found {binders} extenders implementing bind");
            errors.push(format!("extenders: Invalid value: {value:?}: only one extender can implement bind"));
        }
    }

    /// The profiles, their plugins made.
    pub(crate) fn profiles(&self, parts: &Parts) -> Result<Vec<Profile>, ConfigError> {
        let default = [ProfileSpec { scheduler_name: Some(crate::DEFAULT_NAME.into()), ..ProfileSpec::default() }];
        let specs = if self.profiles.is_empty() { &default[..] } else { &self.profiles[..] };
        let ignored: Vec<&str> = self
            .extenders
            .iter()
            .flat_map(|extender| &extender.managed_resources)
            .filter(|resource| resource.ignored_by_scheduler)
            .map(|resource| resource.name.as_str())
            .collect();
        let (mut profiles, mut errors) = (Vec::new(), Vec::new());
        for spec in specs {
            match profile::make(spec, &ignored, parts) {
                Ok(profile) => profiles.push(profile),
                Err(why) => {
                    errors.push(format!(
                        "initializing profiles: creating profile for scheduler name {}: {why}",
                        spec.name()
                    ));
                }
            }
        }
        if errors.is_empty() { Ok(profiles) } else { Err(ConfigError(errors)) }
    }
}

/// Checks version, kind and every field, then decodes.
fn decode(value: &Value) -> Result<Configuration, String> {
    let text = |key: &str| value[key].as_str().unwrap_or_default();
    if !value.is_object() {
        let kind = fields::kind(value);
        return Err(format!(
            "couldn't get version/kind; json parse error: json: cannot unmarshal {kind} into Go value"
        ));
    }
    if text("kind").is_empty() {
        return Err(format!("Object 'Kind' is missing in '{value}'"));
    }
    if text("apiVersion") != API_VERSION || text("kind") != KIND {
        let (version, kind) = (text("apiVersion"), text("kind"));
        return Err(format!(
            "no kind {kind:?} is registered for version {version:?}: only {KIND:?} of {API_VERSION:?} is"
        ));
    }
    let mut unknown = Vec::new();
    fields::walk(value, &fields::CONFIGURATION, &mut unknown)?;
    for (i, profile) in value["profiles"].as_array().into_iter().flatten().enumerate() {
        for (j, config) in profile["pluginConfig"].as_array().into_iter().flatten().enumerate() {
            let place = format!("decoding .profiles[{i}].pluginConfig[{j}]: ");
            let below = arguments(config).map_err(|why| place.clone() + &why)?;
            if !below.is_empty() {
                let strict = "strict decoding error: ";
                let name = config["name"].as_str().unwrap_or_default();
                unknown.push(format!("{place}{strict}decoding args for plugin {name}: {strict}{}", below.join(", ")));
            }
        }
    }
    if !unknown.is_empty() {
        return Err(format!("strict decoding error: {}", unknown.join(", ")));
    }
    Configuration::deserialize(without_nulls(value)).map_err(|error| error.to_string())
}

/// Checks the fields of one plugin's arguments, and returns what is said of those that there are not.
fn arguments(config: &Value) -> Result<Vec<String>, String> {
    let name = config["name"].as_str().unwrap_or_default();
    let Some(shape) = fields::arguments(name) else { return Ok(Vec::new()) };
    let args = &config["args"];
    let text = |key: &str| args[key].as_str().unwrap_or_default();
    let (group, kind) = (text("apiVersion").split('/').next().unwrap_or_default(), text("kind"));
    let wanted = format!("{name}Args");
    if !kind.is_empty() && (kind != wanted || text("apiVersion") != API_VERSION) {
        let own = API_VERSION.split('/').next().unwrap_or_default();
        return Err(format!("args for plugin {name} were not of type {wanted}.{own}, got {kind}.{group}"));
    }
    let mut below = Vec::new();
    fields::walk(args, shape, &mut below).map_err(|why| format!("decoding args for plugin {name}: {why}"))?;
    Ok(below)
}

/// A field that is null is one that isn't given.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let given = members.iter().filter(|(_, value)| !value.is_null());
            given.map(|(key, value)| (key.clone(), without_nulls(value))).collect::<serde_json::Map<_, _>>().into()
        }
        Value::Array(items) => items.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// Why it is no YAML; a key that stands there twice is told as upstream does.
fn yaml_error(error: &serde_yaml_ng::Error) -> String {
    let text = error.to_string();
    match text.split_once("duplicate entry with key ").map(|(_, rest)| rest.split('"').nth(1).unwrap_or_default()) {
        Some(key) => format!("strict decoding error: key {key:?} already set in map"),
        None => format!("couldn't get version/kind; json parse error: {text}"),
    }
}

fn percentage(path: &str, value: Option<i64>) -> Option<String> {
    let value = value.filter(|value| !(0..=100).contains(value))?;
    Some(format!("{path}: Invalid value: {value}: not in valid range [0-100]"))
}

/// Whether a resource is somebody else's. Upstream: v1helper.IsExtendedResourceName.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests;
