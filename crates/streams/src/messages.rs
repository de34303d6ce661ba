//! What somebody reads, as messages of a WebSocket: for clients that only listen, such as those of a log.
//!
//! Upstream: k8s.io/apiserver/pkg/util/httpstream/wsstream Reader.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, Stream, StreamExt};
use http::{HeaderMap, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::remotecommand::{self, UpgradeError};

/// Messages carry the bytes as they are.
pub const BINARY: &str = "binary.k8s.io";

/// How long a client may take to answer the end.
const GOODBYE: Duration = Duration::from_secs(5);

/// The answer that starts the messages.
pub fn response(headers: &HeaderMap) -> Result<Response<()>, UpgradeError> {
    remotecommand::handshake(headers, &[BINARY]).map(|(_, response)| response)
}

/// Tells all of `body`, until its end or until the client is gone.
pub async fn tell<C>(client: C, body: impl Stream<Item = io::Result<Bytes>>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, mut source) = WebSocketStream::from_raw_socket(client, Role::Server, None).await.split();
    let tell = async {
        let mut body = std::pin::pin!(body);
        while let Some(Ok(data)) = body.next().await {
            if !data.is_empty() && sink.send(Message::Binary(data)).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    let listen = async { while let Some(Ok(_)) = source.next().await {} };
    tokio::pin!(tell, listen);
    tokio::select! {
        () = &mut listen => {}
        () = &mut tell => drop(tokio::time::timeout(GOODBYE, listen).await),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn what_is_read_is_told() {
        let (ours, theirs) = duplex(1 << 12);
        let lines = ["one\n", "", "two\n"].map(|line| Ok(Bytes::from_static(line.as_bytes())));
        let listen = async {
            let mut client = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
            let mut told = Vec::new();
            while let Some(Ok(message)) = client.next().await {
                match message {
                    Message::Binary(data) => told.push(data),
                    other => assert!(other.is_close(), "{other:?}"),
                }
            }
            told
        };
        let (told, ()) = tokio::join!(listen, tell(theirs, futures_util::stream::iter(lines)));
        assert_eq!(told, ["one\n", "two\n"]);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_it() {
        let (ours, theirs) = duplex(64);
        drop(ours);
        tell(theirs, futures_util::stream::pending()).await;
    }
}
