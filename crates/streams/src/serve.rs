//! HTTP on a listener.

use std::error::Error;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use futures_util::FutureExt;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

/// How a listener is served. The defaults suit a cluster's API.
#[derive(Clone)]
pub struct Server {
    pub env: Env,
    /// `None` serves plain HTTP.
    pub tls: Option<Arc<ServerConfig>>,
    /// Connections beyond this many wait to be accepted.
    pub max_connections: usize,
    /// A handshake that takes longer ends the connection.
    pub handshake_timeout: Duration,
    /// How long requests under way may go on after the shutdown began.
    pub grace: Duration,
}

/// The other end of a request's connection; each request carries an `Arc<Peer>` among its extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    pub remote: SocketAddr,
    pub local: SocketAddr,
    /// The chain the client showed and whose key it owns; trust in it is not established yet.
    pub certificates: Vec<CertificateDer<'static>>,
}

/// An HTTP/1.1 connection may be idle, or a request's head incomplete, for this long.
const IDLE: Duration = Duration::from_secs(90);

type BoxError = Box<dyn Error + Send + Sync>;

impl Server {
    /// Without TLS.
    pub fn plain(env: Env) -> Server {
        Server {
            env,
            tls: None,
            max_connections: 8192,
            handshake_timeout: Duration::from_secs(10),
            grace: Duration::from_secs(10),
        }
    }

    pub fn tls(env: Env, config: Arc<ServerConfig>) -> Server {
        Server { tls: Some(config), ..Server::plain(env) }
    }

    /// Answers requests with `service` until `shutdown`: then accepts no more, lets requests under way end within the grace
    /// period, and drops what is left. A connection that was upgraded belongs to whoever took the upgrade.
    pub async fn run<S, F, B>(
        self,
        listener: TcpListener,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> io::Result<()>
    where
        S: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let local = listener.local_addr()?;
        let graceful = GracefulShutdown::new();
        let (kill, killed) = watch::channel(());
        let slots = Arc::new(Semaphore::new(self.max_connections));
        let mut shutdown = pin!(shutdown);
        loop {
            let accepted = async {
                let slot = slots.clone().acquire_owned().await;
                (slot, listener.accept().await)
            };
            let (slot, (stream, remote)) = tokio::select! {
                () = &mut shutdown => break,
                (slot, accepted) = accepted => match accepted {
                    Ok(accepted) => (slot, accepted),
                    Err(error) => {
                        // Mostly a lack of descriptors: give connections time to end.
                        tracing::warn!(%local, %error, "cannot accept a connection");
                        self.env.sleep(Duration::from_millis(100)).await;
                        continue;
                    }
                },
            };
            let connection = self.clone().connection(stream, remote, local, service.clone(), graceful.watcher());
            let mut killed = killed.clone();
            self.env.spawn(async move {
                let _slot = slot;
                tokio::select! {
                    () = connection => {}
                    _ = killed.changed() => {}
                }
            });
        }
        drop(listener);
        if self.env.timeout(self.grace, graceful.shutdown()).await.is_none() {
            tracing::debug!(%local, "requests under way were cut off");
        }
        drop(kill);
        Ok(())
    }

    async fn connection<S, F, B>(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        local: SocketAddr,
        service: S,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // Answers are small and awaited; a failure here costs latency only.
        let _ = stream.set_nodelay(true);
        let peer = |certificates| Arc::new(Peer { remote, local, certificates });
        let Some(config) = &self.tls else {
            return self.http(stream, peer(Vec::new()), service, watcher).await;
        };
        let handshake = TlsAcceptor::from(config.clone()).accept(stream);
        match self.env.timeout(self.handshake_timeout, handshake).await {
            Some(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let peer = peer(chain.iter().map(|certificate| certificate.clone().into_owned()).collect());
                self.http(stream, peer, service, watcher).await;
            }
            Some(Err(error)) => tracing::debug!(%remote, %error, "TLS handshake failed"),
            None => tracing::debug!(%remote, "TLS handshake timed out"),
        }
    }

    async fn http<S, F, B>(
        &self,
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        peer: Arc<Peer>,
        service: S,
        watcher: hyper_util::server::graceful::Watcher,
    ) where
        S: Fn(Request<Incoming>) -> F + Send + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(250)
            .keep_alive_interval(Duration::from_secs(30))
            .max_header_list_size(64 * 1024);
        let remote = peer.remote;
        let service = hyper::service::service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer.clone());
            // An async block would keep room for the future twice.
            service(request).map(Ok::<_, std::convert::Infallible>)
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned();
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%remote, %error, "connection ended");
        }
    }
}

#[cfg(test)]
mod tests;
