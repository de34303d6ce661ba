//! Our own pod network: a veth per pod, one route to it, no bridge.
//!
//! The node's end of every link carries the pods' gateway, an address that counts on its link only: so the node's own packets to
//! pods come from the node's own address. Both ends know each other's hardware address, and nobody asks for it.

use std::net::IpAddr;
use std::pin::Pin;

use env::Env;
use futures_util::FutureExt;
use ipnet::IpNet;
use linux::conntrack::Conntrack;
use linux::netlink::{Mac, Netlink, Route, Veth};
use linux::netns::NetNs;
use linux::nft::{self, Batch, Family};
use linux::{Scope, sysctl};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::ipam::{Ipam, Sandbox, gateway};
use super::rules::{self, Ranges};
use super::{NetworkError, NetworkFuture, NetworkStatus, PodNetwork, SandboxNetwork};

/// What [`EmbeddedNetwork::open`] needs.
#[derive(Clone)]
pub struct EmbeddedConfig {
    /// Tasks.
    pub env: Env,
    /// Names and folders.
    pub scope: Scope,
    /// The node's network namespace.
    pub host: NetNs,
    /// Where all pods of the cluster are: what stays within needs no masquerade. Empty: only this node's own range.
    pub cluster_cidrs: Vec<IpNet>,
    /// The largest packet of a pod's link.
    pub mtu: u32,
}

impl EmbeddedConfig {
    /// The calling thread's namespace, an MTU of 1500, no cluster range.
    pub fn new(env: Env, scope: Scope) -> Result<EmbeddedConfig, NetworkError> {
        let path = "/proc/thread-self/ns/net".into();
        let host = NetNs::current().map_err(|source| NetworkError::Namespace { path, source })?;
        Ok(EmbeddedConfig { env, scope, host, cluster_cidrs: Vec::new(), mtu: 1500 })
    }
}

/// The pod network that needs no other program.
pub struct EmbeddedNetwork {
    config: EmbeddedConfig,
    netlink: Netlink,
    ipam: Mutex<Ipam>,
    /// Told once there is a range and its rules.
    ready: watch::Sender<bool>,
}

const FAMILIES: [Family; 2] = [Family::Ip, Family::Ip6];
const POD_LINK: &str = "eth0";
/// The loopback link's number in every namespace.
const LOOPBACK: u32 = 1;
/// The node's end of every link: nobody else sees it, so all may be the same.
const HOST_MAC: Mac = [0xee, 0xee, 0xee, 0xee, 0xee, 0xee];

impl EmbeddedNetwork {
    /// Connects to the kernel and adopts what an earlier process recorded.
    pub async fn open(config: EmbeddedConfig) -> Result<EmbeddedNetwork, NetworkError> {
        let link = |source| NetworkError::Link { step: "connect to the node's namespace", source };
        let (netlink, driver) = Netlink::open_in(&config.host).await.map_err(link)?;
        config.env.spawn(driver);
        let ipam = Mutex::new(Ipam::open(record(&config.scope))?);
        let network = EmbeddedNetwork { config, netlink, ipam, ready: watch::Sender::new(false) };
        network.install_rules()?;
        network.tell_ready();
        Ok(network)
    }

    /// Tears down every sandbox that is not in `live`: what a crash left.
    pub async fn retain(&self, live: &[String]) -> Result<(), NetworkError> {
        let recorded: Vec<String> = self.ipam.lock().record().sandboxes.keys().cloned().collect();
        for id in recorded.iter().filter(|id| !live.contains(id)) {
            self.teardown(id).await?;
        }
        Ok(())
    }

    fn tell_ready(&self) {
        self.ready.send_replace(self.status() == NetworkStatus::Ready);
    }

