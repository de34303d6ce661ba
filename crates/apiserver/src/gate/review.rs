//! Questions to the gate as objects: access reviews, rules reviews, token reviews, and who am I.
//!
//! Upstream: pkg/registry/authorization, pkg/registry/authentication. Nothing is stored.

use std::collections::BTreeMap;

use apimachinery::{FieldError, FieldRequirement, FieldSelector, GroupKind, Map, Status, Value, format_time};
use jiff::Timestamp;

use super::{Attributes, Authenticator, Gate};
use crate::UserInfo;
use crate::strategy::Objects;

/// What answers need, and who asks.
pub(crate) struct Reviewer<'a> {
    pub gate: &'a Gate,
    pub authenticator: &'a Authenticator,
    pub objects: &'a dyn Objects,
    pub user: &'a UserInfo,
    pub now: Timestamp,
}

/// Answers a review of the given kind: the request with its `status`. `namespace` is that of the request's path.
pub(crate) fn review(
    reviewer: &Reviewer<'_>,
    kind: &str,
    namespace: &str,
    mut request: Value,
) -> Result<Value, Status> {
    let status = match kind {
        "SelfSubjectReview" => return Ok(reviewer.who_am_i(request)),
        "SelfSubjectRulesReview" => return reviewer.rules(request),
        "TokenReview" => reviewer.token(&request)?,
        "SelfSubjectAccessReview" | "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let errors = invalid_access_review(kind, &request);
            if !errors.is_empty() {
                // Upstream names no kind here.
                let kind = GroupKind { group: "authorization.k8s.io".into(), kind: String::new() };
                return Err(Status::invalid(&kind, "", &errors));
            }
            if kind == "LocalSubjectAccessReview" {
                let own = request.str_at(&["metadata", "namespace"]).unwrap_or_default();
                if namespace.is_empty() {
                    return Err(Status::bad_request("namespace is required on this type: "));
                }
                if own != namespace {
                    return Err(Status::bad_request(format!(
                        "spec.resourceAttributes.namespace must match namespace: {namespace}"
                    )));
                }
            }
            let subject = if kind == "SelfSubjectAccessReview" { reviewer.user.clone() } else { subject(&request) };
            reviewer.access(&request, &subject)
        }
        _ => return Err(Status::path_not_found()),
    };
    request.set(&["status"], status);
    Ok(request)
}

impl Reviewer<'_> {
    fn access(&self, request: &Value, subject: &UserInfo) -> Value {
        let mut error = None;
        let selector;
        let decision = match object_at(request, &["spec", "resourceAttributes"]) {
            Some(wanted) => {
                let text = |key: &str| wanted.str_at(&[key]).unwrap_or_default();
                selector = field_selector(wanted.get("fieldSelector"), &mut error);
                self.gate.authorize(&Attributes {
                    namespace: text("namespace"),
                    version: Some(text("version")).filter(|version| !version.is_empty()).unwrap_or("*"),
                    subresource: text("subresource"),
                    name: text("name"),
                    field_selector: selector.as_ref(),
                    ..Attributes::resource(subject, text("verb"), text("group"), text("resource"))
                })
            }
            None => {
                let text = |key| request.str_at(&["spec", "nonResourceAttributes", key]).unwrap_or_default();
                self.gate.authorize(&Attributes::path(subject, text("verb"), text("path")))
            }
        };
        let mut status = Map::default();
        status.insert("allowed", decision.allowed);
        if !decision.reason.is_empty() {
            status.insert("reason", decision.reason);
        }
        if let Some(error) = error {
            status.insert("evaluationError", error);
        }
        status.into()
    }

    fn rules(&self, request: Value) -> Result<Value, Status> {
        let namespace = request.str_at(&["spec", "namespace"]).unwrap_or_default();
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        let (rules, incomplete, errors) = self.gate.rules_for(self.user, namespace);
        let (mut resource_rules, mut url_rules): (Vec<Value>, Vec<Value>) = Default::default();
        for rule in rules {
            let mut value = rule.to_value();
            if !rule.resources.is_empty() {
                value.remove(&["nonResourceURLs"]);
                resource_rules.push(value);
            } else if !rule.urls.is_empty() {
                url_rules.push(value);
            }
        }
        let mut answer = request.clone();
        answer.set(&["metadata"], Value::object());
        answer.set(&["spec"], Value::object());
        answer.set(&["status", "resourceRules"], resource_rules);
        answer.set(&["status", "nonResourceRules"], url_rules);
        answer.set(&["status", "incomplete"], incomplete);
        if !errors.is_empty() {
            answer.set(&["status", "evaluationError"], errors.join(", "));
        }
        Ok(answer)
    }

    fn who_am_i(&self, mut request: Value) -> Value {
        request.set(&["metadata"], Value::object());
        request.set(&["metadata", "creationTimestamp"], format_time(self.now));
        request.set(&["status", "userInfo"], user_value(self.user));
        request
    }

    fn token(&self, request: &Value) -> Result<Value, Status> {
        let token = request.str_at(&["spec", "token"]).unwrap_or_default();
        if token.is_empty() {
            return Err(Status::bad_request("token is required for TokenReview in authentication"));
        }
        let mut audiences = texts(request.items_at(&["spec", "audiences"]));
        if audiences.is_empty() {
            audiences = self.authenticator.audiences().to_vec();
        }
        let mut status = Value::object();
        match self.authenticator.token(token, &audiences, self.objects, self.now) {
            Ok((user, matching)) => {
                status.set(&["authenticated"], true);
                status.set(&["user"], user_value(&user));
                status.set(&["audiences"], matching);
            }
            Err(error) => {
                status.set(&["error"], error);
                status.set(&["user"], Value::object());
            }
        }
        Ok(status)
    }
}

