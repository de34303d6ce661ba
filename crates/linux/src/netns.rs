//! Network namespaces: made, pinned to a path, and entered on dedicated threads only.
//!
//! ```no_run
//! let ns = linux::netns::NetNs::create("/run/example/net".as_ref())?;
//! let links = ns.run(|| std::fs::read_to_string("/proc/thread-self/net/dev"))?;
//! linux::netns::delete("/run/example/net".as_ref())?;
//! # Ok::<(), linux::netns::Error>(())
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// A namespace could not be made, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No thread could be started.
    #[error("start a thread")]
    Thread(#[source] io::Error),
    /// `unshare` failed.
    #[error("make a network namespace")]
    Unshare(#[source] Errno),
    /// `setns` failed.
    #[error("enter the network namespace")]
    Enter(#[source] Errno),
    /// The pin cannot be opened, made or removed.
    #[error("{action} {}", path.display())]
    Pin {
        /// What was done with the pin.
        action: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// A handle to a network namespace, which lives at least as long as the handle.
#[derive(Clone, Debug)]
pub struct NetNs(Arc<OwnedFd>);

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<NetNs, Error> {
        NetNs::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace that `pin` leads to.
    pub fn open(pin: &Path) -> Result<NetNs, Error> {
        let file = File::open(pin).map_err(|source| Error::Pin { action: "open", path: pin.to_owned(), source })?;
        Ok(NetNs(Arc::new(file.into())))
    }

    /// A new namespace without a pin: it ends with its last handle, socket or process.
    pub fn unpinned() -> Result<NetNs, Error> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Error::Unshare)?;
            NetNs::current()
        })?
    }

    /// A new namespace pinned at `pin` (made with its folder if missing).
    pub fn create(pin: &Path) -> Result<NetNs, Error> {
        let failed = |action| move |source| Error::Pin { action, path: pin.to_owned(), source };
        if let Some(parent) = pin.parent() {
            std::fs::create_dir_all(parent).map_err(failed("make the folder of"))?;
        }
        File::create(pin).map_err(failed("create"))?;
        let created = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(Error::Unshare)?;
            mount(Some("/proc/thread-self/ns/net"), pin, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .map_err(|errno| failed("bind to")(errno.into()))?;
            NetNs::current()
        })?;
        if created.is_err() {
            let _ = std::fs::remove_file(pin);
        }
        created
    }

    /// Runs `work` in this namespace on a thread of its own. The caller's thread waits.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_thread(|| {
            setns(self.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Error::Enter)?;
            Ok(work())
        })?
    }

    /// Like [`NetNs::run`], for callers that must not block.
    pub async fn run_async<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let ns = self.clone();
        std::thread::Builder::new()
            .name("netns".into())
            .spawn(move || {
                let result = setns(ns.0.as_fd(), CloneFlags::CLONE_NEWNET).map_err(Error::Enter).map(|()| work());
                let _ = tx.send(result);
            })
            .map_err(Error::Thread)?;
        rx.await.map_err(|_| Error::Thread(io::Error::other("the thread in the namespace panicked")))?
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Unpins the namespace; it ends when nothing uses it. A missing pin is no error.
pub fn delete(pin: &Path) -> Result<(), Error> {
    let failed = |action| move |source| Error::Pin { action, path: pin.to_owned(), source };
    match umount2(pin, MntFlags::MNT_DETACH) {
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(failed("unmount")(errno.into())),
    }
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove")(error)),
        _ => Ok(()),
    }
}

/// Runs `work` on a fresh thread, so that no other work ever sees the namespace it changes to.
fn on_thread<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread =
            std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work).map_err(Error::Thread)?;
        thread.join().or_else(|panic| std::panic::resume_unwind(panic))
    })
}
