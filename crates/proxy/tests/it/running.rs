//! The proxy as it runs: fed by an API server, restarted, and removed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use apimachinery::{ObjectKey, Value};
use client::fake::FakeServer;
use client::{TaskGuard, resources};
use linux::netlink::PROTOCOL;
use linux::nft::{Batch, Element, Family, Socket};
use linux::sysctl;
use proxy::{Config, build, cleanup};

use crate::world::*;

async fn start(world: &World, server: &FakeServer) -> TaskGuard {
    let mut config = Config::new(world.env.clone(), world.scope.clone(), server.client(), "here").unwrap();
    config.host = world.host.clone();
    config.pod_cidrs = vec!["10.244.0.0/16".parse().unwrap()];
    config.service_cidrs = vec!["10.96.0.0/12".parse().unwrap()];
    let proxy = build(config).await.unwrap();
    let mut synced = proxy.synced();
    let running = TaskGuard::new(world.env.spawn(proxy.run()));
    tokio::time::timeout(PATIENCE, synced.wait_for(|synced| *synced)).await.unwrap().unwrap();
    running
}

fn put_service(server: &FakeServer, name: &str, more: &str) {
    let json = format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"{name}","namespace":"default"}},"spec":{{
            "clusterIP":"10.96.0.10","clusterIPs":["10.96.0.10"],"type":"NodePort",{more}
            "ports":[{{"name":"http","port":80,"protocol":"TCP","nodePort":30080,"targetPort":"web"}},
                     {{"name":"dns","port":53,"protocol":"UDP","nodePort":30053}}]}}}}"#
    );
    server.put(&resources::SERVICES, &json);
}

fn put_slice(server: &FakeServer, name: &str, pods: &[&Pod]) {
    let endpoints: Vec<String> = pods
        .iter()
        .map(|pod| format!(r#"{{"addresses":["{}"],"nodeName":"here","conditions":{{"ready":true}}}}"#, pod.ip))
        .collect();
    let json = format!(
        r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{{"name":"{name}",
            "namespace":"default","labels":{{"kubernetes.io/service-name":"web"}}}},
            "ports":[{{"name":"http","port":8080,"protocol":"TCP"}},{{"name":"dns","port":8080,"protocol":"UDP"}}],
            "endpoints":[{}]}}"#,
        endpoints.join(",")
    );
    server.put(&resources::ENDPOINT_SLICES, &json);
}