fn user_value(user: &UserInfo) -> Value {
    let mut value = Value::object();
    value.set(&["username"], &user.name);
    if !user.uid.is_empty() {
        value.set(&["uid"], &user.uid);
    }
    if !user.groups.is_empty() {
        value.set(&["groups"], user.groups.clone());
    }
    for (key, values) in &user.extra {
        value.set(&["extra", key], values.clone());
    }
    value
}

fn subject(request: &Value) -> UserInfo {
    let mut extra = BTreeMap::new();
    for (key, values) in
        object_at(request, &["spec", "extra"]).and_then(Value::as_object).into_iter().flat_map(Map::iter)
    {
        // Keys are header names, which have no case.
        extra.insert(key.to_lowercase(), texts(values.items_at(&[])));
    }
    let text = |key: &str| request.str_at(&["spec", key]).unwrap_or_default().to_owned();
    UserInfo { name: text("user"), uid: text("uid"), groups: texts(request.items_at(&["spec", "groups"])), extra }
}

/// What a review says of fields; what cannot be understood is left out, which asks for more, and told.
fn field_selector(attributes: Option<&Value>, error: &mut Option<String>) -> Option<FieldSelector> {
    let attributes = attributes?;
    let raw = attributes.str_at(&["rawSelector"]).unwrap_or_default();
    if !raw.is_empty() {
        return FieldSelector::parse(raw).map_err(|wrong| *error = Some(wrong.0)).ok();
    }
    let mut selector = FieldSelector::default();
    for requirement in attributes.items_at(&["requirements"]) {
        let field = requirement.str_at(&["key"]).unwrap_or_default();
        let operator = requirement.str_at(&["operator"]).unwrap_or_default();
        match (operator, requirement.items_at(&["values"])) {
            (_, [_, _, ..]) => *error = Some("fieldSelectors do not yet support multiple values".to_owned()),
            ("In" | "NotIn", [value]) => {
                let value = value.as_str().unwrap_or_default().to_owned();
                let requirement = FieldRequirement { field: field.to_owned(), equal: operator == "In", value };
                selector = selector.and(FieldSelector::from(requirement));
            }
            ("Exists" | "DoesNotExist", _) => *error = Some(format!("fieldSelectors do not yet support {operator}")),
            _ => *error = Some(format!("{operator:?} is not a valid field selector operator")),
        }
    }
    Some(selector)
}

fn invalid_access_review(kind: &str, request: &Value) -> Vec<FieldError> {
    let resource = object_at(request, &["spec", "resourceAttributes"]);
    let path = object_at(request, &["spec", "nonResourceAttributes"]);
    let mut errors = Vec::new();
    match (resource, path) {
        (Some(_), Some(path)) => errors.push(FieldError::invalid(
            "spec.nonResourceAttributes",
            path,
            "cannot be specified in combination with resourceAttributes",
        )),
        (None, None) => errors.push(FieldError::invalid(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
        _ => {}
    }
    let local = kind == "LocalSubjectAccessReview";
    if kind != "SelfSubjectAccessReview" {
        let user = request.str_at(&["spec", "user"]).unwrap_or_default();
        if user.is_empty() && request.items_at(&["spec", "groups"]).is_empty() {
            errors.push(FieldError::invalid("spec.user", user, "at least one of user or group must be specified"));
        }
    }
    for (key, selector) in ["fieldSelector", "labelSelector"].iter().filter_map(|key| Some((key, resource?.get(key)?)))
    {
        let at = format!("spec.resourceAttributes.{key}");
        let raw = selector.str_at(&["rawSelector"]).unwrap_or_default();
        match (raw.is_empty(), selector.items_at(&["requirements"]).is_empty()) {
            (false, false) => errors.push(FieldError::invalid(
                format!("{at}.rawSelector"),
                raw,
                "may not specified at the same time as requirements",
            )),
            (true, true) => errors.push(FieldError::required(
                format!("{at}.requirements"),
                format!("when {at} is specified, requirements or rawSelector is required"),
            )),
            _ => {}
        }
    }
    let metadata = request.get("metadata").and_then(Value::as_object).into_iter().flat_map(Map::iter);
    let allowed = |key: &str| key == "managedFields" || (local && key == "namespace");
    if metadata.into_iter().any(|(key, value)| !allowed(key) && !value.is_null()) {
        let detail = if local { "must be empty except for namespace" } else { "must be empty" };
        errors.push(FieldError::invalid("metadata", request.get("metadata").cloned(), detail));
    }
    if local {
        let own = request.str_at(&["metadata", "namespace"]).unwrap_or_default();
        if let Some(wanted) = resource.map(|resource| resource.str_at(&["namespace"]).unwrap_or_default())
            && wanted != own
        {
            errors.push(FieldError::invalid(
                "spec.resourceAttributes.namespace",
                wanted,
                "must match metadata.namespace",
            ));
        }
        if let Some(path) = path {
            errors.push(FieldError::invalid("spec.nonResourceAttributes", path, "disallowed on this kind of request"));
        }
    }
    errors
}

fn object_at<'v>(value: &'v Value, path: &[&str]) -> Option<&'v Value> {
    value.at(path).filter(|value| value.as_object().is_some())
}

fn texts(values: &[Value]) -> Vec<String> {
    values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
