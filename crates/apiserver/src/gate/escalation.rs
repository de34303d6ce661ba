//! Nobody grants more than they have: checks on writes of roles and bindings.
//!
//! Upstream: pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased.

use apimachinery::{GroupResource, Status, Value};

use super::rule::{self, Rule, quoted};
use super::{Attributes, Gate, MASTERS};
use crate::UserInfo;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A write of one of RBAC's objects.
pub(super) struct RbacWrite<'a> {
    pub user: &'a UserInfo,
    pub resource: &'a str,
    pub namespace: &'a str,
    pub name: &'a str,
    pub new: &'a Value,
    pub old: Option<&'a Value>,
}

impl RbacWrite<'_> {
    /// Refuses it unless its user holds all that it grants, or may `escalate` or `bind`.
    pub(super) fn check(&self, gate: &Gate) -> Result<(), Status> {
        if self.user.is_in(MASTERS) || self.old.is_some_and(|old| concerns_collection_only(self.new, old)) {
            return Ok(());
        }
        match self.resource {
            "roles" | "clusterroles" => self.check_role(gate),
            "rolebindings" | "clusterrolebindings" => self.check_binding(gate),
            _ => Ok(()),
        }
    }

    fn check_role(&self, gate: &Gate) -> Result<(), Status> {
        let escalate = Attributes {
            namespace: self.namespace,
            // A name that a creation's path does not carry is not part of the question.
            name: if self.old.is_some() { self.name } else { "" },
            ..Attributes::resource(self.user, "escalate", GROUP, self.resource)
        };
        if gate.authorize(&escalate).allowed {
            return Ok(());
        }
        self.covered(gate, &Rule::read_all(self.new))?;
        let aggregates = |role: &Value| !role.items_at(&["aggregationRule", "clusterRoleSelectors"]).is_empty();
        if aggregates(self.new) || self.old.is_some_and(aggregates) {
            let all = || vec!["*".to_owned()];
            let resources = Rule { verbs: all(), groups: all(), resources: all(), ..Rule::default() };
            let everything = [resources, Rule { verbs: all(), urls: all(), ..Rule::default() }];
            self.covered(gate, &everything)
                .map_err(|_| self.forbidden("must have cluster-admin privileges to use the aggregationRule"))?;
        }
        Ok(())
    }

    fn check_binding(&self, gate: &Gate) -> Result<(), Status> {
        let reference = |key: &str| self.new.str_at(&["roleRef", key]).unwrap_or_default();
        let (kind, name) = (reference("kind"), reference("name"));
        let resource = match kind {
            "ClusterRole" => "clusterroles",
            "Role" => "roles",
            // Validation names what is wrong with it.
            _ => return Ok(()),
        };
        let bind = Attributes {
            namespace: self.namespace,
            name,
            ..Attributes::resource(self.user, "bind", reference("apiGroup"), resource)
        };
        if gate.authorize(&bind).allowed {
            return Ok(());
        }
        match gate.rbac.rules_of(kind, name, self.namespace) {
            Some(rules) => self.covered(gate, &rules),
            // Upstream names what is written and not what is missing.
            None => Err(Status::not_found(&GroupResource::new(GROUP, self.resource), name)),
        }
    }

    fn covered(&self, gate: &Gate, wanted: &[Rule]) -> Result<(), Status> {
        let (held, errors) = gate.rbac.rules_for(self.user, self.namespace);
        let mut missing: Vec<String> = rule::missing(&held, wanted).iter().map(Rule::to_string).collect();
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort();
        missing.dedup();
        let mut why = format!(
            "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
            self.user.name,
            quoted(&self.user.groups),
            missing.join("\n")
        );
        if !errors.is_empty() {
            why = format!("{why}; resolution errors: [{}]", errors.join(", "));
        }
        Err(self.forbidden(&why))
    }

    fn forbidden(&self, why: &str) -> Status {
        Status::forbidden(&GroupResource::new(GROUP, self.resource), self.name, why)
    }
}

/// Whether only what the garbage collector edits has changed.
fn concerns_collection_only(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut rest = object.clone();
        for key in ["ownerReferences", "finalizers", "managedFields", "resourceVersion"] {
            rest.remove(&["metadata", key]);
        }
        rest
    };
    rest(new) == rest(old)
}

#[cfg(test)]
mod tests {
    use apimachinery::Object;

    use super::*;

    fn value(json: &str) -> Value {
        Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
    }

