//! Who manages which fields: sets of field paths, and what server-side apply does with them.
//!
//! A [`FieldSet`] is a tree of [`PathElement`]s in the form of `FieldsV1`. The walks ([`compare`], [`fields_of`], [`merge`],
//! [`remove`], [`check`]) follow a [`Type`](crate::schema::Type), which says where lists and maps are one value and where they
//! are many. [`FieldManager`] brings them together: it keeps `metadata.managedFields` through updates and applies
//! configurations. Upstream: sigs.k8s.io/structured-merge-diff, k8s.io/apimachinery/pkg/util/managedfields.
//!
//! It knows no kind, no store and no request.

mod check;
mod compare;
mod conflict;
mod element;
mod json;
mod last_applied;
mod managed;
mod manager;
mod merge;
mod of;
mod prune;
mod remove;
mod scale;
mod set;
mod walk;

pub use check::check;
pub use compare::{Comparison, compare};
pub use conflict::{Conflict, conflict_status};
pub use element::PathElement;
pub use managed::{ManagedEntry, ManagedError, ManagedFields, Operation};
pub use manager::{Applied, ApplyError, FieldManager, Reset, Versions};
pub use merge::merge;
pub use of::fields_of;
pub use remove::remove;
pub use scale::ScaleFields;
pub use set::FieldSet;
pub use walk::TypeErrors;

#[cfg(test)]
mod tests;
