//! Standard streams over one connection, server side: a WebSocket that speaks `v5.channel.k8s.io`, `v4.channel.k8s.io` or
//! `channel.k8s.io`, or SPDY (see [`multiplexed`]).
//!
//! Each binary message of a WebSocket begins with its channel: 0 stdin, 1 stdout, 2 stderr, 3 status, 4 terminal size. In v5 a message
//! on channel 255 names a channel that its sender closes. The status message comes last; what it says is the caller's.
//! Upstream: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/websocket.go`.

pub mod multiplexed;

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

/// With a message that closes a channel.
pub const V5: &str = "v5.channel.k8s.io";
/// Without one.
pub const V4: &str = "v4.channel.k8s.io";
/// The first: a failure is told in words, and success not at all.
pub const V1: &str = "channel.k8s.io";

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// A message is at most this large, either way.
const MAX_MESSAGE: usize = 1 << 20;
/// How much output one message carries.
const CHUNK: usize = 32 * 1024;
/// How long a client may take to answer the end.
const GOODBYE: Duration = Duration::from_secs(5);

/// A request that asked for a WebSocket, and what it is answered.
pub struct Upgrade {
    /// The 101 to send; the rest happens on the connection afterwards.
    pub response: Response<()>,
    /// What both sides speak.
    pub protocol: &'static str,
    on_upgrade: OnUpgrade,
}

/// Why a request is not upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpgradeError {
    /// It did not ask for a WebSocket.
    #[error("unable to upgrade: missing WebSocket upgrade headers")]
    NotAsked,
    /// It speaks none of the supported protocols.
    #[error("unable to upgrade: unable to negotiate protocol")]
    Protocol,
}

impl UpgradeError {
    /// The answer's status.
    pub fn status(self) -> StatusCode {
        match self {
            UpgradeError::NotAsked => StatusCode::BAD_REQUEST,
            UpgradeError::Protocol => StatusCode::FORBIDDEN,
        }
    }
}

/// Whether a request asks for a WebSocket.
pub fn is_upgrade(headers: &HeaderMap) -> bool {
    has_token(headers, header::CONNECTION, "upgrade") && has_token(headers, header::UPGRADE, "websocket")
}

/// Prepares the answer to a request for a WebSocket in the first of the client's protocols that is `supported`.
pub fn upgrade<B>(request: &mut Request<B>, supported: &[&'static str]) -> Result<Upgrade, UpgradeError> {
    let (protocol, response) = handshake(request.headers(), supported)?;
    Ok(Upgrade { response, protocol, on_upgrade: hyper::upgrade::on(request) })
}

/// The chosen protocol and the answer that starts a WebSocket.
pub(crate) fn handshake(
    headers: &HeaderMap,
    supported: &[&'static str],
) -> Result<(&'static str, Response<()>), UpgradeError> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|_| is_upgrade(headers)).ok_or(UpgradeError::NotAsked)?;
    let accept = derive_accept_key(key.as_bytes());
    let protocol = tokens(headers, header::SEC_WEBSOCKET_PROTOCOL)
        .find_map(|wanted| supported.iter().find(|supported| **supported == wanted))
        .copied()
        .ok_or(UpgradeError::Protocol)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let answer = [
        (header::UPGRADE, "websocket"),
        (header::CONNECTION, "Upgrade"),
        (header::SEC_WEBSOCKET_ACCEPT, accept.as_str()),
        (header::SEC_WEBSOCKET_PROTOCOL, protocol),
    ];
    for (name, value) in answer {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    Ok((protocol, response))
}

pub(crate) fn tokens(headers: &HeaderMap, name: header::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: header::HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|other| other.eq_ignore_ascii_case(token))
}

/// A connection on which both sides speak `protocol`.
pub struct Channels<S> {
    socket: WebSocketStream<S>,
    protocol: &'static str,
}

impl Upgrade {
    /// The connection, once the response has been sent.
    pub async fn channels(self) -> io::Result<Channels<TokioIo<hyper::upgrade::Upgraded>>> {
        let upgraded = self.on_upgrade.await.map_err(io::Error::other)?;
        Ok(Channels::new(TokioIo::new(upgraded), self.protocol).await)
    }
}

/// A terminal's size, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// What a command's streams are connected to.
#[derive(Default)]
pub struct Session {
    /// Where input goes; dropped when the client closes it.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// Read to its end.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Read to its end.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Is told the terminal's sizes.
    pub resize: Option<mpsc::UnboundedSender<Size>>,
}

/// What is told of a command that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The whole story, as the newer protocols have it.
    pub document: Vec<u8>,
    /// Its failure in one sentence, as the older ones have it; empty for none.
    pub message: String,
}

/// A client's streams, whichever way they come.
pub enum Streams {
    /// As messages.
    WebSocket(Channels<TokioIo<hyper::upgrade::Upgraded>>),
    /// Each by itself.
    Multiplexed(multiplexed::Streams),
}

impl Streams {
    /// Carries the session's streams until all output is sent, then what `status` resolves to.
    pub async fn run(self, session: Session, status: impl Future<Output = Status>) -> End {
        match self {
            Streams::WebSocket(channels) => channels.run(session, status).await,
            Streams::Multiplexed(streams) => streams.run(session, status).await,
        }
    }
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// All output and the status were sent.
    Completed,
    /// The client went away first.
    Disconnected,
}

/// See [`Channels::receive`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A message.
    Data {
        /// Its channel.
        channel: u8,
        /// What it carries.
        data: Bytes,
    },
    /// The client is gone.
    End,
}

