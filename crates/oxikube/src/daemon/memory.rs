//! How much memory the daemon and its shims take.

use std::fs;

use cluster::Settings;

/// The proportional set sizes of all processes in the daemon's control group, in bytes; what ends meanwhile counts as nothing.
pub(super) fn proportional_set_size(settings: &Settings) -> u64 {
    let processes = linux::cgroup::Hierarchies::detect()
        .and_then(|hierarchies| hierarchies.group(settings.scope().cgroup("daemon")))
        .and_then(|group| group.processes())
        .unwrap_or_default();
    processes.into_iter().filter_map(of_process).sum()
}

fn of_process(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn this_process_takes_some() {
        assert!(super::of_process(std::process::id() as i32).is_some_and(|bytes| bytes > 100_000));
        assert_eq!(super::of_process(-1), None);
    }
}
