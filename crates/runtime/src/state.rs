//! The daemon's view of its sandboxes and containers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use env::Env;
use linux::Scope;
use linux::cgroup::{Group, Hierarchies};
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, watch};

use cri::v1::{
    ContainerConfig, ContainerEventResponse, LinuxContainerResources, NamespaceMode, NamespaceOption, PodSandboxConfig,
};

use crate::Config;
use crate::error::{Context, Error};
use crate::handlers::Handlers;
use crate::image::ImageStore;
use crate::network::PodNetwork;
use crate::record::{self, ContainerRecord, Phase, SandboxRecord};
use crate::shims::{Event, Program, Shim};
use crate::streaming::Tokens;

/// Events wait for slow clients in a queue of this length (upstream: containerd's); who falls behind is cut off and lists again.
const EVENTS: usize = 1000;

/// Everything the runtime knows.
pub(crate) struct Daemon {
    pub(crate) env: Env,
    pub(crate) scope: Scope,
    pub(crate) images: ImageStore,
    pub(crate) network: Arc<dyn PodNetwork>,
    pub(crate) hierarchies: Hierarchies,
    pub(crate) program: Program,
    pub(crate) handlers: Handlers,
    /// Where devices are described.
    pub(crate) cdi: Vec<PathBuf>,
    pub(crate) events: broadcast::Sender<ContainerEventResponse>,
    pub(crate) shim_events: mpsc::UnboundedSender<(String, Event)>,
    pub(crate) tokens: Tokens,
    pub(crate) streaming: SocketAddr,
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    sandboxes: BTreeMap<String, Arc<Sandbox>>,
    containers: BTreeMap<String, Arc<Container>>,
}

/// A pod sandbox.
pub(crate) struct Sandbox {
    pub(crate) id: String,
    pub(crate) config: PodSandboxConfig,
    /// Held while it is made, stopped or removed.
    pub(crate) lock: tokio::sync::Mutex<()>,
    pub(crate) state: Mutex<SandboxState>,
    /// Follows the record's readiness.
    pub(crate) ready: watch::Sender<bool>,
}

pub(crate) struct SandboxState {
    pub(crate) record: SandboxRecord,
    pub(crate) shim: Option<Arc<Shim>>,
    /// The process that holds the shared pid namespace.
    pub(crate) pause: Option<i32>,
}

/// A container.
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) sandbox: Arc<Sandbox>,
    pub(crate) config: ContainerConfig,
    /// Held while it is started, stopped or removed.
    pub(crate) lock: tokio::sync::Mutex<()>,
    pub(crate) state: Mutex<ContainerState>,
    /// Follows the record's phase.
    pub(crate) phase: watch::Sender<Phase>,
}

pub(crate) struct ContainerState {
    pub(crate) record: ContainerRecord,
    pub(crate) resources: LinuxContainerResources,
    pub(crate) pid: i32,
    /// Where the image's files are mounted.
    pub(crate) rootfs: PathBuf,
    /// Whether clients were told that it started, and whether they still have to be told that it ended: it may have done so
    /// before.
    pub(crate) start_announced: bool,
    pub(crate) end_to_announce: bool,
}

impl Daemon {
    pub(crate) fn new(
        config: Config,
        hierarchies: Hierarchies,
        streaming: SocketAddr,
    ) -> Result<(Daemon, mpsc::UnboundedReceiver<(String, Event)>), Error> {
        let (shim_events, receiver) = mpsc::unbounded_channel();
        let program = Program::new(config.shim_command).context(|| "seal the shim's program".to_owned())?;
        let daemon = Daemon {
            tokens: Tokens::new(config.env.clone()),
            env: config.env,
            scope: config.scope,
            images: config.images,
            network: config.network,
            hierarchies,
            program,
            handlers: Handlers::new(config.handlers),
            cdi: config.cdi,
            events: broadcast::Sender::new(EVENTS),
            shim_events,
            streaming,
            tables: Mutex::default(),
        };
        Ok((daemon, receiver))
    }

