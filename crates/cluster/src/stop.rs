//! `oxikube stop`.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::control::{Answer, Ask, ask};
use crate::{Args, Hooks, Settings};

/// Containers get 10 s in total; what is left over is for removing mounts, links and rules.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn run(args: &Args, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    stop(&settings, env, hooks).await?;
    println!("cluster {} is stopped", settings.name);
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon and everything it ran; also what a daemon that died left running.
pub(crate) async fn stop(settings: &Settings, env: &env::Env, hooks: &Hooks) -> Result<()> {
    end_daemon(settings, env).await?;
    (hooks.cleanup)(settings.clone()).await.context("removing what a dead daemon left")
}

/// Asks a running daemon to stop and waits for the end of its process.
pub(crate) async fn end_daemon(settings: &Settings, env: &env::Env) -> Result<()> {
    let socket = settings.control_socket();
    let Some(Answer::Status(status)) = ask(&socket, Ask::Status).await? else { return Ok(()) };
    let pid = status.daemon.pid.context("a running daemon has a process id")?;
    // Opened before it is told to stop, so that it can't become somebody else's.
    let process = linux_process(pid)?;
    match env.timeout(LIMIT, ask(&socket, Ask::Stop)).await {
        Some(answer) => drop(answer?),
        None => bail!("the daemon (pid {pid}) did not stop within {} s", LIMIT.as_secs()),
    }
    let ended = linux::descriptor::readable(process)?;
    if env.timeout(LIMIT, ended.readable()).await.is_none() {
        bail!("the daemon (pid {pid}) answered, but did not end within {} s", LIMIT.as_secs());
    }
    Ok(())
}

/// A descriptor that becomes readable when the process ends.
fn linux_process(pid: u32) -> Result<std::os::fd::OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).context("process ids are positive")?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).context("watching the daemon's process")
}
