//! Services as nftables elements: what a node does so that a Service's addresses lead to its endpoints.
//!
//! Rules are static; Services and endpoints are elements of maps, so one change among ten thousand Services costs
//! microseconds. The main path: informers tell which Service changed; [`plan`] says which virtual addresses it has and where
//! they lead; [`Table`] turns that into the difference of elements; `Driver` commits it. Everything before the driver is pure.
//!
//! It knows nothing of pods, of how packets get to other nodes, or of NetworkPolicy. Rules stay when the process ends;
//! [`cleanup`] removes them.
//!
//! ```no_run
//! # async fn example(env: env::Env, scope: linux::Scope, client: client::Client) -> Result<(), proxy::Error> {
//! let mut config = proxy::Config::new(env, scope, client, "node-1")?;
//! config.service_cidrs = vec!["10.96.0.0/12".parse().expect("a range")];
//! config.pod_cidrs = vec!["10.244.0.0/16".parse().expect("a range")];
//! proxy::build(config).await?.run().await;
//! # Ok(())
//! # }
//! ```

mod driver;
mod endpoint;
mod layout;
mod plan;
mod proxy;
mod service;
mod table;

pub use driver::{Driver, Error, Network, cleanup, probe};
pub use endpoint::{Endpoint, Endpoints, Locality};
pub use plan::{Balance, Empty, Vip, plan};
pub use proxy::{Config, Proxy, build};
pub use service::{Service, ServicePort};
pub use table::{Changes, Table};
