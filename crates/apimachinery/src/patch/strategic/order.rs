//! The order of a merged list: that of the patch among the items it names, the server's among the others.

use super::{BAD_ORDER, PATCH, PatchError, go_text, no_merge_key};
use crate::Value;

/// Fails unless the items of `patch` that are not deletions stand in `order` as they stand in the patch.
pub(super) fn check(patch: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    if !key.is_empty() && patch.iter().any(|item| item.as_object().is_none()) {
        return Err(PatchError::Malformed(BAD_ORDER.to_owned()));
    }
    let mut named = order.iter();
    for item in patch.iter().filter(|item| item.get(PATCH).is_none()) {
        let wanted = identity(item, key)?;
        loop {
            match named.next() {
                Some(candidate) if identity(candidate, key)? == wanted => break,
                Some(_) => {}
                None => {
                    return Err(PatchError::Unmergeable(format!(
                        "The order in patch list:\n{}\n doesn't match $setElementOrder list:\n{}\n",
                        go_text(&patch.to_vec().into()),
                        go_text(&order.to_vec().into())
                    )));
                }
            }
        }
    }
    Ok(())
}

/// Orders `items`: those in `order` as there, the others as in `server`, and both interleaved as on the server where it has
/// an opinion.
pub(super) fn normalize(
    items: Vec<Value>,
    order: &[Value],
    server: &[Value],
    key: &str,
) -> Result<Vec<Value>, PatchError> {
    for item in items.iter().chain(order) {
        identity(item, key)?;
    }
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        items.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(server, item).unwrap_or(usize::MAX));

    let mut sorted = Vec::with_capacity(named.len() + others.len());
    let (mut named, mut others) = (named.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let other_first = match (named.peek(), others.peek()) {
            (None, None) => return Ok(sorted),
            (Some(_), None) => false,
            (None, Some(_)) => true,
            (Some(a), Some(b)) => matches!((place(server, b), place(server, a)), (Some(b), Some(a)) if b < a),
        };
        sorted.extend(if other_first { others.next() } else { named.next() });
    }
}

/// What tells an item from others: its merge key's value, or the scalar itself.
fn identity<'v>(item: &'v Value, key: &str) -> Result<&'v Value, PatchError> {
    match item {
        Value::Object(_) if !key.is_empty() => item.get(key).ok_or_else(|| no_merge_key(item, key)),
        _ => Ok(item),
    }
}

fn same(a: &Value, b: &Value, key: &str) -> bool {
    match (identity(a, key), identity(b, key)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    }
}