    /// Lets go of the shims, so that another daemon may take over.
    pub(crate) fn release(&self) {
        let tables = self.tables.lock();
        for sandbox in tables.sandboxes.values() {
            sandbox.state.lock().shim = None;
        }
    }

    /// Nanoseconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        i64::try_from(self.env.now().as_nanosecond()).unwrap_or(i64::MAX)
    }

    /// 64 hexadecimal digits nobody can guess.
    pub(crate) fn new_id(&self) -> String {
        let mut bytes = [0; 32];
        self.env.secret(&mut bytes);
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// What lasts of a sandbox.
    pub(crate) fn sandbox_data(&self, id: &str) -> PathBuf {
        self.scope.data("sandboxes").join(id)
    }

    /// What a sandbox is made of while it runs: socket, namespaces, files for its containers.
    pub(crate) fn sandbox_run(&self, id: &str) -> PathBuf {
        self.scope.run("sandboxes").join(id)
    }

    /// What lasts of a container.
    pub(crate) fn container_data(&self, id: &str) -> PathBuf {
        self.scope.data("containers").join(id)
    }

    /// A container's OCI bundle.
    pub(crate) fn container_run(&self, id: &str) -> PathBuf {
        self.scope.run("containers").join(id)
    }

    /// Below which libcontainer keeps its state.
    pub(crate) fn state_root(&self) -> PathBuf {
        self.scope.run("state")
    }

    /// Below which a sandbox's containers have their groups: where the client says, but always within this scope's own subtree.
    pub(crate) fn cgroup_parent(&self, id: &str, given: &str) -> PathBuf {
        let given = given.trim_matches('/');
        let root = self.scope.cgroup("");
        if given.is_empty() {
            self.scope.cgroup("pods").join(id)
        } else if Path::new(given).starts_with(&root) {
            PathBuf::from(given)
        } else {
            root.join(given)
        }
    }

    pub(crate) fn group(&self, path: &Path) -> Result<Group, Error> {
        self.hierarchies.group(path).context(|| format!("control group {}", path.display()))
    }

    /// The sandbox whose id is, or alone begins with, `id`.
    pub(crate) fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Error> {
        find(&self.tables.lock().sandboxes, id).ok_or_else(|| Error::sandbox(id))
    }

    /// The container whose id is, or alone begins with, `id`.
    pub(crate) fn container(&self, id: &str) -> Result<Arc<Container>, Error> {
        find(&self.tables.lock().containers, id).ok_or_else(|| Error::container(id))
    }

    pub(crate) fn sandboxes(&self) -> Vec<Arc<Sandbox>> {
        self.tables.lock().sandboxes.values().cloned().collect()
    }

    pub(crate) fn containers(&self) -> Vec<Arc<Container>> {
        self.tables.lock().containers.values().cloned().collect()
    }

    pub(crate) fn containers_of(&self, sandbox: &str) -> Vec<Arc<Container>> {
        let tables = self.tables.lock();
        tables.containers.values().filter(|container| container.sandbox.id == sandbox).cloned().collect()
    }

    /// Adds a sandbox unless another has the same name.
    pub(crate) fn add_sandbox(&self, sandbox: Arc<Sandbox>) -> Result<(), Error> {
        let mut tables = self.tables.lock();
        let name = sandbox.name();
        if let Some(holder) = tables.sandboxes.values().find(|other| other.name() == name) {
            return Err(Error::Reserved { kind: "sandbox", name, holder: holder.id.clone() });
        }
        tables.sandboxes.insert(sandbox.id.clone(), sandbox);
        Ok(())
    }

    pub(crate) fn forget_sandbox(&self, id: &str) {
        self.tables.lock().sandboxes.remove(id);
    }

    /// Adds a container unless another has the same name.
    pub(crate) fn add_container(&self, container: Arc<Container>) -> Result<(), Error> {
        let mut tables = self.tables.lock();
        let name = container.name();
        if let Some(holder) = tables.containers.values().find(|other| other.name() == name) {
            return Err(Error::Reserved { kind: "container", name, holder: holder.id.clone() });
        }
        tables.containers.insert(container.id.clone(), container);
        Ok(())
    }

    pub(crate) fn forget_container(&self, id: &str) {
        self.tables.lock().containers.remove(id);
    }
}

