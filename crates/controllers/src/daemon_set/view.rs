//! What is read of DaemonSets and their pods.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, Value};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PodSpec, Taint, Toleration};
use serde::Deserialize;

use crate::meta::{metadata, node_of, parsed, scaled};
use crate::pod_view::{PodView, Pods};

/// The label that names a pod's revision by its hash.
pub(super) const REVISION: &str = "controller-revision-hash";
/// The same by a count of the template's changes; what older versions went by.
pub(super) const TEMPLATE_GENERATION: &str = "pod-template-generation";
const TEMPLATE_GENERATION_ANNOTATION: &str = "deprecated.daemonset.template.generation";

pub(super) struct DaemonSet {
    pub object: Arc<Object>,
    pub spec: Spec,
    pub status: Status,
    /// How often the template changed.
    pub generation: Option<i64>,
    /// The template's pod, with what every daemon tolerates.
    pub pod: PodSpec,
}

#[derive(Deserialize)]
struct Wire {
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    #[serde(default)]
    pub selector: Value,
    #[serde(default)]
    pub template: Value,
    #[serde(default)]
    min_ready_seconds: u64,
    pub revision_history_limit: Option<i64>,
    #[serde(default)]
    update_strategy: UpdateStrategy,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct UpdateStrategy {
    r#type: String,
    rolling_update: RollingUpdate,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct RollingUpdate {
    max_surge: Value,
    max_unavailable: Value,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Status {
    pub observed_generation: i64,
    pub number_misscheduled: i64,
    pub collision_count: Option<i64>,
}

impl DaemonSet {
    pub(super) fn read(object: &Arc<Object>) -> Result<DaemonSet, serde_json::Error> {
        let wire: Wire = serde_json::from_slice(object.body())?;
        let mut pod: PodSpec = match wire.spec.template.get("spec") {
            Some(spec) => spec.view()?,
            None => PodSpec::default(),
        };
        let tolerations = tolerations(&pod);
        pod.tolerations = Some(tolerations);
        let annotation = metadata(object);
        let annotation = annotation.str_at(&["annotations", TEMPLATE_GENERATION_ANNOTATION]);
        Ok(DaemonSet {
            object: object.clone(),
            generation: annotation.and_then(|count| count.parse().ok()),
            spec: wire.spec,
            status: wire.status,
            pod,
        })
    }

    pub(super) fn is_rolling(&self) -> bool {
        self.spec.update_strategy.r#type == "RollingUpdate"
    }

    pub(super) fn min_ready(&self) -> Duration {
        Duration::from_secs(self.spec.min_ready_seconds)
    }

    /// How many of `daemons` may have a second pod, and how many none, during a rollout.
    pub(super) fn limits(&self, daemons: usize) -> (usize, usize) {
        if !self.is_rolling() {
            return (0, 0);
        }
        let rolling = &self.spec.update_strategy.rolling_update;
        let of = |value: &Value| scaled(value, daemons as i64, f64::ceil).max(0) as usize;
        match (of(&rolling.max_surge), of(&rolling.max_unavailable)) {
            (0, 0) => (0, 1), // else nothing would ever move
            limits => limits,
        }
    }

    /// Whether a node may have two pods for a while.
    pub(super) fn surges(&self) -> bool {
        self.limits(1).0 > 0
    }

    /// Whether a pod should start on the node, and whether one that is there should stay.
    pub(super) fn fits(&self, node: &Node) -> (bool, bool) {
        let name = node.metadata.name.as_deref();
        let named = self.pod.node_name.as_deref().filter(|name| !name.is_empty());
        if named.is_some() && named != name || !rules::required_node_affinity(&self.pod, node) {
            return (false, false);
        }
        let none: &[Taint] = &[];
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or(none);
        let tolerations = self.pod.tolerations.as_deref().unwrap_or_default();
        let starts = rules::tolerates_all(taints, tolerations, &["NoSchedule", "NoExecute"]);
        (starts, starts || rules::tolerates_all(taints, tolerations, &["NoExecute"]))
    }
}

/// The template's tolerations and those that every daemon has: it stays on a node in trouble.
pub(super) fn tolerations(pod: &PodSpec) -> Vec<Toleration> {
    let mut own = pod.tolerations.clone().unwrap_or_default();
    let always = [
        ("not-ready", "NoExecute"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("memory-pressure", "NoSchedule"),
        ("pid-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    ];
    let on_host = pod.host_network.unwrap_or_default().then_some(("network-unavailable", "NoSchedule"));
    for (taint, effect) in always.into_iter().chain(on_host) {
        let added = Toleration {
            key: Some(format!("node.kubernetes.io/{taint}")),
            operator: Some("Exists".to_owned()),
            effect: Some(effect.to_owned()),
            ..Toleration::default()
        };
        let same = |known: &Toleration| {
            (&known.key, &known.operator, &known.effect) == (&added.key, &added.operator, &added.effect)
                && known.value.as_deref().unwrap_or_default().is_empty()
        };
        match own.iter_mut().find(|known| same(known)) {
            Some(known) => *known = added,
            None => own.push(added),
        }
    }
    own
}

/// A pod of the set.
#[derive(Clone)]
pub(super) struct Daemon {
    pub object: Arc<Object>,
    pub view: Arc<PodView>,
}

impl Daemon {
    pub(super) fn of(object: Arc<Object>, pods: &Pods) -> Daemon {
        Daemon { view: pods.view(&object), object }
    }

    /// The node that it runs on or is meant for.
    pub(super) fn target(&self) -> Option<String> {
        self.view.node.clone().or_else(|| target_of(&self.object))
    }

    pub(super) fn is_going(&self) -> bool {
        self.object.is_deleting()
    }

    pub(super) fn is_available(&self, min_ready: Duration, now: Timestamp) -> bool {
        self.view.ready_since.is_some_and(|since| {
            min_ready.is_zero() || since.checked_add(min_ready).is_ok_and(|available| available <= now)
        })
    }

    /// Whether it is of the set's newest template.
    pub(super) fn is_updated(&self, set: &DaemonSet, hash: &str) -> bool {
        let generation = set.generation.map(|generation| generation.to_string());
        let same_generation = generation.is_some() && self.object.label(TEMPLATE_GENERATION) == generation.as_deref();
        same_generation || !hash.is_empty() && self.object.label(REVISION) == Some(hash)
    }

    /// Bound ones first, then the oldest.
    pub(super) fn seniority(&self) -> (bool, Option<Timestamp>, &str) {
        (self.view.node.is_none(), self.view.created, self.object.name())
    }
}

/// The node that a daemon's pod that is not bound is meant for.
fn target_of(pod: &Object) -> Option<String> {
    if let Some(node) = node_of(pod) {
        return Some(node);
    }
    let value = parsed(pod);
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = value.at(&required)?.items_at(&["nodeSelectorTerms"]);
    let fields = terms.iter().flat_map(|term| term.items_at(&["matchFields"]));
    let mut named = fields
        .filter(|field| field.str_at(&["key"]) == Some("metadata.name") && field.str_at(&["operator"]) == Some("In"));
    match named.next()?.items_at(&["values"]) {
        [one] => one.as_str().map(str::to_owned),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(spec: &str) -> DaemonSet {
        let json = format!(r#"{{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{{"name":"d"}},"spec":{spec}}}"#);
        DaemonSet::read(&Arc::new(Object::parse(json.as_bytes()).unwrap())).unwrap()
    }

    #[test]
    fn nodes_fit_by_name_labels_and_taints() {
        let check = |pod: &str, node: &str, expect: (bool, bool)| {
            let node: Node = serde_json::from_str(node).unwrap();
            assert_eq!(set(&format!(r#"{{"template":{{"spec":{pod}}}}}"#)).fits(&node), expect, "{pod}");
        };
        let plain = r#"{"metadata":{"name":"n1","labels":{"disk":"ssd"}}}"#;
        check(r#"{"containers":[]}"#, plain, (true, true));
        check(r#"{"containers":[],"nodeName":"n2"}"#, plain, (false, false));
        check(r#"{"containers":[],"nodeSelector":{"disk":"hdd"}}"#, plain, (false, false));
        let tainted = |key: &str, effect: &str| {
            format!(r#"{{"metadata":{{"name":"n1"}},"spec":{{"taints":[{{"key":"{key}","effect":"{effect}"}}]}}}}"#)
        };
        check(r#"{"containers":[]}"#, &tainted("x", "NoSchedule"), (false, true));
        check(r#"{"containers":[]}"#, &tainted("x", "NoExecute"), (false, false));
        check(r#"{"containers":[]}"#, &tainted("x", "PreferNoSchedule"), (true, true));
        check(r#"{"containers":[]}"#, &tainted("node.kubernetes.io/unschedulable", "NoSchedule"), (true, true));
        check(r#"{"containers":[]}"#, &tainted("node.kubernetes.io/not-ready", "NoExecute"), (true, true));
        let network = tainted("node.kubernetes.io/network-unavailable", "NoSchedule");
        check(r#"{"containers":[]}"#, &network, (false, true));
        check(r#"{"containers":[],"hostNetwork":true}"#, &network, (true, true));
    }

    #[test]
    fn a_toleration_with_a_limit_gets_none() {
        let pod: PodSpec = serde_json::from_str(
            r#"{"containers":[],"tolerations":[{"key":"a"},{"key":"node.kubernetes.io/not-ready","operator":"Exists",
                "effect":"NoExecute","tolerationSeconds":5}]}"#,
        )
        .unwrap();
        let all = tolerations(&pod);
        assert_eq!(all.len(), 7);
        assert_eq!(all[1].toleration_seconds, None);
    }

    #[test]
    fn limits_are_rounded_up() {
        let check = |rolling: &str, daemons: usize, expect: (usize, usize)| {
            let spec = format!(r#"{{"updateStrategy":{{"type":"RollingUpdate","rollingUpdate":{rolling}}}}}"#);
            assert_eq!(set(&spec).limits(daemons), expect, "{rolling}");
        };
        check(r#"{"maxUnavailable":1,"maxSurge":0}"#, 5, (0, 1));
        check(r#"{"maxUnavailable":"30%"}"#, 5, (0, 2));
        check(r#"{"maxUnavailable":0,"maxSurge":"10%"}"#, 5, (1, 0));
        check(r#"{"maxUnavailable":0,"maxSurge":0}"#, 5, (0, 1));
    }

    #[test]
    fn an_unbound_pod_names_its_node() {
        let check = |spec: &str, expect: Option<&str>| {
            let json = format!(r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"p"}},"spec":{spec}}}"#);
            let pod = Object::parse(json.as_bytes()).unwrap();
            assert_eq!(target_of(&pod).as_deref(), expect, "{spec}");
        };
        check("{}", None);
        check(r#"{"nodeName":"n1"}"#, Some("n1"));
        let affinity = |values: &str| {
            format!(
                r#"{{"affinity":{{"nodeAffinity":{{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":
                    [{{"matchFields":[{{"key":"metadata.name","operator":"In","values":{values}}}]}}]}}}}}}}}"#
            )
        };
        check(&affinity(r#"["n2"]"#), Some("n2"));
        check(&affinity(r#"["n2","n3"]"#), None);
    }
}
