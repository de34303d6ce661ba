//! Sandboxes: what the containers of a pod share.

mod files;
mod sysctls;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use linux::namespace::{self, Kind};
use shim::protocol::{Pause, Request};

use cri::v1::{ContainerEventType, NamespaceMode, PodSandboxConfig, UserNamespace};

use crate::container;
use crate::error::{Context, Error, blocking};
use crate::events;
use crate::network::{PortMapping, Protocol, SandboxNetwork};
use crate::record::{self, Phase, SandboxRecord};
use crate::shims::Shim;
use crate::spec;
use crate::state::{Daemon, Sandbox};

/// Makes a sandbox and returns its id.
pub(crate) async fn run(daemon: &Arc<Daemon>, config: PodSandboxConfig, handler: String) -> Result<String, Error> {
    // Containers ask again; a handler nobody knows is refused at once.
    daemon.handlers.program(&handler)?;
    if config.metadata.is_none() {
        return Err(Error::Invalid("sandbox config must include metadata".to_owned()));
    }
    let id = daemon.new_id();
    let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.as_str()).unwrap_or_default();
    let record = SandboxRecord {
        created_at: daemon.now(),
        handler,
        cgroup: daemon.cgroup_parent(&id, parent),
        making: true,
        ..SandboxRecord::default()
    };
    let sandbox = Arc::new(Sandbox::new(id.clone(), config, record));
    if user_namespace(&sandbox).is_some() {
        return Err(Error::Unsupported("user namespaces are not supported by this runtime".to_owned()));
    }
    let _turn = sandbox.lock.lock().await;
    daemon.add_sandbox(sandbox.clone())?;
    if let Err(error) = make(daemon, &sandbox).await {
        if let Err(cleanup) = unmake(daemon, &sandbox).await {
            tracing::warn!(sandbox = %id, error = cleanup.report(), "a half-made sandbox is left");
        }
        daemon.forget_sandbox(&id);
        return Err(error);
    }
    events::announce(daemon, &id, &sandbox, ContainerEventType::ContainerCreatedEvent);
    events::announce(daemon, &id, &sandbox, ContainerEventType::ContainerStartedEvent);
    Ok(id)
}

fn user_namespace(sandbox: &Sandbox) -> Option<UserNamespace> {
    sandbox.options().userns_options.filter(|userns| userns.mode() == NamespaceMode::Pod)
}

async fn make(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let id = &sandbox.id;
    daemon.env.failpoint("runtime-sandbox-start")?;
    let (on_thread, of) = (daemon.clone(), sandbox.clone());
    blocking(move || {
        let record = of.state.lock().record.clone();
        record::create(&on_thread.sandbox_data(&of.id), &of.config, &record)
            .context(|| "record the sandbox".to_owned())?;
        make_namespaces(&on_thread, &of)?;
        on_thread.env.failpoint("runtime-sandbox-namespaces")?;
        files::make(&of, &on_thread.sandbox_run(&of.id))?;
        make_group(&on_thread, &of)
    })
    .await?;
    daemon.env.failpoint("runtime-sandbox-files")?;
    // Neither needs the other.
    let folder = daemon.sandbox_run(id);
    let shim = async {
        daemon.program.start(&folder)?;
        Shim::connect(&daemon.env, &folder, id, daemon.shim_events.clone()).await
    };
    let (ips, shim) = tokio::join!(set_up_network(daemon, sandbox), shim);
    let ips = ips?;
    daemon.env.failpoint("runtime-sandbox-network")?;
    let shim = Arc::new(shim?.0);
    sandbox.state.lock().shim = Some(shim.clone());
    daemon.env.failpoint("runtime-sandbox-shim")?;
    if sandbox.options().pid() == NamespaceMode::Pod {
        let pause = start_pause(daemon, sandbox, &shim).await?;
        sandbox.state.lock().pause = Some(pause);
    }
    sandbox.change(daemon, |record| {
        record.ips = ips;
        record.ready = true;
        record.making = false;
    })
}

async fn set_up_network(daemon: &Daemon, sandbox: &Sandbox) -> Result<Vec<IpAddr>, Error> {
    if sandbox.is_host_network() {
        return Ok(Vec::new());
    }
    let network = network_of(daemon, sandbox);
    daemon.network.setup(&network).await.map_err(|source| Error::Network { sandbox: sandbox.id.clone(), source })
}

