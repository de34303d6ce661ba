//! Network namespaces, links, packet rules and connection tracking.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use linux::conntrack::Conntrack;
use linux::netlink::{Address, Netlink, PROTOCOL, Route, Veth};
use linux::netns::{self, NetNs};
use linux::nft::{Batch, ChainKind, Contents, Element, Family, Field, Hook, Set, Socket, Value, Verdict, reg};

fn pin(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("oxikube-linux-{}-{name}", std::process::id()))
}

async fn connect(ns: &NetNs) -> Netlink {
    let (netlink, driver) = Netlink::open_in(ns).await.unwrap();
    tokio::runtime::Handle::current().spawn(driver);
    netlink
}

#[test]
fn a_pin_keeps_a_namespace_and_its_removal_leaves_nothing() {
    let pin = pin("pin").join("net");
    drop(NetNs::create(&pin).unwrap());
    let inode = |path: &str| std::fs::metadata(path).map(|metadata| std::os::unix::fs::MetadataExt::ino(&metadata));
    let pinned = inode(pin.to_str().unwrap()).unwrap();
    let inside = NetNs::open(&pin).unwrap().run(|| inode("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(pinned, inside);
    assert_ne!(pinned, inode("/proc/thread-self/ns/net").unwrap());
    netns::delete(&pin).unwrap();
    netns::delete(&pin).unwrap();
    assert!(!pin.exists());
    std::fs::remove_dir(pin.parent().unwrap()).unwrap();
}

#[tokio::test]
async fn two_namespaces_talk_over_a_veth_pair() {
    let (here, there) = (NetNs::unpinned().unwrap(), NetNs::unpinned().unwrap());
    let (near, far) = (connect(&here).await, connect(&there).await);
    let (near_mac, far_mac) = ([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let veth = Veth { name: "near0", mac: near_mac, peer_name: "far0", peer_mac: far_mac, peer_ns: &there, mtu: 1400 };
    near.add_veth(&veth).await.unwrap();
    assert_eq!(near.add_veth(&veth).await.unwrap_err().errno(), Some(libc::EEXIST));
    let (near_link, far_link) = (near.link("near0").await.unwrap(), far.link("far0").await.unwrap());
    assert_eq!((near_link.mac, near_link.mtu, near_link.up), (Some(near_mac), 1400, true));
    assert_eq!((far_link.mac, far_link.mtu, far_link.up), (Some(far_mac), 1400, false));
    far.set_up(far_link.index).await.unwrap();

    let (near_ip, far_ip): (IpAddr, IpAddr) = ("10.9.0.1".parse().unwrap(), "10.9.0.2".parse().unwrap());
    for _again in 0..2 {
        near.add_address(near_link.index, near_ip.into()).await.unwrap();
        near.add_route(&Route::on_link(far_ip.into(), near_link.index)).await.unwrap();
        near.add_neighbour(near_link.index, far_ip, far_mac).await.unwrap();
        far.add_address(far_link.index, far_ip.into()).await.unwrap();
        far.add_neighbour(far_link.index, near_ip, near_mac).await.unwrap();
        far.add_route(&Route::on_link(near_ip.into(), far_link.index)).await.unwrap();
    }
    let default = Route { gateway: Some(near_ip), ..Route::on_link("0.0.0.0/0".parse().unwrap(), far_link.index) };
    far.add_route(&default).await.unwrap();
    let expected = Address { link: near_link.index, net: near_ip.into(), global: true };
    assert!(near.addresses().await.unwrap().contains(&expected));
    // The kernel adds IPv6 routes of its own in its own time.
    let ours = |route: &Route| route.protocol == PROTOCOL;
    let routes: Vec<Route> = near.routes().await.unwrap().into_iter().filter(ours).collect();
    assert_eq!(routes, [Route::on_link(far_ip.into(), near_link.index)]);
    assert!(far.routes().await.unwrap().contains(&default));

    let server = there.run(|| UdpSocket::bind((far_ip, 0)).unwrap()).unwrap();
    let client = here.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    client.send_to(b"hello", server.local_addr().unwrap()).unwrap();
    let (length, from) = server.recv_from(&mut [0; 16]).unwrap();
    assert_eq!((length, from.ip()), (5, near_ip));

    // An address of the link alone is nobody's source beyond it.
    near.add_link_address(near_link.index, "10.9.1.1/32".parse().unwrap()).await.unwrap();
    let far_away = Route { universal: true, ..Route::on_link("10.9.2.0/24".parse().unwrap(), near_link.index) };
    near.add_route(&far_away).await.unwrap();
    assert!(near.routes().await.unwrap().contains(&far_away));
    let source = here.run(|| {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect("10.9.2.1:9").unwrap();
        socket.local_addr().unwrap().ip()
    });
    assert_eq!(source.unwrap(), near_ip);

    assert!(far.delete_route(&default).await.unwrap());
    assert!(!far.delete_route(&default).await.unwrap());
    near.add_dummy("nowhere0").await.unwrap();
    assert!(near.link("nowhere0").await.unwrap().up && near.link("nowhere0p").await.unwrap().up);
    assert!(near.delete_link("nowhere0").await.unwrap());
    assert_eq!(near.find_link("nowhere0p").await.unwrap(), None);
    assert!(near.delete_link("near0").await.unwrap());
    assert!(!near.delete_link("near0").await.unwrap());
    assert_eq!(far.find_link("far0").await.unwrap(), None);
}

/// A table with one of everything.
fn everything(family: Family) -> Batch {
    let address = family.address();
    let range = if family == Family::Ip { "10.0.0.0/8" } else { "fd00::/8" }.parse().unwrap();
    let width = family.registers();
    let mut batch = Batch::new(family, "everything");
    batch.replace_table();
    batch.set(&Set::new("plain", &[address]));
    batch.set(&Set::new("ranges", &[address, Field::Port]).intervals());
    batch.set(&Set::verdicts("ways", &[address, Field::Protocol, Field::Port]));
    batch.set(&Set::map("servers", &[address, Field::Protocol, Field::Port, Field::Number], &[address, Field::Port]));
    batch.set(&Set::map("sticky", &[address], &[address, Field::Port]).dynamic());
    batch.chain("balance");
    batch.chain("refuse");
    batch.base_chain("pre", ChainKind::Nat, Hook::Prerouting, -100);
    batch.base_chain("post", ChainKind::Nat, Hook::Postrouting, 100);
    batch.base_chain("in", ChainKind::Filter, Hook::Input, -110);
    batch.base_chain("early", ChainKind::Filter, Hook::Prerouting, -300);
    batch.rule("pre", |rule| {
        rule.source_address(reg(0)).in_range(reg(0), &range, true).set_mark(reg(0), 0xff00, 0x1200);
    });
    batch.rule("pre", |rule| {
        rule.destination(reg(0), false).verdict_map("ways", reg(0));
    });
    batch.rule("pre", |rule| {
        rule.destination_is_local(reg(0)).destination(reg(0), true).verdict_map("ways", reg(0));
    });
    batch.rule("balance", |rule| {
        let value = reg(width + 3);
        rule.destination(reg(0), false).random(reg(width + 2), 3, 7).map("servers", reg(0), value);
        rule.source_address(reg(0)).map_remove("sticky", reg(0), value);
        rule.map_update("sticky", reg(0), value, Duration::from_secs(60)).translate_destination(value);
    });
    batch.rule("balance", |rule| {
        rule.source_is_local(reg(0)).goto("refuse");
    });
    batch.rule("post", |rule| {
        rule.destination_was_translated(reg(0)).has_mark(reg(0), 0xff00, 0x1200).masquerade();
    });
    batch.rule("in", |rule| {
        rule.connection_is_new(reg(0)).source_address(reg(0)).destination_port(reg(width));
        rule.lookup("ranges", reg(0)).jump("refuse");
    });
    batch.rule("early", |rule| {
        rule.from_loopback(reg(0), true).destination_address(reg(0)).lookup("plain", reg(0)).drop_packet();
    });
    batch.rule("refuse", |rule| {
        rule.reject();
    });
    batch
}

fn key(family: Family, last: u8, port: u16) -> Value {
    let ip: IpAddr = match family {
        Family::Ip => [10, 0, 0, last].into(),
        Family::Ip6 => [0xfd00, 0, 0, 0, 0, 0, 0, last as u16].into(),
    };
    Value::new().address(ip).protocol(17).port(port)
}

#[test]
fn what_was_committed_is_what_the_kernel_has() {
    for family in [Family::Ip, Family::Ip6] {
        let socket = Socket::open_in(&NetNs::unpinned().unwrap()).unwrap();
        assert_eq!(socket.contents(family, "everything").unwrap(), Contents::default());
        let sent = everything(family).to_string();
        socket.commit(everything(family)).unwrap();
        assert_eq!(socket.tables(family).unwrap(), ["everything"]);

        let contents = socket.contents(family, "everything").unwrap();
        for (chain, rules) in &contents.chains {
            let lines = sent.lines().filter_map(|line| {
                let added = line.strip_prefix("add rule ").and_then(|line| line.strip_prefix(&format!("{chain}: ")));
                added.or_else(|| line.strip_prefix(&format!("add chain {chain} ")))
            });
            assert_eq!(rules, &lines.collect::<Vec<_>>(), "{family:?} {chain}");
        }
        assert_eq!(contents.chains.len(), 6);
        assert_eq!(contents.sets.len(), 5);

        // Thousands of elements: several messages, one transaction.
        let ways = |count: u16| {
            (0..count).map(move |port| Element::verdict(key(family, 1, port), Verdict::Goto("balance".into())))
        };
        let mut batch = Batch::new(family, "everything");
        batch.add_elements("ways", ways(5000));
        socket.commit(batch).unwrap();
        let mut batch = Batch::new(family, "everything");
        batch.delete_elements("ways", ways(4990));
        batch.add_elements("ways", ways(1).map(|way| Element::verdict(way.key, Verdict::Drop)));
        socket.commit(batch).unwrap();
        let mut expected: Vec<_> = ways(5000).skip(4990).collect();
        expected.push(Element::verdict(key(family, 1, 0), Verdict::Drop));
        let mut found = socket.elements(family, "everything", "ways").unwrap();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);

        let length = if family == Family::Ip { 4 } else { 16 };
        let part = |last: u8, port: u16| {
            Value::from([&key(family, last, 0).bytes()[..length], &port.to_be_bytes(), &[0, 0]].concat())
        };
        let range = Element::range(part(1, 80), part(9, 89));
        let mut batch = Batch::new(family, "everything");
        batch.add_elements("ranges", [range.clone()]);
        socket.commit(batch).unwrap();
        assert_eq!(socket.elements(family, "everything", "ranges").unwrap(), [range]);

        let mut sticky = Element::value(
            key(family, 3, 0).bytes()[..length].to_vec(),
            [key(family, 4, 0).bytes()[..length].to_vec(), vec![0, 80, 0, 0]].concat(),
        );
        sticky.expiry = Some((Duration::from_secs(100), Duration::from_secs(50)));
        let mut batch = Batch::new(family, "everything");
        batch.add_elements("sticky", [sticky.clone()]);
        socket.commit(batch).unwrap();
        let found = socket.elements(family, "everything", "sticky").unwrap();
        assert_eq!((&found[0].key, &found[0].data), (&sticky.key, &sticky.data));
        let left = found[0].expiry.unwrap().1;
        assert!(left > Duration::from_secs(40) && left <= Duration::from_secs(50), "{left:?}");

        assert!(socket.delete_table(family, "everything").unwrap());
        assert!(!socket.delete_table(family, "everything").unwrap());
    }
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_step() {
    let socket = Socket::open_in(&NetNs::unpinned().unwrap()).unwrap();
    socket.commit(everything(Family::Ip)).unwrap();
    let before = socket.contents(Family::Ip, "everything").unwrap();
    let mut batch = Batch::new(Family::Ip, "everything");
    batch.chain("unfinished");
    batch.delete_elements("ways", [Element::key(key(Family::Ip, 7, 7))]);
    batch.add_elements("absent", [Element::key([0; 4])]);
    let error = socket.commit(batch).unwrap_err();
    assert_eq!(error.errno(), Some(libc::ENOENT));
    let text = error.to_string();
    assert!(text.contains("delete elements of ways: No such file") && text.contains("elements to absent"), "{text}");
    assert_eq!(socket.contents(Family::Ip, "everything").unwrap(), before);
}

#[tokio::test]
async fn udp_flows_are_forgotten_by_server() {
    let ns = NetNs::unpinned().unwrap();
    connect(&ns).await.set_up(1).await.unwrap();
    // Something has to ask for connection tracking.
    Socket::open_in(&ns).unwrap().commit(everything(Family::Ip)).unwrap();
    let bind = || ns.run(|| UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    let (client, first, second) = (bind(), bind(), bind());
    for server in [&first, &second] {
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
    }
    let conntrack = Conntrack::open_in(&ns).unwrap();
    let servers = || -> Vec<SocketAddr> {
        let mut servers: Vec<_> = conntrack.flows(17).unwrap().iter().map(|flow| flow.server.into()).collect();
        servers.sort();
        servers
    };
    let mut expected = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    expected.sort();
    assert_eq!(servers(), expected);
    let gone = first.local_addr().unwrap();
    assert_eq!(conntrack.forget(17, |flow| flow.server == (gone.ip(), gone.port())).unwrap(), 1);
    assert_eq!(conntrack.forget(17, |flow| flow.server == (gone.ip(), gone.port())).unwrap(), 0);
    assert_eq!(servers(), [second.local_addr().unwrap()]);
    assert_eq!(conntrack.flows(6).unwrap(), []);
}
