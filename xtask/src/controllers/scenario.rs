//! Scenarios: documents of `conformance/controllers/*.yaml`.
//!
//! A step is a mapping with one member. Its key is `KIND NAME`, which creates an object, or one of these:
//!
//! | step | what it does |
//! |---|---|
//! | `until KIND NAME: CONDITION, ...` | waits for `path=value`, `condition.TYPE=STATUS`, `condition.TYPE.reason=REASON`, `taint KEY=EFFECT`, `there` or `gone` |
//! | `count KIND: CONDITION, ... N` | waits for N objects that meet the conditions |
//! | `take KIND: CONDITION, ... WORD` | from here on `$WORD` is the name, `$WORD.uid` the uid of the first such object |
//! | `change KIND NAME: PATCH`, `status KIND NAME: PATCH` | a strategic merge patch of the object (of a custom one, a merge patch), a merge patch of its status |
//! | `image KIND NAME: IMAGE` | changes the image of the template's container |
//! | `delete KIND NAME: OPTIONS`, `evict Pod NAME:` | as the API has them |
//! | `metrics: FIGURES` | from here on the metrics APIs tell these figures of the namespace, as [`testkit::metrics`] has them |
//! | `answer NAME: CONDITIONS` | conditions that somebody who approves requests adds to a CertificateSigningRequest |
//! | `node NAME: MEMBERS`, `stop NAME:`, `resume NAME:`, `drop NAME:` | a fake node comes, falls silent, comes back, is gone |
//! | `wait: SECONDS` | lets time pass |
//! | `look: NAME` | when nothing changes any more, keeps all there is for comparison |
//!
//! An object's value is its whole body, or else its spec, in which `pod` adds to the pod's spec, `marks` to its annotations and
//! `meta` to the object's metadata; selector and template are made up. A CertificateSigningRequest's says what its certificate shall
//! say, and `as: {user: USER, group: GROUP}` who makes it. Objects in another namespace (`NAMESPACE/NAME`) are the scenario's by a label, and so are
//! those in none. `$ns` stands for the scenario's namespace, `$now` for the time.
//!
//! There are two custom kinds, `Fleet` and `Herd`; only a Fleet has a scale.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use apimachinery::ObjectKey;
use client::Resource;
use client::resources as r;
use serde_json::{Map, Value, json};

/// Kinds of scenarios, with their version.
pub static KINDS: [(&str, &str, Resource); 37] = [
    ("Pod", "v1", r::PODS),
    ("ReplicationController", "v1", r::REPLICATION_CONTROLLERS),
    ("Service", "v1", r::SERVICES),
    ("Endpoints", "v1", r::ENDPOINTS),
    ("ConfigMap", "v1", r::CONFIG_MAPS),
    ("Secret", "v1", r::SECRETS),
    ("ServiceAccount", "v1", r::SERVICE_ACCOUNTS),
    ("PersistentVolumeClaim", "v1", r::PERSISTENT_VOLUME_CLAIMS),
    ("PersistentVolume", "v1", r::PERSISTENT_VOLUMES),
    ("Node", "v1", r::NODES),
    ("Namespace", "v1", r::NAMESPACES),
    ("Event", "v1", r::EVENTS),
    ("ResourceQuota", "v1", Resource::namespaced("", "v1", "resourcequotas")),
    ("LimitRange", "v1", Resource::namespaced("", "v1", "limitranges")),
    ("ReplicaSet", "apps/v1", r::REPLICA_SETS),
    ("Deployment", "apps/v1", r::DEPLOYMENTS),
    ("StatefulSet", "apps/v1", r::STATEFUL_SETS),
    ("DaemonSet", "apps/v1", r::DAEMON_SETS),
    ("ControllerRevision", "apps/v1", r::CONTROLLER_REVISIONS),
    ("Job", "batch/v1", Resource::namespaced("batch", "v1", "jobs")),
    ("CronJob", "batch/v1", Resource::namespaced("batch", "v1", "cronjobs")),
    ("EndpointSlice", "discovery.k8s.io/v1", r::ENDPOINT_SLICES),
    ("PodDisruptionBudget", "policy/v1", r::POD_DISRUPTION_BUDGETS),
    (
        "HorizontalPodAutoscaler",
        "autoscaling/v2",
        Resource::namespaced("autoscaling", "v2", "horizontalpodautoscalers"),
    ),
    ("StorageClass", "storage.k8s.io/v1", Resource::cluster("storage.k8s.io", "v1", "storageclasses")),
    ("VolumeAttachment", "storage.k8s.io/v1", Resource::cluster("storage.k8s.io", "v1", "volumeattachments")),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", r::CLUSTER_ROLES),
    ("PriorityClass", "scheduling.k8s.io/v1", r::PRIORITY_CLASSES),
    ("ResourceClaim", "resource.k8s.io/v1", Resource::namespaced("resource.k8s.io", "v1", "resourceclaims")),
    (
        "ResourceClaimTemplate",
        "resource.k8s.io/v1",
        Resource::namespaced("resource.k8s.io", "v1", "resourceclaimtemplates"),
    ),
    (
        "ValidatingAdmissionPolicy",
        "admissionregistration.k8s.io/v1",
        Resource::cluster("admissionregistration.k8s.io", "v1", "validatingadmissionpolicies"),
    ),
    (
        "VolumeAttributesClass",
        "storage.k8s.io/v1",
        Resource::cluster("storage.k8s.io", "v1", "volumeattributesclasses"),
    ),
    ("ServiceCIDR", "networking.k8s.io/v1", Resource::cluster("networking.k8s.io", "v1", "servicecidrs")),
    ("IPAddress", "networking.k8s.io/v1", Resource::cluster("networking.k8s.io", "v1", "ipaddresses")),
    ("CertificateSigningRequest", "certificates.k8s.io/v1", REQUESTS),
    ("Fleet", "example.com/v1", Resource::namespaced("example.com", "v1", "fleets")),
    ("Herd", "example.com/v1", Resource::namespaced("example.com", "v1", "herds")),
];

