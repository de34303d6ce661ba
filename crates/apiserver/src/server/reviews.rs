//! Reviews: questions about identity and permission that are answered and not kept.

use api::Kind;
use apimachinery::{Object, Status, Value};
use bytes::Bytes;
use std::sync::Arc;

use super::Request;
use crate::answer::Answer;
use crate::body::{self, Expected};
use crate::registry::{self, WriteOptions, timestamp};

impl Request<'_> {
    pub(super) async fn review(&self, kind: &'static Kind, body: Bytes) -> Result<Answer, Status> {
        let options = WriteOptions::parse(&self.query, "CreateOptions")?;
        let expected = Expected { group: kind.group, version: kind.version, kind: kind.kind, schema: kind.ty() };
        let decoded = body::decode(self.headers, &body, expected, options.validation)?;
        self.warnings.lock().extend(decoded.warnings);
        let managed = self.managed_answer(expected, &decoded.value);
        let mut value = self.inner.access.review(&self.user, kind.kind, &self.info.namespace, decoded.value)?;
        value = kind.ty().canonical(value).map_err(Status::internal)?.value;
        // The answer to this one is made anew.
        if !managed.is_null() && kind.kind != "SelfSubjectRulesReview" {
            value.set(&["metadata", "managedFields"], managed);
        }
        value.set(&["apiVersion"], kind.api_version());
        value.set(&["kind"], kind.kind);
        let object = Object::new(&value, 0).map_err(Status::internal)?;
        Ok(Answer::created(Arc::new(object), true))
    }

    /// Who manages what is answered and not kept: whoever asked.
    pub(super) fn managed_answer(&self, kind: Expected<'_>, asked: &Value) -> Value {
        let now = timestamp(self.inner.env.now());
        registry::managed_once(kind, asked, self.field_manager(), &self.info.subresource, &now)
    }
}
