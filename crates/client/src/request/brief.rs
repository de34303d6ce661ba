//! Writes whose answers are read for little: for whoever makes many of them.

use apimachinery::{ObjectKey, Value};
use http::Method;

use super::{Call, Client};
use crate::{Error, PatchKind, Resource, decode};

/// What became of an object by a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub key: ObjectKey,
    pub uid: String,
    pub revision: u64,
}

impl Client {
    /// Like [`Client::create`] for whoever asks only for the name, which the server may have made.
    pub async fn create_brief(&self, resource: &Resource, body: &Value) -> Result<Written, Error> {
        let key = super::key_of(body);
        let result = self.written(Call::new(Method::POST, resource.path(&key.namespace, "", "")).json(body)).await;
        self.note_written(resource, &key, &result);
        result
    }

    /// Like [`Client::patch_subresource`] for whoever asks only whether it worked.
    pub async fn patch_brief(
        &self,
        resource: &Resource,
        key: &ObjectKey,
        subresource: &str,
        kind: PatchKind,
        body: &Value,
    ) -> Result<Written, Error> {
        let mut call = Call::new(Method::PATCH, resource.path(&key.namespace, &key.name, subresource)).json(body);
        call.content_type = kind.content_type();
        let result = self.written(call).await;
        self.note_written(resource, key, &result);
        result
    }

    /// Like [`Client::update_status`] for whoever asks only whether it worked.
    pub async fn update_status_brief(&self, resource: &Resource, body: &Value) -> Result<Written, Error> {
        let key = super::key_of(body);
        let path = resource.path(&key.namespace, &key.name, "status");
        let result = self.written(Call::new(Method::PUT, path).json(body)).await;
        self.note_written(resource, &key, &result);
        result
    }

    async fn written(&self, call: Call) -> Result<Written, Error> {
        let response = self.exchange(&call).await?;
        decode::written(response.body).await.map_err(|source| call.failed(source))
    }

    fn note_written(&self, resource: &Resource, key: &ObjectKey, result: &Result<Written, Error>) {
        let Some(log) = &self.writes else { return };
        match result {
            Ok(written) => log.wrote(resource, &written.key, written.revision),
            Err(error) if error.is_unknown_outcome() => log.unknown(resource, key),
            Err(_) => {}
        }
    }
}
