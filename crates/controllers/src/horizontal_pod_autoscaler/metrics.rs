//! What the metrics APIs say, in thousandths. Upstream: podautoscaler/metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{ObjectKey, Quantity, Value};
use client::{Client, Error, ListOptions, Resource, Selection};
use jiff::Timestamp;
use serde::Deserialize;

use crate::meta::time;

const POD_METRICS: Resource = Resource::namespaced("metrics.k8s.io", "v1beta1", "pods");
const CUSTOM: &str = "custom.metrics.k8s.io";
/// Those that are understood, the better one first.
const CUSTOM_VERSIONS: [&str; 2] = ["custom.metrics.k8s.io/v1beta2", "custom.metrics.k8s.io/v1beta1"];
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The window of a custom metric that says none.
const WINDOW: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub value: i64,
    pub at: Timestamp,
    pub window: Duration,
}

/// By pod.
pub(super) type Samples = BTreeMap<String, Sample>;

/// Why there is no metric.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    #[error("unable to fetch metrics from {api} metrics API: {}", told(.error, .what))]
    Fetch { api: &'static str, what: String, error: Error },
    #[error(
        "unable to fetch metrics from custom metrics API: no custom metrics API (custom.metrics.k8s.io) registered"
    )]
    NotRegistered,
    #[error("unable to fetch metrics from custom metrics API: no known available metric versions found")]
    NoVersion,
    #[error(
        "unable to fetch metrics from custom metrics API: the custom metrics API server returned {0} results when we asked for exactly one"
    )]
    NotOne(usize),
    #[error("no metrics returned from {0} metrics API")]
    None(&'static str),
}

