//! The same requests to two servers, and what differs in their answers.
//!
//! A [`Script`] is a file of requests; [`replay`] sends them to a server and masks what no two servers have in common (uids, times,
//! revisions, generated names); [`differences`] compares two such answers field by field, and [`Kept`] says which differences
//! are meant. Answers can be kept as text ([`golden`]), so that one of the servers need not be there.
//! It knows nothing of Kubernetes' kinds, and starts no server.

mod compare;
pub mod golden;
mod mask;
mod replay;
mod script;
mod wire;

use std::collections::BTreeMap;

use serde_json::Value;

pub use compare::{Difference, Kept, differences};
pub use replay::{Identity, Server, get, replay};
pub use script::{Script, Step, Who, scripts};

/// An answer, masked.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub code: u16,
    /// The headers that clients use, by lower-case name.
    pub headers: BTreeMap<String, String>,
    /// JSON as it is, a stream of JSON as an array, other text as a string.
    pub body: Value,
}
