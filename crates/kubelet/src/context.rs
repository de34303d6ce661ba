//! What all parts of a running kubelet share.

use std::sync::{Arc, OnceLock};

use client::{Client, EventRecorder, Informer};
use env::Env;
use linux::cgroup::Hierarchies;
use tokio::sync::{broadcast, watch};

use crate::config::Config;
use crate::devices::Devices;
use crate::images::Images;
use crate::objects::Objects;
use crate::runtime::Runtime;
use crate::tokens::Tokens;

pub(crate) struct Context {
    pub(crate) config: Config,
    pub(crate) env: Env,
    pub(crate) client: Client,
    pub(crate) runtime: Runtime,
    pub(crate) recorder: EventRecorder,
    /// The pods bound to this node.
    pub(crate) pods: Informer,
    pub(crate) services: Informer,
    /// This node alone.
    pub(crate) node: Informer,
    pub(crate) objects: Arc<Objects>,
    pub(crate) tokens: Tokens,
    pub(crate) images: Images,
    pub(crate) devices: Devices,
    pub(crate) cgroups: Hierarchies,
    /// What pods can have of this machine.
    pub(crate) allocatable: rules::Resources,
    /// Bytes of memory of this machine.
    pub(crate) memory: i64,
    /// Whether pods can have a network; else why not.
    pub(crate) network: watch::Sender<Result<(), String>>,
    /// Held while it is decided whether something fits on the node.
    pub(crate) admission: parking_lot::Mutex<()>,
    /// Counts how often something of the node was given back.
    pub(crate) freed: watch::Sender<u64>,
    /// Told the uid of each pod whose containers changed; `None` when it could be any.
    pub(crate) changes: broadcast::Sender<Option<String>>,
    /// As the runtime calls itself; known once it answered.
    pub(crate) runtime_name: OnceLock<String>,
}

impl Context {
    pub(crate) fn runtime_name(&self) -> &str {
        self.runtime_name.get().map_or("unknown", String::as_str)
    }
}
