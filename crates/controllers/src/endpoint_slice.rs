//! EndpointSlices tell which pods are behind a Service. Upstream: pkg/controller/endpointslice, k8s.io/endpointslice.

pub(crate) mod pack;
mod topology;
pub(crate) mod trigger;
pub(crate) mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Controller, Event, EventRecorder, Informer, ObjectReference, ReconcileContext, ReconcileError, Requeue, Selection,
    Watch, resources,
};
use k8s_openapi::api::core::v1::{Node, Service};
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::{NODE_INDEX, by_node};
use crate::pod_view::Pods;
use crate::port_order::sort_slice_ports;
use crate::service::{
    Backend, Behind, HEADLESS, LAST_CHANGE, behind, endpoint_port, index_selectors, is_headless, publishes_not_ready,
    services_of,
};
use pack::{Change, Desired, Slice};
use topology::Topology;
use trigger::Triggers;

pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OURSELVES: &str = "endpointslice-controller.k8s.io";
const ZONE: &str = "topology.kubernetes.io/zone";
const SERVICE_INDEX: &str = "service";
/// What failed is tried again after this, then twice as long, up to the last.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LAST_PAUSE: Duration = Duration::from_secs(1000);

pub(crate) struct EndpointSlices {
    services: Informer,
    pods: Pods,
    slices: Informer,
    nodes: Informer,
    events: EventRecorder,
    triggers: Triggers,
    topology: Arc<Topology>,
    /// How often in a row the slices of a Service could not be brought up to date.
    failures: Mutex<BTreeMap<ObjectKey, u32>>,
}

impl EndpointSlices {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let services = setup.informers.of(&resources::SERVICES);
        index_selectors(&services);
        setup.pods.informer.index(NODE_INDEX, by_node);
        let ours = Selection::all().labels(format!("{MANAGED_BY}={OURSELVES}"));
        let slices = setup.informers.selected(&resources::ENDPOINT_SLICES, ours);
        slices.index(SERVICE_INDEX, |slice| {
            let name = slice.label(SERVICE_NAME);
            name.map(|name| format!("{}/{name}", slice.namespace())).into_iter().collect()
        });
        EndpointSlices {
            services,
            pods: setup.pods.clone(),
            slices,
            nodes: setup.informers.of(&resources::NODES),
            events: setup.recorder("endpointslice-controller", "endpoint-slice-controller"),
            triggers: Triggers::default(),
            topology: Arc::default(),
            failures: Mutex::default(),
        }
    }

    /// Tells what went wrong, and how long to wait: twice as long each time.
    fn incomplete(&self, service: &Object, why: String) -> Duration {
        let message = format!("Error updating Endpoint Slices for Service {}: {why}", service.key());
        tracing::debug!(message);
        self.events.warning(service, "FailedToUpdateEndpointSlices", message);
        let mut failures = self.failures.lock();
        let failures = failures.entry(service.key().clone()).or_default();
        *failures += 1;
        FIRST_PAUSE.saturating_mul(1 << (*failures - 1).min(16)).min(LAST_PAUSE)
    }

    /// The endpoints of one family, by the ports they serve on.
    fn desired(
        &self,
        service: &Service,
        backends: &[Backend],
        family: &'static str,
        automatic: bool,
        skipped: &mut Vec<String>,
    ) -> Vec<Desired> {
        let mut desired: Vec<Desired> = Vec::new();
        for backend in backends {
            let node = backend.node();
            let node_object = node.and_then(|node| self.nodes.get(&ObjectKey::cluster(node)));
            if let Some(node) = node
                && node_object.is_none()
                && !publishes_not_ready(service)
            {
                let (pod, service) = (&backend.object, service.metadata.name.as_deref().unwrap_or_default());
                let service = ObjectKey::new(pod.namespace(), service);
                skipped.push(format!("skipping Pod {} for Service {service}: Node {node} Not Found", pod.name()));
                continue;
            }
            let addresses = backend.addresses(family == "IPv6");
            if addresses.is_empty() {
                continue;
            }
            let ports = ports(service, backend);
            let endpoint = endpoint(service, backend, addresses, node_object.as_deref(), automatic);
            match desired.iter_mut().find(|desired| desired.ports == ports) {
                Some(desired) => desired.endpoints.push(endpoint),
                None => desired.push(Desired { ports, endpoints: vec![endpoint] }),
            }
        }
        desired
    }
}

