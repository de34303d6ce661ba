//! The pod network: addresses and links of sandboxes, and their host ports.
//!
//! [`PodNetwork`] is what the CRI server calls; [`EmbeddedNetwork`] is our own: a routed veth per pod, no bridge. It knows
//! nothing of Services.

mod embedded;
mod error;
mod ipam;
mod ports;
mod rules;

use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::Pin;

pub use embedded::{EmbeddedConfig, EmbeddedNetwork, cleanup};
pub use error::NetworkError;
pub use ports::{PortMapping, Protocol};

/// The future of a [`PodNetwork`] method.
pub type NetworkFuture<'a, T> = Pin<Box<dyn Future<Output = Result<T, NetworkError>> + Send + 'a>>;

/// One sandbox that shall get addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SandboxNetwork {
    /// The sandbox's id, unique on this node: addresses and links are found by it again.
    pub sandbox_id: String,
    /// The pinned network namespace.
    pub netns: PathBuf,
    /// The pod's namespace.
    pub pod_namespace: String,
    /// The pod's name.
    pub pod_name: String,
    /// The pod's uid.
    pub pod_uid: String,
    /// Ports of the node that lead to the pod; entries with host port 0 are ignored.
    pub ports: Vec<PortMapping>,
}

/// Whether sandboxes can get a network now, as CRI's `NetworkReady` condition says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkStatus {
    /// Sandboxes can be set up.
    Ready,
    /// Not yet; the texts go into the condition.
    NotReady {
        /// One CamelCase word.
        reason: &'static str,
        /// A sentence for people.
        message: String,
    },
}

/// Gives sandboxes their network.
pub trait PodNetwork: Send + Sync {
    /// Connects the sandbox and returns its addresses, the primary one first. Again for the same sandbox: the same addresses.
    /// After an error nothing is left.
    fn setup<'a>(&'a self, sandbox: &'a SandboxNetwork) -> NetworkFuture<'a, Vec<IpAddr>>;

    /// Takes the sandbox's links, addresses and ports away. Succeeds when they, or the network namespace, are gone already.
    fn teardown<'a>(&'a self, sandbox_id: &'a str) -> NetworkFuture<'a, ()>;

    /// The addresses of a sandbox that was set up, also by an earlier process.
    fn addresses(&self, sandbox_id: &str) -> Vec<IpAddr>;

    /// Whether [`PodNetwork::setup`] can succeed.
    fn status(&self) -> NetworkStatus;

    /// Resolves once [`PodNetwork::setup`] can succeed.
    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// The node's pod ranges as CRI's `UpdateRuntimeConfig` carries them: comma-separated, at most one per family.
    fn set_pod_cidr<'a>(&'a self, pod_cidr: &'a str) -> NetworkFuture<'a, ()>;
}

#[cfg(test)]
mod tests;
