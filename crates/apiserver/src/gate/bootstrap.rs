//! The objects a cluster begins with: upstream's roles, bindings and priority classes, and how they are kept current.
//!
//! Upstream: plugin/pkg/auth/authorizer/rbac/bootstrappolicy, component-helpers auth/rbac/reconciliation.

mod ensure;

use apimachinery::{Map, Value};

pub(crate) use ensure::ensure;

use super::rule::{self, Rule};

const POLICY: &str = include_str!("bootstrap/policy.txt");
/// More of it where devices have taints.
const DEVICE_TAINTS_POLICY: &str = "\
role system:controller:device-taint-eviction-controller
  delete,get,list,watch - pods
  patch,update - pods/status
  get,list,watch resource.k8s.io deviceclasses,resourceclaims,resourceslices
  create,patch,update -,events.k8s.io events
";
const GROUP: &str = "rbac.authorization.k8s.io";
const AGGREGATE: &str = "rbac.authorization.k8s.io/aggregate-to-";
/// What the names of roles begin with that upstream doesn't have.
const OWN: &str = "oxikube:";
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

/// An object to create at the start.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    pub group: &'static str,
    pub resource: &'static str,
    pub value: Value,
}

/// What must be done so that an object says at least what it should.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Reconcile {
    Nothing,
    Create(Value),
    Update(Value),
    /// A binding's role cannot be changed: delete it, then create this.
    Recreate(Value),
}

/// Roles, then bindings: the order to create them in.
pub(crate) fn rbac(device_taints: bool) -> Vec<Wanted> {
    let more = if device_taints { DEVICE_TAINTS_POLICY } else { "" };
    let mut wanted = Vec::new();
    let mut controllers = Vec::new();
    for line in POLICY.lines().chain(more.lines()).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let mut words = line.split_whitespace();
        if line.starts_with(' ') {
            if let Some(Wanted { value, .. }) = wanted.last_mut() {
                add_rule(value, &words.collect::<Vec<_>>());
            }
            continue;
        }
        let (keyword, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let words: Vec<&str> = words.collect();
        if keyword == "role" {
            let role = role(name, &words);
            if role.resource == "clusterroles" && name.starts_with("system:controller:") {
                controllers.push(controller_binding(name));
            }
            wanted.push(role);
        } else {
            wanted.push(binding(name, &words));
        }
    }
    fill_aggregated(&mut wanted);
    wanted.extend(controllers);
    wanted
}

/// The two priority classes that system components use.
pub(crate) fn priority_classes() -> Vec<Wanted> {
    let class = |name: &str, value: i64, description: &str| {
        let mut class = object("scheduling.k8s.io/v1", "PriorityClass", name, "");
        class.set(&["value"], value);
        class.set(&["description"], description);
        class.set(&["preemptionPolicy"], "PreemptLowerPriority");
        Wanted { group: "scheduling.k8s.io", resource: "priorityclasses", value: class }
    };
    vec![
        class(
            "system-node-critical",
            2_000_001_000,
            "Used for system critical pods that must not be moved from their current node.",
        ),
        class(
            "system-cluster-critical",
            2_000_000_000,
            "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
        ),
    ]
}

/// Compares what there is with what is wanted. Additions by others stay; an object annotated with `autoupdate: "false"` is
/// left alone.
pub(crate) fn reconcile(existing: Option<&Value>, wanted: &Value) -> Reconcile {
    let Some(existing) = existing else {
        return Reconcile::Create(wanted.clone());
    };
    if existing.str_at(&["metadata", "annotations", AUTOUPDATE]) == Some("false") {
        return Reconcile::Nothing;
    }
    if existing.get("roleRef") != wanted.get("roleRef") {
        return Reconcile::Recreate(wanted.clone());
    }
    let mut merged = existing.clone();
    for map in ["labels", "annotations"] {
        let entries = wanted.at(&["metadata", map]).and_then(Value::as_object);
        for (key, value) in entries.into_iter().flat_map(Map::iter) {
            // What somebody set stays, but an object that lacks the annotation is one that is updated.
            if merged.at(&["metadata", map, key]).is_none() {
                merged.set(&["metadata", map, key], value);
            }
        }
    }
    if wanted.get("aggregationRule").is_none() {
        let lacking = rule::missing(&Rule::read_all(existing), &Rule::read_all(wanted));
        append(&mut merged, &["rules"], lacking.iter().map(Rule::to_value));
    }
    let selectors = ["aggregationRule", "clusterRoleSelectors"];
    for list in [&["subjects"][..], &selectors] {
        let there = existing.items_at(list);
        append(&mut merged, list, wanted.items_at(list).iter().filter(|item| !there.contains(item)).cloned());
    }
    if merged == *existing { Reconcile::Nothing } else { Reconcile::Update(merged) }
}

