//! Objects that a cluster has from its first second: system namespaces, the `kubernetes` Service and its endpoints, priority
//! classes. Written through the server's own front door, as its own user. Upstream: pkg/controlplane.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use client::{Body, Client, Transport};
use futures_util::future;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method};
use serde_json::{Value, json};
use tracing::warn;

use crate::config::Settings;
use crate::gate::bootstrap::{self as policy, Wanted};
use crate::identity::UserInfo;
use crate::local::Local;
use crate::server::Server;
use crate::strategy::Objects;

/// Manages the fields of what the server makes.
const AGENT: &str = "kube-apiserver";
const NAMESPACES: &str = "/api/v1/namespaces";

/// How the server calls itself.
pub(crate) fn own_user() -> UserInfo {
    UserInfo::authenticated("system:apiserver", &["system:masters"])
}

/// How many roles and bindings are looked at one after another; the rest goes beside.
const CHUNK: usize = 8;

/// Makes what is missing, the namespaces first; tries until it is there.
pub(crate) async fn run(server: &Server, pki: &pki::ClusterPki) {
    let local = Local::new(server.clone(), own_user());
    let (namespaces, mut objects): (Vec<SystemObject>, Vec<SystemObject>) =
        objects(&server.inner().settings).into_iter().partition(|object| object.path == NAMESPACES);
    objects.push(extension_authentication(pki));
    objects.extend(api_services(server));
    persist(server, || begin(&local, &server.inner().settings)).await;
    future::join_all(namespaces.iter().map(|object| persist(server, || ensure(&local, object)))).await;

    let client = Client::new(server.inner().env.clone(), Arc::new(local.clone()), AGENT);
    let wanted: Vec<Wanted> = policy::priority_classes()
        .into_iter()
        .chain(policy::rbac(server.inner().settings.features.device_taints))
        .collect();
    let policies = wanted.chunks(CHUNK).map(|chunk| {
        let client = &client;
        persist(server, move || async move { policy::ensure(client, chunk).await.map_err(|error| error.to_string()) })
    });
    let others = objects.iter().map(|object| persist(server, || ensure(&local, object)));
    future::join(future::join_all(policies), future::join_all(others)).await;
}

/// Makes what only a new cluster gets. One without namespaces is new: they come after.
async fn begin(local: &Local, settings: &Settings) -> Result<(), String> {
    if settings.begins_with.is_empty() {
        return Ok(());
    }
    match send(local, Method::GET, &format!("{NAMESPACES}/default"), Vec::new()).await? {
        (404, _) => {}
        (200, _) => return Ok(()),
        (code, message) => return Err(format!("{NAMESPACES}/default: {code}: {message}")),
    }
    for (path, json) in &settings.begins_with {
        ensure(local, &SystemObject { path: (*path).to_owned(), json: json.clone(), keeps: &[] }).await?;
    }
    Ok(())
}

async fn persist<F: Future<Output = Result<(), String>>>(server: &Server, attempt: impl Fn() -> F) {
    let mut pause = Duration::from_millis(50);
    while let Err(why) = attempt().await {
        warn!(%why, "a system object is missing; trying again");
        server.inner().env.sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
}

/// What aggregated API servers read to know their callers. Upstream: clusterauthenticationtrust controller.
fn extension_authentication(pki: &pki::ClusterPki) -> SystemObject {
    let list = |name: &str| json!([name]).to_string();
    let json = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": { "name": "extension-apiserver-authentication", "namespace": "kube-system" },
        "data": {
            "client-ca-file": pki.ca().certificate_pem(),
            "requestheader-allowed-names": list(crate::aggregation::FRONT_PROXY),
            "requestheader-client-ca-file": pki.front_proxy_ca().certificate_pem(),
            "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
            "requestheader-group-headers": list("X-Remote-Group"),
            "requestheader-username-headers": list("X-Remote-User"),
        },
    });
    SystemObject { path: "/api/v1/namespaces/kube-system/configmaps".to_owned(), json, keeps: &["data"] }
}

/// The APIServices of what is built in, of those that are not there.
fn api_services(server: &Server) -> impl Iterator<Item = SystemObject> {
    let there = Objects::list(&*server.inner().registry, "apiregistration.k8s.io", "apiservices", "");
    let missing = move |json: &Value| there.iter().all(|known| json["metadata"]["name"] != known.name());
    let path = "/apis/apiregistration.k8s.io/v1/apiservices";
    let services = crate::aggregation::local_services().into_iter().filter(missing);
    services.map(|json| SystemObject { path: path.to_owned(), json, keeps: &[] })
}

