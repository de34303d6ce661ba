//! A served resource, and the storage that may be shared by several of them.

use std::sync::Arc;

use api::Kind;
use apimachinery::schema::{DecodeError, Type};
use apimachinery::{GroupKind, GroupResource, Object, ObjectError, Status, Value};

use super::cache::{Cache, LogLimits};
use super::convert::{self, Conversion};
use crate::strategy::Strategy;

/// The objects of a resource, in the version they are stored in.
pub(crate) struct Storage {
    /// The row of the stored version.
    pub kind: &'static Kind,
    /// `/registry/pods/`
    pub prefix: String,
    pub schema: Type<'static>,
    pub strategy: Box<dyn Strategy>,
    pub cache: Arc<Cache>,
    api_version: String,
}

/// A resource as one group and version serve it.
pub(crate) struct Resource {
    pub kind: &'static Kind,
    pub schema: Type<'static>,
    pub storage: Arc<Storage>,
    api_version: String,
    conversion: Option<Conversion>,
}

/// A stored body that is no object of its kind.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreadable {
    #[error("{0}")]
    Decode(#[from] DecodeError),
    #[error("{0}")]
    Object(#[from] ObjectError),
}

impl Storage {
    /// `None` for kinds that are not stored.
    pub(super) fn new(kind: &'static Kind, strategy: Box<dyn Strategy>) -> Option<Storage> {
        let hub = kind.hub();
        Some(Storage {
            kind: hub,
            prefix: kind.prefix()?,
            schema: hub.ty(),
            strategy,
            cache: Arc::new(Cache::new(LogLimits::default())),
            api_version: hub.api_version(),
        })
    }

    pub(crate) fn group_kind(&self) -> GroupKind {
        self.kind.gvk().group_kind()
    }

    /// Whether `status` is a subresource.
    pub(crate) fn has_status(&self) -> bool {
        self.kind.subresource("status").is_some()
    }

    /// The cache's key of a store key.
    pub(crate) fn key_of(&self, store_key: &[u8]) -> Option<Arc<str>> {
        std::str::from_utf8(store_key).ok()?.strip_prefix(&self.prefix).map(Arc::from)
    }

    pub(crate) fn store_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// Fills in what an author may leave out.
    pub(crate) fn default(&self, value: &mut Value) {
        self.schema.default_value(value);
        self.strategy.default(value);
    }

    /// Encodes a value once into the form it is stored and shared in.
    pub(crate) fn encode(&self, value: &Value) -> Result<Object, Status> {
        self.encode_managed(value, &[])
    }

    /// Like [`Storage::encode`], with the JSON of `metadata.managedFields` that the value lacks.
    pub(crate) fn encode_managed(&self, value: &Value, managed: &[u8]) -> Result<Object, Status> {
        Object::with_managed_fields(value, managed, 0, self.kind.field_values(value)).map_err(Status::internal)
    }

    /// Reads a stored body: what is not in the schema goes, what it has learned since is defaulted.
    pub(crate) fn decode(&self, body: &[u8], revision: u64) -> Result<Object, Unreadable> {
        let mut value = self.schema.decode(body)?.value;
        self.default(&mut value);
        let fields = self.kind.field_values(&value);
        Ok(Object::with_fields(&value, revision, fields)?)
    }
}

impl Resource {
    pub(super) fn new(kind: &'static Kind, storage: Arc<Storage>) -> Resource {
        let conversion = convert::between(kind, storage.kind);
        Resource { kind, schema: kind.ty(), api_version: kind.api_version(), storage, conversion }
    }

    pub(crate) fn namespaced(&self) -> bool {
        self.kind.namespaced
    }

    pub(crate) fn is_selectable(&self, field: &str) -> bool {
        field == "metadata.name"
            || field == "metadata.namespace" && self.kind.namespaced
            || self.kind.selectable.iter().any(|known| known.label == field)
    }

    pub(crate) fn api_version(&self) -> &str {
        &self.api_version
    }

    pub(crate) fn group_resource(&self) -> GroupResource {
        self.kind.group_resource()
    }

    pub(crate) fn group_kind(&self) -> GroupKind {
        self.kind.gvk().group_kind()
    }

    /// Whether this version shows objects as they are stored.
    pub(crate) fn is_stored_form(&self) -> bool {
        std::ptr::eq(self.kind, self.storage.kind)
    }

    /// The object as this version shows it.
    pub(crate) fn present(&self, object: &Arc<Object>) -> Arc<Object> {
        if self.is_stored_form() {
            return object.clone();
        }
        let mut value = object.to_value();
        self.to_served(&mut value);
        match Object::new(&value, object.revision()) {
            Ok(presented) => Arc::new(presented),
            Err(_) => object.clone(),
        }
    }

    /// From the stored version's shape to this one's.
    pub(crate) fn to_served(&self, value: &mut Value) {
        if self.is_stored_form() {
            return;
        }
        if let Some(conversion) = self.conversion {
            (conversion.from_storage)(value);
        }
        value.set(&["apiVersion"], self.api_version.as_str());
    }

    /// From this version's shape to the stored one's.
    pub(crate) fn to_storage(&self, value: &mut Value) {
        if self.is_stored_form() {
            return;
        }
        if let Some(conversion) = self.conversion {
            (conversion.to_storage)(value);
        }
        value.set(&["apiVersion"], self.storage.api_version.as_str());
    }
}
