//! Figures: `/stats/summary`, `/metrics`, `/metrics/resource`. Upstream: pkg/kubelet/server/stats.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;

use apimachinery::format_time;
use cri::v1::{
    ContainerFilter, ContainerState, ContainerStateValue, CpuUsage, FilesystemUsage, ListContainersRequest,
    ListPodSandboxStatsRequest, MemoryUsage, PodSandboxStats, UInt64Value,
};
use jiff::Timestamp;
use serde_json::{Value as Json, json};

use super::Refusal;
use crate::context::Context;
use crate::error::rpc_text;
use crate::node::machine::meminfo_bytes;

async fn sandboxes(ctx: &Context) -> Result<Vec<PodSandboxStats>, Refusal> {
    let answer = ctx.runtime.list_pod_sandbox_stats(ListPodSandboxStatsRequest { filter: None }).await;
    Ok(answer.map_err(|status| Refusal::internal(rpc_text(&status)))?.stats)
}

fn value(value: &Option<UInt64Value>) -> Option<u64> {
    value.as_ref().map(|value| value.value)
}

fn time(nanoseconds: i64) -> String {
    format_time(Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default())
}

fn cpu(usage: Option<&CpuUsage>) -> Json {
    usage.map_or(Json::Null, |usage| {
        json!({"time": time(usage.timestamp), "usageNanoCores": value(&usage.usage_nano_cores),
            "usageCoreNanoSeconds": value(&usage.usage_core_nano_seconds)})
    })
}

fn memory(usage: Option<&MemoryUsage>) -> Json {
    usage.map_or(Json::Null, |usage| {
        json!({"time": time(usage.timestamp), "availableBytes": value(&usage.available_bytes),
            "usageBytes": value(&usage.usage_bytes), "workingSetBytes": value(&usage.working_set_bytes),
            "rssBytes": value(&usage.rss_bytes), "pageFaults": value(&usage.page_faults),
            "majorPageFaults": value(&usage.major_page_faults)})
    })
}

fn disk(usage: Option<&FilesystemUsage>) -> Json {
    usage.map_or(Json::Null, |usage| {
        json!({"time": time(usage.timestamp), "usedBytes": value(&usage.used_bytes), "inodesUsed": value(&usage.inodes_used)})
    })
}

/// What node and pods use.
pub(super) async fn summary(ctx: &Arc<Context>) -> Result<Json, Refusal> {
    let pods: Vec<Json> = sandboxes(ctx).await?.iter().filter_map(pod).collect();
    Ok(without_nulls(json!({"node": node(ctx), "pods": pods})))
}

fn node(ctx: &Context) -> Json {
    let now = format_time(ctx.env.now());
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, available) = (meminfo_bytes(&meminfo, "MemTotal"), meminfo_bytes(&meminfo, "MemAvailable"));
    let free = meminfo_bytes(&meminfo, "MemFree");
    let mut node = json!({"nodeName": ctx.config.node_name, "startTime": now,
        "cpu": {"time": now, "usageCoreNanoSeconds": busy_nanoseconds()},
        "memory": {"time": now, "availableBytes": available, "usageBytes": total - free,
            "workingSetBytes": total - available}});
    if let Ok(disk) = rustix::fs::statvfs(&ctx.config.root) {
        let (capacity, available) = (disk.f_blocks * disk.f_frsize, disk.f_bavail * disk.f_frsize);
        node["fs"] = json!({"time": now, "capacityBytes": capacity, "availableBytes": available,
            "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize, "inodes": disk.f_files,
            "inodesFree": disk.f_ffree, "inodesUsed": disk.f_files - disk.f_ffree});
    }
    node
}

/// The processors' busy time since boot.
fn busy_nanoseconds() -> u64 {
    /// The unit of `/proc/stat`, which is the same everywhere.
    const NANOSECONDS_PER_TICK: u64 = 10_000_000;
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or_default();
    let ticks: Vec<u64> = first.split_whitespace().skip(1).filter_map(|ticks| ticks.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal; guests are counted in user.
    let busy = [0, 1, 2, 5, 6, 7].iter().filter_map(|at| ticks.get(*at)).sum::<u64>();
    busy * NANOSECONDS_PER_TICK
}

fn pod(stats: &PodSandboxStats) -> Option<Json> {
    let metadata = stats.attributes.as_ref()?.metadata.as_ref()?;
    let linux = stats.linux.as_ref()?;
    let containers = linux.containers.iter().map(|container| {
        let name = container.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref());
        json!({"name": name.map(|metadata| &metadata.name), "cpu": cpu(container.cpu.as_ref()),
            "memory": memory(container.memory.as_ref()), "rootfs": disk(container.writable_layer.as_ref())})
    });
    let network = linux.network.as_ref().map(|network| {
        let interface = |one: &cri::v1::NetworkInterfaceUsage| {
            json!({"name": one.name, "rxBytes": value(&one.rx_bytes), "rxErrors": value(&one.rx_errors),
                "txBytes": value(&one.tx_bytes), "txErrors": value(&one.tx_errors)})
        };
        let mut all = network.default_interface.as_ref().map(interface).unwrap_or_else(|| json!({}));
        all["time"] = json!(time(network.timestamp));
        all["interfaces"] = network.default_interface.iter().chain(&network.interfaces).map(interface).collect();
        all
    });
    Some(json!({
        "podRef": {"name": metadata.name, "namespace": metadata.namespace, "uid": metadata.uid},
        "containers": containers.collect::<Vec<_>>(),
        "cpu": cpu(linux.cpu.as_ref()), "memory": memory(linux.memory.as_ref()), "network": network,
        "process_stats": linux.process.as_ref().map(|process| json!({"process_count": value(&process.process_count)})),
    }))
}