pub const DEFINITIONS: Resource = Resource::cluster("apiextensions.k8s.io", "v1", "customresourcedefinitions");
pub const REQUESTS: Resource = Resource::cluster("certificates.k8s.io", "v1", "certificatesigningrequests");

/// The definitions of the custom kinds.
pub fn definitions() -> Vec<Value> {
    let scale = json!({"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
        "labelSelectorPath": ".status.selector"});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"replicas": {"type": "integer"}}, "x-kubernetes-preserve-unknown-fields": true},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}},
            "x-kubernetes-preserve-unknown-fields": true}}}});
    let definition = |kind: &str, subresources: Value| {
        let singular = kind.to_lowercase();
        let plural = format!("{singular}s");
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.example.com")},
            "spec": {"group": "example.com", "scope": "Namespaced",
                "names": {"kind": kind, "plural": plural, "singular": singular, "listKind": format!("{kind}List")},
                "versions": [{"name": "v1", "served": true, "storage": true, "subresources": subresources, "schema": schema}]}})
    };
    vec![definition("Fleet", json!({"status": {}, "scale": scale})), definition("Herd", json!({"status": {}}))]
}

/// The row of `kind`.
pub fn kind(kind: &str) -> Result<&'static (&'static str, &'static str, Resource)> {
    KINDS.iter().find(|(name, ..)| *name == kind).with_context(|| format!("scenarios know no kind {kind:?}"))
}

#[derive(Default)]
pub struct Scenario {
    /// Also its namespace.
    pub name: String,
    /// It is played when no other is.
    pub alone: bool,
    /// Which node a pod is on matters.
    pub places: bool,
    /// In which slice an endpoint is does not matter.
    pub merged: bool,
    /// Which of several nodes something happens to is chance: their numbers do not matter.
    pub alike: bool,
    /// Something is asked for that is refused.
    pub refused: bool,
    pub steps: Vec<Step>,
}

#[derive(Clone)]
pub struct Step {
    pub key: String,
    pub value: Value,
}

impl Step {
    /// The step with `$name` replaced.
    pub fn with(&self, name: &str, stands_for: &str) -> Step {
        let name = format!("${name}");
        Step { key: self.key.replace(&name, stands_for), value: replaced(&self.value, &name, stands_for) }
    }
}

/// Every scenario of the folder's files, each named after its file and itself.
pub fn all(folder: &Path) -> Result<Vec<Scenario>> {
    let mut found = Vec::new();
    let entries: Vec<_> = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?.collect();
    let mut paths = entries.into_iter().map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    paths.sort();
    for path in paths {
        let text = fs::read_to_string(&path)?;
        let group = path.file_stem().unwrap_or_default().to_string_lossy();
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let value: Value =
                serde::Deserialize::deserialize(document).with_context(|| format!("reading {}", path.display()))?;
            found.push(scenario(&group, &value).with_context(|| format!("in {}: {value}", path.display()))?);
        }
    }
    Ok(found)
}

