//! Servers that are asked besides the plugins. Upstream: pkg/scheduler/extender.go.

mod answer;
mod server;

use std::collections::BTreeMap;

use env::Env;
use serde_json::{Value, json};

use crate::config::ExtenderSpec;
use crate::diagnosis::Diagnosis;
use crate::framework::{Candidate, MAX_SCORE, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;
use crate::snapshot::Snapshot;
use answer::{field, names, reasons};
use server::Server;

/// The name under which extenders reject pods.
const NAME: &str = "Extender";
/// The highest score that an extender gives.
const MAX_EXTENDER_SCORE: i64 = 10;

/// One server.
pub struct Extender {
    spec: ExtenderSpec,
    server: Server,
}

/// Whether an extender can be made: its files are there and are what they should be.
pub(crate) fn check(spec: &ExtenderSpec) -> Result<(), String> {
    server::access(spec).map(drop)
}

impl Extender {
    /// # Panics
    /// If a file that was there when the configuration was read is not any more.
    pub fn new(env: Env, spec: &ExtenderSpec) -> Extender {
        let server = Server::new(env, spec).expect("a configuration is checked when it is read");
        Extender { server, spec: spec.clone() }
    }

    pub fn is_ignorable(&self) -> bool {
        self.spec.ignorable
    }

    /// Whether it makes a difference how many nodes there are to choose from.
    pub fn is_choosy(&self) -> bool {
        !self.spec.filter_verb.is_empty() || !self.spec.prioritize_verb.is_empty()
    }

    /// Whether the pod is any of its business.
    fn interested(&self, pod: &PodInfo) -> bool {
        let managed = &self.spec.managed_resources;
        managed.is_empty() || managed.iter().any(|resource| pod.requests.get(&resource.name) > 0)
    }

    pub fn binds(&self, pod: &PodInfo) -> bool {
        !self.spec.bind_verb.is_empty() && self.interested(pod)
    }

    /// Whether it has a say in whom the pod may push aside.
    pub fn preempts(&self, pod: &PodInfo) -> bool {
        !self.spec.preempt_verb.is_empty() && self.interested(pod)
    }

    /// Those of `nodes` that it lets pass; what it says of the others goes into `diagnosis`. One that may be ignored and fails lets all pass.
    pub async fn filter<'a>(
        &self,
        pod: &PodInfo,
        nodes: Vec<&'a NodeInfo>,
        snapshot: &Snapshot,
        diagnosis: &mut Diagnosis,
    ) -> Result<Vec<&'a NodeInfo>, String> {
        if self.spec.filter_verb.is_empty() || !self.interested(pod) {
            return Ok(nodes);
        }
        let asked = self.server.ask(&self.spec.filter_verb, &self.arguments(pod, &nodes)).await;
        match asked.and_then(|answer| self.passed(&answer, &nodes).map(|passed| (answer, passed))) {
            Ok((answer, passed)) => {
                if passed.len() != nodes.len() {
                    diagnosis.plugins.insert(NAME);
                }
                let (failed, for_good) =
                    (reasons(&answer, "FailedNodes"), reasons(&answer, "FailedAndUnresolvableNodes"));
                let said = failed.iter().map(|(node, why)| (node, Rejection::because(why.clone())));
                let said = said.chain(for_good.iter().map(|(node, why)| (node, Rejection::unresolvable(why.clone()))));
                for (node, rejection) in said {
                    if let Some(node) = snapshot.get(node) {
                        diagnosis.rejections.insert(node.slot, Rejection { plugin: NAME, ..rejection });
                    }
                }
                Ok(passed)
            }
            Err(error) if self.spec.ignorable => {
                tracing::info!(url = self.spec.url_prefix, error, "an extender that may be ignored fails");
                Ok(nodes)
            }
            Err(error) => Err(error),
        }
    }

    /// The nodes that an answer names, in its order.
    fn passed<'a>(&self, answer: &Value, nodes: &[&'a NodeInfo]) -> Result<Vec<&'a NodeInfo>, String> {
        if let Some(error) = field(answer, "Error").and_then(Value::as_str).filter(|error| !error.is_empty()) {
            return Err(error.to_owned());
        }
        let known: BTreeMap<&str, &NodeInfo> = nodes.iter().map(|node| (node.name(), *node)).collect();
        let find = |name: &str| {
            known.get(name).copied().ok_or_else(|| {
                let url = &self.spec.url_prefix;
                format!("extender {url:?} claims a filtered node {name:?} which is not found in the input node list")
            })
        };
        names(answer, self.spec.node_cache_capable).into_iter().map(find).collect()
    }

    /// Its scores of these nodes, weighted; none from one that fails.
    pub async fn prioritize(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Vec<i64> {
        if self.spec.prioritize_verb.is_empty() || !self.interested(pod) {
            return Vec::new();
        }
        match self.server.ask(&self.spec.prioritize_verb, &self.arguments(pod, nodes)).await {
            Ok(answer) => {
                let scale = self.spec.weight * (MAX_SCORE / MAX_EXTENDER_SCORE);
                let mut scores: BTreeMap<&str, i64> = BTreeMap::new();
                for entry in answer.as_array().into_iter().flatten() {
                    let host = field(entry, "Host").and_then(Value::as_str).unwrap_or_default();
                    *scores.entry(host).or_default() +=
                        field(entry, "Score").and_then(Value::as_i64).unwrap_or_default();
                }
                nodes.iter().map(|node| scores.get(node.name()).copied().unwrap_or_default() * scale).collect()
            }
            Err(error) => {
                tracing::info!(url = self.spec.url_prefix, error, "an extender doesn't compare nodes");
                Vec::new()
            }
        }
    }

    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let binding =
            json!({"PodName": pod.key.name, "PodNamespace": pod.key.namespace, "PodUID": pod.uid, "Node": node});
        let answer = self.server.ask(&self.spec.bind_verb, &binding).await?;
        match field(&answer, "Error").and_then(Value::as_str).filter(|error| !error.is_empty()) {
            Some(error) => Err(error.to_owned()),
            None => Ok(()),
        }
    }

    /// Those of the candidates, and of their victims, that it agrees to.
    pub async fn preempt(
        &self,
        pod: &PodInfo,
        candidates: &[Candidate],
        snapshot: &Snapshot,
    ) -> Result<Vec<Candidate>, String> {
        let by_node = |victims: &dyn Fn(&PodInfo) -> Value| {
            let of = |candidate: &Candidate| {
                let pods: Vec<Value> = candidate.victims.iter().map(|pod| victims(pod)).collect();
                (candidate.node.clone(), json!({"Pods": pods, "NumPDBViolations": candidate.violations}))
            };
            Value::Object(candidates.iter().map(of).collect())
        };
        let mut args = json!({"Pod": self.object(pod), "NodeNameToVictims": null, "NodeNameToMetaVictims": null});
        match self.spec.node_cache_capable {
            true => args["NodeNameToMetaVictims"] = by_node(&|pod| json!({"UID": pod.uid})),
            false => args["NodeNameToVictims"] = by_node(&|pod| self.object(pod)),
        }
        let answer = self.server.ask(&self.spec.preempt_verb, &args).await?;
        let nodes = field(&answer, "NodeNameToMetaVictims").and_then(Value::as_object);
        let mut agreed = Vec::new();
        for (name, meta) in nodes.into_iter().flatten() {
            let node = snapshot.get(name).ok_or_else(|| format!("nodeinfo not found for node name {name:?}"))?;
            let mut victims = Vec::new();
            for victim in field(meta, "Pods").and_then(Value::as_array).into_iter().flatten() {
                let uid = field(victim, "UID").and_then(Value::as_str).unwrap_or_default();
                let found = node.pods().iter().find(|pod| pod.uid == uid);
                victims.push(found.cloned().ok_or_else(|| {
                    let url = &self.spec.url_prefix;
                    format!("extender: {url} claims to preempt pod (UID: &{{{uid}}}) on node: {name}, but the pod is not found on that node")
                })?);
            }
            if victims.is_empty() {
                if self.spec.ignorable {
                    continue;
                }
                return Err(format!("expected at least one victim pod on node {name:?}"));
            }
            let violations = field(meta, "NumPDBViolations").and_then(Value::as_u64).unwrap_or_default() as usize;
            agreed.push(Candidate { node: name.clone(), victims, violations });
        }
        Ok(agreed)
    }

    /// The pod as the API tells it.
    fn object(&self, pod: &PodInfo) -> Value {
        let whole = pod.whole.as_ref();
        whole.and_then(|pod| serde_json::from_slice(&pod.to_json()).ok()).unwrap_or_default()
    }

    fn arguments(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Value {
        let object = self.object(pod);
        if self.spec.node_cache_capable {
            let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
            return json!({"Pod": object, "Nodes": null, "NodeNames": names});
        }
        let items: Vec<Value> = nodes.iter().filter_map(|node| serde_json::to_value(node.whole()?).ok()).collect();
        json!({"Pod": object, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }
}
