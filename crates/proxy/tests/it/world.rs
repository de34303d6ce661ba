//! A node, pods and an outsider, each a network namespace.

use std::collections::BTreeMap;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::time::Duration;

use apimachinery::ObjectKey;
use env::Env;
use linux::Scope;
use linux::netlink::{Netlink, Route, Veth};
use linux::netns::NetNs;
use linux::sysctl;
use proxy::{Changes, Driver, Endpoint, Endpoints, Locality, Network, Service, ServicePort, Table, plan};

pub const NODE: &str = "192.168.50.11";
pub const OUTSIDER: &str = "192.168.50.2";
pub const GATEWAY: &str = "10.244.1.1";
pub const NODE6: &str = "fd00:50::11";
pub const OUTSIDER6: &str = "fd00:50::2";
/// Longer than anything takes here that is answered at all.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long one connection may take. The kernel sends a flow's later packets where it sent the first, even if that was
/// before there were rules: whoever waits for rules has to connect again. Long enough for a refusal, of which the kernel sends one a second.
const CONNECT: Duration = Duration::from_secs(4);
/// How long to listen for an answer that must not come.
const SILENCE: Duration = Duration::from_millis(400);

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub struct World {
    pub env: Env,
    pub scope: Scope,
    folder: PathBuf,
    pub host: NetNs,
    pub outside: NetNs,
    pub pods: Vec<Pod>,
    netlink: Netlink,
}

pub struct Pod {
    pub ns: NetNs,
    pub ip: IpAddr,
    pub ip6: IpAddr,
}

impl World {
    /// A node with `pods` pods, which answer on port 8080 with their names (p1, p2, ...) and the client's address.
    pub async fn new(name: &str, pods: u8) -> World {
        let env = Env::system();
        let folder = std::env::temp_dir().join(format!("oxikube-proxy-{}-{name}", std::process::id()));
        let scope = Scope::new(name, folder.join("run"), folder.join("data"));
        let (host, outside) = (NetNs::unpinned().unwrap(), NetNs::unpinned().unwrap());
        let netlink = connect(&env, &host).await;
        netlink.set_up(1).await.unwrap();
        let mut world = World { env, scope, folder, host, outside, pods: Vec::new(), netlink };
        world.host.run(|| sysctl::write("net/ipv6/conf/all/forwarding", "1").unwrap()).unwrap();
        let outside = world.outside.clone();
        let far = world.join(&outside, "up0", [&[NODE, NODE6], &[OUTSIDER, OUTSIDER6]], false).await;
        let link = world.netlink.link("up0").await.unwrap().index;
        for (range, gateway) in [("0.0.0.0/0", OUTSIDER), ("::/0", OUTSIDER6)] {
            let route = Route { gateway: Some(ip(gateway)), ..Route::on_link(range.parse().unwrap(), link) };
            world.netlink.add_route(&route).await.unwrap();
        }
        let link = far.link("eth0").await.unwrap().index;
        for (range, gateway) in [("10.0.0.0/8", NODE), ("192.0.2.0/24", NODE), ("fd00:96::/112", NODE6)] {
            let route = Route { gateway: Some(ip(gateway)), ..Route::on_link(range.parse().unwrap(), link) };
            far.add_route(&route).await.unwrap();
        }
        for number in 1..=pods {
            let pod = Pod {
                ns: NetNs::unpinned().unwrap(),
                ip: [10, 244, 1, number + 1].into(),
                ip6: ip(&format!("fd00:244::{:x}", number + 1)),
            };
            let (name, own, own6) = (format!("p{number}"), pod.ip.to_string(), pod.ip6.to_string());
            let inside = world.join(&pod.ns, &name, [&[GATEWAY, "fe80::1"], &[&own, &own6]], true).await;
            inside.set_up(1).await.unwrap();
            let link = inside.link("eth0").await.unwrap().index;
            for (range, gateway) in [("0.0.0.0/0", GATEWAY), ("::/0", "fe80::1")] {
                let route = Route { gateway: Some(ip(gateway)), ..Route::on_link(range.parse().unwrap(), link) };
                inside.add_route(&route).await.unwrap();
            }
            serve(&world.env, &pod.ns, name, 8080).await;
            world.pods.push(pod);
        }
        world
    }