fn append(value: &mut Value, path: &[&str], items: impl Iterator<Item = Value>) {
    let mut items = items.peekable();
    if items.peek().is_some() {
        let list: Vec<Value> = value.items_at(path).iter().cloned().chain(items).collect();
        value.set(path, list);
    }
}

fn object(api_version: &str, kind: &str, name: &str, namespace: &str) -> Value {
    let mut value = Value::object();
    value.set(&["apiVersion"], api_version);
    value.set(&["kind"], kind);
    value.set(&["metadata", "name"], name);
    if !namespace.is_empty() {
        value.set(&["metadata", "namespace"], namespace);
    }
    value
}

fn policy_object(kind: &str, name: &str, namespace: &str) -> Value {
    let mut value = object("rbac.authorization.k8s.io/v1", kind, name, namespace);
    value.set(&["metadata", "annotations", AUTOUPDATE], "true");
    if !name.starts_with(OWN) {
        value.set(&["metadata", "labels", "kubernetes.io/bootstrapping"], "rbac-defaults");
    }
    value
}

fn role(name: &str, words: &[&str]) -> Wanted {
    let namespace = option(words, "in").next().unwrap_or_default();
    let (kind, resource) = if namespace.is_empty() { ("ClusterRole", "clusterroles") } else { ("Role", "roles") };
    let mut value = policy_object(kind, name, namespace);
    for label in option(words, "label") {
        value.set(&["metadata", "labels", &format!("{AGGREGATE}{label}")], "true");
    }
    for label in option(words, "aggregates") {
        let mut selector = Value::object();
        selector.set(&["matchLabels", &format!("{AGGREGATE}{label}")], "true");
        append(&mut value, &["aggregationRule", "clusterRoleSelectors"], [selector].into_iter());
    }
    value.set(&["rules"], Vec::<Value>::new());
    Wanted { group: GROUP, resource, value }
}

fn add_rule(role: &mut Value, words: &[&str]) {
    let list = |at: usize| -> Vec<String> {
        let words = words.get(at).into_iter().flat_map(|word| word.split(','));
        words.map(|word| if word == "-" { String::new() } else { word.to_owned() }).collect()
    };
    let rule = if words.get(1) == Some(&"url") {
        Rule { verbs: list(0), urls: list(2), ..Rule::default() }
    } else {
        let names = if words.get(3) == Some(&"only") { list(4) } else { Vec::new() };
        Rule { verbs: list(0), groups: list(1), resources: list(2), names, urls: Vec::new() }
    };
    append(role, &["rules"], [rule.to_value()].into_iter());
}

fn binding(name: &str, words: &[&str]) -> Wanted {
    let namespace = option(words, "in").next().unwrap_or_default();
    let (kind, resource, role_kind) = if namespace.is_empty() {
        ("ClusterRoleBinding", "clusterrolebindings", "ClusterRole")
    } else {
        ("RoleBinding", "rolebindings", "Role")
    };
    let mut value = policy_object(kind, name, namespace);
    value.set(&["roleRef", "apiGroup"], GROUP);
    value.set(&["roleRef", "kind"], role_kind);
    value.set(&["roleRef", "name"], option(words, "to").next().unwrap_or(name));
    let subjects = words.iter().filter_map(|word| {
        let mut subject = Value::object();
        if let Some(account) = word.strip_prefix("account:") {
            let (namespace, name) = account.split_once('/')?;
            subject.set(&["kind"], "ServiceAccount");
            subject.set(&["name"], name);
            subject.set(&["namespace"], namespace);
        } else {
            let (kind, name) = word
                .strip_prefix("user:")
                .map(|n| ("User", n))
                .or(word.strip_prefix("group:").map(|n| ("Group", n)))?;
            subject.set(&["apiGroup"], GROUP);
            subject.set(&["kind"], kind);
            subject.set(&["name"], name);
        }
        Some(subject)
    });
    append(&mut value, &["subjects"], subjects);
    Wanted { group: GROUP, resource, value }
}

fn controller_binding(role: &str) -> Wanted {
    let account = role.trim_start_matches("system:controller:");
    binding(role, &[&format!("account:kube-system/{account}")])
}

/// Writes into aggregating roles what they aggregate, as their controller would.
fn fill_aggregated(wanted: &mut [Wanted]) {
    // `admin` takes from `edit`, and that from `view`: three steps.
    for _ in 0..3 {
        let roles: Vec<Value> = wanted.iter().map(|role| role.value.clone()).collect();
        for Wanted { value, .. } in wanted.iter_mut() {
            let mut rules: Vec<Value> = Vec::new();
            for selector in value.items_at(&["aggregationRule", "clusterRoleSelectors"]) {
                let labels = selector.get("matchLabels").and_then(Value::as_object);
                for (label, _) in labels.into_iter().flat_map(Map::iter) {
                    let selected = roles.iter().filter(|role| role.at(&["metadata", "labels", label]).is_some());
                    for rule in selected.flat_map(|role| role.items_at(&["rules"])) {
                        if !rules.contains(rule) {
                            rules.push(rule.clone());
                        }
                    }
                }
            }
            if !rules.is_empty() {
                value.set(&["rules"], rules);
            }
        }
    }
}

