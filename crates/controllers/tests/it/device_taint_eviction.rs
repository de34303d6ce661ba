//! Pods leave devices that drive them out.

use super::*;

const CLAIMS: Resource = Resource::namespaced("resource.k8s.io", "v1", "resourceclaims");
const SLICES: Resource = Resource::cluster("resource.k8s.io", "v1", "resourceslices");

fn start(taints: bool) -> Cluster {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.serve(&CLAIMS, "ResourceClaim");
    server.serve(&SLICES, "ResourceSlice");
    Cluster::start_with(server, |config| {
        config.controllers = vec!["device-taint-eviction-controller".to_owned()];
        config.features.device_taints = taints;
    })
}

/// A pod `name` on a node that uses the claim `name`, which has the device.
fn pod(cluster: &Cluster, name: &str, device: &str, tolerations: &str) {
    let claim = format!(
        "{{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {{name: {name}, namespace: ns}}, spec: {{}},
          status: {{allocation: {{devices: {{results: [{{request: r, driver: d, pool: p, device: {device}, tolerations: [{tolerations}]}}]}}}},
            reservedFor: [{{resource: pods, name: {name}, uid: {name}}}]}}}}"
    );
    cluster.put_yaml(&CLAIMS, &claim);
    let pod = format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: ns, uid: {name}}},
          spec: {{nodeName: n, containers: [], resourceClaims: [{{name: gpu, resourceClaimName: {name}}}]}}, status: {{phase: Running}}}}"
    );
    cluster.put_yaml(&resources::PODS, &pod);
}

fn slice(cluster: &Cluster, name: &str, generation: u32, effect: &str) {
    let taints = match effect {
        "" => String::new(),
        effect => format!(", taints: [{{key: k, effect: {effect}, timeAdded: '2026-01-01T00:00:00Z'}}]"),
    };
    let slice = format!(
        "{{apiVersion: resource.k8s.io/v1, kind: ResourceSlice, metadata: {{name: {name}}},
          spec: {{driver: d, nodeName: n, pool: {{name: p, generation: {generation}, resourceSliceCount: 1}},
            devices: [{{name: x{taints}}}, {{name: y}}]}}}}"
    );
    cluster.put_yaml(&SLICES, &slice);
}

fn lives(cluster: &Cluster, name: &str) -> bool {
    let pod = cluster.server.get(&resources::PODS, &ObjectKey::new("ns", name));
    pod.is_some_and(|pod| !pod.is_deleting())
}

#[tokio::test(start_paused = true)]
async fn pods_leave_devices_that_drive_them_out() {
    let cluster = start(true);
    slice(&cluster, "s", 1, "NoSchedule");
    pod(&cluster, "hurt", "x", "");
    pod(&cluster, "beside", "y", "");
    pod(&cluster, "stays", "x", "{operator: Exists, effect: NoExecute}");
    pod(&cluster, "later", "x", "{key: k, operator: Exists, effect: NoExecute, tolerationSeconds: 600}");
    sleep(1).await;
    assert!(lives(&cluster, "hurt"));
    slice(&cluster, "s", 1, "NoExecute");
    eventually("the pod leaves", || !lives(&cluster, "hurt")).await;
    sleep(1).await;
    assert_eq!(["beside", "stays", "later"].map(|name| lives(&cluster, name)), [true; 3]);

    // A newer slice doesn't have it: the one that was to leave stays after all.
    slice(&cluster, "t", 2, "");
    sleep(1000).await;
    assert!(lives(&cluster, "later"));
    let events = cluster.events("DeviceTaintManagerEviction");
    assert_eq!(events, ["Marking for deletion", "Cancelling deletion"]);
    let told = cluster.server.list(&resources::EVENTS)[0].to_value();
    assert_eq!(told.str_at(&["source", "component"]), Some("device-taint-eviction-controller"));
    let about = told.get("involvedObject").unwrap().to_string();
    assert_eq!(about, r#"{"apiVersion":"v1","kind":"Pod","name":"hurt","namespace":"ns","uid":"hurt"}"#);
    slice(&cluster, "u", 3, "NoExecute");
    eventually("its time is over", || !lives(&cluster, "later")).await;
}

#[tokio::test(start_paused = true)]
async fn taints_mean_nothing_while_the_feature_is_off() {
    let cluster = start(false);
    slice(&cluster, "s", 1, "NoExecute");
    pod(&cluster, "p", "x", "");
    sleep(1000).await;
    assert!(lives(&cluster, "p"));
}
