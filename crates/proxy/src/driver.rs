//! What touches the kernel: the tables, the route to the service range, settings, and stale UDP flows.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use apimachinery::ObjectKey;
use env::Env;
use ipnet::IpNet;
use linux::conntrack::{self, Conntrack, Flow};
use linux::netlink::{self, Netlink, Route};
use linux::netns::{self, NetNs};
use linux::nft::{self, Family};
use linux::{Scope, sysctl};

use crate::layout;
use crate::plan::{Balance, Empty, Vip};
use crate::table::{Changes, Table};

/// The kernel refused something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// nftables.
    #[error("packet rules")]
    Rules(#[from] nft::Error),
    /// The connection table.
    #[error("connection tracking")]
    Conntrack(#[from] conntrack::Error),
    /// The route to the service range.
    #[error("the route to Services")]
    Route(#[from] netlink::Error),
    /// A setting.
    #[error("kernel setting")]
    Sysctl(#[from] sysctl::Error),
    /// The node's network namespace.
    #[error("the node's network namespace")]
    Namespace(#[from] netns::Error),
}

/// What the static rules depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    /// All pods: clients outside of these are masqueraded on their way to cluster addresses. Empty: nobody is.
    pub pod_cidrs: Vec<IpNet>,
    /// All cluster addresses. Those of a family that has no range here are not served.
    pub service_cidrs: Vec<IpNet>,
    /// The packet mark of what is to be masqueraded.
    pub mark: u32,
    /// The bits of packet marks that are ours.
    pub mark_mask: u32,
}

/// Every bit that a [`Scope`]'s mark may have.
const MARK_MASK: u32 = 0x3fff_4000;
const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
const TABLE: &str = "services";
const UDP: u8 = 17;

impl Network {
    /// A network whose marks are the scope's.
    pub fn new(scope: &Scope, pod_cidrs: Vec<IpNet>, service_cidrs: Vec<IpNet>) -> Network {
        Network { pod_cidrs, service_cidrs, mark: scope.mark(), mark_mask: MARK_MASK }
    }

    /// The families that have Services.
    pub fn families(&self) -> Vec<Family> {
        FAMILIES.into_iter().filter(|family| self.services(*family).next().is_some()).collect()
    }

    pub(crate) fn pods(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.pod_cidrs.iter().filter(move |range| Family::of(range.addr()) == family).map(IpNet::trunc)
    }

    pub(crate) fn services(&self, family: Family) -> impl Iterator<Item = IpNet> {
        self.service_cidrs.iter().filter(move |range| Family::of(range.addr()) == family).map(IpNet::trunc)
    }
}

/// One node's tables. Its calls block for microseconds, a full load of ten thousand Services for a quarter of a second.
pub struct Driver {
    scope: Scope,
    host: NetNs,
    network: Network,
    socket: nft::Socket,
    conntrack: Conntrack,
}

impl Driver {
    /// Connects to `host`'s kernel tables and finds out whether they can be used. Changes nothing.
    pub fn open(scope: Scope, host: NetNs, network: Network) -> Result<Driver, Error> {
        let (socket, conntrack) = (nft::Socket::open_in(&host)?, Conntrack::open_in(&host)?);
        for family in network.families() {
            socket.tables(family)?;
        }
        Ok(Driver { scope, host, network, socket, conntrack })
    }

    /// The families it serves.
    pub fn families(&self) -> Vec<Family> {
        self.network.families()
    }

    /// Tells when anybody else takes something out of our tables. Must be called within a tokio runtime.
    pub fn losses(&self) -> Result<nft::Losses, Error> {
        Ok(nft::Losses::open_in(&self.host, &self.scope.table(TABLE), &self.socket)?)
    }

    /// Makes the kernel's tables what `table` is, each family at once: no connection is disturbed, and clients keep the
    /// endpoints they are used to.
    pub fn replace(&self, table: &Table) -> Result<(), Error> {
        let name = self.scope.table(TABLE);
        for family in self.families() {
            let affinity = self.socket.elements(family, &name, layout::AFFINITY)?;
            self.socket.commit(table.batch(family, &name, &self.network, affinity))?;
        }
        let record = sysctl::Record::new(&self.scope);
        // Only now that the rules drop what must not come in by it.
        let set = || match self.families().contains(&Family::Ip) {
            true => record
                .set("net/ipv4/conf/all/route_localnet", "1")
                .and_then(|()| record.set("net/ipv4/ip_forward", "1")),
            false => Ok(()),
        };
        Ok(self.host.run(set)??)
    }

    /// Makes the difference. After an error the kernel's tables are as they were, and [`Driver::replace`] is due.
    pub fn apply(&self, changes: &Changes) -> Result<(), Error> {
        let name = self.scope.table(TABLE);
        for family in self.families() {
            self.socket.commit(changes.batch(family, &name, &self.network))?;
        }
        Ok(())
    }

    /// What the kernel has.
    pub fn contents(&self, family: Family) -> Result<nft::Contents, Error> {
        Ok(self.socket.contents(family, &self.scope.table(TABLE))?)
    }

    /// Makes the service range routable: a packet without a route is refused before it can be led to an endpoint.
    ///
    /// The route leads to a link of our own, which no packet ever takes: what the rules don't lead elsewhere, they refuse. It
    /// can't be the loopback link, through which IPv4 sends no refusals and IPv6 no packets.
    pub async fn add_routes(&self, env: &Env) -> Result<(), Error> {
        let (netlink, driver) = Netlink::open_in(&self.host).await?;
        let driver = linked(env, driver);
        let link = self.nowhere(&netlink).await?;
        for range in &self.network.service_cidrs {
            // No source address of its own: the kernel would drop the route with that address.
            let universal = range.addr().is_ipv4();
            netlink.add_route(&Route { universal, ..Route::on_link(range.trunc(), link) }).await?;
        }
        drop(netlink);
        driver.await;
        Ok(())
    }

    /// The link that leads nowhere; made if it is missing.
    async fn nowhere(&self, netlink: &Netlink) -> Result<u32, Error> {
        let name = nowhere_name(&self.scope);
        if netlink.find_link(&name).await?.is_none() {
            netlink.add_dummy(&name).await?;
        }
        Ok(netlink.link(&name).await?.index)
    }

    /// Forgets UDP flows to these virtual addresses that lead to nobody's endpoint; returns their number.
    pub(crate) fn forget_flows(&self, stale: &StaleFlows) -> Result<usize, Error> {
        if stale.vips.is_empty() {
            return Ok(0);
        }
        Ok(self.conntrack.forget(UDP, |flow| stale.matches(flow))?)
    }

    /// The node's addresses, which flows to node ports have as their destinations.
    pub(crate) async fn addresses(&self, env: &Env) -> Result<BTreeSet<IpAddr>, Error> {
        let (netlink, driver) = Netlink::open_in(&self.host).await?;
        let driver = linked(env, driver);
        let addresses = netlink.addresses().await?.iter().map(|address| address.net.addr()).collect();
        drop(netlink);
        driver.await;
        Ok(addresses)
    }
}

type Servers = BTreeSet<(IpAddr, u16)>;

/// Which flows go the wrong way.
#[derive(Debug, Default)]
pub(crate) struct StaleFlows {
    /// Where each changed UDP address leads now.
    vips: BTreeMap<(Option<IpAddr>, u16), Servers>,
    /// The node's own addresses.
    pub(crate) node: BTreeSet<IpAddr>,
}

impl StaleFlows {
    pub(crate) fn new<'a>(table: &Table, changed: impl Iterator<Item = &'a Vip>) -> StaleFlows {
        let mut stale = StaleFlows::default();
        for vip in changed.filter(|vip| vip.protocol == UDP) {
            let servers = stale.vips.entry((vip.address, vip.port)).or_default();
            if let Some(balance) = table.balance(vip) {
                servers.extend(&balance.endpoints);
                servers.extend(balance.internal.iter().flatten());
            }
        }
        stale
    }

    /// Whether [`StaleFlows::node`] matters.
    pub(crate) fn any_node_port(&self) -> bool {
        self.vips.keys().any(|(address, _)| address.is_none())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.vips.is_empty()
    }

    fn matches(&self, flow: &Flow) -> bool {
        let (ip, port) = flow.destination;
        let servers = self.vips.get(&(Some(ip), port)).or_else(|| {
            let node_port = self.vips.get(&(None, port));
            node_port.filter(|_| self.node.contains(&ip))
        });
        // The node's own sockets may have a node port's number while no Service has it: leave an untranslated flow alone then.
        servers.is_some_and(|servers| {
            !servers.contains(&flow.server) && (flow.server != flow.destination || !servers.is_empty())
        })
    }
}

/// Finds out whether this kernel can do all that Services need, in a network namespace of its own that is gone afterwards.
pub fn probe(scope: &Scope) -> Result<(), Error> {
    let ranges = |text: &str| text.parse().map(|range| vec![range]).unwrap_or_default();
    let network = Network::new(scope, ranges("10.244.0.0/16"), ranges("10.96.0.0/12"));
    let driver = Driver::open(scope.clone(), NetNs::unpinned()?, network)?;
    let mut table = Table::new();
    // One Service that uses everything.
    let vip = Vip { family: Family::Ip, address: Some([10, 96, 0, 1].into()), protocol: UDP, port: 53 };
    let balance = Balance {
        endpoints: vec![([10, 244, 0, 2].into(), 53)],
        internal: Some(vec![([10, 244, 0, 2].into(), 53)]),
        local: vec![([10, 244, 0, 2].into(), 53)],
        masquerade: true,
        affinity: Some(std::time::Duration::from_secs(1)),
        empty: Empty::Reject,
        sources: ranges("10.0.0.0/8"),
        cluster_ip: true,
    };
    table.set(&ObjectKey::default(), vec![(vip, balance)], &mut Changes::default());
    driver.socket.commit(table.batch(Family::Ip, &scope.table(TABLE), &driver.network, Vec::new()))?;
    driver.conntrack.flows(UDP)?;
    Ok(())
}

/// Removes the tables, the link and the routes of the scope's Services from `host`, and puts its settings back. Needs no running proxy; again
/// is fine.
pub async fn cleanup(env: &Env, scope: &Scope, host: &NetNs) -> Result<(), Error> {
    let socket = nft::Socket::open_in(host)?;
    for family in FAMILIES {
        socket.delete_table(family, &scope.table(TABLE))?;
    }
    let (netlink, driver) = Netlink::open_in(host).await?;
    let driver = linked(env, driver);
    // The routes go with their link.
    netlink.delete_link(&nowhere_name(scope)).await?;
    drop(netlink);
    driver.await;
    Ok(host.run(|| sysctl::Record::new(scope).restore())??)
}

fn nowhere_name(scope: &Scope) -> String {
    scope.link("services")
}

/// Runs a connection's driver; the future ends with it.
fn linked(env: &Env, driver: netlink::Driver) -> impl Future<Output = ()> {
    let task = env.spawn(driver);
    async {
        let _ = task.await;
    }
}
