//! What a pod may know of itself: `fieldRef` and `resourceFieldRef`. Upstream: pkg/fieldpath, pkg/api/v1/resource.

use std::collections::BTreeMap;
use std::net::IpAddr;

use apimachinery::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};

/// What fields say that is not in the pod's spec.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    pub host_ips: Vec<IpAddr>,
    pub pod_ips: Vec<IpAddr>,
    /// What a container without limits may use: the node's allocatable CPU and memory.
    pub allocatable: rules::Resources,
}

/// Why a reference has no value; the sentences are upstream's where users see them.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    #[error("unsupported fieldPath: {0}")]
    Field(String),
    #[error("unsupported container resource : {0}")]
    Resource(String),
    #[error("container {0} not found")]
    Container(String),
    #[error("invalid divisor {0:?}")]
    Divisor(String),
}

/// The value of a `fieldRef`; `metadata.labels` and `metadata.annotations` as lines of `key="value"`.
pub fn field(pod: &Pod, path: &str, situation: &Situation) -> Result<String, FieldError> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_ref();
    let text = |value: Option<&String>| value.cloned().unwrap_or_default();
    let joined = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    if let Some((map, key)) = subscript(path) {
        let entries = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(FieldError::Field(path.to_owned())),
        };
        return Ok(text(entries.as_ref().and_then(|entries| entries.get(key))));
    }
    Ok(match path {
        "metadata.name" => text(meta.name.as_ref()),
        "metadata.namespace" => text(meta.namespace.as_ref()),
        "metadata.uid" => text(meta.uid.as_ref()),
        "metadata.labels" => lines(meta.labels.as_ref()),
        "metadata.annotations" => lines(meta.annotations.as_ref()),
        "spec.nodeName" => text(spec.and_then(|spec| spec.node_name.as_ref())),
        "spec.serviceAccountName" => text(spec.and_then(|spec| spec.service_account_name.as_ref())),
        "status.hostIP" => joined(&situation.host_ips[..situation.host_ips.len().min(1)]),
        "status.hostIPs" => joined(&situation.host_ips),
        "status.podIP" => joined(&situation.pod_ips[..situation.pod_ips.len().min(1)]),
        "status.podIPs" => joined(&situation.pod_ips),
        _ => return Err(FieldError::Field(path.to_owned())),
    })
}

/// `metadata.labels['app']` as its two parts.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']")?.split_once("['")
}

fn lines(entries: Option<&BTreeMap<String, String>>) -> String {
    let lines = entries.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a `resourceFieldRef` of `container` or of the container that it names.
pub fn resource(
    pod: &Pod,
    container: Option<&Container>,
    selector: &ResourceFieldSelector,
    situation: &Situation,
) -> Result<String, FieldError> {
    let container = match (selector.container_name.as_deref(), container) {
        (None | Some(""), Some(container)) => container,
        (name, _) => named(pod, name.unwrap_or_default())?,
    };
    let divisor = match selector.divisor.as_ref().map(|divisor| divisor.0.as_str()) {
        None | Some("" | "0") => Quantity::new(1, apimachinery::Format::DecimalSi),
        Some(text) => text.parse().map_err(|_| FieldError::Divisor(text.to_owned()))?,
    };
    let unsupported = || FieldError::Resource(selector.resource.clone());
    let (list, name) = selector.resource.split_once('.').ok_or_else(unsupported)?;
    let resources = container.resources.as_ref();
    let amounts = match list {
        "limits" => resources.and_then(|r| r.limits.as_ref()),
        "requests" => resources.and_then(|r| r.requests.as_ref()),
        _ => return Err(unsupported()),
    };
    let amount = amounts.and_then(|amounts| amounts.get(name)).map(rules::parse_quantity);
    let known = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
    if !known {
        return Err(unsupported());
    }
    let amount = amount.filter(|amount| !amount.is_zero()).unwrap_or_else(|| match (list, name) {
        ("limits", "cpu") => Quantity::from_milli(situation.allocatable.milli_cpu),
        ("limits", name) => Quantity::new(situation.allocatable.get(name), apimachinery::Format::BinarySi),
        _ => Quantity::default(),
    });
    // CPU is divided in thousandths, so that a divisor of 1m gives millicores.
    let quotient = if name == "cpu" {
        ceil_div(amount.milli_value(), divisor.milli_value())
    } else {
        ceil_div(amount.value(), divisor.value())
    };
    Ok(quotient.to_string())
}

fn named<'a>(pod: &'a Pod, name: &str) -> Result<&'a Container, FieldError> {
    let spec = pod.spec.as_ref();
    let all = spec.into_iter().flat_map(|spec| spec.containers.iter().chain(spec.init_containers.iter().flatten()));
    all.into_iter().find(|c| c.name == name).ok_or_else(|| FieldError::Container(name.to_owned()))
}

fn ceil_div(amount: i64, divisor: i64) -> i64 {
    if divisor <= 0 { amount } else { (amount + divisor - 1) / divisor }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u",
                "labels": {"b": "two \"words\"", "a": "1"}, "annotations": {"x.y/z": "v"}},
            "spec": {"nodeName": "node", "serviceAccountName": "sa", "containers": [
                {"name": "c", "resources": {"limits": {"cpu": "1500m"}, "requests": {"memory": "64Mi"}}}]},
        }))
        .unwrap()
    }

    fn situation() -> Situation {
        Situation {
            host_ips: vec!["192.0.2.1".parse().unwrap()],
            pod_ips: vec!["10.244.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            allocatable: rules::Resources { milli_cpu: 4000, memory: 1 << 30, ..Default::default() },
        }
    }

    #[test]
    fn fields_are_read() {
        let check = |path: &str, expect: &str| assert_eq!(field(&pod(), path, &situation()).unwrap(), expect, "{path}");
        check("metadata.name", "p");
        check("metadata.labels", "a=\"1\"\nb=\"two \\\"words\\\"\"");
        check("metadata.labels['a']", "1");
        check("metadata.labels['none']", "");
        check("metadata.annotations['x.y/z']", "v");
        check("spec.nodeName", "node");
        check("spec.serviceAccountName", "sa");
        check("status.hostIP", "192.0.2.1");
        check("status.podIP", "10.244.0.2");
        check("status.podIPs", "10.244.0.2,fd00::2");
        assert!(field(&pod(), "spec.containers", &situation()).is_err());
    }

    #[test]
    fn resources_are_divided_and_rounded_up() {
        let check = |resource: &str, divisor: &str, expect: &str| {
            let selector = ResourceFieldSelector {
                resource: resource.into(),
                divisor: Some(k8s_openapi::apimachinery::pkg::api::resource::Quantity(divisor.into())),
                container_name: Some("c".into()),
            };
            assert_eq!(super::resource(&pod(), None, &selector, &situation()).unwrap(), expect, "{resource}/{divisor}");
        };
        check("limits.cpu", "0", "2");
        check("limits.cpu", "1m", "1500");
        check("limits.memory", "1Mi", "1024");
        check("requests.memory", "1", "67108864");
        check("requests.cpu", "1", "0");
    }
}
