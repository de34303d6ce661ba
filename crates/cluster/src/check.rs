//! What a cluster needs of the machine.

use std::fs;
use std::net::Ipv4Addr;
use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::settings::{Settings, port_is_free};
use crate::{Args, Hooks};

/// One thing that the machine must or should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    pub name: String,
    pub outcome: Outcome,
}

/// How the machine meets a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Ok,
    /// The cluster works, less well in the way said.
    Degraded(String),
    /// The cluster can't work; the reason names what is missing.
    Missing(String),
}

impl Requirement {
    pub fn new(name: impl Into<String>, outcome: Outcome) -> Requirement {
        Requirement { name: name.into(), outcome }
    }

    /// Missing, with the error as the reason, where `probe` failed.
    pub fn of<T, E: std::fmt::Display>(name: impl Into<String>, probe: std::result::Result<T, E>) -> Requirement {
        Requirement::new(name, probe.map_or_else(|error| Outcome::Missing(error.to_string()), |_| Outcome::Ok))
    }
}

/// `oxikube check`: every requirement with ok or missing; fails if one is missing.
pub(crate) async fn run(args: &Args, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = match Settings::find(args)? {
        Some(settings) => settings,
        None => crate::start::new_settings(args, &Default::default(), env).await?,
    };
    let all = requirements(&settings, hooks);
    let width = all.iter().map(|requirement| requirement.name.len()).max().unwrap_or(0);
    for Requirement { name, outcome } in &all {
        match outcome {
            Outcome::Ok => println!("{name:width$}  ok"),
            Outcome::Degraded(why) => println!("{name:width$}  degraded: {why}"),
            Outcome::Missing(why) => println!("{name:width$}  missing: {why}"),
        }
    }
    let missing = all.iter().any(|requirement| matches!(requirement.outcome, Outcome::Missing(_)));
    Ok(if missing { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Fails with the first missing requirement, in one sentence.
pub(crate) fn must_meet(settings: &Settings, hooks: &Hooks) -> Result<()> {
    for Requirement { name, outcome } in requirements(settings, hooks) {
        if let Outcome::Missing(why) = outcome {
            bail!("{name}: {why}");
        }
    }
    Ok(())
}

fn requirements(settings: &Settings, hooks: &Hooks) -> Vec<Requirement> {
    let mut all = vec![root()];
    if all[0].outcome != Outcome::Ok {
        // The probes below would fail for the same reason.
        return all;
    }
    all.extend([
        filesystem("overlay", "overlay"),
        filesystem("tmpfs", "tmpfs"),
        cgroups(),
        namespaces(),
        seccomp(),
        resource_capability(),
        port("API server port", settings.api_port),
        port("kubelet port", settings.kubelet_port),
        range("pod range", &settings.pod_cidr, settings),
        range("service range", &settings.service_cidr, settings),
    ]);
    all.extend((hooks.requirements)(settings));
    all
}

pub(crate) fn root() -> Requirement {
    let outcome = if rustix::process::geteuid().is_root() {
        Outcome::Ok
    } else {
        Outcome::Missing("namespaces, mounts and network rules need it; run this as root".into())
    };
    Requirement::new("root", outcome)
}

fn filesystem(name: &str, kind: &str) -> Requirement {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let listed = known.lines().any(|line| line.split_whitespace().next_back() == Some(kind));
    // A file system built as a module is listed once it is loaded; mounting it loads it.
    let module = || {
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        ["modules.dep", "modules.builtin"].iter().any(|list| {
            fs::read_to_string(format!("/lib/modules/{release}/{list}"))
                .is_ok_and(|text| text.contains(&format!("/{kind}.ko")))
        })
    };
    let outcome = if listed || module() {
        Outcome::Ok
    } else {
        Outcome::Missing(format!("this kernel has no {kind} file system"))
    };
    Requirement::new(format!("{name} file system"), outcome)
}

fn cgroups() -> Requirement {
    let wanted = ["cpu", "memory", "pids"];
    let v2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let v1 = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let in_v1 = |controller: &str| {
        v1.lines().filter(|line| line.contains(" - cgroup ")).any(|line| {
            line.rsplit(' ').next().is_some_and(|options| options.split(',').any(|option| option == controller))
        })
    };
    let missing: Vec<&str> =
        wanted.into_iter().filter(|c| !v2.split_whitespace().any(|have| have == *c) && !in_v1(c)).collect();
    let outcome = if missing.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Missing(format!("no controller {} is mounted below /sys/fs/cgroup", missing.join(", ")))
    };
    Requirement::new("cgroups", outcome)
}

fn namespaces() -> Requirement {
    let missing: Vec<&str> = ["net", "mnt", "pid", "ipc", "uts"]
        .into_iter()
        .filter(|kind| !std::path::Path::new("/proc/self/ns").join(kind).exists())
        .collect();
    let outcome = if missing.is_empty() {
        Outcome::Ok
    } else {
        Outcome::Missing(format!("this kernel has no {} namespaces", missing.join(", ")))
    };
    Requirement::new("namespaces", outcome)
}

fn seccomp() -> Requirement {
    let outcome = if std::path::Path::new("/proc/sys/kernel/seccomp/actions_avail").exists() {
        Outcome::Ok
    } else {
        Outcome::Degraded("this kernel has no seccomp filters: RuntimeDefault profiles will be refused".into())
    };
    Requirement::new("seccomp", outcome)
}

/// Without it neither limits nor negative out-of-memory scores can be set.
fn resource_capability() -> Requirement {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or_default();
    let outcome = if set & (1 << CAP_SYS_RESOURCE) != 0 {
        Outcome::Ok
    } else {
        Outcome::Degraded("without it, containers get no negative oom_score_adj and no raised limits".into())
    };
    Requirement::new("CAP_SYS_RESOURCE", outcome)
}

fn port(name: &str, port: u16) -> Requirement {
    let outcome = if port_is_free(port) {
        Outcome::Ok
    } else {
        Outcome::Missing(format!("port {port} is taken by another program"))
    };
    Requirement::new(name, outcome)
}

/// A range is free unless a route of somebody else overlaps it.
fn range(name: &str, cidr: &str, settings: &Settings) -> Requirement {
    let routes = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let scope = settings.scope();
    let taken = routes.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let hex = |i: usize| u32::from_str_radix(fields.get(i)?, 16).ok().map(u32::from_be);
        let (link, destination, mask) = (*fields.first()?, hex(1)?, hex(7)?);
        let ours = link.starts_with(scope.link_prefix());
        (mask != 0 && !ours && overlap(cidr, destination, mask)).then(|| {
            format!("{cidr} overlaps the route {}/{} of {link}", Ipv4Addr::from(destination), mask.count_ones())
        })
    });
    Requirement::new(name, taken.map_or(Outcome::Ok, Outcome::Missing))
}

fn overlap(cidr: &str, destination: u32, mask: u32) -> bool {
    let Some((base, length)) = cidr.split_once('/') else { return false };
    let (Ok(base), Ok(length)) = (base.parse::<Ipv4Addr>(), length.parse::<u32>()) else { return false };
    let ours = u32::MAX.checked_shl(32 - length).unwrap_or(0);
    let common = ours & mask;
    base.to_bits() & common == destination & common
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlapping_ranges_are_seen() {
        let check = |cidr: &str, destination: &str, length: u32, expect: bool| {
            let destination: Ipv4Addr = destination.parse().unwrap();
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            assert_eq!(overlap(cidr, destination.to_bits(), mask), expect, "{cidr} {destination}/{length}");
        };
        check("10.244.0.0/16", "10.244.3.0", 24, true);
        check("10.244.0.0/16", "10.0.0.0", 8, true);
        check("10.96.0.0/12", "10.112.0.0", 16, false);
        check("10.96.0.0/12", "192.168.0.0", 16, false);
    }
}
