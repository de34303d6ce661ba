//! Endpoints, the older form of EndpointSlices. Upstream: pkg/controller/endpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::{Map, Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, EventRecorder, EventType, IgnoreNotFound, Informer, ObjectReference,
    ReconcileContext, ReconcileError, Requeue, Watch, resources,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use parking_lot::Mutex;

use crate::Setup;
use crate::endpoint_slice::trigger::Triggers;
use crate::meta::{annotation, created};
use crate::pod_view::Pods;
use crate::port_order::sort_endpoints_ports;
use crate::service::{
    Backend, Behind, HEADLESS, LAST_CHANGE, behind, endpoint_port, index_selectors, is_headless, publishes_not_ready,
    services_of,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURSELVES: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// On Endpoints that serve as a lock, without a Service.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// How many addresses one object tells.
const CAPACITY: usize = 1000;

pub(crate) struct Endpoints {
    services: Informer,
    pods: Pods,
    endpoints: Informer,
    events: EventRecorder,
    triggers: Triggers,
    started: Timestamp,
    /// Those whose Service is gone, whoever wrote them.
    left_over: Arc<Mutex<BTreeSet<ObjectKey>>>,
}

impl Endpoints {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let services = setup.informers.of(&resources::SERVICES);
        index_selectors(&services);
        Endpoints {
            services,
            pods: setup.pods.clone(),
            endpoints: setup.informers.of(&resources::ENDPOINTS),
            events: setup.recorder("endpoint-controller", "endpoint-controller"),
            triggers: Triggers::default(),
            started: setup.client.env().now(),
            left_over: Arc::default(),
        }
    }
}

/// Equal in all that we write; absent and empty lists are the same.
fn same(a: &Value, b: &Value) -> bool {
    a.items_at(&["subsets"]) == b.items_at(&["subsets"])
        && a.at(&["metadata", "labels"]) == b.at(&["metadata", "labels"])
        && a.str_at(&["metadata", "annotations", OVER_CAPACITY])
            == b.str_at(&["metadata", "annotations", OVER_CAPACITY])
}

fn labels(object: &Object, service: &Service) -> Value {
    let mut labels: Value = object.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Map>().into();
    labels.set(&[MANAGED_BY], OURSELVES);
    if is_headless(service) {
        labels.set(&[HEADLESS], "");
    } else {
        labels.remove(&[HEADLESS]);
    }
    labels
}

/// What is behind the Service, in upstream's canonical form.
fn subsets(service: &Service, backends: &[Backend]) -> Vec<Value> {
    let ipv6 = {
        let spec = service.spec.as_ref();
        let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first());
        let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        family.map_or(address.contains(':'), |family| family == "IPv6")
    };
    let portless = service.spec.as_ref().is_none_or(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let told = backends.iter().filter(|backend| !backend.object.is_deleting() || publishes_not_ready(service));
    let subsets = told.filter_map(|backend| {
        let ip = backend.addresses(ipv6).into_iter().next()?;
        let ports = ports(service, backend);
        if ports.is_empty() && !(portless && is_headless(service)) {
            return None;
        }
        let ready = publishes_not_ready(service) || backend.view.is_ready();
        let addresses = if ready { "addresses" } else { "notReadyAddresses" };
        let mut subset = Value::object();
        subset.set(&[addresses], vec![address(service, backend, &ip)]);
        subset.set(&["ports"], ports);
        Some(subset)
    });
    repack(&subsets.collect::<Vec<_>>())
}

/// The canonical form of subsets: ports grouped by the addresses that serve on them. Upstream: RepackSubsets.
pub(crate) fn repack(subsets: &[Value]) -> Vec<Value> {
    // Address and the uid of its pod; whether it is ready on a port.
    type Key<'a> = (&'a str, &'a str);
    type Ready<'a> = BTreeMap<Key<'a>, bool>;
    let mut told: BTreeMap<Key<'_>, &Value> = BTreeMap::new();
    let mut serving: BTreeMap<Vec<u8>, (Option<&Value>, Ready<'_>)> = BTreeMap::new();
    for subset in subsets {
        let ports = subset.items_at(&["ports"]);
        let portless = ports.is_empty().then_some(None);
        for port in ports.iter().map(Some).chain(portless) {
            let json = port.map(Value::to_json).unwrap_or_default();
            let (_, addresses) = serving.entry(json).or_insert_with(|| (port, Ready::new()));
            for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                for address in subset.items_at(&[list]) {
                    let text = |path: &[&str]| address.str_at(path).unwrap_or_default();
                    let key = (text(&["ip"]), text(&["targetRef", "uid"]));
                    told.entry(key).or_insert(address);
                    *addresses.entry(key).or_insert(true) &= ready;
                }
            }
        }
    }
    let mut groups: BTreeMap<Ready<'_>, Vec<Value>> = BTreeMap::new();
    for (port, addresses) in serving.into_values() {
        groups.entry(addresses).or_default().extend(port.cloned());
    }
    let subset = |(keys, mut ports): (Ready<'_>, Vec<Value>)| {
        let mut subset = Value::object();
        for (name, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let of = keys.iter().filter(|(_, is)| **is == ready);
            let addresses: Vec<Value> = of.filter_map(|(key, _)| told.get(key).copied().cloned()).collect();
            if !addresses.is_empty() {
                subset.set(&[name], Value::Array(addresses));
            }
        }
        sort_endpoints_ports(&mut ports);
        if !ports.is_empty() {
            subset.set(&["ports"], Value::Array(ports));
        }
        subset
    };
    groups.into_iter().map(subset).collect()
}

fn ports(service: &Service, backend: &Backend) -> Vec<Value> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Value> = ports.filter_map(|port| Some(endpoint_port(port, backend.port(port)?))).collect();
    for port in &mut ports {
        if port.str_at(&["name"]) == Some("") {
            port.remove(&["name"]);
        }
    }
    ports
}

