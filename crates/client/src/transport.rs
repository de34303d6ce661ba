//! The seam between whoever asks and whoever answers.

use std::sync::Arc;

use apimachinery::{Object, Status};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use http::{HeaderMap, Method, StatusCode};

/// Carries requests to an API server. An answer of any code, failures too, is an `Ok`.
///
/// Implemented by [`Tls`](crate) for a server elsewhere and by `apiserver::Local` for one in this process, which takes the
/// caller's identity from the binary instead of from credentials and skips nothing else.
pub trait Transport: Send + Sync {
    fn send(&self, request: Request) -> BoxFuture<'static, Result<Response, TransportError>>;

    /// Whether answers hold the server's own objects: to ask for less than the whole would make copies.
    fn shares_objects(&self) -> bool {
        false
    }
}

/// A request, already encoded.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: Method,
    /// Path and query: `/api/v1/pods?watch=1`.
    pub target: String,
    pub headers: HeaderMap,
    /// JSON unless `Content-Type` says otherwise.
    pub body: Bytes,
}

/// An answer. In-process answers hold objects; those from the wire hold bytes that [`Client`](crate) decodes.
pub struct Response {
    pub code: StatusCode,
    pub headers: HeaderMap,
    pub body: Body,
}

/// What an answer says.
pub enum Body {
    Bytes(Bytes),
    Status(Status),
    Object(Arc<Object>),
    List(ObjectList),
    /// Ends when the server closes the watch.
    Watch(BoxStream<'static, WatchEvent>),
    /// Logs and other bytes without a known length.
    Stream(BoxStream<'static, std::io::Result<Bytes>>),
}

/// A list at one revision.
#[derive(Clone, Debug, Default)]
pub struct ObjectList {
    pub revision: u64,
    pub items: Vec<Arc<Object>>,
    /// Where the next page begins; empty on the last one.
    pub continue_token: String,
    /// How many items follow this page, where the server says so.
    pub remaining: Option<u64>,
}

/// One event of a watch.
#[derive(Clone, Debug)]
pub enum WatchEvent {
    Added(Arc<Object>),
    Modified(Arc<Object>),
    /// The last body, at the revision of the deletion.
    Deleted(Arc<Object>),
    /// Nothing changed up to `revision`; `initial_events_end` closes the first part of a streamed list.
    Bookmark {
        revision: u64,
        initial_events_end: bool,
    },
    /// The watch failed and ends: 410 when history no longer covers it.
    Error(Status),
}

/// The request did not reach a server, or the answer did not arrive. Whether a write happened is unknown.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    #[error("connecting to {server}")]
    Connect { server: String, source: std::io::Error },
    #[error("exchange with the server")]
    Exchange(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server in this process is shutting down.
    #[error("the server is stopping")]
    Stopping,
}
