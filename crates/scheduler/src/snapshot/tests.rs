//! Indexes against counting anew, under random changes.

use apimachinery::Selector;
use env::Env;
use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::cache::Cache;
use crate::pod::PodInfo;

fn random_pod(env: &Env, id: u64) -> Arc<PodInfo> {
    let app = format!("a{}", env.random_below(3));
    let mut spec = json!({"containers": []});
    let terms = json!([{"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}}]);
    match env.random_below(3) {
        0 => spec["affinity"] = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}),
        1 => {
            spec["affinity"] = json!({"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution":
                [{"weight": 1 + env.random_below(5), "podAffinityTerm": terms[0]}]}});
        }
        _ => {}
    }
    let mut pod = json!({"metadata": {"name": format!("p{id}"), "uid": format!("u{id}"), "labels": {"app": app},
        "namespace": format!("n{}", env.random_below(2))}, "spec": spec});
    if env.random_below(4) == 0 {
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(PodInfo::new(&serde_json::from_value(pod).unwrap()))
}

/// One of more queries than are kept current.
fn random_query(env: &Env) -> Query {
    let selectors =
        ["app=a1", "app in (a0,a0,a2)", "app,app!=a1", "app=a0,app in (a0,a1)", "app=a9", "", "app notin (a0)"];
    let namespaces = [&["n1"][..], &["n0", "n1"], &["n9"]];
    let namespaces = match env.random_below(4) as usize {
        3 => Namespaces::All,
        i => Namespaces::These(namespaces[i].iter().map(|name| (*name).to_owned()).collect()),
    };
    let selector = Selector::parse(selectors[env.random_below(selectors.len() as u64) as usize]).unwrap();
    Query { namespaces, selector, terminating: env.random_below(2) == 0 }
}

#[test]
fn indexes_agree_with_counting_anew() {
    for seed in 0..40 {
        let env = Env::seeded(seed, Timestamp::UNIX_EPOCH);
        let (mut cache, mut snapshot) = (Cache::default(), Snapshot::default());
        for step in 0..120 {
            let name = format!("node{}", env.random_below(6));
            match env.random_below(6) {
                0 => {
                    let zone = format!("z{}", env.random_below(3));
                    let node = json!({"metadata": {"name": name, "labels": {"zone": zone}}});
                    cache.set_node(serde_json::from_value(node).unwrap());
                }
                1 => drop(cache.remove_node(&name)),
                2 => drop(cache.remove(&format!("u{}", env.random_below(step + 1)))),
                _ => cache.place(random_pod(&env, env.random_below(step + 1)), &name),
            }
            if env.random_below(3) == 0 {
                snapshot.update(cache.changes());
                (0..3).for_each(|_| check(&snapshot, &random_query(&env)));
            }
        }
    }
}

fn check(snapshot: &Snapshot, query: &Query) {
    let counts = snapshot.matching(query);
    let topology = snapshot.topology("zone");
    let mut anti: i64 = 0;
    let mut preferred: i64 = 0;
    for node in snapshot.nodes() {
        let selected = |pod: &&Arc<PodInfo>| query.selects(pod);
        let expect = node.pods().iter().filter(selected).count();
        assert_eq!(counts.get(node.slot as usize).copied().unwrap_or_default() as usize, expect);
        let same = snapshot.nodes().filter(|other| other.label("zone") == node.label("zone")).count();
        let domain = topology.domain(node.slot);
        assert_eq!(snapshot.nodes().filter(|other| topology.domain(other.slot) == domain).count(), same);
        anti += node.pods().iter().map(|p| p.affinity.required_anti.len() as i64).sum::<i64>();
        preferred += node.pods().iter().flat_map(|p| &p.affinity.preferred).map(|(weight, _)| weight).sum::<i64>();
    }
    let sum = |usage| snapshot.terms(usage).flat_map(|(_, slots)| slots.values()).sum::<i64>();
    assert_eq!((sum(TermUse::RequiredAnti), sum(TermUse::Preferred)), (anti, preferred));
}
