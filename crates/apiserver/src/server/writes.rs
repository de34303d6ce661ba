//! Create, update, patch, delete: from the body to the registry.

use apimachinery::{Status, Value};
use bytes::Bytes;
use http::StatusCode;

use super::Request;
use super::resources::list_answer;
use crate::answer::{Answer, Content};
use crate::body::{self, Expected};
use crate::extension;
use crate::registry::{self, Change, DeleteOptions, Filter, ListOptions, PatchKind, Resource, WriteOptions};

/// The media type of server-side apply.
pub(crate) const APPLY: &str = "application/apply-patch+yaml";

impl Request<'_> {
    pub(super) async fn create(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let mut value = self.object_in(resource, &body, &options)?;
        self.check_namespace(resource, &mut value)?;
        let name = value.str_at(&["metadata", "name"]).unwrap_or_default().to_owned();
        let call = self.call(resource, &name, options.dry_run);
        let object = call.create(value).await?;
        Ok(Answer::created(resource.present(&object), true))
    }

    pub(super) async fn update(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "UpdateOptions")?;
        let mut value = self.object_in(resource, &body, &options)?;
        self.check_namespace(resource, &mut value)?;
        registry::check_name(&value, &self.info.name)?;
        let call = self.call(resource, &self.info.name, options.dry_run);
        let (object, created) = call.update(&Change::Replace(value)).await?;
        Ok(Answer::created(resource.present(&object), created))
    }

    pub(super) async fn patch(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        if body::content_type(self.headers) == APPLY {
            return self.apply(resource, body).await;
        }
        let options = WriteOptions::parse(&self.query, "PatchOptions")?;
        let kind = self.patch_kind()?;
        if kind == PatchKind::Strategic && resource.as_custom().is_some() {
            return Err(no_strategic_patch());
        }
        let change = Change::Patch { kind, patch: body::decode_patch(kind, &body)?, validation: options.validation };
        let call = self.call(resource, &self.info.name, options.dry_run);
        let (object, created) = call.update(&change).await?;
        Ok(Answer::created(resource.present(&object), created))
    }

    /// Server-side apply.
    async fn apply(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse_apply(&self.query)?;
        let config = body::decode_config(&body, options.validation)?;
        self.warnings.lock().extend(config.warnings);
        let call = self.call(resource, &self.info.name, options.dry_run);
        let change = Change::Apply { config: config.value, force: options.force };
        let (object, created) = call.update(&change).await?;
        Ok(Answer::created(resource.present(&object), created))
    }

    pub(super) fn patch_kind(&self) -> Result<PatchKind, Status> {
        match body::content_type(self.headers).as_str() {
            "application/json-patch+json" => Ok(PatchKind::Json),
            "application/merge-patch+json" => Ok(PatchKind::Merge),
            "application/strategic-merge-patch+json" => Ok(PatchKind::Strategic),
            _ => Err(Status::no_such_media_type()),
        }
    }

    pub(super) async fn delete(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let options = self.delete_options(&body)?;
        let call = self.call(resource, &self.info.name, options.dry_run);
        let deleted = call.delete(&options).await?;
        if deleted.gone && !resource.storage.strategy.returns_deleted_object() {
            let status = Status::deleted(&resource.group_resource(), &self.info.name, deleted.object.uid());
            return Ok(Answer::ok(Content::Status(status)));
        }
        let accepted = !deleted.gone && options.orphan_dependents == Some(false);
        let code = if accepted { StatusCode::ACCEPTED } else { StatusCode::OK };
        Ok(Answer::new(code, Content::Object(resource.present(&deleted.object))))
    }

    pub(super) async fn delete_collection(&self, resource: &Resource, body: Bytes) -> Result<Answer, Status> {
        let list = ListOptions::parse(&self.query, false)?;
        let filter = Filter::new(resource, self.list_namespace(resource), &list)?;
        let options = self.delete_options(&body)?;
        let call = self.call(resource, "", options.dry_run);
        let deleted = call.delete_collection(&filter, &options, list.limit).await?;
        let items = deleted.iter().map(|object| resource.present(object)).collect();
        let list = client::ObjectList { revision: self.inner.registry.through(), items, ..Default::default() };
        Ok(list_answer(resource, list))
    }

    pub(super) fn delete_options(&self, body: &Bytes) -> Result<DeleteOptions, Status> {
        if body.is_empty() {
            return DeleteOptions::from_query(&self.query);
        }
        let mut options = DeleteOptions::read(&body::decode_options(self.headers, body, "DeleteOptions")?)?;
        options.dry_run |= DeleteOptions::from_query(&self.query)?.dry_run;
        Ok(options)
    }

    /// The object in the body, in the stored version, defaulted.
    pub(super) fn object_in(&self, resource: &Resource, body: &Bytes, options: &WriteOptions) -> Result<Value, Status> {
        let kind = resource.kind;
        let expected =
            Expected { group: kind.group, version: kind.version, kind: kind.kind, schema: resource.schema() };
        let decoded = match resource.as_custom() {
            None => body::decode(self.headers, body, expected, options.validation)?,
            Some(custom) => body::decode_custom(self.headers, body, expected, options.validation, |value| {
                extension::decode(&custom.version, value)
            })?,
        };
        self.warnings.lock().extend(decoded.warnings);
        let mut value = decoded.value;
        resource.to_storage(&mut value);
        resource.storage.default(&mut value);
        // An empty list means something here, and is not in the canonical form.
        if body::forgets_managers(self.headers, body) {
            value.set(&["metadata", "managedFields"], Vec::<Value>::new());
        }
        Ok(value)
    }

    /// The namespace of the request and of the object agree; an object that says none is in the request's.
    pub(super) fn check_namespace(&self, resource: &Resource, value: &mut Value) -> Result<(), Status> {
        let own = value.str_at(&["metadata", "namespace"]).unwrap_or_default();
        if !resource.namespaced() {
            value.remove(&["metadata", "namespace"]);
            return Ok(());
        }
        match own {
            "" => value.set(&["metadata", "namespace"], &self.info.namespace),
            own if own == self.info.namespace => {}
            _ => {
                let why = "the namespace of the provided object does not match the namespace sent on the request";
                return Err(Status::bad_request(why));
            }
        }
        Ok(())
    }
}

/// Schemas of definitions say nothing of strategic merges.
fn no_strategic_patch() -> Status {
    Status::unsupported_media_type(
        "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, \
         application/merge-patch+json, application/apply-patch+yaml",
    )
}
