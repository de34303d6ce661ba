//! EndpointSlices that repeat Endpoints which somebody wrote by hand, for a Service without selector. Upstream:
//! pkg/controller/endpointslicemirroring.

use std::net::IpAddr;
use std::sync::Arc;

use apimachinery::{Map, Object, ObjectKey, Value};
use client::{
    Controller, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Selection, Watch, resources,
};

use crate::Setup;
use crate::endpoint_slice::pack::{Change, Desired, Plan, Slice, target};
use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME, service_of_slice, write};
use crate::endpoints::repack;
use crate::meta::controller_reference;
use crate::port_order::sort_slice_ports;
use crate::service::LAST_CHANGE;

const OURSELVES: &str = "endpointslicemirroring-controller.k8s.io";
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
const SERVICE_INDEX: &str = "service";
/// How many addresses of a subset are repeated.
const MAX_ADDRESSES: usize = 1000;

pub(crate) struct EndpointSliceMirroring {
    endpoints: Informer,
    services: Informer,
    slices: Informer,
    events: EventRecorder,
}

impl EndpointSliceMirroring {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let ours = Selection::all().labels(format!("{MANAGED_BY}={OURSELVES}"));
        let slices = setup.informers.selected(&resources::ENDPOINT_SLICES, ours);
        slices.index(SERVICE_INDEX, |slice| service_of_slice(slice).map(|key| key.to_string()).into_iter().collect());
        EndpointSliceMirroring {
            endpoints: setup.informers.of(&resources::ENDPOINTS),
            services: setup.informers.of(&resources::SERVICES),
            slices,
            events: setup.recorder("endpointslicemirroring-controller", "endpoint-slice-mirroring-controller"),
        }
    }

    /// Whether these are written by hand, for a Service whose endpoints nobody else tells.
    fn is_mirrored(&self, endpoints: &Object) -> bool {
        if endpoints.label(SKIP) == Some("true") || crate::meta::annotation(endpoints, LEADER).is_some() {
            return false;
        }
        let Some(service) = self.services.get(endpoints.key()) else { return false };
        let value = service.to_value();
        value.at(&["spec", "selector"]).and_then(Value::as_object).is_none_or(Map::is_empty)
    }

    fn tell(&self, endpoints: &Arc<Object>, invalid: usize, skipped: usize) {
        if invalid > 0 {
            let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
            self.events.warning(endpoints, "InvalidIPAddress", message);
        }
        if skipped > invalid {
            let message = format!(
                "A max of {MAX_ADDRESSES} addresses can be mirrored to EndpointSlices per Endpoints subset. {skipped} addresses were skipped"
            );
            self.events.warning(endpoints, "TooManyAddressesToMirror", message);
        }
    }
}

/// What is to be told of Endpoints.
#[derive(Default)]
struct Mirrored {
    /// The endpoints of each family, by the ports they serve on.
    families: [Vec<Desired>; 2],
    /// Addresses that are none, and those that are too many.
    invalid: usize,
    skipped: usize,
}

const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];

fn mirrored(endpoints: &Value) -> Mirrored {
    let mut mirrored = Mirrored::default();
    for subset in repack(endpoints.items_at(&["subsets"])) {
        let mut ports: Vec<Value> = subset.items_at(&["ports"]).iter().map(port).collect();
        sort_slice_ports(&mut ports);
        let ready = subset.items_at(&["addresses"]).iter().map(|address| (address, true));
        let all = ready.chain(subset.items_at(&["notReadyAddresses"]).iter().map(|address| (address, false)));
        let mut room = MAX_ADDRESSES;
        for (address, ready) in all {
            let ip = address.str_at(&["ip"]).and_then(|ip| ip.parse::<IpAddr>().ok());
            let Some(ip) = ip.filter(|_| room > 0) else {
                mirrored.skipped += 1;
                mirrored.invalid += usize::from(room > 0);
                continue;
            };
            room -= 1;
            let family = &mut mirrored.families[usize::from(ip.is_ipv6())];
            let endpoint = endpoint(address, ip, ready);
            match family.iter_mut().find(|known| known.ports == ports) {
                Some(known) => known.endpoints.push(endpoint),
                None => family.push(Desired { ports: ports.clone(), endpoints: vec![endpoint] }),
            }
        }
    }
    mirrored
}