    /// Connects `ns` to the node: addresses of the node's end, and of the other. Towards pods the node's are only the link's.
    async fn join(&self, ns: &NetNs, name: &str, addresses: [&[&str]; 2], pod: bool) -> Netlink {
        let far = connect(&self.env, ns).await;
        let (near_mac, far_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let veth = Veth { name, mac: near_mac, peer_name: "eth0", peer_mac: far_mac, peer_ns: ns, mtu: 1500 };
        self.netlink.add_veth(&veth).await.unwrap();
        for (netlink, link, own, others, mac) in [
            (&self.netlink, name, addresses[0], addresses[1], far_mac),
            (&far, "eth0", addresses[1], addresses[0], near_mac),
        ] {
            let link = netlink.link(link).await.unwrap().index;
            netlink.set_up(link).await.unwrap();
            for (own, other) in own.iter().zip(others) {
                let to_pod = pod && std::ptr::eq(netlink, &self.netlink);
                match to_pod {
                    true => netlink.add_link_address(link, ip(own).into()).await.unwrap(),
                    false => netlink.add_address(link, ip(own).into()).await.unwrap(),
                }
                netlink.add_neighbour(link, ip(other), mac).await.unwrap();
                if *other != "fe80::1" {
                    let universal = to_pod && ip(other).is_ipv4();
                    netlink.add_route(&Route { universal, ..Route::on_link(ip(other).into(), link) }).await.unwrap();
                }
            }
        }
        far
    }

    /// A driver for the node's tables, with the usual ranges.
    pub async fn driver(&self) -> Node {
        let network = network(&self.scope);
        let driver = Driver::open(self.scope.clone(), self.host.clone(), network).unwrap();
        driver.add_routes(&self.env).await.unwrap();
        driver.replace(&Table::new()).unwrap();
        Node { driver, table: Table::new(), here: Locality { node: "here".into(), zone: String::new() } }
    }

    /// Endpoints on this node, by pod number.
    pub fn here(&self, pods: &[usize]) -> Vec<Endpoint> {
        pods.iter().map(|number| self.endpoint(*number, "here")).collect()
    }

    /// Endpoints that claim to be on another node.
    pub fn there(&self, pods: &[usize]) -> Vec<Endpoint> {
        pods.iter().map(|number| self.endpoint(*number, "there")).collect()
    }

    pub fn endpoint(&self, pod: usize, node: &str) -> Endpoint {
        let address = Some((self.pods[pod - 1].ip, 8080));
        Endpoint { address, ready: true, serving: true, node: node.to_owned(), ..Endpoint::default() }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub fn network(scope: &Scope) -> Network {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    Network::new(scope, ranges(&["10.244.0.0/16", "fd00:244::/64"]), ranges(&["10.96.0.0/12", "fd00:96::/112"]))
}

pub async fn connect(env: &Env, ns: &NetNs) -> Netlink {
    let (netlink, driver) = Netlink::open_in(ns).await.unwrap();
    env.spawn(driver);
    netlink
}

/// The node's tables under a test's control.
pub struct Node {
    pub driver: Driver,
    pub table: Table,
    here: Locality,
}

impl Node {
    /// Gives the Service these endpoints at each of its ports.
    pub fn set(&mut self, service: &Service, endpoints: Vec<Endpoint>) {
        let ports = service.ports.iter().map(|port| ((port.name.clone(), port.protocol), endpoints.clone()));
        let endpoints: Endpoints = ports.collect();
        let wanted = plan(service, &endpoints, &self.here, &self.driver.families());
        let mut changes = Changes::default();
        self.table.set(&service.key, wanted, &mut changes);
        self.driver.apply(&changes).unwrap();
    }
}

/// A Service with a TCP and a UDP port 80.
pub fn service(name: &str, cluster_ip: &str) -> Service {
    let port = |name: &str, protocol| ServicePort { name: name.into(), protocol, port: 80, node_port: None };
    Service {
        key: ObjectKey { namespace: "default".into(), name: name.into() },
        cluster_ips: vec![ip(cluster_ip)],
        external_ips: vec![],
        load_balancer_ips: vec![],
        load_balancer_sources: vec![],
        affinity: None,
        internal_local: false,
        external_local: false,
        ports: vec![port("http", 6), port("dns", 17)],
    }
}

/// The same with node port `number` for TCP.
pub fn with_node_port(mut service: Service, number: u16) -> Service {
    service.ports[0].node_port = Some(number);
    service
}

/// Answers each TCP connection, and each UDP packet, with `name` and the client's address.
pub async fn serve(env: &Env, ns: &NetNs, name: String, port: u16) {
    let bound = ns.run_async(move || {
        let any = SocketAddr::from(([0_u16; 8], port));
        (std::net::TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap())
    });
    let (tcp, udp) = bound.await.unwrap();
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
    let udp = tokio::net::UdpSocket::from_std(udp).unwrap();
    let answer = move |client: SocketAddr| format!("{name} to {}", client.ip().to_canonical()).into_bytes();
    let (answer_tcp, answer_udp) = (answer.clone(), answer);
    env.spawn(async move {
        while let Ok((mut stream, client)) = tcp.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &answer_tcp(client)).await;
        }
    });
    env.spawn(async move {
        while let Ok((_, client)) = udp.recv_from(&mut [0; 64]).await {
            let _ = udp.send_to(&answer_udp(client), client).await;
        }
    });
}

/// What a new TCP connection from `ns` is answered.
pub async fn get(ns: &NetNs, address: &str, port: u16) -> String {
    connect_many(ns, address, port, 1, CONNECT).await.into_keys().next().unwrap()
}

/// Whether nothing at all answers a TCP connection from `ns`.
pub async fn is_silent(ns: &NetNs, address: &str, port: u16) -> bool {
    let to = SocketAddr::new(ip(address), port);
    let tried = ns.run_async(move || TcpStream::connect_timeout(&to, SILENCE)).await.unwrap();
    tried.is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

/// What so many TCP connections, one after the other, are answered, and how often.
pub async fn get_many(ns: &NetNs, address: &str, port: u16, count: usize) -> BTreeMap<String, usize> {
    connect_many(ns, address, port, count, PATIENCE).await
}

async fn connect_many(
    ns: &NetNs,
    address: &str,
    port: u16,
    count: usize,
    connect: Duration,
) -> BTreeMap<String, usize> {
    let to = SocketAddr::new(ip(address), port);
    let one = move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, connect)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let asked = ns.run_async(move || {
        let mut answers = BTreeMap::new();
        for _ in 0..count {
            *answers.entry(one().unwrap_or_else(|error| format!("{:?}", error.kind()))).or_default() += 1;
        }
        answers
    });
    asked.await.unwrap()
}

/// The names of who answered.
pub fn names(answers: &BTreeMap<String, usize>) -> Vec<&str> {
    let mut names: Vec<_> = answers.keys().map(|answer| answer.split(' ').next().unwrap()).collect();
    names.dedup();
    names
}

/// What a UDP packet from this source port is answered. A packet, or its answer, may get lost while flows are forgotten.
pub async fn ask(ns: &NetNs, from: u16, address: &str, port: u16) -> String {
    let to = SocketAddr::new(ip(address), port);
    let asked = ns.run_async(move || -> std::io::Result<String> {
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let socket = UdpSocket::bind((any, from))?;
        socket.set_read_timeout(Some(SILENCE))?;
        socket.connect(to)?;
        let mut answer = [0; 64];
        for _ in 0..5 {
            socket.send(b"?")?;
            match socket.recv(&mut answer) {
                Ok(length) => return Ok(String::from_utf8_lossy(&answer[..length]).into_owned()),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Err(std::io::ErrorKind::TimedOut.into())
    });
    asked.await.unwrap().unwrap_or_else(|error| format!("{:?}", error.kind()))
}
