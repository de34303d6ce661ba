//! Ports of a pod over one WebSocket: for each port a channel for data and one for errors, in the order they were asked for.
//!
//! Each channel begins with the port's number in two bytes, the lower first. Upstream:
//! `k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use streams::remotecommand::{Channels, Incoming};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;

use crate::error::{Context, Error, blocking};
use crate::state::Daemon;

/// How long a connection within the pod may take.
const CONNECT: Duration = Duration::from_secs(30);

/// Serves the connection until the client is gone.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Send + Unpin>(
    daemon: &Arc<Daemon>,
    sandbox: &str,
    ports: &[i32],
    mut channels: Channels<S>,
) -> Result<(), Error> {
    let ports: Vec<u16> = ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
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
    Ok(())
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
