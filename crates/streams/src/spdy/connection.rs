//! A connection's two tasks: what comes in goes to its streams, what they write goes out.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use env::Env;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::frame::Decoder;
use super::state::Shared;
use super::stream::{Offer, Stream};

/// How long the other side may take to end its part of the connection.
const GOODBYE: Duration = Duration::from_secs(5);

/// Streams over one connection; dropping it breaks it off.
pub struct Connection {
    shared: Arc<Shared>,
    driver: JoinHandle<()>,
}

impl Connection {
    /// The side that answered an upgrade.
    pub fn server<S: AsyncRead + AsyncWrite + Send + 'static>(env: &Env, io: S) -> Connection {
        Connection::new(env, io, false)
    }

    /// The side that asked for it.
    pub fn client<S: AsyncRead + AsyncWrite + Send + 'static>(env: &Env, io: S) -> Connection {
        Connection::new(env, io, true)
    }

    fn new<S: AsyncRead + AsyncWrite + Send + 'static>(env: &Env, io: S, opener: bool) -> Connection {
        let shared = Arc::new(Shared::new(opener));
        let driven = shared.clone();
        let driver = env.spawn(async move {
            let (from, to) = tokio::io::split(io);
            let reading = async {
                if let Err(error) = read(&driven, from).await {
                    tracing::debug!(%error, "a SPDY connection broke off");
                }
                driven.end();
            };
            let writing = async {
                if write(&driven, to).await.is_err() {
                    driven.end();
                }
            };
            tokio::join!(reading, writing);
        });
        Connection { shared, driver }
    }

    /// The next stream that the other side opens; `None` when the connection is over.
    pub async fn accept(&self) -> Option<Offer> {
        loop {
            match self.shared.offer() {
                Ok(Some((id, headers))) => return Some(Offer::new(id, headers, self.shared.clone())),
                Ok(None) => self.shared.offered.notified().await,
                Err(()) => return None,
            }
        }
    }

    /// Opens a stream; an error when the other side refuses it.
    pub async fn open(&self, headers: &[(&str, &str)]) -> io::Result<Stream> {
        let headers = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), (*value).to_owned())).collect();
        let (id, replied) = self.shared.open(headers);
        let stream = Stream::new(id, self.shared.clone());
        replied.await.map_err(|_| io::Error::from(io::ErrorKind::ConnectionRefused))?;
        Ok(stream)
    }

    /// Ends the connection after everything written is sent, and lets the other side have the last word.
    pub async fn close(mut self) {
        self.shared.close();
        let _ = tokio::time::timeout(GOODBYE, &mut self.driver).await;
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
        self.shared.end();
    }
}

async fn read(shared: &Shared, mut from: impl AsyncRead + Unpin) -> io::Result<()> {
    let (mut decoder, mut buffer) = (Decoder::default(), BytesMut::with_capacity(16 * 1024));
    loop {
        while let Some(frame) = decoder.decode(&mut buffer).map_err(io::Error::other)? {
            shared.take(frame);
            while shared.is_full() {
                shared.room.notified().await;
            }
        }
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

async fn write(shared: &Shared, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    while let Some(bytes) = shared.unsent() {
        if bytes.is_empty() {
            shared.to_send.notified().await;
            continue;
        }
        to.write_all(&bytes).await?;
        to.flush().await?;
    }
    to.shutdown().await
}
