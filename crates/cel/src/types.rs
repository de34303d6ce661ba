//! Types as the checker knows them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The type of an expression. Displayed as cel-go's messages show it (`list(string)`, `null`).
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Type {
    /// Anything; checked when it is evaluated.
    #[default]
    Dyn,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    Map(Arc<Type>, Arc<Type>),
    /// An object of named fields.
    Object(Arc<ObjectType>),
    Optional(Arc<Type>),
    /// The type of a type (`type(1)`, `int`); without a parameter, of any.
    Type(Option<Arc<Type>>),
    /// A type only its own functions look into (`kubernetes.Quantity`).
    Opaque(&'static str),
    /// What was found wrong already.
    #[doc(hidden)]
    Error,
    /// Stands for a type yet unknown.
    #[doc(hidden)]
    Var(u32),
}

/// A named object type. Two are the same when their names are.
#[derive(Debug)]
pub struct ObjectType {
    pub name: String,
    /// By name as expressions write it ([`escape`](crate::escape)d).
    pub fields: BTreeMap<String, Type>,
}

impl PartialEq for ObjectType {
    fn eq(&self, other: &ObjectType) -> bool {
        self.name == other.name
    }
}

impl Type {
    pub fn list(item: Type) -> Type {
        Type::List(Arc::new(item))
    }

    pub fn map(key: Type, value: Type) -> Type {
        Type::Map(Arc::new(key), Arc::new(value))
    }

    pub fn optional(of: Type) -> Type {
        Type::Optional(Arc::new(of))
    }

    /// An object type of fields by name (escaped, as expressions write them).
    pub fn object(name: impl Into<String>, fields: impl IntoIterator<Item = (impl Into<String>, Type)>) -> Type {
        let fields = fields.into_iter().map(|(name, ty)| (name.into(), ty)).collect();
        Type::Object(Arc::new(ObjectType { name: name.into(), fields }))
    }

    pub(crate) fn type_of(of: Type) -> Type {
        Type::Type(Some(Arc::new(of)))
    }

    pub(crate) fn is_dyn_or_error(&self) -> bool {
        matches!(self, Type::Dyn | Type::Error)
    }

    /// Values that may be null where this type is asked for.
    pub(crate) fn is_nullable(&self) -> bool {
        matches!(
            self,
            Type::Opaque(_) | Type::Optional(_) | Type::Object(_) | Type::Duration | Type::Timestamp | Type::Null
        )
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Dyn => f.write_str("dyn"),
            Type::Null => f.write_str("null"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Uint => f.write_str("uint"),
            Type::Double => f.write_str("double"),
            Type::String => f.write_str("string"),
            Type::Bytes => f.write_str("bytes"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::Duration => f.write_str("duration"),
            Type::List(item) => write!(f, "list({item})"),
            Type::Map(key, value) => write!(f, "map({key}, {value})"),
            Type::Object(object) => f.write_str(&object.name),
            Type::Optional(of) => write!(f, "optional_type({of})"),
            Type::Type(Some(of)) => write!(f, "type({of})"),
            Type::Type(None) => f.write_str("type"),
            Type::Opaque(name) => f.write_str(name),
            Type::Error => f.write_str("!error!"),
            Type::Var(n) => write!(f, "_var{n}"),
        }
    }
}
