//! Kernel namespaces: making them, pinning them to files, running code inside.
//!
//! A namespace is entered only on a thread that ends afterwards, so no other code ever runs inside by accident.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::mount::UnmountFlags;
use rustix::thread::UnshareFlags;

/// A sort of namespace that can be made on a thread and pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Network.
    Net,
    /// System V IPC and message queues.
    Ipc,
    /// Host name.
    Uts,
}

impl Kind {
    /// The name below `/proc/<pid>/ns`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Net => "net",
            Kind::Ipc => "ipc",
            Kind::Uts => "uts",
        }
    }

    fn flag(self) -> UnshareFlags {
        match self {
            Kind::Net => UnshareFlags::NEWNET,
            Kind::Ipc => UnshareFlags::NEWIPC,
            Kind::Uts => UnshareFlags::NEWUTS,
        }
    }
}

/// Makes a new namespace of each of `kinds`, runs `prepare` inside them, and pins each to `dir/<name>`. On failure nothing is
/// left pinned.
pub fn create_pinned(kinds: &[Kind], dir: &Path, prepare: impl FnOnce() -> io::Result<()> + Send) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let result = on_own_thread(|| {
        let flags = kinds.iter().fold(UnshareFlags::empty(), |flags, kind| flags | kind.flag());
        // SAFETY: without FILES no other thread's file descriptors are concerned.
        unsafe { rustix::thread::unshare_unsafe(flags)? };
        prepare()?;
        for kind in kinds {
            let pin = dir.join(kind.name());
            File::create(&pin)?;
            rustix::mount::mount_bind(format!("/proc/thread-self/ns/{}", kind.name()), &pin)?;
        }
        Ok(())
    });
    if result.is_err() {
        let _ = unpin(dir);
    }
    result
}

/// Takes the pins in `dir`, and the folder, away; a namespace nobody else uses ends. Succeeds when there are none.
pub fn unpin(dir: &Path) -> io::Result<()> {
    for kind in [Kind::Net, Kind::Ipc, Kind::Uts] {
        let pin = dir.join(kind.name());
        match rustix::mount::unmount(&pin, UnmountFlags::DETACH) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        match fs::remove_file(&pin) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Joins the namespace pinned at `path` with the calling thread, for good. Only for threads and processes that do nothing else.
pub fn join(path: &Path) -> io::Result<()> {
    Ok(rustix::thread::move_into_link_name_space(File::open(path)?.as_fd(), None)?)
}

/// What `inside` returns when run within the namespace pinned at `path`, on a thread of its own.
pub fn enter<T: Send>(path: &Path, inside: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    on_own_thread(|| {
        join(path)?;
        inside()
    })
}

/// Gives the calling process a mount namespace of its own and lets its next child be the first of a new pid namespace. Only for
/// processes with one thread.
pub fn isolate_mounts_and_pids() -> io::Result<()> {
    // SAFETY: without FILES no file descriptors are concerned.
    Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::NEWPID) }?)
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread inside the namespace panicked")))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn pinned_namespaces_are_new_and_go_with_their_pins() {
        let dir = std::env::temp_dir().join(format!("linux-namespace-{}", std::process::id()));
        create_pinned(&[Kind::Net, Kind::Uts], &dir, || Ok(rustix::system::sethostname(b"inside")?)).unwrap();
        let ours = fs::metadata("/proc/self/ns/net").unwrap().ino();
        let theirs = fs::metadata(dir.join("net")).unwrap().ino();
        assert_ne!(ours, theirs);
        let name = enter(&dir.join("uts"), || Ok(rustix::system::uname().nodename().to_owned())).unwrap();
        assert_eq!(name.to_str(), Ok("inside"));
        assert_ne!(rustix::system::uname().nodename().to_str(), Ok("inside"));
        unpin(&dir).unwrap();
        unpin(&dir).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn a_failed_preparation_leaves_nothing() {
        let dir = std::env::temp_dir().join(format!("linux-namespace-fail-{}", std::process::id()));
        assert!(create_pinned(&[Kind::Net], &dir, || Err(io::Error::other("no"))).is_err());
        assert!(!dir.exists());
    }
}
