use super::*;

impl Cluster {
    fn taints(&self, name: &str) -> Vec<String> {
        let node = self.value(&resources::NODES, name);
        let taints = node.items_at(&["spec", "taints"]).iter();
        let mut told: Vec<_> = taints
            .map(|taint| {
                let key = taint.str_at(&["key"]).unwrap().trim_start_matches("node.kubernetes.io/");
                format!("{key}:{}", taint.str_at(&["effect"]).unwrap())
            })
            .collect();
        told.sort();
        told
    }

    fn ready(&self, name: &str) -> String {
        let node = self.value(&resources::NODES, name);
        node.items_at(&["status", "conditions"])[0].str_at(&["status"]).unwrap_or_default().to_owned()
    }

    /// Renews the nodes' leases until the guard is dropped.
    pub(super) fn heartbeat(&self, names: &[&'static str]) -> TaskGuard {
        let names = names.to_vec();
        let server = self.server.clone();
        let env = server.client().env().clone();
        TaskGuard::new(env.clone().spawn(async move {
            loop {
                names.iter().for_each(|name| report(&server, name));
                env.sleep(Duration::from_secs(10)).await;
            }
        }))
    }
}

/// The node renews its lease, and contradicts whoever thought that it was lost, as its kubelet does.
pub(super) fn report(server: &FakeServer, name: &str) {
    let key = ObjectKey::cluster(name);
    let Some(node) = server.get(&resources::NODES, &key) else { return };
    let now = server.client().env().now();
    let lease = format!(
        r#"{{"apiVersion":"coordination.k8s.io/v1","kind":"Lease","metadata":{{"name":"{name}","namespace":"kube-node-lease","uid":"{name}"}},
            "spec":{{"renewTime":"{now:.6}"}}}}"#
    );
    server.put(&resources::LEASES, &lease);
    if says(&node, READY) {
        return;
    }
    let ready = format!(
        r#"[{{"type":"Ready","status":"True","lastHeartbeatTime":"{now:.0}","lastTransitionTime":"{now:.0}"}}]"#
    );
    server.edit(&resources::NODES, &key, |node| {
        node.set(&["status", "conditions"], Value::parse(ready.as_bytes()).unwrap());
    });
}

