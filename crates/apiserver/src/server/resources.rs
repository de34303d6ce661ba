//! Requests about resources: which registry operation they are.

use std::sync::Arc;

use api::Kind;
use apimachinery::Status;
use bytes::Bytes;
use client::ObjectList;
use futures_util::future::BoxFuture;
use http::Method;

use super::Request;
use super::other::page_not_found;
use crate::accept;
use crate::answer::{Answer, Content};
use crate::connect::Nodes;
use crate::registry::{self, Call, Filter, ListError, ListOptions, Resource};

/// Longer names of programs are cut.
const MANAGER_MAX: usize = 128;

/// A body that is read when it is wanted.
pub(super) type LazyBody = BoxFuture<'static, Result<Bytes, Status>>;

impl Request<'_> {
    pub(super) async fn resource(
        &self,
        body: LazyBody,
        upgrade: Option<hyper::upgrade::OnUpgrade>,
    ) -> Result<Answer, Status> {
        let info = &self.info;
        let Some(kind) = self.kind() else {
            let known = api::groups().iter().any(|group| group.name == info.group);
            return if known { Err(Status::path_not_found()) } else { Ok(page_not_found()) };
        };
        self.check_path(kind)?;
        self.check_custom()?;
        self.warn_of(kind);
        if !Nodes::serves(kind, &info.subresource) {
            if !matches!(*self.method, Method::GET | Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
                return Err(Status::method_not_allowed());
            }
            // Before anything happens: a client that cannot read the answer must not write.
            let streams = matches!(&*info.verb, "list" | "watch") && info.subresource.is_empty();
            accept::route(self.headers, if streams { accept::OBJECTS_AND_STREAMS } else { accept::OBJECTS })?;
            self.negotiated(info.verb == "watch")?;
        }
        if !info.subresource.is_empty() {
            return self.subresource(kind, body, upgrade).await;
        }
        let one = matches!(&*info.verb, "get" | "update" | "patch" | "delete");
        if !kind.has_verb(&info.verb)
            || one == info.name.is_empty() && !matches!(&*info.verb, "list" | "watch" | "deletecollection")
        {
            return Err(Status::method_not_allowed());
        }
        let Some(resource) = self.inner.registry.resource(&info.group, &info.version, &info.resource) else {
            return Box::pin(self.not_stored(kind, body)).await;
        };
        match info.verb.as_str() {
            "get" => self.get(&resource).await,
            "list" => Box::pin(self.list(&resource)).await,
            "watch" => Box::pin(self.watch(&resource)).await,
            "create" => self.create(&resource, body.await?).await,
            "update" => self.update(&resource, body.await?).await,
            "patch" => self.patch(&resource, body.await?).await,
            "delete" => self.delete(&resource, body.await?).await,
            "deletecollection" => Box::pin(self.delete_collection(&resource, body.await?)).await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Namespaced objects are addressed below their namespace, others are not.
    fn check_path(&self, kind: &Kind) -> Result<(), Status> {
        let info = &self.info;
        let below_namespace = !info.namespace.is_empty() && info.resource != "namespaces";
        let whole = info.name.is_empty() || matches!(&*info.verb, "list" | "watch" | "deletecollection");
        match (kind.namespaced, below_namespace) {
            (true, true) | (false, false) => Ok(()),
            // All namespaces at once can be listed and watched.
            (true, false) if whole && matches!(&*info.verb, "list" | "watch") => Ok(()),
            (true, false) if info.verb == "create" && kind.storage.is_none() => Ok(()),
            (true, false) if info.name.is_empty() && info.subresource.is_empty() => Err(Status::method_not_allowed()),
            _ => Err(Status::path_not_found()),
        }
    }

    /// What a definition says to a request for its objects.
    fn check_custom(&self) -> Result<(), Status> {
        let info = &self.info;
        let Some(resource) = self.inner.registry.resource(&info.group, &info.version, &info.resource) else {
            return Ok(());
        };
        let Some(custom) = resource.as_custom() else { return Ok(()) };
        if let Some(warning) = &custom.version.deprecation {
            self.warn(warning);
        }
        if custom.definition.terminating && info.verb == "create" {
            let mut status = Status::method_not_allowed();
            status.message = "create not allowed while custom resource definition is terminating".to_owned();
            return Err(status);
        }
        custom.convertible()
    }

    fn warn_of(&self, kind: &Kind) {
        match (kind.group, kind.kind) {
            ("", "Endpoints") => {
                self.warn("v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice")
            }
            ("", "ComponentStatus") => self.warn("v1 ComponentStatus is deprecated in v1.19+"),
            _ => {}
        }
        if !kind.enforced && matches!(&*self.info.verb, "create" | "update" | "patch") {
            self.warn(format!("{} objects are stored, but nothing acts on them yet", kind.kind));
        }
    }

    pub(super) fn call<'a>(&'a self, resource: &'a Resource, name: &'a str, dry_run: bool) -> Call<'a> {
        Call {
            registry: &self.inner.registry,
            resource,
            user: &self.user,
            namespace: if resource.namespaced() { &self.info.namespace } else { "" },
            name,
            subresource: &self.info.subresource,
            manager: self.field_manager(),
            dry_run,
            admission: self.inner.access.admission(),
            warnings: &self.warnings,
        }
    }

    /// Who manages what this request writes: who it says, else the program that sends it.
    pub(super) fn field_manager(&self) -> &str {
        let agent = || self.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
        match self.query.get("fieldManager") {
            "" => {
                let program = agent().unwrap_or_default().split('/').next().unwrap_or_default();
                &program[..program.len().min(MANAGER_MAX)]
            }
            named => named,
        }
    }

    pub(super) fn key(&self, resource: &Resource) -> String {
        let namespace = if resource.namespaced() { self.info.namespace.as_str() } else { "" };
        registry::cache_key(namespace, &self.info.name)
    }

    pub(super) async fn get(&self, resource: &Resource) -> Result<Answer, Status> {
        let revision = self.query.get("resourceVersion");
        let object = self.inner.registry.get(resource, &self.key(resource), &self.info.name, revision).await?;
        Ok(Answer::object(object))
    }

    async fn list(&self, resource: &Resource) -> Result<Answer, Status> {
        let options = ListOptions::parse(&self.query, false)?;
        let filter = Filter::new(resource, self.list_namespace(resource), &options)?;
        match self.inner.registry.list(resource, &filter, &options).await {
            Ok(list) => Ok(list_answer(resource, list)),
            Err(ListError::Status(status)) => Err(status),
            Err(ListError::Expired(status, token)) => {
                Ok(Answer::json(http::StatusCode::GONE, registry::expired_json(&status, &token)))
            }
        }
    }

    async fn watch(&self, resource: &Arc<Resource>) -> Result<Answer, Status> {
        let options = ListOptions::parse(&self.query, true)?;
        let filter = Filter::new(resource, self.list_namespace(resource), &options)?;
        let events = self.inner.registry.watch(resource, filter, &options).await?;
        let (api_version, kind) = (resource.api_version().to_owned(), resource.kind.kind.to_owned());
        Ok(Answer::ok(Content::Watch { events, api_version, kind }))
    }

    pub(super) fn list_namespace<'a>(&'a self, resource: &Resource) -> &'a str {
        if resource.namespaced() { &self.info.namespace } else { "" }
    }

    /// Kinds that are answered and not kept.
    async fn not_stored(&self, kind: &'static Kind, body: LazyBody) -> Result<Answer, Status> {
        match (kind.group, kind.resource) {
            ("", "componentstatuses") if self.info.verb == "list" => {
                let list = ObjectList { revision: self.inner.registry.through(), ..ObjectList::default() };
                let kind = kind.list_kind.to_owned();
                Ok(Answer::ok(Content::List { list, api_version: "v1".to_owned(), kind }))
            }
            ("", "componentstatuses") => {
                Err(Status::not_found(&apimachinery::GroupResource::new("", "componentstatus"), &self.info.name))
            }
            ("metrics.k8s.io", _) => self.resource_metrics(kind).await,
            ("", "bindings") => self.bind(body.await?, None).await,
            _ => self.review(kind, body.await?).await,
        }
    }
}

pub(super) fn list_answer(resource: &Resource, list: ObjectList) -> Answer {
    let (api_version, kind) = (resource.api_version().to_owned(), resource.kind.list_kind.to_owned());
    Answer::ok(Content::List { list, api_version, kind })
}
