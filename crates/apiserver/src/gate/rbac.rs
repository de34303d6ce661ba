//! RBAC: an index from subjects to rules, kept current by watch events, so that a request scans no list of bindings.
//!
//! Upstream: plugin/pkg/auth/authorizer/rbac, pkg/registry/rbac/validation. A ClusterRole with an aggregation rule has the
//! rules of the roles it selects at that moment, whatever is written in it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Selector, Value};
use parking_lot::RwLock;

use super::rule::Rule;
use super::{Attributes, Decision};
use crate::UserInfo;

/// The index. Cheap to ask, safe to share.
#[derive(Default)]
pub(crate) struct Rbac(RwLock<Index>);

#[derive(Default)]
struct Index {
    roles: HashMap<ObjectKey, Arc<[Rule]>>,
    cluster_roles: BTreeMap<String, ClusterRole>,
    /// Bindings by namespace; those of the whole cluster under the empty one.
    grants: HashMap<String, Grants>,
    /// The subjects of each binding, to find what to take out again.
    bindings: HashMap<ObjectKey, Vec<Subject>>,
}

struct ClusterRole {
    labels: Vec<(String, String)>,
    aggregates: Vec<Selector>,
    effective: Arc<[Rule]>,
}

/// The grants of one namespace, each by its binding's name.
#[derive(Default)]
struct Grants {
    users: HashMap<String, BTreeMap<String, Grant>>,
    groups: HashMap<String, BTreeMap<String, Grant>>,
}

#[derive(Clone)]
struct Grant {
    cluster_role: bool,
    role: String,
    /// Names the subject in the reason for a permission.
    subject: String,
}

#[derive(Clone, PartialEq, Eq)]
enum Subject {
    User(String),
    Group(String),
}

/// One grant that applies to somebody.
struct Applied<'a> {
    grant: &'a Grant,
    binding: &'a str,
    namespace: &'a str,
    /// `None` when there is no such role.
    rules: Option<&'a Arc<[Rule]>>,
}

impl Rbac {
    /// Takes in an event about `resource` of group `rbac.authorization.k8s.io`: the new state of an object, or its removal.
    pub(crate) fn observe(&self, resource: &str, key: &ObjectKey, object: Option<&Object>) {
        let mut index = self.0.write();
        match resource {
            "roles" => match object {
                Some(role) => drop(index.roles.insert(key.clone(), Rule::read_all(&role.to_value()).into())),
                None => drop(index.roles.remove(key)),
            },
            "clusterroles" => {
                match object {
                    Some(role) => drop(index.cluster_roles.insert(key.name.clone(), ClusterRole::read(role))),
                    None => drop(index.cluster_roles.remove(&key.name)),
                }
                index.aggregate();
            }
            "rolebindings" | "clusterrolebindings" => index.bind(key, object),
            _ => {}
        }
    }

