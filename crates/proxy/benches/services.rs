//! What Services cost the kernel, as JSON: a full load of ten thousand with ten endpoints each, and one change among them.

use std::time::Duration;

use apimachinery::ObjectKey;
use env::Env;
use linux::Scope;
use linux::netns::NetNs;
use proxy::{Changes, Driver, Endpoint, Endpoints, Locality, Network, Service, ServicePort, Table, plan};

const SERVICES: u32 = 10_000;
const ENDPOINTS: u32 = 10;
const CHANGES: u32 = 200;

fn service(number: u32) -> Service {
    Service {
        key: ObjectKey { namespace: "default".into(), name: format!("service-{number}") },
        cluster_ips: vec![std::net::Ipv4Addr::from(0x0a60_0001 + number).into()],
        external_ips: vec![],
        load_balancer_ips: vec![],
        load_balancer_sources: vec![],
        affinity: None,
        internal_local: false,
        external_local: false,
        ports: vec![ServicePort { name: String::new(), protocol: 6, port: 80, node_port: None }],
    }
}

/// Endpoints of the Service's own, one of them numbered `last`.
fn endpoints(number: u32, count: u32, last: u32) -> Endpoints {
    let one = |index: u32| Endpoint {
        address: Some((std::net::Ipv4Addr::from(0x0a80_0000 + number * 16 + index).into(), 8080)),
        ready: true,
        serving: true,
        ..Endpoint::default()
    };
    let list = (0..count - 1).chain([last]).map(one).collect();
    [((String::new(), 6), list)].into()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1000.0
}

fn main() {
    let env = Env::system();
    let folder = std::env::temp_dir().join(format!("oxikube-proxy-bench-{}", std::process::id()));
    let scope = Scope::new("bench", folder.clone(), folder.clone());
    let ranges = |text: &str| vec![text.parse().expect("a range")];
    let network = Network::new(&scope, ranges("10.128.0.0/9"), ranges("10.96.0.0/12"));
    let host = NetNs::unpinned().expect("root");
    let driver = Driver::open(scope, host, network).expect("nftables");
    let here = Locality { node: "here".into(), zone: String::new() };
    let families = driver.families();
    let mut table = Table::new();
    let set = |table: &mut Table, number: u32, endpoints: &Endpoints| {
        let service = service(number);
        let mut changes = Changes::default();
        table.set(&service.key, plan(&service, endpoints, &here, &families), &mut changes);
        changes
    };
    let begun = env.monotonic();
    for number in 0..SERVICES {
        set(&mut table, number, &endpoints(number, ENDPOINTS, ENDPOINTS - 1));
    }
    let planned = begun.elapsed();
    let mut full = Vec::new();
    for _ in 0..5 {
        let begun = env.monotonic();
        driver.replace(&table).expect("a full load");
        full.push(begun.elapsed());
    }
    let mut change = |count: u32, last: u32, number: u32| {
        let endpoints = endpoints(number, count, last);
        let begun = env.monotonic();
        let changes = set(&mut table, number, &endpoints);
        driver.apply(&changes).expect("a change");
        begun.elapsed()
    };
    let replaced: Vec<_> = (0..CHANGES).map(|turn| change(ENDPOINTS, ENDPOINTS, turn * 7)).collect();
    let scaled: Vec<_> = (0..CHANGES).map(|turn| change(ENDPOINTS + 1, ENDPOINTS + 1, turn * 7)).collect();
    let emptied: Vec<_> = (0..CHANGES).map(|turn| change(1, 0, turn * 7)).collect();
    println!(
        r#"{{"services":{SERVICES},"endpoints_each":{ENDPOINTS},"plan_ms":{:.1},"full_load_ms":{:.1},"replace_endpoint_ms":{:.3},"add_endpoint_ms":{:.3},"remove_endpoints_ms":{:.3}}}"#,
        planned.as_secs_f64() * 1000.0,
        median(full),
        median(replaced),
        median(scaled),
        median(emptied),
    );
    let _ = std::fs::remove_dir_all(folder);
}