    fn gate() -> Gate {
        let gate = Gate::default();
        let put = |resource: &str, json: &str| {
            let object = Object::new(&value(json), 1).unwrap();
            gate.observe(GROUP, resource, object.key(), Some(&object));
        };
        let rules = r#"[{"apiGroups":[""],"resources":["pods"],"verbs":["get","list"]}]"#;
        put("clusterroles", &format!(r#"{{"metadata":{{"name":"reader"}},"rules":{rules}}}"#));
        put(
            "clusterroles",
            r#"{"metadata":{"name":"writer"},"rules":[{"apiGroups":[""],"resources":["pods"],"verbs":["update"]}]}"#,
        );
        put(
            "clusterroles",
            r#"{"metadata":{"name":"binder"},"rules":[{"apiGroups":["rbac.authorization.k8s.io"],"resources":["clusterroles"],"resourceNames":["writer"],"verbs":["bind"]}]}"#,
        );
        put(
            "clusterroles",
            r#"{"metadata":{"name":"escalator"},"rules":[{"apiGroups":["rbac.authorization.k8s.io"],"resources":["roles"],"verbs":["escalate"]}]}"#,
        );
        let bind = |role: &str, user: &str| {
            put(
                "clusterrolebindings",
                &format!(
                    r#"{{"metadata":{{"name":"{user}-{role}"}},"roleRef":{{"kind":"ClusterRole","name":"{role}"}},"subjects":[{{"kind":"User","name":"{user}"}}]}}"#
                ),
            );
        };
        bind("reader", "u");
        bind("reader", "binder");
        bind("binder", "binder");
        bind("escalator", "escalator");
        gate
    }

    fn check(user: &str, resource: &str, new: &str, old: Option<&str>, expect: Result<(), &str>) {
        let user = UserInfo::authenticated(user, &[]);
        let (new, old) = (value(new), old.map(value));
        let write = RbacWrite { user: &user, resource, namespace: "n", name: "x", new: &new, old: old.as_ref() };
        let found = write.check(&gate()).map_err(|status| status.message);
        assert_eq!(found, expect.map_err(str::to_owned));
    }

    #[test]
    fn roles_grant_what_their_author_holds() {
        let role = |verb: &str| {
            format!(
                r#"{{"metadata":{{"name":"x"}},"rules":[{{"apiGroups":[""],"resources":["pods"],"verbs":["{verb}"]}}]}}"#
            )
        };
        check("u", "roles", &role("get"), None, Ok(()));
        check(
            "u",
            "roles",
            &role("delete"),
            None,
            Err(
                "roles.rbac.authorization.k8s.io \"x\" is forbidden: user \"u\" (groups=[\"system:authenticated\"]) is attempting to \
                 grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}",
            ),
        );
        check("escalator", "roles", &role("delete"), None, Ok(()));
        let owned = role("delete").replace(r#""name":"x""#, r#""name":"x","ownerReferences":[{}]"#);
        check("u", "roles", &owned, Some(&role("delete")), Ok(()));
        check(
            "u",
            "clusterroles",
            r#"{"metadata":{"name":"x"},"aggregationRule":{"clusterRoleSelectors":[{}]}}"#,
            None,
            Err(
                "clusterroles.rbac.authorization.k8s.io \"x\" is forbidden: must have cluster-admin privileges to use the aggregationRule",
            ),
        );
    }

    #[test]
    fn bindings_grant_what_their_author_holds() {
        let binding = |role: &str| {
            format!(
                r#"{{"metadata":{{"name":"x"}},"roleRef":{{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"{role}"}}}}"#
            )
        };
        check("u", "rolebindings", &binding("reader"), None, Ok(()));
        check(
            "u",
            "rolebindings",
            &binding("writer"),
            None,
            Err(
                "rolebindings.rbac.authorization.k8s.io \"x\" is forbidden: user \"u\" (groups=[\"system:authenticated\"]) is attempting \
                 to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"update\"]}",
            ),
        );
        check("binder", "rolebindings", &binding("writer"), None, Ok(()));
        check(
            "u",
            "rolebindings",
            &binding("nobody"),
            None,
            Err("rolebindings.rbac.authorization.k8s.io \"nobody\" not found"),
        );
        let master = UserInfo::authenticated("m", &[MASTERS]);
        let new = value(&binding("nobody"));
        let write =
            RbacWrite { user: &master, resource: "rolebindings", namespace: "n", name: "x", new: &new, old: None };
        assert!(write.check(&gate()).is_ok());
    }
}
