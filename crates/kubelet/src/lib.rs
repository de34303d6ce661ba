//! The kubelet: runs the pods bound to its node through a container runtime, and tells the API server how they and the node are.
//!
//! It speaks the Container Runtime Interface to the runtime and knows nothing of what is behind it; it knows the API server
//! only through its client, and no other component at all.
//!
//! The main path: [`build`] binds and validates; [`Kubelet::run`] follows the pods of the node. `pods` gives each pod a `worker`, which
//! asks `runtime` what is, lets `worker::actions` say what is missing, makes it from `spec` and `volumes`, and tells what came of
//! it by `status`. `probe` watches the containers, `node` keeps the node's own object, `server` serves logs and streams, and
//! `provisioner` makes folders of the node into volumes.
//!
//! ```no_run
//! # async fn example(config: kubelet::Config) -> Result<(), kubelet::Error> {
//! let kubelet = kubelet::build(config).await?;
//! let handle = kubelet.handle();
//! kubelet.run(std::future::pending()).await?;
//! handle.stop_all(std::time::Duration::from_secs(10)).await
//! # }
//! ```

mod admission;
mod allocation;
mod claims;
mod config;
mod context;
mod devices;
pub mod environment;
mod error;
pub mod expansion;
pub mod fields;
mod images;
mod kubelet;
pub mod logs;
mod node;
mod objects;
mod pods;
mod probe;
pub mod provisioner;
mod runtime;
mod server;
mod spec;
mod status;
mod tokens;
pub mod volumes;
mod worker;

pub use config::Config;
pub use error::Error;
pub use kubelet::{Handle, Kubelet, build};
