//! `oxikube stop`.

use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;

use crate::control::{Ask, Connection, ask};
use crate::turn::Turn;
use crate::{Args, Hooks, Settings, process};

/// Containers get 10 s in total; what is left over is for removing mounts, links and rules.
const LIMIT: Duration = Duration::from_secs(30);
/// A daemon that says nothing for so long is not busy, but stands still.
const GREETING: Duration = Duration::from_secs(10);

pub(crate) async fn run(args: &Args, env: &env::Env, hooks: &Hooks) -> Result<ExitCode> {
    let settings = Settings::must_find(args)?;
    drop(stop(&settings, env, hooks).await?);
    println!("cluster {} is stopped", settings.name);
    Ok(ExitCode::SUCCESS)
}

/// Ends the daemon and everything it ran; also what a daemon that died left running.
/// The turn to do more stays the caller's.
pub(crate) async fn stop(settings: &Settings, env: &env::Env, hooks: &Hooks) -> Result<Turn> {
    let turn = Turn::take(settings, env).await?;
    end_daemon(settings, env).await?;
    env.crashpoint("stop.daemon-ended");
    (hooks.cleanup)(settings.clone()).await.context("removing what a dead daemon left")?;
    Ok(turn)
}

/// Asks a running daemon to stop and waits for the end of its process. One that doesn't answer is killed: what it ran goes on, and
/// is there for the cleanup.
pub(crate) async fn end_daemon(settings: &Settings, env: &env::Env) -> Result<()> {
    let socket = settings.control_socket();
    let Some(Connection { pid, .. }) = Connection::open(&socket).await? else {
        return process::gone(settings, env).await;
    };
    // Opened before it is told to stop, so that it can't become somebody else's; nor is it already, as the daemon listens still.
    let process = linux_process(pid)?;
    let Some(hello) = Connection::open(&socket).await?.filter(|hello| hello.pid == pid) else { return Ok(()) };
    // One that is older doesn't know the greeting, and says so.
    if env.timeout(GREETING, hello.ask(Ask::Hello)).await.is_none() {
        return kill(env, pid, process, GREETING).await;
    }
    match env.timeout(LIMIT, ask(&socket, Ask::Stop)).await {
        Some(answer) => drop(answer?),
        None => return kill(env, pid, process, LIMIT).await,
    }
    if !has_ended(process.try_clone()?, env).await? {
        return kill(env, pid, process, LIMIT).await;
    }
    Ok(())
}

/// Ends a daemon that stood still for `waited`.
async fn kill(env: &env::Env, pid: u32, process: OwnedFd, waited: Duration) -> Result<()> {
    eprintln!("the daemon (pid {pid}) did nothing for {} s: it is killed", waited.as_secs());
    match rustix::process::pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(error).context("killing the daemon"),
    }
    if !has_ended(process, env).await? {
        bail!("the daemon (pid {pid}) was killed, but did not end within {} s", LIMIT.as_secs());
    }
    Ok(())
}

/// Waits for the process to end, and tells whether it did in time.
async fn has_ended(process: OwnedFd, env: &env::Env) -> Result<bool> {
    let ended = linux::descriptor::readable(process)?;
    Ok(env.timeout(LIMIT, ended.readable()).await.is_some())
}

/// A descriptor that becomes readable when the process ends.
fn linux_process(pid: u32) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid as i32).context("process ids are positive")?;
    rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::NONBLOCK).context("watching the daemon's process")
}
