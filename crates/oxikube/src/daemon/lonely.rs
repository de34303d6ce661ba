//! The dummy link of a node on a machine without any other address.

use std::net::IpAddr;

use anyhow::Result;
use cluster::{LONELY_NODE_IP, Settings};
use env::Env;
use ipnet::IpNet;
use linux::netlink::Netlink;

const SUFFIX: &str = "node";

/// Makes the link, if the node's address is the one of lonely nodes. It stays until [`remove`].
pub(crate) async fn add(env: &Env, settings: &Settings) -> Result<()> {
    if settings.node_ip != IpAddr::V4(LONELY_NODE_IP) {
        return Ok(());
    }
    let (netlink, driver) = Netlink::open()?;
    env.spawn(driver);
    let name = settings.scope().link(SUFFIX);
    if netlink.find_link(&name).await?.is_none() {
        netlink.add_dummy(&name).await?;
    }
    let link = netlink.link(&name).await?;
    Ok(netlink.add_address(link.index, IpNet::from(settings.node_ip)).await?)
}

/// Removes the link; none is fine.
pub(crate) async fn remove(env: &Env, settings: &Settings) -> Result<()> {
    let (netlink, driver) = Netlink::open()?;
    env.spawn(driver);
    netlink.delete_link(&settings.scope().link(SUFFIX)).await?;
    Ok(())
}
