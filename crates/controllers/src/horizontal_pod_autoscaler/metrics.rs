//! What the metrics APIs say, in thousandths. Upstream: podautoscaler/metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{ObjectKey, Quantity, Value};
use client::{Client, Error, ListOptions, Resource, Selection};
use jiff::Timestamp;

use crate::meta::time;

const POD_METRICS: Resource = Resource::namespaced("metrics.k8s.io", "v1beta1", "pods");
const CUSTOM: &str = "/apis/custom.metrics.k8s.io/v1beta2";
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
    #[error("unable to fetch metrics from {api} metrics API: {error}{}", suffix(.error, .what))]
    Fetch { api: &'static str, what: String, error: Error },
    #[error("no metrics returned from {0} metrics API")]
    None(&'static str),
}

/// As upstream's client says which path was not found.
fn suffix(error: &Error, what: &str) -> String {
    if error.is_not_found() { format!(" (get {what})") } else { String::new() }
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
    let path = format!(
        "{CUSTOM}/namespaces/{namespace}/pods/*/{metric}?labelSelector={}&metricLabelSelector={}",
        encode(selector),
        encode(metric_selector)
    );
    let list = fetch(client, path, "custom").await?;
    let sample = |item: &Value| {
        let seconds = item.i64_at(&["windowSeconds"]).and_then(|seconds| u64::try_from(seconds).ok());
        let sample = Sample {
            value: milli(item.get("value")?)?,
            at: time(item.str_at(&["timestamp"])),
            window: seconds.map_or(WINDOW, Duration::from_secs),
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
    let path = if resource == "namespaces" {
        format!("{CUSTOM}/namespaces/{namespace}/metrics/{metric}?metricLabelSelector={selector}")
    } else {
        format!("{CUSTOM}/namespaces/{namespace}/{resource}/{name}/{metric}?metricLabelSelector={selector}")
    };
    let list = fetch(client, path, "custom").await?;
    list.first().and_then(|item| milli(item.get("value")?)).ok_or(MetricsError::None("custom"))
}

/// The sum of an external metric's values.
pub(super) async fn external(
    client: &Client,
    namespace: &str,
    metric: &str,
    selector: &str,
) -> Result<i64, MetricsError> {
    let path = format!("{EXTERNAL}/namespaces/{namespace}/{metric}?labelSelector={}", encode(selector));
    let list = fetch(client, path, "external").await?;
    let values = list.iter().filter_map(|item| milli(item.get("value")?));
    Ok(values.fold(0_i64, i64::saturating_add))
}

async fn fetch(client: &Client, path: String, api: &'static str) -> Result<Vec<Value>, MetricsError> {
    let what = format!("{api} metrics");
    let fetch = |error| MetricsError::Fetch { api, what, error };
    let answer: serde_json::Value = client.get_json(path).await.map_err(fetch)?;
    let items = Value::from(answer).items_at(&["items"]).to_vec();
    if items.is_empty() { Err(MetricsError::None(api)) } else { Ok(items) }
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
}
