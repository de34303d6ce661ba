//! What containers and sandboxes use.

use std::sync::Arc;

use linux::cgroup::Usage;

use cri::v1::*;

use crate::error::{Context, Error, blocking};
use crate::record::Phase;
use crate::state::{self, Daemon};

/// A container's use; an error when it does not run.
pub(crate) async fn container(
    daemon: &Arc<Daemon>,
    container: &Arc<state::Container>,
) -> Result<ContainerStats, Error> {
    if container.record().phase != Phase::Running {
        return Err(Error::State(format!("container {:?} is not running", container.id)));
    }
    let path = container.sandbox.state.lock().record.cgroup.join(&container.id);
    let usage = usage(daemon, path).await?;
    let layer = daemon.images.rootfs_usage(&container.id).await?;
    let folder = container.state.lock().rootfs.to_string_lossy().into_owned();
    let now = daemon.now();
    let writable_layer = layer.map(|layer| FilesystemUsage {
        timestamp: now,
        fs_id: Some(FilesystemIdentifier { mountpoint: folder }),
        used_bytes: Some(UInt64Value { value: layer.bytes }),
        inodes_used: Some(UInt64Value { value: layer.inodes }),
    });
    Ok(ContainerStats {
        attributes: Some(ContainerAttributes {
            id: container.id.clone(),
            metadata: container.config.metadata.clone(),
            labels: container.config.labels.clone(),
            annotations: container.config.annotations.clone(),
        }),
        cpu: Some(cpu(&usage, now)),
        memory: Some(memory(&usage, now)),
        writable_layer,
        swap: Some(SwapUsage {
            timestamp: now,
            swap_available_bytes: None,
            swap_usage_bytes: Some(UInt64Value { value: usage.memory.swap }),
        }),
        io: None,
    })
}

/// A sandbox's use, with that of its containers.
pub(crate) async fn sandbox(daemon: &Arc<Daemon>, sandbox: &Arc<state::Sandbox>) -> Result<PodSandboxStats, Error> {
    if !sandbox.is_ready() {
        return Err(Error::State(format!("sandbox container {:?} is not running", sandbox.id)));
    }
    let path = sandbox.state.lock().record.cgroup.clone();
    let usage = usage(daemon, path).await?;
    let mut containers = Vec::new();
    for one in daemon.containers_of(&sandbox.id) {
        containers.extend(container(daemon, &one).await.ok());
    }
    let now = daemon.now();
    let network = network(daemon, sandbox, now).await;
    Ok(PodSandboxStats {
        attributes: Some(PodSandboxAttributes {
            id: sandbox.id.clone(),
            metadata: sandbox.config.metadata.clone(),
            labels: sandbox.config.labels.clone(),
            annotations: sandbox.config.annotations.clone(),
        }),
        linux: Some(LinuxPodSandboxStats {
            cpu: Some(cpu(&usage, now)),
            memory: Some(memory(&usage, now)),
            network,
            process: Some(ProcessUsage { timestamp: now, process_count: Some(UInt64Value { value: usage.pids }) }),
            containers,
            io: None,
        }),
        windows: None,
    })
}

async fn usage(daemon: &Arc<Daemon>, path: std::path::PathBuf) -> Result<Usage, Error> {
    let daemon = daemon.clone();
    blocking(move || daemon.group(&path)?.usage().context(|| "read the control group's use".to_owned())).await
}

fn cpu(usage: &Usage, timestamp: i64) -> CpuUsage {
    let usage_core_nano_seconds = Some(UInt64Value { value: usage.cpu.nanoseconds });
    CpuUsage { timestamp, usage_core_nano_seconds, usage_nano_cores: None, psi: None }
}

fn memory(usage: &Usage, timestamp: i64) -> MemoryUsage {
    let value = |value| Some(UInt64Value { value });
    let memory = &usage.memory;
    MemoryUsage {
        timestamp,
        working_set_bytes: value(memory.working_set),
        available_bytes: memory.limit.map(|limit| UInt64Value { value: limit.saturating_sub(memory.working_set) }),
        usage_bytes: value(memory.total),
        rss_bytes: value(memory.rss),
        page_faults: value(memory.page_faults),
        major_page_faults: value(memory.major_page_faults),
        psi: None,
    }
}

/// The counters of the sandbox's links, read inside its namespace.
async fn network(daemon: &Arc<Daemon>, sandbox: &Arc<state::Sandbox>, timestamp: i64) -> Option<NetworkUsage> {
    if sandbox.is_host_network() {
        return None;
    }
    let namespace = daemon.sandbox_run(&sandbox.id).join("ns/net");
    let read = move || {
        let inside = || std::fs::read_to_string("/proc/thread-self/net/dev");
        linux::namespace::enter(&namespace, inside).context(|| "read the sandbox's network use".to_owned())
    };
    let interfaces = links(&blocking(read).await.ok()?);
    let default_interface = interfaces.iter().find(|link| link.name == "eth0").or(interfaces.first()).cloned();
    Some(NetworkUsage { timestamp, default_interface, interfaces })
}

/// The links in the text of `/proc/net/dev`, without the loopback.
fn links(text: &str) -> Vec<NetworkInterfaceUsage> {
    let rows = text.lines().filter_map(|line| line.split_once(':'));
    let rows = rows.map(|(name, counters)| (name.trim(), counters)).filter(|(name, _)| *name != "lo");
    rows.map(|(name, counters)| {
        let counters: Vec<u64> = counters.split_whitespace().filter_map(|counter| counter.parse().ok()).collect();
        let value = |index: usize| counters.get(index).map(|value| UInt64Value { value: *value });
        NetworkInterfaceUsage {
            name: name.to_owned(),
            rx_bytes: value(0),
            rx_errors: value(2),
            tx_bytes: value(8),
            tx_errors: value(10),
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_counters_are_read() {
        let text = "Inter-|   Receive ...\n face |bytes ...\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n  \
                    eth0: 100 2 3 4 5 6 7 8 900 10 11 12 13 14 15 16\n";
        let links = links(text);
        assert_eq!(links.len(), 1);
        let get = |value: &Option<UInt64Value>| value.as_ref().unwrap().value;
        let link = &links[0];
        assert_eq!(
            (link.name.as_str(), get(&link.rx_bytes), get(&link.tx_bytes), get(&link.tx_errors)),
            ("eth0", 100, 900, 11)
        );
    }
}
