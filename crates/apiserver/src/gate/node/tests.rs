use apimachinery::{FieldSelector, Value};

use super::*;

fn put(nodes: &Nodes, group: &str, resource: &str, json: &str) {
    let value = Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"));
    let object = Object::new(&value, 1).unwrap();
    nodes.observe(group, resource, object.key(), Some(&object));
}

fn kubelet(node: &str) -> UserInfo {
    UserInfo::authenticated(&format!("system:node:{node}"), &["system:nodes"])
}

const POD: &str = r#"{"metadata":{"name":"p","namespace":"n"},"spec":{"nodeName":"a","serviceAccountName":"sa",
    "imagePullSecrets":[{"name":"pull"}],
    "containers":[{"env":[{"valueFrom":{"secretKeyRef":{"name":"env-s"}}}],"envFrom":[{"configMapRef":{"name":"env-c"}}]}],
    "initContainers":[{"envFrom":[{"secretRef":{"name":"init-s"}}]}],
    "volumes":[{"name":"v","secret":{"secretName":"vol-s"}},{"configMap":{"name":"vol-c"}},
      {"projected":{"sources":[{"secret":{"name":"proj-s"}},{"configMap":{"name":"proj-c"}}]}},
      {"persistentVolumeClaim":{"claimName":"claim"}},{"name":"scratch","ephemeral":{}}]}}"#;

/// `verb group/resource[/subresource] namespace name` as asked by node `a`, and the reason for the refusal.
fn check(nodes: &Nodes, request: &str, expect: Result<(), &str>) {
    let user = kubelet("a");
    let words: Vec<&str> = request.split(' ').collect();
    let mut path = words[1].splitn(3, '/');
    let (group, resource) = (path.next().unwrap(), path.next().unwrap());
    let attributes = Attributes {
        subresource: path.next().unwrap_or_default(),
        namespace: words.get(2).copied().unwrap_or_default(),
        name: words.get(3).copied().unwrap_or_default(),
        ..Attributes::resource(&user, words[0], group, resource)
    };
    let decision = nodes.authorize(&attributes);
    let found = if decision.allowed { Ok(()) } else { Err(decision.reason.as_str()) };
    assert_eq!(found, expect, "{request}");
}

const UNRELATED: Result<(), &str> = Err("no relationship found between node 'a' and this object");

