//! Traffic policies, refusals and who may come in.

use linux::nft::{Contents, Family};

use crate::world::*;

#[tokio::test]
async fn without_endpoints_connections_are_refused() {
    let world = World::new("refused", 1).await;
    let mut node = world.driver().await;
    let web = with_node_port(service("web", "10.96.0.10"), 30080);
    node.set(&web, world.here(&[]));
    let pod = &world.pods[0].ns;
    for (from, ns, address, port) in [
        ("pod", pod, "10.96.0.10", 80),
        ("node", &world.host, "10.96.0.10", 80),
        ("outside", &world.outside, "10.96.0.10", 80),
        ("pod", pod, NODE, 30080),
        ("node", &world.host, "127.0.0.1", 30080),
        ("outside", &world.outside, NODE, 30080),
        // A port that the Service doesn't have.
        ("pod", pod, "10.96.0.10", 81),
        ("node", &world.host, "10.96.0.10", 81),
    ] {
        assert_eq!(get(ns, address, port).await, "ConnectionRefused", "{from} to {address}:{port}");
    }
    assert_eq!(ask(pod, 5000, "10.96.0.10", 80).await, "ConnectionRefused");
    // An address that no Service has.
    assert!(is_silent(pod, "10.96.0.11", 80).await);
    assert!(is_silent(&world.host, "10.96.0.11", 80).await);
    // The next try succeeds.
    node.set(&web, world.here(&[1]));
    assert_eq!(get(&world.outside, NODE, 30080).await, "p1 to 192.168.50.11");
    assert_eq!(ask(pod, 5000, "10.96.0.10", 80).await, "p1 to 192.168.50.11");
}

#[tokio::test]
async fn external_policy_local_keeps_clients_addresses() {
    let world = World::new("external", 3).await;
    let mut node = world.driver().await;
    let mut web = with_node_port(service("web", "10.96.0.10"), 30080);
    web.external_local = true;
    web.external_ips = vec![ip("192.0.2.7")];
    node.set(&web, [world.here(&[1]), world.there(&[2])].concat());
    for (address, port) in [(NODE, 30080), ("192.0.2.7", 80)] {
        let outside = get_many(&world.outside, address, port, 20).await;
        assert_eq!(outside.keys().collect::<Vec<_>>(), [&format!("p1 to {OUTSIDER}")], "{address}");
        let pod = get_many(&world.pods[2].ns, address, port, 40).await;
        assert_eq!(pod.keys().collect::<Vec<_>>(), ["p1 to 10.244.1.4", "p2 to 10.244.1.4"], "{address}");
        let own = get_many(&world.host, address, port, 40).await;
        assert_eq!(own.keys().collect::<Vec<_>>(), ["p1 to 192.168.50.11", "p2 to 192.168.50.11"], "{address}");
    }
    assert_eq!(names(&get_many(&world.host, "127.0.0.1", 30080, 40).await), ["p1", "p2"]);
    // Nobody here: outsiders shall try another node.
    node.set(&web, world.there(&[2]));
    assert!(is_silent(&world.outside, NODE, 30080).await);
    assert!(is_silent(&world.outside, "192.0.2.7", 80).await);
    assert_eq!(get(&world.pods[2].ns, NODE, 30080).await, "p2 to 10.244.1.4");
    assert_eq!(get(&world.host, "127.0.0.1", 30080).await, "p2 to 192.168.50.11");
    // Nobody anywhere.
    node.set(&web, vec![]);
    assert_eq!(get(&world.outside, NODE, 30080).await, "ConnectionRefused");
    assert_eq!(get(&world.outside, "192.0.2.7", 80).await, "ConnectionRefused");
}

#[tokio::test]
async fn internal_policy_local_stays_on_the_node() {
    let world = World::new("internal", 3).await;
    let mut node = world.driver().await;
    let mut web = with_node_port(service("web", "10.96.0.10"), 30080);
    web.internal_local = true;
    node.set(&web, [world.here(&[1]), world.there(&[2])].concat());
    assert_eq!(names(&get_many(&world.pods[2].ns, "10.96.0.10", 80, 20).await), ["p1"]);
    assert_eq!(names(&get_many(&world.outside, NODE, 30080, 40).await), ["p1", "p2"]);
    node.set(&web, world.there(&[2]));
    assert!(is_silent(&world.pods[2].ns, "10.96.0.10", 80).await);
    assert_eq!(get(&world.outside, NODE, 30080).await, "p2 to 192.168.50.11");
}

#[tokio::test]
async fn a_load_balancers_address_lets_in_whom_it_shall() {
    let world = World::new("sources", 1).await;
    let mut node = world.driver().await;
    let mut web = service("web", "10.96.0.10");
    web.load_balancer_ips = vec![ip("192.0.2.9")];
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    for (sources, let_in) in
        [(&[][..], true), (&["192.168.50.0/24", "192.168.50.2/32"], true), (&["10.0.0.0/8", "192.168.51.0/24"], false)]
    {
        web.load_balancer_sources = ranges(sources);
        node.set(&web, world.here(&[1]));
        match let_in {
            true => assert_eq!(get(&world.outside, "192.0.2.9", 80).await, "p1 to 192.168.50.11", "{sources:?}"),
            false => assert!(is_silent(&world.outside, "192.0.2.9", 80).await, "{sources:?}"),
        }
        assert_eq!(get(&world.outside, "10.96.0.10", 80).await, "p1 to 192.168.50.11");
    }
}

#[tokio::test]
async fn nothing_is_left_when_services_go() {
    let world = World::new("empty", 3).await;
    let mut node = world.driver().await;
    let empty = node.driver.contents(Family::Ip).unwrap();
    let mut web = with_node_port(service("web", "10.96.0.10"), 30080);
    web.external_local = true;
    web.affinity = Some(std::time::Duration::from_secs(7));
    web.load_balancer_ips = vec![ip("192.0.2.9")];
    web.load_balancer_sources = vec!["10.0.0.0/8".parse().unwrap()];
    node.set(&web, [world.here(&[1]), world.there(&[2])].concat());
    assert_ne!(node.driver.contents(Family::Ip).unwrap(), empty);
    web.ports.clear();
    node.set(&web, vec![]);
    assert_eq!(without_affinity(node.driver.contents(Family::Ip).unwrap()), without_affinity(empty));
}

/// Clients' entries time out by themselves.
fn without_affinity(mut contents: Contents) -> Contents {
    contents.sets.remove("affinity");
    contents
}