fn find<T>(table: &BTreeMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = table.get(id) {
        return Some(found.clone());
    }
    let mut matching = table.range(id.to_owned()..).take_while(|(other, _)| !id.is_empty() && other.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, found)), None) => Some(found.clone()),
        _ => None,
    }
}

impl Sandbox {
    pub(crate) fn new(id: String, config: PodSandboxConfig, record: SandboxRecord) -> Sandbox {
        let ready = watch::Sender::new(record.ready);
        let state = Mutex::new(SandboxState { record, shim: None, pause: None });
        Sandbox { id, config, lock: tokio::sync::Mutex::new(()), state, ready }
    }

    /// No two sandboxes have the same. Upstream: containerd's `makeSandboxName`.
    pub(crate) fn name(&self) -> String {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        format!("{}_{}_{}_{}", metadata.name, metadata.namespace, metadata.uid, metadata.attempt)
    }

    pub(crate) fn options(&self) -> NamespaceOption {
        let linux = self.config.linux.as_ref();
        linux.and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone()).unwrap_or_default()
    }

    pub(crate) fn is_host_network(&self) -> bool {
        self.options().network() == NamespaceMode::Node
    }

    pub(crate) fn shim(&self) -> Result<Arc<Shim>, Error> {
        self.state.lock().shim.clone().ok_or(Error::ShimGone)
    }

    pub(crate) fn is_ready(&self) -> bool {
        let state = self.state.lock();
        state.record.ready && !state.record.making
    }

    /// Changes the record, on disk first.
    pub(crate) fn change(&self, daemon: &Daemon, change: impl FnOnce(&mut SandboxRecord)) -> Result<(), Error> {
        let mut state = self.state.lock();
        let mut record = state.record.clone();
        change(&mut record);
        record::save(&daemon.sandbox_data(&self.id), &record).context(|| format!("record sandbox {}", self.id))?;
        // Still under the lock, so that the last change is told last.
        self.ready.send_replace(record.ready);
        state.record = record;
        Ok(())
    }
}

impl Container {
    pub(crate) fn new(
        id: String,
        sandbox: Arc<Sandbox>,
        config: ContainerConfig,
        record: ContainerRecord,
    ) -> Container {
        let phase = watch::Sender::new(record.phase);
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let start_announced = record.phase != Phase::Created;
        let state = Mutex::new(ContainerState {
            record,
            resources,
            pid: 0,
            rootfs: PathBuf::new(),
            start_announced,
            end_to_announce: false,
        });
        Container { id, sandbox, config, lock: tokio::sync::Mutex::new(()), state, phase }
    }

    /// No two containers have the same. Upstream: containerd's `makeContainerName`.
    pub(crate) fn name(&self) -> String {
        let metadata = self.config.metadata.clone().unwrap_or_default();
        let pod = self.sandbox.config.metadata.clone().unwrap_or_default();
        format!("{}_{}_{}_{}_{}", metadata.name, pod.name, pod.namespace, pod.uid, metadata.attempt)
    }

    pub(crate) fn record(&self) -> ContainerRecord {
        self.state.lock().record.clone()
    }

    /// Where its output goes, if anywhere.
    pub(crate) fn log_path(&self) -> Option<PathBuf> {
        let (folder, path) = (&self.sandbox.config.log_directory, &self.config.log_path);
        (!folder.is_empty() && !path.is_empty()).then(|| Path::new(folder).join(path))
    }

    /// Changes the record, on disk first.
    pub(crate) fn change(&self, daemon: &Daemon, change: impl FnOnce(&mut ContainerRecord)) -> Result<(), Error> {
        let mut state = self.state.lock();
        let mut record = state.record.clone();
        change(&mut record);
        record::save(&daemon.container_data(&self.id), &record).context(|| format!("record container {}", self.id))?;
        // Still under the lock, so that the last change is told last.
        self.phase.send_replace(record.phase);
        state.record = record;
        Ok(())
    }
}
