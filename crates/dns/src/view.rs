//! What a zone needs of Services and EndpointSlices.

use std::net::IpAddr;

use apimachinery::{Object, ObjectKey};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::zone::{Endpoint, Port, Service, ServiceKind};

/// The index of slices by `namespace/service`.
pub(crate) const BY_SERVICE: &str = "service";

/// The Service that a slice belongs to.
pub(crate) fn service_key(slice: &Object) -> Option<ObjectKey> {
    slice.label("kubernetes.io/service-name").map(|name| ObjectKey::new(slice.namespace(), name))
}

pub(crate) fn service_of_slice(slice: &Object) -> Vec<String> {
    service_key(slice).map(|key| key.to_string()).into_iter().collect()
}

/// `None` for objects that are no Services, which the API server does not send.
pub(crate) fn service(object: &Object) -> Option<Service> {
    let service: core::Service = decode(object)?;
    let spec = service.spec.unwrap_or_default();
    let addresses = spec.cluster_ips.or(spec.cluster_ip.map(|ip| vec![ip])).unwrap_or_default();
    let kind = if spec.type_.as_deref() == Some("ExternalName") {
        ServiceKind::External(spec.external_name.unwrap_or_default())
    } else if addresses.first().is_some_and(|ip| ip == "None") {
        ServiceKind::Headless { not_ready_too: spec.publish_not_ready_addresses.unwrap_or_default() }
    } else {
        ServiceKind::Addresses(addresses.iter().filter_map(|ip| ip.parse().ok()).collect())
    };
    let ports = spec.ports.into_iter().flatten().map(|port| Port {
        name: port.name.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_else(|| "TCP".into()).to_lowercase(),
        port: port.port as u16,
    });
    Some(Service { kind, ports: ports.collect() })
}

pub(crate) fn endpoints(object: &Object) -> Option<Vec<Endpoint>> {
    let slice: EndpointSlice = decode(object)?;
    let ports: Vec<Port> = slice
        .ports
        .into_iter()
        .flatten()
        .filter_map(|port| {
            let protocol = port.protocol.unwrap_or_else(|| "TCP".into()).to_lowercase();
            Some(Port { name: port.name.unwrap_or_default(), protocol, port: port.port? as u16 })
        })
        .collect();
    let endpoints = slice.endpoints.into_iter().flat_map(|endpoint| {
        let ready = endpoint.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true);
        let hostname = endpoint.hostname;
        let ports = ports.clone();
        let addresses = endpoint.addresses.into_iter().filter_map(|ip| ip.parse::<IpAddr>().ok());
        addresses
            .map(move |ip| Endpoint { ip, hostname: hostname.clone(), ready, ports: ports.clone() })
            .collect::<Vec<_>>()
    });
    Some(endpoints.collect())
}

fn decode<T: for<'de> k8s_openapi::serde::Deserialize<'de>>(object: &Object) -> Option<T> {
    object
        .view()
        .inspect_err(|error| tracing::error!(?object, %error, "the API server sent what is no such object"))
        .ok()
}
