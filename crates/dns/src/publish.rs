//! The `kube-dns` Service and the EndpointSlice that points to this server.

use std::net::SocketAddr;
use std::time::Duration;

use apimachinery::{ObjectKey, Value};
use client::{Error, Resource, resources};
use serde_json::json;

use crate::Config;

/// Names by which users and tests find the cluster's DNS.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "kube-dns";

/// Makes both objects what they should be, retrying until that is done, then waits for ever.
pub(crate) async fn keep(config: &Config, address: SocketAddr) {
    let mut pause = Duration::from_millis(50);
    while let Err(error) = publish(config, address).await {
        tracing::warn!(%error, "the kube-dns Service can't be published");
        config.env.sleep(config.env.jitter(pause, 0.5)).await;
        pause = (pause * 2).min(Duration::from_secs(5));
    }
    std::future::pending().await
}

async fn publish(config: &Config, address: SocketAddr) -> Result<(), Error> {
    apply(config, &resources::SERVICES, NAME, service(config)).await?;
    apply(config, &resources::ENDPOINT_SLICES, NAME, slice(config, address)).await
}

/// Creates the object, or brings an existing one to the wanted members.
async fn apply(config: &Config, resource: &Resource, name: &str, wanted: Value) -> Result<(), Error> {
    let key = ObjectKey::new(NAMESPACE, name);
    match config.client.find(resource, &key).await? {
        None => config.client.create(resource, &wanted).await.map(drop),
        Some(_) => config.client.patch(resource, &key, client::PatchKind::Merge, &wanted).await.map(drop),
    }
}

fn service(config: &Config) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "k8s-app": NAME, "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "CoreDNS"}},
        "spec": {"clusterIP": config.service_ip.to_string(), "clusterIPs": [config.service_ip.to_string()], "ports": [
            {"name": "dns", "protocol": "UDP", "port": 53, "targetPort": 53},
            {"name": "dns-tcp", "protocol": "TCP", "port": 53, "targetPort": 53}]},
    })
    .into()
}

fn slice(config: &Config, address: SocketAddr) -> Value {
    let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {
            "kubernetes.io/service-name": NAME, "endpointslice.kubernetes.io/managed-by": "dns.oxikube.io"}},
        "addressType": family,
        "endpoints": [{"addresses": [address.ip().to_string()], "nodeName": config.node_name,
            "conditions": {"ready": true, "serving": true, "terminating": false}}],
        "ports": [
            {"name": "dns", "protocol": "UDP", "port": address.port()},
            {"name": "dns-tcp", "protocol": "TCP", "port": address.port()}],
    })
    .into()
}