    async fn set_up(&self, request: &SandboxNetwork) -> Result<Vec<IpAddr>, NetworkError> {
        let sandbox = self.ipam.lock().allocate(&request.sandbox_id, &request.ports)?;
        let result = async {
            self.connect(request, &sandbox).await?;
            match self.change_rules(&sandbox, rules::add) {
                // Somebody removed the table: with the whole one, which knows the sandbox, the others' rules come back too.
                Err(NetworkError::Rules(error)) if error.errno() == Some(ENOENT) => self.install_rules(),
                result => result,
            }
        };
        match result.await {
            Ok(()) => {
                self.forget_flows(&sandbox);
                Ok(sandbox.addresses)
            }
            Err(error) => {
                if let Err(error) = self.tear_down(&request.sandbox_id).await {
                    tracing::warn!(sandbox = request.sandbox_id, %error, "a failed network set-up can't be undone");
                }
                Err(error)
            }
        }
    }

    /// Makes the sandbox's link and gives both ends addresses and routes.
    async fn connect(&self, request: &SandboxNetwork, sandbox: &Sandbox) -> Result<(), NetworkError> {
        let step = |step: &'static str| move |source| NetworkError::Link { step, source };
        let pod_ns = NetNs::open(&request.netns)
            .map_err(|source| NetworkError::Namespace { path: request.netns.clone(), source })?;
        let (pod, driver) = Netlink::open_in(&pod_ns).await.map_err(step("connect to the pod's namespace"))?;
        self.config.env.spawn(driver);
        let (host, name) = (&self.netlink, self.config.scope.link(&sandbox.link));
        let mac = pod_mac(sandbox);
        let veth = Veth {
            name: &name,
            mac: HOST_MAC,
            peer_name: POD_LINK,
            peer_mac: mac,
            peer_ns: &pod_ns,
            mtu: self.config.mtu,
        };
        host.delete_link(&name).await.map_err(step("remove the former link"))?;
        host.add_veth(&veth).await.map_err(step("make the pod's link"))?;
        let outside = host.link(&name).await.map_err(step("find the pod's link"))?.index;
        let inside = pod.link(POD_LINK).await.map_err(step("find the pod's link"))?.index;
        pod.set_up(LOOPBACK).await.map_err(step("bring up the pod's loopback"))?;
        pod.set_up(inside).await.map_err(step("bring up the pod's link"))?;
        let ranges = self.ipam.lock().ranges();
        for address in &sandbox.addresses {
            let Some(range) = ranges.iter().find(|range| range.contains(address)) else { continue };
            let gateway = gateway(range);
            let everywhere = IpNet::new(if address.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() }, 0)
                .map_err(|_| NetworkError::InvalidPodCidr(range.to_string()))?;
            let failed = step("give the pod's link its addresses");
            host.add_link_address(outside, gateway.into()).await.map_err(failed)?;
            pod.add_address(inside, (*address).into()).await.map_err(failed)?;
            let failed = step("tell the pod's neighbours");
            host.add_neighbour(outside, *address, mac).await.map_err(failed)?;
            pod.add_neighbour(inside, gateway, HOST_MAC).await.map_err(failed)?;
            let failed = step("make the pod's routes");
            if gateway.is_ipv4() {
                pod.add_route(&Route::on_link(gateway.into(), inside)).await.map_err(failed)?;
            }
            let default = Route { gateway: Some(gateway), ..Route::on_link(everywhere, inside) };
            pod.add_route(&default).await.map_err(failed)?;
            let to_pod = Route { universal: address.is_ipv4(), ..Route::on_link((*address).into(), outside) };
            host.add_route(&to_pod).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn tear_down(&self, id: &str) -> Result<(), NetworkError> {
        let Some(sandbox) = self.ipam.lock().record().sandboxes.get(id).cloned() else { return Ok(()) };
        // The link goes first: its routes and the pod's end go with it.
        let link = |source| NetworkError::Link { step: "remove the pod's link", source };
        self.netlink.delete_link(&self.config.scope.link(&sandbox.link)).await.map_err(link)?;
        match self.change_rules(&sandbox, rules::remove) {
            Ok(()) => {}
            // A set-up that failed half-way has no elements, or the table was removed: the whole table is made anew.
            Err(NetworkError::Rules(error)) if error.errno() == Some(ENOENT) => {
                self.ipam.lock().release(id)?;
                return self.install_rules();
            }
            Err(error) => return Err(error),
        }
        self.ipam.lock().release(id)?;
        self.forget_flows(&sandbox);
        Ok(())
    }

    /// Sysctls and the table with everything recorded, if the node has a range.
    fn install_rules(&self) -> Result<(), NetworkError> {
        let ipam = self.ipam.lock();
        let ranges = Ranges { node: ipam.ranges(), cluster: self.config.cluster_cidrs.clone() };
        if ranges.node.is_empty() {
            return Ok(());
        }
        let socket = self.nft()?;
        for family in FAMILIES {
            let table = self.config.scope.table(TABLE);
            if !ranges.node.iter().any(|net| Family::of(net.addr()) == family) {
                socket.delete_table(family, &table).map_err(NetworkError::Rules)?;
                continue;
            }
            let batch = rules::table(family, &table, &ranges, ipam.record().sandboxes.values());
            socket.commit(batch).map_err(NetworkError::Rules)?;
        }
        // Only now that the rules drop what must not come in by it.
        self.set_sysctls(&ranges)
    }

    fn set_sysctls(&self, ranges: &Ranges) -> Result<(), NetworkError> {
        let record = sysctl::Record::new(&self.config.scope);
        let set = || {
            if ranges.node.iter().any(|net| net.addr().is_ipv4()) {
                record.set("net/ipv4/conf/all/route_localnet", "1")?;
                record.set("net/ipv4/ip_forward", "1")?;
            }
            if ranges.node.iter().any(|net| net.addr().is_ipv6()) {
                record.set("net/ipv6/conf/all/forwarding", "1")?;
            }
            Ok(())
        };
        let entered = self.config.host.run(set);
        let path = "/proc/self/ns/net".into();
        entered.map_err(|source| NetworkError::Namespace { path, source })?.map_err(NetworkError::Sysctl)
    }

    fn change_rules(&self, sandbox: &Sandbox, change: impl Fn(&mut Batch, &Sandbox)) -> Result<(), NetworkError> {
        let socket = self.nft()?;
        for family in FAMILIES {
            let mut batch = Batch::new(family, &self.config.scope.table(TABLE));
            change(&mut batch, sandbox);
            socket.commit(batch).map_err(NetworkError::Rules)?;
        }
        Ok(())
    }

    /// UDP flows through a host port go on to where they went before, unless they are forgotten.
    fn forget_flows(&self, sandbox: &Sandbox) {
        let udp = super::Protocol::Udp.number();
        let ports: Vec<u16> =
            sandbox.ports.iter().filter(|port| port.protocol.number() == udp).map(|port| port.host_port).collect();
        if ports.is_empty() {
            return;
        }
        let forgotten = Conntrack::open_in(&self.config.host)
            .and_then(|conntrack| conntrack.forget(udp, |flow| ports.contains(&flow.destination.1)));
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the flows of a host port can't be forgotten");
        }
    }