/// Asks until the answer is as expected; says what it was at the end otherwise.
async fn eventually<F: Future<Output = String>>(expect: &str, mut ask: impl FnMut() -> F) {
    let mut last = String::new();
    let tries = async {
        loop {
            last = ask().await;
            if last == expect {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    if tokio::time::timeout(PATIENCE, tries).await.is_err() {
        panic!("{last:?} is not {expect:?}");
    }
}

#[tokio::test]
async fn services_follow_the_api_server() {
    let world = World::new("follow", 3).await;
    let server = FakeServer::new(world.env.clone());
    let [p1, p2, p3] = &world.pods[..] else { unreachable!() };
    put_service(&server, "web", "");
    put_slice(&server, "web-1", &[p1]);
    let _running = start(&world, &server).await;
    assert_eq!(get(&p3.ns, "10.96.0.10", 80).await, "p1 to 10.244.1.4");
    assert_eq!(get(&world.host, "127.0.0.1", 30080).await, format!("p1 to {NODE}"));

    // A UDP flow moves with the endpoint, though its client goes on from the same port.
    for (ns, address, port) in [(&p3.ns, "10.96.0.10", 53), (&world.outside, NODE, 30053)] {
        put_slice(&server, "web-1", &[p1]);
        eventually("p1", || async { ask(ns, 5000, address, port).await[..2].to_owned() }).await;
        put_slice(&server, "web-1", &[p2]);
        eventually("p2", || async { ask(ns, 5000, address, port).await[..2].to_owned() }).await;
    }
    // Endpoints in several slices are one list.
    put_slice(&server, "web-2", &[p1]);
    eventually("p1 p2", || async { names(&get_many(&p3.ns, "10.96.0.10", 80, 30).await).join(" ") }).await;
    let key = |name: &str| ObjectKey { namespace: "default".into(), name: name.into() };
    server.remove(&resources::ENDPOINT_SLICES, &key("web-1"));
    server.remove(&resources::ENDPOINT_SLICES, &key("web-2"));
    eventually("ConnectionRefused", || get(&p3.ns, "10.96.0.10", 80)).await;
    put_slice(&server, "web-1", &[p1]);
    eventually("p1 to 10.244.1.4", || get(&p3.ns, "10.96.0.10", 80)).await;
    // Headless: its cluster address is nobody's.
    server.edit(&resources::SERVICES, &key("web"), |service| {
        service.set(&["spec", "clusterIP"], "None");
        service.set(&["spec", "clusterIPs"], Value::parse(br#"["None"]"#).unwrap());
    });
    eventually("true", || async { is_silent(&p3.ns, "10.96.0.10", 80).await.to_string() }).await;
    assert_eq!(get(&world.host, "127.0.0.1", 30080).await, "ConnectionRefused");
}

/// Sends "ping"; what comes back.
async fn echo(mut stream: TcpStream) -> std::io::Result<(TcpStream, [u8; 4])> {
    let asked = tokio::task::spawn_blocking(move || {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"ping")?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok((stream, answer))
    });
    asked.await.unwrap()
}

async fn lives(stream: TcpStream) -> TcpStream {
    let (stream, answer) = echo(stream).await.unwrap();
    assert_eq!(&answer, b"ping");
    stream
}

#[tokio::test]
async fn a_restart_disturbs_nobody_and_cleanup_leaves_nothing() {
    let world = World::new("restart", 2).await;
    let server = FakeServer::new(world.env.clone());
    put_service(&server, "web", "");
    put_slice(&server, "web-1", &[&world.pods[0]]);
    let netlink = connect(&world.env, &world.host).await;
    let links = netlink.links().await.unwrap();
    // The kernel adds and removes IPv6 routes of its own in its own time.
    let routes = async || {
        let routes = netlink.routes().await.unwrap();
        routes.into_iter().filter(|route| route.protocol == PROTOCOL).collect::<Vec<_>>()
    };
    let routes_before = routes().await;
    let settings = || {
        let read =
            || ["ip_forward", "conf/all/route_localnet"].map(|key| sysctl::read(&format!("net/ipv4/{key}")).unwrap());
        world.host.run(read).unwrap()
    };
    let before = settings();
    let running = start(&world, &server).await;
    assert_eq!(settings(), ["1", "1"]);

    // A connection that lasts.
    let listener = world.pods[0].ns.run(|| TcpListener::bind("0.0.0.0:9090").unwrap()).unwrap();
    server.edit(
        &resources::ENDPOINT_SLICES,
        &ObjectKey { namespace: "default".into(), name: "web-1".into() },
        |slice| {
            let ports =
                br#"[{"name":"http","port":9090,"protocol":"TCP"},{"name":"dns","port":8080,"protocol":"UDP"}]"#;
            slice.set(&["ports"], Value::parse(ports).unwrap());
        },
    );
    let to = SocketAddr::new(ip("10.96.0.10"), 80);
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 4];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).unwrap();
        }
    });
    // The change may still be on its way; the old endpoint says something else.
    let mut stream = loop {
        let dialled = world.pods[1].ns.run_async(move || TcpStream::connect_timeout(&to, PATIENCE));
        let stream = dialled.await.unwrap().unwrap();
        match echo(stream).await {
            Ok((stream, answer)) if &answer == b"ping" => break stream,
            _ => tokio::task::yield_now().await,
        }
    };
    drop(running);
    stream = lives(stream).await;
    let contents =
        || Socket::open_in(&world.host).unwrap().contents(Family::Ip, &world.scope.table("services")).unwrap();
    let left = contents();
    assert!(!left.sets["endpoints"].is_empty());
    let again = start(&world, &server).await;
    assert_eq!(contents(), left);
    stream = lives(stream).await;
    drop(stream);
    serving.join().unwrap();

    // Somebody flushes all rules, and takes an element away: everything comes back.
    put_slice(&server, "web-1", &[&world.pods[1]]);
    eventually("p2 to 10.244.1.2", || get(&world.pods[0].ns, "10.96.0.10", 80)).await;
    let (socket, table, whole) = (Socket::open_in(&world.host).unwrap(), world.scope.table("services"), contents());
    assert!(socket.delete_table(Family::Ip, &table).unwrap());
    eventually("p2 to 10.244.1.2", || get(&world.pods[0].ns, "10.96.0.10", 80)).await;
    let mut batch = Batch::new(Family::Ip, &table);
    batch.delete_elements("services", whole.sets["services"].iter().map(|element| Element::key(element.key.clone())));
    socket.commit(batch).unwrap();
    eventually("true", || async { (contents() == whole).to_string() }).await;

    drop(again);
    for _again in 0..2 {
        cleanup(&world.env, &world.scope, &world.host).await.unwrap();
        assert_eq!(Socket::open_in(&world.host).unwrap().tables(Family::Ip).unwrap(), Vec::<String>::new());
        assert_eq!(Socket::open_in(&world.host).unwrap().tables(Family::Ip6).unwrap(), Vec::<String>::new());
        assert_eq!((netlink.links().await.unwrap(), routes().await), (links.clone(), routes_before.clone()));
        assert_eq!(settings(), before);
    }
}

