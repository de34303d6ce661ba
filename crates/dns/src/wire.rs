//! A unix socket that carries lines of JSON, with file descriptors beside them.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The most descriptors that one frame carries.
const MAX_DESCRIPTORS: usize = 4;
/// A line that is longer is no frame.
const MAX_LINE: usize = 64 << 20;
/// What is queued before it is sent.
const BATCH: usize = 64 << 10;

/// One end of a connection.
pub(crate) struct Connection {
    stream: UnixStream,
    incoming: Vec<u8>,
    /// How much of `incoming` has no line's end.
    scanned: usize,
    outgoing: Vec<u8>,
    received: VecDeque<OwnedFd>,
}

impl Connection {
    pub(crate) fn new(stream: UnixStream) -> Connection {
        Connection { stream, incoming: Vec::new(), scanned: 0, outgoing: Vec::new(), received: VecDeque::new() }
    }

    /// Sends a frame with descriptors.
    pub(crate) async fn send(&mut self, frame: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        self.flush().await?;
        encode(&mut self.outgoing, frame)?;
        self.flush_with(descriptors).await
    }

    /// Sends a frame, later and with others if there is not much yet.
    pub(crate) async fn queue(&mut self, frame: &impl Serialize) -> io::Result<()> {
        encode(&mut self.outgoing, frame)?;
        if self.outgoing.len() > BATCH { self.flush().await } else { Ok(()) }
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.flush_with(&[]).await
    }

    async fn flush_with(&mut self, mut descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut rest = &self.outgoing[..];
        while !rest.is_empty() {
            let write = || send_some(&self.stream, rest, descriptors);
            rest = &rest[self.stream.async_io(Interest::WRITABLE, write).await?..];
            descriptors = &[];
        }
        // A snapshot may have been large.
        self.outgoing = Vec::new();
        Ok(())
    }

    /// The next frame; `None` when the other side is gone. Its descriptors are there for [`Connection::descriptors`].
    pub(crate) async fn receive<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        loop {
            if let Some(at) = self.incoming[self.scanned..].iter().position(|byte| *byte == b'\n') {
                let end = self.scanned + at;
                let frame = serde_json::from_slice(&self.incoming[..end]);
                self.incoming.drain(..=end);
                self.scanned = 0;
                return frame.map(Some).map_err(io::Error::from);
            }
            self.scanned = self.incoming.len();
            if self.scanned > MAX_LINE {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too long"));
            }
            let (stream, incoming, received) = (&self.stream, &mut self.incoming, &mut self.received);
            let read = || receive_some(stream, incoming, received);
            if stream.async_io(Interest::READABLE, read).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Whether the other side has not closed its end, as it does when its process ends.
    pub(crate) fn is_open(&self) -> bool {
        let mut hangup = [rustix::event::PollFd::new(&self.stream, rustix::event::PollFlags::RDHUP)];
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        rustix::event::poll(&mut hangup, Some(&now)).is_ok_and(|ready| ready == 0)
    }

    /// What came along with frames and was not taken yet.
    pub(crate) fn descriptors(&mut self) -> Vec<OwnedFd> {
        self.received.drain(..).collect()
    }
}

fn encode(to: &mut Vec<u8>, frame: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *to, frame)?;
    to.push(b'\n');
    Ok(())
}

fn send_some(socket: impl AsFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    Ok(rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)?)
}

fn receive_some(socket: impl AsFd, into: &mut Vec<u8>, received: &mut VecDeque<OwnedFd>) -> io::Result<usize> {
    let mut bytes = [0; 16 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let message = rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut control, flags)?;
    into.extend_from_slice(&bytes[..message.bytes]);
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            received.extend(rights);
        }
    }
    Ok(message.bytes)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[tokio::test]
    async fn frames_and_descriptors_arrive() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (mut ours, mut theirs) = (Connection::new(ours), Connection::new(theirs));
        let long = "x".repeat(1 << 20);
        let null = std::fs::File::open("/dev/null").unwrap();
        let sending = async {
            ours.queue(&"first").await.unwrap();
            ours.send(&"second", &[null.as_fd(), null.as_fd()]).await.unwrap();
            ours.queue(&long).await.unwrap();
            ours.queue(&"last").await.unwrap();
            ours.flush().await.unwrap();
            drop(ours);
        };
        let receiving = async {
            let mut next = async || theirs.receive::<String>().await.unwrap();
            assert_eq!(next().await.as_deref(), Some("first"));
            assert_eq!(next().await.as_deref(), Some("second"));
            assert_eq!(theirs.descriptors().len(), 2);
            let mut next = async || theirs.receive::<String>().await.unwrap();
            assert_eq!(next().await.as_deref(), Some(long.as_str()));
            assert_eq!(next().await.as_deref(), Some("last"));
            assert_eq!(next().await, None);
        };
        tokio::join!(sending, receiving);
    }

    #[tokio::test]
    async fn what_is_no_frame_is_an_error() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.try_write(b"nonsense\n").unwrap();
        assert!(Connection::new(theirs).receive::<String>().await.is_err());
    }
}
