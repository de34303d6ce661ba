//! Removes what a cluster has on the machine while no daemon of it runs.

use anyhow::{Context, Result};
use cluster::Settings;
use env::Env;
use futures_util::future::BoxFuture;
use linux::cgroup::Hierarchies;
use linux::netns::NetNs;

use crate::daemon::node_runtime;

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
        }
        remove_network(&env, &settings).await?;
        remove_rest(&settings)
    })
}

/// Links, routes, tables and changed settings of the kernel.
pub(crate) async fn remove_network(env: &Env, settings: &Settings) -> Result<()> {
    let (scope, host) = (settings.scope(), NetNs::current()?);
    runtime::network::cleanup(env, &scope, &host).await.context("removing the pod network")?;
    proxy::cleanup(env, &scope, &host).await.context("removing the rules of Services")?;
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
