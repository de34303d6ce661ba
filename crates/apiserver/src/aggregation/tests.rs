use apimachinery::{Object, ObjectKey};
use env::Env;
use jiff::Timestamp;
use serde_json::{Value as Json, json};
use std::sync::Arc;

use super::route::{Route, Trust};
use super::{Aggregation, Routes, discovery, resolve};
use crate::answer::{Answer, Content};
use crate::strategy::Objects;

fn route(group: &str, version: &str, group_priority: i64, version_priority: i64) -> Arc<Route> {
    let text = |text: &str| text.to_owned();
    let (namespace, service) = (text("ns"), text("svc"));
    let (group, version) = (text(group), text(version));
    let trust = Trust::Anything;
    let available = true;
    Arc::new(Route {
        group,
        version,
        namespace,
        service,
        port: 443,
        trust,
        group_priority,
        version_priority,
        available,
    })
}

fn aggregation(routes: &[Arc<Route>]) -> (tempfile::TempDir, Aggregation) {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::seeded(1, Timestamp::UNIX_EPOCH);
    let pki = Arc::new(pki::ClusterPki::load_or_create(folder.path(), &env).unwrap());
    let aggregation = Aggregation::new(&env, &pki);
    let routes: Routes = routes.iter().map(|route| (route.key(), route.clone())).collect();
    *aggregation.routes.write() = Arc::new(routes);
    (folder, aggregation)
}

fn told(answer: Option<Answer>) -> Json {
    match answer.unwrap().content {
        Content::Bytes(bytes) => serde_json::from_slice(&bytes).unwrap(),
        _ => panic!("no document"),
    }
}

#[test]
fn groups_of_others_are_listed_by_priority() {
    let routes = [
        route("metrics.k8s.io", "v1beta1", 100, 100),
        route("wardle.example.com", "v1", 2000, 200),
        route("wardle.example.com", "v1alpha1", 2000, 20),
    ];
    let (_folder, aggregation) = aggregation(&routes);
    let version =
        |group: &str, version: &str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let own = json!({ "kind": "APIGroupList", "groups": [
        { "name": "apps", "versions": [version("apps", "v1")], "preferredVersion": version("apps", "v1") },
        { "name": "example.org", "versions": [version("example.org", "v1")], "preferredVersion": {} },
        { "name": "metrics.k8s.io", "versions": [version("metrics.k8s.io", "v1beta1")], "preferredVersion": {} },
    ] });
    let own = Answer::json(http::StatusCode::OK, own.to_string());
    let headers = http::HeaderMap::new();
    let list = told(aggregation.completed("/apis", &headers, Some(own)));
    let names: Vec<&str> = list["groups"].as_array().unwrap().iter().map(|g| g["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["apps", "wardle.example.com", "example.org", "metrics.k8s.io"]);
    assert_eq!(list["groups"][1]["preferredVersion"]["version"], "v1");
    assert_eq!(list["groups"][3]["versions"].as_array().unwrap().len(), 1);
    let group = told(aggregation.completed("/apis/wardle.example.com", &headers, None));
    assert_eq!(group["versions"][1]["groupVersion"], "wardle.example.com/v1alpha1");
    assert_eq!(group["kind"], "APIGroup");
    assert!(aggregation.completed("/apis/other", &headers, None).is_none());
    assert!(!aggregation.adds_to("/apis/apps") && aggregation.adds_to("/apis/metrics.k8s.io"));

    let own = json!({ "kind": "APIGroupDiscoveryList", "items": [{ "metadata": { "name": "apps" }, "versions": [] }] });
    let own = Answer::json(http::StatusCode::OK, own.to_string());
    let list = told(aggregation.completed("/apis", &headers, Some(own)));
    assert_eq!(list["items"][1]["metadata"]["name"], "wardle.example.com");
    let versions = list["items"][1]["versions"].as_array().unwrap();
    assert_eq!((&versions[0]["version"], &versions[0]["freshness"]), (&json!("v1"), &json!("Stale")));
}

#[test]
fn resource_lists_become_versions() {
    let list = json!({ "resources": [
        { "name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"] },
        { "name": "flunders/status", "singularName": "", "namespaced": true, "kind": "Flunder", "verbs": ["get"] },
        { "name": "pods/x", "namespaced": true, "kind": "Other", "group": "o", "version": "v2", "verbs": [] },
    ] });
    let version = discovery::aggregated(&route("g", "v1", 1, 1), &list);
    let expect = json!({ "version": "v1", "freshness": "Current", "resources": [
        { "resource": "flunders", "responseKind": { "group": "g", "version": "v1", "kind": "Flunder" }, "scope": "Namespaced",
          "singularResource": "flunder", "verbs": ["get"], "shortNames": ["fl"],
          "subresources": [{ "subresource": "status", "responseKind": { "group": "g", "version": "v1", "kind": "Flunder" }, "verbs": ["get"] }] },
        { "resource": "pods", "scope": "Namespaced", "verbs": [],
          "subresources": [{ "subresource": "x", "responseKind": { "group": "o", "version": "v2", "kind": "Other" }, "verbs": [] }] },
    ] });
    assert_eq!(version, expect);
}

#[derive(Default)]
struct World(Vec<(&'static str, Arc<Object>)>);

impl Objects for World {
    fn get(&self, group: &str, resource: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        self.list(group, resource, "").into_iter().find(|object| object.key() == key)
    }

    fn list(&self, _: &str, resource: &str, _: &str) -> Vec<Arc<Object>> {
        self.0.iter().filter(|(of, _)| *of == resource).map(|(_, object)| object.clone()).collect()
    }
}

#[test]
fn a_service_leads_to_its_ready_endpoints() {
    let mut world = World::default();
    let check = |world: &World, reason: &str, message: &str| {
        let nowhere = resolve::endpoints(world, &route("g", "v1", 1, 1)).unwrap_err();
        assert_eq!((nowhere.reason, nowhere.message.as_str()), (reason, message));
    };
    let put = |world: &mut World, resource: &'static str, json: Json| {
        world.0.retain(|(of, _)| *of != resource);
        world.0.push((resource, Arc::new(Object::parse(json.to_string().as_bytes()).unwrap())));
    };
    let service = |port: u16| {
        json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "svc", "namespace": "ns" },
                "spec": { "type": "ClusterIP", "ports": [{ "name": "api", "port": port }] } })
    };
    let slice = |ready: bool| {
        json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": { "name": "s", "namespace": "ns", "labels": { "kubernetes.io/service-name": "svc" } },
                "ports": [{ "name": "api", "port": 8443 }],
                "endpoints": [{ "addresses": ["1.2.3.4"], "conditions": { "ready": ready } }] })
    };
    check(&world, "ServiceNotFound", r#"service/svc in "ns" is not present"#);
    put(&mut world, "services", service(80));
    check(&world, "ServicePortError", r#"service/svc in "ns" is not listening on port 443"#);
    put(&mut world, "services", service(443));
    check(&world, "EndpointsNotFound", r#"cannot find endpointslices for service/svc in "ns""#);
    put(&mut world, "endpointslices", slice(false));
    let message = r#"endpointslices for service/svc in "ns" have no addresses with port name "api""#;
    check(&world, "MissingEndpoints", message);
    put(&mut world, "endpointslices", slice(true));
    assert_eq!(resolve::endpoints(&world, &route("g", "v1", 1, 1)), Ok(vec![("1.2.3.4".to_owned(), 8443)]));
}
