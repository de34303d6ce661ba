//! A pipe's end or a terminal as an asynchronous stream.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// Reads and writes a descriptor without blocking; the end of a terminal's other side is the end of the stream.
pub(crate) struct Descriptor(AsyncFd<OwnedFd>);

impl Descriptor {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(descriptor: OwnedFd) -> io::Result<Descriptor> {
        shim::wire::set_nonblocking(&descriptor)?;
        Ok(Descriptor(linux::ready::register(descriptor)?))
    }

    /// Sets a terminal's size, in rows and columns.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> io::Result<()> {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.0.get_ref(), size)?)
    }

    /// What is there at this moment, without waiting for the reactor to notice; nothing is the end.
    fn read_now(&self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        match rustix::io::read(self.0.get_ref(), buffer.initialize_unfilled()) {
            Ok(size) => buffer.advance(size),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::IO) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A second handle to the same stream.
    pub(crate) fn duplicate(&self) -> io::Result<Descriptor> {
        use std::os::fd::AsFd;
        Descriptor::new(self.0.get_ref().as_fd().try_clone_to_owned()?)
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsyncRead for Descriptor {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read = guard.try_io(|inner| Ok(rustix::io::read(inner.get_ref(), buffer.initialize_unfilled())?));
            match read {
                Ok(Ok(size)) => {
                    buffer.advance(size);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Descriptor {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|inner| Ok(rustix::io::write(inner.get_ref(), data)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Reads until the stream's end, or until the process that writes to it is over and nothing more is there: what it left
/// running in the background may hold the stream open for ever.
pub(crate) struct UntilOver {
    stream: Descriptor,
    over: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl UntilOver {
    /// `over` turns into something when the process ends.
    pub(crate) fn new(stream: Descriptor, mut over: watch::Receiver<Option<i32>>) -> UntilOver {
        let over = async move {
            let _ = over.wait_for(Option::is_some).await;
        };
        UntilOver { stream, over: Some(Box::pin(over)) }
    }
}

impl AsyncRead for UntilOver {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(over) = &mut self.over {
            if over.as_mut().poll(cx).is_pending() {
                return Pin::new(&mut self.stream).poll_read(cx, buffer);
            }
            self.over = None;
        }
        // Everything the process wrote is there by now.
        Poll::Ready(self.stream.read_now(buffer))
    }
}
