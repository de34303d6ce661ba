//! `Tls`: the transport to a server elsewhere, over HTTP/2 or 1.1.

mod config;
mod connect;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use env::Env;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use http::Uri;
use http::header::{AUTHORIZATION, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

pub use config::{TlsConfig, TlsError, Token};

use crate::{Body, Request, Response, Transport, TransportError};
use connect::Connector;

/// Talks to the server that a [`TlsConfig`] names; connections are kept and shared.
pub struct Tls {
    env: Env,
    connection: RwLock<Arc<Connection>>,
}

struct Connection {
    /// `https://host:port` and a path prefix, without a slash at the end.
    server: String,
    /// The same in parts.
    scheme: Scheme,
    authority: Authority,
    prefix: String,
    http: legacy::Client<Connector, Full<Bytes>>,
    bearer: Option<Bearer>,
}

struct Bearer {
    token: Token,
    /// A token read from a file, and when.
    read: Mutex<Option<(HeaderValue, Instant)>>,
}

/// How old a token file's content may be.
const TOKEN_AGE: Duration = Duration::from_secs(60);

impl Tls {
    /// Connects on first use.
    pub fn new(env: Env, config: &TlsConfig) -> Result<Tls, TlsError> {
        let connection = Connection::new(config)?;
        Ok(Tls { env, connection: RwLock::new(Arc::new(connection)) })
    }

    /// Uses `config` for requests from now on: how renewed certificates come into use. Requests under way are left alone.
    pub fn reload(&self, config: &TlsConfig) -> Result<(), TlsError> {
        let connection = Connection::new(config)?;
        *self.connection.write() = Arc::new(connection);
        Ok(())
    }
}

impl Connection {
    fn new(config: &TlsConfig) -> Result<Connection, TlsError> {
        let server = config.server.trim_end_matches('/').to_owned();
        let uri: Uri = server.parse().map_err(|_| TlsError::Server(server.clone()))?;
        let host = uri.host().ok_or_else(|| TlsError::Server(server.clone()))?;
        let connector = match uri.scheme_str() {
            Some("https") => Connector::tls(config.rustls()?, config.server_name(host)?),
            Some("http") => Connector::plain(),
            _ => return Err(TlsError::Server(server)),
        };
        let http = legacy::Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .http2_keep_alive_timeout(Duration::from_secs(15))
            // The library takes many small unread frames for an attack, by a budget that grows with the connection's window.
            .http2_initial_stream_window_size(4 << 20)
            .http2_initial_connection_window_size(32 << 20)
            .build(connector);
        let bearer = config.token.clone().map(|token| Bearer { token, read: Mutex::default() });
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let (Some(scheme), Some(authority)) = (uri.scheme().cloned(), uri.authority().cloned()) else {
            return Err(TlsError::Server(server));
        };
        Ok(Connection { server, scheme, authority, prefix, http, bearer })
    }

    /// Where a request for `target` goes.
    fn uri(&self, target: String) -> Result<Uri, http::Error> {
        let path = if self.prefix.is_empty() { target } else { format!("{}{target}", self.prefix) };
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(path))?);
        Ok(Uri::from_parts(parts)?)
    }

    async fn send(self: Arc<Self>, env: Env, request: Request) -> Result<Response, TransportError> {
        let exchange = |error: Box<dyn std::error::Error + Send + Sync>| TransportError::Exchange(error);
        let uri = self.uri(request.target).map_err(|e| exchange(Box::new(e)))?;
        let mut sent = http::Request::new(Full::new(request.body));
        *sent.method_mut() = request.method;
        *sent.uri_mut() = uri;
        *sent.headers_mut() = request.headers;
        if let Some(bearer) = &self.bearer {
            let value = bearer.header(&env).map_err(|e| exchange(Box::new(e)))?;
            sent.headers_mut().entry(AUTHORIZATION).or_insert(value);
        }
        let answer = self.http.request(sent).await.map_err(|error| match error.is_connect() {
            true => TransportError::Connect { server: self.server.clone(), source: std::io::Error::other(error) },
            false => exchange(Box::new(error)),
        })?;
        let (head, body) = answer.into_parts();
        let chunks = body.into_data_stream().map(|chunk| chunk.map_err(std::io::Error::other));
        Ok(Response { code: head.status, headers: head.headers, body: Body::Stream(chunks.boxed()) })
    }
}

impl Bearer {
    fn header(&self, env: &Env) -> std::io::Result<HeaderValue> {
        let path = match &self.token {
            Token::Static(token) => return header(token),
            Token::File(path) => path,
        };
        let now = env.monotonic();
        let mut read = self.read.lock();
        if let Some((value, at)) = &*read
            && now < *at + TOKEN_AGE
        {
            return Ok(value.clone());
        }
        let value = header(std::fs::read_to_string(path)?.trim())?;
        *read = Some((value.clone(), now));
        Ok(value)
    }
}

fn header(token: &str) -> std::io::Result<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(std::io::Error::other)?;
    value.set_sensitive(true);
    Ok(value)
}

impl Transport for Tls {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>> {
        let connection = self.connection.read().clone();
        connection.send(self.env.clone(), request).boxed()
    }
}
