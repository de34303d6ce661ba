//! Whether a policy or a binding is about a request. Upstream: apiserver pkg/admission/plugin/policy/matching.

use std::sync::Arc;

use apimachinery::{Map, Selector, Value};

use super::super::Write;
use super::{namespace, word};
use crate::registry::{Call, Operation, Resource};

/// A write as policies see it.
pub(super) struct Request<'a> {
    pub call: &'a Call<'a>,
    pub write: &'a Write<'a>,
    pub new: Option<&'a Value>,
    pub old: Option<&'a Value>,
}

/// As which resource a request matched, and its objects in that version, where it is not the stored one.
pub(super) struct Matched {
    pub group: &'static str,
    pub version: &'static str,
    pub resource: &'static str,
    pub kind: &'static str,
    converted: Option<(Option<Value>, Option<Value>)>,
}

impl Matched {
    pub(super) fn object<'v>(&'v self, request: &Request<'v>) -> Option<&'v Value> {
        self.converted.as_ref().map_or(request.new, |(new, _)| new.as_ref())
    }

    pub(super) fn old_object<'v>(&'v self, request: &Request<'v>) -> Option<&'v Value> {
        self.converted.as_ref().map_or(request.old, |(_, old)| old.as_ref())
    }

    fn of(request: &Request<'_>, resource: &Resource) -> Matched {
        let served = |value: Option<&Value>| {
            value.map(|value| {
                let mut value = value.clone();
                resource.to_served(&mut value);
                value
            })
        };
        Matched {
            group: resource.kind.group,
            version: resource.kind.version,
            resource: resource.kind.resource,
            kind: resource.kind.kind,
            converted: (!resource.is_stored_form()).then(|| (served(request.new), served(request.old))),
        }
    }
}

impl<'a> Request<'a> {
    pub(super) fn new(
        call: &'a Call<'a>,
        write: &'a Write<'a>,
        new: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> Request<'a> {
        Request { call, write, new, old }
    }

    /// The namespace of the request, if it has one.
    pub(super) fn namespace_object(&self) -> Option<Value> {
        namespace(self.write.objects, self.write.namespace)
    }

    /// The name as far as it is known.
    fn name(&self) -> &str {
        let own = || self.new.or(self.old).and_then(|object| object.str_at(&["metadata", "name"]));
        if self.write.name.is_empty() { own().unwrap_or_default() } else { self.write.name }
    }

    /// The variable `request`: an AdmissionRequest, empty fields left out.
    pub(super) fn describe(&self, matched: &Matched) -> Value {
        let own = self.call.resource.kind;
        let triple = |group: &str, version: &str, key: &'static str, last: &str| {
            let parts = [("group", group), ("version", version), (key, last)];
            Value::Object(parts.into_iter().map(|(key, text)| (key, Value::from(text))).collect::<Map>())
        };
        let mut out = Value::object();
        let mut text = |key: &str, text: &str| {
            if !text.is_empty() {
                out.set(&[key], text);
            }
        };
        text("name", self.name());
        text("namespace", self.write.namespace);
        text("subResource", self.write.subresource);
        text("requestSubResource", self.write.subresource);
        text("operation", word(self.write.operation));
        out.set(&["kind"], triple(matched.group, matched.version, "kind", matched.kind));
        out.set(&["resource"], triple(matched.group, matched.version, "resource", matched.resource));
        out.set(&["requestKind"], triple(own.group, own.version, "kind", own.kind));
        out.set(&["requestResource"], triple(own.group, own.version, "resource", own.resource));
        out.set(&["dryRun"], self.call.dry_run);
        out.set(&["userInfo"], user(self.write.user));
        out.set(&["options"], options(self.write.operation));
        out
    }
}

fn user(user: &crate::UserInfo) -> Value {
    let texts = |texts: &[String]| Value::Array(texts.iter().map(Value::from).collect());
    let mut out = Value::object();
    if !user.name.is_empty() {
        out.set(&["username"], user.name.as_str());
    }
    if !user.uid.is_empty() {
        out.set(&["uid"], user.uid.as_str());
    }
    if !user.groups.is_empty() {
        out.set(&["groups"], texts(&user.groups));
    }
    for (key, values) in &user.extra {
        out.set(&["extra", key], texts(values));
    }
    out
}

fn options(operation: Operation) -> Value {
    let mut out = Value::object();
    out.set(&["apiVersion"], "meta.k8s.io/v1");
    out.set(
        &["kind"],
        match operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
        },
    );
    out
}

