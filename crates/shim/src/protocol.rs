//! What the daemon and a shim say to each other, and how it is written down.
//!
//! One message is one packet of JSON on a `SOCK_SEQPACKET` unix socket, with file descriptors beside it where said. Formats only
//! grow: unknown fields are ignored, absent ones have defaults, an unknown request gets an error. Shims outlive upgrades of the
//! daemon, so goldens of every release are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The format this build writes; a daemon understands this and the one before.
pub const FORMAT: u32 = 1;

/// A request and the number its answer carries.
#[derive(Debug, Serialize, Deserialize)]
pub struct Call {
    /// Chosen by the daemon, unique on its connection.
    pub seq: u64,
    /// What to do.
    pub request: Request,
}

/// What a daemon asks.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Request {
    /// Who are you, and what runs? First on each connection; from then on the shim sends its events there.
    Hello {
        /// The daemon's [`FORMAT`].
        format: u32,
    },
    /// Start the process that holds the pod's pid namespace.
    Pause(Pause),
    /// Create and start a container.
    Start(Box<Start>),
    /// Run a process in a container. Carries its stdin, stdout and stderr, unless it has a terminal: then the answer carries
    /// the terminal's other side.
    Exec(Box<Exec>),
    /// Send a signal.
    Signal(Signal),
    /// Copy a container's output from now on to the descriptors sent along (stdout, then stderr without a terminal); the
    /// answer carries what its input can be written to, when it has one.
    Attach {
        /// The container.
        container: String,
    },
    /// Nothing will be written to the container's input any more.
    CloseStdin {
        /// The container.
        container: String,
    },
    /// Open the log file at its path again.
    ReopenLog {
        /// The container.
        container: String,
    },
    /// Drop an ended container.
    Forget {
        /// The container.
        container: String,
    },
    /// End the pause process and the shim.
    Shutdown,
}

/// See [`Request::Pause`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pause {
    /// Pinned namespaces to join.
    pub namespaces: Vec<PathBuf>,
    /// An empty folder that becomes its root.
    pub root: PathBuf,
}

/// See [`Request::Start`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Start {
    /// The container's id.
    pub container: String,
    /// The folder with the OCI `config.json`.
    pub bundle: PathBuf,
    /// The folder below which libcontainer, or the OCI runtime's program, keeps its state.
    pub state_root: PathBuf,
    /// Where the end is recorded.
    pub exit_file: PathBuf,
    /// Where the output goes; nowhere without it.
    pub log: Option<PathBuf>,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// Whether its input stays open to be written to.
    pub stdin: bool,
    /// The control group, relative to each hierarchy's root.
    pub cgroup: PathBuf,
    /// Whether the rest of the group is killed when the first process ends, as it has no pid namespace of its own.
    pub kill_rest: bool,
    /// How the process is made.
    pub execution: Execution,
    /// The OCI runtime's program that makes the container; without it this one does. The program knows only the bundle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
}

/// See [`Request::Exec`].
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exec {
    /// The process' name among those of this shim.
    pub id: String,
    /// The container.
    pub container: String,
    /// The file with the OCI `process`.
    pub process: PathBuf,
    /// Whether it has a terminal.
    pub terminal: bool,
    /// How the process is made.
    pub execution: Execution,
}

/// What the executor does in the new process before it becomes the program.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Execution {
    /// Capabilities it keeps, one bit each; all when absent.
    pub capabilities: Option<u64>,
    /// Those of them that programs of a user other than root get too.
    #[serde(skip_serializing_if = "is_none")]
    pub ambient: u64,
    /// The file with its system call filters, see [`crate::filters`].
    pub seccomp: Option<PathBuf>,
    /// Whether it may gain privileges: then filters come first, else last.
    pub no_new_privileges: bool,
    /// The kernel's preference to kill it; best effort.
    pub oom_score_adj: Option<i32>,
    /// The AppArmor profile it is confined by, from its execution on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub apparmor: Option<String>,
    /// The folder it starts in, made when absent.
    pub cwd: PathBuf,
    /// Propagation of mounts by their path in the container.
    pub propagation: Vec<(PathBuf, Propagation)>,
}

fn is_none(capabilities: &u64) -> bool {
    *capabilities == 0
}

/// How a mount passes on what is mounted below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Propagation {
    /// In neither direction.
    Private,
    /// From the host into the container.
    HostToContainer,
    /// In both.
    Bidirectional,
}

/// See [`Request::Signal`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Signal {
    /// The container, unless `exec` is given.
    #[serde(default)]
    pub container: String,
    /// The process started by [`Request::Exec`].
    #[serde(default)]
    pub exec: Option<String>,
    /// The signal's number.
    pub signal: i32,
    /// Kill everything in the container's group; `signal` is not looked at.
    #[serde(default)]
    pub all: bool,
}

/// What a shim says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Message {
    /// The answer to a call.
    Answer {
        /// The call's number.
        seq: u64,
        /// What came of it.
        answer: Answer,
    },
    /// A container ended.
    Exited {
        /// The container.
        container: String,
        /// How.
        exit: Exit,
    },
    /// A process started by [`Request::Exec`] ended.
    ExecExited {
        /// The process.
        exec: String,
        /// Its exit code; 128 and the signal when killed.
        code: i32,
    },
    /// The pause process ended, and with it everything in the pod's pid namespace.
    PauseExited,
}

/// What came of a request.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// A process was started.
    Started(Started),
    /// Done.
    Done,
    /// Not done; the reason in the words users know.
    Error(String),
}

/// See [`Answer::Started`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Started {
    /// The process, in the shim's pid namespace.
    pub pid: i32,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// What could not be done but need not fail.
    pub warnings: Vec<String>,
}

/// See [`Answer::Hello`].
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hello {
    /// The shim's [`FORMAT`].
    pub format: u32,
    /// The shim's process.
    pub pid: i32,
    /// The pause process, if one was started and still runs.
    pub pause: Option<i32>,
    /// Every container it started and has not forgotten.
    pub containers: Vec<ContainerState>,
}

/// One container of a shim.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerState {
    /// Its id.
    pub id: String,
    /// Its first process.
    pub pid: i32,
    /// Nanoseconds since 1970.
    pub started_at: i64,
    /// How it ended, if it did.
    pub exit: Option<Exit>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Exit {
    /// The exit code; 128 and the signal when killed.
    pub code: i32,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
    /// Whether the kernel killed a process of the container for want of memory.
    pub oom_killed: bool,
}

/// The file an [`Exit`] is recorded in.
#[derive(Debug, Serialize, Deserialize)]
pub struct ExitRecord {
    /// The writer's [`FORMAT`].
    pub format: u32,
    /// How it ended.
    #[serde(flatten)]
    pub exit: Exit,
}

impl ExitRecord {
    /// Reads the record at `path`; `None` when there is none or it is not whole.
    pub fn load(path: &std::path::Path) -> Option<Exit> {
        let record: ExitRecord = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        Some(record.exit)
    }

    /// Writes the record to `path`, all of it or nothing.
    pub fn save(exit: &Exit, path: &std::path::Path) -> std::io::Result<()> {
        let record = ExitRecord { format: FORMAT, exit: exit.clone() };
        let temporary = path.with_extension("tmp");
        std::fs::write(&temporary, serde_json::to_vec(&record)?)?;
        std::fs::rename(&temporary, path)
    }
}

#[cfg(test)]
mod tests;
