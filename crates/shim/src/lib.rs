//! The process that stands between a pod's containers and the daemon.
//!
//! One shim per sandbox: it starts the containers, holds their standard streams, writes their logs, reaps them and remembers
//! how they ended. It outlives the daemon, which finds it again by its socket. It has one thread, forks a helper for each
//! process it makes (libcontainer runs there), and keeps its own memory small. It knows no images, no networks and no Kubernetes:
//! the daemon hands it OCI configurations.
//!
//! The daemon runs its own program again as `oxikube shim`, with the listening socket as standard input; the binary calls
//! [`run`] before anything else starts:
//!
//! ```no_run
//! if std::env::args_os().nth(1).is_some_and(|arg| arg == "shim") {
//!     std::process::exit(shim::run());
//! }
//! ```
//!
//! Main path: a [`protocol::Call`] arrives (`server`), a helper creates and starts the container (`helper`, `executor`; or
//! `program`, where another OCI runtime is to do it), its output is pumped (`container`, `log`), and its end is recorded and announced.

mod container;
mod executor;
pub mod filters;
mod helper;
mod log;
mod pause;
mod program;
pub mod protocol;
mod server;
pub mod wire;

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// Serves a sandbox until the daemon ends it; the process' exit code. Call it with one thread only.
pub fn run() -> i32 {
    match prepare().and_then(|listener| server::Server::new(listener)?.run()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("shim: {error}");
            1
        }
    }
}

/// Leaves the daemon's session and takes over the socket that standard input is.
fn prepare() -> io::Result<OwnedFd> {
    linux::process::set_name("oxikube-shim");
    let listener = std::io::stdin().as_fd().try_clone_to_owned()?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2(null.as_raw_fd(), 0)?;
    // Already the leader of a session when started by hand.
    let _ = nix::unistd::setsid();
    std::env::set_current_dir("/")?;
    linux::process::become_subreaper()?;
    // What containers inherit is not the daemon's: neither its keys (a kernel may have none) nor its umask.
    let _ = linux::process::join_new_keyring();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // Killing a shim to free memory would free next to none; best effort, as containers are set apart again.
    let _ = linux::process::set_oom_score_adj(-998);
    Ok(listener)
}
