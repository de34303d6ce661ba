//! What a manager no longer applies.

use super::manager::{FieldManager, Versioned};
use super::{FieldSet, ManagedEntry, ManagedFields, TypeErrors, fields_of, remove};
use crate::Value;

/// `merged` without what the manager applied last time, doesn't apply now, and nobody else manages. Upstream: Updater.prune.
pub(super) fn prune(
    manager: &FieldManager<'_>,
    merged: Value,
    managed: &ManagedFields,
    last: &ManagedEntry,
) -> Result<Value, TypeErrors> {
    if last.fields.is_empty() {
        return Ok(merged);
    }
    let merged = manager.versioned(merged);
    let Some(converted) = manager.in_version(&merged, &last.version) else { return Ok(merged.value) };
    let named = last.fields.with_named_fields(Some(converted.ty));
    let pruned = Versioned { value: remove(converted.ty, &converted.value, &named), ..converted.clone() };
    let (full, pruned) = with_owned(manager, converted, pruned, &last.version, managed)?;
    let pruned = with_dangling(manager, full, pruned, last)?;
    Ok(manager.in_version(&pruned, manager.version).unwrap_or(pruned).value)
}

/// Puts back what somebody manages.
fn with_owned<'v>(
    manager: &'v FieldManager<'_>,
    mut merged: Versioned<'v>,
    mut pruned: Versioned<'v>,
    first: &str,
    managed: &ManagedFields,
) -> Result<(Versioned<'v>, Versioned<'v>), TypeErrors> {
    let full = merged.clone();
    let mut versions: Vec<(&str, FieldSet)> = Vec::new();
    for entry in &managed.0 {
        match versions.iter_mut().find(|(version, _)| *version == entry.version) {
            Some((_, fields)) => fields.union(entry.fields.clone()),
            None => versions.push((&entry.version, entry.fields.clone())),
        }
    }
    // The version it was pruned in comes first: others may not convert without what was pruned.
    versions.sort_by_key(|(version, _)| *version != first);
    for (version, fields) in versions {
        let (Some(whole), Some(part)) = (manager.in_version(&merged, version), manager.in_version(&pruned, version))
        else {
            continue;
        };
        let ty = Some(whole.ty);
        let mut gone = fields_of(whole.ty, &whole.value)?.with_named_fields(ty);
        let mut stays = fields_of(part.ty, &part.value)?.with_named_fields(ty);
        stays.union(fields.with_named_fields(ty));
        gone.subtract(&stays);
        pruned = Versioned { value: remove(whole.ty, &whole.value, &gone), ..whole.clone() };
        merged = whole;
    }
    Ok((full, pruned))
}

/// Puts back what the manager never applied: nobody's fields stay.
fn with_dangling<'v>(
    manager: &'v FieldManager<'_>,
    merged: Versioned<'v>,
    pruned: Versioned<'v>,
    last: &ManagedEntry,
) -> Result<Versioned<'v>, TypeErrors> {
    let Some(pruned) = manager.in_version(&pruned, &last.version) else { return Ok(merged) };
    let ty = Some(merged.ty);
    let stays = fields_of(pruned.ty, &pruned.value)?.with_named_fields(ty);
    let mut gone = fields_of(merged.ty, &merged.value)?.with_named_fields(ty);
    gone.subtract(&stays);
    let gone = gone.intersection(&last.fields.with_named_fields(ty));
    Ok(Versioned { value: remove(merged.ty, &merged.value, &gone), ..merged })
}
