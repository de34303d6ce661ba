//! Endpoints, the older form of EndpointSlices. Upstream: pkg/controller/endpoint.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Map, Object, ObjectKey, Value};
use client::{
    Controller, DeleteOptions, Event, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Watch,
    resources,
};
use k8s_openapi::api::core::v1::Service;

use crate::Setup;
use crate::endpoint_slice::trigger::Triggers;
use crate::pod_view::Pods;
use crate::service::{
    Backend, Behind, HEADLESS, LAST_CHANGE, behind, endpoint_port, index_selectors, is_headless, publishes_not_ready,
    services_of,
};

const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURSELVES: &str = "endpoint-controller";
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
/// How many addresses one object tells.
const CAPACITY: usize = 1000;

pub(crate) struct Endpoints {
    services: Informer,
    pods: Pods,
    endpoints: Informer,
    events: EventRecorder,
    triggers: Triggers,
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

/// Ports grouped by the addresses that serve on them. Upstream: RepackSubsets.
fn subsets(service: &Service, backends: &[Backend]) -> Vec<Value> {
    let ipv6 = {
        let spec = service.spec.as_ref();
        let family = spec.and_then(|spec| spec.ip_families.as_ref()?.first());
        let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
        family.map_or(address.contains(':'), |family| family == "IPv6")
    };
    // By address and the pod's uid.
    type Keys<'a> = BTreeSet<(String, &'a str)>;
    let mut told: BTreeMap<(String, &str), (bool, Value)> = BTreeMap::new();
    let mut serving: BTreeMap<Vec<u8>, (Value, Keys<'_>)> = BTreeMap::new();
    for backend in backends {
        if backend.object.is_deleting() && !publishes_not_ready(service) {
            continue;
        }
        let Some(ip) = backend.addresses(ipv6).into_iter().next() else { continue };
        let ready = publishes_not_ready(service) || backend.view.is_ready();
        let address = address(service, backend, &ip);
        let key = (ip, backend.object.uid());
        for port in ports(service, backend) {
            serving.entry(port.to_json()).or_insert_with(|| (port, Keys::new())).1.insert(key.clone());
        }
        told.insert(key, (ready, address));
    }
    let portless = service.spec.as_ref().is_none_or(|spec| spec.ports.as_ref().is_none_or(Vec::is_empty));
    let mut groups: BTreeMap<Keys<'_>, Vec<Value>> = BTreeMap::new();
    if portless && is_headless(service) && !told.is_empty() {
        groups.insert(told.keys().cloned().collect(), Vec::new());
    }
    for (port, addresses) in serving.into_values() {
        groups.entry(addresses).or_default().push(port);
    }
    let subset = |(keys, ports): (Keys<'_>, Vec<Value>)| {
        let mut subset = Value::object();
        for (name, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let addresses = keys.iter().filter_map(|key| told.get(key)).filter(|told| told.0 == ready);
            let addresses: Vec<Value> = addresses.map(|told| told.1.clone()).collect();
            if !addresses.is_empty() {
                subset.set(&[name], Value::Array(addresses));
            }
        }
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

/// Cuts down to the capacity, ready addresses kept first. Whether anything was cut.
fn truncate(subsets: &mut Vec<Value>) -> bool {
    let count = |subsets: &[Value], name: &str| subsets.iter().map(|s| s.items_at(&[name]).len()).sum::<usize>();
    let (ready, not_ready) = (count(subsets, "addresses"), count(subsets, "notReadyAddresses"));
    if ready + not_ready <= CAPACITY {
        return false;
    }
    let mut room = CAPACITY;
    for name in ["addresses", "notReadyAddresses"] {
        for subset in subsets.iter_mut() {
            let Some(addresses) = subset.get_mut(name).and_then(Value::as_array_mut) else { continue };
            addresses.truncate(room);
            room -= addresses.len();
            if addresses.is_empty() {
                subset.remove(&[name]);
            }
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
        vec![
            Watch::objects(self.services.clone()),
            Watch::new(self.pods.informer.clone(), move |event| services_of(event, &services)),
            // Their own changes need no look, unless somebody took them away.
            Watch::new(self.endpoints.clone(), |event: &Event| match event {
                Event::Modified { .. } => Vec::new(),
                event => vec![event.object().key().clone()],
            }),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let current = self.endpoints.get(key);
        let Some(object) = self.services.get(key) else {
            self.triggers.forget(key);
            if let Some(current) = current.filter(|current| current.label(MANAGED_BY) == Some(OURSELVES)) {
                let options = DeleteOptions::uid(current.uid());
                match ctx.client().delete(&resources::ENDPOINTS, key, &options).await {
                    Err(error) if !error.is_not_found() => return Err(error.into()),
                    _ => {}
                }
            }
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
                let (reason, what) = match current {
                    Some(_) => ("FailedToUpdateEndpoint", "update"),
                    None => ("FailedToCreateEndpoint", "create"),
                };
                let message = format!("Failed to {what} endpoint {key}: {error}");
                self.events.warning(current.as_ref().unwrap_or(&object), reason, message);
                Err(error.into())
            }
            Ok(_) => Ok(Requeue::No),
        }
    }
}
