//! Removes what a cluster has on the machine while no daemon of it runs.

use anyhow::{Context, Result, bail};
use cluster::Settings;
use env::Env;
use futures_util::future::BoxFuture;
use linux::cgroup::Hierarchies;
use linux::netns::NetNs;
use rustix::process::{Pid, PidfdFlags};

use crate::daemon::{dns_socket, node_runtime};

/// The time that containers get to end.
pub(crate) const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

/// Ends containers that outlived their daemon, then removes mounts, links, rules and control groups. Again is fine.
pub(crate) fn cleanup(settings: Settings) -> BoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let env = Env::system();
        if settings.data_dir.exists() && settings.run_dir.exists() {
            let node = node_runtime(&env, &settings).await.context("finding containers that still run")?;
            let handle = node.runtime.handle();
            handle.stop_all(GRACE).await.context("ending containers")?;
            handle.remove_all().await.context("removing containers")?;
            env.crashpoint("cleanup.containers");
        }
        dns::end(&env, &dns_socket(&settings.scope())).await.context("ending cluster DNS")?;
        env.crashpoint("cleanup.dns");
        end_rest(&env, &settings).await?;
        env.crashpoint("cleanup.processes");
        remove_network(&env, &settings).await?;
        env.crashpoint("cleanup.network");
        remove_rest(&settings)
    })
}

/// Ends what no record tells of, as somebody removed the data of the cluster while its containers went on.
async fn end_rest(env: &Env, settings: &Settings) -> Result<()> {
    let group = Hierarchies::detect()?.group(settings.scope().cgroup(""))?;
    let mut ends = Vec::new();
    for pid in group.processes().context("finding processes that still run")? {
        let Some(pid) = Pid::from_raw(pid) else { continue };
        match rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK) {
            Ok(process) => ends.push(linux::descriptor::readable(process)?),
            Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(error).context("watching a process that still runs"),
        }
    }
    group.kill().context("ending processes that still run")?;
    for end in ends {
        if env.timeout(GRACE, end.readable()).await.is_none() {
            bail!("a process of cluster {} did not end within {} s", settings.name, GRACE.as_secs());
        }
    }
    Ok(())
}

/// Links, routes, tables and changed settings of the kernel.
pub(crate) async fn remove_network(env: &Env, settings: &Settings) -> Result<()> {
    let (scope, host) = (settings.scope(), NetNs::current()?);
    runtime::network::cleanup(env, &scope, &host).await.context("removing the pod network")?;
    env.crashpoint("cleanup.pod-network");
    proxy::cleanup(env, &scope, &host).await.context("removing the rules of Services")?;
    env.crashpoint("cleanup.services");
    crate::daemon::lonely::remove(env, settings).await.context("removing the node's own link")
}

/// Mounts and control groups.
pub(crate) fn remove_rest(settings: &Settings) -> Result<()> {
    for folder in [&settings.run_dir, &settings.data_dir] {
        linux::mount::unmount_below(folder).with_context(|| format!("unmounting below {}", folder.display()))?;
    }
    let groups = Hierarchies::detect()?.group(settings.scope().cgroup(""))?;
    groups.remove().context("removing control groups")
}
