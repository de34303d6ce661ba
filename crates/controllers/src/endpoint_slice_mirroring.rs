//! EndpointSlices that repeat Endpoints which somebody wrote by hand, for a Service without selector. Upstream:
//! pkg/controller/endpointslicemirroring.

use std::net::IpAddr;

use apimachinery::{Map, Object, ObjectKey, Value};
use client::{
    Controller, EventRecorder, Informer, ReconcileContext, ReconcileError, Requeue, Selection, Watch, resources,
};

use crate::Setup;
use crate::endpoint_slice::pack::{self, Change, Desired};
use crate::endpoint_slice::{MANAGED_BY, SERVICE_NAME, service_of_slice, write};
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
}

/// The endpoints of one family, by the ports they serve on.
fn desired(endpoints: &Value, ipv6: bool) -> Vec<Desired> {
    let mut desired: Vec<Desired> = Vec::new();
    for subset in endpoints.items_at(&["subsets"]) {
        let ports: Vec<Value> = subset.items_at(&["ports"]).iter().map(port).collect();
        let ready = subset.items_at(&["addresses"]).iter().map(|address| (address, true));
        let all = ready.chain(subset.items_at(&["notReadyAddresses"]).iter().map(|address| (address, false)));
        let of_family = |(address, _): &(&Value, bool)| {
            let ip = address.str_at(&["ip"]).and_then(|ip| ip.parse::<IpAddr>().ok());
            ip.is_some_and(|ip| ip.is_ipv6() == ipv6)
        };
        let repeated = all.filter(of_family).take(MAX_ADDRESSES).map(|(address, ready)| endpoint(address, ready));
        let repeated: Vec<Value> = repeated.collect();
        if repeated.is_empty() {
            continue;
        }
        match desired.iter_mut().find(|known| known.ports == ports) {
            Some(known) => known.endpoints.extend(repeated),
            None => desired.push(Desired { ports, endpoints: repeated }),
        }
    }
    desired
}

fn port(port: &Value) -> Value {
    let mut told = port.clone();
    if told.get("name").is_none() {
        told.set(&["name"], "");
    }
    told
}

fn endpoint(address: &Value, ready: bool) -> Value {
    let mut endpoint = Value::object();
    endpoint.set(&["addresses"], vec![address.str_at(&["ip"]).unwrap_or_default()]);
    endpoint.set(&["conditions", "ready"], ready);
    for field in ["hostname", "nodeName", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint.set(&[field], value);
        }
    }
    endpoint
}

/// The labels of the Endpoints, and those that say whose slice this is.
fn dress(slice: &mut Value, endpoints: &Object) {
    let labels = endpoints.labels().iter().filter(|(key, _)| key != SKIP);
    let mut labels: Value = labels.map(|(k, v)| (k.clone(), v.clone())).collect::<Map>().into();
    labels.set(&[SERVICE_NAME], endpoints.name());
    labels.set(&[MANAGED_BY], OURSELVES);
    slice.set(&["metadata", "labels"], labels);
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
                write::apply(ctx.client(), &slice.clone(), Change::Delete(slice), |_| {}).await?;
            }
            return Ok(Requeue::No);
        };
        let value = endpoints.to_value();
        let mut changes = Vec::new();
        for family in ["IPv4", "IPv6"] {
            let desired = desired(&value, family == "IPv6");
            let here = existing.iter().any(|slice| slice.to_value().str_at(&["addressType"]) == Some(family));
            if !desired.is_empty() || here {
                changes.extend(pack::changes(&existing, family, desired, |slice| dress(slice, &endpoints)));
            }
        }
        let annotations = annotations(&value);
        let annotate = |slice: &mut Value| slice.set(&["metadata", "annotations"], &annotations);
        for change in changes {
            if let Err(error) = write::apply(ctx.client(), &endpoints, change, annotate).await {
                let message = format!("Error updating mirrored EndpointSlices for Endpoints {key}: {error}");
                self.events.warning(&endpoints, "FailedToUpdateEndpointSlices", message);
                return Err(error.into());
            }
        }
        Ok(Requeue::No)
    }
}
