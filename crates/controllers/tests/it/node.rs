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

/// Puts the nodes of a zone; the names of those that will be heard of, and of those that will not.
fn put_zone(cluster: &Cluster, zone: &str, heard: usize, silent: usize) -> (Vec<&'static str>, Vec<&'static str>) {
    let mut names: Vec<&'static str> = (0..heard + silent).map(|n| &*format!("{zone}-{n}").leak()).collect();
    for name in &names {
        cluster.put(&resources::NODES, &node(name).replace("\"z1\"", &format!("{zone:?}")));
    }
    let silent = names.split_off(heard);
    (names, silent)
}

/// How many of the nodes are being emptied.
fn emptied(cluster: &Cluster, names: &[&str]) -> usize {
    names.iter().filter(|name| cluster.taints(name).iter().any(|taint| taint.ends_with(":NoExecute"))).count()
}

/// Upstream's rates: a node each ten seconds, and each hundred in a large zone of which 55 % are silent; none in a small one.
#[tokio::test(start_paused = true)]
async fn each_zone_is_emptied_at_its_rate() {
    let cluster = Cluster::start();
    // Zone, nodes that are heard of and that are not, how many are emptied at once, and after 95, 195, 950 seconds.
    let zones = [
        ("well", 7, 3, [1, 3, 3, 3]),
        ("two-of-two", 0, 2, [1, 2, 2, 2]),
        ("half", 10, 10, [1, 10, 10, 10]),
        ("small", 2, 3, [0, 0, 0, 0]),
        ("fifty", 20, 30, [0, 0, 0, 0]),
        ("large", 21, 30, [1, 1, 2, 10]),
        ("large-well", 31, 20, [1, 10, 20, 20]),
        ("dead", 0, 4, [1, 4, 4, 4]),
    ];
    let (mut heard, mut silent) = (Vec::new(), Vec::new());
    for (zone, up, down, _) in &zones {
        let (zone_heard, zone_silent) = put_zone(&cluster, zone, *up, *down);
        heard.extend(zone_heard);
        silent.push(zone_silent);
    }
    let alive = cluster.heartbeat(&heard);
    let counts = || silent.iter().map(|names| emptied(&cluster, names)).collect::<Vec<_>>();
    // Looked at seldom, as there is much to look at.
    let mut waited = 0;
    while counts().iter().sum::<usize>() < 6 {
        sleep(1).await;
        waited += 1;
        assert!(waited < 120, "nobody is emptied");
    }
    let begun = cluster.server.client().env().now();
    for (at, seconds) in [1, 95, 195, 950].into_iter().enumerate() {
        let passed = cluster.server.client().env().now().duration_since(begun).as_secs().unsigned_abs();
        sleep(seconds - passed).await;
        let expect: Vec<usize> = zones.iter().map(|(.., expect)| expect[at]).collect();
        assert_eq!(counts(), expect, "after {seconds} seconds");
    }
    // Nobody is heard of any more: it is us, and nobody is emptied.
    drop(alive);
    sleep(120).await;
    assert_eq!(counts(), [0; 8]);
    assert_eq!(emptied(&cluster, &heard), 0);
    sleep(3600).await;
    assert_eq!((counts(), emptied(&cluster, &heard)), (vec![0; 8], 0));
    // One is heard of again. Its own zone is mostly silent now, the others wholly: there one node each is emptied every
    // ten seconds, the first an interval after the zones were judged; whether it was heard of before no longer counts.
    let _alive = cluster.heartbeat(&heard[..1]);
    sleep(60).await;
    let of_zone = |zone: &str| {
        let in_zone = |name: &&&str| name.rsplit_once('-').is_some_and(|(of, _)| of == zone);
        emptied(&cluster, &silent.iter().flatten().chain(&heard).filter(in_zone).copied().collect::<Vec<_>>())
    };
    assert_eq!(zones.map(|(zone, ..)| of_zone(zone)), [0, 2, 5, 5, 5, 5, 5, 4]);
}

