//! What a cluster with an application takes while nothing happens.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use linux::cgroup::{Group, Hierarchies};
use serde_json::{Value, json};
use testkit::machine::Machine;

use super::{deploy, load_images, new_machine};

const SETTLE: Duration = Duration::from_secs(30);
const WATCHED: Duration = Duration::from_secs(300);

pub(super) fn run() -> Result<Value> {
    let machine = new_machine("idle");
    machine.oxikube("start").ok();
    load_images(&machine)?;
    deploy(&machine);
    std::thread::sleep(SETTLE);
    let group = daemon_group(&machine)?;
    let before = cpu_seconds(&group)?;
    let requests = requests(&machine);
    std::thread::sleep(WATCHED);
    let cpu = cpu_seconds(&group)? - before;
    let requests = self::requests(&machine).zip(requests).map(|(after, before)| after - before);
    let memory = memory(&group, "Pss:")?;
    let shims = memory_of_shims(&group)?;
    let minutes = WATCHED.as_secs_f64() / 60.0;
    Ok(json!({
        "processes": memory.len(),
        "pss_mib": memory.iter().map(|(_, kib)| kib).sum::<u64>() as f64 / 1024.0,
        "daemon_pss_mib": memory.iter().filter(|(name, _)| name != "oxikube-shim").map(|(_, kib)| kib).sum::<u64>() as f64 / 1024.0,
        "shim_private_kib": shims,
        "cpu_percent_of_a_core": cpu / WATCHED.as_secs_f64() * 100.0,
        "api_requests_per_minute": requests.map(|n| n / minutes),
        "upstream": {"pss_mib": 770, "cpu_percent_of_a_core": 4.1},
    }))
}

fn daemon_group(machine: &Machine) -> Result<Group> {
    let path = format!("oxikube-{}/daemon", machine.name());
    Ok(Hierarchies::detect()?.group(path)?)
}

fn cpu_seconds(group: &Group) -> Result<f64> {
    let usage = group.usage().context("reading the control group")?;
    Ok(usage.cpu.nanoseconds as f64 / 1e9)
}

/// Name and memory of one kind, such as `Pss:`, in KiB of each of our processes.
fn memory(group: &Group, kind: &str) -> Result<Vec<(String, u64)>> {
    let mut all = Vec::new();
    for pid in group.processes()? {
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib =
            rollup.lines().find_map(|line| line.strip_prefix(kind)?.trim().strip_suffix("kB")?.trim().parse().ok());
        all.push((name.trim().to_owned(), kib.unwrap_or(0)));
    }
    Ok(all)
}

/// What each shim has for itself alone, in KiB.
fn memory_of_shims(group: &Group) -> Result<Vec<u64>> {
    let (dirty, clean) = (memory(group, "Private_Dirty:")?, memory(group, "Private_Clean:")?);
    let both = dirty.iter().zip(&clean).filter(|((name, _), _)| name == "oxikube-shim");
    Ok(both.map(|((_, dirty), (_, clean))| dirty + clean).collect())
}

/// Requests served since the start, where the server counts them.
fn requests(machine: &Machine) -> Option<f64> {
    let said = machine.kubectl("get --raw /metrics");
    if said.code != Some(0) {
        return None;
    }
    let counters = said.out.lines().filter(|line| line.starts_with("apiserver_request_total"));
    Some(counters.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
