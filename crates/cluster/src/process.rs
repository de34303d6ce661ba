//! Which process a cluster's daemon is, for those who come when it answers no more.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::Settings;

const FILE: &str = "daemon.pid";

/// A killed process ends when the kernel has given back what it held: ports, locks, mounts.
const LIMIT: Duration = Duration::from_secs(10);

/// Writes down that this process is the cluster's daemon.
pub fn note(settings: &Settings) -> Result<()> {
    let path = settings.run_dir.join(FILE);
    let pid = std::process::id();
    let begun = begun(pid).context("finding out when this process began")?;
    fs::write(&path, format!("{pid} {begun}")).with_context(|| format!("writing {}", path.display()))
}

/// Waits for a daemon that was killed a moment ago, and may hold the cluster's ports and locks still.
pub(crate) async fn gone(settings: &Settings, env: &env::Env) -> Result<()> {
    let Ok(text) = fs::read_to_string(settings.run_dir.join(FILE)) else { return Ok(()) };
    let Some((pid, then)) = text.split_once(' ') else { return Ok(()) };
    let (Ok(pid), Ok(then)) = (pid.parse::<u32>(), then.parse::<u64>()) else { return Ok(()) };
    let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let Ok(process) = pidfd_open(process, PidfdFlags::NONBLOCK) else { return Ok(()) };
    // Or somebody else has its number now.
    if begun(pid) == Some(then) {
        let ended = linux::descriptor::readable(process)?;
        // One that does not end is met again where it is in the way, and named there.
        let _ = env.timeout(LIMIT, ended.readable()).await;
    }
    Ok(())
}

/// When the process began, in ticks since the machine did.
fn begun(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; the 22nd field is the 20th behind it.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_once() {
        let own = begun(std::process::id()).unwrap();
        assert_eq!(begun(std::process::id()), Some(own));
        assert!(begun(1).unwrap() <= own);
        assert_eq!(begun(u32::MAX), None);
    }
}
