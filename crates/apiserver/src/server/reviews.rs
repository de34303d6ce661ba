//! Reviews: questions about identity and permission that are answered and not kept.

use api::Kind;
use apimachinery::{Object, Status};
use bytes::Bytes;
use std::sync::Arc;

use super::Request;
use crate::answer::Answer;
use crate::body::{self, Expected};
use crate::registry::WriteOptions;

impl Request<'_> {
    pub(super) async fn review(&self, kind: &'static Kind, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let expected = Expected { group: kind.group, version: kind.version, kind: kind.kind, schema: kind.ty() };
        let decoded = body::decode(self.headers, &body, expected, options.validation)?;
        self.warnings.lock().extend(decoded.warnings);
        let mut value = self.inner.access.review(&self.user, kind.kind, &self.info.namespace, decoded.value)?;
        value = kind.ty().canonical(value).map_err(Status::internal)?.value;
        value.set(&["apiVersion"], kind.api_version());
        value.set(&["kind"], kind.kind);
        let object = Object::new(&value, 0).map_err(Status::internal)?;
        Ok(Answer::created(Arc::new(object), true))
    }
}
