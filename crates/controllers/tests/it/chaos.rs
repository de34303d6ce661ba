//! Lost requests, lost answers, broken watches and forgotten history, by seeded chance: all comes right in the end, and there are
//! never more pods of a ReplicaSet than it was told to have.

use std::collections::BTreeMap;

use client::fake::Reaction;
use parking_lot::Mutex;

use super::deployment::{ROLLING, deployment};
use super::*;

const CONTROLLERS: &[&str] = &[
    "deployment-controller",
    "replicaset-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "garbage-collector-controller",
];

#[test]
fn rollouts_survive_a_bad_connection() {
    model::hold("chaos::rollouts_survive_a_bad_connection", model);
}

#[test]
fn a_seed_is_a_history() {
    model::repeats(model);
}

fn model(seed: u64) -> model::Run {
    Box::pin(async move {
        let server = FakeServer::new(Env::seeded(seed, "2026-01-01T00:00:00Z".parse().unwrap()));
        let cluster = Cluster::start_some(server, CONTROLLERS);
        let _kubelet = Kubelet::start(&cluster.server);
        let _alive = cluster.put_node("n1");
        let _mischief = mischief(&cluster.server, seed);
        let surplus = watch_for_surplus(&cluster.server);
        cluster.put(&resources::DEPLOYMENTS, &deployment(8, ROLLING, "v1"));
        for image in ["v2", "v3"] {
            finishes(&cluster).await;
            cluster.set_image(image);
        }
        finishes(&cluster).await;
        assert_eq!(*surplus.lock(), Vec::<String>::new());
        cluster.edit_deployment(|value| value.set(&["spec", "replicas"], 0));
        finishes(&cluster).await;
        assert!(cluster.sizes().iter().all(|(_, size)| *size == 0));
        cluster.server
    })
}

/// Notes each ReplicaSet that has more pods than it was ever told to have, looking before each write.
fn watch_for_surplus(server: &FakeServer) -> Arc<Mutex<Vec<String>>> {
    let found = Arc::new(Mutex::new(Vec::new()));
    let (noted, world) = (found.clone(), server.clone());
    let mut told = BTreeMap::<String, i64>::new();
    server.react(move |request| {
        if request.method == http::Method::GET {
            return None;
        }
        for set in world.list(&resources::REPLICA_SETS) {
            let size = set.to_value().i64_at(&["spec", "replicas"]).unwrap_or_default();
            let most = told.entry(set.uid().to_owned()).or_default();
            *most = size.max(*most);
        }
        for (uid, most) in &told {
            let pods = world.list(&resources::PODS).into_iter().filter(|pod| !pod.is_deleting());
            let owned = pods.filter(|pod| pod.controller().is_some_and(|owner| owner.uid == *uid)).count() as i64;
            if owned > *most {
                noted.lock().push(format!("{owned} pods of {most}"));
            }
        }
        None
    });
    found
}

async fn finishes(cluster: &Cluster) {
    for _ in 0..20_000 {
        if cluster.complete() {
            return;
        }
        Env::system().sleep(Duration::from_millis(100)).await;
    }
    panic!("never complete: {:?}", cluster.sizes());
}

/// Disturbs what controllers ask, not the kubelet, until the guard is dropped.
fn mischief(server: &FakeServer, seed: u64) -> TaskGuard {
    mischief_every(server, seed, 20)
}

/// The watches suffer about twice in so many milliseconds.
pub(super) fn mischief_every(server: &FakeServer, seed: u64, milliseconds: u64) -> TaskGuard {
    let chance = Env::seeded(seed + 100, "2026-01-01T00:00:00Z".parse().unwrap());
    server.react({
        let chance = chance.clone();
        move |request| match chance.random_below(100) {
            0..8 => Some(Reaction::Lose),
            8..16 if request.method != http::Method::GET => Some(Reaction::LoseAnswer),
            16..20 => {
                Some(Reaction::Refuse(apimachinery::Status::new(500, apimachinery::Reason::InternalError, "unlucky")))
            }
            _ => None,
        }
    });
    let server = server.clone();
    let env = server.client().env().clone();
    TaskGuard::new(env.clone().spawn(async move {
        loop {
            env.sleep(Duration::from_millis(chance.random_below(milliseconds))).await;
            match chance.random_below(4) {
                0 => server.compact(),
                1 => server.end_watches(),
                // News of pods come late.
                _ => {
                    server.hold_watches(&resources::PODS, true);
                    env.sleep(Duration::from_millis(chance.random_below(200))).await;
                    server.hold_watches(&resources::PODS, false);
                }
            }
        }
    }))
}
