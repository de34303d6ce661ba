use jiff::Timestamp;
use serde_json::json;

use super::*;
use crate::cache::Cache;
use crate::cluster::Budget;
use crate::framework::{Cycle, Profile};
use crate::nominator::Nominator;
use crate::plugins;
use crate::plugins::tests::labelled;
use crate::snapshot::Snapshot;

struct World {
    cache: Cache,
    snapshot: Snapshot,
    cluster: Arc<Cluster>,
    nominator: Nominator,
}

impl World {
    /// Nodes of four cores each.
    fn new(nodes: usize) -> World {
        let mut cache = Cache::default();
        for i in 0..nodes {
            let node = json!({"metadata": {"name": format!("n{i}")},
                "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "110"}}});
            cache.set_node(serde_json::from_value(node).unwrap());
        }
        World { cache, snapshot: Snapshot::default(), cluster: Arc::default(), nominator: Nominator::default() }
    }

    fn pod(name: &str, cpu: i32, priority: i32) -> PodInfo {
        let spec = json!({"priority": priority,
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu.to_string()}}}]});
        PodInfo {
            uid: name.into(),
            key: apimachinery::ObjectKey::new("ns", name),
            started: Some(Timestamp::UNIX_EPOCH),
            ..labelled(name, spec)
        }
    }

    fn place(&mut self, node: usize, name: &str, cpu: i32, priority: i32) {
        self.cache.place(Arc::new(World::pod(name, cpu, priority)), &format!("n{node}"));
    }

    fn protect(&self, app: &str, allowed: i32) {
        let budget = Budget {
            namespace: "ns".into(),
            selector: Selector::from_labels([("app", app)]),
            allowed,
            disrupted: Vec::new(),
        };
        self.cluster.budgets.set(apimachinery::ObjectKey::new("ns", app), Arc::new(budget), 1);
    }

    fn preempt(&mut self, pod: PodInfo) -> PostFiltered {
        let profile: Profile = plugins::default_profile();
        self.snapshot.update(self.cache.changes());
        let snapshot = &self.snapshot;
        let pod = Arc::new(pod);
        let cycle = Cycle { pod: &pod, snapshot, cluster: &self.cluster };
        let filters = profile.pre_filter(cycle).ok().unwrap();
        let mut diagnosis = Diagnosis { nodes: snapshot.len(), ..Diagnosis::default() };
        for node in snapshot.nodes() {
            let rejection = filters.check_with_nominated(&pod, node, &self.nominator.promises()).unwrap_err();
            diagnosis.rejections.insert(node.slot, rejection);
        }
        let failed = Failed {
            others_agree: false,
            cycle,
            diagnosis: &diagnosis,
            filters: Some(&filters),
            promises: &self.nominator.promises(),
            random: &|_| 0,
        };
        DefaultPreemption::new(Args::default(), Arc::default()).unwrap().post_filter(&failed).unwrap()
    }

    fn check(&mut self, pod: PodInfo, expect: (&str, &[&str])) {
        let answer = self.preempt(pod);
        let work = answer.work.expect("there are victims");
        let victims: Vec<&str> = work.victims.iter().map(|pod| pod.uid.as_str()).collect();
        assert_eq!((work.node.as_str(), victims.as_slice()), expect);
        assert_eq!(answer.nominated.as_deref(), Some(expect.0));
    }

    fn check_message(&mut self, pod: PodInfo, expect: &str) {
        let answer = self.preempt(pod);
        assert!(answer.work.is_none());
        assert_eq!(answer.message, expect);
    }
}

#[test]
fn as_few_as_needed_go() {
    let mut world = World::new(1);
    world.place(0, "low", 1, 0);
    world.place(0, "mid", 2, 5);
    world.place(0, "high", 1, 50);
    world.check(World::pod("new", 1, 10), ("n0", &["low"]));
    world.check(World::pod("new", 2, 10), ("n0", &["mid"]));
    world.check(World::pod("new", 3, 10), ("n0", &["mid", "low"]));
    world.check_message(World::pod("new", 4, 10), "preemption: 0/1 nodes are available: 1 Insufficient cpu.");
    world.check_message(
        World::pod("new", 1, 0),
        "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.",
    );
    world.check_message(
        World::pod("new", 5, 10),
        "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
    );
    let polite = PodInfo { preempts: false, ..World::pod("new", 1, 10) };
    world.check_message(polite, "preemption: not eligible due to preemptionPolicy=Never.");
}

#[test]
fn the_node_that_loses_least_is_chosen() {
    // One budget, then priority, then sum, then number, then age.
    let mut world = World::new(2);
    world.place(0, "a", 4, 1);
    world.place(1, "b", 4, 5);
    world.check(World::pod("new", 4, 10), ("n0", &["a"]));
    world.protect("a", 0);
    world.check(World::pod("new", 4, 10), ("n1", &["b"]));
    world.protect("a", 1);
    world.check(World::pod("new", 4, 10), ("n0", &["a"]));

    let mut world = World::new(2);
    world.place(0, "a1", 2, 1);
    world.place(0, "a2", 2, 1);
    world.place(1, "b", 4, 1);
    world.check(World::pod("new", 4, 10), ("n1", &["b"]));

    let mut world = World::new(2);
    let older = World::pod("older", 4, 1);
    let newer = PodInfo { started: Some(Timestamp::from_second(60).unwrap()), ..World::pod("newer", 4, 1) };
    world.cache.place(Arc::new(older), "n0");
    world.cache.place(Arc::new(newer), "n1");
    world.check(World::pod("new", 4, 10), ("n1", &["newer"]));
}

#[test]
fn protected_pods_are_let_back_first() {
    let mut world = World::new(1);
    world.place(0, "guarded", 2, 1);
    world.place(0, "free", 2, 5);
    world.protect("guarded", 0);
    world.check(World::pod("new", 2, 10), ("n0", &["free"]));
}

#[test]
fn room_that_is_promised_is_not_taken() {
    let mut world = World::new(1);
    world.place(0, "low", 2, 0);
    world.nominator.set(Arc::new(World::pod("promised", 2, 20)), "n0");
    world.check(World::pod("new", 2, 10), ("n0", &["low"]));
    world.check_message(World::pod("new", 3, 10), "preemption: 0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn victims_on_their_way_out_are_waited_for() {
    let mut world = World::new(1);
    let going = PodInfo { terminating: true, preempted: true, ..World::pod("low", 4, 0) };
    world.cache.place(Arc::new(going), "n0");
    let pod = PodInfo { nominated: "n0".into(), ..World::pod("new", 2, 10) };
    world.check_message(pod, "preemption: not eligible due to a terminating pod on the nominated node.");
}
