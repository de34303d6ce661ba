//! Where a streaming request leads: the kubelet of a pod's node, a port of a pod, or an endpoint of a service.

use std::fmt::Write;

use api::Kind;
use apimachinery::{GroupResource, ObjectKey, Status, Value};

use crate::server::Request;
use crate::strategy::Objects;

const KUBELET_PORT: u16 = 10250;

/// A place to connect to and what to ask for there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub scheme: Scheme,
    pub host: String,
    pub port: u16,
    /// Path and query.
    pub path: String,
    pub purpose: Purpose,
}

/// What a request wants there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Log,
    /// Exec, attach, port-forward.
    Stream,
    Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// TLS as the API server, to a certificate of the cluster's authority.
    Kubelet,
    Http,
    Https,
}

impl Target {
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Finds where the request leads; nowhere is where a pod's log is that no node has yet.
pub(super) async fn find(request: &Request<'_>, kind: &Kind) -> Result<Option<Target>, Status> {
    request.inner.registry.fresh().await?;
    let query = request.target.split_once('?').map(|(_, query)| query).unwrap_or_default();
    match (kind.kind, request.info.subresource.as_str()) {
        ("Node", _) => node_proxy(request, query).map(Some),
        ("Service", _) => service_proxy(request, query).map(Some),
        ("Pod", "proxy") => pod_proxy(request, query).map(Some),
        (_, subresource) => kubelet_stream(request, subresource, query),
    }
}

fn object(request: &Request<'_>, resource: &str, namespace: &str, name: &str) -> Result<Value, Status> {
    let found = Objects::get(&*request.inner.registry, "", resource, &ObjectKey::new(namespace, name));
    Ok(found.ok_or_else(|| Status::not_found(&GroupResource::new("", resource), name))?.to_value())
}

/// Address and port of a node's kubelet.
fn kubelet_of(request: &Request<'_>, node: &str) -> Result<(String, u16), Status> {
    address_of(&object(request, "nodes", "", node)?, node)
}

/// Address and port of the kubelet of a Node.
pub(crate) fn address_of(value: &Value, node: &str) -> Result<(String, u16), Status> {
    let addresses = value.items_at(&["status", "addresses"]);
    let of = |kind: &str| addresses.iter().find(|address| address.str_at(&["type"]) == Some(kind));
    let found = ["InternalIP", "ExternalIP", "Hostname"].into_iter().find_map(of);
    let Some(host) = found.and_then(|address| address.str_at(&["address"])) else {
        return Err(Status::internal(format!("no preferred addresses found for node {node:?}; known addresses: []")));
    };
    let port = value.i64_at(&["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).unwrap_or_default();
    Ok((host.to_owned(), u16::try_from(port).ok().filter(|port| *port != 0).unwrap_or(KUBELET_PORT)))
}

fn kubelet_stream(request: &Request<'_>, subresource: &str, query: &str) -> Result<Option<Target>, Status> {
    let (namespace, name) = (&request.info.namespace, &request.info.name);
    let pod = object(request, "pods", namespace, name)?;
    let is_log = subresource == "log";
    let path = match subresource {
        "portforward" => format!("/portForward/{namespace}/{name}?{query}"),
        _ => {
            let container = container_of(&pod, name, request.query.get("container"))?;
            let action = match subresource {
                "log" => "containerLogs",
                other => other,
            };
            let query = if is_log { log_query(request)? } else { stream_query(request) };
            format!("/{action}/{namespace}/{name}/{container}{query}")
        }
    };
    let node = pod.str_at(&["spec", "nodeName"]).unwrap_or_default();
    if node.is_empty() && is_log {
        return Ok(None);
    }
    if node.is_empty() {
        return Err(Status::bad_request(format!("pod {name} does not have a host assigned")));
    }
    // Upstream says of the node what it would say of the pod.
    let (host, port) = kubelet_of(request, node).map_err(|status| match status.is_not_found() {
        true => Status::not_found(&GroupResource::new("", "pods"), node),
        false => status,
    })?;
    let purpose = if is_log { Purpose::Log } else { Purpose::Stream };
    Ok(Some(Target { scheme: Scheme::Kubelet, host, port, path: path.trim_end_matches('?').to_owned(), purpose }))
}

/// The container meant: the named one, or the only one.
fn container_of(pod: &Value, name: &str, wanted: &str) -> Result<String, Status> {
    let names = |member: &str| -> Vec<&str> {
        pod.items_at(&["spec", member]).iter().filter_map(|container| container.str_at(&["name"])).collect()
    };
    let (containers, inits, ephemeral) = (names("containers"), names("initContainers"), names("ephemeralContainers"));
    if !wanted.is_empty() {
        let known = [&containers, &inits, &ephemeral].into_iter().any(|list| list.contains(&wanted));
        let unknown = || Status::bad_request(format!("container {wanted} is not valid for pod {name}"));
        return known.then(|| wanted.to_owned()).ok_or_else(unknown);
    }
    if let [only] = containers[..] {
        return Ok(only.to_owned());
    }
    let mut message =
        format!("a container name must be specified for pod {name}, choose one of: [{}]", containers.join(" "));
    if !inits.is_empty() {
        let _ = write!(message, " or one of the init containers: [{}]", inits.join(" "));
    }
    if !ephemeral.is_empty() {
        let _ = write!(message, " or one of the ephemeral containers: [{}]", ephemeral.join(" "));
    }
    Err(Status::bad_request(message))
}

fn log_query(request: &Request<'_>) -> Result<String, Status> {
    let mut query = String::new();
    let mut add = |name: &str, value: &str| {
        let separator = if query.is_empty() { '?' } else { '&' };
        let _ = write!(query, "{separator}{name}={}", encode(value));
    };
    for name in ["follow", "previous", "timestamps"] {
        if request.query.flag(name)? {
            add(name, "true");
        }
    }
    let mut errors = Vec::new();
    for (name, lowest) in [("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1)] {
        if let Some(number) = request.query.number(name)? {
            if number < lowest {
                let why = format!("must be greater than {}", if lowest == 0 { "or equal to 0" } else { "0" });
                errors.push(apimachinery::FieldError::invalid(name, number, why));
            }
            add(name, &number.to_string());
        }
    }
    for name in ["sinceTime", "stream"] {
        match request.query.get(name) {
            "" => {}
            value => add(name, value),
        }
    }
    if request.query.has("sinceTime") && request.query.has("sinceSeconds") {
        errors.push(apimachinery::FieldError::forbidden(
            "",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    if errors.is_empty() {
        return Ok(query);
    }
    let kind = apimachinery::GroupKind { group: String::new(), kind: "PodLogOptions".into() };
    Err(Status::invalid(&kind, &request.info.name, &errors))
}

/// Exec and attach options as the kubelet reads them. Upstream: streamParams.
fn stream_query(request: &Request<'_>) -> String {
    let mut query = String::new();
    let mut add = |name: &str, value: &str| {
        let separator = if query.is_empty() { '?' } else { '&' };
        let _ = write!(query, "{separator}{name}={}", encode(value));
    };
    for (name, kubelets) in [("stdin", "input"), ("stdout", "output"), ("stderr", "error"), ("tty", "tty")] {
        if request.query.flag(name).unwrap_or_default() {
            add(kubelets, "1");
        }
    }
    for command in request.query.all("command") {
        add("command", command);
    }
    query
}

/// `[scheme:]name[:port]`
fn split_name(text: &str) -> Result<(&str, &str, &str), Status> {
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [name] => Ok(("", name, "")),
        [name, port] if !matches!(name, "http" | "https") => Ok(("", name, port)),
        ["http" | "https", name, port] => Ok((parts[0], name, port)),
        _ => Err(Status::bad_request(format!("invalid proxy target {text:?}"))),
    }
}

/// What of a request's path comes before the proxied one: `/api/v1/namespaces/NS/pods/NAME/proxy` or `/api/v1/nodes/NAME/proxy`.
pub(super) fn split_proxy(path: &str) -> (&str, &str) {
    let segments = if path.starts_with("/api/v1/nodes/") { 6 } else { 8 };
    let ends = path.match_indices('/').map(|(at, _)| at).nth(segments - 1).unwrap_or(path.len());
    path.split_at(ends)
}

fn rest_path(request: &Request<'_>, query: &str) -> String {
    let (_, rest) = split_proxy(request.target.split('?').next().unwrap_or_default());
    let slash = if rest.starts_with('/') { "" } else { "/" };
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    format!("{slash}{rest}{query}")
}

fn node_proxy(request: &Request<'_>, query: &str) -> Result<Target, Status> {
    let (_, node, port) = split_name(&request.info.name)?;
    let (host, own_port) = kubelet_of(request, node)?;
    let port = if port.is_empty() { own_port } else { parse_port(port)? };
    Ok(Target { scheme: Scheme::Kubelet, host, port, path: rest_path(request, query), purpose: Purpose::Proxy })
}

fn pod_proxy(request: &Request<'_>, query: &str) -> Result<Target, Status> {
    let (scheme, name, port) = split_name(&request.info.name)?;
    let pod = object(request, "pods", &request.info.namespace, name)?;
    let host = pod.str_at(&["status", "podIP"]).unwrap_or_default();
    if host.is_empty() {
        return Err(Status::bad_request("address not allowed"));
    }
    let first = || {
        let containers = pod.items_at(&["spec", "containers"]).iter();
        containers.flat_map(|container| container.items_at(&["ports"])).find_map(|port| port.i64_at(&["containerPort"]))
    };
    let port = match port {
        "" => u16::try_from(first().unwrap_or(80)).unwrap_or(80),
        port => parse_port(port)?,
    };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host: host.to_owned(), port, path: rest_path(request, query), purpose: Purpose::Proxy })
}

fn service_proxy(request: &Request<'_>, query: &str) -> Result<Target, Status> {
    let (scheme, name, wanted) = split_name(&request.info.name)?;
    let namespace = &request.info.namespace;
    let service = object(request, "services", namespace, name)?;
    let ports = service.items_at(&["spec", "ports"]);
    let chosen = match wanted {
        "" if ports.len() == 1 => ports.first(),
        wanted => ports.iter().find(|port| {
            port.str_at(&["name"]).unwrap_or_default() == wanted
                || port.i64_at(&["port"]).is_some_and(|number| number.to_string() == wanted)
        }),
    };
    let unavailable = |why: String| Status::service_unavailable(why);
    let chosen = chosen.ok_or_else(|| unavailable(format!("no service port {wanted:?} found for service {name:?}")))?;
    let port_name = chosen.str_at(&["name"]).unwrap_or_default();
    let mut candidates = Vec::new();
    for slice in Objects::list(&*request.inner.registry, "discovery.k8s.io", "endpointslices", namespace) {
        if slice.label("kubernetes.io/service-name") != Some(name) {
            continue;
        }
        let slice = slice.to_value();
        let port =
            slice.items_at(&["ports"]).iter().find(|port| port.str_at(&["name"]).unwrap_or_default() == port_name);
        let Some(port) = port.and_then(|port| port.i64_at(&["port"])).and_then(|port| u16::try_from(port).ok()) else {
            continue;
        };
        for endpoint in slice.items_at(&["endpoints"]) {
            if endpoint.bool_at(&["conditions", "ready"]).unwrap_or(true) {
                let addresses = endpoint.items_at(&["addresses"]).iter().filter_map(Value::as_str);
                candidates.extend(addresses.map(|address| (address.to_owned(), port)));
            }
        }
    }
    if candidates.is_empty() {
        let key = ObjectKey::new(namespace, name);
        if Objects::get(&*request.inner.registry, "", "endpoints", &key).is_none() {
            return Err(Status::not_found(&GroupResource::new("", "services"), name));
        }
        return Err(unavailable(format!("no endpoints available for service {name:?}")));
    }
    let index = request.inner.env.random_below(candidates.len() as u64) as usize;
    let (host, port) = candidates.swap_remove(index);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    Ok(Target { scheme, host, port, path: rest_path(request, query), purpose: Purpose::Proxy })
}

fn parse_port(text: &str) -> Result<u16, Status> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| Status::bad_request(format!("invalid port {text:?}")))
}

fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte as char),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_chosen() {
        let pod =
            Value::parse(br#"{"spec":{"containers":[{"name":"a"},{"name":"b"}],"initContainers":[{"name":"i"}]}}"#)
                .unwrap();
        let check = |wanted: &str, expect: &str| {
            let found = container_of(&pod, "p", wanted).unwrap_or_else(|status| status.message);
            assert_eq!(found, expect);
        };
        check("i", "i");
        check("x", "container x is not valid for pod p");
        check(
            "",
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
        );
    }

    #[test]
    fn the_proxied_path_is_what_follows() {
        let check = |path: &str, rest: &str| assert_eq!(split_proxy(path).1, rest, "{path}");
        check("/api/v1/namespaces/proxy-1/pods/p:80/proxy/a/proxy/b", "/a/proxy/b");
        check("/api/v1/namespaces/proxy/services/proxy/proxy", "");
        check("/api/v1/nodes/n/proxy/", "/");
        check("/api/v1/nodes/n/proxy/stats/summary", "/stats/summary");
    }

    #[test]
    fn proxied_names_have_schemes_and_ports() {
        assert_eq!(split_name("a"), Ok(("", "a", "")));
        assert_eq!(split_name("a:80"), Ok(("", "a", "80")));
        assert_eq!(split_name("https:a:443"), Ok(("https", "a", "443")));
        assert!(split_name("a:b:c:d").is_err());
        assert_eq!(encode("a b/ü"), "a%20b%2F%C3%BC");
    }
}
