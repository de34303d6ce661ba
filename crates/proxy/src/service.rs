//! What matters of a Service.

use std::net::IpAddr;
use std::time::Duration;

use apimachinery::{Object, ObjectKey};
use ipnet::IpNet;
use k8s_openapi::api::core::v1;

/// A Service that has virtual addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its cluster addresses, at most one per family.
    pub cluster_ips: Vec<IpAddr>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// Addresses that a load balancer sends to this node unchanged.
    pub load_balancer_ips: Vec<IpAddr>,
    /// Who may use the load balancer's addresses; empty: everybody.
    pub load_balancer_sources: Vec<IpNet>,
    /// How long a client stays with its endpoint; `None`: no affinity.
    pub affinity: Option<Duration>,
    /// Clients within the cluster reach only endpoints of their own node.
    pub internal_local: bool,
    /// Clients outside reach only endpoints of the node they come to, and keep their address.
    pub external_local: bool,
    /// Its ports.
    pub ports: Vec<ServicePort>,
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, empty for a single one: endpoints refer to it.
    pub name: String,
    /// The transport protocol's number.
    pub protocol: u8,
    /// The port at the Service's addresses.
    pub port: u16,
    /// The port at the node's addresses.
    pub node_port: Option<u16>,
}

/// Upstream's default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS: i32 = 10_800;
/// Another proxy serves what carries this label.
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

impl Service {
    /// What matters of `object`; `None` for Services without virtual addresses, and for another proxy's.
    pub fn read(object: &Object) -> Option<Service> {
        if object.label(PROXY_NAME).is_some() {
            return None;
        }
        let service: v1::Service = match object.view() {
            Ok(service) => service,
            Err(error) => {
                tracing::warn!(service = %object.key(), %error, "unreadable Service");
                return None;
            }
        };
        let spec = service.spec?;
        let first = spec.cluster_ip.clone().into_iter();
        let cluster_ips = addresses(spec.cluster_ips.filter(|ips| !ips.is_empty()).unwrap_or_else(|| first.collect()));
        if cluster_ips.is_empty() || spec.type_.as_deref() == Some("ExternalName") {
            return None;
        }
        let local = |policy: Option<String>| policy.as_deref() == Some("Local");
        let ingress = service.status.and_then(|status| status.load_balancer).and_then(|balancer| balancer.ingress);
        let ingress = ingress.unwrap_or_default().into_iter().filter(|entry| entry.ip_mode.as_deref() != Some("Proxy"));
        let timeout = spec.session_affinity_config.and_then(|config| config.client_ip?.timeout_seconds);
        let timeout = Duration::from_secs(timeout.unwrap_or(AFFINITY_SECONDS).max(1) as u64);
        Some(Service {
            key: object.key().clone(),
            cluster_ips,
            external_ips: addresses(spec.external_ips.unwrap_or_default()),
            load_balancer_ips: addresses(ingress.filter_map(|entry| entry.ip).collect()),
            load_balancer_sources: spec
                .load_balancer_source_ranges
                .unwrap_or_default()
                .iter()
                .filter_map(|range| range.trim().parse().ok())
                .collect(),
            affinity: (spec.session_affinity.as_deref() == Some("ClientIP")).then_some(timeout),
            internal_local: local(spec.internal_traffic_policy),
            external_local: local(spec.external_traffic_policy),
            ports: spec.ports.unwrap_or_default().iter().filter_map(port).collect(),
        })
    }
}

fn port(port: &v1::ServicePort) -> Option<ServicePort> {
    Some(ServicePort {
        name: port.name.clone().unwrap_or_default(),
        protocol: protocol(port.protocol.as_deref())?,
        port: u16::try_from(port.port).ok()?,
        node_port: port.node_port.and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0),
    })
}

/// A protocol's number by its name in the API.
pub(crate) fn protocol(name: Option<&str>) -> Option<u8> {
    match name {
        None | Some("TCP") => Some(6),
        Some("UDP") => Some(17),
        Some("SCTP") => Some(132),
        _ => None,
    }
}

/// "None" and empty strings are no addresses.
fn addresses(texts: Vec<String>) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<Service> {
        let json = format!(r#"{{"apiVersion":"v1","kind":"Service",{json}}}"#);
        Service::read(&Object::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn a_service_is_read_with_upstreams_defaults() {
        let service = read(
            r#""metadata":{"name":"web","namespace":"ns"},"spec":{"clusterIP":"10.96.0.7","clusterIPs":["10.96.0.7","fd00::7"],
            "sessionAffinity":"ClientIP","externalTrafficPolicy":"Local","internalTrafficPolicy":"Cluster","type":"LoadBalancer",
            "externalIPs":["192.0.2.1"],"loadBalancerSourceRanges":["10.0.0.0/8"],
            "ports":[{"name":"http","port":80,"nodePort":30080,"targetPort":"http"},{"name":"dns","port":53,"protocol":"UDP"},
                     {"name":"odd","port":1,"protocol":"GRE"}]},
            "status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.2"},{"ip":"192.0.2.3","ipMode":"Proxy"},{"hostname":"x"}]}}"#,
        )
        .unwrap();
        assert_eq!(service.key, ObjectKey { namespace: "ns".into(), name: "web".into() });
        assert_eq!(service.cluster_ips, ["10.96.0.7".parse::<IpAddr>().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(service.external_ips, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(service.load_balancer_ips, ["192.0.2.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(service.load_balancer_sources, ["10.0.0.0/8".parse::<IpNet>().unwrap()]);
        assert_eq!(service.affinity, Some(Duration::from_secs(10_800)));
        assert_eq!((service.internal_local, service.external_local), (false, true));
        let port = |name: &str, protocol, port, node_port| ServicePort { name: name.into(), protocol, port, node_port };
        assert_eq!(service.ports, [port("http", 6, 80, Some(30080)), port("dns", 17, 53, None)]);
    }

    #[test]
    fn services_without_addresses_are_none() {
        for (json, some) in [
            (r#""metadata":{"name":"a"},"spec":{"clusterIP":"10.96.0.1"}"#, true),
            (r#""metadata":{"name":"a"},"spec":{"clusterIP":"None","clusterIPs":["None"]}"#, false),
            (r#""metadata":{"name":"a"},"spec":{}"#, false),
            (r#""metadata":{"name":"a"}"#, false),
            (r#""metadata":{"name":"a"},"spec":{"type":"ExternalName","clusterIP":"10.96.0.1"}"#, false),
            (
                r#""metadata":{"name":"a","labels":{"service.kubernetes.io/service-proxy-name":"other"}},"spec":{"clusterIP":"10.96.0.1"}"#,
                false,
            ),
        ] {
            assert_eq!(read(json).is_some(), some, "{json}");
        }
    }
}
