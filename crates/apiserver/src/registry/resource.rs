//! A served resource, and the storage that may be shared by several of them.

use std::sync::Arc;

use api::Kind;
use apimachinery::schema::{DecodeError, Decoded, Type};
use apimachinery::{GroupKind, GroupResource, Object, ObjectError, Status, Value};

use super::cache::{Cache, LogLimits};
use super::convert::{self, Conversion};
use super::custom::CustomVersion;
use crate::extension;
use crate::strategy::Strategy;

/// The objects of a resource, in the version they are stored in.
pub(crate) struct Storage {
    /// The row of the stored version.
    pub kind: &'static Kind,
    /// `/registry/pods/`
    pub prefix: String,
    schema: Form,
    pub strategy: Box<dyn Strategy>,
    pub cache: Arc<Cache>,
    api_version: String,
}

/// A resource as one group and version serve it.
pub(crate) struct Resource {
    pub kind: &'static Kind,
    schema: Form,
    pub storage: Arc<Storage>,
    api_version: String,
    conversion: Option<Conversion>,
}

/// What the objects of a version look like.
enum Form {
    BuiltIn(Type<'static>),
    Custom(CustomVersion),
}

impl Form {
    fn ty(&self) -> Type<'_> {
        match self {
            Form::BuiltIn(ty) => *ty,
            Form::Custom(custom) => custom.version.merge.ty(),
        }
    }
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
            schema: Form::BuiltIn(hub.ty()),
            strategy,
            cache: Arc::new(Cache::new(LogLimits::default())),
            api_version: hub.api_version(),
        })
    }

    /// The objects of a definition, which its stored version describes.
    pub(super) fn custom(
        row: &'static Kind,
        strategy: Box<dyn Strategy>,
        cache: Arc<Cache>,
        custom: CustomVersion,
    ) -> Storage {
        Storage {
            kind: row,
            prefix: row.prefix().unwrap_or_default(),
            schema: Form::Custom(custom),
            strategy,
            cache,
            api_version: row.api_version(),
        }
    }

    pub(crate) fn schema(&self) -> Type<'_> {
        self.schema.ty()
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
        if let Form::BuiltIn(schema) = &self.schema {
            schema.default_value(value);
        }
        self.strategy.default(value);
    }

    /// Encodes a value once into the form it is stored and shared in.
    pub(crate) fn encode(&self, value: &Value) -> Result<Object, Status> {
        self.encode_managed(value, &[])
    }

    /// Like [`Storage::encode`], with the JSON of `metadata.managedFields` that the value lacks.
    pub(crate) fn encode_managed(&self, value: &Value, managed: &[u8]) -> Result<Object, Status> {
        Object::with_managed_fields(value, managed, 0, self.field_values(value)).map_err(Status::internal)
    }

    /// Reads a stored body: what is not in the schema goes, what it has learned since is defaulted.
    pub(crate) fn decode(&self, body: &[u8], revision: u64) -> Result<Object, Unreadable> {
        let mut value = match &self.schema {
            Form::BuiltIn(schema) => schema.decode(body)?.value,
            Form::Custom(_) => {
                let mut value = Value::parse(body).map_err(ObjectError::from)?;
                value.set(&["apiVersion"], self.api_version.as_str());
                value
            }
        };
        self.default(&mut value);
        let fields = self.field_values(&value);
        Ok(Object::with_fields(&value, revision, fields)?)
    }

    /// The values of the fields that selectors may name.
    fn field_values(&self, value: &Value) -> Vec<(&'static str, String)> {
        if let Form::BuiltIn(_) = self.schema {
            return self.kind.field_values(value);
        }
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let text = |path: &[&str]| value.at(path).filter(|value| !value.is_null()).map(shown).unwrap_or_default();
        self.kind.selectable.iter().map(|field| (field.label, text(field.path))).collect()
    }
}

impl Resource {
    pub(super) fn new(kind: &'static Kind, storage: Arc<Storage>) -> Resource {
        let conversion = convert::between(kind, storage.kind);
        Resource { kind, schema: Form::BuiltIn(kind.ty()), api_version: kind.api_version(), storage, conversion }
    }

    /// A version of a definition.
    pub(super) fn custom(row: &'static Kind, storage: Arc<Storage>, custom: CustomVersion) -> Resource {
        let schema = Form::Custom(custom);
        Resource { kind: row, schema, api_version: row.api_version(), storage, conversion: None }
    }

    /// What server-side apply and strategic merges know of its objects.
    pub(crate) fn schema(&self) -> Type<'_> {
        self.schema.ty()
    }

    /// What a resource that isn't built in is.
    pub(crate) fn as_custom(&self) -> Option<&CustomVersion> {
        match &self.schema {
            Form::Custom(custom) => Some(custom),
            Form::BuiltIn(_) => None,
        }
    }

    /// Brings an object that was patched or applied into its form, and names what it lost.
    pub(crate) fn canonical(&self, value: Value) -> Result<Decoded, DecodeError> {
        match &self.schema {
            Form::BuiltIn(schema) => schema.canonical(value),
            Form::Custom(custom) => {
                let mut value = value;
                if let Some(why) = extension::metadata_error(&value) {
                    return Err(DecodeError::Type(why));
                }
                let problems = extension::decode(&custom.version, &mut value);
                Ok(Decoded { value, problems })
            }
        }
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
        if let Form::Custom(custom) = &self.schema {
            extension::decode(&custom.version, value);
        }
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
