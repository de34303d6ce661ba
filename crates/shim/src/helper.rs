//! Short-lived processes forked by the shim, in which libcontainer runs: the shim itself stays small and never waits.
//!
//! A helper writes one [`Outcome`] to its pipe and ends. What it starts becomes the shim's child, not the helper's.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde::{Deserialize, Serialize};

use crate::executor::PodExecutor;
use crate::protocol::{Exec, Execution, Pause, Start};
use crate::{pause, program, wire};

/// What came of a helper's work.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// The process it started.
    pub(crate) pid: Option<i32>,
    /// Why it did not.
    pub(crate) error: Option<String>,
    /// What went wrong without stopping it.
    pub(crate) warnings: Vec<String>,
}

/// The container's ends of its standard streams. With a terminal there are none, but the socket's path.
pub(crate) struct Streams {
    pub(crate) stdin: OwnedFd,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// Forks a helper for `work`; returns its pid and the pipe its outcome comes through.
pub(crate) fn spawn(work: impl FnOnce(&mut Outcome) -> Result<Option<i32>, String>) -> io::Result<(i32, OwnedFd)> {
    let (read, write) = wire::pipe()?;
    let pid = linux::process::fork(move || {
        linux::process::set_name("oxikube-create");
        let mut outcome = Outcome::default();
        match work(&mut outcome) {
            Ok(pid) => outcome.pid = pid,
            Err(error) => outcome.error = Some(error),
        }
        let text = serde_json::to_vec(&outcome).unwrap_or_default();
        i32::from(File::from(write).write_all(&text).is_err())
    })?;
    Ok((pid, read))
}

/// Creates and starts a container; its first process' pid.
pub(crate) fn start(
    start: &Start,
    streams: Option<Streams>,
    console: Option<&Path>,
    outcome: &mut Outcome,
) -> Result<Option<i32>, String> {
    if let Some(path) = &start.program {
        return program::start(start, path, streams, console).map(Some);
    }
    adjust_oom_score(&start.execution, outcome);
    let (failure, builder) = builder(&start.container, &start.state_root, &start.execution, streams, console)?;
    let container = builder.as_init(&start.bundle).with_systemd(false).with_detach(true).as_sibling(true).build();
    let mut container = container.map_err(|error| format!("unable to start container process: {}", chain(&error)))?;
    let pid = container.pid().map(|pid| pid.as_raw()).unwrap_or_default();
    let started = container.start().map_err(|error| chain(&error)).and_then(|()| wait_for_execution(failure));
    started.map(|()| Some(pid)).map_err(|error| {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        let _ = fs::remove_dir_all(start.state_root.join(&start.container));
        format!("unable to start container process: error during container init: {error}")
    })
}

/// Runs a process in a container that runs; its pid.
pub(crate) fn exec(
    exec: &Exec,
    (state_root, path): (&Path, Option<&Path>),
    streams: Option<Streams>,
    console: Option<&Path>,
    outcome: &mut Outcome,
) -> Result<Option<i32>, String> {
    if let Some(path) = path {
        return program::exec(exec, path, state_root, streams, console).map(Some);
    }
    adjust_oom_score(&exec.execution, outcome);
    let (failure, builder) = builder(&exec.container, state_root, &exec.execution, streams, console)?;
    let pid = builder.as_tenant().with_process(Some(&exec.process)).with_detach(true).as_sibling(true).build();
    let failed = |error: String| format!("exec failed: unable to start container process: {error}");
    // The executor's own words say more than what libcontainer makes of them.
    match (pid, wait_for_execution(failure)) {
        (Ok(pid), Ok(())) => Ok(Some(pid.as_raw())),
        (_, Err(error)) => Err(failed(error)),
        (Err(error), Ok(())) => Err(failed(chain(&error))),
    }
}

/// Sends a signal to a container that another runtime's program made.
pub(crate) fn kill(made_by: &MadeBy, container: &str, signal: i32) -> Result<Option<i32>, String> {
    program::kill(&made_by.path, &made_by.state_root, made_by.log.clone(), container, signal).map(|()| None)
}

/// Takes away what another runtime's program keeps of a container.
pub(crate) fn delete(made_by: &MadeBy, container: &str) -> Result<Option<i32>, String> {
    program::delete(&made_by.path, &made_by.state_root, made_by.log.clone(), container).map(|()| None)
}

/// The program that made a container.
pub(crate) struct MadeBy {
    pub(crate) path: PathBuf,
    pub(crate) state_root: PathBuf,
    /// Where it writes what goes wrong with one call.
    pub(crate) log: PathBuf,
}

/// Starts the pause process; its pid.
pub(crate) fn pause(config: &Pause) -> Result<Option<i32>, String> {
    let prepare = || -> io::Result<i32> {
        for namespace in &config.namespaces {
            linux::namespace::join(namespace)?;
        }
        linux::namespace::isolate_mounts_and_pids()?;
        let (ready, told) = wire::pipe()?;
        let pid = linux::process::fork_sibling(|| pause::run(&config.root, told))?;
        let mut problem = String::new();
        File::from(ready).read_to_string(&mut problem)?;
        if problem.is_empty() { Ok(pid) } else { Err(io::Error::other(problem)) }
    };
    prepare().map(Some).map_err(|error| format!("unable to start the pause process: {error}"))
}

fn builder(
    id: &str,
    state_root: &Path,
    execution: &Execution,
    streams: Option<Streams>,
    console: Option<&Path>,
) -> Result<(OwnedFd, ContainerBuilder), String> {
    let (read, write) = wire::pipe().map_err(|error| error.to_string())?;
    let executor = PodExecutor::new(execution, write).map_err(|error| format!("load the seccomp filter: {error}"))?;
    let builder = ContainerBuilder::new(id.to_owned(), SyscallType::default())
        .with_root_path(state_root)
        .and_then(ContainerBuilder::validate_id)
        .map_err(|error| chain(&error))?
        .with_executor(executor)
        .with_console_socket(console);
    let builder = match streams {
        Some(streams) => builder.with_stdin(streams.stdin).with_stdout(streams.stdout).with_stderr(streams.stderr),
        None => builder,
    };
    Ok((read, builder))
}

/// Returns when the program runs, or with the executor's reason why it does not.
fn wait_for_execution(failure: OwnedFd) -> Result<(), String> {
    let mut reason = String::new();
    match File::from(failure).read_to_string(&mut reason) {
        Ok(_) if reason.is_empty() => Ok(()),
        Ok(_) => Err(reason),
        Err(error) => Err(error.to_string()),
    }
}

/// Inherited by what this helper starts. Lowering it needs a right that this machine may not give.
fn adjust_oom_score(execution: &Execution, outcome: &mut Outcome) {
    if let Some(value) = execution.oom_score_adj
        && let Err(error) = linux::process::set_oom_score_adj(value)
    {
        outcome.warnings.push(format!("oom_score_adj {value} was not set: {error}"));
    }
}

/// The error and what caused it, without repetitions.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        next = error.source();
    }
    text
}