struct SystemObject {
    path: String,
    json: Value,
    /// Members that must stay as given.
    keeps: &'static [&'static str],
}

fn objects(settings: &Settings) -> Vec<SystemObject> {
    let mut objects = Vec::new();
    let mut add = |path: &str, json: Value, keeps: &'static [&'static str]| {
        objects.push(SystemObject { path: path.to_owned(), json, keeps });
    };
    for name in ["kube-system", "kube-public", "kube-node-lease", "default"] {
        let json = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        add(NAMESPACES, json, &[]);
    }
    let addresses: Vec<String> = settings.service_cidrs.iter().filter_map(|cidr| first_address(cidr)).collect();
    if let Some(address) = addresses.first() {
        let json = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": {
                "type": "ClusterIP", "clusterIP": address, "sessionAffinity": "None", "ipFamilyPolicy": "SingleStack",
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": settings.port }],
            },
        });
        add("/api/v1/namespaces/default/services", json, &[]);
    }
    let cidrs = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": { "name": "kubernetes" }, "spec": { "cidrs": settings.service_cidrs },
    });
    add("/apis/networking.k8s.io/v1/servicecidrs", cidrs, &[]);
    // Nothing may be reached through the loopback address of another machine.
    if !settings.advertise.is_loopback() && !settings.advertise.is_unspecified() {
        let endpoints = json!({
            "apiVersion": "v1", "kind": "Endpoints",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "endpointslice.kubernetes.io/skip-mirror": "true" } },
            "subsets": [{
                "addresses": [{ "ip": settings.advertise.to_string() }],
                "ports": [{ "name": "https", "port": settings.port, "protocol": "TCP" }],
            }],
        });
        add("/api/v1/namespaces/default/endpoints", endpoints, &["subsets"]);
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "kubernetes.io/service-name": "kubernetes" } },
            "addressType": if settings.advertise.is_ipv4() { "IPv4" } else { "IPv6" },
            "endpoints": [{ "addresses": [settings.advertise.to_string()], "conditions": { "ready": true } }],
            "ports": [{ "name": "https", "port": settings.port, "protocol": "TCP" }],
        });
        add("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice, &["endpoints", "ports"]);
    }
    objects
}

/// The first usable address of a range: the `kubernetes` Service's.
pub(crate) fn first_address(cidr: &str) -> Option<String> {
    let (base, bits) = cidr.split_once('/')?;
    let bits: u32 = bits.parse().ok()?;
    let address: IpAddr = match base.parse().ok()? {
        IpAddr::V4(base) => {
            let mask = u32::MAX.checked_shl(32u32.checked_sub(bits)?).unwrap_or_default();
            IpAddr::V4(((u32::from(base) & mask) + 1).into())
        }
        IpAddr::V6(base) => {
            let mask = u128::MAX.checked_shl(128u32.checked_sub(bits)?).unwrap_or_default();
            IpAddr::V6(((u128::from(base) & mask) + 1).into())
        }
    };
    Some(address.to_string())
}

async fn ensure(local: &Local, object: &SystemObject) -> Result<(), String> {
    match send(local, Method::POST, &object.path, object.json.to_string().into_bytes()).await? {
        (201 | 200, _) => return Ok(()),
        (409, _) if object.keeps.is_empty() => return Ok(()),
        (409, _) => {}
        (code, message) => return Err(format!("{}: {code}: {message}", object.path)),
    }
    let mut patch = json!({});
    for key in object.keeps {
        patch[*key] = object.json[*key].clone();
    }
    let name = object.json["metadata"]["name"].as_str().unwrap_or_default();
    match send(local, Method::PATCH, &format!("{}/{name}", object.path), patch.to_string().into_bytes()).await? {
        (200, _) => Ok(()),
        (code, message) => Err(format!("{}/{name}: {code}: {message}", object.path)),
    }
}

async fn send(local: &Local, method: Method, path: &str, json: Vec<u8>) -> Result<(u16, String), String> {
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    let request = client::Request { method, target: path.to_owned(), headers, body: json.into() };
    let response = local.send(request).await.map_err(|error| error.to_string())?;
    let message = match response.body {
        Body::Status(status) => status.message,
        _ => String::new(),
    };
    Ok((response.code.as_u16(), message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubernetes_service_has_the_first_address() {
        assert_eq!(first_address("10.96.0.0/12").as_deref(), Some("10.96.0.1"));
        assert_eq!(first_address("10.97.1.5/16").as_deref(), Some("10.97.0.1"));
        assert_eq!(first_address("fd00::/112").as_deref(), Some("fd00::1"));
        assert_eq!(first_address("nonsense"), None);
    }
}
