//! Setting a group's limits.

use std::fs;
use std::io;
use std::path::Path;

use super::{Group, Version};

/// What a group may use. `None` leaves a value as it is; -1 takes a limit away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight of processor time, as v1's shares (1024 for one processor).
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time within each period.
    pub cpu_quota: Option<i64>,
    /// The period, in microseconds.
    pub cpu_period: Option<u64>,
    /// Bytes of memory.
    pub memory: Option<i64>,
    /// Bytes of memory and swap together, never less than `memory`.
    pub memory_swap: Option<i64>,
    /// Processes and threads.
    pub pids: Option<i64>,
    /// Processors, as `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Memory nodes, as `0`.
    pub cpuset_mems: Option<String>,
    /// Page size (`2MB`) and bytes.
    pub hugepages: Vec<(String, u64)>,
    /// Files of v2 written as they are.
    pub unified: Vec<(String, String)>,
}

/// v2's weight (1 to 10000) for v1's shares (2 to 262144). Upstream: `ConvertCPUSharesToCgroupV2Value`.
pub(super) fn weight(shares: u64) -> u64 {
    if shares == 0 { 0 } else { 1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142 }
}

impl Group {
    /// Sets what `limits` names; the group must exist.
    pub fn apply(&self, limits: &Limits) -> io::Result<()> {
        match self.hierarchies.version {
            Version::V1 => self.apply_v1(limits),
            Version::V2 => self.apply_v2(limits),
        }
    }

    fn apply_v1(&self, limits: &Limits) -> io::Result<()> {
        self.set("cpu", "cpu.shares", limits.cpu_shares.filter(|shares| *shares > 0))?;
        // The kernel compares each new value with the old other one: shrink the quota first when the period grows.
        if let (Some(period), Some(quota)) = (limits.cpu_period, limits.cpu_quota) {
            let old = self.read("cpu", "cpu.cfs_quota_us").and_then(|quota| quota.parse::<i64>().ok()).unwrap_or(-1);
            if old > 0 && (quota < 0 || quota < old) {
                self.set("cpu", "cpu.cfs_quota_us", Some(quota))?;
            }
            self.set("cpu", "cpu.cfs_period_us", Some(period))?;
        } else {
            self.set("cpu", "cpu.cfs_period_us", limits.cpu_period)?;
        }
        self.set("cpu", "cpu.cfs_quota_us", limits.cpu_quota)?;
        self.apply_memory_v1(limits.memory, limits.memory_swap)?;
        self.set("pids", "pids.max", limits.pids.map(or_max))?;
        self.set("cpuset", "cpuset.cpus", limits.cpuset_cpus.as_ref())?;
        self.set("cpuset", "cpuset.mems", limits.cpuset_mems.as_ref())?;
        for (size, bytes) in &limits.hugepages {
            self.set("hugetlb", &format!("hugetlb.{size}.limit_in_bytes"), Some(bytes))?;
        }
        Ok(())
    }

    /// Memory's limit never exceeds that of memory and swap, so the order depends on the direction.
    fn apply_memory_v1(&self, memory: Option<i64>, both: Option<i64>) -> io::Result<()> {
        let (limit, swap) = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes");
        let both = both.filter(|_| self.folder("memory").is_some_and(|folder| folder.join(swap).exists()));
        let old_both = self.read("memory", swap).and_then(|value| value.parse::<i128>().ok());
        let raises = match (memory, old_both) {
            (Some(-1), _) => true,
            (Some(memory), Some(old)) => memory as i128 > old,
            _ => false,
        };
        if raises {
            // Without a word about swap, it follows memory up.
            self.set("memory", swap, both.or(memory).filter(|_| old_both.is_some()))?;
            return self.set("memory", limit, memory);
        }
        self.set("memory", limit, memory)?;
        self.set("memory", swap, both)
    }

    fn apply_v2(&self, limits: &Limits) -> io::Result<()> {
        self.set("cpu", "cpu.weight", limits.cpu_shares.filter(|shares| *shares > 0).map(weight))?;
        if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
            let period = limits.cpu_period.unwrap_or(100_000);
            let quota = limits.cpu_quota.filter(|quota| *quota > 0).map_or("max".to_owned(), |quota| quota.to_string());
            self.set("cpu", "cpu.max", Some(format!("{quota} {period}")))?;
        }
        if let (Some(both), Some(memory)) = (limits.memory_swap, limits.memory) {
            let swap = if both < 0 { -1 } else { (both - memory.max(0)).max(0) };
            if self.folder("memory").is_some_and(|folder| folder.join("memory.swap.max").exists()) {
                self.set("memory", "memory.swap.max", Some(or_max(swap)))?;
            }
        }
        self.set("memory", "memory.max", limits.memory.map(or_max))?;
        self.set("pids", "pids.max", limits.pids.map(or_max))?;
        self.set("cpuset", "cpuset.cpus", limits.cpuset_cpus.as_ref())?;
        self.set("cpuset", "cpuset.mems", limits.cpuset_mems.as_ref())?;
        for (size, bytes) in &limits.hugepages {
            self.set("hugetlb", &format!("hugetlb.{size}.max"), Some(bytes))?;
        }
        for (file, value) in &limits.unified {
            if file.contains('/') {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{file:?} is no control file")));
            }
            self.set("", file, Some(value))?;
        }
        Ok(())
    }

    fn set(&self, controller: &str, file: &str, value: Option<impl ToString>) -> io::Result<()> {
        let Some(value) = value else { return Ok(()) };
        match self.folder(controller) {
            Some(folder) => write(&folder.join(file), &value.to_string()),
            None => {
                Err(io::Error::new(io::ErrorKind::Unsupported, format!("no {controller} control groups for {file}")))
            }
        }
    }

    pub(super) fn read(&self, controller: &str, file: &str) -> Option<String> {
        let text = fs::read_to_string(self.folder(controller)?.join(file)).ok()?;
        Some(text.trim().to_owned())
    }
}

fn or_max(value: i64) -> String {
    if value < 0 { "max".to_owned() } else { value.to_string() }
}

fn write(file: &Path, value: &str) -> io::Result<()> {
    fs::write(file, value).map_err(|error| {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        io::Error::new(error.kind(), format!("writing {value:?} to {name}: {error}"))
    })
}
