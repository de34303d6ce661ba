//! Containers that another OCI runtime's program makes: runc, crun and their like.
//!
//! The program is called as upstream's runtimes call it: `create` and `start`, `exec`, `kill`, `delete`, with the container's
//! streams as its own, and its complaints in a log of their own. What it starts becomes the shim's child when it ends, as the
//! shim adopts orphans; from then on such a container is like any other.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use nix::sys::wait::{WaitStatus, waitpid};
use serde::Deserialize;

use crate::helper::Streams;
use crate::protocol::{Exec, Start};

/// One program and where it keeps its state.
struct Program<'a> {
    path: &'a Path,
    state_root: &'a Path,
    /// Where it writes what went wrong.
    log: PathBuf,
}

/// A line of its log.
#[derive(Deserialize)]
struct Line {
    level: String,
    msg: String,
}

/// Creates and starts a container; its first process' pid.
pub(crate) fn start(
    start: &Start,
    path: &Path,
    streams: Option<Streams>,
    console: Option<&Path>,
) -> Result<i32, String> {
    let program = Program { path, state_root: &start.state_root, log: start.bundle.join("runtime.log") };
    let pid_file = start.bundle.join("init.pid");
    let create = program.call("create").option("--bundle", &start.bundle).option("--pid-file", &pid_file);
    let created = program.run(create.console(console).word(&start.container), streams);
    created.map_err(|error| format!("OCI runtime create failed: {error}"))?;
    let started = read_pid(&pid_file)
        .and_then(|pid| program.run(program.call("start").word(&start.container), None).map(|()| pid));
    started.map_err(|error| {
        let _ = program.delete(&start.container);
        format!("OCI runtime start failed: {error}")
    })
}

/// Runs a process in a container that runs; its pid.
pub(crate) fn exec(
    exec: &Exec,
    path: &Path,
    state_root: &Path,
    streams: Option<Streams>,
    console: Option<&Path>,
) -> Result<i32, String> {
    let program = Program { path, state_root, log: exec.process.with_extension("log") };
    let pid_file = exec.process.with_extension("pid");
    let call = program.call("exec").word("--detach").option("--process", &exec.process);
    let call = call.option("--pid-file", &pid_file).console(console).word(&exec.container);
    let pid = program.run(call, streams).and_then(|()| read_pid(&pid_file));
    let _ = fs::remove_file(&pid_file);
    pid.map_err(|error| format!("OCI runtime exec failed: {error}"))
}

/// Sends a signal to the container's first process. One that ended already is no error.
pub(crate) fn kill(path: &Path, state_root: &Path, log: PathBuf, container: &str, signal: i32) -> Result<(), String> {
    let program = Program { path, state_root, log };
    match program.run(program.call("kill").word(container).word(&signal.to_string()), None) {
        Err(error) if is_gone(&error) => Ok(()),
        result => result.map_err(|error| format!("OCI runtime kill failed: {error}")),
    }
}

/// Upstream: containerd's `checkKillError`; a runtime has no other way to say so.
fn is_gone(error: &str) -> bool {
    ["process already finished", "container not running", "no such process", "does not exist"]
        .iter()
        .any(|text| error.to_ascii_lowercase().contains(text))
}

/// Takes away what the program keeps of a container that ended.
pub(crate) fn delete(path: &Path, state_root: &Path, log: PathBuf, container: &str) -> Result<(), String> {
    Program { path, state_root, log }.delete(container)
}

