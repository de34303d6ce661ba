//! Ports of the node that pods ask for.

use k8s_openapi::api::core::v1::PodSpec;

/// A port that a pod takes on its node. An empty address or `0.0.0.0` means all addresses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub ip: String,
    pub protocol: String,
    pub port: i32,
}

/// The host ports of all containers, those of sidecars among them.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| crate::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let number = port.host_port.filter(|number| *number > 0)?;
            Some(HostPort {
                ip: port.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".into()),
                protocol: port.protocol.clone().unwrap_or_else(|| "TCP".into()),
                port: number,
            })
        })
        .collect()
}

/// Whether two pods with these ports can't share a node.
pub fn conflicts(a: &HostPort, b: &HostPort) -> bool {
    let any = |port: &HostPort| port.ip == "0.0.0.0" || port.ip == "::";
    a.port == b.port && a.protocol == b.protocol && (a.ip == b.ip || any(a) || any(b))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ports_of_containers_and_sidecars_count() {
        let spec: PodSpec = serde_json::from_value(json!({
            "initContainers": [
                {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "i", "ports": [{"containerPort": 2, "hostPort": 2}]}],
            "containers": [{"name": "c", "ports": [{"containerPort": 3}, {"containerPort": 4, "hostPort": 4, "protocol": "UDP"}]}],
        }))
        .unwrap();
        let ports: Vec<_> = host_ports(&spec).into_iter().map(|port| (port.port, port.protocol)).collect();
        assert_eq!(ports, [(4, "UDP".into()), (1, "TCP".into())]);
    }

    #[test]
    fn wildcards_conflict() {
        let port = |ip: &str, protocol: &str| HostPort { ip: ip.into(), protocol: protocol.into(), port: 80 };
        let check = |a, b, expect| assert_eq!(conflicts(&a, &b), expect, "{a:?} {b:?}");
        check(port("0.0.0.0", "TCP"), port("10.0.0.1", "TCP"), true);
        check(port("10.0.0.1", "TCP"), port("10.0.0.2", "TCP"), false);
        check(port("10.0.0.1", "TCP"), port("10.0.0.1", "TCP"), true);
        check(port("0.0.0.0", "TCP"), port("0.0.0.0", "UDP"), false);
    }
}