/// One slice for each set of ports, however many its endpoints.
fn plan(mut existing: Vec<Slice>, desired: Vec<Desired>) -> Plan {
    let mut plan = Plan::default();
    for desired in desired {
        let (same, others): (Vec<_>, Vec<_>) = existing.into_iter().partition(|slice| slice.serves_on(&desired.ports));
        existing = others;
        let mut same = same.into_iter();
        match same.next() {
            None => plan.made.push(desired),
            Some(mut slice) => {
                if !are_same(&slice.endpoints, &desired.endpoints) {
                    slice.changed = true;
                }
                if slice.changed {
                    slice.endpoints = desired.endpoints;
                }
                plan.kept.push(slice);
            }
        }
        plan.gone.extend(same);
    }
    plan.gone.extend(existing);
    plan
}

/// Whether both are the same endpoints, in any order.
fn are_same(a: &[Value], b: &[Value]) -> bool {
    let sorted = |endpoints: &[Value]| {
        let mut sorted: Vec<Value> = endpoints.to_vec();
        sorted.sort_by_cached_key(|endpoint| format!("{:?}", target(endpoint)));
        for endpoint in &mut sorted {
            endpoint.remove(&["targetRef", "resourceVersion"]);
        }
        sorted
    };
    a.len() == b.len() && sorted(a) == sorted(b)
}

fn port(port: &Value) -> Value {
    let mut told = port.clone();
    if told.get("name").is_none() {
        told.set(&["name"], "");
    }
    told
}

fn endpoint(address: &Value, ip: IpAddr, ready: bool) -> Value {
    let mut endpoint = Value::object();
    endpoint.set(&["addresses"], vec![ip.to_string()]);
    endpoint.set(&["conditions", "ready"], ready);
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint.set(&[field], value);
        }
    }
    endpoint
}

/// Gives a slice the labels and annotations of the Endpoints, and says whose it is.
fn dress(slice: &mut Value, endpoints: &Object, annotations: &Value) {
    let mut labels: Value = endpoints.labels().iter().map(|(k, v)| (k.clone(), v.clone())).collect::<Map>().into();
    labels.set(&[SERVICE_NAME], endpoints.name());
    labels.set(&[MANAGED_BY], OURSELVES);
    slice.set(&["metadata", "labels"], labels);
    match annotations.as_object().is_none_or(Map::is_empty) {
        true => drop(slice.remove(&["metadata", "annotations"])),
        false => slice.set(&["metadata", "annotations"], annotations),
    }
    let elder = |owner: &Value| {
        owner.str_at(&["kind"]) == Some("Endpoints")
            && owner.str_at(&["name"]) == Some(endpoints.name())
            && owner.str_at(&["uid"]) != Some(endpoints.uid())
    };
    if slice.items_at(&["metadata", "ownerReferences"]).iter().any(elder) {
        slice.set(&["metadata", "ownerReferences"], vec![controller_reference(endpoints)]);
    }
}

fn annotations(endpoints: &Value) -> Value {
    let mut annotations = endpoints.at(&["metadata", "annotations"]).cloned().unwrap_or_else(Value::object);
    annotations.remove(&[LAST_APPLIED]);
    annotations.remove(&[LAST_CHANGE]);
    annotations
}

impl Controller for EndpointSliceMirroring {
    fn name(&self) -> &'static str {
        "endpointslice-mirroring-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_slice = |event: &client::Event| service_of_slice(event.object()).into_iter().collect();
        vec![
            Watch::objects(self.endpoints.clone()),
            Watch::objects(self.services.clone()),
            Watch::new(self.slices.clone(), of_slice),
        ]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let existing = self.slices.by_index(SERVICE_INDEX, &key.to_string());
        let existing: Vec<_> = existing.into_iter().filter(|slice| !slice.is_deleting()).collect();
        let Some(endpoints) = self.endpoints.get(key).filter(|endpoints| self.is_mirrored(endpoints)) else {
            for slice in existing {
                let changes = vec![Change::Delete(slice.clone())];
                write::apply(ctx.client(), &slice, changes, |_| {}).await?;
            }
            return Ok(Requeue::No);
        };
        let value = endpoints.to_value();
        let Mirrored { families, invalid, skipped } = mirrored(&value);
        self.tell(&endpoints, invalid, skipped);
        let annotations = annotations(&value);
        let dress = |slice: &mut Value| dress(slice, &endpoints, &annotations);
        for (family, desired) in FAMILIES.into_iter().zip(families) {
            let existing = existing.iter().filter_map(|slice| Slice::of(slice, family, dress)).collect();
            let changes = plan(existing, desired).changes(family, dress);
            write::apply(ctx.client(), &endpoints, changes, |_| {}).await?;
        }
        Ok(Requeue::No)
    }
}
