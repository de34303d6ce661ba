//! What controllers look at in pods, read once for each revision: a reconcile of a thousand pods decodes none of them again.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::Object;
use client::{Informer, Informers, resources};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerPort, Pod};

use crate::views::Views;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The part of a pod that controllers read.
#[derive(Debug, Default)]
pub(crate) struct PodView {
    pub created: Option<Timestamp>,
    pub node: Option<String>,
    pub phase: String,
    /// Since when the `Ready` condition is true; and since when it is as it is.
    pub ready_since: Option<Timestamp>,
    pub ready_changed: Option<Timestamp>,
    pub restarts: Restarts,
    pub deletion_cost: i32,
    pub addresses: Vec<IpAddr>,
    pub hostname: Option<String>,
    pub subdomain: Option<String>,
    /// Named ports of containers that run on.
    pub ports: Vec<NamedPort>,
}

/// The most restarts of any container, then of any sidecar: in this order they weigh.
pub(crate) type Restarts = (i32, i32);

#[derive(Debug)]
pub(crate) struct NamedPort {
    pub name: String,
    pub protocol: String,
    pub number: i32,
}

/// The pods, each with its view.
#[derive(Clone)]
pub(crate) struct Pods {
    pub informer: Informer,
    views: Arc<Views<PodView>>,
}

impl Pods {
    pub(crate) fn new(informers: &Informers) -> Pods {
        let informer = informers.of(&resources::PODS);
        Pods { views: Arc::new(Views::new(informer.clone())), informer }
    }

    pub(crate) fn view(&self, pod: &Object) -> Arc<PodView> {
        self.views.get(pod, PodView::of)
    }

    /// Neither ended nor being deleted.
    pub(crate) fn is_active(&self, pod: &Object) -> bool {
        !pod.is_deleting() && !self.view(pod).is_ended()
    }
}

impl PodView {
    /// A pod that cannot be read is one without anything.
    pub(crate) fn of(object: &Object) -> PodView {
        match object.view::<Pod>() {
            Ok(pod) => PodView::read(&pod),
            Err(error) => {
                tracing::warn!(pod = %object.key(), %error, "a pod cannot be read");
                PodView::default()
            }
        }
    }

    fn read(pod: &Pod) -> PodView {
        let (spec, status) = (pod.spec.as_ref(), pod.status.as_ref());
        let annotations = pod.metadata.annotations.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
        let several = status.iter().flat_map(|status| status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str()));
        let mut addresses: Vec<IpAddr> = several.filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(status.and_then(|status| status.pod_ip.as_ref()?.parse::<IpAddr>().ok()));
        }
        let sidecars = spec.iter().flat_map(|s| s.init_containers.iter().flatten()).filter(|c| rules::is_sidecar(c));
        let running = spec.iter().flat_map(|spec| &spec.containers).chain(sidecars);
        let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        PodView {
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            node: spec.and_then(|spec| filled(&spec.node_name)),
            phase: status.and_then(|status| status.phase.clone()).unwrap_or_default(),
            ready_since: rules::ready_since(pod),
            ready_changed: ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0),
            restarts: restarts(pod),
            deletion_cost: annotations.and_then(|a| deletion_cost(a.get(DELETION_COST)?)).unwrap_or_default(),
            addresses,
            hostname: spec.and_then(|spec| filled(&spec.hostname)),
            subdomain: spec.and_then(|spec| filled(&spec.subdomain)),
            ports: running.flat_map(|c| c.ports.iter().flatten()).filter_map(NamedPort::of).collect(),
        }
    }

    pub(crate) fn is_ended(&self) -> bool {
        matches!(self.phase.as_str(), "Succeeded" | "Failed")
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready_since.is_some()
    }
}

/// How often the pod's containers were restarted. Upstream: maxContainerRestarts.
pub(crate) fn restarts(pod: &Pod) -> Restarts {
    let inits = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = inits.filter(|c| rules::is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let regular = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let inits = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let of_sidecars = inits.filter(|status| sidecars.contains(&status.name.as_str()));
    let most = |count: Option<i32>| count.unwrap_or_default();
    (most(regular.map(|status| status.restart_count).max()), most(of_sidecars.map(|status| status.restart_count).max()))
}

/// A number as it is usually written: without plus sign and leading zeros.
fn deletion_cost(text: &str) -> Option<i32> {
    let usual = text == "0" || text.starts_with(|first| matches!(first, '-' | '1'..='9'));
    text.parse().ok().filter(|_| usual)
}

impl NamedPort {
    fn of(port: &ContainerPort) -> Option<NamedPort> {
        Some(NamedPort {
            name: port.name.clone()?,
            protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
            number: port.container_port,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_of_containers_and_of_sidecars_are_told_apart() {
        let json = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}],
            "initContainers":[{"name":"once"},{"name":"side","restartPolicy":"Always"}]},"status":{
            "containerStatuses":[{"name":"c","image":"","imageID":"","ready":true,"restartCount":2}],
            "initContainerStatuses":[{"name":"once","image":"","imageID":"","ready":true,"restartCount":9},
                {"name":"side","image":"","imageID":"","ready":true,"restartCount":4}]}}"#;
        assert_eq!(PodView::of(&Object::parse(json.as_bytes()).unwrap()).restarts, (2, 4));
    }

    #[test]
    fn costs_are_plain_numbers() {
        let check = |text: &str, expect: Option<i32>| assert_eq!(deletion_cost(text), expect, "{text:?}");
        check("0", Some(0));
        check("10", Some(10));
        check("-10", Some(-10));
        check("+10", None);
        check("010", None);
        check("00", None);
        check("", None);
        check("x", None);
        check("2147483648", None);
    }
}
