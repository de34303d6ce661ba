//! What the shim's executor does, said in OCI's words to a program that does it itself.

use std::path::Path;

use linux::cgroup::{DeviceKind, DeviceRule};
use linux::process::Capabilities;
use serde_json::{Value, json};
use shim::protocol::Propagation;

use cri::v1::{ContainerConfig, LinuxContainerResources};

use super::Prepared;
use crate::container::is_privileged;
use crate::error::Error;
use crate::seccomp;

/// Completes OCI's configuration for a program that knows nothing else.
pub(crate) fn complete(prepared: &mut Prepared, config: &ContainerConfig) -> Result<(), Error> {
    let execution = &prepared.execution;
    let sets = prepared.capabilities.names();
    let ambient = prepared.ambient.names();
    let oci = &mut prepared.oci;
    let process = &mut oci["process"];
    process["capabilities"] = json!({
        "bounding": sets, "effective": sets, "permitted": sets, "inheritable": ambient, "ambient": ambient,
    });
    process["cwd"] = json!(execution.cwd);
    if let Some(profile) = &execution.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let Some(value) = execution.oom_score_adj {
        process["oomScoreAdj"] = allowed_oom_score(value).into();
    }
    if let Some(source) = &prepared.seccomp {
        oci["linux"]["seccomp"] = seccomp::oci(source, prepared.capabilities)?;
    }
    let resources = config.linux.clone().unwrap_or_default().resources.unwrap_or_default();
    oci["linux"]["resources"] = limits(&resources);
    let rules = super::device_rules(config, is_privileged(config))?;
    oci["linux"]["resources"]["devices"] = std::iter::once(json!({"allow": false, "access": "rwm"}))
        .chain(rules.iter().map(device))
        .collect::<Vec<Value>>()
        .into();
    for (path, propagation) in &execution.propagation {
        propagate(&mut oci["mounts"], path, *propagation);
    }
    Ok(())
}

fn propagate(mounts: &mut Value, path: &Path, propagation: Propagation) {
    let word = match propagation {
        Propagation::Private => "rprivate",
        Propagation::HostToContainer => "rslave",
        Propagation::Bidirectional => "rshared",
    };
    for mount in mounts.as_array_mut().into_iter().flatten() {
        if mount["destination"].as_str().is_some_and(|destination| Path::new(destination) == path)
            && let Some(options) = mount["options"].as_array_mut()
        {
            options.push(word.into());
        }
    }
}

/// Lowering it needs a right that this machine may not give, and a program that is asked to would fail.
fn allowed_oom_score(wanted: i32) -> i32 {
    let may = Capabilities::named("SYS_RESOURCE")
        .is_ok_and(|right| Capabilities::available().is_ok_and(|ours| ours.within(right) == right));
    let own = || std::fs::read_to_string("/proc/self/oom_score_adj").ok()?.trim().parse::<i32>().ok();
    if may { wanted } else { own().map_or(wanted, |own| wanted.max(own)) }
}

/// OCI's `linux.resources`, with what [`super::limits`] sets.
pub(crate) fn limits(resources: &LinuxContainerResources) -> Value {
    let limits = super::limits(resources);
    let mut oci = json!({});
    for (group, name, value) in [
        ("cpu", "shares", limits.cpu_shares.map(Value::from)),
        ("cpu", "quota", limits.cpu_quota.map(Value::from)),
        ("cpu", "period", limits.cpu_period.map(Value::from)),
        ("cpu", "cpus", limits.cpuset_cpus.map(Value::from)),
        ("cpu", "mems", limits.cpuset_mems.map(Value::from)),
        ("memory", "limit", limits.memory.map(Value::from)),
        // Where swap is not accounted for, a program asked to limit it fails.
        ("memory", "swap", limits.memory_swap.filter(|_| accounts_swap()).map(Value::from)),
    ] {
        if let Some(value) = value {
            oci[group][name] = value;
        }
    }
    if !limits.hugepages.is_empty() {
        let pages = limits.hugepages.iter().map(|(size, limit)| json!({"pageSize": size, "limit": limit}));
        oci["hugepageLimits"] = pages.collect::<Vec<Value>>().into();
    }
    if !limits.unified.is_empty() {
        oci["unified"] =
            limits.unified.iter().map(|(file, value)| (file.clone(), Value::from(value.clone()))).collect();
    }
    oci
}

fn accounts_swap() -> bool {
    ["/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes", "/sys/fs/cgroup/cgroup.controllers"]
        .iter()
        .any(|file| Path::new(file).exists())
}

fn device(rule: &DeviceRule) -> Value {
    let mut oci = json!({"allow": true, "access": rule.access});
    match rule.kind {
        DeviceKind::Any => {}
        DeviceKind::Character => oci["type"] = "c".into(),
        DeviceKind::Block => oci["type"] = "b".into(),
    }
    if let Some(major) = rule.major {
        oci["major"] = major.into();
    }
    if let Some(minor) = rule.minor {
        oci["minor"] = minor.into();
    }
    oci
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_said_as_they_are_set() {
        let check = |resources: LinuxContainerResources, expect: Value| assert_eq!(limits(&resources), expect);
        check(LinuxContainerResources::default(), json!({}));
        check(
            LinuxContainerResources { cpu_shares: 2, cpu_quota: 5000, cpu_period: 100_000, ..Default::default() },
            json!({"cpu": {"shares": 2, "quota": 5000, "period": 100_000}}),
        );
    }

    #[test]
    fn mounts_say_their_propagation() {
        let mut mounts = json!([{"destination": "/a", "options": ["rbind"]}, {"destination": "/b", "options": []}]);
        propagate(&mut mounts, Path::new("/a/"), Propagation::HostToContainer);
        assert_eq!(mounts[0]["options"], json!(["rbind", "rslave"]));
        assert_eq!(mounts[1]["options"], json!([]));
    }
}
