//! Who cluster DNS is, and what it may do: the account and the role that kubeadm gives CoreDNS, and what publishing its address takes.

use apimachinery::{ObjectKey, Value};
use client::{Client, Error, PatchKind, Resource, resources};
use serde_json::json;

const NAMESPACE: &str = "kube-system";
const NAME: &str = "system:coredns";
const GROUP: &str = "rbac.authorization.k8s.io";

/// The user, and its groups.
pub(super) const USER: &str = "system:serviceaccount:kube-system:coredns";
pub(super) const GROUPS: [&str; 2] = ["system:serviceaccounts", "system:serviceaccounts:kube-system"];

/// Makes the roles and their bindings what they should be.
pub(super) async fn ensure(client: &Client) -> Result<(), Error> {
    let rule = |groups: &[&str], resources: &[&str], verbs: &[&str], names: &[&str]| match names {
        [] => json!({"apiGroups": groups, "resources": resources, "verbs": verbs}),
        names => json!({"apiGroups": groups, "resources": resources, "verbs": verbs, "resourceNames": names}),
    };
    let read = json!([
        rule(&[""], &["endpoints", "services", "pods", "namespaces"], &["list", "watch"], &[]),
        rule(&["discovery.k8s.io"], &["endpointslices"], &["list", "watch"], &[]),
    ]);
    let published = [("", "services"), ("discovery.k8s.io", "endpointslices")];
    let publish: Vec<_> = published
        .iter()
        .flat_map(|(group, resource)| {
            let named = rule(&[*group], &[*resource], &["get", "patch"], &["kube-dns"]);
            [rule(&[*group], &[*resource], &["create"], &[]), named]
        })
        .collect();
    let wanted = [
        (&resources::CLUSTER_ROLES, role("ClusterRole", None, read)),
        (&resources::CLUSTER_ROLE_BINDINGS, binding("ClusterRoleBinding", "ClusterRole", None)),
        (&resources::ROLES, role("Role", Some(NAMESPACE), json!(publish))),
        (&resources::ROLE_BINDINGS, binding("RoleBinding", "Role", Some(NAMESPACE))),
    ];
    for (resource, wanted) in wanted {
        apply(client, resource, wanted.into()).await?;
    }
    Ok(())
}

async fn apply(client: &Client, resource: &Resource, wanted: Value) -> Result<(), Error> {
    let namespace = wanted.str_at(&["metadata", "namespace"]).unwrap_or_default();
    let key = ObjectKey::new(namespace, NAME);
    match client.find(resource, &key).await? {
        None => client.create(resource, &wanted).await.map(drop),
        Some(_) => client.patch(resource, &key, PatchKind::Merge, &wanted).await.map(drop),
    }
}

fn role(kind: &str, namespace: Option<&str>, rules: serde_json::Value) -> serde_json::Value {
    json!({"apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(namespace), "rules": rules})
}

fn binding(kind: &str, role: &str, namespace: Option<&str>) -> serde_json::Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"), "kind": kind, "metadata": metadata(namespace),
        "roleRef": {"apiGroup": GROUP, "kind": role, "name": NAME},
        "subjects": [{"kind": "ServiceAccount", "name": "coredns", "namespace": NAMESPACE}],
    })
}

fn metadata(namespace: Option<&str>) -> serde_json::Value {
    let labels = json!({"kubernetes.io/bootstrapping": "rbac-defaults"});
    match namespace {
        None => json!({"name": NAME, "labels": labels}),
        Some(namespace) => json!({"name": NAME, "namespace": namespace, "labels": labels}),
    }
}
