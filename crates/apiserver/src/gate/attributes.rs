//! What is to be authorised, and the answer.

use apimachinery::{FieldSelector, GroupResource, Status};

use crate::UserInfo;

/// One question to the authorisers. Upstream: `authorizer.Attributes`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attributes<'a> {
    pub user: &'a UserInfo,
    pub verb: &'a str,
    pub group: &'a str,
    #[allow(dead_code)] // no authoriser of ours asks, but it is part of the question
    pub version: &'a str,
    pub resource: &'a str,
    pub subresource: &'a str,
    /// Empty for the whole cluster.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Otherwise only `verb` and `path` count.
    pub resource_request: bool,
    pub path: &'a str,
    pub field_selector: Option<&'a FieldSelector>,
}

/// An authoriser's answer. Nobody here forbids what another allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Decision {
    pub allowed: bool,
    /// Why, as reviews and refusals tell it; may be empty.
    pub reason: String,
}

impl<'a> Attributes<'a> {
    /// A request for a path that is no resource.
    pub(crate) fn path(user: &'a UserInfo, verb: &'a str, path: &'a str) -> Attributes<'a> {
        Attributes { path, resource_request: false, ..Attributes::resource(user, verb, "", "") }
    }

    /// A request for a resource of the whole cluster; the rest is set by struct update.
    pub(crate) fn resource(user: &'a UserInfo, verb: &'a str, group: &'a str, resource: &'a str) -> Attributes<'a> {
        Attributes {
            user,
            verb,
            group,
            version: "*",
            resource,
            subresource: "",
            namespace: "",
            name: "",
            resource_request: true,
            path: "",
            field_selector: None,
        }
    }

    /// The refusal, in upstream's words.
    pub(crate) fn forbidden(&self, reason: &str) -> Status {
        let user = &self.user.name;
        let verb = self.verb;
        let mut message = if self.resource_request {
            let slash = if self.subresource.is_empty() { "" } else { "/" };
            let scope = match self.namespace {
                "" => "at the cluster scope".to_owned(),
                namespace => format!("in the namespace {namespace:?}"),
            };
            format!(
                "User {user:?} cannot {verb} resource \"{}{slash}{}\" in API group {:?} {scope}",
                self.resource, self.subresource, self.group
            )
        } else {
            format!("User {user:?} cannot {verb} path {:?}", self.path)
        };
        message = message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        if !reason.is_empty() {
            message = format!("{message}: {reason}");
        }
        Status::forbidden(&GroupResource::new(self.group, self.resource), self.name, &message)
    }
}

impl Decision {
    pub(crate) fn allow(reason: impl Into<String>) -> Decision {
        Decision { allowed: true, reason: reason.into() }
    }

    /// Leaves it to others.
    pub(crate) fn no_opinion(reason: impl Into<String>) -> Decision {
        Decision { allowed: false, reason: reason.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_worded_as_upstreams() {
        let user = UserInfo::authenticated("x", &[]);
        let list = Attributes { namespace: "default", ..Attributes::resource(&user, "list", "", "pods") };
        assert_eq!(
            list.forbidden("").message,
            "pods is forbidden: User \"x\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
        );
        let scale = Attributes {
            name: "web",
            namespace: "n",
            subresource: "scale",
            ..Attributes::resource(&user, "get", "apps", "deployments")
        };
        assert_eq!(
            scale.forbidden("why").message,
            "deployments.apps \"web\" is forbidden: User \"x\" cannot get resource \"deployments/scale\" in API group \"apps\" in the \
             namespace \"n\": why"
        );
        let nodes = Attributes::resource(&user, "list", "", "nodes");
        assert!(nodes.forbidden("").message.ends_with("in API group \"\" at the cluster scope"));
        let path = Attributes::path(&user, "get", "/<b>");
        assert_eq!(path.forbidden("").message, "forbidden: User \"x\" cannot get path \"/&lt;b&gt;\"");
    }
}
