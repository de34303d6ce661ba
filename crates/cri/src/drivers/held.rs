//! A connection whose end can be waited for, without reading from it.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// What a connection drops with itself.
pub(super) type Holder = oneshot::Sender<Infallible>;

/// What is given to a connection, and its end.
pub(super) fn pair() -> (Option<Holder>, impl Future<Output = ()> + Send + use<>) {
    let (holder, ended) = oneshot::channel::<Infallible>();
    let ended = async move {
        // Nothing is ever sent: it ends with the holder.
        let Err(_) = ended.await;
    };
    (Some(holder), ended)
}

pub(super) struct Held {
    stream: UnixStream,
    _holder: Option<Holder>,
}

impl Held {
    pub(super) fn new(stream: UnixStream, holder: Option<Holder>) -> Held {
        Held { stream, _holder: holder }
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(ctx, into)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, ctx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(ctx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(ctx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, ctx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(ctx)
    }
}
