//! Kubernetes' object model without any I/O: [`Object`] (the one in-memory form), [`Value`] (for edits), names, schemas,
//! patches, selectors, quantities and [`Status`].
//!
//! It knows no built-in kind (that is `api`), no store and no network. The main path: bytes are lexed into a [`Value`],
//! checked and completed by a schema, edited, encoded once into an [`Object`], and shared behind an `Arc` from then on.
//!
//! ```
//! use apimachinery::{Object, Value};
//! let value = Value::parse(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}}"#).unwrap();
//! let object = Object::new(&value, 7).unwrap();
//! assert_eq!(object.name(), "web");
//! assert!(object.to_json().starts_with(b"{\"apiVersion\":\"v1\""));
//! ```

pub mod fields;
mod names;
mod object;
pub mod patch;
mod quantity;
pub mod schema;
mod selector;
mod status;
mod time;
pub mod validation;
mod value;

pub use names::{GroupKind, GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, ObjectKey};
pub use object::{Object, ObjectError, OwnerReference};
pub use quantity::{Format, Quantity, QuantityError};
pub use selector::{FieldRequirement, FieldSelector, Operator, Requirement, Selector, SelectorError};
pub use status::{Cause, Details, FieldError, FieldErrorKind, Reason, Status};
pub use time::{format_micro_time, format_time, parse_time};
pub use value::{Key, Map, Number, ParseError, Value};
