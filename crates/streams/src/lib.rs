//! Connections: TLS listeners whose certificate can be changed while they serve, HTTP/1.1 and HTTP/2 on them with upgrades and an
//! orderly end, and what upgraded connections speak: standard streams over WebSockets and SPDY, SPDY inside WebSockets.
//!
//! It knows nothing of Kubernetes: who a client is, is told from [`Peer::certificates`] elsewhere. The main path:
//! [`ServerCertificate::new`], [`server_config`], then [`Server::run`] with a service.
//!
//! ```no_run
//! # async fn example(env: env::Env, listener: tokio::net::TcpListener) -> std::io::Result<()> {
//! use http_body_util::Full;
//! let hello = |_request| async { http::Response::new(Full::new(bytes::Bytes::from("hello"))) };
//! streams::Server::plain(env).run(listener, hello, std::future::pending()).await
//! # }
//! ```

pub mod frames;
pub mod messages;
pub mod remotecommand;
mod serve;
pub mod spdy;
mod tls;
pub mod tunnel;

pub use serve::{Peer, Server};
pub use tls::{ServerCertificate, TlsError, server_config};
