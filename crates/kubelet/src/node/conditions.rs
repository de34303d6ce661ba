//! The node's conditions. Upstream: pkg/kubelet/nodestatus/setters.go.

use std::fs;
use std::time::Duration;

use cri::v1::StatusResponse;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{NodeCondition, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::machine::meminfo_bytes;
use crate::config::Config;

/// Pressure that ended is told as ended only after this long (upstream: `evictionPressureTransitionPeriod`).
const TRANSITION: Duration = Duration::from_secs(300);

/// What is told of a condition that became true, and false.
pub(super) const EVENTS: [(&str, &str, &str); 4] = [
    ("MemoryPressure", "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
    ("DiskPressure", "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
    ("PIDPressure", "NodeHasInsufficientPID", "NodeHasSufficientPID"),
    ("Ready", "NodeReady", "NodeNotReady"),
];

/// How the runtime is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Runtime {
    /// Why it can't run containers.
    runtime: Option<String>,
    /// Why pods can't have a network.
    network: Option<String>,
}

impl Runtime {
    pub(super) fn of(answer: &StatusResponse) -> Runtime {
        let conditions = answer.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
        let why = |kind: &str, what: &str| match conditions.iter().find(|condition| condition.r#type == kind) {
            Some(condition) if condition.status => None,
            Some(condition) => {
                Some(format!("{what}{kind}=false reason:{} message:{}", condition.reason, condition.message))
            }
            None => Some(format!("{what}{kind} is unknown")),
        };
        Runtime {
            runtime: why("RuntimeReady", "container runtime not ready: "),
            network: why("NetworkReady", "container runtime network not ready: "),
        }
    }

    pub(super) fn unreachable(error: &str) -> Runtime {
        let why = format!("container runtime is down: {error}");
        Runtime { runtime: Some(why.clone()), network: Some(why) }
    }

    pub(super) fn network(&self) -> Result<(), String> {
        self.network.clone().map_or(Ok(()), Err)
    }
}

/// What the machine is short of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Short {
    memory: bool,
    disk: bool,
    pids: bool,
}

/// What it was short of when.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    memory: Option<Timestamp>,
    disk: Option<Timestamp>,
    pids: Option<Timestamp>,
}

impl Pressure {
    pub(super) fn measure(&mut self, config: &Config, now: Timestamp) -> Short {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory = u64::try_from(meminfo_bytes(&meminfo, "MemAvailable")).unwrap_or(u64::MAX);
        let percent = config.eviction_disk_percent;
        let disk = rustix::fs::statvfs(&config.root).is_ok_and(|disk| {
            let scarce = |free: u64, all: u64| all > 0 && free.saturating_mul(100) < all.saturating_mul(percent);
            scarce(disk.f_bavail, disk.f_blocks) || scarce(disk.f_favail, disk.f_files)
        });
        let held = |since: &mut Option<Timestamp>, short: bool| {
            if short {
                *since = Some(now);
            }
            since.is_some_and(|at| Duration::try_from(now.duration_since(at)).is_ok_and(|ago| ago < TRANSITION))
        };
        Short {
            memory: held(&mut self.memory, memory < config.eviction_memory),
            disk: held(&mut self.disk, disk),
            pids: held(&mut self.pids, pids_are_scarce()),
        }
    }
}

/// Less than a tenth of the process numbers is left.
fn pids_are_scarce() -> bool {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let running = fs::read_to_string("/proc/loadavg").ok().and_then(|text| {
        let counts = text.split_whitespace().nth(3)?;
        counts.split_once('/')?.1.parse::<u64>().ok()
    });
    let limits = [number("/proc/sys/kernel/pid_max"), number("/proc/sys/kernel/threads-max")];
    match (running, limits.into_iter().flatten().min()) {
        (Some(running), Some(limit)) => running.saturating_mul(10) > limit.saturating_mul(9),
        _ => false,
    }
}

/// The kubelet's conditions, after those of others.
pub(super) fn conditions(
    known: Option<&NodeStatus>,
    runtime: &Runtime,
    short: Short,
    now: Timestamp,
) -> Vec<NodeCondition> {
    let known = known.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let reasons: Vec<&str> = {
        let mut all: Vec<&str> =
            [&runtime.runtime, &runtime.network].into_iter().flatten().map(String::as_str).collect();
        all.dedup();
        all
    };
    let ready = match reasons.as_slice() {
        [] => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        [one] => ("Ready", false, "KubeletNotReady", (*one).to_owned()),
        all => ("Ready", false, "KubeletNotReady", format!("[{}]", all.join(", "))),
    };
    let pressure = |name, short, yes, no, words: [&str; 2]| match short {
        true => (name, true, yes, words[0].to_owned()),
        false => (name, false, no, words[1].to_owned()),
    };
    let all = [
        pressure(
            "MemoryPressure",
            short.memory,
            "KubeletHasInsufficientMemory",
            "KubeletHasSufficientMemory",
            ["kubelet has insufficient memory available", "kubelet has sufficient memory available"],
        ),
        pressure(
            "DiskPressure",
            short.disk,
            "KubeletHasDiskPressure",
            "KubeletHasNoDiskPressure",
            ["kubelet has disk pressure", "kubelet has no disk pressure"],
        ),
        pressure(
            "PIDPressure",
            short.pids,
            "KubeletHasInsufficientPID",
            "KubeletHasSufficientPID",
            ["kubelet has insufficient PID available", "kubelet has sufficient PID available"],
        ),
        ready,
    ];
    let condition = |(name, status, reason, message): (&str, bool, &str, String)| {
        let status = if status { "True" } else { "False" };
        let old = known.iter().find(|old| old.type_ == name && old.status == status);
        NodeCondition {
            type_: name.to_owned(),
            status: status.to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: old.and_then(|old| old.last_transition_time.clone()).or(Some(Time(now))),
        }
    };
    all.into_iter().map(condition).collect()
}

#[cfg(test)]
mod tests {
    use cri::v1::{RuntimeCondition, RuntimeStatus};

    use super::*;

    #[test]
    fn readiness_is_the_runtimes() {
        let check = |runtime: bool, network: bool, expect: (&str, &str)| {
            let condition = |kind: &str, status: bool| RuntimeCondition {
                r#type: kind.into(),
                status,
                reason: if status { "" } else { "Why" }.into(),
                message: if status { "" } else { "not yet" }.into(),
            };
            let conditions = vec![condition("RuntimeReady", runtime), condition("NetworkReady", network)];
            let answer = StatusResponse { status: Some(RuntimeStatus { conditions }), ..StatusResponse::default() };
            let found = super::conditions(None, &Runtime::of(&answer), Short::default(), Timestamp::UNIX_EPOCH);
            let ready = found.iter().find(|condition| condition.type_ == "Ready").unwrap();
            assert_eq!((ready.status.as_str(), ready.message.as_deref().unwrap()), expect);
            assert!(found.iter().filter(|c| c.type_ != "Ready").all(|c| c.status == "False"));
        };
        check(true, true, ("True", "kubelet is posting ready status"));
        let network = "container runtime network not ready: NetworkReady=false reason:Why message:not yet";
        check(true, false, ("False", network));
        let runtime = "container runtime not ready: RuntimeReady=false reason:Why message:not yet";
        check(false, false, ("False", &format!("[{runtime}, {network}]")));
    }
}
