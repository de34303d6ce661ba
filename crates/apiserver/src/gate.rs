//! The gate before the registry: who asks, what they may do, and what becomes of what they write.
//!
//! [`Authenticator`] says who asks, [`Gate::authorize`] whether they may, and [`admission::Chain`] completes and
//! refuses writes; [`Access`](crate::access::Access) joins them to a server. All of it decides on memory alone: the indexes here follow watch events ([`Gate::observe`]), everything else is
//! looked up in the watch cache through [`Objects`](crate::strategy::Objects).

pub(crate) mod admission;
mod attributes;
mod authentication;
pub(crate) mod bootstrap;
mod escalation;
mod impersonation;
mod node;
mod rbac;
mod review;
mod rule;
mod token;

pub(crate) use admission::validating_admission_policy::policy::worded as worded_mistake;
pub(crate) use attributes::{Attributes, Decision};
pub(crate) use authentication::{Authenticator, LAST_USED, Uses, day};
pub(crate) use impersonation::impersonate;
pub(crate) use review::{Reviewer, review};
pub(crate) use token::TokenIssuer;

use apimachinery::{Object, ObjectKey, Status};

use crate::UserInfo;

/// Who may do anything.
const MASTERS: &str = "system:masters";

/// All authorisers: the superusers' group, nodes, RBAC. One suffices.
#[derive(Default)]
pub(crate) struct Gate {
    rbac: rbac::Rbac,
    nodes: node::Nodes,
}

impl Gate {
    /// Takes in a watch event: the new state of an object, or its removal. Other kinds than those in
    /// [`Gate::OBSERVED`] are ignored. Objects must be in the storage version.
    pub(crate) fn observe(&self, group: &str, resource: &str, key: &ObjectKey, object: Option<&Object>) {
        match group {
            "rbac.authorization.k8s.io" => self.rbac.observe(resource, key, object),
            _ => self.nodes.observe(group, resource, key, object),
        }
    }

    /// Group and resource of what [`Gate::observe`] wants to see, from the first object on.
    pub(crate) const OBSERVED: &[(&str, &str)] = &[
        ("rbac.authorization.k8s.io", "roles"),
        ("rbac.authorization.k8s.io", "clusterroles"),
        ("rbac.authorization.k8s.io", "rolebindings"),
        ("rbac.authorization.k8s.io", "clusterrolebindings"),
        ("", "pods"),
        ("", "persistentvolumes"),
        ("storage.k8s.io", "volumeattachments"),
        ("resource.k8s.io", "resourceslices"),
    ];

    pub(crate) fn authorize(&self, request: &Attributes<'_>) -> Decision {
        if request.user.is_in(MASTERS) {
            return Decision::allow("");
        }
        let node = self.nodes.authorize(request);
        if node.allowed {
            return node;
        }
        let rbac = self.rbac.authorize(request);
        if rbac.allowed {
            return rbac;
        }
        let reasons: Vec<String> = [node.reason, rbac.reason].into_iter().filter(|reason| !reason.is_empty()).collect();
        Decision::no_opinion(reasons.join("\n"))
    }

    /// Refuses the request unless it is allowed.
    pub(crate) fn check(&self, request: &Attributes<'_>) -> Result<(), Status> {
        let decision = self.authorize(request);
        if decision.allowed { Ok(()) } else { Err(request.forbidden(&decision.reason)) }
    }

    /// All rules that apply to `user` in `namespace`; and why the list may be incomplete.
    fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<rule::Rule>, bool, Vec<String>) {
        let (rules, mut errors) = self.rbac.rules_for(user, namespace);
        let mut incomplete = false;
        if node::node_of(user).is_some() {
            incomplete = true;
            errors.insert(0, "node authorizer does not support user rule resolution".to_owned());
        }
        (rules, incomplete, errors)
    }
}

#[cfg(test)]
mod tests;