    fn nft(&self) -> Result<nft::Socket, NetworkError> {
        nft::Socket::open_in(&self.config.host).map_err(NetworkError::Rules)
    }
}

impl PodNetwork for EmbeddedNetwork {
    fn setup<'a>(&'a self, sandbox: &'a SandboxNetwork) -> NetworkFuture<'a, Vec<IpAddr>> {
        self.set_up(sandbox).boxed()
    }

    fn teardown<'a>(&'a self, sandbox_id: &'a str) -> NetworkFuture<'a, ()> {
        self.tear_down(sandbox_id).boxed()
    }

    fn addresses(&self, sandbox_id: &str) -> Vec<IpAddr> {
        self.ipam.lock().record().sandboxes.get(sandbox_id).map(|sandbox| sandbox.addresses.clone()).unwrap_or_default()
    }

    fn status(&self) -> NetworkStatus {
        match self.ipam.lock().ranges().is_empty() {
            false => NetworkStatus::Ready,
            true => NetworkStatus::NotReady {
                reason: "NetworkPluginNotReady",
                message: NetworkError::NoPodCidr.to_string(),
            },
        }
    }

    fn ready(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        async move {
            // The sender lives as long as this does.
            let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
        }
        .boxed()
    }

    fn set_pod_cidr<'a>(&'a self, pod_cidr: &'a str) -> NetworkFuture<'a, ()> {
        async move {
            let ranges = parse_ranges(pod_cidr)?;
            {
                let mut ipam = self.ipam.lock();
                if ipam.ranges() == ranges {
                    return Ok(());
                }
                ipam.set_ranges(&ranges)?;
            }
            self.install_rules()?;
            self.tell_ready();
            Ok(())
        }
        .boxed()
    }
}

