//! Shortening objects to what their reader looks at: the pieces that functions for [`Client::trimming`](crate::Client::trimming) are made of.

use apimachinery::Value;

/// Leaves only these members of the object under `path`.
pub fn keep(object: &mut Value, path: &[&str], members: &[&str]) {
    if let Some(map) = object.at_mut(path).and_then(Value::as_object_mut) {
        map.retain(|member, _| members.contains(&member));
    }
}

/// Changes each item of the list under `path`.
pub fn each(object: &mut Value, path: &[&str], change: impl Fn(&mut Value)) {
    object.at_mut(path).and_then(Value::as_array_mut).into_iter().flatten().for_each(change);
}

/// Leaves only the items that are wanted of the list under `path`.
pub fn retain(object: &mut Value, path: &[&str], wanted: impl Fn(&Value) -> bool) {
    if let Some(items) = object.at_mut(path).and_then(Value::as_array_mut) {
        items.retain(|item| wanted(item));
    }
}
