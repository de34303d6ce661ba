//! RFC 7386: objects are merged, everything else replaces, null deletes.

use super::PatchError;
use crate::{Map, Value};

/// Applies `patch`, which must be an object, to `target`.
pub fn merge_patch(target: &mut Value, patch: Value) -> Result<(), PatchError> {
    match patch {
        Value::Object(patch) => {
            merge(target.make_object(), patch);
            Ok(())
        }
        other => Err(PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
    }
}

fn merge(target: &mut Map, patch: Map) {
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.remove(&key)),
            Value::Object(members) => merge(target.entry(&key).make_object(), members),
            other => drop(target.insert(key, other)),
        }
    }
}