fn address(service: &Service, backend: &Backend, ip: &str) -> Value {
    let mut address = Value::object();
    address.set(&["ip"], ip);
    address.set(&["targetRef"], backend.target_reference());
    if let Some(node) = backend.node() {
        address.set(&["nodeName"], node);
    }
    if let Some(hostname) = backend.hostname(service) {
        address.set(&["hostname"], hostname);
    }
    address
}

/// Cuts down to the capacity: ready addresses are kept first, of each subset as many as are its part. Whether anything was cut.
fn truncate(subsets: &mut Vec<Value>) -> bool {
    let count = |subsets: &[Value], name: &str| subsets.iter().map(|s| s.items_at(&[name]).len()).sum::<usize>();
    let (ready, not_ready) = (count(subsets, "addresses"), count(subsets, "notReadyAddresses"));
    if ready + not_ready <= CAPACITY {
        return false;
    }
    let (cut, total, most) = match ready > CAPACITY {
        true => ("addresses", ready, CAPACITY),
        false => ("notReadyAddresses", not_ready, CAPACITY - ready),
    };
    let mut room = most;
    for subset in subsets.iter_mut() {
        if cut == "addresses" {
            subset.remove(&["notReadyAddresses"]);
        }
        let Some(addresses) = subset.get_mut(cut).and_then(Value::as_array_mut) else { continue };
        addresses.truncate((addresses.len() * most).div_ceil(total).min(room));
        room -= addresses.len();
        if addresses.is_empty() {
            subset.remove(&[cut]);
        }
    }
    subsets.retain(|subset| subset.get("addresses").is_some() || subset.get("notReadyAddresses").is_some());
    true
}

impl Controller for Endpoints {
    fn name(&self) -> &'static str {
        "endpoint-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let services = self.services.clone();
        let (left_over, of_service) = (self.left_over.clone(), self.left_over.clone());
        let started = self.started;
        vec![
            Watch::new(self.services.clone(), move |event: &Event| {
                let key = event.object().key().clone();
                match event {
                    Event::Deleted(_) => of_service.lock().insert(key.clone()),
                    _ => of_service.lock().remove(&key),
                };
                vec![key]
            }),
            Watch::new(self.pods.informer.clone(), move |event| services_of(event, &services)),
            // Their own changes need no look, unless somebody took them away; and what was here before us may be left over.
            Watch::new(self.endpoints.clone(), move |event: &Event| match event {
                Event::Deleted(endpoints) => vec![endpoints.key().clone()],
                Event::Added(endpoints) if created(endpoints) < started && annotation(endpoints, LEADER).is_none() => {
                    left_over.lock().insert(endpoints.key().clone());
                    vec![endpoints.key().clone()]
                }
                _ => Vec::new(),
            }),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let current = self.endpoints.get(key);
        let Some(object) = self.services.get(key) else {
            self.triggers.forget(key);
            if let Some(current) = current.filter(|_| self.left_over.lock().contains(key)) {
                let options = DeleteOptions::uid(current.uid());
                ctx.client().delete(&resources::ENDPOINTS, key, &options).await.ignore_not_found()?;
            }
            self.left_over.lock().remove(key);
            return Ok(Requeue::No);
        };
        let Some(Behind { service, backends, changed }) = behind(&object, &self.pods)? else { return Ok(Requeue::No) };
        let changed = self.triggers.changed(key, &object, changed);
        let mut subsets = subsets(&service, &backends);
        let truncated = truncate(&mut subsets);
        let labels = labels(&object, &service);
        let before = current.as_ref().map(|current| current.to_value());
        let mut wanted = before.clone().unwrap_or_else(Value::object);
        wanted.set(&["metadata", "labels"], labels);
        wanted.set(&["subsets"], Value::Array(subsets));
        if truncated {
            wanted.set(&["metadata", "annotations", OVER_CAPACITY], "truncated");
        } else {
            wanted.remove(&["metadata", "annotations", OVER_CAPACITY]);
        }
        if before.as_ref().is_some_and(|before| same(before, &wanted)) {
            return Ok(Requeue::No);
        }
        match changed {
            Some(changed) => wanted.set(&["metadata", "annotations", LAST_CHANGE], changed),
            None => drop(wanted.remove(&["metadata", "annotations", LAST_CHANGE])),
        }
        let written = match before {
            Some(_) => ctx.client().update(&resources::ENDPOINTS, &wanted).await,
            None => {
                wanted.set(&["apiVersion"], "v1");
                wanted.set(&["kind"], "Endpoints");
                wanted.set(&["metadata", "name"], &key.name);
                wanted.set(&["metadata", "namespace"], &key.namespace);
                ctx.client().create(&resources::ENDPOINTS, &wanted).await
            }
        };
        match written {
            Err(error) if error.is_namespace_terminating() => Ok(Requeue::No),
            Err(error) => {
                let (about, reason, message) = match current {
                    Some(current) => {
                        let message = format!("Failed to update endpoint {key}: {error}");
                        (ObjectReference::to(&current), "FailedToUpdateEndpoint", message)
                    }
                    None => {
                        let message = format!("Failed to create endpoint for service {key}: {error}");
                        (unmade(key), "FailedToCreateEndpoint", message)
                    }
                };
                self.events.event(about, EventType::Warning, reason, message);
                Err(error.into())
            }
            Ok(_) => Ok(Requeue::No),
        }
    }
}

/// Endpoints that are not there yet.
fn unmade(key: &ObjectKey) -> ObjectReference {
    ObjectReference {
        api_version: "v1".to_owned(),
        kind: "Endpoints".to_owned(),
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        ..ObjectReference::default()
    }
}
