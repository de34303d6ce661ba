//! Descriptors that a runtime waits for.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers `fd` with the current runtime, to wait until it can be read.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open file until it is dropped, and `AsyncFd` deregisters it before that.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
