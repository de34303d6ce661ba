//! How every component and command talks to an API server: requests, kubeconfig, transports, informers, workqueue and the
//! controller runner.
//!
//! It knows the wire and the object model, no kind's meaning. A [`Transport`] is either TLS to a server or `Local`, the
//! in-process path that the API server implements: the same requests through the same authorisation and admission, with
//! objects handed over as `Arc<Object>` instead of bytes.
//!
//! The main path: a [`Client`] over a transport; [`Informers`] that keep copies of what a component looks at; a
//! [`Controller`] that [`run`] calls with the keys that changed.
//!
//! ```
//! # async fn example(client: client::Client) -> Result<(), client::Error> {
//! use client::{Informers, resources};
//! let informers = Informers::new(client.clone());
//! let pods = informers.of(&resources::PODS);
//! pods.synced().await;
//! for pod in pods.list("default") {
//!     println!("{}", pod.name());
//! }
//! # Ok(())
//! # }
//! ```

mod apply;
mod backoff;
mod changing;
mod decode;
mod discovery;
mod error;
pub mod fake;
mod informer;
mod informers;
mod keyed;
mod kubeconfig;
mod leader;
mod options;
mod recorder;
mod request;
mod resource;
mod runner;
mod tasks;
mod tls;
mod transport;
pub mod trim;
mod wait;
mod workqueue;

pub use backoff::Backoff;
pub use discovery::{ApiResource, discover};
pub use error::{DecodeError, Error, IgnoreNotFound};
pub use informer::{Event, Follower, Informer, Subscription, follow};
pub use informers::Informers;
pub use keyed::{Keyed, KeyedSet};
pub use kubeconfig::{Before, ClusterEntry, Kubeconfig, KubeconfigError};
pub use leader::LeaderElection;
pub use options::{DeleteOptions, ListOptions, PatchKind, Propagation, Selection, WatchOptions, WriteOptions};
pub use recorder::{EventRecorder, EventType, ObjectReference};
pub use request::{Answer, Client, Glance, Trim, Written};
pub use resource::{Resource, resources};
pub use runner::{Controller, ReconcileContext, ReconcileError, Requeue, Watch, owner_key, run};
pub use tasks::TaskGuard;
pub use tls::{Tls, TlsConfig, TlsError, Token};
pub use transport::{Body, ObjectList, Request, Response, Transport, TransportError, WatchEvent};
pub use wait::wait_until;
pub use workqueue::Workqueue;
