//! A byte stream inside a WebSocket: what a client sends as messages goes on to another connection as it is, and back.
//!
//! So SPDY gets through proxies that know WebSockets only. Upstream: apimachinery pkg/util/proxy, client-go tools/portforward
//! tunneling_connection.go.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::remotecommand::{self, UpgradeError};

/// SPDY inside, with the streams of a port-forward.
pub const PORT_FORWARD: &str = "SPDY/3.1+portforward.k8s.io";

const CHUNK: usize = 32 * 1024;

/// Whether a request asks for a tunnel.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    let mut protocols = remotecommand::tokens(headers, http::header::SEC_WEBSOCKET_PROTOCOL);
    remotecommand::is_upgrade(headers) && protocols.any(|protocol| protocol == PORT_FORWARD)
}

/// The answer that starts the tunnel.
pub fn response(headers: &HeaderMap) -> Result<Response<()>, UpgradeError> {
    remotecommand::handshake(headers, &[PORT_FORWARD]).map(|(_, response)| response)
}

/// Joins the client's WebSocket and the other connection until either ends.
pub async fn join<C, S>(client: C, server: S)
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite,
{
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(client, Role::Server, None).await.split();
    let (mut from, mut to) = tokio::io::split(server);
    let inwards = async {
        while let Some(Ok(message)) = source.next().await {
            let data = match message {
                Message::Binary(data) => data,
                Message::Text(text) => Bytes::from(text),
                Message::Close(_) => break,
                _ => continue,
            };
            if to.write_all(&data).await.is_err() || to.flush().await.is_err() {
                break;
            }
        }
        let _ = to.shutdown().await;
    };
    let outwards = async {
        let mut chunk = vec![0; CHUNK];
        while let Ok(size @ 1..) = from.read(&mut chunk).await {
            if sink.send(Message::Binary(Bytes::copy_from_slice(&chunk[..size]))).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    tokio::pin!(inwards, outwards);
    // When the client is gone nobody hears the rest; when the server is, the client may still say goodbye.
    tokio::select! {
        () = &mut inwards => {}
        () = &mut outwards => drop(tokio::time::timeout(std::time::Duration::from_secs(5), inwards).await),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn bytes_go_through_both_ways() {
        let (ours, theirs) = duplex(1 << 12);
        let (inside, mut server) = duplex(1 << 12);
        let talk = async {
            let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
            client.send(Message::Binary(Bytes::from_static(b"hel"))).await.unwrap();
            client.send(Message::Binary(Bytes::from_static(b"lo"))).await.unwrap();
            let mut got = Vec::new();
            while let Some(Ok(Message::Binary(data))) = client.next().await {
                got.extend_from_slice(&data);
            }
            got
        };
        let serve = async {
            let mut got = [0; 5];
            server.read_exact(&mut got).await.unwrap();
            server.write_all(&vec![7; 100_000]).await.unwrap();
            drop(server);
            got
        };
        let (got, served, ()) = tokio::join!(talk, serve, join(theirs, inside));
        assert_eq!((got.len(), &served), (100_000, b"hello"));
    }
}
