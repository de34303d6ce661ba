//! One stream of a connection, and its two ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{CANCEL, REFUSED_STREAM};
use super::state::{Headers, Shared};

/// A stream that the other side opened; refused unless it is accepted.
pub struct Offer {
    id: u32,
    headers: Headers,
    shared: Option<Arc<Shared>>,
}

/// A stream open both ways.
pub struct Stream {
    /// Where bytes come from.
    pub reader: Reader,
    /// Where bytes go to.
    pub writer: Writer,
}

/// What the other side sends, to its end; dropping it throws the rest away.
pub struct Reader {
    id: u32,
    shared: Arc<Shared>,
}

/// What we send; dropping it is its end.
pub struct Writer {
    id: u32,
    shared: Arc<Shared>,
}

impl Offer {
    pub(super) fn new(id: u32, headers: Headers, shared: Arc<Shared>) -> Offer {
        Offer { id, headers, shared: Some(shared) }
    }

    /// The stream's number.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What the stream was opened with; empty when there is none of that name.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    /// Tells the other side that the stream is wanted.
    pub fn accept(mut self) -> Option<Stream> {
        let shared = self.shared.take()?;
        shared.accept(self.id);
        Some(Stream::new(self.id, shared))
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.take() {
            shared.reset(self.id, REFUSED_STREAM);
            shared.drop_end(self.id, true);
            shared.drop_end(self.id, false);
        }
    }
}

impl Stream {
    pub(super) fn new(id: u32, shared: Arc<Shared>) -> Stream {
        Stream { reader: Reader { id, shared: shared.clone() }, writer: Writer { id, shared } }
    }
}

impl Writer {
    /// Ends the stream both ways and at once.
    pub fn reset(self) {
        self.shared.reset(self.id, CANCEL);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.drop_end(self.id, true);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.finish(self.id);
        self.shared.drop_end(self.id, false);
    }
}

impl AsyncRead for Reader {
    fn poll_read(self: Pin<&mut Self>, ctx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(data) = ready!(self.shared.poll_read(self.id, buffer.remaining(), ctx)) {
            buffer.put_slice(&data);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, ctx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.poll_write(self.id, data, ctx)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shared.finish(self.id);
        Poll::Ready(Ok(()))
    }
}
