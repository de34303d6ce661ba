//! The gate as a whole, with upstream's policy; and the in-memory objects that its parts are tested with.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::Value;
use parking_lot::Mutex;

use super::*;
use crate::strategy::Objects;

/// Objects in memory.
#[derive(Default)]
pub(super) struct World(Mutex<BTreeMap<(String, String, ObjectKey), Arc<Object>>>);

impl World {
    pub(super) fn put(&self, group: &str, resource: &str, json: &str) {
        let value = Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"));
        let object = Object::new(&value, 1).unwrap();
        let key = (group.to_owned(), resource.to_owned(), object.key().clone());
        self.0.lock().insert(key, Arc::new(object));
    }
}

impl Objects for World {
    fn get(&self, group: &str, resource: &str, key: &ObjectKey) -> Option<Arc<Object>> {
        self.0.lock().get(&(group.to_owned(), resource.to_owned(), key.clone())).cloned()
    }

    fn list(&self, group: &str, resource: &str, namespace: &str) -> Vec<Arc<Object>> {
        let all = self.0.lock();
        let matching = all.iter().filter(|((g, r, key), _)| {
            g == group && r == resource && (namespace.is_empty() || key.namespace == namespace)
        });
        matching.map(|(_, object)| object.clone()).collect()
    }
}

/// A gate with the bootstrap policy.
pub(super) fn bootstrapped() -> Gate {
    let gate = Gate::default();
    for wanted in bootstrap::rbac(false) {
        let object = Object::new(&wanted.value, 1).unwrap();
        gate.observe(wanted.group, wanted.resource, object.key(), Some(&object));
    }
    gate
}

#[test]
fn upstreams_policy_lets_in_whom_it_should() {
    let gate = bootstrapped();
    let user = |name: &str, groups: &[&str]| UserInfo::authenticated(name, groups);
    let may = |user: &UserInfo, verb: &str, group: &str, resource: &str, namespace: &str| {
        gate.authorize(&Attributes { namespace, ..Attributes::resource(user, verb, group, resource) }).allowed
    };
    let sees = |user: &UserInfo, path: &str| gate.authorize(&Attributes::path(user, "get", path)).allowed;
    assert!(may(&user("a", &["system:masters"]), "delete", "", "nodes", ""));
    assert!(!may(&user("a", &[]), "get", "", "pods", "default"));
    assert!(may(&user("a", &[]), "create", "authorization.k8s.io", "selfsubjectaccessreviews", ""));
    assert!(may(&user("system:kube-scheduler", &[]), "watch", "", "pods", ""));
    assert!(may(&user("system:kube-controller-manager", &[]), "list", "apps", "deployments", ""));
    assert!(may(
        &user("system:serviceaccount:kube-system:deployment-controller", &[]),
        "create",
        "apps",
        "replicasets",
        "n"
    ));
    assert!(may(&user("system:kube-proxy", &[]), "watch", "discovery.k8s.io", "endpointslices", ""));
    assert!(sees(&UserInfo::anonymous(), "/healthz") && sees(&UserInfo::anonymous(), "/version"));
    assert!(!sees(&UserInfo::anonymous(), "/api") && !sees(&UserInfo::anonymous(), "/metrics"));
    assert!(sees(&user("a", &[]), "/api/v1") && sees(&user("a", &[]), "/openapi/v3"));
}

#[test]
fn reasons_of_all_authorisers_are_told() {
    let gate = bootstrapped();
    let node = UserInfo::authenticated("system:node:a", &["system:nodes"]);
    let secret = Attributes { namespace: "n", name: "s", ..Attributes::resource(&node, "get", "", "secrets") };
    assert_eq!(
        gate.check(&secret).unwrap_err().message,
        "secrets \"s\" is forbidden: User \"system:node:a\" cannot get resource \"secrets\" in API group \"\" in the namespace \"n\": no \
         relationship found between node 'a' and this object"
    );
}

mod reviews {
    use std::sync::Arc;

    use env::Env;
    use pki::ClusterPki;

    use super::*;

