//! Services and endpoints in, virtual addresses out.

use std::time::Duration;

use apimachinery::ObjectKey;

use super::*;

/// `web` at 10.96.0.1 and fd00::1, TCP port 80, with what `edit` changes.
fn service(edit: impl FnOnce(&mut Service)) -> Service {
    let mut service = Service {
        key: ObjectKey { namespace: "ns".into(), name: "web".into() },
        cluster_ips: vec!["10.96.0.1".parse().unwrap()],
        external_ips: vec![],
        load_balancer_ips: vec![],
        load_balancer_sources: vec![],
        affinity: None,
        internal_local: false,
        external_local: false,
        ports: vec![ServicePort { name: "http".into(), protocol: 6, port: 80, node_port: None }],
    };
    edit(&mut service);
    service
}

/// Ready ones: `address@node`.
fn endpoints(texts: &[&str]) -> Endpoints {
    let one = |text: &&str| {
        let (address, node) = text.split_once('@').unwrap();
        let address = Some((address.parse().unwrap(), 8080));
        Endpoint { address, ready: true, serving: true, node: node.into(), ..Endpoint::default() }
    };
    [(("http".to_owned(), 6), texts.iter().map(one).collect())].into()
}

fn check(service: Service, endpoints: &Endpoints, expect: &[&str]) {
    let here = Locality { node: "me".into(), zone: String::new() };
    let list = |endpoints: &[(IpAddr, u16)]| {
        endpoints.iter().map(|(ip, port)| format!("{ip}:{port}")).collect::<Vec<_>>().join(",")
    };
    let found: Vec<String> = plan(&service, endpoints, &here, &[Family::Ip, Family::Ip6])
        .into_iter()
        .map(|(vip, balance)| {
            let address = vip.address.map_or(format!("node/{:?}", vip.family), |address| address.to_string());
            let mut line = format!("{address} {} {} -> {}", vip.protocol, vip.port, list(&balance.endpoints));
            let mut say = |text: String| line.push_str(&format!(" {text}"));
            balance.internal.iter().for_each(|internal| say(format!("internal={}", list(internal))));
            balance.affinity.iter().for_each(|life| say(format!("affinity={}", life.as_secs())));
            balance.sources.iter().for_each(|source| say(format!("from={source}")));
            for (holds, text) in [
                (balance.masquerade, "masquerade"),
                (balance.cluster_ip, "cluster"),
                (balance.endpoints.is_empty() && balance.empty == Empty::Drop, "drop"),
                (balance.endpoints.is_empty() && balance.empty == Empty::Reject, "reject"),
            ] {
                if holds {
                    say(text.to_owned());
                }
            }
            if !balance.local.is_empty() {
                say(format!("local={}", list(&balance.local)));
            }
            line
        })
        .collect();
    assert_eq!(found, expect, "{service:?}");
}

#[test]
fn every_kind_of_address() {
    let all = |service: &mut Service| {
        service.external_ips = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        service.load_balancer_ips = vec!["192.0.2.2".parse().unwrap()];
        service.load_balancer_sources = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        service.ports[0].node_port = Some(30080);
        service.affinity = Some(Duration::from_secs(60));
    };
    check(
        service(all),
        &endpoints(&["10.0.0.2@you", "10.0.0.1@me", "fd00::9@me"]),
        &[
            "10.96.0.1 6 80 -> 10.0.0.1:8080,10.0.0.2:8080 affinity=60 cluster local=10.0.0.1:8080",
            "192.0.2.1 6 80 -> 10.0.0.1:8080,10.0.0.2:8080 affinity=60 masquerade local=10.0.0.1:8080",
            "192.0.2.2 6 80 -> 10.0.0.1:8080,10.0.0.2:8080 affinity=60 from=10.0.0.0/8 masquerade local=10.0.0.1:8080",
            "node/Ip 6 30080 -> 10.0.0.1:8080,10.0.0.2:8080 affinity=60 masquerade local=10.0.0.1:8080",
        ],
    );
    check(
        service(|service| {
            service.cluster_ips.push("fd00::1".parse().unwrap());
            service.ports[0].node_port = Some(30080);
        }),
        &endpoints(&["10.0.0.1@you", "fd00::9@me"]),
        &[
            "10.96.0.1 6 80 -> 10.0.0.1:8080 cluster",
            "node/Ip 6 30080 -> 10.0.0.1:8080 masquerade",
            "fd00::1 6 80 -> fd00::9:8080 cluster local=fd00::9:8080",
            "node/Ip6 6 30080 -> fd00::9:8080 masquerade local=fd00::9:8080",
        ],
    );
}

#[test]
fn ports_find_their_endpoints_by_name_and_protocol() {
    let port = |name: &str, protocol, port| ServicePort { name: name.into(), protocol, port, node_port: None };
    check(
        service(|service| service.ports = vec![port("http", 6, 80), port("http", 17, 80), port("", 6, 81)]),
        &endpoints(&["10.0.0.1@you"]),
        &[
            "10.96.0.1 6 80 -> 10.0.0.1:8080 cluster",
            "10.96.0.1 17 80 ->  cluster reject",
            "10.96.0.1 6 81 ->  cluster reject",
        ],
    );
}

#[test]
fn policies_choose_among_endpoints() {
    let node_port = |service: &mut Service| service.ports[0].node_port = Some(30080);
    let external = || {
        service(|service| {
            node_port(service);
            service.external_local = true;
        })
    };
    let internal = || {
        service(|service| {
            node_port(service);
            service.internal_local = true;
        })
    };
    let (both, there, none) =
        (endpoints(&["10.0.0.1@me", "10.0.0.2@you"]), endpoints(&["10.0.0.2@you"]), endpoints(&[]));
    check(
        external(),
        &both,
        &[
            "10.96.0.1 6 80 -> 10.0.0.1:8080,10.0.0.2:8080 cluster local=10.0.0.1:8080",
            "node/Ip 6 30080 -> 10.0.0.1:8080 internal=10.0.0.1:8080,10.0.0.2:8080 local=10.0.0.1:8080",
        ],
    );
    check(
        external(),
        &there,
        &["10.96.0.1 6 80 -> 10.0.0.2:8080 cluster", "node/Ip 6 30080 ->  internal=10.0.0.2:8080 drop"],
    );
    check(external(), &none, &["10.96.0.1 6 80 ->  cluster reject", "node/Ip 6 30080 ->  reject"]);
    check(
        internal(),
        &both,
        &[
            "10.96.0.1 6 80 -> 10.0.0.1:8080 cluster local=10.0.0.1:8080",
            "node/Ip 6 30080 -> 10.0.0.1:8080,10.0.0.2:8080 masquerade local=10.0.0.1:8080",
        ],
    );
    check(internal(), &there, &["10.96.0.1 6 80 ->  cluster drop", "node/Ip 6 30080 -> 10.0.0.2:8080 masquerade"]);
    check(internal(), &none, &["10.96.0.1 6 80 ->  cluster reject", "node/Ip 6 30080 ->  masquerade reject"]);
}
