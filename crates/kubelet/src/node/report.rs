//! The node's status besides conditions, and the patch that tells it.

use std::collections::BTreeMap;

use apimachinery::{Format, Quantity};
use cri::v1::{ListImagesRequest, RuntimeHandlerFeatures, StatusResponse};
use k8s_openapi::api::core::v1::{
    ContainerImage, DaemonEndpoint, NodeAddress, NodeDaemonEndpoints, NodeFeatures, NodeRuntimeHandler,
    NodeRuntimeHandlerFeatures, NodeStatus, NodeSwapStatus, NodeSystemInfo,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;
use serde_json::{Value as Json, json};

use super::machine::Machine;
use crate::config::Config;
use crate::runtime::Runtime;

/// So many images are told, the largest ones (upstream: `nodeStatusMaxImages`).
const MAX_IMAGES: usize = 50;
/// So many names of each (upstream: `maxNamesPerImageInNodeStatus`).
const MAX_NAMES: usize = 5;

pub(super) async fn images(runtime: &Runtime) -> Option<Vec<ContainerImage>> {
    let mut images = runtime.list_images(ListImagesRequest { filter: None }).await.ok()?.images;
    images.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.id.cmp(&b.id)));
    let told = images.into_iter().take(MAX_IMAGES).map(|image| {
        let mut names = image.repo_digests;
        names.extend(image.repo_tags);
        names.truncate(MAX_NAMES);
        ContainerImage { names: Some(names), size_bytes: i64::try_from(image.size).ok() }
    });
    Some(told.collect())
}

/// Everything but the conditions.
pub(super) fn status(config: &Config, machine: &Machine, port: u16, images: Option<Vec<ContainerImage>>) -> NodeStatus {
    let addresses = config.node_ips.iter().map(|ip| ("InternalIP", ip.to_string()));
    let addresses = addresses.chain([("Hostname", config.node_name.clone())]);
    let address = |(type_, address): (&str, String)| NodeAddress { type_: type_.to_owned(), address };
    NodeStatus {
        addresses: Some(addresses.map(address).collect()),
        capacity: Some(capacity(config, machine)),
        allocatable: Some(allocatable(config, machine)),
        daemon_endpoints: Some(NodeDaemonEndpoints {
            kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(port) }),
        }),
        images,
        node_info: Some(NodeSystemInfo {
            architecture: machine.architecture.clone(),
            boot_id: machine.boot_id.clone(),
            container_runtime_version: machine.runtime.clone(),
            kernel_version: machine.kernel.clone(),
            kube_proxy_version: String::new(),
            kubelet_version: config.version.clone(),
            machine_id: machine.machine_id.clone(),
            operating_system: "linux".into(),
            os_image: machine.os_image.clone(),
            swap: (machine.swap > 0).then_some(NodeSwapStatus { capacity: Some(machine.swap) }),
            system_uuid: machine.system_uuid.clone(),
        }),
        runtime_handlers: (!machine.handlers.is_empty()).then(|| machine.handlers.clone()),
        features: machine.features.clone(),
        ..NodeStatus::default()
    }
}

/// The runtime's handlers in the API's words. Upstream: nodestatus RuntimeHandlers.
pub(super) fn handlers(status: &StatusResponse) -> Vec<NodeRuntimeHandler> {
    let features = |features: &RuntimeHandlerFeatures| NodeRuntimeHandlerFeatures {
        recursive_read_only_mounts: Some(features.recursive_read_only_mounts),
        user_namespaces: Some(features.user_namespaces),
    };
    let handlers = status.runtime_handlers.iter().map(|handler| NodeRuntimeHandler {
        name: Some(handler.name.clone()),
        features: handler.features.as_ref().map(features),
    });
    handlers.collect()
}

/// What the runtime can do whatever the handler. Upstream: nodestatus Features.
pub(super) fn features(status: &StatusResponse) -> Option<NodeFeatures> {
    let features = status.features.as_ref()?;
    Some(NodeFeatures { supplemental_groups_policy: Some(features.supplemental_groups_policy) })
}