    fn ask(user: &UserInfo, kind: &str, namespace: &str, request: &str) -> Result<Value, Status> {
        let folder = tempfile::tempdir().unwrap();
        let env = Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap());
        let pki = Arc::new(ClusterPki::load_or_create(folder.path(), &env).unwrap());
        let (gate, world) = (bootstrapped(), World::default());
        let authenticator = Authenticator::new(pki, "issuer").unwrap();
        let reviewer = Reviewer { gate: &gate, authenticator: &authenticator, objects: &world, user, now: env.now() };
        review(&reviewer, kind, namespace, Value::parse(request.as_bytes()).unwrap())
    }

    #[test]
    fn access() {
        let user = UserInfo::authenticated("a", &[]);
        let check = |kind: &str, namespace: &str, request: &str, expect: &str| {
            let found = match ask(&user, kind, namespace, request) {
                Ok(answer) => answer.get("status").unwrap().to_string(),
                Err(status) => format!("{} {}", status.code, status.message),
            };
            assert_eq!(found, expect);
        };
        let reviews = r#""resourceAttributes":{"verb":"create","group":"authorization.k8s.io","resource":"selfsubjectrulesreviews"}"#;
        let allowed = r#"{"allowed":true,"reason":"RBAC: allowed by ClusterRoleBinding \"system:basic-user\" of ClusterRole \"system:basic-user\" to Group \"system:authenticated\""}"#;
        check("SelfSubjectAccessReview", "", &format!(r#"{{"spec":{{{reviews}}}}}"#), allowed);
        let pods = r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods"}}}"#;
        check("SelfSubjectAccessReview", "", pods, r#"{"allowed":false}"#);
        check(
            "SubjectAccessReview",
            "",
            r#"{"spec":{"user":"x","groups":["system:masters"],"nonResourceAttributes":{"verb":"get","path":"/x"}}}"#,
            r#"{"allowed":true}"#,
        );
        check(
            "SubjectAccessReview",
            "",
            r#"{"metadata":{"name":"x"},"spec":{}}"#,
            "422 .authorization.k8s.io \"\" is invalid: [spec.resourceAttributes: Invalid value: null: exactly one of \
             nonResourceAttributes or resourceAttributes must be specified, spec.user: Invalid value: \"\": at least one of user or group \
             must be specified, metadata: Invalid value: {\"name\":\"x\"}: must be empty]",
        );
        let local = r#"{"metadata":{"namespace":"n"},"spec":{"user":"x","resourceAttributes":{"namespace":"n","verb":"get","resource":"pods"}}}"#;
        check("LocalSubjectAccessReview", "n", local, r#"{"allowed":false}"#);
        check("LocalSubjectAccessReview", "m", local, "400 spec.resourceAttributes.namespace must match namespace: m");
        let node = r#"{"spec":{"user":"system:node:a","groups":["system:nodes"],"resourceAttributes":{"verb":"list","resource":"pods","fieldSelector":{"requirements":[{"key":"spec.nodeName","operator":"In","values":["a"]}]}}}}"#;
        check("SubjectAccessReview", "", node, r#"{"allowed":true}"#);
    }

    #[test]
    fn rules_and_self() {
        let master = UserInfo::authenticated("a", &["system:masters"]);
        let rules = ask(&master, "SelfSubjectRulesReview", "", r#"{"spec":{"namespace":"n"}}"#).unwrap();
        let first = rules.items_at(&["status", "resourceRules"])[0].to_string();
        assert_eq!(first, r#"{"apiGroups":["*"],"resources":["*"],"verbs":["*"]}"#);
        assert_eq!(rules.bool_at(&["status", "incomplete"]), Some(false));
        assert!(!rules.items_at(&["status", "nonResourceRules"]).is_empty());
        assert_eq!(ask(&master, "SelfSubjectRulesReview", "", "{}").unwrap_err().message, "no namespace on request");
        let me = ask(&master, "SelfSubjectReview", "", "{}").unwrap();
        assert_eq!(
            me.to_string(),
            r#"{"metadata":{"creationTimestamp":"2026-01-01T00:00:00Z"},"status":{"userInfo":{"groups":["system:masters","system:authenticated"],"username":"a"}}}"#
        );
    }

    #[test]
    fn tokens() {
        let user = UserInfo::authenticated("a", &[]);
        let answer = ask(&user, "TokenReview", "", r#"{"spec":{"token":"x"}}"#).unwrap();
        assert_eq!(answer.str_at(&["status", "error"]), Some("invalid bearer token"));
        assert_eq!(answer.bool_at(&["status", "authenticated"]), None);
        let status = ask(&user, "TokenReview", "", r#"{"spec":{}}"#).unwrap_err();
        assert_eq!(
            (status.code, status.message.as_str()),
            (400, "token is required for TokenReview in authentication")
        );
    }
}
