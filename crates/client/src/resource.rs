//! Which resource a request is for.

use std::borrow::Cow;

use apimachinery::{GroupResource, GroupVersion, GroupVersionResource};

/// A served resource and what its URLs need.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
    pub namespaced: bool,
}

impl Resource {
    pub const fn namespaced(group: &'static str, version: &'static str, plural: &'static str) -> Resource {
        Resource::of(group, version, plural, true)
    }

    pub const fn cluster(group: &'static str, version: &'static str, plural: &'static str) -> Resource {
        Resource::of(group, version, plural, false)
    }

    const fn of(group: &'static str, version: &'static str, plural: &'static str, namespaced: bool) -> Resource {
        Resource {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            plural: Cow::Borrowed(plural),
            namespaced,
        }
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource::new(&*self.group, &*self.plural)
    }

    pub fn group_version(&self) -> GroupVersion {
        GroupVersion::new(&*self.group, &*self.version)
    }

    pub fn gvr(&self) -> GroupVersionResource {
        self.group_version().resource(&*self.plural)
    }

    /// The URL path of the collection (`namespace` empty: of all namespaces or cluster-scoped), or of one object in it, or of
    /// that object's subresource; empty `name` and `subresource` are left out.
    pub fn path(&self, namespace: &str, name: &str, subresource: &str) -> String {
        let mut path = if self.group.is_empty() {
            format!("/api/{}", self.version)
        } else {
            format!("/apis/{}/{}", self.group, self.version)
        };
        if self.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [&*self.plural, name, subresource].into_iter().filter(|part| !part.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// The resources that components of ours use.
pub mod resources {
    use super::Resource;

    pub const CONFIG_MAPS: Resource = Resource::namespaced("", "v1", "configmaps");
    pub const ENDPOINTS: Resource = Resource::namespaced("", "v1", "endpoints");
    pub const EVENTS: Resource = Resource::namespaced("", "v1", "events");
    pub const NAMESPACES: Resource = Resource::cluster("", "v1", "namespaces");
    pub const NODES: Resource = Resource::cluster("", "v1", "nodes");
    pub const PERSISTENT_VOLUME_CLAIMS: Resource = Resource::namespaced("", "v1", "persistentvolumeclaims");
    pub const PERSISTENT_VOLUMES: Resource = Resource::cluster("", "v1", "persistentvolumes");
    pub const PODS: Resource = Resource::namespaced("", "v1", "pods");
    pub const SECRETS: Resource = Resource::namespaced("", "v1", "secrets");
    pub const SERVICE_ACCOUNTS: Resource = Resource::namespaced("", "v1", "serviceaccounts");
    pub const SERVICES: Resource = Resource::namespaced("", "v1", "services");
    pub const DEPLOYMENTS: Resource = Resource::namespaced("apps", "v1", "deployments");
    pub const REPLICA_SETS: Resource = Resource::namespaced("apps", "v1", "replicasets");
    pub const STATEFUL_SETS: Resource = Resource::namespaced("apps", "v1", "statefulsets");
    pub const DAEMON_SETS: Resource = Resource::namespaced("apps", "v1", "daemonsets");
    pub const CONTROLLER_REVISIONS: Resource = Resource::namespaced("apps", "v1", "controllerrevisions");
    pub const POD_DISRUPTION_BUDGETS: Resource = Resource::namespaced("policy", "v1", "poddisruptionbudgets");
    pub const REPLICATION_CONTROLLERS: Resource = Resource::namespaced("", "v1", "replicationcontrollers");
    pub const LEASES: Resource = Resource::namespaced("coordination.k8s.io", "v1", "leases");
    pub const ENDPOINT_SLICES: Resource = Resource::namespaced("discovery.k8s.io", "v1", "endpointslices");
    pub const CLUSTER_ROLES: Resource = Resource::cluster("rbac.authorization.k8s.io", "v1", "clusterroles");
    pub const CLUSTER_ROLE_BINDINGS: Resource =
        Resource::cluster("rbac.authorization.k8s.io", "v1", "clusterrolebindings");
    pub const ROLES: Resource = Resource::namespaced("rbac.authorization.k8s.io", "v1", "roles");
    pub const ROLE_BINDINGS: Resource = Resource::namespaced("rbac.authorization.k8s.io", "v1", "rolebindings");
    pub const PRIORITY_CLASSES: Resource = Resource::cluster("scheduling.k8s.io", "v1", "priorityclasses");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_upstreams() {
        let check = |path: String, expect: &str| assert_eq!(path, expect);
        check(resources::PODS.path("ns", "a", "log"), "/api/v1/namespaces/ns/pods/a/log");
        check(resources::PODS.path("", "", ""), "/api/v1/pods");
        check(resources::NODES.path("", "n1", "status"), "/api/v1/nodes/n1/status");
        check(resources::DEPLOYMENTS.path("ns", "", ""), "/apis/apps/v1/namespaces/ns/deployments");
    }
}
