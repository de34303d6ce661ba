//! Who answers, and whom they see.

use std::time::Duration;

use crate::world::*;

#[tokio::test]
async fn a_cluster_address_is_shared_by_its_endpoints() {
    let world = World::new("shared", 3).await;
    let mut node = world.driver().await;
    node.set(&service("web", "10.96.0.10"), world.here(&[2, 3]));
    // Pods are seen as they are, everybody else as the node.
    let from_pod = get_many(&world.pods[0].ns, "10.96.0.10", 80, 60).await;
    assert_eq!(from_pod.keys().collect::<Vec<_>>(), ["p2 to 10.244.1.2", "p3 to 10.244.1.2"]);
    assert!(from_pod.values().all(|count| *count >= 10), "{from_pod:?}");
    let from_node = get_many(&world.host, "10.96.0.10", 80, 40).await;
    assert_eq!(from_node.keys().collect::<Vec<_>>(), ["p2 to 192.168.50.11", "p3 to 192.168.50.11"]);
    let from_outside = get_many(&world.outside, "10.96.0.10", 80, 40).await;
    assert_eq!(from_outside.keys().collect::<Vec<_>>(), ["p2 to 192.168.50.11", "p3 to 192.168.50.11"]);
    let mut by_udp = Vec::new();
    for from in 5000..5030 {
        by_udp.push(ask(&world.pods[0].ns, from, "10.96.0.10", 80).await);
    }
    by_udp.sort();
    by_udp.dedup();
    assert_eq!(by_udp, ["p2 to 10.244.1.2", "p3 to 10.244.1.2"]);

    node.set(&service("web", "10.96.0.10"), world.here(&[1, 2, 3]));
    assert_eq!(names(&get_many(&world.host, "10.96.0.10", 80, 60).await), ["p1", "p2", "p3"]);
    node.set(&service("web", "10.96.0.10"), world.here(&[3]));
    assert_eq!(names(&get_many(&world.host, "10.96.0.10", 80, 10).await), ["p3"]);
}

#[tokio::test]
async fn a_pod_reaches_itself_through_its_service() {
    let world = World::new("hairpin", 2).await;
    let mut node = world.driver().await;
    node.set(&with_node_port(service("web", "10.96.0.10"), 30080), world.here(&[1]));
    let pod = &world.pods[0].ns;
    assert_eq!(get(pod, "10.96.0.10", 80).await, "p1 to 192.168.50.11");
    assert_eq!(get(pod, NODE, 30080).await, "p1 to 192.168.50.11");
    assert_eq!(ask(pod, 5000, "10.96.0.10", 80).await, "p1 to 192.168.50.11");
    assert_eq!(get(&world.pods[1].ns, "10.96.0.10", 80).await, "p1 to 10.244.1.3");
}

#[tokio::test]
async fn node_ports_are_on_every_address_of_the_node() {
    let world = World::new("nodeport", 2).await;
    let mut node = world.driver().await;
    node.set(&with_node_port(service("web", "10.96.0.10"), 30080), world.here(&[1, 2]));
    let seen = ["p1 to 192.168.50.11", "p2 to 192.168.50.11"];
    for (ns, address) in [
        (&world.outside, NODE),
        (&world.host, "127.0.0.1"),
        (&world.host, "127.0.0.2"),
        (&world.host, NODE),
        (&world.pods[0].ns, NODE),
        (&world.pods[0].ns, GATEWAY),
    ] {
        let answers = get_many(ns, address, 30080, 40).await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), seen, "{address}");
    }
    // Not on others' addresses, and not for another protocol.
    assert_eq!(get(&world.host, OUTSIDER, 30080).await, "ConnectionRefused");
    assert_eq!(ask(&world.outside, 5000, NODE, 30080).await, "ConnectionRefused");
}

#[tokio::test]
async fn an_endpoint_may_be_the_node_itself() {
    for lonely in [false, true] {
        let world = World::new(if lonely { "lonely" } else { "self" }, 1).await;
        if lonely {
            // No other link than pods', and the node's address on one that leads nowhere.
            let netlink = connect(&world.env, &world.host).await;
            netlink.delete_link("up0").await.unwrap();
            netlink.add_dummy("node0").await.unwrap();
            let link = netlink.link("node0").await.unwrap().index;
            netlink.add_address(link, ip(NODE).into()).await.unwrap();
        }
        let mut node = world.driver().await;
        serve(&world.env, &world.host, "node".into(), 9090).await;
        let itself = proxy::Endpoint { address: Some((ip(NODE), 9090)), ..world.endpoint(1, "here") };
        node.set(&with_node_port(service("api", "10.96.0.1"), 30080), vec![itself]);
        let pod = &world.pods[0].ns;
        assert_eq!(get(pod, "10.96.0.1", 80).await, "node to 10.244.1.2");
        assert_eq!(ask(pod, 5000, "10.96.0.1", 80).await, "node to 10.244.1.2");
        assert_eq!(names(&get_many(&world.host, "10.96.0.1", 80, 3).await), ["node"]);
        assert_eq!(&ask(&world.host, 5000, "10.96.0.1", 80).await[..4], "node");
        assert_eq!(names(&get_many(&world.host, "127.0.0.1", 30080, 3).await), ["node"]);
        assert_eq!(names(&get_many(pod, NODE, 30080, 3).await), ["node"]);
        node.set(&service("web", "10.96.0.10"), world.here(&[1]));
        assert_eq!(get(&world.host, "10.96.0.10", 80).await, "p1 to 192.168.50.11");
        if !lonely {
            assert_eq!(names(&get_many(&world.outside, NODE, 30080, 3).await), ["node"]);
        }
    }
}

