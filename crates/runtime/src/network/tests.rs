//! Pods, a node and an outsider, each a network namespace that ends with its test.

use std::io::Read;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::time::Duration;

use env::Env;
use linux::netlink::{Netlink, PROTOCOL, Route, Veth};
use linux::netns::NetNs;
use linux::nft::{Contents, Family, Socket};
use linux::{Scope, sysctl};

use super::*;

/// A node with an address, and an outsider who knows no way to pods.
struct Node {
    env: Env,
    scope: Scope,
    folder: PathBuf,
    host: NetNs,
    outside: NetNs,
    network: EmbeddedNetwork,
}

const NODE: &str = "192.168.50.11";
const OUTSIDER: &str = "192.168.50.2";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

async fn connect(env: &Env, ns: &NetNs) -> Netlink {
    let (netlink, driver) = Netlink::open_in(ns).await.unwrap();
    env.spawn(driver);
    netlink
}

impl Node {
    async fn new(name: &str, cidr: &str) -> Node {
        let env = Env::system();
        let folder = std::env::temp_dir().join(format!("oxikube-pods-{}-{name}", std::process::id()));
        let scope = Scope::new(name, folder.join("run"), folder.join("data"));
        let (host, outside) = (NetNs::unpinned().unwrap(), NetNs::unpinned().unwrap());
        let (near, far) = (connect(&env, &host).await, connect(&env, &outside).await);
        near.set_up(1).await.unwrap();
        let mac = |last| [2, 0, 0, 0, 0, last];
        let veth = Veth { name: "up0", mac: mac(1), peer_name: "up0", peer_mac: mac(2), peer_ns: &outside, mtu: 1500 };
        near.add_veth(&veth).await.unwrap();
        for (netlink, own, other) in [(&near, NODE, OUTSIDER), (&far, OUTSIDER, NODE)] {
            let link = netlink.link("up0").await.unwrap().index;
            netlink.set_up(link).await.unwrap();
            netlink.add_address(link, ip(own).into()).await.unwrap();
            let own6 = if own == NODE { "fd00:50::11" } else { "fd00:50::2" };
            netlink.add_address(link, ip(own6).into()).await.unwrap();
            netlink.add_route(&Route::on_link(ip(other).into(), link)).await.unwrap();
        }
        let config = EmbeddedConfig { host: host.clone(), ..EmbeddedConfig::new(env.clone(), scope.clone()).unwrap() };
        let network = EmbeddedNetwork::open(config).await.unwrap();
        if !cidr.is_empty() {
            network.set_pod_cidr(cidr).await.unwrap();
        }
        Node { env, scope, folder, host, outside, network }
    }

    async fn pod(&self, id: &str, ports: &[PortMapping]) -> Pod {
        let ns = NetNs::unpinned().unwrap();
        let addresses = self.network.setup(&request(id, &ns, ports)).await.unwrap();
        Pod { ns, address: addresses[0], addresses }
    }

    fn tables(&self) -> Vec<String> {
        Socket::open_in(&self.host).unwrap().tables(Family::Ip).unwrap()
    }