fn pod(name: &str, tolerations: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns"}},"spec":{{"nodeName":"n1","containers":[],"tolerations":{tolerations}}},
            "status":{{"phase":"Running","conditions":[{{"type":"Ready","status":"True"}}]}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_silent_node_is_marked_and_emptied() {
    let cluster = Cluster::start();
    for name in ["n1", "n2", "n3"] {
        cluster.put(&resources::NODES, &node(name));
    }
    let _others = cluster.heartbeat(&["n2", "n3"]);
    let first = cluster.heartbeat(&["n1"]);
    cluster.put(&resources::PODS, &pod("short", r#"[{"operator":"Exists","tolerationSeconds":300}]"#));
    cluster.put(&resources::PODS, &pod("always", r#"[{"operator":"Exists"}]"#));
    sleep(300).await;
    assert_eq!((cluster.ready("n1").as_str(), cluster.taints("n1").len()), ("True", 0));
    drop(first);
    sleep(30).await;
    assert_eq!(cluster.ready("n1"), "True");
    sleep(30).await;
    assert_eq!(cluster.ready("n1"), "Unknown");
    eventually("it is tainted", || cluster.taints("n1") == ["unreachable:NoExecute", "unreachable:NoSchedule"]).await;
    assert_eq!(cluster.ready("n2"), "True");
    let condition = cluster.value(&resources::NODES, "n1").items_at(&["status", "conditions"])[0].clone();
    assert_eq!(condition.str_at(&["message"]), Some("Kubelet stopped posting node status."));
    let pod_ready = |name: &str| {
        let pod = cluster.value(&resources::PODS, name);
        pod.items_at(&["status", "conditions"]).iter().find(|c| c.str_at(&["type"]) == Some("Ready")).cloned()
    };
    assert_eq!(pod_ready("always").unwrap().str_at(&["status"]), Some("False"));
    sleep(280).await;
    assert!(!cluster.server.get(&resources::PODS, &key("short")).unwrap().is_deleting());
    sleep(30).await;
    let short = cluster.server.get(&resources::PODS, &key("short")).unwrap();
    assert!(short.is_deleting());
    assert!(short.to_value().to_string().contains("DeletionByTaintManager"));
    assert!(!cluster.server.get(&resources::PODS, &key("always")).unwrap().is_deleting());
    // It comes back.
    cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n1"), |node| {
        let condition = br#"[{"type":"Ready","status":"True","lastHeartbeatTime":"2026-01-01T00:20:00Z"}]"#;
        node.set(&["status", "conditions"], Value::parse(condition).unwrap());
    });
    let _first = cluster.heartbeat(&["n1"]);
    eventually("it is free again", || cluster.taints("n1").is_empty()).await;
    sleep(300).await;
    assert_eq!((cluster.ready("n1").as_str(), cluster.taints("n1").len()), ("True", 0));
}

#[tokio::test(start_paused = true)]
async fn the_only_node_is_not_emptied() {
    let cluster = Cluster::start();
    cluster.put(&resources::NODES, &node("n1"));
    cluster.put(&resources::PODS, &pod("p", "[]"));
    sleep(600).await;
    assert_eq!(
        (cluster.ready("n1").as_str(), cluster.taints("n1")),
        ("Unknown", vec!["unreachable:NoSchedule".to_owned()])
    );
    assert!(!cluster.server.get(&resources::PODS, &key("p")).unwrap().is_deleting());
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn taints_follow_conditions_and_leave_others_alone() {
    let cluster = Cluster::start();
    let _alive = cluster.heartbeat(&["n1"]);
    let json = node("n1").replace(
        "\"spec\":{}",
        r#""spec":{"unschedulable":true,"taints":[{"key":"mine","effect":"NoSchedule"},{"key":"node.kubernetes.io/disk-pressure","effect":"NoSchedule"}]}"#,
    );
    cluster.put(&resources::NODES, &json);
    eventually("taints are right", || cluster.taints("n1") == ["mine:NoSchedule", "unschedulable:NoSchedule"]).await;
    cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n1"), |node| {
        node.remove(&["spec", "unschedulable"]);
        let conditions = br#"[{"type":"Ready","status":"False"},{"type":"MemoryPressure","status":"True"}]"#;
        node.set(&["status", "conditions"], Value::parse(conditions).unwrap());
    });
    let expect = ["memory-pressure:NoSchedule", "mine:NoSchedule", "not-ready:NoSchedule"];
    eventually("taints are right", || cluster.taints("n1") == expect).await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_deleted_node_go() {
    let cluster = Cluster::start();
    cluster.put(&resources::NODES, &node("n1"));
    cluster.put(&resources::PODS, &pod("p", r#"[{"operator":"Exists"}]"#));
    sleep(5).await;
    cluster.server.remove(&resources::NODES, &ObjectKey::cluster("n1"));
    sleep(30).await;
    assert!(cluster.server.get(&resources::PODS, &key("p")).is_some(), "the node may come back");
    sleep(20).await;
    assert!(cluster.server.get(&resources::PODS, &key("p")).is_none());
}

#[tokio::test(start_paused = true)]
async fn nodes_get_ranges() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    let taken = node("n0").replace("\"spec\":{}", r#""spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24"]}"#);
    server.put(&resources::NODES, &taken);
    let cluster = Cluster::start_with(server, |config| {
        config.cluster_cidrs = vec!["10.244.0.0/22".parse().unwrap(), "fd00::/56".parse().unwrap()];
    });
    let _alive = cluster.heartbeat(&["n0", "n1", "n2", "n3", "n4"]);
    for name in ["n1", "n2", "n3", "n4"] {
        cluster.put(&resources::NODES, &node(name));
    }
    sleep(5).await;
    let mut ranges: Vec<String> = ["n0", "n1", "n2", "n3", "n4"]
        .iter()
        .filter_map(|name| cluster.value(&resources::NODES, name).str_at(&["spec", "podCIDR"]).map(str::to_owned))
        .collect();
    ranges.sort();
    assert_eq!(ranges, ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24", "10.244.3.0/24"], "one finds no room");
    let both = cluster.value(&resources::NODES, "n1").items_at(&["spec", "podCIDRs"]).len();
    assert_eq!(both, 2);
    eventually("it is told", || !cluster.events("CIDRNotAvailable").is_empty()).await;
    cluster.server.remove(&resources::NODES, &ObjectKey::cluster("n0"));
    let late =
        || cluster.server.list(&resources::NODES).iter().all(|n| n.to_value().at(&["spec", "podCIDR"]).is_some());
    tokio::time::timeout(Duration::from_secs(2000), async {
        while !late() {
            sleep(1).await;
        }
    })
    .await
    .expect("the freed range is given to the one that waited");
}
