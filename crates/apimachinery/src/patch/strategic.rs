//! Strategic merge patch: lists are merged by the key their schema names, and directives say what merging cannot.
//!
//! Upstream: apimachinery pkg/util/strategicpatch. Its order of list items is kept: what only the server has stays in place
//! relative to what the patch names, items new to the server come before the first such item they cannot be compared with.

mod order;

use super::PatchError;
use crate::schema::{PatchStrategy, Shape, Type};
use crate::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const SET_ORDER: &str = "$setElementOrder/";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";

const BAD_ORDER: &str = "invalid patch format of setElementOrder list";
const BAD_RETAIN: &str = "invalid patch format of retainKeys";
const BAD_DELETE: &str = "invalid patch format of primitive list";

/// `original`, a document of type `ty`, with `patch` applied.
pub fn strategic_merge_patch(original: Value, patch: Value, ty: Type<'_>) -> Result<Value, PatchError> {
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => merge_map(original, patch, Kind::of(ty)).map(Value::Object),
        (Value::Object(_), other) => Err(PatchError::Malformed(format!(
            "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            other.type_name()
        ))),
        (_, _) => Err(PatchError::Malformed("invalid JSON document".to_owned())),
    }
}

/// What the schema knows of a value; `None` below values of any form.
#[derive(Clone, Copy)]
struct Kind<'s>(Option<Type<'s>>);

/// What the schema says of a member: its own kind, whether it is merged or replaced, and by which key its items match.
struct Member<'s> {
    kind: Kind<'s>,
    merges: bool,
    replaces: bool,
    key: &'s str,
}

impl<'s> Kind<'s> {
    fn of(ty: Type<'s>) -> Kind<'s> {
        let free = matches!(ty.shape(), Shape::Raw);
        Kind((!free).then_some(ty))
    }

    /// The member under `name`. An object's unknown field is an error, as its strategy is unknown too.
    fn member(self, name: &str) -> Result<Member<'s>, PatchError> {
        let plain = |kind| Member { kind, merges: false, replaces: false, key: "" };
        let Some(ty) = self.0 else {
            return Ok(plain(Kind(None)));
        };
        let Some(field) = ty.field(name) else {
            return match ty.shape() {
                Shape::Object { preserve_unknown: false, .. } => {
                    let short = ty.name().rsplit('.').next().unwrap_or_default();
                    Err(PatchError::Unmergeable(format!(
                        "unable to find api field in struct {short} for the json field {name:?}"
                    )))
                }
                _ => Ok(plain(ty.child(name).map_or(Kind(None), Kind::of))),
            };
        };
        let of = ty.of(field);
        Ok(Member {
            kind: Kind::of(of.item().unwrap_or(of)),
            merges: matches!(field.patch, PatchStrategy::Merge | PatchStrategy::MergeRetainKeys),
            replaces: field.patch == PatchStrategy::Replace,
            key: field.patch_merge_key.as_deref().unwrap_or_default(),
        })
    }
}

