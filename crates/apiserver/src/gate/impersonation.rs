//! Acting as somebody else, by `Impersonate-*` headers. Upstream: apiserver pkg/endpoints/filters/impersonation.

use apimachinery::Status;
use http::{HeaderMap, HeaderValue};

use super::authentication::service_account_groups;
use super::{Attributes, Gate};
use crate::UserInfo;
use crate::request::decode;

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";
const AUTHENTICATION: &str = "authentication.k8s.io";

/// Whom `user` asks to be, if they ask and may.
pub(crate) fn impersonate(gate: &Gate, user: &UserInfo, headers: &HeaderMap) -> Result<Option<UserInfo>, Status> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let (name, uid) = (first(USER), first(UID));
    let groups: Vec<String> = headers.get_all(GROUP).iter().map(text).collect();
    let extras: Vec<(String, String)> = headers
        .iter()
        .filter_map(|(header, value)| Some((decode(header.as_str().strip_prefix(EXTRA)?), text(value))))
        .collect();
    if name.is_empty() {
        if groups.is_empty() && extras.is_empty() && uid.is_empty() {
            return Ok(None);
        }
        return Err(Status::bad_request(format!(
            "requested {} without impersonating a user",
            requested(&groups, &extras, &uid)
        )));
    }

    let check = |group: &str, resource: &str, namespace: &str, name: &str, subresource: &str| {
        let version = if group.is_empty() { "" } else { "v1" };
        let question = Attributes::resource(user, "impersonate", group, resource);
        gate.check(&Attributes { version, namespace, name, subresource, ..question })
    };
    let mut other = UserInfo { name: name.clone(), uid: uid.clone(), groups, ..UserInfo::default() };
    match service_account(&name) {
        Some((namespace, account)) => {
            check("", "serviceaccounts", namespace, account, "")?;
            if other.groups.is_empty() {
                other.groups = service_account_groups(namespace);
            } else {
                other.groups.iter().try_for_each(|group| check("", "groups", "", group, ""))?;
            }
        }
        None => {
            check("", "users", "", &name, "")?;
            other.groups.iter().try_for_each(|group| check("", "groups", "", group, ""))?;
        }
    }
    for (key, value) in extras {
        check(AUTHENTICATION, "userextras", "", &value, &key)?;
        other.extra.entry(key).or_default().push(value);
    }
    if !uid.is_empty() {
        check(AUTHENTICATION, "uids", "", &uid, "")?;
    }
    let unauthenticated = other.is_in("system:unauthenticated");
    if name == "system:anonymous" {
        if !unauthenticated {
            other.groups.push("system:unauthenticated".to_owned());
        }
    } else if !unauthenticated && !other.is_in("system:authenticated") {
        other.groups.push("system:authenticated".to_owned());
    }
    Ok(Some(other))
}

/// Namespace and name in `system:serviceaccount:<namespace>:<name>`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    let valid = apimachinery::validation::dns1123_label(namespace).is_empty()
        && apimachinery::validation::dns1123_subdomain(name).is_empty();
    valid.then_some((namespace, name))
}

/// The request as upstream's message lists it: kind, namespace, name, uid, version, revision and field path of each part.
fn requested(groups: &[String], extras: &[(String, String)], uid: &str) -> String {
    let mut parts: Vec<String> = groups.iter().map(|group| format!("{{Group  {group}    }}")).collect();
    let version = "authentication.k8s.io/v1";
    parts.extend(extras.iter().map(|(key, value)| format!("{{UserExtra  {value}  {version}  {key}}}")));
    if !uid.is_empty() {
        parts.push(format!("{{UID  {uid}  {version}  }}"));
    }
    format!("[{}]", parts.join(" "))
}

#[cfg(test)]
mod tests {
    use apimachinery::{Object, Value};
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn gate() -> Gate {
        let gate = Gate::default();
        let put = |resource: &str, json: &str| {
            let object = Object::new(&Value::parse(json.as_bytes()).unwrap(), 1).unwrap();
            gate.observe("rbac.authorization.k8s.io", resource, object.key(), Some(&object));
        };
        put(
            "clusterroles",
            r#"{"metadata":{"name":"r"},"rules":[
                {"apiGroups":[""],"resources":["users"],"resourceNames":["bob","system:anonymous"],"verbs":["impersonate"]},
                {"apiGroups":[""],"resources":["groups"],"resourceNames":["g"],"verbs":["impersonate"]},
                {"apiGroups":[""],"resources":["serviceaccounts"],"verbs":["impersonate"]},
                {"apiGroups":["authentication.k8s.io"],"resources":["userextras/scope","uids"],"verbs":["impersonate"]}]}"#,
        );
        put(
            "clusterrolebindings",
            r#"{"metadata":{"name":"b"},"roleRef":{"kind":"ClusterRole","name":"r"},"subjects":[{"kind":"User","name":"alice"}]}"#,
        );
        gate
    }

    #[test]
    fn who_may_becomes_another() {
        let check = |pairs: &[(&str, &str)], name: &str, groups: &[&str]| {
            let alice = UserInfo::authenticated("alice", &[]);
            let other = impersonate(&gate(), &alice, &headers(pairs)).unwrap().unwrap();
            assert_eq!((other.name.as_str(), other.groups), (name, groups.iter().map(|g| (*g).to_owned()).collect()));
            other.extra
        };
        check(&[("Impersonate-User", "bob")], "bob", &["system:authenticated"]);
        check(&[("Impersonate-User", "bob"), ("Impersonate-Group", "g")], "bob", &["g", "system:authenticated"]);
        check(&[("Impersonate-User", "system:anonymous")], "system:anonymous", &["system:unauthenticated"]);
        let account = "system:serviceaccount:n:a";
        let groups = ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"];
        check(&[("Impersonate-User", account)], account, &groups);
        check(&[("Impersonate-User", account), ("Impersonate-Group", "g")], account, &["g", "system:authenticated"]);
        let extra = check(
            &[("Impersonate-User", "bob"), ("Impersonate-Extra-Scope", "x"), ("Impersonate-Uid", "1")],
            "bob",
            &["system:authenticated"],
        );
        assert_eq!(extra.get("scope"), Some(&vec!["x".to_owned()]));
        let alice = UserInfo::authenticated("alice", &[]);
        assert_eq!(impersonate(&gate(), &alice, &HeaderMap::new()), Ok(None));
    }

    #[test]
    fn who_may_not_is_refused() {
        let check = |pairs: &[(&str, &str)], code: u16, message: &str| {
            let alice = UserInfo::authenticated("alice", &[]);
            let status = impersonate(&gate(), &alice, &headers(pairs)).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, message));
        };
        check(
            &[("Impersonate-User", "eve")],
            403,
            "users \"eve\" is forbidden: User \"alice\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
        );
        check(
            &[("Impersonate-User", "bob"), ("Impersonate-Group", "g"), ("Impersonate-Group", "system:masters")],
            403,
            "groups \"system:masters\" is forbidden: User \"alice\" cannot impersonate resource \"groups\" in API group \"\" at the \
             cluster scope",
        );
        check(
            &[("Impersonate-User", "bob"), ("Impersonate-Extra-other", "x")],
            403,
            "userextras.authentication.k8s.io \"x\" is forbidden: User \"alice\" cannot impersonate resource \"userextras/other\" in \
             API group \"authentication.k8s.io\" at the cluster scope",
        );
        check(&[("Impersonate-Group", "g")], 400, "requested [{Group  g    }] without impersonating a user");
    }
}
