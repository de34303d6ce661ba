//! What expressions ask of the gate.

use apimachinery::FieldSelector;
use cel::{Decision, Query};

use super::matching::Request;
use crate::UserInfo;
use crate::gate::{Attributes, Gate};

pub(super) struct GateAuthorizer<'a> {
    pub gate: &'a Gate,
    pub user: &'a UserInfo,
}

impl cel::Authorizer for GateAuthorizer<'_> {
    fn authorize(&self, query: &Query) -> Decision {
        let account;
        let user = match &query.service_account {
            Some((namespace, name)) => {
                let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")];
                account = UserInfo::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), &groups);
                &account
            }
            None => self.user,
        };
        let selector =
            (!query.field_selector.is_empty()).then(|| FieldSelector::parse(&query.field_selector).ok()).flatten();
        let attributes = if query.path.is_empty() {
            Attributes {
                version: if query.version.is_empty() { "*" } else { &query.version },
                subresource: &query.subresource,
                namespace: &query.namespace,
                name: &query.name,
                field_selector: selector.as_ref(),
                ..Attributes::resource(user, &query.verb, &query.group, &query.resource)
            }
        } else {
            Attributes::path(user, &query.verb, &query.path)
        };
        let decision = self.gate.authorize(&attributes);
        Decision { allowed: decision.allowed, reason: decision.reason, error: String::new() }
    }
}

/// The question that `authorizer.requestResource` begins.
pub(super) fn about(request: &Request<'_>) -> Query {
    let write = request.write;
    Query {
        group: write.group.to_owned(),
        version: request.call.resource.kind.version.to_owned(),
        resource: write.resource.to_owned(),
        subresource: write.subresource.to_owned(),
        namespace: write.namespace.to_owned(),
        name: write.name.to_owned(),
        ..Query::default()
    }
}