/// Removes every link, rule and record of the scope's pods from `host`, and puts its sysctls back. Needs no running daemon;
/// again is fine.
pub async fn cleanup(env: &Env, scope: &Scope, host: &NetNs) -> Result<(), NetworkError> {
    let link = |source| NetworkError::Link { step: "remove the pods' links", source };
    let (netlink, driver) = Netlink::open_in(host).await.map_err(link)?;
    let driver = env.spawn(driver);
    for found in netlink.links().await.map_err(link)? {
        if found.name.strip_prefix(scope.link_prefix()).is_some_and(|suffix| suffix.starts_with('v')) {
            netlink.delete_link(&found.name).await.map_err(link)?;
        }
    }
    drop(netlink);
    let _ = driver.await;
    let socket = nft::Socket::open_in(host).map_err(NetworkError::Rules)?;
    for family in FAMILIES {
        socket.delete_table(family, &scope.table(TABLE)).map_err(NetworkError::Rules)?;
    }
    let restored = host.run(|| sysctl::Record::new(scope).restore());
    let path = "/proc/self/ns/net".into();
    restored.map_err(|source| NetworkError::Namespace { path, source })?.map_err(NetworkError::Sysctl)?;
    let path = record(scope);
    match std::fs::remove_file(&path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(NetworkError::Record { path, source }),
        _ => Ok(()),
    }
}

const TABLE: &str = "pods";
const ENOENT: i32 = 2;

fn record(scope: &Scope) -> std::path::PathBuf {
    scope.run("network/pods.json")
}

fn parse_ranges(text: &str) -> Result<Vec<IpNet>, NetworkError> {
    let invalid = || NetworkError::InvalidPodCidr(text.to_owned());
    let parsed: Result<Vec<IpNet>, _> = text.split(',').map(|part| part.trim().parse::<IpNet>()).collect();
    let ranges: Vec<IpNet> = parsed.map_err(|_| invalid())?.iter().map(IpNet::trunc).collect();
    let of_family = |ipv4: bool| ranges.iter().filter(|range| range.addr().is_ipv4() == ipv4).count();
    // A network, a gateway and at least one pod must fit.
    let roomy = ranges.iter().all(|range| range.max_prefix_len() - range.prefix_len() >= 2);
    if of_family(true) > 1 || of_family(false) > 1 || !roomy { Err(invalid()) } else { Ok(ranges) }
}

/// The pod's end of its link: locally administered, from its first address.
fn pod_mac(sandbox: &Sandbox) -> Mac {
    let mut mac = [0x0a, 0x58, 0, 0, 0, 0];
    match sandbox.addresses.first() {
        Some(IpAddr::V4(ip)) => mac[2..].copy_from_slice(&ip.octets()),
        Some(IpAddr::V6(ip)) => mac[2..].copy_from_slice(&ip.octets()[12..]),
        None => {}
    }
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pod_cidrs_are_one_per_family() {
        let check = |text: &str, expect: &str| {
            let parsed = match parse_ranges(text) {
                Ok(ranges) => ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            };
            assert_eq!(parsed, expect, "{text}");
        };
        check("10.244.1.0/24", "10.244.1.0/24");
        check("10.244.1.7/24,fd00::/64", "10.244.1.0/24 fd00::/64");
        for wrong in ["", "10.244.1.0", "10.0.0.0/24,10.1.0.0/24", "10.0.0.0/31", "fd00::/64,x"] {
            check(wrong, &format!("invalid pod CIDR {wrong:?}"));
        }
    }
}
