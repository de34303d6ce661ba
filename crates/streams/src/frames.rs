//! WebSocket messages on their way from a server, each written by itself.
//!
//! Clients exist that ask the operating system whether more has come while the rest of what they were sent lies decrypted in their
//! memory (PyPI's `kubernetes`). They get along as long as no TLS record holds parts of two messages: so what is passed on is
//! cut where one ends and the next begins.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const CHUNK: usize = 32 * 1024;

/// Passes on what a server sends, message by message, to its end.
pub async fn pass_on(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let (mut buffer, mut left) = (BytesMut::with_capacity(CHUNK), 0);
    loop {
        while !buffer.is_empty() {
            if left == 0 {
                let Some(length) = length(&buffer) else { break };
                left = length;
            }
            let size = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            to.write_all(&buffer[..size]).await?;
            buffer.advance(size);
            left -= size as u64;
        }
        to.flush().await?;
        buffer.reserve(CHUNK);
        if from.read_buf(&mut buffer).await? == 0 {
            to.write_all(&buffer).await?;
            return to.shutdown().await;
        }
    }
}

/// Joins a client's connection and a server's, both of which speak WebSocket, until both have ended.
pub async fn join<C, S>(client: C, server: S) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite,
    S: AsyncRead + AsyncWrite,
{
    let (mut from_client, to_client) = tokio::io::split(client);
    let (from_server, mut to_server) = tokio::io::split(server);
    let inwards = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    tokio::try_join!(inwards, pass_on(from_server, to_client)).map(drop)
}

/// How long the message that begins here is, with its header; `None` until the header is there. RFC 6455, section 5.2.
fn length(bytes: &[u8]) -> Option<u64> {
    let second = *bytes.get(1)?;
    let mask = if second & 0x80 != 0 { 4 } else { 0 };
    let (header, payload) = match second & 0x7f {
        126 => (4, u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)),
        short => (2, u64::from(short)),
    };
    Some(payload.saturating_add(header + mask))
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use super::*;

    /// Keeps what it is given apart by writes.
    struct Writes<'a>(&'a mut Vec<Vec<u8>>);

    impl AsyncWrite for Writes<'_> {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
            self.0.push(data.to_vec());
            Poll::Ready(Ok(data.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn messages_are_written_apart() {
        let check = async |reads: &[&[u8]], expect: &[&[u8]]| {
            let mut from = one_after_the_other(reads);
            let mut writes = Vec::new();
            pass_on(&mut from, Writes(&mut writes)).await.unwrap();
            assert_eq!(writes, expect, "{reads:?}");
        };
        let (short, empty) = (&[0x82, 2, 1, b'a'][..], &[0x8a, 0][..]);
        let mut long = vec![0x82, 126, 1, 0];
        long.extend([7; 256]);
        let joined = |parts: &[&[u8]]| parts.concat();
        check(&[&joined(&[short, short, empty, short])], &[short, short, empty, short]).await;
        check(&[&joined(&[&long, short])], &[&long, short]).await;
        // A header that comes in two parts is written as one, what follows as it comes.
        check(&[&long[..3], &long[3..20], &joined(&[&long[20..], short])], &[&long[..20], &long[20..], short]).await;
        check(&[&[0x82]], &[&[0x82]]).await;
        assert_eq!(length(&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0]), Some((1 << 32) + 10));
        assert_eq!(length(&[0x82, 0x83]), Some(9));
    }

    /// One read after the other.
    fn one_after_the_other(reads: &[&[u8]]) -> impl AsyncRead + Unpin + use<> {
        Reads(reads.iter().map(|read| read.to_vec()).collect::<Vec<_>>().into_iter())
    }

    struct Reads(std::vec::IntoIter<Vec<u8>>);

    impl AsyncRead for Reads {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            if let Some(read) = self.0.next() {
                buffer.put_slice(&read);
            }
            Poll::Ready(Ok(()))
        }
    }
}
