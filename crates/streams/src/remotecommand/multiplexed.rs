//! Standard streams as SPDY streams: `v4.channel.k8s.io` and older.
//!
//! The client opens one stream for each, told apart by their `streamtype`; the status goes over the one called `error`. Up to v3 it
//! is a plain sentence, and nothing for success. Upstream: `k8s.io/kubelet/pkg/cri/streaming/remotecommand/httpstream.go`.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use super::{CHUNK, End, Session, Size, Status, feed, size};
use crate::spdy::{Connection, Reader, Stream, Writer};

/// The protocols of the streams, the newest first.
pub const PROTOCOLS: &[&str] = &["v4.channel.k8s.io", "v3.channel.k8s.io", "v2.channel.k8s.io", "channel.k8s.io"];

/// How long a client may take to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// The text of one terminal size is shorter.
const MAX_SIZE: usize = 1024;

/// Which streams a client opens besides the one for the status.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wanted {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    /// With a terminal comes a stream of its sizes.
    pub tty: bool,
}

/// All the streams that a client was to open.
pub struct Streams {
    connection: Connection,
    protocol: &'static str,
    error: Stream,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

impl Streams {
    /// Waits until the client has opened them.
    pub async fn gather(connection: Connection, protocol: &'static str, wanted: Wanted) -> io::Result<Streams> {
        let timed_out = || io::Error::new(io::ErrorKind::TimedOut, "timed out waiting for client to create streams");
        let gathering = tokio::time::timeout(OPENING, gather(&connection, protocol, wanted));
        let [error, stdin, stdout, stderr, resize] = gathering.await.map_err(|_| timed_out())??;
        let error = error.ok_or_else(|| io::Error::other("the client opened no stream for the status"))?;
        Ok(Streams { connection, protocol, error, stdin, stdout, stderr, resize })
    }