/// The words that follow each `keyword`.
fn option<'a>(words: &'a [&'a str], keyword: &'a str) -> impl Iterator<Item = &'a str> {
    words.windows(2).filter(move |pair| pair[0] == keyword).map(|pair| pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(name: &str, resource: &str) -> Value {
        let found =
            |wanted: &&Wanted| wanted.resource == resource && wanted.value.str_at(&["metadata", "name"]) == Some(name);
        rbac(false).iter().find(found).unwrap_or_else(|| panic!("{resource} {name}")).value.clone()
    }

    #[test]
    fn the_table_is_complete() {
        for (device_taints, controllers) in [(false, 37), (true, 38)] {
            let all = rbac(device_taints);
            let count = |resource: &str| all.iter().filter(|wanted| wanted.resource == resource).count();
            assert_eq!(
                ["clusterroles", "clusterrolebindings", "roles", "rolebindings"].map(count),
                [31 + controllers + 2, 12 + controllers + 1, 7, 7]
            );
            let empty = all.iter().filter(|w| w.resource.ends_with("roles") && w.value.items_at(&["rules"]).is_empty());
            assert_eq!(empty.count(), 0);
        }
    }

    #[test]
    fn objects_are_upstreams() {
        assert_eq!(
            find("cluster-admin", "clusterroles").to_string(),
            r#"{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"annotations":{"rbac.authorization.kubernetes.io/autoupdate":"true"},"labels":{"kubernetes.io/bootstrapping":"rbac-defaults"},"name":"cluster-admin"},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*"]},{"nonResourceURLs":["*"],"verbs":["*"]}]}"#
        );
        assert_eq!(
            find("system:controller:job-controller", "clusterrolebindings").items_at(&["subjects"])[0].to_string(),
            r#"{"kind":"ServiceAccount","name":"job-controller","namespace":"kube-system"}"#
        );
        let reader = find("system::extension-apiserver-authentication-reader", "rolebindings");
        assert_eq!(reader.str_at(&["roleRef", "name"]), Some("extension-apiserver-authentication-reader"));
        assert_eq!(reader.str_at(&["metadata", "namespace"]), Some("kube-system"));
        let allows = |role: &str, verb: &str, resource: &str| {
            let user = crate::UserInfo::default();
            let request = super::super::Attributes::resource(&user, verb, "", resource);
            Rule::read_all(&find(role, "clusterroles")).iter().any(|rule| rule.allows(&request))
        };
        assert!(allows("view", "get", "pods") && !allows("view", "get", "secrets"));
        assert!(allows("edit", "get", "pods") && allows("edit", "create", "secrets"));
        assert!(allows("admin", "get", "pods") && allows("admin", "create", "secrets"));
    }

    #[test]
    fn what_others_added_stays() {
        let wanted = find("view", "clusterroles");
        assert_eq!(reconcile(None, &wanted), Reconcile::Create(wanted.clone()));
        assert_eq!(reconcile(Some(&wanted), &wanted), Reconcile::Nothing);

        let wanted = find("system:kube-dns", "clusterroles");
        let mut custom = wanted.clone();
        custom.set(&["metadata", "labels", "mine"], "1");
        append(&mut custom, &["rules"], [Rule { verbs: vec!["x".into()], ..Rule::default() }.to_value()].into_iter());
        assert_eq!(reconcile(Some(&custom), &wanted), Reconcile::Nothing);
        let mut less = custom.clone();
        less.set(&["rules"], Vec::<Value>::new());
        let Reconcile::Update(updated) = reconcile(Some(&less), &wanted) else { panic!("no update") };
        assert!(rule::missing(&Rule::read_all(&updated), &Rule::read_all(&wanted)).is_empty());
        assert_eq!(updated.str_at(&["metadata", "labels", "mine"]), Some("1"));
        less.set(&["metadata", "annotations", AUTOUPDATE], "false");
        assert_eq!(reconcile(Some(&less), &wanted), Reconcile::Nothing);

        let wanted = find("cluster-admin", "clusterrolebindings");
        let mut other = wanted.clone();
        other.set(&["roleRef", "name"], "view");
        assert_eq!(reconcile(Some(&other), &wanted), Reconcile::Recreate(wanted.clone()));
        let mut nobody = wanted.clone();
        nobody.remove(&["subjects"]);
        assert_eq!(reconcile(Some(&nobody), &wanted), Reconcile::Update(wanted));
    }
}