#[tokio::test(start_paused = true)]
async fn pods_stay_as_long_as_they_tolerate_all_taints() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    let tolerates = |key: &str, seconds: u32| {
        format!(r#"{{"key":"{key}","operator":"Exists","effect":"NoExecute","tolerationSeconds":{seconds}}}"#)
    };
    let pods = [
        ("none", "[]".to_owned()),
        ("one", format!("[{}]", tolerates("a", 600))),
        ("least", format!("[{},{}]", tolerates("a", 300), tolerates("b", 60))),
        ("twice", format!("[{},{},{}]", tolerates("a", 300), tolerates("a", 20), tolerates("b", 100))),
        ("long", format!("[{},{}]", tolerates("a", 300), tolerates("b", 300))),
        ("always", r#"[{"operator":"Exists"}]"#.to_owned()),
    ];
    for (name, tolerations) in &pods {
        cluster.put(&resources::PODS, &pod(name, tolerations));
    }
    let taint = |keys: &[&str]| {
        let taints = keys.iter().map(|key| format!(r#"{{"key":"{key}","effect":"NoExecute"}}"#)).collect::<Vec<_>>();
        cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n1"), |node| {
            node.set(&["spec", "taints"], Value::parse(format!("[{}]", taints.join(",")).as_bytes()).unwrap());
        });
    };
    let stay = || {
        let pods = pods.iter().map(|(name, _)| *name);
        let stays =
            |name: &&str| cluster.server.get(&resources::PODS, &key(name)).is_some_and(|pod| !pod.is_deleting());
        pods.filter(stays).collect::<Vec<_>>().join(" ")
    };
    sleep(5).await;
    assert_eq!(stay(), "none one least twice long always");
    taint(&["a", "b"]);
    for (seconds, expect) in [
        (2, "least twice long always"),
        (56, "least twice long always"),
        (4, "twice long always"),
        (36, "twice long always"),
        (4, "long always"),
    ] {
        sleep(seconds).await;
        assert_eq!(stay(), expect);
    }
    // The taints go, and come again: the time begins anew.
    sleep(150).await;
    taint(&[]);
    eventually("it is told", || {
        cluster.events("TaintManagerEviction").iter().any(|told| told == "Cancelling deletion of Pod ns/long")
    })
    .await;
    sleep(300).await;
    assert_eq!(stay(), "long always");
    taint(&["a"]);
    sleep(290).await;
    assert_eq!(stay(), "long always");
    sleep(15).await;
    assert_eq!(stay(), "always");
}

/// As upstream has it: when a pod is to leave is settled by the first taint, unless it may not stay or may for ever.
#[tokio::test(start_paused = true)]
async fn a_later_taint_does_not_change_when_a_pod_leaves() {
    let check = async |later: &str, expect: &[(u64, bool)]| {
        let cluster = Cluster::start_some(
            FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap())),
            &["taint-eviction-controller"],
        );
        cluster.put(&resources::NODES, &node("n1"));
        let tolerates =
            |key: &str, rest: &str| format!(r#"{{"key":"{key}","operator":"Exists","effect":"NoExecute"{rest}}}"#);
        let seconds = |n: u32| format!(r#","tolerationSeconds":{n}"#);
        let tolerations = [
            tolerates("first", &seconds(100)),
            tolerates("short", &seconds(20)),
            tolerates("at-once", &seconds(0)),
            tolerates("long", &seconds(500)),
            tolerates("always", ""),
        ];
        cluster.put(&resources::PODS, &pod("p", &format!("[{}]", tolerations.join(","))));
        let taint = |key: &str| {
            cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n1"), |node| {
                let taints = format!(r#"[{{"key":"{key}","effect":"NoExecute"}}]"#);
                node.set(&["spec", "taints"], Value::parse(taints.as_bytes()).unwrap());
            });
        };
        sleep(5).await;
        taint("first");
        sleep(10).await;
        taint(later);
        let mut at = 10;
        for (seconds, stays) in expect {
            sleep(seconds - at).await;
            at = *seconds;
            let is_there = cluster.server.get(&resources::PODS, &key("p")).is_some_and(|pod| !pod.is_deleting());
            assert_eq!(is_there, *stays, "{later} after {seconds} seconds");
        }
        cluster.events("TaintManagerEviction").iter().filter(|told| told.starts_with("Cancelling")).count()
    };
    assert_eq!(check("short", &[(35, true), (98, true), (102, false)]).await, 0);
    assert_eq!(check("at-once", &[(35, true), (98, true), (102, false)]).await, 0);
    assert_eq!(check("long", &[(98, true), (102, false)]).await, 0);
    assert_eq!(check("always", &[(102, true), (600, true)]).await, 1);
    assert_eq!(check("not-tolerated", &[(12, false)]).await, 1);
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