fn without_nulls(json: Json) -> Json {
    match json {
        Json::Object(members) => {
            let kept = members.into_iter().filter(|(_, value)| !value.is_null());
            Json::Object(kept.map(|(name, value)| (name, without_nulls(value))).collect())
        }
        Json::Array(items) => Json::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

/// The kubelet's own figures, as Prometheus reads them.
pub(super) fn metrics(ctx: &Context) -> String {
    let pods = ctx.pods.list("");
    let running = pods.iter().filter(|pod| {
        let view = pod.to_value();
        view.str_at(&["status", "phase"]) == Some("Running")
    });
    format!(
        "# HELP kubelet_node_name The node's name. The count is always 1.\n# TYPE kubelet_node_name gauge\n\
         kubelet_node_name{{node={:?}}} 1\n\
         # HELP kubelet_running_pods Number of pods that have a running pod sandbox\n# TYPE kubelet_running_pods gauge\n\
         kubelet_running_pods {}\n",
        ctx.config.node_name,
        running.count()
    )
}

/// What metrics-server reads. Upstream: pkg/kubelet/metrics/collectors/resource_metrics.go.
pub(super) async fn resource_metrics(ctx: &Arc<Context>) -> Result<String, Refusal> {
    let stats = sandboxes(ctx).await?;
    let started = started(ctx).await?;
    let node = node(ctx);
    let now = ctx.env.now().as_millisecond();
    let mut cpu = Family::new("container_cpu_usage_seconds_total", "counter");
    let mut memory = Family::new("container_memory_working_set_bytes", "gauge");
    let mut start = Family::new("container_start_time_seconds", "gauge");
    let mut node_cpu = Family::new("node_cpu_usage_seconds_total", "counter");
    let mut node_memory = Family::new("node_memory_working_set_bytes", "gauge");
    let mut pod_cpu = Family::new("pod_cpu_usage_seconds_total", "counter");
    let mut pod_memory = Family::new("pod_memory_working_set_bytes", "gauge");
    for pod in &stats {
        let Some(metadata) = pod.attributes.as_ref().and_then(|attributes| attributes.metadata.as_ref()) else {
            continue;
        };
        let Some(linux) = &pod.linux else { continue };
        let of_pod = format!("namespace={:?},pod={:?}", metadata.namespace, metadata.name);
        pod_cpu.cpu(&of_pod, linux.cpu.as_ref());
        pod_memory.memory(&of_pod, linux.memory.as_ref());
        for container in &linux.containers {
            let Some(attributes) = &container.attributes else { continue };
            let name = attributes.metadata.as_ref().map(|metadata| metadata.name.as_str()).unwrap_or_default();
            let labels = format!("container={name:?},{of_pod}");
            cpu.cpu(&labels, container.cpu.as_ref());
            memory.memory(&labels, container.memory.as_ref());
            if let Some(at) = started.get(&attributes.id) {
                start.line(&labels, seconds(*at), None);
            }
        }
    }
    node_cpu.line("", seconds(node["cpu"]["usageCoreNanoSeconds"].as_u64().unwrap_or(0)), Some(now));
    node_memory.line("", node["memory"]["workingSetBytes"].as_f64().unwrap_or_default(), Some(now));
    let mut error = Family::new("resource_scrape_error", "gauge");
    error.line("", 0.0, None);
    let families = [cpu, memory, start, node_cpu, node_memory, pod_cpu, pod_memory, error];
    Ok(families.map(|family| family.0).concat())
}

/// When the running containers were started, in nanoseconds, by id.
async fn started(ctx: &Context) -> Result<HashMap<String, u64>, Refusal> {
    let running = ContainerStateValue { state: ContainerState::ContainerRunning.into() };
    let filter = ContainerFilter { state: Some(running), ..ContainerFilter::default() };
    let request = ListContainersRequest { filter: Some(filter) };
    let answer = ctx.runtime.list_containers(request).await;
    let containers = answer.map_err(|status| Refusal::internal(rpc_text(&status)))?.containers;
    // A container is started as soon as it is made.
    Ok(containers.into_iter().map(|one| (one.id, u64::try_from(one.created_at).unwrap_or_default())).collect())
}

fn seconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// The lines of one metric.
struct Family(String, &'static str);

impl Family {
    fn new(name: &'static str, kind: &str) -> Family {
        Family(format!("# TYPE {name} {kind}\n"), name)
    }

    fn line(&mut self, labels: &str, value: f64, milliseconds: Option<i64>) {
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let at = milliseconds.map_or_else(String::new, |at| format!(" {at}"));
        // Writing to memory does not fail.
        let _ = writeln!(self.0, "{}{braces} {value}{at}", self.1);
    }

    fn cpu(&mut self, labels: &str, usage: Option<&CpuUsage>) {
        if let Some(usage) = usage {
            let used = seconds(value(&usage.usage_core_nano_seconds).unwrap_or(0));
            self.line(labels, used, Some(usage.timestamp / 1_000_000));
        }
    }

    fn memory(&mut self, labels: &str, usage: Option<&MemoryUsage>) {
        if let Some(usage) = usage {
            let used = value(&usage.working_set_bytes).unwrap_or(0) as f64;
            self.line(labels, used, Some(usage.timestamp / 1_000_000));
        }
    }
}
