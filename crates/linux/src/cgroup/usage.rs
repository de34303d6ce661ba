//! What a group uses.

use std::collections::HashMap;
use std::io;

use super::{Group, Version};

/// Use of processor, memory and process slots at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor.
    pub cpu: CpuUsage,
    /// Memory.
    pub memory: MemoryUsage,
    /// Processes and threads.
    pub pids: u64,
}

/// Use of the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// Nanoseconds of all processors since the group was made.
    pub nanoseconds: u64,
}

/// Use of memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsage {
    /// All, file cache included.
    pub total: u64,
    /// All but file cache that is easily given back.
    pub working_set: u64,
    /// Anonymous memory.
    pub rss: u64,
    /// The limit, if there is one.
    pub limit: Option<u64>,
    /// Swapped out.
    pub swap: u64,
    /// Page faults since the group was made.
    pub page_faults: u64,
    /// Those that needed the disk.
    pub major_page_faults: u64,
}

impl Group {
    /// What the group and those below it use.
    pub fn usage(&self) -> io::Result<Usage> {
        if !self.exists() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(match self.hierarchies.version {
            Version::V1 => self.usage_v1(),
            Version::V2 => self.usage_v2(),
        })
    }

    fn usage_v1(&self) -> Usage {
        let number =
            |controller: &str, file: &str| self.read(controller, file).and_then(|text| text.parse().ok()).unwrap_or(0);
        let stat = keyed(self.read("memory", "memory.stat"));
        let get = |key: &str| stat.get(key).copied().unwrap_or(0);
        let total: u64 = number("memory", "memory.usage_in_bytes");
        let limit: u64 = number("memory", "memory.limit_in_bytes");
        Usage {
            cpu: CpuUsage { nanoseconds: number("cpuacct", "cpuacct.usage") },
            memory: MemoryUsage {
                total,
                working_set: total.saturating_sub(get("total_inactive_file")),
                rss: get("total_rss"),
                // No limit reads as the largest multiple of the page size.
                limit: Some(limit).filter(|limit| *limit > 0 && *limit < i64::MAX as u64 / 2),
                swap: get("total_swap"),
                page_faults: get("total_pgfault"),
                major_page_faults: get("total_pgmajfault"),
            },
            pids: number("pids", "pids.current"),
        }
    }

    fn usage_v2(&self) -> Usage {
        let number = |file: &str| self.read("", file).and_then(|text| text.parse().ok());
        let stat = keyed(self.read("", "memory.stat"));
        let get = |key: &str| stat.get(key).copied().unwrap_or(0);
        let total: u64 = number("memory.current").unwrap_or(0);
        Usage {
            cpu: CpuUsage {
                nanoseconds: keyed(self.read("", "cpu.stat")).get("usage_usec").copied().unwrap_or(0) * 1000,
            },
            memory: MemoryUsage {
                total,
                working_set: total.saturating_sub(get("inactive_file")),
                rss: get("anon"),
                limit: number("memory.max"),
                swap: number("memory.swap.current").unwrap_or(0),
                page_faults: get("pgfault"),
                major_page_faults: get("pgmajfault"),
            },
            pids: number("pids.current").unwrap_or(0),
        }
    }
}

fn keyed(text: Option<String>) -> HashMap<String, u64> {
    let text = text.unwrap_or_default();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.filter_map(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?))).collect()
}
