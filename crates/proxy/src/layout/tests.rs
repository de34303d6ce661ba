//! The rules as text. `OXIKUBE_UPDATE_GOLDENS=1` writes the files anew.

use std::time::Duration;

use linux::nft::{Batch, Family};

use super::*;

fn network() -> Network {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
    Network {
        pod_cidrs: ranges(&["10.244.0.0/16", "fd00:244::/64"]),
        service_cidrs: ranges(&["10.96.0.0/12", "fd00:96::/112"]),
        mark: 0x0012_4000,
        mark_mask: 0x3fff_4000,
    }
}

fn check(name: &str, found: &str) {
    let path = format!("{}/src/layout/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("OXIKUBE_UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    assert_eq!(found, std::fs::read_to_string(&path).unwrap_or_default(), "{path}");
}

#[test]
fn the_static_table() {
    for (family, name) in [(Family::Ip, "table-ip.txt"), (Family::Ip6, "table-ip6.txt")] {
        let text = table(family, "oxikube-test-services", &network()).to_string();
        // Of the many chains that differ only by their number, the first two.
        let number = |line: &str| {
            let name = if line.contains(" = goto ") { line.rsplit(' ').next() } else { line.split([' ', ':']).nth(2) };
            name?.rsplit_once('-')?.1.parse::<u32>().ok()
        };
        let shown = text.lines().filter(|line| number(line).is_none_or(|number| number <= 2));
        check(name, &shown.map(|line| format!("{line}\n")).collect::<String>());
    }
}

#[test]
fn chains_that_are_made_when_needed() {
    let life = Some(Duration::from_secs(10_800));
    for (family, name) in [(Family::Ip, "chains-ip.txt"), (Family::Ip6, "chains-ip6.txt")] {
        let mut batch = Batch::new(family, "oxikube-test-services");
        for chain in [
            Chain::balance(false, true, None, 3),
            Chain::balance(false, false, life, 3),
            Chain::Balance { node: true, internal: true, masquerade: true, affinity: life, count: 2 },
            Chain::Split { node: true, affinity: None, count: 1, internal: 2 },
            Chain::Split { node: false, affinity: life, count: 0, internal: 2 },
        ] {
            chain.write(&mut batch, &network());
        }
        check(name, &batch.to_string());
    }
}

#[test]
fn a_chain_comes_after_what_it_leads_to() {
    for count in 0..3 {
        let chain = Chain::Split { node: true, affinity: None, count, internal: 2 };
        assert_eq!(chain.needs().len(), if count == 0 { 2 } else { 3 });
        assert!(chain.needs().iter().all(|need| *need < chain && need.needs().is_empty()));
    }
}