/// The address types that the Service's endpoints have.
fn families(service: &Service) -> Vec<&'static str> {
    let spec = service.spec.as_ref();
    let listed = spec.and_then(|spec| spec.ip_families.as_ref()).filter(|families| !families.is_empty());
    match listed {
        Some(families) => families.iter().map(|family| if family == "IPv6" { "IPv6" } else { "IPv4" }).collect(),
        None => {
            let address = spec.and_then(|spec| spec.cluster_ip.as_deref()).unwrap_or_default();
            vec![if address.contains(':') { "IPv6" } else { "IPv4" }]
        }
    }
}

fn ports(service: &Service, backend: &Backend) -> Vec<Value> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let mut ports: Vec<Value> = ports.filter_map(|port| Some(endpoint_port(port, backend.port(port)?))).collect();
    sort_slice_ports(&mut ports);
    ports
}

/// `automatic`: hints follow from the whole, later.
fn endpoint(
    service: &Service,
    backend: &Backend,
    addresses: Vec<String>,
    node: Option<&Object>,
    automatic: bool,
) -> Value {
    let serving = backend.view.is_ready();
    let terminating = backend.object.is_deleting();
    let ready = publishes_not_ready(service) || serving && !terminating;
    let mut endpoint = Value::object();
    endpoint.set(&["addresses"], addresses);
    endpoint.set(&["conditions", "ready"], ready);
    endpoint.set(&["conditions", "serving"], serving);
    endpoint.set(&["conditions", "terminating"], terminating);
    endpoint.set(&["targetRef"], backend.target_reference());
    if let Some(hostname) = backend.hostname(service) {
        endpoint.set(&["hostname"], hostname);
    }
    if let Some(node) = backend.node() {
        endpoint.set(&["nodeName"], node);
    }
    let zone = node.and_then(|node| node.label(ZONE)).filter(|zone| !zone.is_empty());
    if let Some(zone) = zone {
        endpoint.set(&["zone"], zone);
    }
    if ready && !automatic {
        hint(&mut endpoint, service, backend.node(), zone);
    }
    endpoint
}

/// Who should rather use this endpoint, as `trafficDistribution` wants.
fn hint(endpoint: &mut Value, service: &Service, node: Option<&str>, zone: Option<&str>) {
    let named = |name: &str| {
        let mut value = Value::object();
        value.set(&["name"], name);
        vec![value]
    };
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    let (zones, nodes) = match distribution {
        Some("PreferClose" | "PreferSameZone") => (true, false),
        Some("PreferSameNode") => (true, true),
        _ => return,
    };
    if let Some(zone) = zone.filter(|_| zones) {
        endpoint.set(&["hints", "forZones"], named(zone));
    }
    if let Some(node) = node.filter(|_| nodes) {
        endpoint.set(&["hints", "forNodes"], named(node));
    }
}

/// Gives a slice the labels that follow from its Service.
fn dress(slice: &mut Value, object: &Object, service: &Service) {
    let mut labels: Value =
        object.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect::<apimachinery::Map>().into();
    for reserved in [SERVICE_NAME, MANAGED_BY, HEADLESS] {
        labels.remove(&[reserved]);
    }
    labels.set(&[SERVICE_NAME], object.name());
    labels.set(&[MANAGED_BY], OURSELVES);
    if is_headless(service) {
        labels.set(&[HEADLESS], "");
    }
    slice.set(&["metadata", "labels"], labels);
}

/// The key of the Service that a slice is of.
pub(crate) fn service_of_slice(slice: &Object) -> Option<ObjectKey> {
    slice.label(SERVICE_NAME).map(|name| ObjectKey::new(slice.namespace(), name))
}

