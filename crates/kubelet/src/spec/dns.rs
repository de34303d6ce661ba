//! A pod's resolver. Upstream: pkg/kubelet/network/dns.

use cri::v1::DnsConfig;
use k8s_openapi::api::core::v1::Pod;

use super::{host_network, namespace, spec};
use crate::config::Config;

/// The pod's name servers, search domains and options; `node` is the text of the node's own list.
pub(super) fn dns_config(config: &Config, pod: &Pod, node: &str) -> DnsConfig {
    let spec = spec(pod);
    let of_node = parse(node);
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let cluster = match policy {
        "None" => None,
        "ClusterFirstWithHostNet" => Some(true),
        "ClusterFirst" => Some(!host_network(pod)),
        _ => Some(false),
    };
    let mut dns = match cluster {
        None => DnsConfig::default(),
        Some(true) if !config.cluster_dns.is_empty() => {
            let domain = &config.cluster_domain;
            let mut searches =
                vec![format!("{}.svc.{domain}", namespace(pod)), format!("svc.{domain}"), domain.clone()];
            of_node.searches.into_iter().for_each(|search| add(&mut searches, search));
            DnsConfig {
                servers: config.cluster_dns.iter().map(ToString::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
        Some(_) => of_node,
    };
    if let Some(own) = &spec.dns_config {
        own.nameservers.iter().flatten().for_each(|server| add(&mut dns.servers, server.clone()));
        own.searches.iter().flatten().for_each(|search| add(&mut dns.searches, search.clone()));
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.clone() else { continue };
            let text = match &option.value {
                Some(value) => format!("{name}:{value}"),
                None => name.clone(),
            };
            dns.options.retain(|known| known.split(':').next() != Some(&name));
            dns.options.push(text);
        }
    }
    dns
}

fn add(list: &mut Vec<String>, item: String) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            // The last line wins; a lone dot adds nothing.
            Some("search") => dns.searches = words.filter(|word| *word != ".").map(trimmed).collect(),
            Some("options") => dns.options = words.map(str::to_owned).collect(),
            _ => {}
        }
    }
    dns
}

fn trimmed(domain: &str) -> String {
    domain.trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::spec::sandbox::tests::config;

    #[test]
    fn policies_are_upstreams() {
        let check = |spec: Json, servers: &[&str], searches: &[&str], options: &[&str]| {
            let mut full = json!({"containers": []});
            full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
            let pod = serde_json::from_value(json!({"metadata": {"namespace": "ns"}, "spec": full})).unwrap();
            let node = "# comment\nnameserver 192.0.2.1\nsearch example.org.\noptions edns0\n";
            let dns = dns_config(&config(), &pod, node);
            assert_eq!(
                (dns.servers, dns.searches, dns.options),
                (
                    servers.iter().map(|s| (*s).to_owned()).collect(),
                    searches.iter().map(|s| (*s).to_owned()).collect(),
                    options.iter().map(|s| (*s).to_owned()).collect(),
                ),
                "{spec}"
            );
        };
        let cluster = ["ns.svc.cluster.local", "svc.cluster.local", "cluster.local", "example.org"];
        check(json!({}), &["10.96.0.10"], &cluster, &["ndots:5"]);
        check(json!({"hostNetwork": true}), &["192.0.2.1"], &["example.org"], &["edns0"]);
        check(
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet"}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:5"],
        );
        check(json!({"dnsPolicy": "Default"}), &["192.0.2.1"], &["example.org"], &["edns0"]);
        check(
            json!({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.2.3.4"], "searches": ["a.b"],
                "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}}),
            &["1.2.3.4"],
            &["a.b"],
            &["ndots:2", "edns0"],
        );
        check(
            json!({"dnsConfig": {"nameservers": ["10.96.0.10"], "options": [{"name": "ndots", "value": "1"}]}}),
            &["10.96.0.10"],
            &cluster,
            &["ndots:1"],
        );
    }
}
