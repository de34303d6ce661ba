//! From informers' events to the cache and the queue.

use std::sync::Arc;

use apimachinery::Object;
use client::{Event, Subscription, resources};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::Shared;
use crate::framework::{ClusterEvent, PodInfo};

/// Begins to follow nodes and pods; returns when the cache knows all there are.
pub(crate) async fn subscribe(shared: &Arc<Shared>) -> [Subscription; 2] {
    let nodes = shared.informers.of(&resources::NODES);
    let pods = shared.informers.of(&resources::PODS);
    nodes.synced().await;
    let handler = shared.clone();
    let of_nodes = nodes.on_event(move |event| on_node(&handler, event));
    pods.synced().await;
    let handler = shared.clone();
    let of_pods = pods.on_event(move |event| on_pod(&handler, event));
    [of_nodes, of_pods]
}

fn on_node(shared: &Shared, event: &Event) {
    if let Event::Deleted(object) = event {
        shared.cache.lock().remove_node(object.name());
        return;
    }
    let Some(node) = view::<Node>(event.object()) else { return };
    let (old, new) = shared.cache.lock().set_node(node);
    let event = match old {
        None => ClusterEvent::NodeAdded(new),
        Some(old) if old.node().spec == new.node().spec && same_for_pods(&old, &new) => return,
        Some(old) => ClusterEvent::NodeChanged { old, new },
    };
    wake(shared, &event);
}

/// Heartbeats change conditions and images only; no plugin asks for them.
fn same_for_pods(old: &crate::cache::NodeInfo, new: &crate::cache::NodeInfo) -> bool {
    old.allocatable() == new.allocatable() && old.node().metadata.labels == new.node().metadata.labels
}

fn on_pod(shared: &Shared, event: &Event) {
    let object = event.object();
    if let Event::Deleted(_) = event {
        shared.queue.remove(object.uid());
        leave(shared, object.uid());
        return;
    }
    // Most events of a placed pod report its status, which takes nothing from the node.
    if let Event::Modified { old, new } = event
        && old.generation() == new.generation()
        && shared.cache.lock().placed(new.uid()).is_some()
        && !ended(new)
    {
        return;
    }
    let Some(pod) = view::<Pod>(object) else { return };
    let terminal = rules::is_terminal(&pod);
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).filter(|name| !name.is_empty());
    let mine = pod.spec.as_ref().and_then(|spec| spec.scheduler_name.as_deref()) == Some(&shared.name);
    let info = Arc::new(PodInfo::new(pod));
    match node {
        _ if terminal => {
            shared.queue.remove(&info.uid);
            leave(shared, &info.uid);
        }
        Some(node) => {
            shared.queue.remove(&info.uid);
            shared.cache.lock().place(info, &node);
        }
        None if mine && !object.is_deleting() => {
            if only_status_changed(event) && shared.queue.refresh(&info) {
                return;
            }
            let gated = shared.plugins.iter().any(|plugin| plugin.pre_enqueue(&info).is_err());
            shared.queue.add(info, gated);
        }
        None => shared.queue.remove(&info.uid),
    }
}

/// What scheduling writes into a pod's status must not bring it back into the queue.
fn only_status_changed(event: &Event) -> bool {
    let Event::Modified { old, new } = event else { return false };
    new.generation() != 0 && old.generation() == new.generation() && old.labels() == new.labels()
}

/// The pod takes nothing from its node any more.
fn leave(shared: &Shared, uid: &str) {
    let gone = shared.cache.lock().remove(uid);
    if let Some(pod) = gone {
        wake(shared, &ClusterEvent::PodRemoved(pod));
    }
}

/// Tries the waiting pods again that the event may help.
pub(crate) fn wake(shared: &Shared, event: &ClusterEvent) {
    shared.queue.wake(|name, pod| {
        shared.plugins.iter().filter(|plugin| plugin.name() == name).any(|plugin| plugin.helps(pod, event))
    });
}

/// Whether the pod's phase says that it ended; decodes only where the server doesn't tell the phase with the object.
fn ended(object: &Object) -> bool {
    match object.field("status.phase") {
        Some(phase) => matches!(phase, "Succeeded" | "Failed"),
        None => view::<Pod>(object).is_some_and(|pod| rules::is_terminal(&pod)),
    }
}

fn view<T: for<'de> k8s_openapi::serde::Deserialize<'de>>(object: &Object) -> Option<T> {
    object
        .view()
        .inspect_err(|error| tracing::error!(?object, %error, "the API server sent what is no such object"))
        .ok()
}
