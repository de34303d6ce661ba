//! The formats of names, labels and addresses, and what every object's metadata must satisfy.
//!
//! A format is a function from text to the list of what is wrong with it (empty: valid), in upstream's words.
//! Upstream: apimachinery pkg/util/validation, pkg/api/validation.

mod address;
mod format;
mod meta;

pub use address::{cidr, cidr_legacy, ip, ip_legacy};
pub use format::*;
pub use meta::*;
