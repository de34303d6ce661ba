use super::*;

const SERVICE: &str = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","namespace":"ns","labels":{"l":"m"}},
    "spec":{"clusterIP":"10.96.0.9","ipFamilies":["IPv4"],"selector":{"app":"a"},"ports":[
    {"name":"http","port":80,"targetPort":"http","protocol":"TCP"},{"name":"n","port":81,"targetPort":8081,"protocol":"TCP"}]}}"#;

fn pod(name: &str) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"{name}","namespace":"ns","labels":{{"app":"a"}}}},"spec":
            {{"hostname":"{name}","subdomain":"web","containers":[{{"name":"c","ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}]}}]}}}}"#
    )
}

impl Cluster {
    fn slices(&self) -> Vec<Value> {
        self.server.list(&resources::ENDPOINT_SLICES).iter().map(|slice| slice.to_value()).collect()
    }

    /// Each endpoint's address with its ready, serving and terminating conditions.
    fn endpoints(&self) -> Vec<(String, [bool; 3])> {
        let slices = self.slices();
        let endpoints = slices.iter().flat_map(|slice| slice.items_at(&["endpoints"]));
        let mut told: Vec<_> = endpoints
            .map(|endpoint| {
                let condition = |name| endpoint.bool_at(&["conditions", name]).unwrap();
                let address = endpoint.items_at(&["addresses"])[0].as_str().unwrap().to_owned();
                (address, [condition("ready"), condition("serving"), condition("terminating")])
            })
            .collect();
        told.sort();
        told
    }
}

#[tokio::test(start_paused = true)]
async fn slices_follow_pods() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::SERVICES, SERVICE);
    eventually("there is an empty slice", || cluster.slices().len() == 1).await;
    for (name, ip) in [("p1", "10.0.0.1"), ("p2", "10.0.0.2")] {
        cluster.put(&resources::PODS, &pod(name));
        run_pod(&cluster.server, &key(name), ip);
    }
    let up = [true, true, false];
    eventually("both are told", || cluster.endpoints() == [("10.0.0.1".into(), up), ("10.0.0.2".into(), up)]).await;
    cluster.settles().await;
    let slices = cluster.slices();
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    assert_eq!(slice.str_at(&["metadata", "labels", "kubernetes.io/service-name"]), Some("web"));
    assert_eq!(slice.str_at(&["metadata", "labels", "l"]), Some("m"));
    assert_eq!(slice.str_at(&["addressType"]), Some("IPv4"));
    assert!(slice.at(&["metadata", "annotations", "endpoints.kubernetes.io/last-change-trigger-time"]).is_some());
    let ports: Vec<_> =
        slice.items_at(&["ports"]).iter().map(|port| (port.str_at(&["name"]), port.i64_at(&["port"]))).collect();
    assert_eq!(ports, [(Some("http"), Some(8080)), (Some("n"), Some(8081))]);
    let first = &slice.items_at(&["endpoints"])[0];
    let text = |name| first.str_at(&[name]);
    assert_eq!((text("nodeName"), text("zone"), text("hostname")), (Some("n1"), Some("z1"), Some("p1")));

    // A pod that fails its readiness leaves within a second.
    set_ready(&cluster.server, &key("p1"), false);
    let failed = async {
        let env = Env::system();
        while cluster.endpoints()[0].1[0] {
            env.sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(1), failed).await.unwrap();
    assert_eq!(cluster.endpoints()[0].1, [false, false, false]);

    // One that is being deleted serves to its end.
    cluster.server.edit(&resources::PODS, &key("p2"), |pod| {
        pod.set(&["metadata", "deletionTimestamp"], "2026-01-01T01:00:00Z");
    });
    eventually("it is terminating", || cluster.endpoints()[1].1 == [false, true, true]).await;
    cluster.server.remove(&resources::PODS, &key("p2"));
    eventually("it is gone", || cluster.endpoints().len() == 1).await;
    cluster.server.remove(&resources::SERVICES, &key("web"));
    eventually("the slices are collected", || cluster.slices().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn not_ready_pods_are_published_if_wanted() {
    let cluster = Cluster::start();
    let service =
        SERVICE.replace("\"clusterIP\":\"10.96.0.9\"", "\"clusterIP\":\"None\",\"publishNotReadyAddresses\":true");
    cluster.put(&resources::SERVICES, &service);
    cluster.put(&resources::PODS, &pod("p1"));
    run_pod(&cluster.server, &key("p1"), "10.0.0.1");
    set_ready(&cluster.server, &key("p1"), false);
    eventually("it is ready", || cluster.endpoints() == [("10.0.0.1".into(), [true, false, false])]).await;
    assert_eq!(cluster.slices()[0].str_at(&["metadata", "labels", "service.kubernetes.io/headless"]), Some(""));
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_its_node() {
    let cluster = Cluster::start();
    cluster.put(&resources::SERVICES, SERVICE);
    cluster.put(&resources::PODS, &pod("p1"));
    run_pod(&cluster.server, &key("p1"), "10.0.0.1");
    sleep(5).await;
    assert!(cluster.endpoints().is_empty());
    let _alive = cluster.put_node("n1");
    eventually("it is told", || cluster.endpoints().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn many_pods_take_several_slices() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    for i in 0..230 {
        cluster.put(&resources::PODS, &pod(&format!("p{i}")));
        run_pod(&cluster.server, &key(&format!("p{i}")), &format!("10.0.1.{i}"));
    }
    cluster.put(&resources::SERVICES, SERVICE);
    eventually("all are told", || cluster.endpoints().len() == 230).await;
    cluster.settles().await;
    let mut sizes: Vec<_> = cluster.slices().iter().map(|slice| slice.items_at(&["endpoints"]).len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [30, 100, 100]);
}

#[tokio::test(start_paused = true)]
async fn endpoints_tell_the_same() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::SERVICES, SERVICE);
    for (name, ip) in [("p1", "10.0.0.1"), ("p2", "10.0.0.2")] {
        cluster.put(&resources::PODS, &pod(name));
        run_pod(&cluster.server, &key(name), ip);
    }
    set_ready(&cluster.server, &key("p2"), false);
    let subsets = || cluster.value(&resources::ENDPOINTS, "web").items_at(&["subsets"]).to_vec();
    let ips = |subset: &Value, name: &str| -> Vec<String> {
        subset.items_at(&[name]).iter().map(|address| address.str_at(&["ip"]).unwrap().to_owned()).collect()
    };
    eventually("both are told", || {
        let subsets = subsets();
        subsets.len() == 1
            && ips(&subsets[0], "addresses") == ["10.0.0.1"]
            && ips(&subsets[0], "notReadyAddresses") == ["10.0.0.2"]
    })
    .await;
    assert_eq!(subsets()[0].items_at(&["ports"]).len(), 2);
    // One without the named port serves on the other alone, beside those that serve on both.
    cluster.put(&resources::PODS, &pod("p3").replace(r#""name":"http""#, r#""name":"other""#));
    run_pod(&cluster.server, &key("p3"), "10.0.0.3");
    eventually("ports are told with their addresses", || {
        let mut told: Vec<_> = subsets()
            .iter()
            .map(|subset| {
                let ports: Vec<_> = subset.items_at(&["ports"]).iter().map(|port| port.i64_at(&["port"])).collect();
                (ports, ips(subset, "addresses"))
            })
            .collect();
        told.sort();
        let both = ["10.0.0.1", "10.0.0.3"].map(str::to_owned).to_vec();
        told == [(vec![Some(8080)], vec!["10.0.0.1".to_owned()]), (vec![Some(8081)], both)]
    })
    .await;
    cluster.settles().await;
    cluster.server.remove(&resources::SERVICES, &key("web"));
    eventually("they go", || cluster.server.list(&resources::ENDPOINTS).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn endpoints_written_by_hand_are_mirrored() {
    let cluster = Cluster::start();
    let service = r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"out","namespace":"ns"},"spec":{"ports":[{"port":80}]}}"#;
    cluster.put(&resources::SERVICES, service);
    let endpoints = r#"{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"out","namespace":"ns","labels":{"a":"b"},"annotations":{"n":"o"}},
        "subsets":[{"addresses":[{"ip":"192.0.2.1"},{"ip":"2001:db8::1"}],"notReadyAddresses":[{"ip":"192.0.2.2"}],"ports":[{"port":8080,"protocol":"TCP"}]}]}"#;
    cluster.put(&resources::ENDPOINTS, endpoints);
    eventually("both families are told", || cluster.slices().len() == 2).await;
    cluster.settles().await;
    let slices = cluster.slices();
    let v4 = slices.iter().find(|slice| slice.str_at(&["addressType"]) == Some("IPv4")).unwrap();
    let told: Vec<_> = v4
        .items_at(&["endpoints"])
        .iter()
        .map(|e| (e.items_at(&["addresses"])[0].as_str().unwrap(), e.bool_at(&["conditions", "ready"]).unwrap()))
        .collect();
    assert_eq!(told, [("192.0.2.1", true), ("192.0.2.2", false)]);
    assert_eq!(v4.str_at(&["metadata", "labels", "a"]), Some("b"));
    assert_eq!(v4.str_at(&["metadata", "annotations", "n"]), Some("o"));
    cluster.server.edit(&resources::SERVICES, &key("out"), |service| service.set(&["spec", "selector", "app"], "x"));
    eventually("who selects pods is not mirrored", || {
        cluster.slices().iter().all(|slice| slice.items_at(&["endpoints"]).is_empty())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn many_endpoints_written_by_hand_take_one_slice_and_none_take_none() {
    let cluster = Cluster::start();
    cluster.put(
        &resources::SERVICES,
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"out","namespace":"ns"},"spec":{"ports":[{"port":80}]}}"#,
    );
    let json = r#"{"apiVersion":"v1","kind":"Endpoints","metadata":{"name":"out","namespace":"ns",
        "labels":{"endpointslice.kubernetes.io/skip-mirror":"no"}}}"#;
    let put = |addresses: usize, port: i64| {
        let address = |n| Value::from(serde_json::json!({"ip": format!("192.0.{}.{}", n / 250, n % 250)}));
        let subset = Value::from(serde_json::json!({"ports": [{"port": port, "protocol": "TCP"}]}));
        if cluster.server.get(&resources::ENDPOINTS, &key("out")).is_none() {
            cluster.put(&resources::ENDPOINTS, json);
        }
        cluster.server.edit(&resources::ENDPOINTS, &key("out"), |endpoints| {
            let mut subset = subset.clone();
            subset.set(&["addresses"], (0..addresses).map(address).collect::<Vec<_>>());
            endpoints.set(&["subsets"], vec![subset]);
        });
    };
    let sizes = || cluster.slices().iter().map(|slice| slice.items_at(&["endpoints"]).len()).collect::<Vec<_>>();
    put(300, 80);
    eventually("one slice tells all", || sizes() == [300]).await;
    let name = cluster.slices()[0].str_at(&["metadata", "name"]).unwrap().to_owned();
    assert_eq!(
        cluster.slices()[0].str_at(&["metadata", "labels", "endpointslice.kubernetes.io/skip-mirror"]),
        Some("no")
    );
    // Another port is told under the same name.
    put(2, 81);
    eventually("it follows", || sizes() == [2]).await;
    assert_eq!(cluster.slices()[0].str_at(&["metadata", "name"]), Some(&*name));
    put(1002, 81);
    eventually("it is full", || sizes() == [1000]).await;
    let told = || cluster.events("TooManyAddressesToMirror");
    eventually("it is told", || !told().is_empty()).await;
    let expect =
        "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. 2 addresses were skipped";
    assert_eq!(told(), [expect]);
    cluster.server.edit(&resources::ENDPOINTS, &key("out"), |endpoints| drop(endpoints.remove(&["subsets"])));
    eventually("none are told by none", || sizes().is_empty()).await;
    cluster.settles().await;
    // What somebody wrote goes with its Service, too.
    put(1, 80);
    eventually("it is told", || sizes() == [1]).await;
    cluster.server.remove(&resources::SERVICES, &key("out"));
    eventually("both go", || sizes().is_empty() && cluster.server.list(&resources::ENDPOINTS).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_slice_keeps_its_name() {
    let cluster = Cluster::start();
    let _alive = cluster.put_node("n1");
    cluster.put(&resources::SERVICES, SERVICE);
    eventually("there is an empty slice", || cluster.slices().len() == 1).await;
    let name = || {
        let slices = cluster.server.list(&resources::ENDPOINT_SLICES);
        slices.iter().map(|slice| slice.name().to_owned()).collect::<Vec<_>>()
    };
    let first = name();
    cluster.put(&resources::PODS, &pod("p1"));
    run_pod(&cluster.server, &key("p1"), "10.0.0.1");
    eventually("it is told", || cluster.endpoints().len() == 1).await;
    cluster.server.edit(&resources::SERVICES, &key("web"), |service| {
        let mut ports = service.items_at(&["spec", "ports"]).to_vec();
        ports.truncate(1);
        service.set(&["spec", "ports"], ports);
    });
    eventually("it tells the other ports", || cluster.slices()[0].items_at(&["ports"]).len() == 1).await;
    cluster.server.remove(&resources::PODS, &key("p1"));
    eventually("it is empty", || cluster.endpoints().is_empty()).await;
    cluster.settles().await;
    assert_eq!(name(), first);
    // A new Service of the same name takes its own.
    cluster.server.edit(&resources::ENDPOINT_SLICES, &key(&first[0]), |slice| {
        let mut owner = slice.items_at(&["metadata", "ownerReferences"])[0].clone();
        owner.set(&["uid"], "elder");
        slice.set(&["metadata", "ownerReferences"], vec![owner]);
    });
    eventually("there is another", || name().len() == 1 && name() != first).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_absent_nodes_are_left_out_and_told() {
    let cluster = Cluster::start();
    cluster.put(&resources::PODS, &pod("p1"));
    run_pod(&cluster.server, &key("p1"), "10.0.0.1");
    cluster.put(&resources::SERVICES, SERVICE);
    let told = || cluster.events("FailedToUpdateEndpointSlices");
    eventually("it is told", || !told().is_empty()).await;
    let expect =
        "Error updating Endpoint Slices for Service ns/web: skipping Pod p1 for Service ns/web: Node n1 Not Found";
    assert_eq!(told(), [expect]);
    assert!(cluster.endpoints().is_empty());
}
