//! Services, their endpoints, Ingresses. Upstream: printService, printEndpoints, printEndpointSlice, printIngress.

use apimachinery::Value;

use super::{NONE, Row, or_none};

pub(super) fn cell(row: &Row<'_>, column: &str) -> Option<Value> {
    Some(
        match (row.object.kind(), column) {
            ("Service", "Cluster-IP") => row.text_or_none(&["spec", "clusterIP"]),
            ("Service", "External-IP") => external_ip(row),
            ("Service", "Port(s)") => service_ports(row),
            ("Endpoints", "Endpoints") => endpoints(row),
            ("EndpointSlice", "Ports") => slice_ports(row),
            ("EndpointSlice", "Endpoints") => slice_endpoints(row),
            ("Ingress", "Class") => row.text_or_none(&["spec", "ingressClassName"]),
            ("Ingress", "Hosts") => hosts(row),
            ("Ingress", "Address") => ingress_addresses(row).join(","),
            ("Ingress", "Ports") => {
                if row.value.items_at(&["spec", "tls"]).is_empty() { "80" } else { "80, 443" }.to_owned()
            }
            ("IngressClass", "Parameters") => parameters(row),
            ("IPAddress", "ParentRef") => {
                let part = |key: &str| row.text(&["spec", "parentRef", key]);
                let parts = [part("group"), part("resource"), part("namespace"), part("name")];
                let joined: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                joined.join("/")
            }
            ("ServiceCIDR", "CIDRs") => {
                let cidrs = row.value.items_at(&["spec", "cidrs"]).iter().filter_map(Value::as_str);
                cidrs.collect::<Vec<_>>().join(",")
            }
            _ => return None,
        }
        .into(),
    )
}

fn ingress_addresses(row: &Row<'_>) -> Vec<String> {
    let entries = row.value.items_at(&["status", "loadBalancer", "ingress"]).iter();
    entries.filter_map(|entry| entry.str_at(&["ip"]).or(entry.str_at(&["hostname"]))).map(str::to_owned).collect()
}

fn external_ip(row: &Row<'_>) -> String {
    let own: Vec<String> =
        row.value.items_at(&["spec", "externalIPs"]).iter().filter_map(Value::as_str).map(str::to_owned).collect();
    match row.text(&["spec", "type"]) {
        "ClusterIP" | "NodePort" => or_none(own.join(",")),
        "LoadBalancer" => {
            let mut all = ingress_addresses(row);
            all.extend(own);
            if all.is_empty() { "<pending>".to_owned() } else { all.join(",") }
        }
        "ExternalName" => row.text(&["spec", "externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn service_ports(row: &Row<'_>) -> String {
    let ports = row.value.items_at(&["spec", "ports"]).iter().map(|port| {
        let number = port.i64_at(&["port"]).unwrap_or_default();
        let protocol = port.str_at(&["protocol"]).unwrap_or_default();
        match port.i64_at(&["nodePort"]).unwrap_or_default() {
            0 => format!("{number}/{protocol}"),
            node_port => format!("{number}:{node_port}/{protocol}"),
        }
    });
    or_none(ports.collect::<Vec<_>>().join(","))
}

/// At most so many endpoints are told.
const SHOWN: usize = 3;

fn endpoints(row: &Row<'_>) -> String {
    let mut all = Vec::new();
    for subset in row.value.items_at(&["subsets"]) {
        let addresses = subset.items_at(&["addresses"]).iter().filter_map(|address| address.str_at(&["ip"]));
        let ports = subset.items_at(&["ports"]);
        for address in addresses {
            if ports.is_empty() {
                all.push(address.to_owned());
            }
            all.extend(ports.iter().map(|port| join_host_port(address, port.i64_at(&["port"]).unwrap_or_default())));
        }
    }
    shortened(&all)
}

fn join_host_port(address: &str, port: i64) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

fn shortened(all: &[String]) -> String {
    match all.len() {
        0 => NONE.to_owned(),
        n if n > SHOWN => format!("{} + {} more...", all[..SHOWN].join(","), n - SHOWN),
        _ => all.join(","),
    }
}

fn slice_ports(row: &Row<'_>) -> String {
    let Some(ports) = row.value.at(&["ports"]).and_then(Value::as_array) else { return "<unset>".to_owned() };
    let numbers: Vec<String> = ports
        .iter()
        .map(|port| port.i64_at(&["port"]).map_or_else(|| "*".to_owned(), |number| number.to_string()))
        .collect();
    if numbers.is_empty() { "<unset>".to_owned() } else { shortened(&numbers) }
}

fn slice_endpoints(row: &Row<'_>) -> String {
    let endpoints = row.value.items_at(&["endpoints"]).iter();
    let addresses =
        endpoints.flat_map(|endpoint| endpoint.items_at(&["addresses"])).filter_map(Value::as_str).map(str::to_owned);
    let all: Vec<String> = addresses.collect();
    if all.is_empty() { "<unset>".to_owned() } else { shortened(&all) }
}

fn hosts(row: &Row<'_>) -> String {
    let rules = row.value.items_at(&["spec", "rules"]).iter();
    let hosts: Vec<String> = rules.filter_map(|rule| rule.str_at(&["host"])).map(str::to_owned).collect();
    match hosts.len() {
        0 => "*".to_owned(),
        n if n > SHOWN => format!("{} + {} more...", hosts[..SHOWN].join(","), n - SHOWN),
        _ => hosts.join(","),
    }
}

fn parameters(row: &Row<'_>) -> String {
    let part = |key: &str| row.text(&["spec", "parameters", key]);
    if part("name").is_empty() {
        return NONE.to_owned();
    }
    let group = if part("apiGroup").is_empty() { String::new() } else { format!(".{}", part("apiGroup")) };
    format!("{}{group}/{}", part("kind"), part("name"))
}
