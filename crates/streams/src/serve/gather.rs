//! Bytes that are written one soon after the other go out together: one record, one system call.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker, ready};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As much goes out at once, and more isn't copied.
const ENOUGH: usize = 16 * 1024;

/// A connection of many requests. A flush lets the tasks that are ready now go first: what they write goes out with it. It only
/// suits a protocol whose every write is followed by a flush.
pub(super) struct Gather<IO> {
    io: IO,
    /// `None` where everything goes out as it is written.
    turn: Option<Arc<Turn>>,
    gathered: Vec<u8>,
    /// What of it is out.
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Idle,
    /// Others go first.
    Waiting,
    /// It is our turn.
    Due,
}

/// Tells when the others had theirs.
#[derive(Default)]
struct Turn {
    came: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Turn {
    fn wake(self: Arc<Turn>) {
        self.came.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl Turn {
    /// Waits until all that is ready has run.
    fn begin(self: &Arc<Turn>, task: &Waker) {
        self.came.store(false, Ordering::Release);
        self.task.register(task);
        let waker = Waker::from(self.clone());
        // Its waker is all that is wanted of it: woken by anything else, this connection goes on waiting.
        let _ = pin!(tokio::task::yield_now()).poll(&mut Context::from_waker(&waker));
    }

    fn has_come(&self, task: &Waker) -> bool {
        self.task.register(task);
        self.came.load(Ordering::Acquire)
    }
}

impl<IO: AsyncWrite + Unpin> Gather<IO> {
    pub(super) fn new(io: IO, gathers: bool) -> Gather<IO> {
        Gather { io, turn: gathers.then(Arc::default), gathered: Vec::new(), sent: 0, state: State::Idle }
    }

    /// Whether what is gathered goes out now.
    fn is_due(&mut self, turn: &Arc<Turn>, task: &Waker) -> bool {
        if self.gathered.len() >= ENOUGH {
            self.state = State::Due;
        }
        if self.state == State::Idle {
            turn.begin(task);
            self.state = State::Waiting;
        }
        if self.state == State::Waiting && turn.has_come(task) {
            self.state = State::Due;
        }
        self.state == State::Due
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.gathered.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                n => self.sent += n,
            }
        }
        // Most connections are idle mostly.
        (self.gathered, self.sent, self.state) = (Vec::new(), 0, State::Idle);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gather<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length: usize = slices.iter().map(|slice| slice.len()).sum();
        if this.turn.is_none() || length >= ENOUGH || this.gathered.len() + length > 2 * ENOUGH {
            ready!(this.poll_send(cx))?;
        }
        if this.turn.is_none() || length >= ENOUGH {
            return Pin::new(&mut this.io).poll_write_vectored(cx, slices);
        }
        this.gathered.reserve(length);
        slices.iter().for_each(|slice| this.gathered.extend_from_slice(slice));
        Poll::Ready(Ok(length))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.gathered.is_empty()
            && let Some(turn) = this.turn.clone()
            && !this.is_due(&turn, cx.waker())
        {
            return Poll::Pending;
        }
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gather<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Counts what is written to it.
    #[derive(Default)]
    struct Counted {
        writes: usize,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Counted {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.writes += 1;
            self.bytes.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_comes_together_goes_out_together() {
        let gather = Arc::new(parking_lot::Mutex::new(Gather::new(Counted::default(), true)));
        // Each writes and flushes, before any of them is heard: a flush lets the others write.
        let writers = (0..5u8).map(|n| {
            let gather = gather.clone();
            std::future::poll_fn(move |cx| Pin::new(&mut *gather.lock()).poll_write(cx, &[n]))
        });
        let flush = std::future::poll_fn(|cx| Pin::new(&mut *gather.lock()).poll_flush(cx));
        gather.lock().gathered.push(b'x');
        let (flushed, written) = tokio::join!(flush, join_all(writers));
        assert!(flushed.is_ok() && written.iter().all(Result::is_ok));
        let gather = gather.lock();
        assert_eq!((gather.io.writes, gather.io.bytes.as_slice()), (1, &[b'x', 0, 1, 2, 3, 4][..]));
        assert_eq!(gather.gathered.capacity(), 0);
    }

    #[tokio::test]
    async fn nothing_is_lost_or_kept() {
        for gathers in [true, false] {
            let (near, mut far) = tokio::io::duplex(1000);
            let mut gather = Gather::new(near, gathers);
            let sent: Vec<u8> = (0..200_000u32).map(|n| n as u8).collect();
            let sending = async {
                let mut rest = sent.as_slice();
                for length in [1, 10, ENOUGH - 1, ENOUGH, 3, ENOUGH - 4, 100_000, 7].into_iter().cycle() {
                    let (now, later) = rest.split_at(length.min(rest.len()));
                    gather.write_all(now).await?;
                    if length < 100 {
                        gather.flush().await?;
                    }
                    rest = later;
                    if rest.is_empty() {
                        return gather.shutdown().await;
                    }
                }
                Ok(())
            };
            let mut received = Vec::new();
            let (ended, read) = tokio::join!(sending, far.read_to_end(&mut received));
            assert!(ended.is_ok() && read.is_ok() && received == sent);
        }
    }
}
