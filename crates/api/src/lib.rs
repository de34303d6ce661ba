//! The table of built-in kinds and their compiled schemas.

mod tables;

pub use tables::{SCHEMA, named_types, type_named};