#[test]
fn this_kernel_can_do_all_that_services_need() {
    let nowhere = std::path::PathBuf::from("/nonexistent");
    proxy::probe(&linux::Scope::new("probe", nowhere.clone(), nowhere)).unwrap();
}

#[tokio::test]
async fn clusters_on_one_machine_share_nothing() {
    let world = World::new("first", 2).await;
    let other = linux::Scope::new("second", world.scope.run("second"), world.scope.data("second"));
    let mut node = world.driver().await;
    node.set(&service("web", "10.96.0.10"), world.here(&[1]));
    let network =
        proxy::Network::new(&other, vec!["10.245.0.0/16".parse().unwrap()], vec!["10.112.0.0/12".parse().unwrap()]);
    let driver = proxy::Driver::open(other.clone(), world.host.clone(), network).unwrap();
    driver.add_routes(&world.env).await.unwrap();
    let mut table = proxy::Table::new();
    let service = service("web", "10.112.0.10");
    let endpoints = service.ports.iter().map(|port| ((port.name.clone(), port.protocol), world.here(&[2]))).collect();
    let wanted = proxy::plan(&service, &endpoints, &proxy::Locality::default(), &driver.families());
    table.set(&service.key, wanted, &mut proxy::Changes::default());
    driver.replace(&table).unwrap();
    assert_eq!(names(&get_many(&world.host, "10.96.0.10", 80, 5).await), ["p1"]);
    assert_eq!(names(&get_many(&world.host, "10.112.0.10", 80, 5).await), ["p2"]);
    cleanup(&world.env, &other, &world.host).await.unwrap();
    let tables = Socket::open_in(&world.host).unwrap().tables(Family::Ip).unwrap();
    assert!(
        tables.contains(&world.scope.table("services")) && !tables.contains(&other.table("services")),
        "{tables:?}"
    );
    // The other one may go; what both need stays.
    assert_eq!(world.host.run(|| sysctl::read("net/ipv4/ip_forward").unwrap()).unwrap(), "1");
    assert_eq!(names(&get_many(&world.host, "10.96.0.10", 80, 5).await), ["p1"]);
}
