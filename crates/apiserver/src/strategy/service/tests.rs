//! Services: defaults and refusals as goldens; allocation against a store.

use apimachinery::{Status, Value};
use store::{RangeQuery, Txn};

use super::super::tests::{Kind, World, at};
use super::super::{Strategy, Together};
use super::{Service, allocate, repair};
use crate::config::Settings;

fn services() -> Kind {
    Kind::of("", "v1", "Service")
}

#[test]
fn defaults() {
    services().check_created(
        "spec: {selector: {a: b}, ports: [{port: 80}]}",
        &[
            (
                "spec",
                r#"{"internalTrafficPolicy":"Cluster","ports":[{"port":80,"protocol":"TCP","targetPort":80}],"selector":{"a":"b"},
                "sessionAffinity":"None","type":"ClusterIP"}"#,
            ),
            ("status", r#"{"loadBalancer":{}}"#),
        ],
    );
    services().check_created(
        "spec: {type: NodePort, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http, protocol: UDP}]}",
        &[
            ("spec.externalTrafficPolicy", "\"Cluster\""),
            ("spec.sessionAffinityConfig", r#"{"clientIP":{"timeoutSeconds":10800}}"#),
            ("spec.ports.0", r#"{"port":80,"protocol":"UDP","targetPort":"http"}"#),
        ],
    );
    services().check_created(
        "spec: {type: LoadBalancer, ports: [{port: 80}]}",
        &[("spec.allocateLoadBalancerNodePorts", "true"), ("spec.externalTrafficPolicy", "\"Cluster\"")],
    );
    services().check_created(
        "spec: {clusterIP: None}",
        &[("spec.clusterIPs", "[\"None\"]"), ("spec.externalTrafficPolicy", "absent")],
    );
    services().check_created(
        "spec: {type: ExternalName, externalName: example.com}",
        &[("spec", r#"{"externalName":"example.com","sessionAffinity":"None","type":"ExternalName"}"#)],
    );
}

#[test]
fn bad_services_are_refused() {
    let check = |spec: &str, expect: &[&str]| services().check_invalid(&format!("spec: {spec}"), expect);
    check("{ports: [{port: 80}]}", &[]);
    check("{}", &["spec.ports: Required value"]);
    check(
        "{type: NodePort, clusterIP: None, ports: [{port: 80}]}",
        &["spec.clusterIPs[0]: Invalid value: \"None\": may not be set to 'None' for NodePort services"],
    );
    check(
        "{type: X, sessionAffinity: Y, internalTrafficPolicy: Z, ports: [{port: 0}, {name: a, port: 80}, {name: a, port: 80, targetPort: a--b}]}",
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive",
            "spec.ports[2].name: Duplicate value: \"a\"",
            "spec.ports[2].targetPort: Invalid value: \"a--b\": must not contain consecutive hyphens",
            "spec.sessionAffinity: Unsupported value: \"Y\": supported values: \"ClientIP\", \"None\"",
            "spec.type: Unsupported value: \"X\": supported values: \"ClusterIP\", \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
            "spec.ports[2]: Duplicate value: {\"Name\":\"\",\"Protocol\":\"TCP\",\"AppProtocol\":null,\"Port\":80,\"TargetPort\":0,\"NodePort\":0}",
            "spec.internalTrafficPolicy: Unsupported value: \"Z\": supported values: \"Cluster\", \"Local\"",
        ],
    );
    check(
        "{externalTrafficPolicy: Local, ports: [{port: 80, nodePort: 30000}], externalIPs: [127.0.0.1], loadBalancerClass: a}",
        &[
            "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range (127.0.0.0/8, ::1/128)",
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
            "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'",
        ],
    );
    check(
        "{externalTrafficPolicy: Local, ports: [{port: 80}]}",
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible services"],
    );
    check(
        "{type: ExternalName, clusterIP: 10.0.0.1}",
        &["spec.clusterIPs: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"],
    );
    check(
        "{clusterIP: 10.0.0.1, clusterIPs: [10.0.0.2, x], ipFamilies: [IPv4, IPv4, X], ipFamilyPolicy: Both, ports: [{port: 80}]}",
        &[
            "spec.clusterIPs: Invalid value: [\"10.0.0.2\",\"x\"]: first value must match `clusterIP`",
            "spec.ipFamilies[1]: Duplicate value: \"IPv4\"",
            "spec.ipFamilies[2]: Unsupported value: \"X\": supported values: \"IPv4\", \"IPv6\"",
            "spec.ipFamilyPolicy: Unsupported value: \"Both\": supported values: \"PreferDualStack\", \"RequireDualStack\", \"SingleStack\"",
            "spec.clusterIPs[1]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ],
    );
}

/// A cluster with Services in its store.
struct Cluster {
    world: World,
    strategy: Service,
    kind: Kind,
}

impl Cluster {
    fn new(cidrs: &[&str]) -> Cluster {
        let mut settings = Settings::new([192, 0, 2, 1].into());
        settings.service_cidrs = cidrs.iter().map(|cidr| (*cidr).to_owned()).collect();
        settings.node_ports = 30000..=30040;
        Cluster { world: World::new(), strategy: Service::new(&settings), kind: services() }
    }

    async fn stored(&self, name: &str) -> Option<(Value, u64)> {
        let found = self.world.store.get(key(name).as_bytes()).await.unwrap()?;
        Some((Value::parse(&found.value).unwrap(), found.mod_revision))
    }

    /// Creates or updates a Service as the registry would; errors are the answer's message.
    async fn apply(&self, name: &str, spec: &str) -> Result<Value, String> {
        let ctx = self.world.context("");
        let mut new = self.kind.defaulted(&format!("{{metadata: {{name: {name}}}, spec: {spec}}}"));
        let old = self.stored(name).await;
        let mut errors = Vec::new();
        match &old {
            None => {
                self.strategy.prepare_create(&ctx, &mut new);
                self.strategy.validate(&ctx, &new, &mut errors);
            }
            Some((old, _)) => {
                self.strategy.prepare_update(&ctx, &mut new, old);
                self.strategy.validate_update(&ctx, &new, old, &mut errors);
            }
        }
        if let Some(error) = errors.first() {
            return Err(error.to_string());
        }
        let together = self.strategy.allocate(&ctx, &mut new, old.as_ref().map(|(old, _)| old)).await;
        let together = together.map_err(|status: Status| status.message)?;
        let revision = old.map_or(0, |(_, revision)| revision);
        self.commit(Txn::update(key(name), new.to_json(), revision), together).await;
        Ok(new)
    }

    async fn delete(&self, name: &str) {
        let (old, revision) = self.stored(name).await.unwrap();
        let together = self.strategy.release(&self.world.context(""), &old).await.unwrap();
        self.commit(Txn::remove(key(name), revision), together).await;
    }

    async fn commit(&self, mut txn: Txn, together: Together) {
        txn.compares.extend(together.compares);
        txn.ops.extend(together.ops);
        self.world.store.commit(txn).await.unwrap();
    }

    /// Addresses that are taken, and how many ports are.
    async fn taken(&self) -> (Vec<String>, String) {
        let items = self.world.store.range(RangeQuery::prefix("/registry/ipaddresses/")).await.unwrap().items;
        let name = |item: &store::KeyValue| String::from_utf8_lossy(&item.key[22..]).into_owned();
        let ports = self.world.store.get(super::node_ports::KEY.as_bytes()).await.unwrap();
        let ports = ports.map(|found| Value::parse(&found.value).unwrap().str_at(&["data"]).unwrap().to_owned());
        (items.iter().map(name).collect(), ports.unwrap_or_default())
    }
}

fn key(name: &str) -> String {
    format!("/registry/services/specs/default/{name}")
}

#[tokio::test]
async fn an_address_is_taken_and_given_back() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let service = cluster.apply("a", "{ports: [{port: 80}]}").await.unwrap();
    let address = service.str_at(&["spec", "clusterIP"]).unwrap().to_owned();
    assert_eq!(at(&service, "spec.clusterIPs").unwrap().to_string(), format!("[{address:?}]"));
    assert_eq!(at(&service, "spec.ipFamilies").unwrap().to_string(), "[\"IPv4\"]");
    assert_eq!(service.str_at(&["spec", "ipFamilyPolicy"]), Some("SingleStack"));
    assert_eq!(cluster.taken().await.0, [address.as_str()]);
    let held = cluster.world.store.get(format!("/registry/ipaddresses/{address}").as_bytes()).await.unwrap().unwrap();
    let held = Value::parse(&held.value).unwrap();
    assert_eq!(
        held.at(&["spec", "parentRef"]).unwrap().to_string(),
        r#"{"name":"a","namespace":"default","resource":"services"}"#
    );

    let again = cluster.apply("b", &format!("{{clusterIP: {address}, ports: [{{port: 80}}]}}")).await.unwrap_err();
    assert_eq!(
        again,
        format!(
            "Service \"b\" is invalid: spec.clusterIPs: Invalid value: [{address:?}]: failed to allocate IP {address}: provided IP is already allocated"
        )
    );
    let outside = cluster.apply("b", "{clusterIP: 10.0.0.1, ports: [{port: 80}]}").await.unwrap_err();
    assert!(
        outside.ends_with("failed to allocate IP 10.0.0.1: the provided network does not match the current range"),
        "{outside}"
    );
    // An update without the address keeps it; one that changes it is refused.
    let same = cluster.apply("a", "{ports: [{port: 81}]}").await.unwrap();
    assert_eq!(same.str_at(&["spec", "clusterIP"]), Some(address.as_str()));
    let other = cluster.apply("a", "{clusterIP: 10.96.0.77, ports: [{port: 80}]}").await.unwrap_err();
    assert_eq!(other, "spec.clusterIPs[0]: Invalid value: null: primary clusterIP can not be unset");
    let other = format!("{{clusterIP: 10.96.0.77, clusterIPs: [{address}], ports: [{{port: 80}}]}}");
    let other = cluster.apply("a", &other).await.unwrap_err();
    assert_eq!(other, "spec.clusterIPs[0]: Invalid value: [\"10.96.0.77\"]: may not change once set");
    cluster.apply("a", "{type: ExternalName, externalName: example.com}").await.unwrap();
    assert!(cluster.taken().await.0.is_empty());
    let back = cluster.apply("a", "{clusterIP: 10.96.0.10, ports: [{port: 80}]}").await.unwrap();
    assert_eq!(back.str_at(&["spec", "clusterIP"]), Some("10.96.0.10"));
    cluster.delete("a").await;
    assert!(cluster.taken().await.0.is_empty());
}

#[tokio::test]
async fn chance_leaves_the_first_addresses_alone_until_the_others_are_gone() {
    let cluster = Cluster::new(&["10.0.0.0/27"]);
    for i in 0..30 {
        let service = cluster.apply(&format!("s{i}"), "{ports: [{port: 80}]}").await.unwrap();
        let address: std::net::Ipv4Addr = service.str_at(&["spec", "clusterIP"]).unwrap().parse().unwrap();
        assert_eq!(address.octets()[3] > 16, i < 14, "{i} {address}");
    }
    let full = cluster.apply("more", "{ports: [{port: 80}]}").await.unwrap_err();
    assert_eq!(full, "Internal error occurred: failed to allocate a serviceIP: range is full");
    // Headless Services and names take none.
    cluster.apply("headless", "{clusterIP: None}").await.unwrap();
    cluster.apply("name", "{type: ExternalName, externalName: a.b}").await.unwrap();
}

#[tokio::test]
async fn node_ports_are_taken_and_given_back() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let ports = |service: &Value| -> Vec<i64> {
        at(service, "spec.ports")
            .unwrap()
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port.i64_at(&["nodePort"]).unwrap_or(0))
            .collect()
    };
    let dns = "ports: [{name: u, port: 53, protocol: UDP}, {name: t, port: 53}, {name: w, port: 80, nodePort: 30001}]";
    let service = cluster.apply("a", &format!("{{type: NodePort, {dns}}}")).await.unwrap();
    let taken = ports(&service);
    assert!(taken[0] == taken[1] && taken[0] > 30016 && taken[2] == 30001, "{taken:?}");

    let check = |spec: &'static str, expect: &'static str| {
        let cluster = &cluster;
        async move { assert_eq!(cluster.apply("b", spec).await.unwrap_err(), expect) }
    };
    check(
        "{type: NodePort, ports: [{port: 80, nodePort: 30001}]}",
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated",
    )
    .await;
    check(
        "{type: NodePort, ports: [{port: 80, nodePort: 80}]}",
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-30040",
    )
    .await;
    // An update without the numbers keeps them.
    let same = cluster
        .apply("a", "{type: NodePort, ports: [{name: u, port: 53, protocol: UDP}, {name: w, port: 81}]}")
        .await
        .unwrap();
    assert_eq!(ports(&same), [taken[0], 30001]);
    let balanced = cluster
        .apply("a", "{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{name: w, port: 81}]}")
        .await
        .unwrap();
    assert_eq!(ports(&balanced), [30001]);
    let health = balanced.i64_at(&["spec", "healthCheckNodePort"]).unwrap();
    assert!((30000..=30040).contains(&health));
    assert_eq!(allocate::taken_ports(Some(&balanced)), [30001, health]);
    // A client that writes back what it read, with another type, means to give the ports back.
    let mut spec = balanced.get("spec").unwrap().clone();
    spec.set(&["type"], "ClusterIP");
    let plain = cluster.apply("a", &spec.to_string()).await.unwrap();
    assert_eq!(ports(&plain), [0]);
    assert_eq!(at(&plain, "spec.externalTrafficPolicy"), None);
    assert_eq!(at(&plain, "spec.healthCheckNodePort"), None);
    assert_eq!(cluster.taken().await.1, "");
    cluster.apply("b", "{type: NodePort, ports: [{port: 80, nodePort: 30001}]}").await.unwrap();
    cluster.delete("b").await;
    assert_eq!(cluster.taken().await.1, "");
}

#[tokio::test]
async fn two_families() {
    let cluster = Cluster::new(&["10.96.0.0/12", "fd00::/112"]);
    let both = cluster.apply("a", "{ipFamilyPolicy: PreferDualStack, ports: [{port: 80}]}").await.unwrap();
    assert_eq!(at(&both, "spec.ipFamilies").unwrap().to_string(), "[\"IPv4\",\"IPv6\"]");
    let (taken, _) = cluster.taken().await;
    assert_eq!(taken.len(), 2);
    let single = cluster.apply("a", "{ipFamilyPolicy: SingleStack, ports: [{port: 80}]}").await.unwrap();
    assert_eq!(at(&single, "spec.clusterIPs").unwrap().as_array().unwrap().len(), 1);
    assert_eq!(cluster.taken().await.0.len(), 1);
    let six = cluster.apply("b", "{clusterIP: 'fd00::5', ports: [{port: 80}]}").await.unwrap();
    assert_eq!(at(&six, "spec.ipFamilies").unwrap().to_string(), "[\"IPv6\"]");

    let one = Cluster::new(&["10.96.0.0/12"]);
    let why = one.apply("a", "{ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}").await.unwrap_err();
    assert_eq!(
        why,
        "Service \"a\" is invalid: spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    let why = one.apply("a", "{ipFamilies: [IPv6], ports: [{port: 80}]}").await.unwrap_err();
    assert_eq!(
        why,
        "Service \"a\" is invalid: spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    let headless = one.apply("h", "{clusterIP: None}").await.unwrap();
    assert_eq!(at(&headless, "spec.ipFamilies").unwrap().to_string(), "[\"IPv4\",\"IPv6\"]");
    assert_eq!(headless.str_at(&["spec", "ipFamilyPolicy"]), Some("RequireDualStack"));
}

#[tokio::test]
async fn what_a_hand_broke_is_repaired() {
    let cluster = Cluster::new(&["10.96.0.0/12"]);
    let store = &*cluster.world.store;
    let service = cluster.apply("a", "{type: NodePort, ports: [{port: 80, nodePort: 30001}]}").await.unwrap();
    cluster.apply("b", "{clusterIP: 10.96.0.10, ports: [{port: 80}]}").await.unwrap();
    let sound = cluster.taken().await;
    let run = || repair::repair(&cluster.world.env, store, &cluster.strategy.node_ports);
    assert_eq!(run().await.unwrap(), repair::Repaired::default());

    let address = service.str_at(&["spec", "clusterIP"]).unwrap();
    store.commit(Txn::new().delete(format!("/registry/ipaddresses/{address}"))).await.unwrap();
    store.commit(Txn::new().delete(super::node_ports::KEY)).await.unwrap();
    let held = super::addresses::put(&cluster.world.env, &"10.96.0.99".parse().unwrap(), ("default", "gone")).unwrap();
    store.commit(Txn { compares: Vec::new(), ops: vec![held] }).await.unwrap();
    assert_eq!(run().await.unwrap(), repair::Repaired { taken: 1, freed: 1, ports: true });
    assert_eq!(cluster.taken().await, sound);
    assert_eq!(run().await.unwrap(), repair::Repaired::default());
}