fn scenario(group: &str, value: &Value) -> Result<Scenario> {
    let name = format!("{group}-{}", value["scenario"].as_str().context("no name: `scenario`")?);
    let steps = value["steps"].as_array().context("no `steps`")?;
    let steps = steps.iter().map(|step| match step.as_object().map(|step| step.iter().collect::<Vec<_>>()) {
        Some(members) if members.len() == 1 => {
            let (key, value) = members[0];
            Ok(Step { key: key.clone(), value: value.clone() })
        }
        _ => bail!("a step has one member: {step}"),
    });
    let steps = steps.collect::<Result<_>>()?;
    let says = |what: &str| value[what] == true;
    let [alone, places, merged, alike, refused] = ["alone", "places", "merged", "alike", "refused"].map(says);
    Ok(Scenario { name, alone, places, merged, alike, refused, steps })
}

fn replaced(value: &Value, what: &str, by: &str) -> Value {
    match value {
        Value::String(text) => text.replace(what, by).into(),
        Value::Array(items) => items.iter().map(|item| replaced(item, what, by)).collect(),
        Value::Object(members) => {
            let members = members.iter().map(|(key, value)| (key.replace(what, by), replaced(value, what, by)));
            members.collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// The whole body of an object of the scenario.
pub fn object(of: &str, key: &ObjectKey, scenario: &str, value: &Value) -> Result<Value> {
    let (_, version, resource) = kind(of)?;
    let name = &*key.name;
    let whole =
        ["spec", "metadata", "data", "subsets", "rules", "endpoints", "provisioner", "aggregationRule", "driverName"];
    let mut body = match value {
        Value::Object(members) if whole.iter().any(|key| members.contains_key(*key)) => value.clone(),
        Value::Object(members) => spec(of, name, members),
        Value::Null => spec(of, name, &Map::new()),
        other => bail!("{of} {name} is {other}"),
    };
    body["apiVersion"] = (*version).into();
    body["kind"] = of.into();
    body["metadata"]["name"] = name.into();
    if resource.namespaced {
        body["metadata"]["namespace"] = (*key.namespace).into();
    }
    if *key.namespace != *scenario {
        body["metadata"]["labels"]["scenario"] = scenario.into();
    }
    Ok(body)
}

fn spec(of: &str, name: &str, members: &Map<String, Value>) -> Value {
    let mut members = members.clone();
    let mut take = |key: &str| members.remove(key).unwrap_or(json!({}));
    let (pod, marks, meta) = (take("pod"), take("marks"), take("meta"));
    let container = json!({"name": "c", "image": "pause"});
    let mut template = json!({"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}});
    extend(&mut template["spec"], &pod);
    if marks != json!({}) {
        template["metadata"]["annotations"] = marks;
    }
    let mut body = json!({"metadata": meta});
    match of {
        "Pod" => {
            extend(&mut template["spec"], &members.into());
            extend(&mut template["metadata"], &body["metadata"]);
            body = template;
        }
        "Job" => {
            template["spec"]["restartPolicy"]
                .as_str()
                .is_none()
                .then(|| template["spec"]["restartPolicy"] = "Never".into());
            members.entry("template").or_insert(template);
            body["spec"] = members.into();
        }
        "CronJob" => {
            let job = members.remove("job").unwrap_or(json!({}));
            members.insert("jobTemplate".to_owned(), spec("Job", name, job.as_object().unwrap_or(&Map::new())));
            body["spec"] = members.into();
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController" => {
            let labels = json!({"app": name});
            let selector = if of == "ReplicationController" { labels } else { json!({"matchLabels": labels}) };
            members.entry("selector").or_insert(selector);
            members.entry("template").or_insert(template);
            if of == "StatefulSet" {
                members.entry("serviceName").or_insert(name.into());
            }
            body["spec"] = members.into();
        }
        _ => body["spec"] = members.into(),
    }
    body
}

/// Merges, object by object.
fn extend(value: &mut Value, more: &Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            more.iter().for_each(|(key, more)| extend(value.entry(key.clone()).or_insert(Value::Null), more));
        }
        (value, more) => *value = more.clone(),
    }
}