impl Program<'_> {
    fn call(&self, verb: &str) -> Call {
        let call = Call { args: vec![self.path.to_string_lossy().into_owned()], kept: Ok(None) };
        let call = call.option("--root", self.state_root).option("--log", &self.log);
        call.word("--log-format").word("json").word(verb)
    }

    fn delete(&self, container: &str) -> Result<(), String> {
        let call = self.call("delete").word("--force").word(container);
        self.run(call, None).map_err(|error| format!("OCI runtime delete failed: {error}"))
    }

    /// Calls the program and waits for its end; what it complained about when it failed.
    fn run(&self, call: Call, streams: Option<Streams>) -> Result<(), String> {
        // Kept open until the program has ended.
        let _folder = call.kept.map_err(|error| format!("console socket: {error}"))?;
        let child = linux::process::fork(|| {
            let Err(error) = execute(self.path, &call.args, streams);
            eprintln!("{}: {error}", self.path.display());
            NOT_EXECUTED
        });
        let pid = child.map_err(|error| format!("fork: {error}"))?;
        let status = loop {
            match waitpid(nix::unistd::Pid::from_raw(pid), None) {
                Err(nix::errno::Errno::EINTR) => {}
                status => break status,
            }
        };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let _ = fs::remove_file(&self.log);
        match status {
            Ok(WaitStatus::Exited(_, 0)) => Ok(()),
            Ok(WaitStatus::Exited(_, NOT_EXECUTED)) if log.is_empty() => {
                Err(format!("{} could not be executed", self.path.display()))
            }
            other => Err(complaint(&log).unwrap_or_else(|| format!("{other:?}"))),
        }
    }
}

/// What a shell answers for such a program.
const NOT_EXECUTED: i32 = 127;

/// The words of one call.
struct Call {
    args: Vec<String>,
    /// The folder of the console's socket: the program is told its descriptor, as a path may be too long for a socket.
    kept: io::Result<Option<File>>,
}

impl Call {
    fn word(mut self, word: &str) -> Call {
        self.args.push(word.to_owned());
        self
    }

    fn option(self, name: &str, path: &Path) -> Call {
        self.word(name).word(&path.to_string_lossy())
    }

    fn console(mut self, socket: Option<&Path>) -> Call {
        let Some((folder, name)) = socket.and_then(|socket| Some((socket.parent()?, socket.file_name()?))) else {
            return self;
        };
        match File::open(folder) {
            Ok(folder) => {
                let (own, number) = (std::process::id(), folder.as_raw_fd());
                self.kept = Ok(Some(folder));
                self.option("--console-socket", &PathBuf::from(format!("/proc/{own}/fd/{number}")).join(name))
            }
            Err(error) => Call { kept: Err(error), ..self },
        }
    }
}

/// Becomes the program, with the streams as its own or none.
fn execute(path: &Path, args: &[String], streams: Option<Streams>) -> io::Result<std::convert::Infallible> {
    // Other programs expect the usual signal set-up, which the shim's is not.
    linux::process::reset_signals()?;
    let null = || File::options().read(true).write(true).open("/dev/null");
    let (stdin, stdout, stderr) = match streams {
        Some(streams) => (streams.stdin, streams.stdout, streams.stderr),
        None => (null()?.into(), null()?.into(), null()?.into()),
    };
    for (stream, number) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
        nix::unistd::dup2(stream.as_raw_fd(), number)?;
    }
    Err(linux::process::execute(path, args, std::iter::empty::<(&str, &str)>()))
}

/// The last error of a log. Upstream: containerd's `getLastRuntimeError`.
fn complaint(log: &str) -> Option<String> {
    let mut lines = log.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
    lines.rfind(|line| line.level == "error").map(|line| line.msg.trim().to_owned())
}

fn read_pid(file: &Path) -> Result<i32, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    text.trim().parse().map_err(|_| format!("{} holds no process", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_of_a_log_is_the_reason() {
        let check = |log: &str, expect: Option<&str>| assert_eq!(complaint(log).as_deref(), expect, "{log}");
        check("", None);
        check("not json\n", None);
        let warning = r#"{"level":"warning","msg":"odd","time":"t"}"#;
        check(warning, None);
        let errors = format!("{}\n{warning}\n{}\n", error_line("first"), error_line("second"));
        check(&errors, Some("second"));
    }

    fn error_line(text: &str) -> String {
        format!(r#"{{"level":"error","msg":"{text}\n","time":"t"}}"#)
    }

    #[test]
    fn what_ended_cannot_be_killed() {
        for text in ["container not running", "os: process already finished", "container \"c\" does not exist"] {
            assert!(is_gone(text), "{text}");
        }
        assert!(!is_gone("permission denied"));
    }
}
