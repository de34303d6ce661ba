//! A value without some of its fields.

use super::set::FieldSet;
use super::walk::{Form, form, item_element, member};
use crate::schema::Type;
use crate::{Map, Value};

/// `value` without the fields of `set`; what is left empty becomes null. Upstream: TypedValue.RemoveItems.
pub fn remove(ty: Type<'_>, value: &Value, set: &FieldSet) -> Value {
    walk(Some(ty), value, set).unwrap_or_default()
}

fn walk(ty: Option<Type<'_>>, value: &Value, set: &FieldSet) -> Option<Value> {
    match (form(ty), value) {
        (Form::Map(ty), Value::Object(map)) => {
            let mut kept: Vec<(crate::Key, Value)> = Vec::with_capacity(map.len());
            for (name, value) in map.iter() {
                let (element, ty) = member(ty, name);
                let entry = set.get(&element);
                if entry.is_some_and(|entry| entry.owned) {
                    continue;
                }
                let value = match entry {
                    Some(entry) => walk(ty, value, &entry.below).unwrap_or_default(),
                    None => value.clone(),
                };
                kept.push((name.to_owned().into(), value));
            }
            (!kept.is_empty()).then(|| Value::Object(Map::from_entries(kept)))
        }
        (Form::List(ty), Value::Array(items)) => {
            let mut kept = Vec::with_capacity(items.len());
            for item in items {
                let entry = item_element(ty, item).ok().and_then(|element| set.get(&element));
                if entry.is_some_and(|entry| entry.owned) {
                    continue;
                }
                kept.push(match entry {
                    Some(entry) => walk(ty.item(), item, &entry.below).unwrap_or_default(),
                    None => item.clone(),
                });
            }
            (!kept.is_empty()).then_some(Value::Array(kept))
        }
        (Form::Map(_) | Form::List(_), _) => None,
        // A list or map that is one value has nothing to take out of it.
        (Form::Leaf, Value::Object(_) | Value::Array(_)) => None,
        (Form::Leaf, scalar) => Some(scalar.clone()),
    }
}
