use super::*;

pub(super) fn daemon_set(strategy: &str, image: &str) -> String {
    format!(
        r#"{{"apiVersion":"apps/v1","kind":"DaemonSet","metadata":{{"name":"agent","namespace":"ns","generation":1}},
        "spec":{{"revisionHistoryLimit":1,"selector":{{"matchLabels":{{"app":"agent"}}}},"updateStrategy":{strategy},
        "template":{{"metadata":{{"labels":{{"app":"agent"}}}},"spec":{{"containers":[{{"name":"c","image":"{image}"}}]}}}}}}}}"#
    )
}

pub(super) const REPLACE: &str = r#"{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":0}}"#;
pub(super) const SURGE: &str = r#"{"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":0,"maxSurge":1}}"#;

/// The node that the scheduler would bind the pod to.
pub(super) fn target(pod: &Value) -> String {
    let required = ["spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution"];
    let term = &pod.at(&required).unwrap().items_at(&["nodeSelectorTerms"])[0];
    term.items_at(&["matchFields"])[0].items_at(&["values"])[0].as_str().unwrap().to_owned()
}

impl Cluster {
    fn agent(&self, field: &str) -> i64 {
        self.number(&resources::DAEMON_SETS, "agent", field)
    }

    fn agents(&self) -> Vec<(String, String)> {
        let mut agents: Vec<_> = self
            .owned(&resources::PODS, "agent")
            .iter()
            .map(|pod| {
                let value = pod.to_value();
                let image = value.items_at(&["spec", "containers"])[0].str_at(&["image"]).unwrap().to_owned();
                (target(&value), image)
            })
            .collect();
        agents.sort();
        agents
    }

    fn agents_complete(&self, nodes: i64) -> bool {
        let counts = ["desiredNumberScheduled", "currentNumberScheduled", "numberReady", "numberAvailable"];
        let value = self.value(&resources::DAEMON_SETS, "agent");
        value.i64_at(&["status", "observedGeneration"]) == value.i64_at(&["metadata", "generation"])
            && counts.iter().all(|count| self.agent(count) == nodes)
            && self.agent("updatedNumberScheduled") == nodes
            && self.agent("numberUnavailable") == 0
            && self.agents().len() as i64 == nodes
    }
}