    /// Carries the session's streams until all output is sent, then what `status` resolves to.
    pub async fn run(self, session: Session, status: impl Future<Output = Status>) -> End {
        let Streams { connection, protocol, error, stdin, stdout, stderr, resize } = self;
        let Stream { writer: mut error, reader: _error } = error;
        let ended = {
            let produce = async {
                tokio::join!(send(session.stdout, stdout), send(session.stderr, stderr));
                let status = status.await;
                let text = if protocol == PROTOCOLS[0] { status.document } else { status.message.into_bytes() };
                let _ = error.write_all(&text).await;
                let _ = error.shutdown().await;
            };
            let consume = async {
                tokio::join!(receive(stdin, session.stdin), resized(resize, session.resize));
                std::future::pending::<()>().await
            };
            // Further streams are refused; after the last one the client is gone.
            let gone = async { while connection.accept().await.is_some() {} };
            tokio::select! {
                () = produce => End::Completed,
                () = consume => End::Disconnected,
                () = gone => End::Disconnected,
            }
        };
        if ended == End::Completed {
            connection.close().await;
        }
        ended
    }
}

async fn gather(connection: &Connection, protocol: &str, wanted: Wanted) -> io::Result<[Option<Stream>; 5]> {
    let sizes = wanted.tty && PROTOCOLS[..2].contains(&protocol);
    let types = [
        ("error", true),
        ("stdin", wanted.stdin),
        ("stdout", wanted.stdout),
        ("stderr", wanted.stderr),
        ("resize", sizes),
    ];
    let mut streams = [const { None }; 5];
    while types.iter().zip(&streams).any(|((_, wanted), stream)| *wanted && stream.is_none()) {
        let offer = connection.accept().await.ok_or(io::ErrorKind::UnexpectedEof)?;
        let place = types.iter().position(|(name, wanted)| *wanted && *name == offer.header("streamtype"));
        // Whatever nobody asked for is refused.
        if let Some(place) = place {
            streams[place] = offer.accept();
        }
    }
    Ok(streams)
}

/// Output from the command to the client, to its end.
async fn send(output: Option<Box<dyn AsyncRead + Send + Unpin>>, stream: Option<Stream>) {
    let Some(mut output) = output else { return };
    let mut to: Option<Writer> = stream.map(|stream| stream.writer);
    let mut chunk = vec![0; CHUNK];
    while let Ok(size @ 1..) = output.read(&mut chunk).await {
        if let Some(writer) = &mut to
            && writer.write_all(&chunk[..size]).await.is_err()
        {
            return;
        }
    }
}

/// Input from the client to the command, to its end.
async fn receive(stream: Option<Stream>, mut input: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let Some(Stream { mut reader, writer: _writer }) = stream else { return };
    let mut chunk = vec![0; CHUNK];
    while let Ok(size @ 1..) = reader.read(&mut chunk).await {
        feed(&mut input, &chunk[..size]).await;
    }
    if let Some(mut input) = input {
        let _ = input.shutdown().await;
    }
}

/// The terminal's sizes, one JSON object after the other.
async fn resized(stream: Option<Stream>, sizes: Option<mpsc::UnboundedSender<Size>>) {
    let (Some(Stream { mut reader, writer: _writer }), Some(sizes)) = (stream, sizes) else { return };
    while let Some(text) = object(&mut reader).await {
        if let Some(size) = size(&text) {
            let _ = sizes.send(size);
        }
    }
}

async fn object(reader: &mut Reader) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    while text.len() < MAX_SIZE {
        let byte = reader.read_u8().await.ok()?;
        text.push(byte);
        if byte == b'}' {
            return Some(text);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use env::Env;
    use tokio::io::duplex;

    use super::*;

    async fn connected(protocol: &'static str, wanted: Wanted, types: &[&str]) -> (Connection, Streams, Vec<Stream>) {
        let env = Env::system();
        let (ours, theirs) = duplex(1 << 16);
        let client = Connection::client(&env, ours);
        let open = async {
            let mut streams = Vec::new();
            for name in types {
                streams.push(client.open(&[("streamType", name)]).await.unwrap());
            }
            streams
        };
        let (streams, opened) = tokio::join!(Streams::gather(Connection::server(&env, theirs), protocol, wanted), open);
        (client, streams.unwrap(), opened)
    }

    async fn text(stream: &mut Stream) -> String {
        let mut text = String::new();
        stream.reader.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn output_and_status_come_on_their_streams() {
        let check = async |protocol: &'static str, status: Status, expect: &str| {
            let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
            let (client, streams, mut opened) = connected(protocol, wanted, &["error", "stdout", "stderr"]).await;
            let session = Session {
                stdout: Some(Box::new(Cursor::new(vec![b'o'; 100_000]))),
                stderr: Some(Box::new(Cursor::new(b"err".to_vec()))),
                ..Session::default()
            };
            let [error, stdout, stderr] = &mut opened[..] else { panic!() };
            let read = async {
                let all = tokio::join!(text(stdout), text(stderr), text(error));
                client.close().await;
                all
            };
            let (end, (out, err, told)) = tokio::join!(streams.run(session, async { status }), read);
            assert_eq!((end, out.len(), err.as_str(), told.as_str()), (End::Completed, 100_000, "err", expect));
        };
        let failed = Status { document: b"{}".to_vec(), message: "exit 1".to_owned() };
        check("v4.channel.k8s.io", failed.clone(), "{}").await;
        check("v3.channel.k8s.io", failed, "exit 1").await;
        check("channel.k8s.io", Status::default(), "").await;
    }

    #[tokio::test]
    async fn input_and_sizes_reach_the_command() {
        let wanted = Wanted { stdin: true, tty: true, ..Wanted::default() };
        let (client, streams, mut opened) = connected(PROTOCOLS[0], wanted, &["error", "stdin", "resize"]).await;
        let (input, mut command) = duplex(64);
        let (sizes, mut resizes) = mpsc::unbounded_channel();
        let (finished, finish) = tokio::sync::oneshot::channel::<Status>();
        let session = Session { stdin: Some(Box::new(input)), resize: Some(sizes), ..Session::default() };
        let talk = async {
            opened[2].writer.write_all(b"{\"Width\":101,\"Height\":33}\n{\"Width\":1,\"Height\":2}").await.unwrap();
            opened[1].writer.write_all(b"hello").await.unwrap();
            opened[1].writer.shutdown().await.unwrap();
            let told = text(&mut opened[0]).await;
            client.close().await;
            told
        };
        let run_command = async {
            let mut got = String::new();
            command.read_to_string(&mut got).await.unwrap();
            let got_sizes = [resizes.recv().await.unwrap(), resizes.recv().await.unwrap()];
            finished.send(Status { document: b"done".to_vec(), message: String::new() }).unwrap();
            (got, got_sizes)
        };
        let status = async { finish.await.unwrap() };
        let (end, told, (got, sizes)) = tokio::join!(streams.run(session, status), talk, run_command);
        assert_eq!((end, told.as_str(), got.as_str()), (End::Completed, "done", "hello"));
        assert_eq!(sizes, [Size { width: 101, height: 33 }, Size { width: 1, height: 2 }]);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_the_session() {
        let (client, streams, opened) = connected(PROTOCOLS[0], Wanted::default(), &["error"]).await;
        drop((client, opened));
        assert_eq!(streams.run(Session::default(), std::future::pending()).await, End::Disconnected);
    }
}
