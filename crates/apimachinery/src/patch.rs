//! Patches: RFC 6902 (JSON patch), RFC 7386 (merge patch) and upstream's strategic merge patch.
//!
//! ```
//! use apimachinery::{Value, patch::merge_patch};
//! let parse = |text: &str| Value::parse(text.as_bytes()).unwrap();
//! let mut target = parse(r#"{"a":{"b":1,"c":2}}"#);
//! merge_patch(&mut target, parse(r#"{"a":{"b":null,"d":3}}"#)).unwrap();
//! assert_eq!(target, parse(r#"{"a":{"c":2,"d":3}}"#));
//! ```

mod json;
mod merge;
mod strategic;

pub use json::JsonPatch;
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

use crate::{Details, Reason, Status};

/// Why a patch was refused. The variants differ in the answer they become, see [`PatchError::to_status`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch is malformed.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well-formed and does not apply to this document.
    #[error("{0}")]
    NotApplicable(String),
    #[error("The allowed maximum operations in a JSON patch is {max}, got {actual}")]
    TooManyOperations { max: usize, actual: usize },
    /// What upstream reports as an error of its own: a strategic merge patch that its schema cannot follow.
    #[error("{0}")]
    Unmergeable(String),
}

impl PatchError {
    /// The answer to the request that brought the patch.
    pub fn to_status(&self) -> Status {
        match self {
            PatchError::Malformed(message) => Status::bad_request(message),
            PatchError::NotApplicable(_) => {
                let message = "the server rejected our request due to an error in our request";
                Status { details: Some(Details::default()), ..Status::new(422, Reason::Invalid, message) }
            }
            PatchError::TooManyOperations { .. } => Status::too_large(self.to_string()),
            PatchError::Unmergeable(message) => Status::new(500, Reason::Unknown, message),
        }
    }
}

impl From<PatchError> for Status {
    fn from(error: PatchError) -> Status {
        error.to_status()
    }
}

#[cfg(test)]
mod tests;
