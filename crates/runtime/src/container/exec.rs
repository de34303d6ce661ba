//! Processes added to a container that runs.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use shim::protocol::{Exec, Request, Signal};
use shim::wire;
use tokio::io::AsyncReadExt;
use tokio::sync::{oneshot, watch};

use crate::error::{Context, Error};
use crate::state::{Container, Daemon};
use crate::streaming::descriptor::{Descriptor, UntilOver};

/// How much of each output is kept (upstream: the kubelet's and containerd's limit).
const MAX_OUTPUT: usize = 16 * 1024 * 1024;

/// A process that was added.
pub(crate) struct Process {
    pub(crate) id: String,
    container: Arc<Container>,
    exit: oneshot::Receiver<i32>,
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
    /// The terminal, in place of the three.
    pub(crate) terminal: Option<OwnedFd>,
}

/// Starts `command` in a container that runs.
pub(crate) async fn start(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    command: &[String],
    terminal: bool,
    stdin: bool,
) -> Result<Process, Error> {
    let failed = || "failed to exec in container".to_owned();
    let shim = container.sandbox.shim()?;
    let id = format!("{:016x}", daemon.env.random_u64());
    let file = ProcessFile::write(daemon, container, &id, command, terminal)?;
    let mut execution = crate::container::load_start(daemon, &container.id)?.execution;
    execution.propagation.clear();
    let exec = Exec { id: id.clone(), container: container.id.clone(), process: file.0.clone(), terminal, execution };
    let request = Request::Exec(Box::new(exec));
    let exit = shim.expect_exec(&id);
    let mut process = Process {
        id: id.clone(),
        container: container.clone(),
        exit,
        stdin: None,
        stdout: None,
        stderr: None,
        terminal: None,
    };
    let launched = if terminal {
        shim.launch(&failed(), request, &[]).await
    } else {
        let (stdin_end, stdin_ours) = if stdin {
            let (read, write) = wire::pipe().context(failed)?;
            (read, Some(write))
        } else {
            (fs::File::open("/dev/null").context(failed)?.into(), None)
        };
        let (stdout_ours, stdout_end) = wire::pipe().context(failed)?;
        let (stderr_ours, stderr_end) = wire::pipe().context(failed)?;
        process.stdin = stdin_ours;
        process.stdout = Some(stdout_ours);
        process.stderr = Some(stderr_ours);
        let ends = [stdin_end.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        shim.launch(&failed(), request, &ends).await
    };
    match launched {
        Ok((_, descriptor)) => {
            process.terminal = descriptor;
            Ok(process)
        }
        Err(error) => {
            shim.forget_exec(&id);
            Err(error)
        }
    }
}

impl Process {
    /// The exit code, once it has ended; an error when its shim died.
    pub(crate) async fn ended(&mut self) -> Result<i32, Error> {
        (&mut self.exit).await.map_err(|_| Error::ShimGone)
    }

    /// Kills it.
    pub(crate) async fn kill(&self) {
        if let Ok(shim) = self.container.sandbox.shim() {
            let signal =
                Signal { container: String::new(), exec: Some(self.id.clone()), signal: libc::SIGKILL, all: false };
            let _ = shim.ask("kill", Request::Signal(signal)).await;
        }
    }
}

/// What a command wrote, and how it ended.
pub(crate) struct Output {
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) code: i32,
}

/// Runs `command` to its end, at most for `timeout` (zero: as long as it takes).
pub(crate) async fn run(
    daemon: &Arc<Daemon>,
    container: &Arc<Container>,
    command: &[String],
    timeout: Duration,
) -> Result<Output, Error> {
    let mut process = start(daemon, container, command, false, false).await?;
    let failed = || "failed to exec in container".to_owned();
    let (over, watch) = watch::channel(None);
    let open = |descriptor: Option<OwnedFd>| {
        let descriptor = descriptor.ok_or_else(|| io::Error::other("no stream")).context(failed)?;
        Ok::<_, Error>(UntilOver::new(Descriptor::new(descriptor).context(failed)?, watch.clone()))
    };
    let (stdout, stderr) = (open(process.stdout.take())?, open(process.stderr.take())?);
    let ended = async {
        let code = process.ended().await;
        over.send_replace(Some(*code.as_ref().unwrap_or(&0)));
        code
    };
    let work = async { tokio::join!(ended, collect(stdout), collect(stderr)) };
    let result = if timeout.is_zero() { Some(work.await) } else { daemon.env.timeout(timeout, work).await };
    match result {
        Some((code, stdout, stderr)) => Ok(Output { stdout, stderr, code: code? }),
        None => {
            process.kill().await;
            Err(Error::Timeout(format!(
                "failed to exec in container: timeout {timeout:?} exceeded: context deadline exceeded"
            )))
        }
    }
}

/// All that is read, as far as it is kept.
async fn collect(mut stream: UntilOver) -> Vec<u8> {
    let mut kept = Vec::new();
    let mut chunk = vec![0; 32 * 1024];
    loop {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return kept,
            Ok(size) => {
                let room = MAX_OUTPUT - kept.len();
                kept.extend_from_slice(&chunk[..size.min(room)]);
            }
        }
    }
}

/// OCI's `process` on disk, gone with this.
struct ProcessFile(PathBuf);

impl ProcessFile {
    /// The container's own process, with another command.
    fn write(
        daemon: &Daemon,
        container: &Container,
        id: &str,
        command: &[String],
        terminal: bool,
    ) -> Result<ProcessFile, Error> {
        let failed = || "failed to exec in container".to_owned();
        if command.is_empty() {
            return Err(Error::Invalid("no command to execute in the container".to_owned()));
        }
        if command.iter().any(|part| part.contains('\0')) {
            return Err(Error::Invalid("arguments cannot hold null bytes".to_owned()));
        }
        let bundle = daemon.container_run(&container.id);
        let config = fs::read(bundle.join("config.json")).context(failed)?;
        let config: Value = serde_json::from_slice(&config).context(failed)?;
        let mut process = config["process"].clone();
        process["args"] = command.to_vec().into();
        process["terminal"] = terminal.into();
        if terminal && let Some(env) = process["env"].as_array_mut() {
            let has_term = env.iter().any(|variable| variable.as_str().is_some_and(|text| text.starts_with("TERM=")));
            if !has_term {
                env.push("TERM=xterm".into());
            }
        }
        let path = bundle.join(format!("exec-{id}.json"));
        fs::write(&path, serde_json::to_vec(&process).context(failed)?).context(failed)?;
        Ok(ProcessFile(path))
    }
}

impl Drop for ProcessFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
