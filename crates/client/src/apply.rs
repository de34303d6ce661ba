//! Server-side apply: a manager says all that it means to say of an object.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};

use crate::{Client, Error, PatchKind, Resource, WriteOptions};

impl Client {
    /// Applies `body`, with kind and name in it, for `manager`: what others say of its fields gives way, and what the manager said before
    /// and leaves out now is taken away. `subresource` may be empty; an object that isn't there is created then.
    pub async fn apply(
        &self,
        resource: &Resource,
        subresource: &str,
        body: &Value,
        manager: &str,
    ) -> Result<Arc<Object>, Error> {
        let text = |field| body.str_at(&["metadata", field]).unwrap_or_default();
        let key = ObjectKey::new(text("namespace"), text("name"));
        let options = WriteOptions { field_manager: manager.to_owned(), force: true, ..WriteOptions::default() };
        self.patch_subresource(resource, &key, subresource, PatchKind::Apply, body, &options).await
    }
}
