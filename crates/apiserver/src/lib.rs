//! The API server: turns an HTTP request into an authorised, admitted store operation.
//!
//! It knows every kind through the table in `api` and what strategies add; it knows no controller, and nobody but the binary
//! sees it. The main path: an edge (HTTP over TLS, or [`Local`] for callers in this process) hands a request to the server,
//! which identifies and authorises it (`gate`), routes it to the generic `registry` (decode, default, admit, validate, commit),
//! and shapes the answer. Reads come from the registry's watch cache, which one watch of the store keeps current.
//!
//! ```no_run
//! # async fn example(store: std::sync::Arc<dyn store::Store>, pki: std::sync::Arc<pki::ClusterPki>) -> Result<(), Box<dyn std::error::Error>> {
//! let address = "192.0.2.1".parse()?;
//! let config = apiserver::Config {
//!     env: env::Env::system(),
//!     store,
//!     pki,
//!     bind: vec!["0.0.0.0:6443".parse()?],
//!     names: Vec::new(),
//!     settings: apiserver::Settings::new(address),
//! };
//! let server = apiserver::build(config).await?;
//! let local = server.local(apiserver::UserInfo::authenticated("system:kube-scheduler", &[]));
//! server.run(std::future::pending()).await?;
//! # drop(local);
//! # Ok(())
//! # }
//! ```

mod accept;
mod access;
mod aggregation;
mod answer;
mod body;
mod bootstrap;
mod config;
mod connect;
mod discovery;
mod edge;
mod extension;
mod gate;
mod health;
mod identity;
mod legacy_tokens;
mod local;
mod openapi;
mod registry;
mod request;
mod resource_metrics;
mod run;
mod server;
pub mod strategy;
mod table;

pub use config::{Config, Settings};
pub use identity::UserInfo;
pub use local::Local;
pub use run::{ApiServer, BuildError, build};
