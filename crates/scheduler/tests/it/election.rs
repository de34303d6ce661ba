//! Several schedulers of which one schedules.

use std::time::Duration;

use apimachinery::ObjectKey;
use client::resources;
use env::Env;
use jiff::Timestamp;
use serde_json::json;

use crate::{World, node, pod, started};

#[tokio::test(start_paused = true)]
async fn another_goes_on_when_the_leader_is_gone() {
    let parts = json!({"leaderElection": {"leaderElect": true}});
    let world = World::with(Env::seeded(1, Timestamp::UNIX_EPOCH), &parts);
    let lease = ObjectKey::new("kube-system", "kube-scheduler");
    let holder = || {
        let lease = world.server.get(&resources::LEASES, &lease)?.to_value();
        lease.str_at(&["spec", "holderIdentity"]).map(str::to_owned)
    };
    world.eventually("a leader", || holder().is_some()).await;
    let first = holder();
    let second = started(&world.env, &world.server, &parts);
    world.server.put(&resources::NODES, &node("n", "4"));
    world.server.put(&resources::PODS, &pod("a", "1"));
    world.eventually("binding", || world.node_of("a").is_some()).await;
    assert_eq!(holder(), first);
    world.scheduler.abort();
    // Nobody schedules until the lease is over.
    world.server.put(&resources::PODS, &pod("b", "1"));
    world.env.sleep(Duration::from_secs(5)).await;
    assert_eq!(world.node_of("b"), None);
    world.env.sleep(Duration::from_secs(20)).await;
    world.eventually("binding", || world.node_of("b").is_some()).await;
    assert_ne!(holder(), first);
    second.abort();
}