fn merge_map(mut original: Map, mut patch: Map, kind: Kind<'_>) -> Result<Map, PatchError> {
    match patch.remove(PATCH) {
        None => {}
        Some(Value::String(directive)) if directive == "replace" => return Ok(patch),
        Some(Value::String(directive)) if directive == "delete" => return Ok(Map::default()),
        Some(other) => return Err(unknown_directive(&other, &patch)),
    }
    retain_keys(&mut original, &mut patch)?;
    ordered_lists(&mut original, &mut patch, kind)?;
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList") {
            let list = list.strip_prefix('/').ok_or_else(|| PatchError::Malformed(BAD_DELETE.to_owned()))?;
            if let (Some(Value::Array(items)), Value::Array(gone)) = (original.get_mut(list), &value) {
                items.retain(|item| !gone.contains(item));
            }
            continue;
        }
        let merged = match (original.remove(&name), value) {
            (_, Value::Null) => None,
            (Some(Value::Object(before)), Value::Object(after)) => {
                let member = kind.member(&name)?;
                let replaced = member.replaces.then(|| after.clone());
                Some(Value::Object(match replaced {
                    Some(after) => after,
                    None => merge_map(before, after, member.kind)?,
                }))
            }
            (Some(Value::Array(before)), Value::Array(after)) => {
                let member = kind.member(&name)?;
                Some(Value::Array(if member.merges { merge_list(before, after, &member)? } else { after }))
            }
            (_, mut value) => clean(&mut value).then_some(value),
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// Merges two lists and puts the result in order.
fn merge_list(original: Vec<Value>, patch: Vec<Value>, member: &Member<'_>) -> Result<Vec<Value>, PatchError> {
    let merged = merge_items(original.clone(), patch, member)?;
    order::normalize(merged.items, &merged.named, &original, member.key)
}

struct MergedList {
    items: Vec<Value>,
    /// The patch's items without those that are directives.
    named: Vec<Value>,
}

fn merge_items(original: Vec<Value>, patch: Vec<Value>, member: &Member<'_>) -> Result<MergedList, PatchError> {
    if !all_alike(original.iter().chain(&patch))? {
        let mut items = original;
        for item in &patch {
            if !items.contains(item) {
                items.push(item.clone());
            }
        }
        let mut unique: Vec<Value> = Vec::with_capacity(items.len());
        for item in items {
            if !unique.contains(&item) {
                unique.push(item);
            }
        }
        return Ok(MergedList { items: unique, named: patch });
    }
    let key = member.key;
    if key.is_empty() {
        let name = member.kind.0.map_or("", |ty| ty.name().rsplit('.').next().unwrap_or_default());
        return Err(PatchError::Unmergeable(format!("cannot merge lists without merge key for {name}")));
    }
    let mut items = original;
    let mut named = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        match item.get(PATCH) {
            None => named.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let gone = item.get(key).ok_or_else(|| no_merge_key(&item, key))?;
                    items.retain(|item| item.get(key) != Some(gone));
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    let why = "merging lists cannot yet be specified in the patch";
                    return Err(PatchError::Unmergeable(why.to_owned()));
                }
                _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Map::default()))),
            },
        }
    }
    if replace {
        return Ok(MergedList { items: named, named: Vec::new() });
    }
    for item in &named {
        let value = item.get(key).ok_or_else(|| no_merge_key(item, key))?;
        let found = items.iter_mut().find(|candidate| candidate.get(key) == Some(value));
        match (found, item) {
            (Some(found), Value::Object(changes)) => {
                let Value::Object(before) = std::mem::take(found) else {
                    return Err(PatchError::Unmergeable("an item is not a map".to_owned()));
                };
                *found = Value::Object(merge_map(before, changes.clone(), member.kind)?);
            }
            _ => {
                let mut added = item.clone();
                strip_directives(&mut added);
                items.push(added);
            }
        }
    }
    Ok(MergedList { items, named })
}

/// Drops what `$retainKeys` doesn't name; every member of the patch must be named.
fn retain_keys(original: &mut Map, patch: &mut Map) -> Result<(), PatchError> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else {
        return Ok(());
    };
    let bad = || PatchError::Malformed(BAD_RETAIN.to_owned());
    let keys = keys.as_array().ok_or_else(bad)?;
    let named = |name: &str| keys.iter().any(|key| key.as_str() == Some(name));
    for (name, value) in patch.iter() {
        if !value.is_null() && !name.starts_with(DELETE_FROM) && !name.starts_with(SET_ORDER) && !named(name) {
            return Err(bad());
        }
    }
    original.retain(|name, _| named(name));
    Ok(())
}

