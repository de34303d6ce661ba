//! What controllers look at in pods, read once for each revision: a reconcile of a thousand pods decodes none of them again.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{Informer, Informers, resources};
use jiff::Timestamp;

use crate::meta::parsed;
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
    pub(crate) fn of(pod: &Object) -> PodView {
        let pod = parsed(pod);
        let text = |path: &[&str]| pod.str_at(path).filter(|text| !text.is_empty());
        let stamp = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let ready = pod.items_at(&["status", "conditions"]).iter().find(|one| one.str_at(&["type"]) == Some("Ready"));
        let ready_changed = ready.and_then(|ready| stamp(ready.str_at(&["lastTransitionTime"])));
        let is_ready = ready.is_some_and(|ready| ready.str_at(&["status"]) == Some("True"));
        let several = pod.items_at(&["status", "podIPs"]).iter().filter_map(|ip| ip.str_at(&["ip"]));
        let mut addresses: Vec<IpAddr> = several.filter_map(|ip| ip.parse().ok()).collect();
        if addresses.is_empty() {
            addresses.extend(pod.str_at(&["status", "podIP"]).and_then(|ip| ip.parse::<IpAddr>().ok()));
        }
        let running = pod.items_at(&["spec", "containers"]).iter().chain(sidecars(&pod));
        PodView {
            created: stamp(pod.str_at(&["metadata", "creationTimestamp"])),
            node: text(&["spec", "nodeName"]).map(str::to_owned),
            phase: text(&["status", "phase"]).unwrap_or_default().to_owned(),
            ready_since: is_ready.then(|| ready_changed.unwrap_or(Timestamp::UNIX_EPOCH)),
            ready_changed,
            restarts: restarts(&pod),
            deletion_cost: text(&["metadata", "annotations", DELETION_COST])
                .and_then(deletion_cost)
                .unwrap_or_default(),
            addresses,
            hostname: text(&["spec", "hostname"]).map(str::to_owned),
            subdomain: text(&["spec", "subdomain"]).map(str::to_owned),
            ports: running.flat_map(|c| c.items_at(&["ports"])).filter_map(NamedPort::of).collect(),
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
pub(crate) fn restarts(pod: &Value) -> Restarts {
    let names: Vec<&str> = sidecars(pod).filter_map(|sidecar| sidecar.str_at(&["name"])).collect();
    let is_sidecar = |status: &&Value| status.str_at(&["name"]).is_some_and(|name| names.contains(&name));
    let count = |status: &Value| i32::try_from(status.i64_at(&["restartCount"])?).ok();
    let regular = pod.items_at(&["status", "containerStatuses"]).iter().filter_map(count);
    let of_sidecars = pod.items_at(&["status", "initContainerStatuses"]).iter().filter(is_sidecar).filter_map(count);
    (regular.max().unwrap_or_default(), of_sidecars.max().unwrap_or_default())
}

fn sidecars(pod: &Value) -> impl Iterator<Item = &Value> {
    let inits = pod.items_at(&["spec", "initContainers"]).iter();
    inits.filter(|init| init.str_at(&["restartPolicy"]) == Some("Always"))
}

/// A number as it is usually written: without plus sign and leading zeros.
fn deletion_cost(text: &str) -> Option<i32> {
    let usual = text == "0" || text.starts_with(|first| matches!(first, '-' | '1'..='9'));
    text.parse().ok().filter(|_| usual)
}

impl NamedPort {
    fn of(port: &Value) -> Option<NamedPort> {
        Some(NamedPort {
            name: port.str_at(&["name"])?.to_owned(),
            protocol: port.str_at(&["protocol"]).unwrap_or("TCP").to_owned(),
            number: port.i64_at(&["containerPort"]).and_then(|number| i32::try_from(number).ok()).unwrap_or_default(),
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
