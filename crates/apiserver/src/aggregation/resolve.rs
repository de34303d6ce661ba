//! From a Service to an address, and why there is none.

use apimachinery::{ObjectKey, Value};

use super::route::Route;
use crate::strategy::Objects;

/// Why a service leads nowhere. Upstream: AvailableConditionController.sync.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Nowhere {
    pub reason: &'static str,
    pub message: String,
}

/// Hosts and ports that the service leads to, of which any will do.
pub(super) fn endpoints(objects: &dyn Objects, route: &Route) -> Result<Vec<(String, u16)>, Nowhere> {
    let Route { namespace, service: name, port, .. } = route;
    let nowhere = |reason, message| Err(Nowhere { reason, message });
    let Some(service) = objects.get("", "services", &ObjectKey::new(namespace, name)) else {
        return nowhere("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    let service = service.to_value();
    if service.str_at(&["spec", "type"]) == Some("ExternalName") {
        let host = service.str_at(&["spec", "externalName"]).unwrap_or_default();
        return Ok(vec![(host.to_owned(), *port)]);
    }
    let ports = service.items_at(&["spec", "ports"]);
    let Some(chosen) = ports.iter().find(|one| one.i64_at(&["port"]) == Some(i64::from(*port))) else {
        return nowhere("ServicePortError", format!("service/{name} in {namespace:?} is not listening on port {port}"));
    };
    let port_name = chosen.str_at(&["name"]).unwrap_or_default();
    let mut slices = objects.list("discovery.k8s.io", "endpointslices", namespace);
    slices.retain(|slice| slice.label("kubernetes.io/service-name") == Some(name));
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return nowhere("EndpointsNotFound", message);
    }
    let found: Vec<(String, u16)> = slices.iter().flat_map(|slice| ready(&slice.to_value(), port_name)).collect();
    if found.is_empty() {
        let message = format!(
            "endpointslices for service/{name} in {namespace:?} have no addresses with port name {port_name:?}"
        );
        return nowhere("MissingEndpoints", message);
    }
    Ok(found)
}

fn ready(slice: &Value, port_name: &str) -> Vec<(String, u16)> {
    let named = |port: &&Value| port.str_at(&["name"]).unwrap_or_default() == port_name;
    let port = slice.items_at(&["ports"]).iter().find(named).and_then(|port| port.i64_at(&["port"]));
    let Some(port) = port.and_then(|port| u16::try_from(port).ok()) else { return Vec::new() };
    let endpoints = slice.items_at(&["endpoints"]).iter();
    let ready = endpoints.filter(|endpoint| endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true));
    let addresses = ready.flat_map(|endpoint| endpoint.items_at(&["addresses"])).filter_map(Value::as_str);
    addresses.map(|address| (address.to_owned(), port)).collect()
}
