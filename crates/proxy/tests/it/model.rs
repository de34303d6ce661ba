//! However a table came about, the same Services give the same elements and chains.

use std::net::IpAddr;
use std::time::Duration;

use apimachinery::ObjectKey;
use env::Env;
use linux::Scope;
use linux::netns::NetNs;
use linux::nft::Family;
use proxy::{Changes, Driver, Endpoint, Endpoints, Locality, Service, ServicePort, Table, plan};

use crate::world::{ip, network};

/// Few names, addresses and ports, so that Services get into each other's way.
struct Chance(Env);

impl Chance {
    fn below(&self, bound: u64) -> u64 {
        self.0.random_below(bound)
    }

    fn often(&self) -> bool {
        self.below(3) > 0
    }

    fn service(&self, number: u64) -> Service {
        let some = |count: u64, address: fn(u64) -> IpAddr| (0..self.below(count)).map(address).collect::<Vec<_>>();
        let port = |number: u64| ServicePort {
            name: format!("port-{number}"),
            protocol: if self.often() { 6 } else { 17 },
            port: 80 + number as u16,
            node_port: (!self.often()).then(|| 30_000 + self.below(8) as u16),
        };
        let mut cluster_ips = vec![[10, 96, 0, number as u8].into()];
        if !self.often() {
            cluster_ips.push([0xfd00, 0x96, 0, 0, 0, 0, 0, number as u16].into());
        }
        Service {
            key: ObjectKey { namespace: "default".into(), name: format!("svc-{number}") },
            cluster_ips,
            external_ips: some(3, |n| [192, 0, 2, n as u8].into()),
            load_balancer_ips: some(3, |n| [192, 0, 3, n as u8].into()),
            load_balancer_sources: match self.below(4) {
                0 => vec!["10.0.0.0/8".parse().unwrap(), "10.1.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
                _ => vec![],
            },
            affinity: (!self.often()).then(|| Duration::from_secs(60 + self.below(2))),
            internal_local: !self.often(),
            external_local: !self.often(),
            ports: (0..=self.below(2)).map(port).collect(),
        }
    }

    fn endpoints(&self, service: &Service) -> Endpoints {
        let one = |number: u64| Endpoint {
            address: Some(match self.often() {
                true => ([10, 244, 0, number as u8].into(), 8080),
                false => (ip(&format!("fd00:244::{number:x}")), 8080),
            }),
            ready: self.often(),
            serving: self.often(),
            terminating: !self.often(),
            node: if self.often() { "here".into() } else { "there".into() },
            ..Endpoint::default()
        };
        let list = |_: &ServicePort| (0..self.below(6)).map(|_| one(self.below(12))).collect::<Vec<_>>();
        service.ports.iter().map(|port| ((port.name.clone(), port.protocol), list(port))).collect()
    }
}

#[test]
fn changes_one_by_one_and_all_at_once_are_the_same() {
    for seed in 0..4 {
        let chance = Chance(Env::seeded(seed, jiff::Timestamp::UNIX_EPOCH));
        let folder = std::env::temp_dir().join(format!("oxikube-proxy-{}-model{seed}", std::process::id()));
        let scope = Scope::new("model", folder.clone(), folder.clone());
        let open = || {
            let ns = NetNs::unpinned().unwrap();
            Driver::open(scope.clone(), ns, network(&scope)).unwrap()
        };
        let (driver, mut table) = (open(), Table::new());
        driver.replace(&table).unwrap();
        let here = Locality { node: "here".into(), zone: String::new() };
        let mut truth = std::collections::BTreeMap::new();
        for step in 0..120 {
            let mut changes = Changes::default();
            for _ in 0..=chance.below(4) {
                let number = chance.below(8);
                let service = chance.service(number);
                let wanted = match chance.below(5) {
                    0 => vec![],
                    _ => plan(&service, &chance.endpoints(&service), &here, &driver.families()),
                };
                table.set(&service.key, wanted.clone(), &mut changes);
                truth.insert(service.key.clone(), wanted);
            }
            driver.apply(&changes).unwrap_or_else(|error| panic!("seed {seed} step {step}: {error:?}"));
            if step % 20 == 19 {
                let (other, mut whole) = (open(), Table::new());
                for (key, wanted) in truth.iter().rev() {
                    whole.set(key, wanted.clone(), &mut Changes::default());
                }
                other.replace(&whole).unwrap();
                for family in [Family::Ip, Family::Ip6] {
                    let (found, expected) = (driver.contents(family).unwrap(), other.contents(family).unwrap());
                    assert_eq!(found, expected, "seed {seed} step {step} {family:?}");
                }
            }
        }
        // And nothing at the end.
        let mut changes = Changes::default();
        for key in truth.keys() {
            table.set(key, vec![], &mut changes);
        }
        driver.apply(&changes).unwrap();
        let other = open();
        other.replace(&Table::new()).unwrap();
        assert_eq!(driver.contents(Family::Ip).unwrap(), other.contents(Family::Ip).unwrap());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
