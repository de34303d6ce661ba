//! Opening a connection.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A server that does not answer within this is not there.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The TLS library asks for 4 KiB at a time, whatever has arrived.
const READ_AT_ONCE: usize = 32 << 10;

/// Opens TCP connections, with TLS on top or not.
#[derive(Clone)]
pub(super) struct Connector(Option<(TlsConnector, ServerName<'static>)>);

impl Connector {
    pub(super) fn tls(config: ClientConfig, name: ServerName<'static>) -> Connector {
        Connector(Some((TlsConnector::from(Arc::new(config)), name)))
    }

    pub(super) fn plain() -> Connector {
        Connector(None)
    }

    async fn connect(self, uri: Uri) -> io::Result<Connect> {
        let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if self.0.is_some() { 443 } else { 80 });
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        Ok(match self.0 {
            None => Connect::Plain(TokioIo::new(tcp)),
            Some((tls, name)) => {
                let tcp = BufReader::with_capacity(READ_AT_ONCE, tcp);
                Connect::Tls(Box::new(TokioIo::new(tls.connect(name, tcp).await?)))
            }
        })
    }
}

impl tower::Service<Uri> for Connector {
    type Response = Connect;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Connect>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connect = self.clone().connect(uri);
        Box::pin(async {
            tokio::time::timeout(CONNECT_TIMEOUT, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

/// An open connection.
pub(super) enum Connect {
    Plain(TokioIo<TcpStream>),
    Tls(Box<TokioIo<TlsStream<BufReader<TcpStream>>>>),
}

impl Connection for Connect {
    fn connected(&self) -> Connected {
        match self {
            Connect::Tls(stream) if stream.inner().get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl Read for Connect {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connect::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Connect::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl Write for Connect {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connect::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Connect::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    /// A request's head and body go together.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Connect::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Connect::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Connect::Plain(stream) => stream.is_write_vectored(),
            Connect::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connect::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Connect::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Connect::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Connect::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
