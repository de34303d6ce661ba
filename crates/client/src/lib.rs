//! How every component and command talks to an API server: requests, kubeconfig, transports, informers, workqueue and the
//! controller runner.
//!
//! It knows the wire and the object model, no kind's meaning. A [`Transport`] is either TLS to a server or `Local`, the
//! in-process path that the API server implements: the same requests through the same authorisation and admission, with
//! objects handed over as `Arc<Object>` instead of bytes.

mod resource;
mod transport;

pub use resource::{Resource, resources};
pub use transport::{Body, ObjectList, Request, Response, Transport, TransportError, WatchEvent};
