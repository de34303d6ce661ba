//! The first process of a pod's shared pid namespace: it adopts and reaps, and does nothing else.
//!
//! Containers of the pod see it, so it holds nothing they could use: an empty read-only root, no capabilities, an unprivileged
//! user, nothing to read below its `/proc` entry.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path;

use linux::mount;
use linux::process::Capabilities;

/// The user and group upstream's pause image runs as.
const NOBODY: u32 = 65535;

/// Never returns when all is well; else writes the reason to `told`, which is closed when it is ready.
pub(crate) fn run(root: &Path, told: OwnedFd) -> i32 {
    match prepare(root) {
        Ok(()) => {
            drop(told);
            close_all();
            linux::process::reap_forever()
        }
        Err(error) => {
            let _ = File::from(told).write_all(error.to_string().as_bytes());
            1
        }
    }
}

fn prepare(root: &Path) -> io::Result<()> {
    linux::process::set_name("pause");
    linux::process::reset_signals()?;
    nix::unistd::setsid()?;
    mount::seal_into(root)?;
    nix::unistd::setgroups(&[])?;
    nix::unistd::setresgid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
    // The user changes before the rights to change it are given up for good.
    rustix::thread::set_keep_capabilities(true)?;
    nix::unistd::setresuid(NOBODY.into(), NOBODY.into(), NOBODY.into())?;
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_capabilities(None, rustix::thread::CapabilitySets { effective: sets.permitted, ..sets })?;
    Capabilities::default().keep_only()?;
    linux::process::hide_from_ptrace()
}

/// Nothing of the shim's stays open, not even its sockets.
fn close_all() {
    let open: Vec<i32> = match nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE) {
        Ok((soft, _)) => (0..soft.min(4096) as i32).collect(),
        Err(_) => Vec::new(),
    };
    for descriptor in open {
        let _ = nix::unistd::close(descriptor);
    }
}