#[tokio::test]
async fn a_client_stays_with_its_endpoint() {
    let world = World::new("affinity", 4).await;
    let mut node = world.driver().await;
    let mut sticky = with_node_port(service("web", "10.96.0.10"), 30080);
    sticky.affinity = Some(Duration::from_secs(600));
    node.set(&sticky, world.here(&[1, 2, 3]));
    for (ns, address, port) in [
        (&world.pods[3].ns, "10.96.0.10", 80),
        (&world.outside, NODE, 30080),
        (&world.host, "127.0.0.1", 30080),
        (&world.host, "10.96.0.10", 80),
    ] {
        let first = get(ns, address, port).await;
        let many = get_many(ns, address, port, 20).await;
        assert_eq!(many.keys().collect::<Vec<_>>(), [&first], "{address}");
    }
    // A new table takes over what clients are used to.
    let client = &world.pods[3].ns;
    let first = get(client, "10.96.0.10", 80).await;
    node.driver.replace(&node.table).unwrap();
    assert_eq!(get_many(client, "10.96.0.10", 80, 20).await.keys().collect::<Vec<_>>(), [&first]);
    // Another endpoint more: no reason to move. The endpoint is gone: one of the others, and stay there.
    node.set(&sticky, world.here(&[1, 2, 3, 4]));
    assert_eq!(get_many(client, "10.96.0.10", 80, 20).await.keys().collect::<Vec<_>>(), [&first]);
    let gone: usize = first[1..2].parse().unwrap();
    let others: Vec<usize> = (1..=3).filter(|number| *number != gone).collect();
    node.set(&sticky, world.here(&others));
    let second = get(client, "10.96.0.10", 80).await;
    assert!(others.iter().any(|number| second.starts_with(&format!("p{number}"))), "{second}");
    assert_eq!(get_many(client, "10.96.0.10", 80, 20).await.keys().collect::<Vec<_>>(), [&second]);
    // And no longer than it is asked for.
    sticky.affinity = None;
    node.set(&sticky, world.here(&others));
    assert_eq!(names(&get_many(client, "10.96.0.10", 80, 40).await).len(), 2);
}

#[tokio::test]
async fn ipv6_services_work_alike() {
    let world = World::new("ipv6", 2).await;
    let mut node = world.driver().await;
    let mut six = with_node_port(service("web", "fd00:96::a"), 30080);
    let endpoints: Vec<_> = world
        .here(&[1, 2])
        .into_iter()
        .zip(&world.pods)
        .map(|(endpoint, pod)| proxy::Endpoint { address: Some((pod.ip6, 8080)), ..endpoint })
        .collect();
    node.set(&six, endpoints.clone());
    let answers = get_many(&world.pods[0].ns, "fd00:96::a", 80, 40).await;
    assert_eq!(answers.keys().collect::<Vec<_>>(), ["p1 to fd00:50::11", "p2 to fd00:244::2"]);
    assert_eq!(names(&get_many(&world.host, "fd00:96::a", 80, 40).await), ["p1", "p2"]);
    assert_eq!(names(&get_many(&world.outside, "fd00:96::a", 80, 40).await), ["p1", "p2"]);
    assert_eq!(names(&get_many(&world.outside, NODE6, 30080, 40).await), ["p1", "p2"]);
    six.affinity = Some(Duration::from_secs(60));
    node.set(&six, endpoints);
    let answers = get_many(&world.pods[0].ns, "fd00:96::a", 80, 20).await;
    assert_eq!(answers.len(), 1, "{answers:?}");
    node.set(&six, vec![]);
    assert_eq!(get(&world.pods[0].ns, "fd00:96::a", 80).await, "ConnectionRefused");
    assert_eq!(get(&world.host, "fd00:96::a", 80).await, "ConnectionRefused");
}
