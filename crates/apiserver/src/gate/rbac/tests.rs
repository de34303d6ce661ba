use super::*;

fn object(json: &str) -> Object {
    Object::new(&Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}")), 1).unwrap()
}

fn put(rbac: &Rbac, resource: &str, json: &str) {
    let object = object(json);
    rbac.observe(resource, object.key(), Some(&object));
}

fn role(rbac: &Rbac, namespace: &str, name: &str, verbs: &str, resource: &str) {
    let kind = if namespace.is_empty() { "clusterroles" } else { "roles" };
    put(
        rbac,
        kind,
        &format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}},"rules":[{{"apiGroups":[""],"resources":["{resource}"],"verbs":{verbs}}}]}}"#
        ),
    );
}

fn bind(rbac: &Rbac, namespace: &str, name: &str, role: (&str, &str), subjects: &str) {
    let kind = if namespace.is_empty() { "clusterrolebindings" } else { "rolebindings" };
    let (role_kind, role) = role;
    put(
        rbac,
        kind,
        &format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}"}},"roleRef":{{"kind":"{role_kind}","name":"{role}"}},"subjects":{subjects}}}"#
        ),
    );
}

fn ask(rbac: &Rbac, user: &UserInfo, verb: &str, resource: &str, namespace: &str) -> Decision {
    rbac.authorize(&Attributes { namespace, ..Attributes::resource(user, verb, "", resource) })
}

#[test]
fn bindings_grant_roles_to_subjects() {
    let rbac = Rbac::default();
    role(&rbac, "", "reader", r#"["get"]"#, "pods");
    role(&rbac, "n", "writer", r#"["update"]"#, "pods");
    bind(&rbac, "", "all", ("ClusterRole", "reader"), r#"[{"kind":"Group","name":"g"}]"#);
    bind(
        &rbac,
        "n",
        "some",
        ("Role", "writer"),
        r#"[{"kind":"User","name":"u"},{"kind":"ServiceAccount","name":"s"}]"#,
    );
    bind(&rbac, "m", "read", ("ClusterRole", "reader"), r#"[{"kind":"ServiceAccount","name":"s","namespace":"n"}]"#);
    let (u, g) = (UserInfo::authenticated("u", &[]), UserInfo::authenticated("x", &["g"]));
    let s = UserInfo::authenticated("system:serviceaccount:n:s", &[]);
    let check = |user, verb, namespace, expect: &str| {
        let decision = ask(&rbac, user, verb, "pods", namespace);
        assert_eq!((decision.allowed, decision.reason.as_str()), (!expect.is_empty(), expect));
    };
    let reader = "RBAC: allowed by ClusterRoleBinding \"all\" of ClusterRole \"reader\" to Group \"g\"";
    check(&g, "get", "", reader);
    check(&g, "get", "anywhere", reader);
    check(&g, "update", "n", "");
    check(&u, "get", "n", "");
    check(&u, "update", "n", "RBAC: allowed by RoleBinding \"some/n\" of Role \"writer\" to User \"u\"");
    check(&u, "update", "m", "");
    check(&u, "update", "", "");
    check(&s, "update", "n", "RBAC: allowed by RoleBinding \"some/n\" of Role \"writer\" to ServiceAccount \"s/n\"");
    check(
        &s,
        "get",
        "m",
        "RBAC: allowed by RoleBinding \"read/m\" of ClusterRole \"reader\" to ServiceAccount \"s/n\"",
    );
    assert_eq!(rbac.rules_for(&s, "m").0.len(), 1);
    assert_eq!(rbac.rules_for(&s, "").0.len(), 0);
}

#[test]
fn events_change_the_index() {
    let rbac = Rbac::default();
    let user = UserInfo::authenticated("u", &[]);
    let subject = r#"[{"kind":"User","name":"u"},{"kind":"User","name":"u"}]"#;
    bind(&rbac, "n", "b", ("Role", "r"), subject);
    bind(&rbac, "", "c", ("ClusterRole", "r"), subject);
    let lost = ask(&rbac, &user, "get", "pods", "n");
    assert_eq!(
        lost.reason,
        "RBAC: [clusterrole.rbac.authorization.k8s.io \"r\" not found, role.rbac.authorization.k8s.io \"r\" not found]"
    );
    role(&rbac, "n", "r", r#"["get"]"#, "pods");
    assert!(ask(&rbac, &user, "get", "pods", "n").allowed);
    role(&rbac, "n", "r", r#"["get"]"#, "nodes");
    assert!(!ask(&rbac, &user, "get", "pods", "n").allowed);
    role(&rbac, "", "r", r#"["get"]"#, "pods");
    assert!(ask(&rbac, &user, "get", "pods", "n").allowed);
    bind(&rbac, "", "c", ("ClusterRole", "r"), r#"[{"kind":"User","name":"other"}]"#);
    assert!(!ask(&rbac, &user, "get", "pods", "n").allowed);
    assert!(ask(&rbac, &user, "get", "nodes", "n").allowed);
    rbac.observe("rolebindings", &ObjectKey::new("n", "b"), None);
    rbac.observe("clusterrolebindings", &ObjectKey::cluster("c"), None);
    assert!(!ask(&rbac, &user, "get", "nodes", "n").allowed);
    let index = rbac.0.read();
    assert!(index.grants.is_empty() && index.bindings.is_empty());
}

#[test]
fn aggregating_roles_have_the_rules_of_those_they_select() {
    let rbac = Rbac::default();
    let user = UserInfo::authenticated("u", &[]);
    let aggregate = |name: &str, labels: &str, to: &str| {
        put(
            &rbac,
            "clusterroles",
            &format!(
                r#"{{"metadata":{{"name":"{name}","labels":{labels}}},"aggregationRule":{{"clusterRoleSelectors":[{{"matchLabels":{{"to":"{to}"}}}}]}},
                "rules":[{{"apiGroups":[""],"resources":["stale"],"verbs":["get"]}}]}}"#
            ),
        );
    };
    aggregate("admin", "{}", "admin");
    aggregate("edit", r#"{"to":"admin"}"#, "edit");
    bind(&rbac, "", "b", ("ClusterRole", "admin"), r#"[{"kind":"User","name":"u"}]"#);
    assert!(!ask(&rbac, &user, "get", "stale", "").allowed);
    let part = |name: &str, to: &str, resource: &str| {
        put(
            &rbac,
            "clusterroles",
            &format!(
                r#"{{"metadata":{{"name":"{name}","labels":{{"to":"{to}"}}}},"rules":[{{"apiGroups":[""],"resources":["{resource}"],"verbs":["get"]}}]}}"#
            ),
        );
    };
    part("p", "edit", "pods");
    assert!(ask(&rbac, &user, "get", "pods", "").allowed);
    part("p", "none", "pods");
    assert!(!ask(&rbac, &user, "get", "pods", "").allowed);
    part("p", "admin", "nodes");
    assert!(ask(&rbac, &user, "get", "nodes", "").allowed);
    rbac.observe("clusterroles", &ObjectKey::cluster("p"), None);
    assert!(!ask(&rbac, &user, "get", "nodes", "").allowed);
    // Two that select one another settle.
    aggregate("edit", r#"{"to":"admin"}"#, "admin");
    part("p", "admin", "pods");
    assert!(ask(&rbac, &user, "get", "pods", "").allowed);
}
