//! Sandboxes and containers in CRI's words.

use std::collections::HashMap;
use std::sync::Arc;

use cri::v1::*;

use crate::network::NetworkStatus;
use crate::record::Phase;
use crate::state::{self, Daemon};

pub(crate) fn runtime_status(daemon: &Daemon) -> StatusResponse {
    let condition = |kind: &str, status: bool, reason: &str, message: String| RuntimeCondition {
        r#type: kind.to_owned(),
        status,
        reason: reason.to_owned(),
        message,
    };
    let network = match daemon.network.status() {
        NetworkStatus::Ready => condition("NetworkReady", true, "", String::new()),
        NetworkStatus::NotReady { reason, message } => condition("NetworkReady", false, reason, message),
    };
    let conditions = vec![condition("RuntimeReady", true, "", String::new()), network];
    // What another program can do is not known without running it.
    let others = daemon.handlers.all().into_keys().map(|name| RuntimeHandler { name, features: None });
    let features = RuntimeHandlerFeatures { recursive_read_only_mounts: true, user_namespaces: false };
    StatusResponse {
        status: Some(RuntimeStatus { conditions }),
        info: HashMap::new(),
        runtime_handlers: std::iter::once(RuntimeHandler { name: String::new(), features: Some(features) })
            .chain(others)
            .collect(),
        features: Some(RuntimeFeatures { supplemental_groups_policy: true }),
    }
}

fn sandbox_state(sandbox: &state::Sandbox) -> PodSandboxState {
    if sandbox.is_ready() { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

pub(crate) fn sandbox(sandbox: &Arc<state::Sandbox>) -> PodSandbox {
    let record = sandbox.state.lock().record.clone();
    PodSandbox {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: record.created_at,
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.handler,
    }
}

pub(crate) fn sandbox_status(sandbox: &Arc<state::Sandbox>) -> PodSandboxStatus {
    let record = sandbox.state.lock().record.clone();
    let mut ips = record.ips.iter().map(|ip| ip.to_string());
    let ip = ips.next().unwrap_or_default();
    let additional_ips = ips.map(|ip| PodIp { ip }).collect();
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox).into(),
        created_at: record.created_at,
        network: Some(PodSandboxNetworkStatus { ip, additional_ips }),
        linux: Some(LinuxPodSandboxStatus { namespaces: Some(Namespace { options: Some(sandbox.options()) }) }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: record.handler,
    }
}

/// What `crictl inspectp` shows besides.
pub(crate) fn sandbox_info(daemon: &Daemon, sandbox: &Arc<state::Sandbox>) -> HashMap<String, String> {
    let state = sandbox.state.lock();
    let info = serde_json::json!({
        "pid": state.pause.unwrap_or(0),
        "shimPid": state.shim.as_ref().map(|shim| shim.pid),
        "namespaces": daemon.sandbox_run(&sandbox.id).join("ns"),
        "cgroup": state.record.cgroup,
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}

pub(crate) fn sandbox_matches(item: &PodSandbox, filter: &PodSandboxFilter) -> bool {
    let state = filter.state.as_ref().is_none_or(|wanted| wanted.state == item.state);
    item.id.starts_with(&filter.id) && state && has_labels(&item.labels, &filter.label_selector)
}

fn has_labels(labels: &HashMap<String, String>, wanted: &HashMap<String, String>) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

fn container_state(phase: Phase) -> ContainerState {
    match phase {
        Phase::Created => ContainerState::ContainerCreated,
        Phase::Running => ContainerState::ContainerRunning,
        Phase::Exited => ContainerState::ContainerExited,
    }
}

pub(crate) fn container(container: &Arc<state::Container>) -> Container {
    let record = container.record();
    Container {
        id: container.id.clone(),
        pod_sandbox_id: container.sandbox.id.clone(),
        metadata: container.config.metadata.clone(),
        image: container.config.image.clone(),
        image_ref: record.image_id.clone(),
        state: container_state(record.phase).into(),
        created_at: record.created_at,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        image_id: record.image_id,
    }
}

pub(crate) fn container_matches(item: &Container, filter: &ContainerFilter) -> bool {
    let state = filter.state.as_ref().is_none_or(|wanted| wanted.state == item.state);
    let sandbox = item.pod_sandbox_id.starts_with(&filter.pod_sandbox_id);
    item.id.starts_with(&filter.id) && sandbox && state && has_labels(&item.labels, &filter.label_selector)
}

pub(crate) fn container_status(daemon: &Daemon, container: &Arc<state::Container>) -> ContainerStatus {
    let (record, resources) = {
        let state = container.state.lock();
        (state.record.clone(), state.resources.clone())
    };
    // Upstream: containerd's `toCRIContainerStatus`.
    let reason = match (record.phase, record.reason.is_empty(), record.exit_code) {
        (Phase::Exited, true, 0) => "Completed".to_owned(),
        (Phase::Exited, true, _) => "Error".to_owned(),
        _ => record.reason.clone(),
    };
    let mut image = container.config.image.clone().unwrap_or_default();
    if let Some(tag) = daemon.images.status(&record.image_id).and_then(|image| image.tags.into_iter().next()) {
        // The name people know, even where the kubelet asked by id.
        image.image = tag;
    }
    let user = LinuxContainerUser {
        uid: record.user.uid.into(),
        gid: record.user.gid.into(),
        supplemental_groups: record.user.groups.iter().map(|gid| i64::from(*gid)).collect(),
    };
    ContainerStatus {
        id: container.id.clone(),
        metadata: container.config.metadata.clone(),
        state: container_state(record.phase).into(),
        created_at: record.created_at,
        started_at: record.started_at,
        finished_at: record.finished_at,
        exit_code: record.exit_code,
        image: Some(image),
        image_ref: record.image_ref,
        reason,
        message: record.message,
        labels: container.config.labels.clone(),
        annotations: container.config.annotations.clone(),
        mounts: container.config.mounts.clone(),
        log_path: container.log_path().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        resources: Some(ContainerResources { linux: Some(resources), windows: None }),
        image_id: record.image_id,
        user: Some(ContainerUser { linux: Some(user) }),
        stop_signal: container.config.stop_signal,
    }
}

/// What `crictl inspect` shows besides.
pub(crate) fn container_info(daemon: &Daemon, container: &Arc<state::Container>) -> HashMap<String, String> {
    let state = container.state.lock();
    let config = std::fs::read(daemon.container_run(&container.id).join("config.json")).unwrap_or_default();
    let info = serde_json::json!({
        "sandboxID": container.sandbox.id,
        "pid": if state.record.phase == Phase::Running { state.pid } else { 0 },
        "rootfs": state.rootfs,
        "runtimeSpec": serde_json::from_slice::<serde_json::Value>(&config).unwrap_or_default(),
    });
    HashMap::from([("info".to_owned(), info.to_string())])
}
