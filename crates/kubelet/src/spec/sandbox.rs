//! What a pod's containers share. Upstream: kuberuntime generatePodSandboxConfig.

use std::collections::HashMap;

use cri::v1::{LinuxPodSandboxConfig, PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol};
use k8s_openapi::api::core::v1::Pod;

use super::{dns, host_network, name, namespace, resources, security, spec, uid};
use crate::config::Config;
use crate::runtime::labels;

/// The sandbox's configuration; `attempt` counts the sandboxes of the pod, `resolver` is the node's list of name servers.
pub(crate) fn sandbox_config(config: &Config, pod: &Pod, attempt: u32, resolver: &str) -> PodSandboxConfig {
    let to_map = |entries: Option<&std::collections::BTreeMap<String, String>>| -> HashMap<String, String> {
        entries.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    let mut all_labels = to_map(pod.metadata.labels.as_ref());
    all_labels.extend([
        (labels::POD_NAME.to_owned(), name(pod).to_owned()),
        (labels::POD_NAMESPACE.to_owned(), namespace(pod).to_owned()),
        (labels::POD_UID.to_owned(), uid(pod).to_owned()),
    ]);
    let context = spec(pod).security_context.as_ref();
    let sysctls = context.into_iter().flat_map(|context| context.sysctls.iter().flatten());
    let linux = LinuxPodSandboxConfig {
        cgroup_parent: format!("/{}", resources::pod_cgroup(config, pod).display()),
        security_context: Some(security::sandbox(pod)),
        sysctls: sysctls.map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        overhead: None,
        resources: None,
    };
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: name(pod).to_owned(),
            uid: uid(pod).to_owned(),
            namespace: namespace(pod).to_owned(),
            attempt,
        }),
        hostname: if host_network(pod) { String::new() } else { hostname(config, pod).0 },
        log_directory: config.pod_logs(namespace(pod), name(pod), uid(pod)).to_string_lossy().into_owned(),
        dns_config: Some(dns::dns_config(config, pod, resolver)),
        port_mappings: port_mappings(pod),
        labels: all_labels,
        annotations: to_map(pod.metadata.annotations.as_ref()),
        linux: Some(linux),
        windows: None,
    }
}

/// The pod's host name, and its domain if it has one.
pub(crate) fn hostname(config: &Config, pod: &Pod) -> (String, String) {
    let spec = spec(pod);
    let given = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
    if let Some(name) = given(spec.hostname_override.as_ref()) {
        return (name, String::new());
    }
    let host = given(spec.hostname.as_ref()).unwrap_or_else(|| {
        let short: String = name(pod).chars().take(63).collect();
        short.trim_end_matches(['-', '.']).to_owned()
    });
    let domain = given(spec.subdomain.as_ref())
        .map(|subdomain| format!("{subdomain}.{}.svc.{}", namespace(pod), config.cluster_domain))
        .unwrap_or_default();
    if spec.set_hostname_as_fqdn == Some(true) && !domain.is_empty() {
        return (format!("{host}.{domain}"), domain);
    }
    (host, domain)
}

fn port_mappings(pod: &Pod) -> Vec<PortMapping> {
    if host_network(pod) {
        return Vec::new();
    }
    let sidecars = super::init_containers(pod).iter().filter(|container| rules::is_sidecar(container));
    let containers = spec(pod).containers.iter().chain(sidecars);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mapped = ports.filter(|port| port.host_port.is_some_and(|port| port > 0)).map(|port| PortMapping {
        protocol: match port.protocol.as_deref() {
            Some("UDP") => Protocol::Udp,
            Some("SCTP") => Protocol::Sctp,
            _ => Protocol::Tcp,
        }
        .into(),
        container_port: port.container_port,
        host_port: port.host_port.unwrap_or_default(),
        host_ip: port.host_ip.clone().unwrap_or_default(),
    });
    mapped.collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn config() -> Config {
        let env = env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
        let client = client::fake::FakeServer::new(env.clone()).client();
        let folder = tempfile::tempdir().unwrap();
        let authority = pki::Authority::load_or_create(folder.path(), "ca", "kubernetes", &env::Env::system()).unwrap();
        let leaf = authority.issue(&pki::CertificateSpec::server("n", &["n"], &[])).unwrap();
        let certificate = streams::ServerCertificate::new(leaf.chain().unwrap(), leaf.private_key().unwrap()).unwrap();
        let scope = linux::Scope::new("t", "/run/t".into(), "/data/t".into());
        let ips = vec!["192.0.2.9".parse().unwrap()];
        let ca = authority.certificate_pem();
        let mut config = Config::new(env, client, scope, "n1", ips, certificate, ca);
        config.cluster_dns = vec!["10.96.0.10".parse().unwrap()];
        config
    }

    #[test]
    fn a_sandbox_is_described() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u", "labels": {"app": "web"}, "annotations": {"a": "b"}},
            "spec": {"subdomain": "sub", "containers": [{"name": "c", "ports": [{"containerPort": 80},
                {"containerPort": 53, "hostPort": 5353, "protocol": "UDP"}],
                "securityContext": {"privileged": true}}], "hostPID": true,
                "securityContext": {"sysctls": [{"name": "net.x", "value": "1"}], "fsGroup": 5, "runAsUser": 7}},
        }))
        .unwrap();
        let config = sandbox_config(&config(), &pod, 2, "");
        assert_eq!(config.metadata.as_ref().unwrap().attempt, 2);
        assert_eq!((config.hostname.as_str(), config.log_directory.as_str()), ("web", "/data/t/logs/pods/ns_web_u"));
        assert_eq!(config.labels[labels::POD_UID], "u");
        assert_eq!(config.labels["app"], "web");
        assert_eq!(config.port_mappings.len(), 1);
        assert_eq!(config.port_mappings[0].protocol(), Protocol::Udp);
        let linux = config.linux.unwrap();
        assert_eq!(linux.cgroup_parent, "/oxikube-t/kubelet/besteffort/podu");
        assert_eq!(linux.sysctls["net.x"], "1");
        let security = linux.security_context.unwrap();
        assert!(security.privileged);
        assert_eq!(security.supplemental_groups, [5]);
        assert_eq!(security.run_as_user.unwrap().value, 7);
        assert_eq!(security.namespace_options.unwrap().pid(), cri::v1::NamespaceMode::Node);
    }

    #[test]
    fn hostnames_are_upstreams() {
        let check = |name: &str, spec: serde_json::Value, host: &str, domain: &str| {
            let mut full = json!({"containers": []});
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let pod =
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": "ns"}, "spec": full})).unwrap();
            assert_eq!(hostname(&config(), &pod), (host.to_owned(), domain.to_owned()), "{spec}");
        };
        check("web", json!({}), "web", "");
        check("web", json!({"hostname": "h", "subdomain": "s"}), "h", "s.ns.svc.cluster.local");
        check(
            "web",
            json!({"subdomain": "s", "setHostnameAsFQDN": true}),
            "web.s.ns.svc.cluster.local",
            "s.ns.svc.cluster.local",
        );
        check(&format!("{}-x", "a".repeat(62)), json!({}), &"a".repeat(62), "");
    }
}