impl Controller for EndpointSlices {
    fn name(&self) -> &'static str {
        "endpointslice-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let services = self.services.clone();
        let of_slice = |event: &Event| {
            let states = [Some(event.object()), event.old()];
            states.into_iter().flatten().filter_map(|slice| service_of_slice(slice)).collect()
        };
        let (of_node, services_of_node) = (self.pods.informer.clone(), self.services.clone());
        let (topology, nodes) = (self.topology.clone(), self.nodes.clone());
        // A node that appears completes endpoints that waited for it; where zones change, hints may no longer do.
        let of_node = move |event: &Event| {
            let mut keys = match event {
                Event::Modified { old, new } if topology::seen(old) == topology::seen(new) => return Vec::new(),
                _ => topology.overloaded(|| views(&nodes)),
            };
            if let Event::Added(node) = event {
                let pods = of_node.by_index(NODE_INDEX, node.name()).into_iter();
                keys.extend(pods.flat_map(|pod| services_of(&Event::Added(pod), &services_of_node)));
            }
            keys
        };
        vec![
            Watch::objects(self.services.clone()),
            Watch::new(self.pods.informer.clone(), move |event| services_of(event, &services)),
            Watch::new(self.slices.clone(), of_slice),
            Watch::new(self.nodes.clone(), of_node),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(object) = self.services.get(key) else {
            // The slices are the Service's own, and go with it.
            self.triggers.forget(key);
            self.topology.forget(key);
            self.failures.lock().remove(key);
            return Ok(Requeue::No);
        };
        let Some(Behind { service, backends, changed }) = behind(&object, &self.pods)? else { return Ok(Requeue::No) };
        let changed = self.triggers.changed(key, &object, changed);
        let existing = self.slices.by_index(SERVICE_INDEX, &key.to_string()).into_iter();
        let existing: Vec<_> =
            existing.filter(|slice| !slice.is_deleting()).map(|slice| (address_type(&slice), slice)).collect();
        let automatic = topology::is_automatic(&object);
        let nodes = if automatic { views(&self.nodes) } else { Vec::new() };
        let families = families(&service);
        let annotate = |slice: &mut Value| match &changed {
            Some(changed) => slice.set(&["metadata", "annotations", LAST_CHANGE], changed),
            None => drop(slice.remove(&["metadata", "annotations", LAST_CHANGE])),
        };
        let dress = |slice: &mut Value| dress(slice, &object, &service);
        let mut problems: Vec<String> = Vec::new();
        for family in &families {
            // What was an elder Service's of the same name is not ours to change.
            let of_family = existing.iter().filter(|(of, _)| of == family).map(|(_, slice)| slice);
            let (ours, others): (Vec<_>, Vec<_>) = of_family.partition(|slice| is_owned(slice, &object));
            let ours = ours.into_iter().filter_map(|slice| Slice::of(slice, family, dress)).collect();
            let desired = self.desired(&service, &backends, family, automatic, &mut problems);
            let mut plan = pack::plan(ours, desired, automatic);
            plan.tell_of_none();
            let told = match automatic {
                true => self.topology.hint(key, family, &mut plan, &nodes),
                false => self.topology.disable(key, family),
            };
            let mut changes = plan.changes(family, dress);
            changes.extend(others.into_iter().map(|slice| Change::Delete(slice.clone())));
            let written = write::apply(ctx.client(), &object, changes, annotate).await;
            problems.extend(written.err().map(|error| error.to_string()));
            if let Some((r#type, reason, message)) = told {
                self.events.event(ObjectReference::to(&object), r#type, reason, message);
            }
        }
        let elsewhere = existing.into_iter().filter(|(of, _)| !families.contains(&of.as_str()));
        let elsewhere = elsewhere.map(|(_, slice)| Change::Delete(slice)).collect();
        let written = write::apply(ctx.client(), &object, elsewhere, annotate).await;
        problems.extend(written.err().map(|error| error.to_string()));
        problems.dedup();
        let why = match &mut problems[..] {
            [] => {
                self.failures.lock().remove(key);
                return Ok(Requeue::No);
            }
            [one] => std::mem::take(one),
            many => format!("[{}]", many.join(", ")),
        };
        Ok(Requeue::After(self.incomplete(&object, why)))
    }
}

fn views(nodes: &Informer) -> Vec<Node> {
    nodes.list("").iter().filter_map(|node| node.view().ok()).collect()
}

fn address_type(slice: &Object) -> String {
    slice.to_value().str_at(&["addressType"]).unwrap_or_default().to_owned()
}

fn is_owned(slice: &Object, service: &Object) -> bool {
    slice.owners().iter().any(|owner| owner.uid == service.uid())
}
