//! Subresources: status, scale, binding, eviction, tokens, finalize, and the streams to a node.

mod eviction;
mod scale;

use std::sync::Arc;

use api::Kind;
use apimachinery::{Object, Status, Value};
use bytes::Bytes;

use super::Request;
use super::resources::LazyBody;
use crate::answer::{Answer, Content};
use crate::body::{self, Expected};
use crate::connect::Nodes;
use crate::registry::{self, Change, Resource, WriteOptions, timestamp};

/// How long a token is good for that asks for no time.
const DEFAULT_TOKEN_SECONDS: i64 = 3600;

impl Request<'_> {
    pub(super) async fn subresource(
        &self,
        kind: &'static Kind,
        body: LazyBody,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Answer, Status> {
        let info = &self.info;
        let resource = self.inner.registry.resource(&info.group, &info.version, &info.resource);
        let Some(subresource) = kind.subresource(&info.subresource) else {
            return Err(match resource {
                Some(resource) if resource.as_custom().is_some() => {
                    Status::not_found(&resource.group_resource(), &info.name)
                }
                _ => Status::path_not_found(),
            });
        };
        let Some(resource) = resource else { return Err(Status::path_not_found()) };
        if Nodes::serves(kind, subresource.name) {
            return Box::pin(self.inner.nodes.connect(self, kind, body, upgrade)).await;
        }
        if !subresource.verbs.contains(&info.verb.as_str()) {
            return Err(Status::method_not_allowed());
        }
        match (subresource.name, info.verb.as_str()) {
            ("scale", _) => Box::pin(self.scale(&resource, body.await?)).await,
            ("binding", _) => self.bind(body.await?, Some(&info.name)).await,
            ("eviction", _) => Box::pin(self.evict(&resource, body.await?)).await,
            ("token", _) => Box::pin(self.token(&resource, body.await?)).await,
            (_, "get") => self.get(&resource).await,
            (_, "update") => self.update(&resource, body.await?).await,
            (_, "patch") => self.patch(&resource, body.await?).await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Decodes a body of the kind that a subresource takes.
    fn body_of(
        &self,
        group: &str,
        version: &str,
        kind: &str,
        body: &Bytes,
        options: &WriteOptions,
    ) -> Result<Value, Status> {
        let schema = api::type_of(group, version, kind).ok_or_else(Status::path_not_found)?;
        let expected = Expected { group, version, kind, schema };
        let decoded = body::decode(self.headers, body, expected, options.validation)?;
        self.warnings.lock().extend(decoded.warnings);
        Ok(decoded.value)
    }

    /// Binds a pod to a node: `pods/{name}/binding`, or `bindings` whose body names the pod. Upstream: BindingREST.
    pub(super) async fn bind(&self, body: Bytes, name: Option<&str>) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let pods = self.inner.registry.resource("", "v1", "pods").ok_or_else(Status::path_not_found)?;
        let mut binding = self.body_of("", "v1", "Binding", &body, &options)?;
        if name.is_none() {
            // What is created through `bindings` has no uid yet, as with any kind.
            binding.remove(&["metadata", "uid"]);
        }
        self.check_namespace(&pods, &mut binding)?;
        let own = binding.str_at(&["metadata", "name"]).unwrap_or_default();
        if name.is_some_and(|name| name != own) {
            return Err(Status::bad_request("name in URL does not match name in Binding object"));
        }
        let name = own;
        let (kind, node) = (
            binding.str_at(&["target", "kind"]).unwrap_or_default(),
            binding.str_at(&["target", "name"]).unwrap_or_default(),
        );
        let mut errors = Vec::new();
        if !matches!(kind, "" | "Node") {
            errors.push(apimachinery::FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]));
        }
        if node.is_empty() {
            errors.push(apimachinery::FieldError::required("target.name", ""));
        }
        if let Some(status) = Status::plain(&errors) {
            return Err(status);
        }
        if name.is_empty() {
            return Err(Status::bad_request("Name parameter required."));
        }
        let now = timestamp(self.inner.env.now());
        let conflict = |why: &str| Status::conflict(&apimachinery::GroupResource::new("", "pods/binding"), name, why);
        let key = registry::cache_key(&self.info.namespace, name);
        let edit = |pod: &mut Value| {
            registry::check_preconditions(&pods, &key, name, &binding, pod)?;
            if pod.at(&["metadata", "deletionTimestamp"]).is_some() {
                return Err(conflict(&format!("pod {name} is being deleted, cannot be assigned to a host")));
            }
            if let Some(host) = pod.str_at(&["spec", "nodeName"]).filter(|host| !host.is_empty()) {
                return Err(conflict(&format!("pod {name} is already assigned to node {host:?}")));
            }
            if !pod.items_at(&["spec", "schedulingGates"]).is_empty() {
                return Err(conflict(&format!("pod {name} has non-empty .spec.schedulingGates")));
            }
            pod.set(&["spec", "nodeName"], node);
            // Where it was to go is of no interest to anybody any more.
            pod.remove(&["status", "nominatedNodeName"]);
            for member in ["annotations", "labels"] {
                for (key, value) in
                    binding.at(&["metadata", member]).and_then(Value::as_object).into_iter().flat_map(|map| map.iter())
                {
                    pod.set(&["metadata", member, key], value);
                }
            }
            set_condition(pod, "PodScheduled", "True", &now);
            Ok(())
        };
        let call = crate::registry::Call { subresource: "binding", ..self.call(&pods, name, options.dry_run) };
        call.update(&Change::Edit(&edit)).await?;
        let mut status = Status::deleted(&Default::default(), "", "");
        (status.code, status.details) = (201, None);
        Ok(Answer::new(http::StatusCode::CREATED, Content::Status(status)))
    }

    /// A token for a service account. Upstream: TokenREST.
    async fn token(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let (group, version, kind) = ("authentication.k8s.io", "v1", "TokenRequest");
        let request = self.body_of(group, version, kind, &body, &options)?;
        let (namespace, name) = (self.info.namespace.as_str(), self.info.name.as_str());
        self.inner.registry.get(resource, &self.key(resource), name, "").await?;
        let schema = api::type_of(group, version, kind).ok_or_else(Status::path_not_found)?;
        let mut asked = request.clone();
        if asked.at(&["spec", "expirationSeconds"]).is_none_or(Value::is_null) {
            asked.set(&["spec", "expirationSeconds"], DEFAULT_TOKEN_SECONDS);
        }
        let managed = self.managed_answer(Expected { group, version, kind, schema }, &asked);
        let mut value = self.inner.access.token(&self.user, namespace, name, request)?;
        if !managed.is_null() {
            value.set(&["metadata", "managedFields"], managed);
        }
        value.set(&["apiVersion"], format!("{group}/{version}"));
        value.set(&["kind"], kind);
        let object = Object::new(&value, 0).map_err(Status::internal)?;
        Ok(Answer::created(Arc::new(object), true))
    }
}

/// Sets a condition in `status.conditions`, whatever else it said; its time changes only with its status. Upstream:
/// UpdatePodCondition.
fn set_condition(object: &mut Value, kind: &str, status: &str, now: &str) {
    let mut conditions = object.items_at(&["status", "conditions"]).to_vec();
    let mut condition = Value::object();
    condition.set(&["type"], kind);
    condition.set(&["status"], status);
    condition.set(&["lastProbeTime"], Value::Null);
    condition.set(&["lastTransitionTime"], now);
    match conditions.iter_mut().find(|known| known.str_at(&["type"]) == Some(kind)) {
        Some(known) => {
            if known.str_at(&["status"]) == Some(status) {
                condition.set(&["lastTransitionTime"], known.get("lastTransitionTime").cloned().unwrap_or_default());
            }
            *known = condition;
        }
        None => conditions.push(condition),
    }
    object.set(&["status", "conditions"], conditions);
}