fn capacity(config: &Config, machine: &Machine) -> BTreeMap<String, Text> {
    let mut capacity = BTreeMap::from([
        ("cpu".to_owned(), Text(machine.cpus.to_string())),
        ("memory".to_owned(), kibibytes(machine.memory)),
        ("ephemeral-storage".to_owned(), kibibytes(machine.storage)),
        ("pods".to_owned(), Text(config.max_pods.to_string())),
    ]);
    let huge = machine.hugepages.iter().map(|(name, bytes)| (name.clone(), binary(*bytes)));
    capacity.extend(huge);
    capacity
}

fn allocatable(config: &Config, machine: &Machine) -> BTreeMap<String, Text> {
    let left = machine.allocatable(config.max_pods, config.eviction_memory, config.eviction_disk_percent);
    let mut allocatable = capacity(config, machine);
    allocatable.insert("memory".to_owned(), kibibytes(left.memory));
    allocatable.insert("ephemeral-storage".to_owned(), Text(left.ephemeral_storage.to_string()));
    allocatable
}

/// As upstream shows memory: in whole `Ki`.
fn kibibytes(bytes: i64) -> Text {
    Text(format!("{}Ki", bytes / 1024))
}

fn binary(bytes: i64) -> Text {
    Text(Quantity::new(bytes, Format::BinarySi).to_string())
}

/// The members that the kubelet writes.
const FIELDS: [&str; 9] = [
    "addresses",
    "allocatable",
    "capacity",
    "conditions",
    "daemonEndpoints",
    "features",
    "images",
    "nodeInfo",
    "runtimeHandlers",
];

/// The patch that makes the node's status say what `new` says; lists that are merged by key name what is gone.
pub(super) fn patch(old: &NodeStatus, new: &NodeStatus) -> Json {
    let (old, new) = (json(old), json(new));
    let mut changed = serde_json::Map::new();
    for field in FIELDS {
        let (Some(before), Some(after)) = (Some(&old[field]), Some(&new[field])) else { continue };
        if before == after || after.is_null() {
            continue;
        }
        let mut value = after.clone();
        if field == "addresses"
            && let (Some(all), Some(before)) = (value.as_array_mut(), before.as_array())
        {
            let gone = before.iter().filter(|old| all.iter().all(|new| new["type"] != old["type"]));
            let gone: Vec<Json> = gone.map(|old| json!({"$patch": "delete", "type": old["type"]})).collect();
            all.extend(gone);
        }
        changed.insert(field.to_owned(), value);
    }
    json!({"status": changed})
}

fn json(status: &NodeStatus) -> Json {
    serde_json::to_value(status).unwrap_or_default()
}

/// What of a status is worth telling at once: all but the heartbeats.
pub(super) fn essence(status: &NodeStatus) -> Json {
    let mut status = status.clone();
    for condition in status.conditions.iter_mut().flatten() {
        condition.last_heartbeat_time = None;
        condition.last_transition_time = None;
    }
    json(&status)
}

/// Whether somebody else's write left the status other than it shall be.
pub(super) fn differs(old: &NodeStatus, new: &NodeStatus) -> bool {
    let (old, new) = (essence(old), essence(new));
    FIELDS
        .iter()
        .filter(|field| **field != "conditions")
        .any(|field| !new[*field].is_null() && old[*field] != new[*field])
        || new["conditions"].as_array().into_iter().flatten().any(|wanted| {
            let known = old["conditions"].as_array();
            known
                .into_iter()
                .flatten()
                .all(|known| known["type"] != wanted["type"] || known["status"] != wanted["status"])
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_changes_are_told() {
        let status = |json: Json| serde_json::from_value::<NodeStatus>(json).unwrap();
        let old =
            status(json!({"addresses": [{"type": "Hostname", "address": "n"}, {"type": "ExternalIP", "address": "x"}],
            "capacity": {"cpu": "2"}}));
        let new = status(json!({"addresses": [{"type": "Hostname", "address": "m"}], "capacity": {"cpu": "2"}}));
        let expect = json!({"status": {"addresses": [{"type": "Hostname", "address": "m"},
            {"$patch": "delete", "type": "ExternalIP"}]}});
        assert_eq!(patch(&old, &new), expect);
        assert!(differs(&old, &new) && !differs(&new, &new));
    }
}