fn make_namespaces(daemon: &Daemon, sandbox: &Sandbox) -> Result<(), Error> {
    let options = sandbox.options();
    let mut kinds = Vec::new();
    if options.network() != NamespaceMode::Node {
        kinds.extend([Kind::Net, Kind::Uts]);
    }
    if options.ipc() != NamespaceMode::Node {
        kinds.push(Kind::Ipc);
    }
    let settings = sysctls::settings(&sandbox.config, &kinds)?;
    let hostname = sandbox.config.hostname.clone();
    let folder = daemon.sandbox_run(&sandbox.id).join("ns");
    let has_name = kinds.contains(&Kind::Uts) && !hostname.is_empty();
    namespace::create_pinned(&kinds, &folder, || {
        if has_name {
            rustix::system::sethostname(hostname.as_bytes())?;
        }
        sysctls::apply(&settings)
    })
    .context(|| "failed to create the sandbox's namespaces".to_owned())
}

/// The group below which the pod's containers have theirs, with the pod's own limits if the client gives any.
fn make_group(daemon: &Daemon, sandbox: &Sandbox) -> Result<(), Error> {
    let path = sandbox.state.lock().record.cgroup.clone();
    let group = daemon.group(&path)?;
    let failed = || format!("control group {}", path.display());
    group.create().context(failed)?;
    if let Some(resources) = sandbox.config.linux.as_ref().and_then(|linux| linux.resources.as_ref()) {
        group.apply(&spec::limits(resources)).context(failed)?;
    }
    Ok(())
}

fn network_of(daemon: &Daemon, sandbox: &Sandbox) -> SandboxNetwork {
    let metadata = sandbox.config.metadata.clone().unwrap_or_default();
    let port = |number: i32| u16::try_from(number).unwrap_or(0);
    let ports = sandbox.config.port_mappings.iter().map(|mapping| PortMapping {
        protocol: match mapping.protocol() {
            cri::v1::Protocol::Tcp => Protocol::Tcp,
            cri::v1::Protocol::Udp => Protocol::Udp,
            cri::v1::Protocol::Sctp => Protocol::Sctp,
        },
        container_port: port(mapping.container_port),
        host_port: port(mapping.host_port),
        host_ip: mapping.host_ip.parse().ok(),
    });
    SandboxNetwork {
        sandbox_id: sandbox.id.clone(),
        netns: daemon.sandbox_run(&sandbox.id).join("ns/net"),
        pod_namespace: metadata.namespace,
        pod_name: metadata.name,
        pod_uid: metadata.uid,
        ports: ports.collect(),
    }
}

async fn start_pause(daemon: &Daemon, sandbox: &Sandbox, shim: &Shim) -> Result<i32, Error> {
    let folder = daemon.sandbox_run(&sandbox.id);
    let root = folder.join("pause");
    std::fs::create_dir_all(&root).context(|| "make the pause process' root".to_owned())?;
    let pins = ["net", "uts", "ipc"].iter().map(|name| folder.join("ns").join(name));
    let namespaces: Vec<PathBuf> = pins.filter(|pin| pin.exists()).collect();
    let request = Request::Pause(Pause { namespaces, root });
    let (started, _) = shim.launch("failed to create the sandbox's pid namespace", request, &[]).await?;
    let path = sandbox.state.lock().record.cgroup.join(&sandbox.id);
    let group = daemon.group(&path)?;
    group.create().and_then(|()| group.add(started.pid)).context(|| "control group of the pause process".to_owned())?;
    Ok(started.pid)
}

/// Takes away whatever there is of a sandbox that was not finished.
pub(crate) async fn unmake(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    take_down(daemon, sandbox).await?;
    remove_files(daemon, sandbox).await
}