#[test]
fn a_node_reads_what_its_pods_need() {
    let nodes = Nodes::default();
    check(&nodes, "get /secrets n env-s", UNRELATED);
    put(&nodes, "", "pods", POD);
    for secret in ["pull", "env-s", "init-s", "vol-s", "proj-s"] {
        check(&nodes, &format!("get /secrets n {secret}"), Ok(()));
        check(&nodes, &format!("watch /secrets n {secret}"), Ok(()));
        check(&nodes, &format!("get /secrets other {secret}"), UNRELATED);
    }
    for config_map in ["env-c", "vol-c", "proj-c"] {
        check(&nodes, &format!("list /configmaps n {config_map}"), Ok(()));
    }
    check(&nodes, "get /secrets n env-c", UNRELATED);
    check(&nodes, "get /persistentvolumeclaims n claim", Ok(()));
    check(&nodes, "get /persistentvolumeclaims n p-scratch", Ok(()));
    check(&nodes, "patch /persistentvolumeclaims/status n claim", Ok(()));
    check(&nodes, "get /serviceaccounts n sa", Ok(()));
    check(&nodes, "create /serviceaccounts/token n sa", Ok(()));
    check(&nodes, "create /serviceaccounts/token n other", UNRELATED);
    check(&nodes, "get /pods n p", Ok(()));
    check(&nodes, "watch /pods n p", Ok(()));

    check(&nodes, "delete /secrets n env-s", Err("can only read resources of this type"));
    check(&nodes, "list /secrets n", Err("No Object name found"));
    check(&nodes, "list /secrets", Err("can only read namespaced object of this type"));
    check(&nodes, "list /persistentvolumeclaims n", Err("can only get individual resources of this type"));
    check(&nodes, "list /pods", Err("can only list/watch pods with spec.nodeName field selector"));

    // Bound elsewhere, or gone: nothing is left.
    put(&nodes, "", "pods", &POD.replace(r#""nodeName":"a""#, r#""nodeName":"b""#));
    check(&nodes, "get /secrets n env-s", UNRELATED);
    nodes.observe("", "pods", &ObjectKey::new("n", "p"), None);
    let graph = nodes.0.read();
    assert!(graph.is_empty());
}

#[test]
fn a_node_reads_the_volumes_of_its_pods_claims() {
    let nodes = Nodes::default();
    put(&nodes, "", "pods", POD);
    check(&nodes, "get /persistentvolumes - pv", UNRELATED);
    put(
        &nodes,
        "",
        "persistentvolumes",
        r#"{"metadata":{"name":"pv"},"spec":{"claimRef":{"namespace":"n","name":"claim"},"csi":{"nodeStageSecretRef":{"namespace":"s","name":"stage"},"controllerPublishSecretRef":{"namespace":"s","name":"controller"}}}}"#,
    );
    check(&nodes, "get /persistentvolumes - pv", Ok(()));
    check(&nodes, "get /secrets s stage", Ok(()));
    check(&nodes, "get /secrets s controller", UNRELATED);
    put(&nodes, "storage.k8s.io", "volumeattachments", r#"{"metadata":{"name":"va"},"spec":{"nodeName":"a"}}"#);
    check(&nodes, "get storage.k8s.io/volumeattachments  va", Ok(()));
    nodes.observe("", "persistentvolumes", &ObjectKey::cluster("pv"), None);
    check(&nodes, "get /persistentvolumes - pv", UNRELATED);
    check(&nodes, "get /secrets s stage", UNRELATED);
}

#[test]
fn a_node_has_its_own_node_and_lease() {
    let nodes = Nodes::default();
    check(&nodes, "create /nodes", Ok(()));
    check(&nodes, "patch /nodes/status  a", Ok(()));
    check(&nodes, "get /nodes  a", Ok(()));
    check(&nodes, "watch /nodes  b", Err("node 'a' cannot read 'b', only its own Node object"));
    check(&nodes, "list /nodes", Err("node 'a' cannot read all nodes, only its own Node object"));
    check(&nodes, "delete /nodes  a", Err(""));
    check(&nodes, "create coordination.k8s.io/leases kube-node-lease", Ok(()));
    check(&nodes, "update coordination.k8s.io/leases kube-node-lease a", Ok(()));
    let other = "can only access node lease with the same name as the requesting node";
    check(&nodes, "update coordination.k8s.io/leases kube-node-lease b", Err(other));
    let elsewhere = "can only access leases in the \"kube-node-lease\" system namespace";
    check(&nodes, "get coordination.k8s.io/leases n a", Err(elsewhere));
    check(&nodes, "update storage.k8s.io/csinodes  a", Ok(()));
    check(&nodes, "create /pods n", Ok(()));
    check(&nodes, "patch /pods/status n x", Ok(()));
    check(&nodes, "create /pods/eviction n x", Ok(()));
    check(&nodes, "create /pods/exec n x", Err(""));
    // The uniform rest comes from the role system:node.
    check(&nodes, "list /services", Ok(()));
    check(&nodes, "create /events n", Ok(()));
    check(&nodes, "create authentication.k8s.io/tokenreviews", Ok(()));
    check(&nodes, "delete /services n s", Err(""));
}

#[test]
fn who_is_a_node() {
    let nodes = Nodes::default();
    let selector = FieldSelector::equal("spec.nodeName", "a");
    let ask = |user: &UserInfo| {
        nodes.authorize(&Attributes {
            field_selector: Some(&selector),
            ..Attributes::resource(user, "list", "", "pods")
        })
    };
    assert!(ask(&kubelet("a")).allowed);
    assert!(!ask(&kubelet("b")).allowed);
    assert_eq!(ask(&UserInfo::authenticated("system:node:a", &[])), Decision::default());
    assert_eq!(ask(&kubelet("")).reason, "unknown node for user \"system:node:\"");
}
