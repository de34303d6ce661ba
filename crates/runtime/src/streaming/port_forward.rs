//! Ports of a pod over one connection.
//!
//! Over a WebSocket: for each port a channel for data and one for errors, in the order they were asked for; each begins with the
//! port's number in two bytes, the lower first. Over SPDY: the client opens two streams for each connection it wants, one for
//! data and one for errors. Upstream: `k8s.io/kubelet/pkg/cri/streaming/portforward`.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use streams::remotecommand::{Channels, Incoming};
use streams::spdy::{Connection, Offer, Stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::error::{Context, Error, blocking};
use crate::state::Daemon;

/// How long a connection within the pod may take.
const CONNECT: Duration = Duration::from_secs(30);

/// Serves the connection until the client or the sandbox is gone.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    daemon: &Arc<Daemon>,
    sandbox: &str,
    ports: &[i32],
    mut channels: Channels<S>,
) -> Result<(), Error> {
    let ports: Vec<u16> = ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
    let mut gone = std::pin::pin!(gone(daemon, sandbox));
    let (data, mut outgoing) = mpsc::channel::<(u8, Vec<u8>)>(16);
    let mut inputs: Vec<Option<OwnedWriteHalf>> = Vec::new();
    let mut pumps = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let (data_channel, error_channel) = (index as u8 * 2, index as u8 * 2 + 1);
        for channel in [data_channel, error_channel] {
            channels.send(channel, &port.to_le_bytes()).await.context(|| "forward a port".to_owned())?;
        }
        match connect(daemon, sandbox, *port).await {
            Ok(stream) => {
                let (mut read, write) = stream.into_split();
                inputs.push(Some(write));
                let data = data.clone();
                pumps.push(Pump(daemon.env.spawn(async move {
                    let mut chunk = vec![0; 32 * 1024];
                    while let Ok(size @ 1..) = read.read(&mut chunk).await {
                        if data.send((data_channel, chunk[..size].to_vec())).await.is_err() {
                            return;
                        }
                    }
                })));
            }
            Err(error) => {
                inputs.push(None);
                let text = format!("error forwarding port {port} to pod {sandbox}: {}", error.report());
                channels.send(error_channel, text.as_bytes()).await.context(|| "forward a port".to_owned())?;
            }
        }
    }
    drop(data);
    loop {
        tokio::select! {
            () = &mut gone => break,
            Some((channel, data)) = outgoing.recv() => {
                if channels.send(channel, &data).await.is_err() {
                    break;
                }
            }
            received = channels.receive() => match received {
                Incoming::Data { channel, data } if channel % 2 == 0 => {
                    let input = inputs.get_mut(usize::from(channel) / 2);
                    if let Some(slot) = input
                        && let Some(stream) = slot
                        && stream.write_all(&data).await.is_err()
                    {
                        *slot = None;
                    }
                }
                Incoming::Data { .. } => {}
                Incoming::End => break,
            }
        }
    }
    channels.close().await;
    Ok(())
}

/// The two streams of one connection to a port; the client opens them in any order.
#[derive(Default)]
struct Pair {
    data: Option<Stream>,
    error: Option<Stream>,
}

/// Waits until the sandbox is stopped: nothing that is sent to it then would arrive.
async fn gone(daemon: &Daemon, sandbox: &str) {
    if let Ok(sandbox) = daemon.sandbox(sandbox) {
        let _ = sandbox.ready.subscribe().wait_for(|ready| !ready).await;
    }
}

/// Serves the streams that the client opens until it or the sandbox is gone.
pub(super) async fn serve_streams(daemon: &Arc<Daemon>, sandbox: &str, connection: Connection) {
    let mut pairs: BTreeMap<String, Pair> = BTreeMap::new();
    let mut forwards = FuturesUnordered::new();
    let mut gone = std::pin::pin!(gone(daemon, sandbox));
    loop {
        let offer = tokio::select! {
            () = &mut gone => break,
            Some(()) = forwards.next() => continue,
            offer = connection.accept() => offer,
        };
        let Some(offer) = offer else { break };
        let Some((port, is_error)) = purpose(&offer) else { continue };
        let request = request(&offer, is_error);
        let pair = pairs.entry(request.clone()).or_default();
        let place = if is_error { &mut pair.error } else { &mut pair.data };
        if place.is_some() {
            continue;
        }
        *place = offer.accept();
        if pair.data.is_some()
            && pair.error.is_some()
            && let Some(Pair { data: Some(data), error: Some(error) }) = pairs.remove(&request)
        {
            forwards.push(forward(daemon, sandbox, port, data, error));
        }
    }
}

/// The port, and whether the stream is for errors; `None` for streams that are refused.
fn purpose(offer: &Offer) -> Option<(u16, bool)> {
    let port = offer.header("port").parse().ok().filter(|port| *port != 0)?;
    match offer.header("streamtype") {
        "error" => Some((port, true)),
        "data" => Some((port, false)),
        _ => None,
    }
}

/// What joins two streams. Clients that don't say open the one for errors first and the other right after it.
fn request(offer: &Offer, is_error: bool) -> String {
    match offer.header("requestid") {
        "" if is_error => offer.id().to_string(),
        "" => offer.id().saturating_sub(2).to_string(),
        request => request.to_owned(),
    }
}

async fn forward(daemon: &Arc<Daemon>, sandbox: &str, port: u16, data: Stream, error: Stream) {
    let Stream { writer: mut told, reader: _reader } = error;
    match connect(daemon, sandbox, port).await {
        Ok(mut stream) => {
            let mut data = tokio::io::join(data.reader, data.writer);
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut data).await;
        }
        Err(error) => {
            let text = format!("error forwarding port {port} to pod {sandbox}, uid : {}", error.report());
            let _ = told.write_all(text.as_bytes()).await;
            data.writer.reset();
        }
    }
}

struct Pump(tokio::task::JoinHandle<()>);

impl Drop for Pump {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection to the port on the pod's own loopback.
async fn connect(daemon: &Arc<Daemon>, sandbox: &str, port: u16) -> Result<TcpStream, Error> {
    let sandbox = daemon.sandbox(sandbox)?;
    let failed = move || format!("failed to connect to localhost:{port} inside the pod");
    let dial = move || -> io::Result<std::net::TcpStream> {
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        // Both families are "localhost"; the first one's error is the one people expect.
        std::net::TcpStream::connect_timeout(&v4, CONNECT)
            .or_else(|error| std::net::TcpStream::connect_timeout(&v6, CONNECT).map_err(|_| error))
    };
    let namespace = (!sandbox.is_host_network()).then(|| daemon.sandbox_run(&sandbox.id).join("ns/net"));
    let stream = blocking(move || match namespace {
        // A socket stays in the namespace in which it was made.
        Some(namespace) => linux::namespace::enter(&namespace, dial).context(failed),
        None => dial().context(failed),
    })
    .await?;
    stream.set_nonblocking(true).context(failed)?;
    TcpStream::from_std(stream).context(failed)
}
