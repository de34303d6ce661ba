//! File descriptors that a tokio runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

/// Lets the current tokio runtime tell when `descriptor` can be read or written; it should not block.
pub fn register(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an owned descriptor is open, is always the same, and stays so as long as it is owned.
    Ok(unsafe { AsyncFd::register(descriptor) }?)
}
