//! What a new daemon does with what the old one, or the machine's last boot, left.

use std::sync::Arc;

use shim::protocol::{ExitRecord, Hello};

use crate::container;
use crate::error::{Context, Error, blocking};
use crate::events;
use crate::record::{self, ContainerRecord, Phase, SandboxRecord};
use crate::sandbox;
use crate::shims::Shim;
use crate::state::{Container, Daemon, Sandbox};

/// Adopts what runs, settles what ended meanwhile, and takes away what was half made.
pub(crate) async fn recover(daemon: &Arc<Daemon>) -> Result<(), Error> {
    let mut half_made = Vec::new();
    for id in record::list(&daemon.scope.data("sandboxes")).context(|| "list sandboxes".to_owned())? {
        let loaded = record::load::<SandboxRecord>(&daemon.sandbox_data(&id)).context(|| format!("sandbox {id}"))?;
        let (config, record) = loaded.unwrap_or_else(|| {
            let cgroup = daemon.cgroup_parent(&id, "");
            (Default::default(), SandboxRecord { cgroup, making: true, ..SandboxRecord::default() })
        });
        let sandbox = Arc::new(Sandbox::new(id, config, record));
        if sandbox.state.lock().record.making {
            half_made.push(sandbox);
        } else if let Err(error) = daemon.add_sandbox(sandbox.clone()) {
            tracing::warn!(sandbox = %sandbox.id, error = error.report(), "a sandbox is not adopted");
            half_made.push(sandbox);
        }
    }
    load_containers(daemon).await?;
    for sandbox in daemon.sandboxes() {
        adopt(daemon, &sandbox).await?;
    }
    for sandbox in half_made {
        tracing::info!(sandbox = %sandbox.id, "removing a half-made sandbox");
        sandbox::unmake(daemon, &sandbox).await?;
    }
    remove_strays(daemon).await
}

async fn load_containers(daemon: &Arc<Daemon>) -> Result<(), Error> {
    for id in record::list(&daemon.scope.data("containers")).context(|| "list containers".to_owned())? {
        let loaded =
            record::load::<ContainerRecord>(&daemon.container_data(&id)).context(|| format!("container {id}"))?;
        let container = loaded.and_then(|(config, record)| {
            let sandbox = daemon.sandbox(&record.sandbox).ok()?;
            let made = !record.making;
            Some((Arc::new(Container::new(id.clone(), sandbox, config, record)), made))
        });
        match container {
            Some((container, true)) => {
                if let Some(resources) = record::load_resources(&daemon.container_data(&id)) {
                    container.state.lock().resources = resources;
                }
                daemon.add_container(container)?;
            }
            Some((container, false)) => {
                tracing::info!(container = %id, "removing a half-made container");
                container::unmake(daemon, &container).await?;
            }
            None => {
                tracing::info!(container = %id, "removing what is left of a container");
                daemon.images.remove_rootfs(&id).await?;
                let (on_thread, id) = (daemon.clone(), id);
                blocking(move || {
                    let failed = || "remove what is left of a container".to_owned();
                    record::remove(&on_thread.container_run(&id)).context(failed)?;
                    record::remove(&on_thread.state_root().join(&id)).context(failed)?;
                    record::remove(&on_thread.container_data(&id)).context(failed)
                })
                .await?;
            }
        }
    }
    for info in daemon.images.rootfs() {
        if let Ok(container) = daemon.container(container::volumes::owner(&info.id)) {
            if container.id == info.id {
                container.state.lock().rootfs = info.path;
            }
        } else {
            daemon.images.remove_rootfs(&info.id).await?;
        }
    }
    Ok(())
}

/// Finds the sandbox's shim and takes over from it, or settles that it is gone.
async fn adopt(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>) -> Result<(), Error> {
    let folder = daemon.sandbox_run(&sandbox.id);
    let found = Shim::connect(&daemon.env, &folder, &sandbox.id, daemon.shim_events.clone()).await;
    let Ok((shim, hello)) = found else {
        for container in daemon.containers_of(&sandbox.id) {
            if container.record().phase == Phase::Running {
                // What runs without its shim is nobody's; what ended is as its shim recorded it.
                if let Ok(group) = daemon.group(&sandbox.state.lock().record.cgroup.join(&container.id)) {
                    let _ = group.kill();
                }
                let exit = ExitRecord::load(&daemon.container_data(&container.id).join("exit.json"));
                events::unknown(daemon, &container, exit);
            }
        }
        if sandbox.is_ready() {
            events::not_ready(daemon, sandbox);
        }
        return Ok(());
    };
    {
        let mut state = sandbox.state.lock();
        state.shim = Some(Arc::new(shim));
        state.pause = hello.pause;
    }
    settle(daemon, sandbox, &hello);
    let shares_pids = sandbox.options().pid() == cri::v1::NamespaceMode::Pod;
    if sandbox.is_ready() && shares_pids && hello.pause.is_none() {
        events::not_ready(daemon, sandbox);
    }
    Ok(())
}

/// Brings the records in line with what the shim knows.
fn settle(daemon: &Arc<Daemon>, sandbox: &Arc<Sandbox>, hello: &Hello) {
    for container in daemon.containers_of(&sandbox.id) {
        if container.record().phase != Phase::Running {
            continue;
        }
        match hello.containers.iter().find(|known| known.id == container.id) {
            Some(known) => {
                container.state.lock().pid = known.pid;
                let _ = container.change(daemon, |record| record.started_at = known.started_at);
                if let Some(exit) = &known.exit {
                    events::exited(daemon, &container, exit);
                }
            }
            // The old daemon died between recording and asking, or before the shim answered: it never ran.
            None => {
                let exit = ExitRecord::load(&daemon.container_data(&container.id).join("exit.json"));
                events::unknown(daemon, &container, exit);
            }
        }
    }
}

/// Folders of sandboxes and containers that no record names.
async fn remove_strays(daemon: &Arc<Daemon>) -> Result<(), Error> {
    let daemon = daemon.clone();
    blocking(move || {
        let failed = || "remove strays".to_owned();
        for id in record::list(&daemon.scope.run("containers")).context(failed)? {
            if daemon.container(&id).is_err() {
                record::remove(&daemon.container_run(&id)).context(failed)?;
                record::remove(&daemon.state_root().join(&id)).context(failed)?;
            }
        }
        for id in record::list(&daemon.scope.run("sandboxes")).context(failed)? {
            if daemon.sandbox(&id).is_err() {
                let folder = daemon.sandbox_run(&id);
                linux::namespace::unpin(&folder.join("ns")).context(failed)?;
                linux::mount::unmount_below(&folder).context(failed)?;
                record::remove(&folder).context(failed)?;
            }
        }
        Ok(())
    })
    .await
}