#[tokio::test(start_paused = true)]
async fn every_suitable_node_has_one() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = [cluster.put_node("n1"), cluster.put_node("n2")];
    cluster.put(&resources::DAEMON_SETS, &daemon_set(REPLACE, "v1"));
    eventually("both nodes have one", || cluster.agents_complete(2)).await;
    cluster.settles().await;
    let pod = cluster.owned(&resources::PODS, "agent")[0].to_value();
    assert!(pod.str_at(&["metadata", "name"]).unwrap().starts_with("agent-"));
    assert_eq!(pod.items_at(&["spec", "tolerations"]).len(), 6);
    let revisions = cluster.server.list(&resources::CONTROLLER_REVISIONS);
    let hash = revisions[0].label("controller-revision-hash").unwrap();
    assert_eq!(pod.str_at(&["metadata", "labels", "controller-revision-hash"]), Some(hash));
    assert!(cluster.events("SuccessfulCreate")[0].starts_with("Created pod: agent-"));

    let _third = cluster.put_node("n3");
    eventually("the new node has one", || cluster.agents_complete(3)).await;
    // A taint keeps new pods off; one that evicts takes them away.
    cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n3"), |node| {
        node.set(&["spec", "taints"], Value::parse(br#"[{"key":"x","effect":"NoSchedule"}]"#).unwrap());
    });
    sleep(60).await;
    assert_eq!(cluster.agents().len(), 3);
    cluster.server.edit(&resources::NODES, &ObjectKey::cluster("n3"), |node| {
        node.set(&["spec", "taints"], Value::parse(br#"[{"key":"x","effect":"NoExecute"}]"#).unwrap());
    });
    eventually("the tainted node has none", || cluster.agents_complete(2)).await;
}

#[tokio::test(start_paused = true)]
async fn a_rollout_replaces_or_surges() {
    for (strategy, most) in [(REPLACE, 3), (SURGE, 4)] {
        let cluster = Cluster::start();
        let _kubelet = Kubelet::start(&cluster.server);
        let _alive = [cluster.put_node("n1"), cluster.put_node("n2"), cluster.put_node("n3")];
        cluster.put(&resources::DAEMON_SETS, &daemon_set(strategy, "v1"));
        eventually("all nodes have one", || cluster.agents_complete(3)).await;
        let crowd = Arc::new(parking_lot::Mutex::new((usize::MAX, 0)));
        let (seen, world) = (crowd.clone(), cluster.server.clone());
        cluster.server.react(move |_| {
            let pods = world.list(&resources::PODS);
            let ready = pods.iter().filter(|pod| is_ready(pod) && !pod.is_deleting()).count();
            let mut seen = seen.lock();
            *seen = (seen.0.min(ready), seen.1.max(pods.len()));
            None
        });
        for image in ["v2", "v3"] {
            cluster.set_image_of(&resources::DAEMON_SETS, "agent", image);
            eventually("rolled out", || {
                cluster.agents_complete(3) && cluster.agents().iter().all(|(_, known)| known == image)
            })
            .await;
        }
        let (fewest, largest) = *crowd.lock();
        assert!(fewest >= 2 && largest <= most, "{strategy}: {fewest} {largest}");
        if strategy == SURGE {
            assert_eq!(fewest, 3);
        }
        cluster.settles().await;
        assert_eq!(cluster.server.list(&resources::CONTROLLER_REVISIONS).len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_surge_waits_until_the_new_pod_is_available() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = [cluster.put_node("n1"), cluster.put_node("n2")];
    let set = daemon_set(SURGE, "v1").replace(r#""revisionHistoryLimit":1"#, r#""minReadySeconds":20"#);
    cluster.put(&resources::DAEMON_SETS, &set);
    eventually("all nodes have one", || cluster.agents_complete(2)).await;
    cluster.set_image_of(&resources::DAEMON_SETS, "agent", "v2");
    eventually("it surges", || cluster.agents().len() > 2).await;
    sleep(15).await;
    assert_eq!(cluster.agents().iter().filter(|(_, image)| image == "v1").count(), 2);
    eventually("rolled out", || cluster.agents_complete(2) && cluster.agents().iter().all(|(_, image)| image == "v2"))
        .await;
}

#[tokio::test(start_paused = true)]
async fn on_delete_waits_for_somebody_to_delete() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::DAEMON_SETS, &daemon_set(r#"{"type":"OnDelete"}"#, "v1"));
    eventually("it runs", || cluster.agents_complete(1)).await;
    cluster.set_image_of(&resources::DAEMON_SETS, "agent", "v2");
    cluster.settles().await;
    assert_eq!((cluster.agents()[0].1.as_str(), cluster.agent("updatedNumberScheduled")), ("v1", 0));
    let name = cluster.owned(&resources::PODS, "agent")[0].name().to_owned();
    cluster.server.remove(&resources::PODS, &key(&name));
    eventually("the new one runs", || cluster.agents_complete(1) && cluster.agents()[0].1 == "v2").await;
}

#[tokio::test(start_paused = true)]
async fn pods_that_always_fail_come_ever_more_rarely() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    let informer = Informer::start(&cluster.server.client(), resources::PODS, Selection::all());
    let server = cluster.server.clone();
    let _subscription = informer.on_event(move |event| {
        if let Event::Added(pod) = event {
            server.edit(&resources::PODS, pod.key(), |pod| pod.set(&["status", "phase"], "Failed"));
        }
    });
    cluster.put(&resources::DAEMON_SETS, &daemon_set(REPLACE, "v1"));
    sleep(3600).await;
    cluster.server.forget_requests();
    sleep(3600).await;
    let made = cluster.server.writes().iter().filter(|write| write.ends_with("/pods")).count();
    assert!((3..=5).contains(&made), "{made} pods in an hour");
    assert!(cluster.events("FailedDaemonPod")[0].ends_with("on node n1, will try to kill it"));
}

#[tokio::test(start_paused = true)]
async fn orphans_are_taken_and_doubles_go() {
    let cluster = Cluster::start();
    let _kubelet = Kubelet::start(&cluster.server);
    let _alive = cluster.put_node("n1");
    for name in ["first", "second"] {
        let pod = format!(
            r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","labels":{{"app":"agent"}}}},
                "spec":{{"nodeName":"n1","containers":[{{"name":"c","image":"v1"}}],"affinity":{{"nodeAffinity":
                {{"requiredDuringSchedulingIgnoredDuringExecution":{{"nodeSelectorTerms":[{{"matchFields":
                [{{"key":"metadata.name","operator":"In","values":["n1"]}}]}}]}}}}}}}}}}"#
        );
        cluster.put(&resources::PODS, &pod);
    }
    cluster.put(&resources::DAEMON_SETS, &daemon_set(r#"{"type":"OnDelete"}"#, "v1"));
    eventually("one is left", || cluster.agents().len() == 1).await;
    cluster.settles().await;
    let left = cluster.owned(&resources::PODS, "agent");
    assert_eq!(left[0].name(), "first");
    // Another selector would take every pod.
    cluster.put(
        &resources::DAEMON_SETS,
        &daemon_set(REPLACE, "v1")
            .replace(r#""name":"agent""#, r#""name":"all""#)
            .replace(r#""selector":{"matchLabels":{"app":"agent"}}"#, r#""selector":{}"#),
    );
    eventually("it is refused", || !cluster.events("SelectingAll").is_empty()).await;
    assert!(cluster.owned(&resources::PODS, "all").is_empty());
}
