//! Which fields there are: what the file says that nobody reads is told, with where it stands. Texts are those of Go's decoder.

use std::time::Duration;

use base64::Engine;
use serde_json::Value;

/// What a field holds.
pub(super) enum Shape {
    Text,
    Bool,
    Int32,
    Int64,
    Float,
    /// `1m30s`.
    Duration,
    /// Base64.
    Bytes,
    /// Looked at elsewhere.
    Any,
    /// Go's name of the type, and its fields.
    Object(&'static str, &'static [(&'static str, Shape)]),
    List(&'static str, &'static Shape),
}

use Shape::{Any, Bool, Bytes, Float, Int32, Int64, List, Object, Text};

const fn choices() -> Shape {
    List("[]v1.Plugin", &Object("Plugin", &[("name", Text), ("weight", Int32)]))
}

const SET: Shape = Object("PluginSet", &[("enabled", choices()), ("disabled", choices())]);

const PLUGINS: Shape = Object(
    "Plugins",
    &[
        ("preEnqueue", SET),
        ("queueSort", SET),
        ("preFilter", SET),
        ("filter", SET),
        ("postFilter", SET),
        ("preScore", SET),
        ("score", SET),
        ("reserve", SET),
        ("permit", SET),
        ("preBind", SET),
        ("bind", SET),
        ("postBind", SET),
        ("multiPoint", SET),
    ],
);

const PROFILE: Shape = Object(
    "KubeSchedulerProfile",
    &[
        ("schedulerName", Text),
        ("percentageOfNodesToScore", Int32),
        ("plugins", PLUGINS),
        ("pluginConfig", List("[]v1.PluginConfig", &Object("PluginConfig", &[("name", Text), ("args", Any)]))),
    ],
);

const EXTENDER: Shape = Object(
    "Extender",
    &[
        ("urlPrefix", Text),
        ("filterVerb", Text),
        ("preemptVerb", Text),
        ("prioritizeVerb", Text),
        ("weight", Int64),
        ("bindVerb", Text),
        ("enableHTTPS", Bool),
        (
            "tlsConfig",
            Object(
                "ExtenderTLSConfig",
                &[
                    ("insecure", Bool),
                    ("serverName", Text),
                    ("certFile", Text),
                    ("keyFile", Text),
                    ("caFile", Text),
                    ("certData", Bytes),
                    ("keyData", Bytes),
                    ("caData", Bytes),
                ],
            ),
        ),
        ("httpTimeout", Shape::Duration),
        ("nodeCacheCapable", Bool),
        (
            "managedResources",
            List(
                "[]v1.ExtenderManagedResource",
                &Object("ExtenderManagedResource", &[("name", Text), ("ignoredByScheduler", Bool)]),
            ),
        ),
        ("ignorable", Bool),
    ],
);

/// `KubeSchedulerConfiguration`.
pub(super) const CONFIGURATION: Shape = Object(
    "KubeSchedulerConfiguration",
    &[
        ("apiVersion", Text),
        ("kind", Text),
        ("parallelism", Int32),
        (
            "leaderElection",
            Object(
                "LeaderElectionConfiguration",
                &[
                    ("leaderElect", Bool),
                    ("leaseDuration", Shape::Duration),
                    ("renewDeadline", Shape::Duration),
                    ("retryPeriod", Shape::Duration),
                    ("resourceLock", Text),
                    ("resourceName", Text),
                    ("resourceNamespace", Text),
                ],
            ),
        ),
        (
            "clientConnection",
            Object(
                "ClientConnectionConfiguration",
                &[
                    ("kubeconfig", Text),
                    ("acceptContentTypes", Text),
                    ("contentType", Text),
                    ("qps", Float),
                    ("burst", Int32),
                ],
            ),
        ),
        ("enableProfiling", Bool),
        ("enableContentionProfiling", Bool),
        ("percentageOfNodesToScore", Int32),
        ("podInitialBackoffSeconds", Int64),
        ("podMaxBackoffSeconds", Int64),
        ("profiles", List("[]v1.KubeSchedulerProfile", &PROFILE)),
        ("extenders", List("[]v1.Extender", &EXTENDER)),
        ("delayCacheUntilActive", Bool),
    ],
);

const RESOURCES: Shape = List("[]v1.ResourceSpec", &Object("ResourceSpec", &[("name", Text), ("weight", Int64)]));

const POINTS: Shape =
    List("[]v1.UtilizationShapePoint", &Object("UtilizationShapePoint", &[("utilization", Int32), ("score", Int32)]));

const REQUIREMENTS: Shape = List(
    "[]v1.NodeSelectorRequirement",
    &Object("NodeSelectorRequirement", &[("key", Text), ("operator", Text), ("values", List("[]string", &Text))]),
);

const TERM: Shape = Object("NodeSelectorTerm", &[("matchExpressions", REQUIREMENTS), ("matchFields", REQUIREMENTS)]);

const NODE_AFFINITY: Shape = Object(
    "NodeAffinity",
    &[
        (
            "requiredDuringSchedulingIgnoredDuringExecution",
            Object("NodeSelector", &[("nodeSelectorTerms", List("[]v1.NodeSelectorTerm", &TERM))]),
        ),
        (
            "preferredDuringSchedulingIgnoredDuringExecution",
            List(
                "[]v1.PreferredSchedulingTerm",
                &Object("PreferredSchedulingTerm", &[("weight", Int32), ("preference", TERM)]),
            ),
        ),
    ],
);

const CONSTRAINTS: Shape = List(
    "[]v1.TopologySpreadConstraint",
    &Object(
        "TopologySpreadConstraint",
        &[
            ("maxSkew", Int32),
            ("topologyKey", Text),
            ("whenUnsatisfiable", Text),
            ("labelSelector", Any),
            ("minDomains", Int32),
            ("nodeAffinityPolicy", Text),
            ("nodeTaintsPolicy", Text),
            ("matchLabelKeys", List("[]string", &Text)),
        ],
    ),
);

macro_rules! arguments {
    ($($plugin:literal: $fields:expr;)*) => {
        /// The arguments of the plugin; `None`: it has none that are known.
        pub(super) fn arguments(plugin: &str) -> Option<&'static Shape> {
            match plugin {
                $($plugin => {
                    const SHAPE: &Shape = &Object(concat!($plugin, "Args"), $fields);
                    Some(SHAPE)
                })*
                _ => None,
            }
        }
    };
}

arguments! {
    "DefaultPreemption": &[("apiVersion", Text), ("kind", Text), ("minCandidateNodesPercentage", Int32), ("minCandidateNodesAbsolute", Int32)];
    "DynamicResources": &[("apiVersion", Text), ("kind", Text), ("filterTimeout", Shape::Duration), ("bindingTimeout", Shape::Duration)];
    "InterPodAffinity": &[("apiVersion", Text), ("kind", Text), ("hardPodAffinityWeight", Int32), ("ignorePreferredTermsOfExistingPods", Bool)];
    "NodeAffinity": &[("apiVersion", Text), ("kind", Text), ("addedAffinity", NODE_AFFINITY)];
    "NodeResourcesBalancedAllocation": &[("apiVersion", Text), ("kind", Text), ("resources", RESOURCES)];
    "NodeResourcesFit": &[
        ("apiVersion", Text),
        ("kind", Text),
        ("ignoredResources", List("[]string", &Text)),
        ("ignoredResourceGroups", List("[]string", &Text)),
        ("scoringStrategy", Object("ScoringStrategy", &[
            ("type", Text),
            ("resources", RESOURCES),
            ("requestedToCapacityRatio", Object("RequestedToCapacityRatioParam", &[("shape", POINTS)])),
        ])),
    ];
    "PodTopologySpread": &[("apiVersion", Text), ("kind", Text), ("defaultConstraints", CONSTRAINTS), ("defaultingType", Text)];
    "VolumeBinding": &[("apiVersion", Text), ("kind", Text), ("bindTimeoutSeconds", Int64), ("shape", POINTS)];
}

/// Compares `value` with the shape.
///
/// # Errors
/// The first value of another type. Fields that there are not are put into `unknown`.
pub(super) fn walk(value: &Value, shape: &Shape, unknown: &mut Vec<String>) -> Result<(), String> {
    let at = At { object: "", dotted: String::new(), path: String::new() };
    at.walk(value, shape, unknown)
}

struct At {
    /// The type whose field this is.
    object: &'static str,
    /// Without places in lists, as Go's decoder tells it.
    dotted: String,
    /// With them.
    path: String,
}

impl At {
    fn walk(&self, value: &Value, shape: &Shape, unknown: &mut Vec<String>) -> Result<(), String> {
        let wrong = |wanted: &str| Err(self.wrong(value, wanted));
        match (shape, value) {
            (_, Value::Null)
            | (Any, _)
            | (Text, Value::String(_))
            | (Bool, Value::Bool(_))
            | (Float, Value::Number(_)) => Ok(()),
            (Text | Shape::Duration, Value::Number(_) | Value::Bool(_)) => wrong("string"),
            (Text, _) => wrong("string"),
            (Bool, _) => wrong("bool"),
            (Float, _) => wrong("float32"),
            (Int32, Value::Number(number)) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
            (Int32, _) => wrong("int32"),
            (Int64, Value::Number(number)) if number.as_i64().is_some() => Ok(()),
            (Int64, _) => wrong("int64"),
            (Shape::Duration, Value::String(text)) => match seconds(text) {
                Some(_) => Ok(()),
                None => Err(format!("time: invalid duration {text:?}")),
            },
            (Shape::Duration, _) => wrong("string"),
            (Bytes, Value::String(text)) => match base64::engine::general_purpose::STANDARD.decode(text) {
                Ok(_) => Ok(()),
                Err(base64::DecodeError::InvalidByte(at, _)) => Err(format!("illegal base64 data at input byte {at}")),
                Err(_) => Err(format!("illegal base64 data at input byte {}", text.len())),
            },
            (Bytes, _) => wrong("[]uint8"),
            (Object(name, fields), Value::Object(members)) => {
                let mut keys: Vec<&String> = members.keys().collect();
                keys.sort_unstable();
                for key in keys {
                    let below = self.below(name, key);
                    match fields.iter().find(|(known, _)| known == key) {
                        Some((_, shape)) => below.walk(&members[key], shape, unknown)?,
                        None => unknown.push(format!("unknown field {:?}", below.path)),
                    }
                }
                Ok(())
            }
            (Object(name, _), _) => wrong(&format!("v1.{name}")),
            (List(_, item), Value::Array(items)) => {
                for (i, value) in items.iter().enumerate() {
                    let path = format!("{}[{i}]", self.path);
                    At { path, dotted: self.dotted.clone(), ..*self }.walk(value, item, unknown)?;
                }
                Ok(())
            }
            (List(name, _), _) => wrong(name),
        }
    }

    fn below(&self, object: &'static str, key: &str) -> At {
        let join = |path: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
        At { object, dotted: join(&self.dotted), path: join(&self.path) }
    }

    fn wrong(&self, value: &Value, wanted: &str) -> String {
        let given = match value {
            Value::Number(number) if wanted.starts_with("int") => format!("number {number}"),
            value => kind(value).to_owned(),
        };
        match self.dotted.as_str() {
            "" => format!("json: cannot unmarshal {given} into Go value of type {wanted}"),
            dotted => {
                format!("json: cannot unmarshal {given} into Go struct field {}.{dotted} of type {wanted}", self.object)
            }
        }
    }
}

/// What Go's decoder calls a value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Seconds of a duration as Go writes them: `1h2m3.5s`, `-10ms`, `0`.
pub(super) fn seconds(text: &str) -> Option<f64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0.0);
    }
    let mut sum = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let units = [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
        // The longest name first: `ms` is no `m`.
        let (unit, factor) = units.iter().find(|(unit, _)| rest.starts_with(unit))?;
        sum += number * factor;
        rest = &rest[unit.len()..];
    }
    (!text.is_empty() && !matches!(text, "-" | "+")).then_some(sign * sum)
}

/// A duration that isn't below zero.
pub(crate) fn duration(text: &str) -> Option<Duration> {
    seconds(text).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}