type Sink<S> = SplitSink<WebSocketStream<S>, Message>;
type Source<S> = SplitStream<WebSocketStream<S>>;

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Channels<S> {
    /// The server's side of a connection whose handshake is over.
    pub async fn new(stream: S, protocol: &'static str) -> Channels<S> {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        Channels { socket: WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await, protocol }
    }

    /// Sends `data` on a channel of the caller's own meaning.
    pub async fn send(&mut self, channel: u8, data: &[u8]) -> io::Result<()> {
        self.socket.send(message(channel, data)).await.map_err(io::Error::other)
    }

    /// What the client sends next.
    pub async fn receive(&mut self) -> Incoming {
        loop {
            let data = match self.socket.next().await {
                Some(Ok(Message::Binary(data))) => data,
                Some(Ok(Message::Text(text))) => Bytes::from(text),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Incoming::End,
                Some(Ok(_)) => continue,
            };
            if let Some((channel, _)) = data.split_first() {
                return Incoming::Data { channel: *channel, data: data.slice(1..) };
            }
        }
    }

    /// Ends the connection, and lets the client have the last word.
    pub async fn close(self) {
        let (sink, source) = self.socket.split();
        farewell(sink, source).await;
    }

    /// Carries the session's streams until all output is sent, then what `status` resolves to.
    pub async fn run(self, session: Session, status: impl Future<Output = Status>) -> End {
        let in_words = self.protocol == V1;
        let (mut sink, mut source) = self.socket.split();
        let (messages, mut outgoing) = mpsc::channel::<Message>(4);
        // Tells the client that the streams are there. Upstream: createWebSocketStreams.
        let first = match (&session.stdout, &session.stderr) {
            (Some(_), _) => STDOUT,
            (None, Some(_)) => STDERR,
            (None, None) => STATUS,
        };
        let Session { stdin, stdout, stderr, resize } = session;
        let send = async move {
            let _ = messages.send(message(first, &[])).await;
            tokio::join!(pump(stdout, STDOUT, &messages), pump(stderr, STDERR, &messages));
            let status = status.await;
            let told = if in_words { status.message.into_bytes() } else { status.document };
            if !told.is_empty() {
                let _ = messages.send(message(STATUS, &told)).await;
            }
            drop(messages);
        };
        let write = async {
            while let Some(message) = outgoing.recv().await {
                if sink.send(message).await.is_err() {
                    // Lets the producers run dry: the reader finds out that the client is gone.
                    outgoing.close();
                }
            }
        };
        let ended = {
            let receive = receive(&mut source, stdin, resize, self.protocol);
            tokio::pin!(receive);
            let produce = async { tokio::join!(send, write) };
            tokio::pin!(produce);
            tokio::select! {
                _ = &mut produce => End::Completed,
                () = &mut receive => End::Disconnected,
            }
        };
        // A client that said goodbye first is answered, and one that is gone is not waited for.
        farewell(sink, source).await;
        ended
    }
}

/// Closes the connection and lets the client have the last word, so that nothing sent is lost.
async fn farewell<S: AsyncRead + AsyncWrite + Send + Unpin>(mut sink: Sink<S>, mut source: Source<S>) {
    let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
    let goodbye = async {
        let _ = sink.send(Message::Close(Some(frame))).await;
        while let Some(Ok(_)) = source.next().await {}
    };
    let _ = tokio::time::timeout(GOODBYE, goodbye).await;
}

fn message(channel: u8, data: &[u8]) -> Message {
    let mut bytes = BytesMut::with_capacity(data.len() + 1);
    bytes.extend_from_slice(&[channel]);
    bytes.extend_from_slice(data);
    Message::Binary(bytes.freeze())
}

/// Passes on what a client sends until the command no longer reads.
async fn feed(input: &mut Option<Box<dyn AsyncWrite + Send + Unpin>>, data: &[u8]) {
    // A command that no longer reads is no reason to end: its output may go on.
    if let Some(stream) = input
        && (stream.write_all(data).await.is_err() || stream.flush().await.is_err())
    {
        *input = None;
    }
}

async fn pump(output: Option<Box<dyn AsyncRead + Send + Unpin>>, channel: u8, messages: &mpsc::Sender<Message>) {
    let Some(mut output) = output else { return };
    let mut chunk = vec![0; CHUNK];
    loop {
        match output.read(&mut chunk).await {
            Ok(0) | Err(_) => return,
            Ok(size) => {
                if messages.send(message(channel, &chunk[..size])).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// Takes in what the client sends until it is gone.
async fn receive<S: AsyncRead + AsyncWrite + Send + Unpin>(
    source: &mut Source<S>,
    mut stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    resize: Option<mpsc::UnboundedSender<Size>>,
    protocol: &str,
) {
    while let Some(received) = source.next().await {
        let data = match received {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Close(_)) | Err(WebSocketError::ConnectionClosed) => return,
            Ok(_) => continue,
            Err(_) => return,
        };
        let Some((channel, data)) = data.split_first() else { continue };
        match *channel {
            STDIN if !data.is_empty() => feed(&mut stdin, data).await,
            CLOSE if protocol == V5 && data.first() == Some(&STDIN) => {
                if let Some(mut input) = stdin.take() {
                    let _ = input.shutdown().await;
                }
            }
            RESIZE => {
                if let (Some(resize), Some(size)) = (&resize, size(data)) {
                    let _ = resize.send(size);
                }
            }
            _ => {}
        }
    }
}

/// `{"Width":80,"Height":24}`, in any order.
fn size(text: &[u8]) -> Option<Size> {
    let text = std::str::from_utf8(text).ok()?;
    let number = |name: &str| {
        let rest = &text[text.find(name)? + name.len()..];
        let digits = rest.trim_start_matches(|letter: char| letter == '"' || letter == ':' || letter.is_whitespace());
        let end = digits.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().ok()
    };
    Some(Size { width: number("Width")?, height: number("Height")? })
}

#[cfg(test)]
mod tests;