/// Stops the sandbox's containers and takes away what they share. Does nothing the second time.
pub(crate) async fn stop(daemon: &Arc<Daemon>, id: &str) -> Result<(), Error> {
    let sandbox = match daemon.sandbox(id) {
        Err(Error::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    let _turn = sandbox.lock.lock().await;
    stop_locked(daemon, &sandbox).await
}

async fn stop_locked(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let was_ready = sandbox.is_ready();
    for container in daemon.containers_of(&sandbox.id) {
        container::stop(daemon, &container, Duration::ZERO).await?;
    }
    // From now on the shim's end is expected.
    sandbox.change(daemon, |record| record.ready = false)?;
    take_down(daemon, sandbox).await?;
    if was_ready {
        events::announce(daemon, &sandbox.id, sandbox, ContainerEventType::ContainerStoppedEvent);
    }
    Ok(())
}

/// Ends the shim, the network, the namespaces and the mounts; each step may have been done before.
async fn take_down(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let shim = sandbox.state.lock().shim.take();
    match shim {
        Some(shim) => end_shim(&shim).await,
        // A half-made sandbox may have one that no connection was kept to.
        None => {
            let (quiet, _) = tokio::sync::mpsc::unbounded_channel();
            let folder = daemon.sandbox_run(&sandbox.id);
            if let Ok((shim, _)) = Shim::connect(&daemon.env, &folder, &sandbox.id, quiet).await {
                end_shim(&shim).await;
            }
        }
    }
    daemon.env.failpoint("runtime-sandbox-stopping")?;
    if !sandbox.is_host_network() {
        let failed = |source| Error::Network { sandbox: sandbox.id.clone(), source };
        daemon.network.teardown(&sandbox.id).await.map_err(failed)?;
    }
    let (daemon, sandbox) = (daemon.clone(), sandbox.clone());
    blocking(move || {
        let folder = daemon.sandbox_run(&sandbox.id);
        namespace::unpin(&folder.join("ns")).context(|| "unpin the sandbox's namespaces".to_owned())?;
        linux::mount::unmount_all(&folder.join("shm")).context(|| "unmount the sandbox's shared memory".to_owned())?;
        let group = daemon.group(&sandbox.state.lock().record.cgroup.join(&sandbox.id))?;
        let _ = group.kill();
        group.remove().context(|| "remove the sandbox's control group".to_owned())
    })
    .await
}

async fn end_shim(shim: &Shim) {
    let _ = shim.ask("end the shim", Request::Shutdown).await;
}

/// Stops and removes the sandbox with its containers. Does nothing when there is none.
pub(crate) async fn remove(daemon: &Arc<Daemon>, id: &str) -> Result<(), Error> {
    let sandbox = match daemon.sandbox(id) {
        Err(Error::NotFound { .. }) => return Ok(()),
        found => found?,
    };
    let _turn = sandbox.lock.lock().await;
    // Somebody else may have removed it while this waited.
    if daemon.sandbox(id).is_err() {
        return Ok(());
    }
    stop_locked(daemon, &sandbox).await?;
    for container in daemon.containers_of(&sandbox.id) {
        container::remove(daemon, &container).await?;
    }
    remove_files(daemon, &sandbox).await?;
    daemon.forget_sandbox(&sandbox.id);
    events::announce(daemon, &sandbox.id, &sandbox, ContainerEventType::ContainerDeletedEvent);
    Ok(())
}

async fn remove_files(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let (daemon, sandbox) = (daemon.clone(), sandbox.clone());
    blocking(move || {
        let folder = daemon.sandbox_run(&sandbox.id);
        linux::mount::unmount_below(&folder).context(|| "unmount what is in the sandbox's folder".to_owned())?;
        record::remove(&folder).context(|| "remove the sandbox's folder".to_owned())?;
        // Where the client named the group, it is the client's to remove.
        let path = sandbox.state.lock().record.cgroup.clone();
        if path == daemon.cgroup_parent(&sandbox.id, "") {
            daemon.group(&path)?.remove().context(|| "remove the sandbox's control group".to_owned())?;
        }
        record::remove(&daemon.sandbox_data(&sandbox.id)).context(|| "remove the sandbox's record".to_owned())
    })
    .await
}

/// Asks every container to end, all at once, kills what is left after `grace`, and stops the sandboxes.
pub(crate) async fn stop_all(daemon: &Arc<Daemon>, grace: Duration) -> Result<(), Error> {
    let running = daemon.containers().into_iter().filter(|container| container.record().phase == Phase::Running);
    let stops = running.map(|container| {
        let daemon = daemon.clone();
        async move { container::stop(&daemon, &container, grace).await }
    });
    let mut result = Ok(());
    for stopped in futures_util::future::join_all(stops).await {
        result = result.and(stopped);
    }
    for sandbox in daemon.sandboxes() {
        result = result.and(stop(daemon, &sandbox.id).await);
    }
    result
}

/// Removes every sandbox with its containers, and the scope's groups.
pub(crate) async fn remove_all(daemon: &Arc<Daemon>) -> Result<(), Error> {
    for sandbox in daemon.sandboxes() {
        remove(daemon, &sandbox.id).await?;
    }
    let daemon = daemon.clone();
    blocking(move || {
        let failed = || "remove the control groups".to_owned();
        daemon.group(&daemon.scope.cgroup("pods"))?.remove().context(failed)?;
        // Others of this scope may still be in use, or hold the daemon itself.
        daemon.group(&daemon.scope.cgroup(""))?.remove_if_empty().context(failed)?;
        Ok(())
    })
    .await
}

/// Changes the limits of the group that holds the pod's containers.
pub(crate) async fn update(
    daemon: &Arc<Daemon>,
    sandbox: &Arc<Sandbox>,
    resources: cri::v1::LinuxContainerResources,
) -> Result<(), Error> {
    let (daemon, path) = (daemon.clone(), sandbox.state.lock().record.cgroup.clone());
    blocking(move || {
        let group = daemon.group(&path)?;
        group.apply(&spec::limits(&resources)).context(|| "failed to update the sandbox's resources".to_owned())
    })
    .await
}
