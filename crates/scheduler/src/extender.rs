//! Servers that are asked besides the plugins. Upstream: kube-scheduler extender/v1.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use client::{Informers, resources};
use env::Env;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::config::ExtenderSpec;
use crate::diagnosis::Diagnosis;
use crate::framework::{MAX_SCORE, Rejection};
use crate::node::NodeInfo;
use crate::pod::PodInfo;

/// The name under which it rejects pods.
const NAME: &str = "Extender";
/// The highest score that an extender gives.
const MAX_EXTENDER_SCORE: i64 = 10;
/// Answers longer than this are refused.
const MAX_ANSWER: usize = 64 << 20;

/// One server.
pub struct Extender {
    env: Env,
    spec: ExtenderSpec,
    informers: Informers,
    http: Http<HttpConnector, Full<Bytes>>,
    timeout: Duration,
    managed: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct FilterResult {
    nodes: Option<Value>,
    node_names: Option<Vec<String>>,
    failed_nodes: Option<BTreeMap<String, String>>,
    failed_and_unresolvable_nodes: Option<BTreeMap<String, String>>,
    error: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct HostPriority {
    host: String,
    score: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct BindResult {
    error: String,
}

impl Extender {
    pub fn new(env: Env, spec: &ExtenderSpec, informers: Informers) -> Extender {
        let seconds = spec.http_timeout.as_str().and_then(|text| text.strip_suffix('s')).and_then(|s| s.parse().ok());
        let name = |resource: &Value| resource.get("name").and_then(Value::as_str).map(str::to_owned);
        Extender {
            env,
            managed: spec.managed_resources.iter().filter_map(name).collect(),
            timeout: Duration::from_secs_f64(seconds.filter(|s: &f64| *s > 0.0).unwrap_or(5.0)),
            spec: spec.clone(),
            informers,
            http: Http::builder(TokioExecutor::new()).build_http(),
        }
    }

    /// Whether the pod is any of its business.
    fn interested(&self, pod: &PodInfo) -> bool {
        self.managed.is_empty() || self.managed.iter().any(|name| pod.requests.get(name) > 0)
    }

    pub fn binds(&self, pod: &PodInfo) -> bool {
        !self.spec.bind_verb.is_empty() && self.interested(pod)
    }

    /// Those of `nodes` that it lets pass; what it says of the others goes into `diagnosis`.
    pub async fn filter<'a>(
        &self,
        pod: &PodInfo,
        nodes: Vec<&'a NodeInfo>,
        diagnosis: &mut Diagnosis,
    ) -> Result<Vec<&'a NodeInfo>, String> {
        if self.spec.filter_verb.is_empty() || !self.interested(pod) {
            return Ok(nodes);
        }
        let result: Result<FilterResult, String> = self.ask(&self.spec.filter_verb, self.arguments(pod, &nodes)).await;
        let result =
            match result.and_then(|result| if result.error.is_empty() { Ok(result) } else { Err(result.error) }) {
                Ok(result) => result,
                Err(error) if self.spec.ignorable => {
                    tracing::info!(url = self.spec.url_prefix, error, "an extender that may be ignored fails");
                    return Ok(nodes);
                }
                Err(error) => return Err(error),
            };
        let named = |list: &Value| list.pointer("/metadata/name").and_then(Value::as_str).map(str::to_owned);
        let items = result.nodes.as_ref().and_then(|list| list.get("items")).and_then(Value::as_array);
        let names = result.node_names.or_else(|| items.map(|items| items.iter().filter_map(named).collect()));
        let names = names.unwrap_or_default();
        let failed = result.failed_nodes.unwrap_or_default();
        let unresolvable = result.failed_and_unresolvable_nodes.unwrap_or_default();
        let (passed, rejected): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| names.iter().any(|name| name == node.name()));
        for node in rejected {
            diagnosis.plugins.insert(NAME);
            let rejection = match (unresolvable.get(node.name()), failed.get(node.name())) {
                (Some(reason), _) => Rejection::unresolvable(reason.clone()),
                (None, Some(reason)) => Rejection::because(reason.clone()),
                (None, None) => continue,
            };
            diagnosis.rejections.insert(node.slot, Rejection { plugin: NAME, ..rejection });
        }
        Ok(passed)
    }

    /// Adds its scores; an extender that fails is left out.
    pub async fn prioritize(&self, pod: &PodInfo, nodes: &[&NodeInfo], totals: &mut [i64]) {
        if self.spec.prioritize_verb.is_empty() || !self.interested(pod) {
            return;
        }
        match self.ask::<Vec<HostPriority>>(&self.spec.prioritize_verb, self.arguments(pod, nodes)).await {
            Ok(list) => {
                let scale = self.spec.weight * (MAX_SCORE / MAX_EXTENDER_SCORE);
                for (node, total) in nodes.iter().zip(totals) {
                    let scores = list.iter().filter(|entry| entry.host == node.name()).map(|entry| entry.score);
                    *total += scores.sum::<i64>() * scale;
                }
            }
            Err(error) => tracing::info!(url = self.spec.url_prefix, error, "an extender doesn't compare nodes"),
        }
    }

    pub async fn bind(&self, pod: &PodInfo, node: &str) -> Result<(), String> {
        let binding =
            json!({"PodName": pod.key.name, "PodNamespace": pod.key.namespace, "PodUID": pod.uid, "Node": node});
        let result: BindResult = self.ask(&self.spec.bind_verb, binding).await?;
        if result.error.is_empty() { Ok(()) } else { Err(result.error) }
    }

    fn arguments(&self, pod: &PodInfo, nodes: &[&NodeInfo]) -> Value {
        let object = self.informers.of(&resources::PODS).get(&pod.key);
        let object: Value = object.and_then(|pod| serde_json::from_slice(&pod.to_json()).ok()).unwrap_or_default();
        if self.spec.node_cache_capable {
            let names: Vec<&str> = nodes.iter().map(|node| node.name()).collect();
            return json!({"Pod": object, "Nodes": null, "NodeNames": names});
        }
        let items: Vec<Value> = nodes.iter().filter_map(|node| serde_json::to_value(&**node.node()).ok()).collect();
        json!({"Pod": object, "Nodes": {"metadata": {}, "items": items}, "NodeNames": null})
    }

    async fn ask<T: DeserializeOwned>(&self, verb: &str, body: Value) -> Result<T, String> {
        let url = format!("{}/{verb}", self.spec.url_prefix.trim_end_matches('/'));
        let request = http::Request::post(&url)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| format!("{url}: {error}"))?;
        let exchange = async {
            let answer = self.http.request(request).await.map_err(|error| format!("{url}: {error}"))?;
            let status = answer.status();
            let body = http_body_util::Limited::new(answer.into_body(), MAX_ANSWER);
            let body = body.collect().await.map_err(|error| format!("{url}: {error}"))?.to_bytes();
            if status != http::StatusCode::OK {
                return Err(format!("failed {verb} with extender at URL {url}, code {}", status.as_u16()));
            }
            serde_json::from_slice(&body).map_err(|error| format!("{url}: {error}"))
        };
        self.env.timeout(self.timeout, exchange).await.unwrap_or_else(|| Err(format!("{url}: timed out")))
    }
}