    fn contents(&self) -> Contents {
        let socket = Socket::open_in(&self.host).unwrap();
        socket.contents(Family::Ip, &self.scope.table("pods")).unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Pod {
    ns: NetNs,
    address: IpAddr,
    addresses: Vec<IpAddr>,
}

fn request(id: &str, ns: &NetNs, ports: &[PortMapping]) -> SandboxNetwork {
    SandboxNetwork {
        sandbox_id: id.to_owned(),
        netns: format!("/proc/self/fd/{}", ns.as_fd().as_raw_fd()).into(),
        pod_namespace: "default".to_owned(),
        pod_name: id.to_owned(),
        pod_uid: format!("uid-{id}"),
        ports: ports.to_vec(),
    }
}

/// Answers each TCP connection, and each UDP packet, with `name` and the client's address.
async fn serve(env: &Env, ns: &NetNs, name: &'static str, port: u16) {
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
    env.spawn(async move {
        while let Ok((mut stream, client)) = tcp.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &answer(client)).await;
        }
    });
    env.spawn(async move {
        while let Ok((_, client)) = udp.recv_from(&mut [0; 64]).await {
            let _ = udp.send_to(&answer(client), client).await;
        }
    });
}

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a new TCP connection from `ns` to `address` is answered.
async fn get(ns: &NetNs, address: impl Into<IpAddr>, port: u16) -> String {
    let to = SocketAddr::new(address.into(), port);
    let asked = ns.run_async(move || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asked.await.unwrap().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

/// What a UDP packet from `ns`, from this source port, is answered.
async fn ask(ns: &NetNs, from: u16, address: IpAddr, port: u16) -> String {
    let asked = ns.run_async(move || -> std::io::Result<String> {
        let socket = UdpSocket::bind(("0.0.0.0", from))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.connect((address, port))?;
        socket.send(b"?")?;
        let mut answer = [0; 64];
        let length = socket.recv(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
    });
    asked.await.unwrap().unwrap_or_else(|error| format!("{:?}", error.kind()))
}

fn port(protocol: Protocol, host_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping { protocol, container_port: 8080, host_port, host_ip: host_ip.map(ip) }
}

#[tokio::test]
async fn pods_reach_each_other_their_node_and_the_outside() {
    let node = Node::new("reach", "10.244.1.0/24,fd00:244::/64").await;
    let (a, b) = (node.pod("a", &[]).await, node.pod("b", &[]).await);
    assert_eq!(a.addresses, [ip("10.244.1.2"), ip("fd00:244::2")]);
    assert_eq!(node.network.addresses("b"), [ip("10.244.1.3"), ip("fd00:244::3")]);
    serve(&node.env, &a.ns, "a", 8080).await;
    serve(&node.env, &node.host, "node", 8080).await;
    serve(&node.env, &node.outside, "outside", 8080).await;
    assert_eq!(get(&b.ns, a.address, 8080).await, "a to 10.244.1.3");
    assert_eq!(get(&b.ns, a.addresses[1], 8080).await, "a to fd00:244::3");
    assert_eq!(get(&a.ns, a.address, 8080).await, "a to 10.244.1.2");
    assert_eq!(get(&a.ns, [127, 0, 0, 1], 8080).await, "a to 127.0.0.1");
    // The node comes from its own address, and so do pods when they go outside.
    assert_eq!(get(&node.host, a.address, 8080).await, format!("a to {NODE}"));
    assert_eq!(get(&node.host, a.addresses[1], 8080).await, "a to fd00:50::11");
    assert_eq!(get(&b.ns, ip(NODE), 8080).await, "node to 10.244.1.3");
    assert_eq!(ask(&b.ns, 0, ip(NODE), 8080).await, "node to 10.244.1.3");
    assert_eq!(get(&b.ns, ip("10.244.1.1"), 8080).await, "node to 10.244.1.3");
    let outside = connect(&node.env, &node.host).await;
    outside
        .add_route(&Route::on_link("192.168.50.0/24".parse().unwrap(), outside.link("up0").await.unwrap().index))
        .await
        .unwrap();
    assert_eq!(get(&b.ns, ip(OUTSIDER), 8080).await, format!("outside to {NODE}"));
}

#[tokio::test]
async fn host_ports_lead_to_their_pod() {
    let node = Node::new("ports", "10.244.1.0/24").await;
    let ports = [
        port(Protocol::Tcp, 80, None),
        port(Protocol::Udp, 53, None),
        port(Protocol::Tcp, 81, Some(NODE)),
        port(Protocol::Tcp, 82, Some("127.0.0.1")),
        port(Protocol::Tcp, 0, None),
    ];
    let (a, b) = (node.pod("a", &ports).await, node.pod("b", &[]).await);
    serve(&node.env, &a.ns, "a", 8080).await;
    let node_ip = ip(NODE);
    assert_eq!(get(&node.outside, node_ip, 80).await, format!("a to {OUTSIDER}"));
    assert_eq!(get(&node.outside, node_ip, 81).await, format!("a to {OUTSIDER}"));
    assert_eq!(get(&node.outside, node_ip, 82).await, "ConnectionRefused");
    assert_eq!(ask(&node.outside, 5000, node_ip, 53).await, format!("a to {OUTSIDER}"));
    assert_eq!(get(&b.ns, node_ip, 80).await, format!("a to {}", b.address));
    // From itself, and from the node: by another source address, for the answers to come back.
    assert_eq!(get(&a.ns, node_ip, 80).await, format!("a to {NODE}"));
    assert_eq!(get(&node.host, [127, 0, 0, 1], 80).await, format!("a to {NODE}"));
    assert_eq!(get(&node.host, [127, 0, 0, 1], 81).await, "ConnectionRefused");
    assert_eq!(get(&node.host, [127, 0, 0, 1], 82).await, format!("a to {NODE}"));
    assert_eq!(get(&node.host, node_ip, 80).await, format!("a to {NODE}"));

    // A firewall that flushed all rules is made good with the next pod.
    assert!(Socket::open_in(&node.host).unwrap().delete_table(Family::Ip, &node.scope.table("pods")).unwrap());
    assert_eq!(get(&node.outside, node_ip, 80).await, "ConnectionRefused");
    let _another = node.pod("another", &[]).await;
    assert_eq!(get(&node.outside, node_ip, 80).await, format!("a to {OUTSIDER}"));

    // The same flow reaches the next holder of the port.
    node.network.teardown("a").await.unwrap();
    assert_eq!(get(&node.outside, node_ip, 80).await, "ConnectionRefused");
    let c = node.pod("c", &ports).await;
    serve(&node.env, &c.ns, "c", 8080).await;
    assert_eq!(ask(&node.outside, 5000, node_ip, 53).await, format!("c to {OUTSIDER}"));
}

#[tokio::test]
async fn nobody_outside_reaches_the_nodes_loopback() {
    let node = Node::new("loopback", "10.244.1.0/24").await;
    let bound = node.host.run(|| UdpSocket::bind("127.0.0.1:7000").unwrap()).unwrap();
    bound.set_read_timeout(Some(PATIENCE)).unwrap();
    // The outsider's own loopback is down, so 127.0.0.0/8 can be somewhere else.
    let netlink = connect(&node.env, &node.outside).await;
    let link = netlink.link("up0").await.unwrap().index;
    let way = Route { gateway: Some(ip(NODE)), ..Route::on_link("127.0.0.0/8".parse().unwrap(), link) };
    netlink.add_route(&way).await.unwrap();
    let send = || {
        let socket = UdpSocket::bind((OUTSIDER, 0)).unwrap();
        socket.send_to(b"evil", "127.0.0.1:7000").unwrap();
    };
    node.outside.run(send).unwrap();
    // It was handled when a packet that came after it was.
    serve(&node.env, &node.host, "node", 8080).await;
    assert_eq!(ask(&node.outside, 0, ip(NODE), 8080).await, format!("node to {OUTSIDER}"));
    bound.set_nonblocking(true).unwrap();
    assert_eq!(bound.recv(&mut [0; 8]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    // It is our rule that keeps it out.
    bound.set_nonblocking(false).unwrap();
    assert!(Socket::open_in(&node.host).unwrap().delete_table(Family::Ip, &node.scope.table("pods")).unwrap());
    node.outside.run(send).unwrap();
    assert_eq!(bound.recv(&mut [0; 8]).unwrap(), 4);
}

#[tokio::test]
async fn teardown_and_failed_setups_leave_nothing() {
    let node = Node::new("teardown", "10.244.1.0/24").await;
    let netlink = connect(&node.env, &node.host).await;
    let (links, empty) = (netlink.links().await.unwrap(), node.contents());
    let taken = [port(Protocol::Tcp, 80, None)];
    let a = node.pod("a", &taken).await;
    let with_a = node.contents();
    // Again for the same sandbox: the same.
    assert_eq!(node.network.setup(&request("a", &a.ns, &taken)).await.unwrap(), [a.address]);
    assert_eq!(node.contents(), with_a);
    let error = node.network.setup(&request("b", &a.ns, &taken)).await.unwrap_err();
    assert_eq!(error.to_string(), "host port 80/TCP is taken by sandbox a");
    let missing = SandboxNetwork { netns: "/nowhere".into(), ..request("b", &a.ns, &[]) };
    let error = node.network.setup(&missing).await.unwrap_err();
    assert_eq!(error.to_string(), "network namespace /nowhere");
    assert_eq!(node.network.addresses("b"), Vec::<IpAddr>::new());
    assert_eq!(node.contents(), with_a);
    // The namespace is gone, and its link with it.
    drop(a);
    node.network.teardown("a").await.unwrap();
    node.network.teardown("a").await.unwrap();
    assert_eq!((netlink.links().await.unwrap(), node.contents()), (links, empty));
}

#[tokio::test]
async fn a_restart_adopts_and_cleanup_leaves_nothing() {
    let node = Node::new("restart", "").await;
    assert!(matches!(node.network.status(), NetworkStatus::NotReady { reason: "NetworkPluginNotReady", .. }));
    assert_eq!(node.tables(), Vec::<String>::new());
    let error = node.network.setup(&request("a", &node.host, &[])).await.unwrap_err();
    assert_eq!(error.to_string(), "the node has no pod CIDR yet");
    let told = tokio::join!(node.network.ready(), node.network.set_pod_cidr("10.244.1.0/24")).1;
    told.unwrap();
    assert_eq!(node.network.status(), NetworkStatus::Ready);
    let netlink = connect(&node.env, &node.host).await;
    // The kernel adds and removes IPv6 routes of its own in its own time.
    let routes = async || {
        let routes = netlink.routes().await.unwrap();
        routes.into_iter().filter(|route| route.protocol == PROTOCOL).collect::<Vec<_>>()
    };
    let before = (netlink.links().await.unwrap(), routes().await);
    let (a, _b) = (node.pod("a", &[port(Protocol::Tcp, 80, None)]).await, node.pod("b", &[]).await);
    serve(&node.env, &a.ns, "a", 8080).await;
    let rules = node.contents();

    let config = EmbeddedConfig {
        host: node.host.clone(),
        ..EmbeddedConfig::new(node.env.clone(), node.scope.clone()).unwrap()
    };
    let again = EmbeddedNetwork::open(config).await.unwrap();
    assert_eq!((again.status(), again.addresses("a")), (NetworkStatus::Ready, a.addresses.clone()));
    assert_eq!(node.contents(), rules);
    again.set_pod_cidr("10.244.1.0/24").await.unwrap();
    again.retain(&["a".to_owned()]).await.unwrap();
    assert_eq!(again.addresses("b"), Vec::<IpAddr>::new());
    assert_eq!(get(&node.outside, ip(NODE), 80).await, format!("a to {OUTSIDER}"));
    assert_eq!(node.pod("c", &[]).await.address, ip("10.244.1.4"));

    let forwarding = || node.host.run(|| sysctl::read("net/ipv4/ip_forward").unwrap()).unwrap();
    assert_eq!(forwarding(), "1");
    for _again in 0..2 {
        cleanup(&node.env, &node.scope, &node.host).await.unwrap();
        assert_eq!(node.tables(), Vec::<String>::new());
        assert_eq!((netlink.links().await.unwrap(), routes().await), before);
        assert_eq!(forwarding(), "0");
    }
}

#[tokio::test]
async fn fifty_pods_at_once() {
    let node = Node::new("fifty", "10.244.1.0/24").await;
    let spaces: Vec<NetNs> = (0..50).map(|_| NetNs::unpinned().unwrap()).collect();
    let requests: Vec<_> = spaces.iter().enumerate().map(|(n, ns)| request(&format!("pod-{n}"), ns, &[])).collect();
    let begun = node.env.monotonic();
    let all =
        futures_util::future::try_join_all(requests.iter().map(|request| node.network.setup(request))).await.unwrap();
    tracing::info!(elapsed = ?begun.elapsed(), "fifty pods");
    let distinct: std::collections::BTreeSet<IpAddr> = all.into_iter().flatten().collect();
    assert_eq!(distinct.len(), 50);
    serve(&node.env, &spaces[49], "last", 8080).await;
    let last = node.network.addresses("pod-49")[0];
    let first = node.network.addresses("pod-0")[0];
    assert_eq!(get(&spaces[0], last, 8080).await, format!("last to {first}"));
    for request in &requests {
        node.network.teardown(&request.sandbox_id).await.unwrap();
    }
}