/// A failure that no `Status` tells, in the words of upstream's client.
fn told(error: &Error, what: &str) -> String {
    match error.status().map(|status| (status.code, status.message.trim())) {
        Some((404, "404 page not found")) => format!("the server could not find the requested resource (get {what})"),
        Some((503, "service unavailable")) => {
            format!("the server is currently unable to handle the request (get {what})")
        }
        _ => error.to_string(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    preferred_version: GroupVersion,
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

/// Where custom metrics are asked for.
async fn custom_root(client: &Client) -> Result<String, MetricsError> {
    let group: Group = match client.get_json(format!("/apis/{CUSTOM}")).await {
        Err(error) if error.is_not_found() => return Err(MetricsError::NotRegistered),
        group => group.map_err(|error| MetricsError::Fetch { api: "custom", what: CUSTOM.to_owned(), error })?,
    };
    let mut versions = std::iter::once(&group.preferred_version).chain(&group.versions);
    let known = versions.find(|version| CUSTOM_VERSIONS.contains(&&*version.group_version));
    Ok(format!("/apis/{}", known.ok_or(MetricsError::NoVersion)?.group_version))
}

/// What the pods use of a resource: one container of each, or all together.
pub(super) async fn of_resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    resource: &str,
    container: Option<&str>,
) -> Result<Samples, MetricsError> {
    let selection = Selection::all().namespace(namespace).labels(selector);
    let listed = client.list(&POD_METRICS, &selection, &ListOptions::default()).await;
    let fetch = |error| MetricsError::Fetch { api: "resource", what: "pods.metrics.k8s.io".to_owned(), error };
    let items = listed.map_err(fetch)?.items;
    if items.is_empty() {
        return Err(MetricsError::None("resource"));
    }
    let mut samples = Samples::new();
    for pod in items {
        let value = pod.to_value();
        let used = |item: &Value| milli(item.at(&["usage", resource])?);
        let containers = value.items_at(&["containers"]);
        let total = match container {
            Some(name) => containers.iter().find(|item| item.str_at(&["name"]) == Some(name)).and_then(used),
            None if containers.is_empty() => None,
            None => containers.iter().map(used).sum(),
        };
        let Some(total) = total else { continue };
        let window = value.str_at(&["window"]).and_then(duration).unwrap_or(WINDOW);
        samples.insert(pod.name().to_owned(), Sample { value: total, at: time(value.str_at(&["timestamp"])), window });
    }
    Ok(samples)
}

/// A custom metric of each pod.
pub(super) async fn of_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &str,
    metric_selector: &str,
) -> Result<Samples, MetricsError> {
    let root = custom_root(client).await?;
    let path = format!(
        "{root}/namespaces/{namespace}/pods/*/{metric}?labelSelector={}&metricLabelSelector={}",
        encode(selector),
        encode(metric_selector)
    );
    let list = fetch(client, path, "custom", format!("pods.{CUSTOM} *")).await?;
    if list.is_empty() {
        return Err(MetricsError::None("custom"));
    }
    let sample = |item: &Value| {
        // The older version calls it by the shorter name.
        let seconds = ["windowSeconds", "window"].iter().find_map(|name| item.i64_at(&[name]));
        let sample = Sample {
            value: milli(item.get("value")?)?,
            at: time(item.str_at(&["timestamp"])),
            window: seconds.and_then(|seconds| u64::try_from(seconds).ok()).map_or(WINDOW, Duration::from_secs),
        };
        Some((item.str_at(&["describedObject", "name"])?.to_owned(), sample))
    };
    Ok(list.iter().filter_map(sample).collect())
}

/// A custom metric of one object, of the resource that its kind is likely to have.
pub(super) async fn of_object(
    client: &Client,
    object: &Value,
    key: &ObjectKey,
    metric: &str,
    metric_selector: &str,
) -> Result<i64, MetricsError> {
    let kind = object.str_at(&["kind"]).unwrap_or_default();
    let group =
        object.str_at(&["apiVersion"]).and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let plural = plural(kind);
    let resource = if group.is_empty() { plural } else { format!("{plural}.{group}") };
    let (namespace, name, selector) = (&key.namespace, &key.name, encode(metric_selector));
    let root = custom_root(client).await?;
    let (path, what) = if resource == "namespaces" {
        let path = format!("{root}/namespaces/{namespace}/metrics/{metric}?metricLabelSelector={selector}");
        (path, format!("metrics.{CUSTOM} {metric}"))
    } else {
        let path = format!("{root}/namespaces/{namespace}/{resource}/{name}/{metric}?metricLabelSelector={selector}");
        (path, format!("{resource}.{CUSTOM} {name}"))
    };
    match &*fetch(client, path, "custom", what).await? {
        [item] => item.get("value").and_then(milli).ok_or(MetricsError::None("custom")),
        items => Err(MetricsError::NotOne(items.len())),
    }
}

/// The sum of an external metric's values.
pub(super) async fn external(
    client: &Client,
    namespace: &str,
    metric: &str,
    selector: &str,
) -> Result<i64, MetricsError> {
    let path = format!("{EXTERNAL}/namespaces/{namespace}/{metric}?labelSelector={}", encode(selector));
    let list = fetch(client, path, "external", format!("{metric}.external.metrics.k8s.io")).await?;
    if list.is_empty() {
        return Err(MetricsError::None("external"));
    }
    let values = list.iter().filter_map(|item| milli(item.get("value")?));
    Ok(values.fold(0_i64, i64::saturating_add))
}

async fn fetch(client: &Client, path: String, api: &'static str, what: String) -> Result<Vec<Value>, MetricsError> {
    let fetch = |error| MetricsError::Fetch { api, what, error };
    let answer: serde_json::Value = client.get_json(path).await.map_err(fetch)?;
    Ok(Value::from(answer).items_at(&["items"]).to_vec())
}

pub(super) fn milli(value: &Value) -> Option<i64> {
    Some(Quantity::from_value(value)?.ok()?.milli_value())
}

/// `1m30s`, as Go writes durations.
fn duration(text: &str) -> Option<Duration> {
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 0.001,
                "us" | "µs" => 0.000_001,
                "ns" => 0.000_000_001,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// As upstream guesses it: meta.UnsafeGuessKindToResource.
fn plural(kind: &str) -> String {
    let lower = kind.to_lowercase();
    match lower.as_bytes().last() {
        Some(b's') => lower + "es",
        Some(b'y') => format!("{}ies", &lower[..lower.len() - 1]),
        _ => lower + "s",
    }
}

fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(byte as char);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(duration(text), expect.map(Duration::from_millis));
        check("30s", Some(30_000));
        check("1m30s", Some(90_000));
        check("1m0.5s", Some(60_500));
        check("250ms", Some(250));
        check("x", None);
        check("3", None);
    }

    #[test]
    fn kinds_have_plurals_and_texts_are_escaped() {
        assert_eq!((plural("Ingress").as_str(), plural("Proxy").as_str()), ("ingresses", "proxies"));
        assert_eq!(encode("a=b,c in (d)"), "a%3Db%2Cc%20in%20%28d%29");
    }

    #[test]
    fn failures_are_told_as_upstreams_client_tells_them() {
        let check = |status: apimachinery::Status, expect: &str| {
            let error =
                MetricsError::Fetch { api: "external", what: "q.external.metrics.k8s.io".into(), error: status.into() };
            assert_eq!(error.to_string(), format!("unable to fetch metrics from external metrics API: {expect}"));
        };
        use apimachinery::{Reason, Status};
        let absent = "the server could not find the requested resource (get q.external.metrics.k8s.io)";
        check(Status::new(404, Reason::NotFound, "404 page not found"), absent);
        let away = "the server is currently unable to handle the request (get q.external.metrics.k8s.io)";
        check(Status::new(503, Reason::ServiceUnavailable, "service unavailable"), away);
        let resource = apimachinery::GroupResource::new("", "metrics");
        check(Status::not_found(&resource, "q"), "metrics \"q\" not found");
    }
}
