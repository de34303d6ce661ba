//! Controllers of the cluster's own objects: aggregated roles, service ranges, certificate requests.

use super::*;

const RANGES: Resource = Resource::cluster("networking.k8s.io", "v1", "servicecidrs");
const ADDRESSES: Resource = Resource::cluster("networking.k8s.io", "v1", "ipaddresses");
const REQUESTS: Resource = Resource::cluster("certificates.k8s.io", "v1", "certificatesigningrequests");

#[tokio::test(start_paused = true)]
async fn roles_are_put_together() {
    let cluster = Cluster::start();
    let role = |name: &str, labels: &str, rest: &str| {
        let json = format!(
            r#"{{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{{"name":"{name}","labels":{labels}}}{rest}}}"#
        );
        cluster.put(&resources::CLUSTER_ROLES, &json);
    };
    let rules = |rules: &str| format!(r#","rules":[{rules}]"#);
    let (read, write) = (r#"{"resources":["a"],"verbs":["get"]}"#, r#"{"resources":["a"],"verbs":["update"]}"#);
    role("whole", "{}", r#","aggregationRule":{"clusterRoleSelectors":[{"matchLabels":{"to":"whole"}}]}"#);
    role("b", r#"{"to":"whole"}"#, &rules(&format!("{write},{read}")));
    role("a", r#"{"to":"whole"}"#, &rules(read));
    role("other", "{}", &rules(r#"{"verbs":["delete"],"resources":["a"]}"#));
    let whole = || cluster.value(&resources::CLUSTER_ROLES, "whole").items_at(&["rules"]).to_vec();
    let shown = || whole().iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    eventually("it has the rules of both", || shown() == format!("{read},{write}")).await;
    cluster.server.remove(&resources::CLUSTER_ROLES, &ObjectKey::cluster("b"));
    eventually("what goes is taken away", || shown() == read).await;
    // What somebody adds by hand doesn't stay.
    cluster.server.edit(&resources::CLUSTER_ROLES, &ObjectKey::cluster("whole"), |role| {
        role.set(&["rules"], Vec::<Value>::new());
    });
    eventually("it is put right", || shown() == read).await;
    cluster.settles().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_range_goes_when_it_is_empty() {
    let cluster = Cluster::start();
    let range = |name: &str, cidr: &str| {
        let json = format!(
            r#"{{"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{{"name":"{name}"}},"spec":{{"cidrs":["{cidr}"]}}}}"#
        );
        cluster.put(&RANGES, &json);
    };
    let ready = |name: &str| {
        let value = cluster.value(&RANGES, name);
        let condition = value.items_at(&["status", "conditions"]).first().cloned().unwrap_or_default();
        condition.str_at(&["status"]).unwrap_or_default().to_owned()
    };
    range("one", "10.1.0.0/24");
    range("two", "10.2.0.0/24");
    eventually("they are ready", || ready("one") == "True" && ready("two") == "True").await;
    cluster.put(
        &ADDRESSES,
        r#"{"apiVersion":"networking.k8s.io/v1","kind":"IPAddress","metadata":{"name":"10.1.0.7","labels":{"ipaddress.kubernetes.io/managed-by":"ipallocator.k8s.io"}}}"#,
    );
    sleep(1).await;
    for name in ["one", "two"] {
        let now = format!("{:.0}", cluster.server.client().env().now());
        let key = ObjectKey::cluster(name);
        cluster.server.edit(&RANGES, &key, |range| range.set(&["metadata", "deletionTimestamp"], now.as_str()));
    }
    let gone = |name: &str| cluster.server.get(&RANGES, &ObjectKey::cluster(name)).is_none();
    eventually("the empty one goes", || gone("two")).await;
    assert_eq!(ready("one"), "False");
    cluster.server.remove(&ADDRESSES, &ObjectKey::cluster("10.1.0.7"));
    eventually("the other too", || gone("one")).await;
}

#[tokio::test(start_paused = true)]
async fn a_range_that_cannot_be_called_ready_is_told() {
    let server = FakeServer::new(Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap()));
    server.react(|request| {
        let refused = request.target.contains("/servicecidrs/one/status");
        let status = apimachinery::Status::new(403, apimachinery::Reason::Forbidden, "not this one");
        refused.then_some(client::fake::Reaction::Refuse(status))
    });
    let cluster = Cluster::start_some(server, &["service-cidr-controller"]);
    let range = r#"{"apiVersion":"networking.k8s.io/v1","kind":"ServiceCIDR","metadata":{"name":"one"},"spec":{"cidrs":["10.1.0.0/24"]}}"#;
    cluster.put(&RANGES, range);
    let told = || cluster.events("KubernetesServiceCIDRError");
    eventually("it is told", || told() == ["The ServiceCIDR Status can not be set to Ready=True"]).await;
}

#[tokio::test(start_paused = true)]
async fn answered_requests_go() {
    let cluster = Cluster::start();
    let put = |name: &str, conditions: &str, certificate: &str| {
        let json = format!(
            r#"{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{{"name":"{name}"}},"spec":{{}},
            "status":{{"conditions":{conditions}{certificate}}}}}"#
        );
        cluster.put(&REQUESTS, &json);
    };
    let answered =
        |r#type: &str| format!(r#"[{{"type":"{type}","status":"True","lastUpdateTime":"2026-01-01T00:00:00Z"}}]"#);
    put("waits", "[]", "");
    put("denied", &answered("Denied"), "");
    put("issued", &answered("Approved"), r#","certificate":"eA==""#);
    put("approved", &answered("Approved"), "");
    let left = || cluster.server.list(&REQUESTS).iter().map(|request| request.name().to_owned()).collect::<Vec<_>>();
    sleep(3500).await;
    assert_eq!(left().len(), 4);
    sleep(200).await;
    assert_eq!(left(), ["approved", "waits"]);
    sleep(24 * 3600).await;
    assert_eq!(left(), Vec::<String>::new());
}
