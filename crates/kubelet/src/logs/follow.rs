//! Notices that a log file was written to or rotated.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify;
use rustix::fs::inotify::{CreateFlags, ReadFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

/// Changes of one file.
pub(super) struct Changes {
    queue: AsyncFd<OwnedFd>,
    rotated: bool,
}

impl Changes {
    /// Writes to the file, and its being moved or removed.
    pub(super) fn of(path: &Path) -> io::Result<Changes> {
        Changes::watch(path, WatchFlags::MODIFY | WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF)
    }

    /// New files beside `path`.
    pub(super) fn of_folder(path: &Path) -> io::Result<Changes> {
        let folder = path.parent().unwrap_or(Path::new("/"));
        Changes::watch(folder, WatchFlags::CREATE | WatchFlags::MOVED_TO)
    }

    fn watch(path: &Path, flags: WatchFlags) -> io::Result<Changes> {
        let queue = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        inotify::add_watch(&queue, path, flags)?;
        Ok(Changes { queue: linux::descriptor::readable(queue)?, rotated: false })
    }

    /// Waits for a change.
    pub(super) async fn wait(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.queue.readable().await?;
            let mut buffer = [const { MaybeUninit::uninit() }; 4096];
            let mut events = inotify::Reader::new(ready.get_inner(), &mut buffer);
            match events.next() {
                Ok(event) => {
                    let mut seen = event.events();
                    // What came together must be looked at together: it is not told again.
                    while !events.is_buffer_empty() {
                        seen |= events.next()?.events();
                    }
                    self.rotated |= seen.intersects(ReadFlags::MOVE_SELF | ReadFlags::DELETE_SELF);
                    return Ok(());
                }
                Err(rustix::io::Errno::AGAIN) => ready.clear_ready(),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether the file at the path is another one now; asked once per rotation.
    pub(super) fn rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }
}
