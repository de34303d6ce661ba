//! What is answered to whom.

use std::sync::Arc;

use apimachinery::{Object, Selector};
use bytes::Bytes;
use http::{Response, StatusCode, Uri, header};
use http_body_util::Full;
use serde_json::{Value, json};

use super::{GROUPS, State};

pub(super) fn answer(state: &State, uri: &Uri) -> Response<Full<Bytes>> {
    let path: Vec<String> = uri.path().split('/').skip(1).map(unescaped).collect();
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let selector = || {
        let text = query(uri, "labelSelector");
        Selector::parse(&text).map_err(|error| failure(StatusCode::BAD_REQUEST, "BadRequest", &error.to_string()))
    };
    let found = match *path {
        ["apis", group, version] if GROUPS.contains(&(group, version)) => Ok(resources(group, version)),
        ["apis", "metrics.k8s.io", _, "namespaces", namespace, "pods"] => {
            selector().map(|selector| state.usage(namespace, &selector))
        }
        ["apis", "custom.metrics.k8s.io", _, "namespaces", namespace, "metrics", metric] => {
            state.custom(namespace, "namespaces", namespace, metric, &Selector::default())
        }
        ["apis", "custom.metrics.k8s.io", _, "namespaces", namespace, resource, name, metric] => {
            selector().and_then(|selector| state.custom(namespace, resource, name, metric, &selector))
        }
        ["apis", "external.metrics.k8s.io", _, "namespaces", namespace, metric] => {
            selector().map(|selector| state.external(namespace, metric, &selector))
        }
        _ => Err(failure(StatusCode::NOT_FOUND, "NotFound", "there is nothing here")),
    };
    found.map_or_else(|failure| failure, |value| json_answer(StatusCode::OK, &value))
}

impl State {
    fn figures(&self, namespace: &str) -> Value {
        self.figures.lock().get(namespace).cloned().unwrap_or_default()
    }

    fn now(&self) -> String {
        format!("{:.0}", self.env.now())
    }

    fn running(&self, namespace: &str, selector: &Selector) -> Vec<Arc<Object>> {
        let mut pods = self.pods.list(namespace);
        pods.retain(|pod| selector.matches(pod) && pod.to_value().str_at(&["status", "phase"]) == Some("Running"));
        pods
    }

    fn usage(&self, namespace: &str, selector: &Selector) -> Value {
        let figures = self.figures(namespace);
        let window = figures["window"].as_u64().unwrap_or(1);
        let item = |pod: &Arc<Object>| {
            let containers = of(&figures["pods"], pod.name())?.as_object()?.iter();
            let containers: Vec<Value> =
                containers.map(|(name, usage)| json!({"name": name, "usage": usage})).collect();
            Some(json!({"metadata": {"name": pod.name(), "namespace": namespace}, "timestamp": self.now(),
                "window": format!("{window}s"), "containers": containers}))
        };
        let items: Vec<Value> = self.running(namespace, selector).iter().filter_map(item).collect();
        json!({"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "metadata": {}, "items": items})
    }

    fn custom(
        &self,
        namespace: &str,
        resource: &str,
        name: &str,
        metric: &str,
        selector: &Selector,
    ) -> Result<Value, Response<Full<Bytes>>> {
        let figures = self.figures(namespace);
        let values = &figures["custom"][format!("{resource} {metric}")];
        let names = match name {
            "*" => self.running(namespace, selector).iter().map(|pod| pod.name().to_owned()).collect(),
            name => vec![name.to_owned()],
        };
        let window = figures["window"].as_u64().unwrap_or(1);
        let item = |name: &String| {
            Some(json!({"describedObject": {"kind": resource, "namespace": namespace, "name": name},
                "metric": {"name": metric}, "timestamp": self.now(), "windowSeconds": window,
                "value": of(values, name)?}))
        };
        let items: Vec<Value> = names.iter().filter_map(item).collect();
        if items.is_empty() {
            let message = format!("the server could not find the metric {metric} for {resource}");
            return Err(failure(StatusCode::NOT_FOUND, "NotFound", &message));
        }
        Ok(json!({"kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
            "items": items}))
    }

    fn external(&self, namespace: &str, metric: &str, selector: &Selector) -> Value {
        let figures = self.figures(namespace);
        let values = figures["external"][metric].as_array().into_iter().flatten();
        let chosen = values.filter(|value| selector.matches_with(|key| value["labels"][key].as_str()));
        let item = |value: &Value| {
            let labels = if value["labels"].is_null() { json!({}) } else { value["labels"].clone() };
            json!({"metricName": metric, "metricLabels": labels, "timestamp": self.now(), "value": value["value"]})
        };
        let items: Vec<Value> = chosen.map(item).collect();
        json!({"kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
            "items": items})
    }
}

/// The member of that name, or else what is said of all.
fn of<'a>(values: &'a Value, name: &str) -> Option<&'a Value> {
    values.get(name).or_else(|| values.get("*")).filter(|value| !value.is_null())
}

fn resources(group: &str, version: &str) -> Value {
    let resource = |name: &str, kind: &str, verbs: &[&str]| json!({"name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": verbs});
    let resources = match group {
        "metrics.k8s.io" => vec![resource("pods", "PodMetrics", &["get", "list"])],
        "custom.metrics.k8s.io" => vec![resource("pods/requests", "MetricValueList", &["get"])],
        _ => vec![resource("queue", "ExternalMetricValueList", &["get"])],
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": format!("{group}/{version}"),
        "resources": resources})
}

fn failure(code: StatusCode, reason: &str, message: &str) -> Response<Full<Bytes>> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason,
        "message": message, "code": code.as_u16()});
    json_answer(code, &status)
}

fn json_answer(code: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(value.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A parameter of the query, unescaped.
fn query(uri: &Uri, name: &str) -> String {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.filter(|(key, _)| *key == name).map(|(_, value)| value).next().unwrap_or_default();
    unescaped(&value.replace('+', " "))
}

fn unescaped(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        let (byte, read) = match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(escaped) => (escaped, 3),
            None => (byte, 1),
        };
        bytes.push(byte);
        rest = &rest[read..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_unescaped() {
        let check = |uri: &str, expect: &str| assert_eq!(query(&uri.parse().unwrap(), "labelSelector"), expect);
        check("/x?labelSelector=a%3Db%2Cc+in+%28d%29&x=1", "a=b,c in (d)");
        check("/x?other=1", "");
        check("/x", "");
        assert_eq!(unescaped("pods/%2A/50%"), "pods/*/50%");
    }

    #[test]
    fn one_of_its_own_goes_before_all() {
        let values = json!({"*": "1", "a": "2", "b": null});
        assert_eq!(of(&values, "a"), Some(&json!("2")));
        assert_eq!(of(&values, "b"), None);
        assert_eq!(of(&values, "c"), Some(&json!("1")));
    }
}