/// Merges the lists for which the patch has a `$setElementOrder`, and takes both out of it.
fn ordered_lists(original: &mut Map, patch: &mut Map, kind: Kind<'_>) -> Result<(), PatchError> {
    let directives: Vec<String> =
        patch.keys().filter(|key| key.starts_with("$setElementOrder")).map(str::to_owned).collect();
    for directive in directives {
        let bad = || PatchError::Malformed(BAD_ORDER.to_owned());
        let order = patch.remove(&directive);
        let name = directive.strip_prefix(SET_ORDER).ok_or_else(bad)?;
        let Some(Value::Array(order)) = order else {
            let found = go_kind(order.as_ref());
            return Err(PatchError::Unmergeable(format!("expected a []interface {{}}, but received a {found}")));
        };
        let member = kind.member(name)?;
        let list = |value: Option<Value>| match value {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => {
                let found = go_kind(Some(&other));
                Err(PatchError::Unmergeable(format!("expected a []interface {{}}, but received a {found}")))
            }
        };
        let (before, changes) = (list(original.get(name).cloned())?, list(patch.remove(name))?);
        order::check(changes.as_deref().unwrap_or_default(), &order, member.key)?;
        let server = before.clone().unwrap_or_default();
        let merged = match (before, changes) {
            (None, None) => continue,
            (Some(before), None) => before,
            (None, Some(changes)) => {
                let mut added = Value::Array(changes);
                clean(&mut added);
                added.as_array().cloned().unwrap_or_default()
            }
            (Some(before), Some(changes)) if member.merges => merge_list(before, changes, &member)?,
            (Some(_), Some(changes)) => changes,
        };
        original.insert(name.to_owned(), order::normalize(merged, &order, &server, member.key)?);
    }
    Ok(())
}

/// Whether all items are maps; fails for a mixture, and for lists.
fn all_alike<'v>(items: impl Iterator<Item = &'v Value>) -> Result<bool, PatchError> {
    let mut first = None;
    for item in items {
        let kind = item.type_name();
        if kind == "array" {
            return Err(PatchError::NotApplicable("lists of lists are not supported".to_owned()));
        }
        if *first.get_or_insert(kind) != kind {
            return Err(PatchError::Unmergeable(format!(
                "list element types are not identical: {} and {kind}",
                first.unwrap_or_default()
            )));
        }
    }
    Ok(first == Some("object"))
}

/// Takes nulls and directives out of a value that is new to the document; false if it is a directive itself.
fn clean(value: &mut Value) -> bool {
    match value {
        Value::Object(map) => {
            if map.contains_key(PATCH) {
                return false;
            }
            map.retain(|key, member| !is_directive(key) && !member.is_null() && clean(member));
        }
        Value::Array(items) => items.retain_mut(clean),
        _ => {}
    }
    true
}

/// Takes the directives that have nothing to act on out of an item that is new to its list.
fn strip_directives(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, _| !is_directive(key));
            map.iter_mut().for_each(|(_, member)| strip_directives(member));
        }
        Value::Array(items) => items.iter_mut().for_each(strip_directives),
        _ => {}
    }
}

fn is_directive(key: &str) -> bool {
    key == RETAIN_KEYS || key.starts_with(SET_ORDER) || key.starts_with(DELETE_FROM)
}

fn no_merge_key(item: &Value, key: &str) -> PatchError {
    PatchError::Unmergeable(format!("map: {} does not contain declared merge key: {key}", go_text(item)))
}

fn unknown_directive(directive: &Value, map: &Map) -> PatchError {
    let mut map = map.clone();
    map.insert(PATCH, directive);
    PatchError::Unmergeable(format!(
        "unknown patch type: {} in map: {}",
        go_text(directive),
        go_text(&Value::Object(map))
    ))
}

/// A value as Go's `%v` prints it, for messages that clients have seen before.
fn go_text(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_text).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let members: Vec<String> = map.iter().map(|(key, member)| format!("{key}:{}", go_text(member))).collect();
            format!("map[{}]", members.join(" "))
        }
        other => other.to_string(),
    }
}

fn go_kind(value: Option<&Value>) -> &'static str {
    match value {
        None | Some(Value::Null) => "%!s(<nil>)",
        Some(Value::Bool(_)) => "bool",
        Some(Value::Number(_)) => "int64",
        Some(Value::String(_)) => "string",
        Some(Value::Array(_)) => "[]interface {}",
        Some(Value::Object(_)) => "map[string]interface {}",
    }
}