    pub(crate) fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let index = self.0.read();
        let mut errors = Vec::new();
        for applied in index.applied(request.user, request.namespace) {
            match applied.rules {
                Some(rules) if rules.iter().any(|rule| rule.allows(request)) => {
                    return Decision::allow(format!("RBAC: allowed by {}", applied.describe()));
                }
                Some(_) => {}
                None => errors.push(applied.error()),
            }
        }
        errors.sort();
        errors.dedup();
        Decision::no_opinion(match errors.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// All rules that apply to `user` in `namespace` (empty: cluster-wide ones only), and what could not be resolved.
    pub(crate) fn rules_for(&self, user: &UserInfo, namespace: &str) -> (Vec<Rule>, Vec<String>) {
        let (mut rules, mut errors) = (Vec::new(), Vec::new());
        for applied in self.0.read().applied(user, namespace) {
            match applied.rules {
                Some(granted) => rules.extend_from_slice(granted),
                None => errors.push(applied.error()),
            }
        }
        (rules, errors)
    }

    /// The rules of the role that a binding in `namespace` refers to.
    pub(crate) fn rules_of(&self, kind: &str, name: &str, namespace: &str) -> Option<Arc<[Rule]>> {
        let index = self.0.read();
        match kind {
            "ClusterRole" => Some(index.cluster_roles.get(name)?.effective.clone()),
            "Role" => index.roles.get(&ObjectKey::new(namespace, name)).cloned(),
            _ => None,
        }
    }
}

impl Index {
    fn applied<'a>(&'a self, user: &UserInfo, namespace: &str) -> Vec<Applied<'a>> {
        let mut applied = Vec::new();
        let scopes = if namespace.is_empty() { &[""][..] } else { &["", namespace] };
        for (namespace, grants) in scopes.iter().filter_map(|scope| self.grants.get_key_value(*scope)) {
            let own = grants.users.get(&user.name);
            let shared = user.groups.iter().filter_map(|group| grants.groups.get(group));
            for (binding, grant) in own.into_iter().chain(shared).flatten() {
                let rules = if grant.cluster_role {
                    self.cluster_roles.get(&grant.role).map(|role| &role.effective)
                } else {
                    self.roles.get(&ObjectKey::new(namespace, &grant.role))
                };
                applied.push(Applied { grant, binding, namespace, rules });
            }
        }
        applied
    }

    fn bind(&mut self, key: &ObjectKey, object: Option<&Object>) {
        if let Some(subjects) = self.bindings.remove(key)
            && let Some(grants) = self.grants.get_mut(&key.namespace)
        {
            for subject in subjects {
                grants.remove(&subject, &key.name);
            }
            if grants.users.is_empty() && grants.groups.is_empty() {
                self.grants.remove(&key.namespace);
            }
        }
        let Some(binding) = object.map(Object::to_value) else { return };
        let text = |of: &Value, key: &str| of.str_at(&[key]).unwrap_or_default().to_owned();
        let reference = binding.get("roleRef").cloned().unwrap_or_default();
        let (cluster_role, role) = (text(&reference, "kind") == "ClusterRole", text(&reference, "name"));
        let mut subjects = Vec::new();
        for value in binding.items_at(&["subjects"]) {
            let (kind, name) = (text(value, "kind"), text(value, "name"));
            let mut shown = format!("{kind} {name:?}");
            let subject = match kind.as_str() {
                "User" => Subject::User(name),
                "Group" => Subject::Group(name),
                "ServiceAccount" => {
                    let own = text(value, "namespace");
                    let namespace = if own.is_empty() { &key.namespace } else { &own };
                    if namespace.is_empty() {
                        continue;
                    }
                    shown = format!("{kind} \"{name}/{namespace}\"");
                    Subject::User(format!("system:serviceaccount:{namespace}:{name}"))
                }
                _ => continue,
            };
            let grant = Grant { cluster_role, role: role.clone(), subject: shown };
            let grants = self.grants.entry(key.namespace.clone()).or_default();
            let holders = match &subject {
                Subject::User(name) => grants.users.entry(name.clone()),
                Subject::Group(name) => grants.groups.entry(name.clone()),
            };
            holders.or_default().entry(key.name.clone()).or_insert(grant);
            subjects.push(subject);
        }
        if !subjects.is_empty() {
            self.bindings.insert(key.clone(), subjects);
        }
    }

    /// Works out the rules of aggregating roles, which may select one another.
    fn aggregate(&mut self) {
        let aggregating: Vec<String> =
            self.cluster_roles.iter().filter(|(_, role)| !role.aggregates.is_empty()).map(|(n, _)| n.clone()).collect();
        for name in &aggregating {
            if let Some(role) = self.cluster_roles.get_mut(name) {
                role.effective = Arc::new([]);
            }
        }
        // Each round carries rules one step further; rules only ever come in, so it ends.
        for _ in 0..=aggregating.len() {
            let mut changed = false;
            for name in &aggregating {
                let rules = self.aggregated(name);
                if let Some(role) = self.cluster_roles.get_mut(name)
                    && *role.effective != *rules
                {
                    role.effective = rules.into();
                    changed = true;
                }
            }
            if !changed {
                return;
            }
        }
    }

    fn aggregated(&self, name: &str) -> Vec<Rule> {
        let Some(role) = self.cluster_roles.get(name) else { return Vec::new() };
        let mut rules = Vec::new();
        for selector in &role.aggregates {
            for (_, part) in self.cluster_roles.iter().filter(|(other, _)| *other != name) {
                let label = |key: &str| part.labels.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
                if selector.matches_with(label) {
                    for rule in part.effective.iter() {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
        }
        rules
    }
}

impl Applied<'_> {
    fn describe(&self) -> String {
        let Grant { cluster_role, role, subject } = self.grant;
        let kind = if *cluster_role { "ClusterRole" } else { "Role" };
        match self.namespace {
            "" => format!("ClusterRoleBinding {:?} of {kind} {role:?} to {subject}", self.binding),
            namespace => format!("RoleBinding \"{}/{namespace}\" of {kind} {role:?} to {subject}", self.binding),
        }
    }

    fn error(&self) -> String {
        let resource = if self.grant.cluster_role { "clusterrole" } else { "role" };
        format!("{resource}.rbac.authorization.k8s.io {:?} not found", self.grant.role)
    }
}

impl Grants {
    fn remove(&mut self, subject: &Subject, binding: &str) {
        let (holders, name) = match subject {
            Subject::User(name) => (&mut self.users, name),
            Subject::Group(name) => (&mut self.groups, name),
        };
        if let Some(grants) = holders.get_mut(name) {
            grants.remove(binding);
            if grants.is_empty() {
                holders.remove(name);
            }
        }
    }
}

impl ClusterRole {
    fn read(role: &Object) -> ClusterRole {
        let value = role.to_value();
        let selectors = value.items_at(&["aggregationRule", "clusterRoleSelectors"]);
        let aggregates = selectors.iter().filter_map(|selector| Selector::from_label_selector(Some(selector)).ok());
        ClusterRole {
            labels: role.labels().to_vec(),
            aggregates: aggregates.collect(),
            effective: Rule::read_all(&value).into(),
        }
    }
}

#[cfg(test)]
mod tests;