/// As what the request matches these `matchResources`; the error is why that can't be told.
pub(super) fn matches(request: &Request<'_>, resources: &Value) -> Result<Option<Matched>, String> {
    let in_namespace = by_namespace(request, resources);
    if in_namespace == Ok(false) {
        return Ok(None);
    }
    if !by_object(request, resources)? {
        return Ok(None);
    }
    let exact = resources.str_at(&["matchPolicy"]) == Some("Exact");
    if by_rules(request, resources.items_at(&["excludeResourceRules"]), exact).is_some() {
        return Ok(None);
    }
    let rules = resources.items_at(&["resourceRules"]);
    let matched = if rules.is_empty() {
        Some(Matched::of(request, request.call.resource))
    } else {
        by_rules(request, rules, exact)
    };
    if matched.is_some() {
        in_namespace?;
    }
    Ok(matched)
}

fn selector(resources: &Value, key: &str) -> Result<Option<Selector>, String> {
    let Some(selector) = resources.get(key).filter(|selector| !selector.is_null()) else { return Ok(None) };
    if selector.items_at(&["matchExpressions"]).is_empty()
        && selector.get("matchLabels").is_none_or(|labels| labels.as_object().is_none_or(Map::is_empty))
    {
        return Ok(None);
    }
    Selector::from_label_selector(Some(selector)).map(Some).map_err(|error| error.to_string())
}

fn by_namespace(request: &Request<'_>, resources: &Value) -> Result<bool, String> {
    let Some(selector) = selector(resources, "namespaceSelector")? else { return Ok(true) };
    let write = request.write;
    let of_namespaces = write.is_of("", "namespaces");
    if of_namespaces && write.operation != Operation::Delete {
        return Ok(selector.matches_value(request.new.and_then(|new| new.at(&["metadata", "labels"]))));
    }
    let name = if of_namespaces { write.name } else { write.namespace };
    if name.is_empty() {
        // Objects of the cluster are in no namespace to be left out.
        return Ok(true);
    }
    let namespace = namespace(write.objects, name).ok_or_else(|| format!("namespaces {name:?} not found"))?;
    Ok(selector.matches_value(namespace.at(&["metadata", "labels"])))
}

fn by_object(request: &Request<'_>, resources: &Value) -> Result<bool, String> {
    let Some(selector) = selector(resources, "objectSelector")? else { return Ok(true) };
    let selects = |object: Option<&Value>| {
        object.is_some_and(|object| selector.matches_value(object.at(&["metadata", "labels"])))
    };
    Ok(selects(request.new) || selects(request.old))
}

/// The first rule that is about the request's resource, else about one that is the same in another version or group.
fn by_rules(request: &Request<'_>, rules: &[Value], exact: bool) -> Option<Matched> {
    let own = request.call.resource;
    if rules.iter().any(|rule| about(request, rule, own)) {
        return Some(Matched::of(request, own));
    }
    if exact {
        return None;
    }
    let same = |resource: &&Arc<Resource>| {
        Arc::ptr_eq(&resource.storage, &own.storage) && !std::ptr::eq(resource.kind, own.kind)
    };
    let custom = request.call.registry.customs();
    let others = custom.get(request.write.group, request.write.resource).map(|custom| custom.resources.as_slice());
    let all = request.call.registry.resources.iter().chain(others.unwrap_or_default());
    let equivalent: Vec<&Arc<Resource>> = all.filter(same).collect();
    let rule_for = |resource: &&&Arc<Resource>| rules.iter().any(|rule| about(request, rule, resource));
    equivalent.iter().find(rule_for).map(|resource| Matched::of(request, resource))
}

fn about(request: &Request<'_>, rule: &Value, resource: &Resource) -> bool {
    let write = request.write;
    let has = |key: &str, text: &str| {
        rule.items_at(&[key]).iter().filter_map(Value::as_str).any(|item| item == "*" || item == text)
    };
    let namespaced = !write.namespace.is_empty() && !write.is_of("", "namespaces");
    let in_scope = match rule.str_at(&["scope"]) {
        Some("Namespaced") => namespaced,
        Some("Cluster") => !namespaced,
        _ => true,
    };
    let names = rule.items_at(&["resourceNames"]);
    in_scope
        && has("operations", word(write.operation))
        && has("apiGroups", resource.kind.group)
        && has("apiVersions", resource.kind.version)
        && rule.items_at(&["resources"]).iter().filter_map(Value::as_str).any(|text| {
            let (wanted, sub) = text.split_once('/').unwrap_or((text, ""));
            (wanted == "*" || wanted == resource.kind.resource) && (sub == write.subresource || sub == "*")
        })
        && (names.is_empty() || names.iter().any(|name| name.as_str() == Some(request.name())))
}
