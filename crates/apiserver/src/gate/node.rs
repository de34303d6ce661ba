//! What a node's kubelet may do: with its own node, the pods bound to it, and what those refer to.
//!
//! Upstream: plugin/pkg/auth/authorizer/node. What a path alone cannot tell (whose node a body names) is the NodeRestriction
//! plugin's to refuse.

mod graph;

use std::sync::LazyLock;

use apimachinery::{Object, ObjectKey};
use parking_lot::RwLock;

use super::rule::Rule;
use super::{Attributes, Decision, bootstrap};
use crate::UserInfo;
use graph::{Graph, Vertex};

/// The authoriser of nodes, kept current by watch events.
#[derive(Default)]
pub(crate) struct Nodes(RwLock<Graph>);

/// The name of the node whose kubelet `user` is; empty when it names none. `None` for everybody else.
pub(crate) fn node_of(user: &UserInfo) -> Option<&str> {
    user.name.strip_prefix("system:node:").filter(|_| user.is_in("system:nodes"))
}

static NODE_RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let role = bootstrap::rbac(false)
        .into_iter()
        .find(|wanted| wanted.value.str_at(&["metadata", "name"]) == Some("system:node"));
    role.map(|role| Rule::read_all(&role.value)).unwrap_or_default()
});

impl Nodes {
    pub(crate) fn observe(&self, group: &str, resource: &str, key: &ObjectKey, object: Option<&Object>) {
        self.0.write().observe(group, resource, key, object);
    }

    pub(crate) fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let Some(node) = node_of(request.user) else {
            return Decision::default();
        };
        if node.is_empty() {
            return Decision::no_opinion(format!("unknown node for user {:?}", request.user.name));
        }
        let answer = match (request.resource_request, request.group, request.resource) {
            (true, "", "secrets") => self.read(node, request, Vertex::Secret),
            (true, "", "configmaps") => self.read(node, request, Vertex::ConfigMap),
            (true, "", "persistentvolumeclaims") if request.subresource == "status" => match request.verb {
                "update" | "patch" => self.related(node, request, Vertex::Claim),
                _ => Err("can only get/update/patch this type".to_owned()),
            },
            (true, "", "persistentvolumeclaims") => self.get(node, request, Vertex::Claim),
            (true, "", "persistentvolumes") => self.get(node, request, Vertex::Volume),
            (true, "resource.k8s.io", "resourceclaims") => self.get(node, request, Vertex::ResourceClaim),
            (true, "storage.k8s.io", "volumeattachments") => self.get(node, request, Vertex::Attachment),
            (true, "", "serviceaccounts") => self.service_account(node, request),
            (true, "coordination.k8s.io", "leases") => lease(node, request),
            (true, "storage.k8s.io", "csinodes") => csi_node(node, request),
            (true, "resource.k8s.io", "resourceslices") => self.resource_slice(node, request),
            (true, "", "nodes") => own_node(node, request),
            (true, "", "pods") => self.pod(node, request),
            (true, "certificates.k8s.io", "podcertificaterequests") => Err(String::new()),
            _ if NODE_RULES.iter().any(|rule| rule.allows(request)) => Ok(()),
            _ => Err(String::new()),
        };
        match answer {
            Ok(()) => Decision::allow(""),
            Err(reason) => Decision::no_opinion(reason),
        }
    }

    fn read(&self, node: &str, request: &Attributes<'_>, vertex: Vertex) -> Result<(), String> {
        match (request.verb, request.subresource, request.namespace) {
            ("get" | "list" | "watch", "", "") => Err("can only read namespaced object of this type".to_owned()),
            ("get" | "list" | "watch", "", _) => self.related(node, request, vertex),
            ("get" | "list" | "watch", _, _) => Err("cannot read subresource".to_owned()),
            _ => Err("can only read resources of this type".to_owned()),
        }
    }

    fn get(&self, node: &str, request: &Attributes<'_>, vertex: Vertex) -> Result<(), String> {
        match (request.verb, request.subresource) {
            ("get", "") => self.related(node, request, vertex),
            ("get", _) => Err("cannot get subresource".to_owned()),
            _ => Err("can only get individual resources of this type".to_owned()),
        }
    }

    fn related(&self, node: &str, request: &Attributes<'_>, vertex: Vertex) -> Result<(), String> {
        if request.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        if self.0.read().reaches(vertex, request.namespace, request.name, node) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn service_account(&self, node: &str, request: &Attributes<'_>) -> Result<(), String> {
        match (request.verb, request.subresource, request.name) {
            ("get", "", _) => self.read(node, request, Vertex::ServiceAccount),
            ("create", "token", name) if !name.is_empty() => self.related(node, request, Vertex::ServiceAccount),
            ("create", _, name) if !name.is_empty() => {
                Err("can only create token subresource of serviceaccount".to_owned())
            }
            _ => Err("can only create tokens for individual service accounts".to_owned()),
        }
    }

    fn resource_slice(&self, node: &str, request: &Attributes<'_>) -> Result<(), String> {
        if !request.subresource.is_empty() {
            return Err("cannot authorize ResourceSlice subresources".to_owned());
        }
        match request.verb {
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.related(node, request, Vertex::ResourceSlice),
            "watch" | "list" | "deletecollection" if selects(request, "spec.nodeName", node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                Err("can only list/watch/deletecollection resourceslices with nodeName field selector".to_owned())
            }
            _ => Err(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, \
                      delete, deletecollection"
                    .to_owned(),
            ),
        }
    }

    fn pod(&self, node: &str, request: &Attributes<'_>) -> Result<(), String> {
        match (request.subresource, request.verb) {
            ("", "get") => self.related(node, request, Vertex::Pod),
            ("", "list" | "watch") if selects(request, "spec.nodeName", node) => Ok(()),
            ("", "list" | "watch") if !request.name.is_empty() => self.related(node, request, Vertex::Pod),
            ("", "list" | "watch") => Err("can only list/watch pods with spec.nodeName field selector".to_owned()),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => Err(String::new()),
        }
    }
}

fn own_node(node: &str, request: &Attributes<'_>) -> Result<(), String> {
    match (request.subresource, request.verb, request.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", name) => {
            Err(format!("node '{node}' cannot read '{name}', only its own Node object"))
        }
        _ => Err(String::new()),
    }
}

fn lease(node: &str, request: &Attributes<'_>) -> Result<(), String> {
    match request.verb {
        "get" | "create" | "update" | "patch" | "delete" => {}
        _ => return Err("can only get, create, update, patch, or delete a node lease".to_owned()),
    }
    if request.namespace != "kube-node-lease" {
        return Err("can only access leases in the \"kube-node-lease\" system namespace".to_owned());
    }
    if request.verb != "create" && request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn csi_node(node: &str, request: &Attributes<'_>) -> Result<(), String> {
    match (request.verb, request.subresource) {
        ("get" | "create" | "update" | "patch" | "delete", "") => {}
        ("get" | "create" | "update" | "patch" | "delete", _) => {
            return Err("cannot authorize CSINode subresources".to_owned());
        }
        _ => return Err("can only get, create, update, patch, or delete a CSINode".to_owned()),
    }
    if request.verb != "create" && request.name != node {
        return Err("can only access CSINode with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn selects(request: &Attributes<'_>, field: &str, node: &str) -> bool {
    request.field_selector.and_then(|selector| selector.exact(field)) == Some(node)
}

#[cfg(test)]
mod tests;
