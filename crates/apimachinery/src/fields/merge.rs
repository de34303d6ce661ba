//! A configuration laid over a value.

use std::collections::{BTreeMap, BTreeSet};

use super::PathElement;
use super::walk::{Form, TypeErrors, form, item_element, items, member, members, zip};
use crate::schema::Type;
use crate::{Map, Value};

/// `old` with everything that `new` says. Upstream: TypedValue.Merge.
pub fn merge(ty: Type<'_>, old: &Value, new: &Value) -> Result<Value, TypeErrors> {
    Ok(walk(Some(ty), Some(old), Some(new))?.unwrap_or_default())
}

fn walk(ty: Option<Type<'_>>, old: Option<&Value>, new: Option<&Value>) -> Result<Option<Value>, TypeErrors> {
    match form(ty) {
        Form::Map(ty) if members(old).is_some() || members(new).is_some() => {
            let mut merged: Vec<(crate::Key, Value)> = Vec::new();
            zip(members(old), members(new), |name, old, new| {
                let (element, ty) = member(ty, name);
                let value = walk(ty, old, new).map_err(|errors| errors.below(&element))?;
                merged.extend(value.map(|value| (name.to_owned().into(), value)));
                Ok(())
            })?;
            Ok((!merged.is_empty()).then(|| Value::Object(Map::from_entries(merged))))
        }
        Form::List(ty) if !items(old).is_empty() || !items(new).is_empty() => {
            let merged = merge_items(ty, items(old), items(new))?;
            Ok((!merged.is_empty()).then_some(Value::Array(merged)))
        }
        _ => Ok(new.or(old).cloned()),
    }
}

/// The items of both: those of `new` in their order, those that only `old` has between the neighbours they had.
fn merge_items(ty: Type<'_>, old: &[Value], new: &[Value]) -> Result<Vec<Value>, TypeErrors> {
    let (new_elements, observed_new) = index(ty, new, false)?;
    let (old_elements, observed_old) = index(ty, old, true)?;
    let mut shared = new_elements.iter().filter(|element| observed_old.contains_key(element));
    let mut next_shared = shared.next();
    let mut merged: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let mut both = |element: &PathElement, old: Option<&Value>, new: Option<&Value>| -> Result<(), TypeErrors> {
        // An item that was there twice is not merged with what replaces it.
        if old.is_some() || new.is_some() {
            out.extend(walk(ty.item(), old, new).map_err(|errors| errors.below(element))?);
        }
        Ok(())
    };
    let (mut l, mut r) = (0, 0);
    while l < old_elements.len() || r < new_elements.len() {
        if l < old_elements.len() && r < new_elements.len() {
            let element = &old_elements[l];
            if *element == new_elements[r] {
                merged.insert(element);
                both(element, observed_old[element], observed_new[element])?;
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if observed_new.contains_key(element) && next_shared.is_some_and(|next| next != element) {
                // Shared, and not the one whose turn it is.
                l += 1;
                continue;
            }
        }
        if l < old_elements.len() {
            let element = &old_elements[l];
            if !observed_new.contains_key(element) {
                both(element, Some(&old[l]), None)?;
                l += 1;
                continue;
            }
            if merged.contains(element) {
                l += 1;
            }
        }
        if r < new_elements.len() {
            let element = &new_elements[r];
            merged.insert(element);
            both(element, observed_old.get(element).copied().flatten(), observed_new[element])?;
            r += 1;
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
    }
    Ok(out)
}

/// A list's elements in order, and the item of each; none for an item that is there twice.
type Indexed<'v> = (Vec<PathElement>, BTreeMap<PathElement, Option<&'v Value>>);

fn index<'v>(ty: Type<'_>, list: &'v [Value], twice: bool) -> Result<Indexed<'v>, TypeErrors> {
    let mut elements = Vec::with_capacity(list.len());
    let mut observed: BTreeMap<PathElement, Option<&Value>> = BTreeMap::new();
    for (index, item) in list.iter().enumerate() {
        let element = item_element(ty, item).map_err(|why| TypeErrors::one(format!("element {index}: {why}")))?;
        match observed.get_mut(&element) {
            Some(_) if !twice => return Err(TypeErrors::one(format!("duplicate entries for key {element}"))),
            Some(known) => *known = None,
            None => drop(observed.insert(element.clone(), Some(item))),
        }
        elements.push(element);
    }
    Ok((elements, observed))
}
