//! The annotation of kubectl's client-side apply, from which a server-side one may take over.

use super::{FieldSet, compare, element::write_escaped, fields_of};
use crate::Value;
use crate::schema::Type;

/// Who takes over.
pub(super) const MANAGER: &str = "kubectl";
const PATH: [&str; 3] = ["metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"];
/// Longer annotations are left out.
const MAX_LENGTH: usize = 256 * 1024;

pub(super) fn is_in(value: &Value) -> bool {
    value.str_at(&PATH).is_some_and(|text| !text.is_empty())
}

/// The fields that were applied on the client's side and are still as they were then.
pub(super) fn fields(ty: Type<'_>, version: &str, live: &Value) -> Option<FieldSet> {
    let last = Value::parse(live.str_at(&PATH)?.as_bytes()).ok()?;
    if last.str_at(&["apiVersion"]) != Some(version) {
        return None;
    }
    let mut fields = fields_of(ty, &last).ok()?;
    let comparison = compare(ty, &last, live).ok()?;
    for changed in [&comparison.modified, &comparison.added, &comparison.removed] {
        fields.subtract(changed);
    }
    Some(fields)
}

/// Sets the annotation to what was applied.
pub(super) fn keep(value: &mut Value, config: &Value) {
    let mut told = config.clone();
    told.remove(&PATH);
    let mut text = Vec::new();
    write_escaped(&told, &mut text);
    text.push(b'\n');
    let text = String::from_utf8(text).unwrap_or_default();
    let others = value.at(&PATH[..2]).and_then(Value::as_object).into_iter().flat_map(|map| map.iter());
    let length: usize = others
        .filter(|(key, _)| *key != PATH[2])
        .map(|(key, value)| key.len() + value.as_str().unwrap_or_default().len())
        .sum();
    if length + PATH[2].len() + text.len() > MAX_LENGTH {
        value.remove(&PATH);
    } else {
        value.set(&PATH, text);
    }
}
