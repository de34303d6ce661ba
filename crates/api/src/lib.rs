//! The built-in kinds: the table of rows, their compiled schemas, their protobuf form and their OpenAPI documents.
//!
//! It holds facts and pure functions of them; no behaviour of a kind (that is the API server's strategies), no I/O. The main
//! path: a request's group, version and resource find a [`Kind`]; its [`Kind::ty`] decodes, defaults and checks bodies.
//!
//! ```
//! let pods = api::resource("", "v1", "pods").unwrap();
//! assert_eq!(pods.prefix().as_deref(), Some("/registry/pods/"));
//! let body = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"contaners":[]}}"#;
//! let decoded = pods.ty().decode(body).unwrap();
//! assert_eq!(decoded.problems[0].to_string(), r#"unknown field "spec.contaners""#);
//! ```

mod kind;
mod kinds;
pub mod openapi;
pub mod protobuf;
mod tables;

pub use kind::{Cell, Column, Kind, Selectable, Storage, Subresource};
pub use kinds::{Group, Version, by_gvk, by_gvr, groups, kind, kinds, named, resource, type_of};
pub use tables::{SCHEMA, named_types, type_named};
