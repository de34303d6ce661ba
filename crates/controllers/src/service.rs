//! What the controllers of endpoints share: Services, the pods behind them, and the ports these serve on.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Selector, Value};
use client::{Event, Informer};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::meta::parsed;
use crate::pod_view::{NamedPort, PodView, Pods};

pub(crate) const HEADLESS: &str = "service.kubernetes.io/headless";
pub(crate) const LAST_CHANGE: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The index of Services by one `key=value` of their selectors.
const SELECTOR_INDEX: &str = "selector";

/// Lets [`services_of`] find Services.
pub(crate) fn index_selectors(services: &Informer) {
    services.index(SELECTOR_INDEX, |service| {
        let value = service.to_value();
        let selector = value.at(&["spec", "selector"]).and_then(Value::as_object);
        let first = selector.and_then(|selector| selector.iter().next());
        first.and_then(|(key, value)| Some(entry(service.namespace(), key, value.as_str()?))).into_iter().collect()
    });
}

fn entry(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace}/{key}={value}")
}

/// The Services that a change of a pod concerns: those that select it or did, if it is told differently in endpoints now.
pub(crate) fn services_of(event: &Event, services: &Informer) -> Vec<ObjectKey> {
    let mut keys = Vec::new();
    for pod in [Some(event.object()), event.old()].into_iter().flatten() {
        for (key, value) in pod.labels() {
            for service in services.by_index(SELECTOR_INDEX, &entry(pod.namespace(), key, value)) {
                if selector(&service).is_some_and(|selector| selector.matches(pod)) {
                    keys.push(service.key().clone());
                }
            }
        }
    }
    if let Event::Modified { old, new } = event
        && !keys.is_empty()
        && told(old) == told(new)
    {
        return Vec::new();
    }
    keys.sort();
    keys.dedup();
    keys
}

/// What endpoints tell of a pod.
fn told(pod: &Object) -> Value {
    let value = parsed(pod);
    let mut told = Value::object();
    for path in [
        &["metadata", "labels"][..],
        &["metadata", "deletionTimestamp"],
        &["spec", "nodeName"],
        &["spec", "hostname"],
        &["spec", "subdomain"],
        &["status", "podIP"],
        &["status", "podIPs"],
        &["status", "phase"],
    ] {
        if let Some(part) = value.at(path) {
            told.set(path, part);
        }
    }
    let conditions = value.items_at(&["status", "conditions"]).iter();
    let ready = conditions.filter(|condition| condition.str_at(&["type"]) == Some("Ready"));
    told.set(&["ready"], Value::Array(ready.filter_map(|condition| condition.get("status").cloned()).collect()));
    told
}

/// The Service's selector; `None` where somebody else writes its endpoints.
fn selector(service: &Object) -> Option<Selector> {
    let value = service.to_value();
    let selector = value.at(&["spec", "selector"])?.as_object().filter(|selector| !selector.is_empty())?;
    Some(Selector::from_labels(selector.iter().filter_map(|(key, value)| Some((key, value.as_str()?)))))
}

/// A pod behind a Service.
pub(crate) struct Backend {
    pub object: Arc<Object>,
    pub view: Arc<PodView>,
}

/// A Service, and what is behind it.
pub(crate) struct Behind {
    pub service: Service,
    pub backends: Vec<Backend>,
    /// Since when each selected pod is ready or not, whether it is told or has ended.
    pub changed: BTreeMap<String, Timestamp>,
}

/// The Service, and the pods that it selects. `None` where its endpoints are not ours to write.
pub(crate) fn behind(object: &Object, pods: &Pods) -> Result<Option<Behind>, serde_json::Error> {
    let service: Service = object.view()?;
    let external = service.spec.as_ref().is_some_and(|spec| spec.type_.as_deref() == Some("ExternalName"));
    let Some(selector) = selector(object).filter(|_| !external) else { return Ok(None) };
    let selected = pods.informer.list(object.namespace()).into_iter().filter(|pod| selector.matches(pod));
    let mut backends: Vec<_> = selected.map(|object| Backend { view: pods.view(&object), object }).collect();
    let changed = |backend: &Backend| Some((backend.object.name().to_owned(), backend.view.ready_changed?));
    let changed = backends.iter().filter_map(changed).collect();
    backends.retain(|backend| !backend.view.addresses.is_empty() && !backend.view.is_ended());
    Ok(Some(Behind { service, backends, changed }))
}

impl Backend {
    /// The pod's addresses of one family.
    pub(crate) fn addresses(&self, ipv6: bool) -> Vec<String> {
        self.view.addresses.iter().filter(|ip| ip.is_ipv6() == ipv6).map(|ip| ip.to_string()).collect()
    }

    /// The pod's own DNS name within the Service.
    pub(crate) fn hostname(&self, service: &Service) -> Option<&str> {
        let ours = self.view.subdomain.is_some() && self.view.subdomain == service.metadata.name;
        self.view.hostname.as_deref().filter(|_| ours)
    }

    pub(crate) fn node(&self) -> Option<&str> {
        self.view.node.as_deref()
    }

    /// The port that `port` leads to in this pod; a named one must be there with the same protocol.
    pub(crate) fn port(&self, port: &ServicePort) -> Option<i32> {
        match &port.target_port {
            None | Some(IntOrString::Int(0)) => Some(port.port),
            Some(IntOrString::Int(number)) => Some(*number),
            Some(IntOrString::String(name)) => {
                let protocol = port.protocol.as_deref().unwrap_or("TCP");
                let same = |known: &&NamedPort| known.name == *name && known.protocol == protocol;
                self.view.ports.iter().find(same).map(|known| known.number)
            }
        }
    }

    pub(crate) fn target_reference(&self) -> Value {
        let mut reference = Value::object();
        reference.set(&["kind"], "Pod");
        reference.set(&["name"], self.object.name());
        reference.set(&["namespace"], self.object.namespace());
        reference.set(&["uid"], self.object.uid());
        reference
    }
}

pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or_default()
}

/// A port as endpoints tell it.
pub(crate) fn endpoint_port(port: &ServicePort, number: i32) -> Value {
    let mut told = Value::object();
    told.set(&["name"], port.name.as_deref().unwrap_or_default());
    told.set(&["port"], number);
    told.set(&["protocol"], port.protocol.as_deref().unwrap_or("TCP"));
    if let Some(protocol) = &port.app_protocol {
        told.set(&["appProtocol"], protocol);
    }
    told
}
