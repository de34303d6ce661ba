//! `FieldManager`: one write's effect on who manages what.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::conflict::Conflict;
use super::last_applied;
use super::managed::{ManagedEntry, ManagedFields, Operation};
use super::prune::prune;
use super::set::FieldSet;
use super::walk::same;
use super::{Comparison, TypeErrors, check, compare, fields_of, merge};
use crate::Value;
use crate::schema::Type;

/// More entries of updates than this are not kept apart.
const MAX_UPDATERS: usize = 10;
/// Who managed what was there before anybody was asked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// Who manages what the oldest updaters did.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// A writer, and the version it writes in. Values are in that version and without `metadata.managedFields`.
pub struct FieldManager<'a> {
    pub name: &'a str,
    pub subresource: &'a str,
    /// `apiVersion` of the values.
    pub version: &'a str,
    pub ty: Type<'a>,
    /// RFC 3339.
    pub now: &'a str,
    pub reset: &'a Reset,
    pub versions: &'a dyn Versions,
}

/// The other versions of a kind.
pub trait Versions {
    /// Brings a value from one version into another; `None` if there is no such version.
    fn convert(&self, value: &Value, from: &str, to: &str) -> Option<Value>;

    fn ty(&self, version: &str) -> Option<Type<'_>>;
}

/// Which fields a write does not reach. Upstream: ResetFieldsStrategy, ResetFieldsFilterStrategy.
#[derive(Debug, Default)]
pub enum Reset {
    /// It reaches all.
    #[default]
    Nothing,
    /// It doesn't reach these.
    Fields(FieldSet),
    /// It reaches only what begins with one of these; `None` stands for any element.
    AllBut(&'static [&'static [Option<&'static str>]]),
}

impl Reset {
    pub(super) fn filter(&self, set: &mut FieldSet) {
        match self {
            Reset::Nothing => {}
            Reset::Fields(fields) => set.subtract_all(fields),
            Reset::AllBut(patterns) => *set = set.matching(patterns),
        }
    }
}

/// What an apply makes of an object.
#[derive(Debug)]
pub struct Applied {
    /// The new value, neither defaulted nor canonical; `None` if nothing changed.
    pub value: Option<Value>,
    pub managed: ManagedFields,
}

/// Why a configuration is not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Others manage fields of it.
    #[error("conflicts")]
    Conflicts(Vec<Conflict>),
    /// It isn't of the type.
    #[error("failed to create typed patch object")]
    Config(#[source] TypeErrors),
    #[error("failed to create typed live object")]
    Live(#[source] TypeErrors),
    #[error("failed to merge config")]
    Merge(#[source] TypeErrors),
}

/// A value in a version.
#[derive(Clone)]
pub(super) struct Versioned<'t> {
    pub value: Value,
    pub version: String,
    pub ty: Type<'t>,
}

impl<'a> FieldManager<'a> {
    /// What the write from `live` to `new` changes, as far as it reaches.
    pub fn compare(&self, live: &Value, new: &Value) -> Result<Comparison, TypeErrors> {
        Ok(compare(self.ty, live, new)?.filtered(self.reset))
    }

    /// The managers after a write that `comparison` is of. `created` says that there was no object before.
    pub fn update(
        &self,
        (live, new): (&Value, &Value),
        comparison: Comparison,
        managed: ManagedFields,
        created: bool,
    ) -> Result<ManagedFields, TypeErrors> {
        if managed.is_empty() && !created {
            return Ok(managed);
        }
        let mut managed = self.updated((live, new), comparison, managed, self.name)?;
        cap(&mut managed);
        managed.sort();
        Ok(managed)
    }

    fn updated(
        &self,
        (live, new): (&Value, &Value),
        comparison: Comparison,
        mut managed: ManagedFields,
        name: &str,
    ) -> Result<ManagedFields, TypeErrors> {
        self.take((live, new), &comparison, &mut managed, None, true).map_err(|error| match error {
            ApplyError::Live(errors) => errors,
            _ => TypeErrors::default(),
        })?;
        let Comparison { mut modified, added, .. } = comparison;
        modified.union(added);
        let mut entry = self.entry(name, Operation::Update, modified);
        entry.fields.subtract(stripped());
        if entry.fields.is_empty() {
            return Ok(managed);
        }
        match managed.find(&entry) {
            Some(at) => {
                let known = &mut managed.0[at];
                known.fields.union(entry.fields);
                known.time = entry.time;
            }
            None => managed.0.push(entry),
        }
        Ok(managed)
    }

    fn entry(&self, name: &str, operation: Operation, fields: FieldSet) -> ManagedEntry {
        ManagedEntry {
            manager: if name.is_empty() { "unknown" } else { name }.to_owned(),
            operation,
            version: self.version.to_owned(),
            subresource: self.subresource.to_owned(),
            time: Some(self.now.to_owned()),
            fields,
        }
    }

    /// Takes what the write changed from all managers but `workflow`, or names the conflicts.
    fn take(
        &self,
        (live, new): (&Value, &Value),
        comparison: &Comparison,
        managed: &mut ManagedFields,
        workflow: Option<&ManagedEntry>,
        force: bool,
    ) -> Result<(), ApplyError> {
        let mut others: HashMap<String, Option<Comparison>> = HashMap::new();
        for entry in managed.0.iter().filter(|entry| entry.version != self.version) {
            if !others.contains_key(&entry.version) {
                let compared = self.compare_in(&entry.version, live, new).transpose().map_err(ApplyError::Live)?;
                others.insert(entry.version.clone(), compared);
            }
        }
        let is_workflow = |entry: &ManagedEntry| workflow.is_some_and(|workflow| entry.is_of(workflow));
        let of = |entry: &ManagedEntry| match entry.version == self.version {
            true => Some(comparison),
            false => others.get(&entry.version).and_then(Option::as_ref),
        };
        // What is in a version that is gone is managed by nobody.
        managed.0.retain(|entry| is_workflow(entry) || of(entry).is_some());
        let mut conflicts = Vec::new();
        let mut taken = Vec::new();
        for (at, entry) in managed.0.iter().enumerate().filter(|(_, entry)| !is_workflow(entry)) {
            let Some(comparison) = of(entry) else { continue };
            let mut fields = entry.fields.intersection(&comparison.modified);
            fields.union(entry.fields.intersection(&comparison.added));
            if !force {
                conflicts.push((entry.manager.clone(), Conflict::with(entry, &fields)));
            }
            taken.push((at, fields));
        }
        conflicts.sort_by(|a, b| a.0.cmp(&b.0));
        let conflicts: Vec<Conflict> = conflicts.into_iter().flat_map(|(_, conflicts)| conflicts).collect();
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
        for (at, fields) in taken {
            let entry = &mut managed.0[at];
            entry.fields.subtract(&fields);
            let removed = match entry.version == self.version {
                true => Some(comparison),
                false => others.get(&entry.version).and_then(Option::as_ref),
            };
            if let Some(comparison) = removed {
                entry.fields.subtract(&comparison.removed);
            }
        }
        managed.0.retain(|entry| !entry.fields.is_empty());
        Ok(())
    }

    /// The comparison in another version; `None` if there is no such version.
    fn compare_in(&self, version: &str, live: &Value, new: &Value) -> Option<Result<Comparison, TypeErrors>> {
        let ty = self.versions.ty(version)?;
        let live = self.versions.convert(live, self.version, version)?;
        let new = self.versions.convert(new, self.version, version)?;
        Some(compare(ty, &live, &new).map(|comparison| comparison.filtered(self.reset)))
    }

    /// Lays a configuration over `live`; `empty` is an object of which nothing is set. What this manager applied earlier and no
    /// longer says goes, unless somebody else manages it.
    pub fn apply(
        &self,
        live: &Value,
        empty: &Value,
        config: &Value,
        managed: ManagedFields,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        let first = self.applied(live, empty, config, managed.clone(), force);
        let Err(ApplyError::Conflicts(conflicts)) = first else { return self.told(live, config, first) };
        // What kubectl applied on the client's side it may take over.
        let allowed = match self.name == last_applied::MANAGER {
            true => last_applied::fields(self.ty, self.version, live),
            false => None,
        };
        let Some(allowed) = allowed else { return Err(ApplyError::Conflicts(conflicts)) };
        let left: Vec<Conflict> = conflicts.into_iter().filter(|conflict| !allowed.has(&conflict.path)).collect();
        if !left.is_empty() {
            return Err(ApplyError::Conflicts(left));
        }
        let forced = self.applied(live, empty, config, managed, true);
        self.told(live, config, forced)
    }

    /// Keeps the annotation of client-side apply in step where there is one.
    fn told(&self, live: &Value, config: &Value, applied: Result<Applied, ApplyError>) -> Result<Applied, ApplyError> {
        let mut applied = applied?;
        if self.name == last_applied::MANAGER && last_applied::is_in(applied.value.as_ref().unwrap_or(live)) {
            let value = applied.value.get_or_insert_with(|| live.clone());
            last_applied::keep(value, config);
        }
        Ok(applied)
    }

    fn applied(
        &self,
        live: &Value,
        empty: &Value,
        config: &Value,
        mut managed: ManagedFields,
        force: bool,
    ) -> Result<Applied, ApplyError> {
        if managed.is_empty() {
            let comparison = self.compare(empty, live).map_err(ApplyError::Live)?;
            let before = self.updated((empty, live), comparison, managed, BEFORE_FIRST_APPLY);
            managed = before.map_err(ApplyError::Live)?;
        }
        check(self.ty, config).map_err(ApplyError::Config)?;
        let merged = merge(self.ty, live, config).map_err(ApplyError::Merge)?;
        let mut fields = fields_of(self.ty, config).map_err(ApplyError::Config)?;
        self.reset.filter(&mut fields);
        let mut entry = self.entry(self.name, Operation::Apply, fields);
        let last = managed.find(&entry).map(|at| managed.0.remove(at));
        entry.time = last.as_ref().and_then(|last| last.time.clone());
        managed.0.push(entry.clone());
        let new = match &last {
            Some(last) => prune(self, merged, &managed, last).map_err(ApplyError::Live)?,
            None => merged,
        };
        let comparison = self.compare(live, &new).map_err(ApplyError::Live)?;
        self.take((live, &new), &comparison, &mut managed, Some(&entry), force)?;
        let changed = !same(live, &new);
        if let Some(at) = managed.find(&entry) {
            let entry = &mut managed.0[at];
            entry.fields.subtract(stripped());
            if changed {
                entry.time = Some(self.now.to_owned());
            }
            if entry.fields.is_empty() {
                managed.0.remove(at);
            }
        }
        managed.sort();
        Ok(Applied { value: changed.then_some(new), managed })
    }

    pub(super) fn versioned(&self, value: Value) -> Versioned<'_> {
        Versioned { value, version: self.version.to_owned(), ty: self.ty }
    }

    /// The value in another version; `None` if there is no such version.
    pub(super) fn in_version<'v>(&'v self, value: &Versioned<'v>, version: &str) -> Option<Versioned<'v>> {
        if value.version == version {
            return Some(value.clone());
        }
        let ty = if version == self.version { self.ty } else { self.versions.ty(version)? };
        let value = self.versions.convert(&value.value, &value.version, version)?;
        Some(Versioned { value, version: version.to_owned(), ty })
    }
}

/// What nobody manages.
fn stripped() -> &'static FieldSet {
    static SET: LazyLock<FieldSet> = LazyLock::new(unmanaged);
    &SET
}

fn unmanaged() -> FieldSet {
    const METADATA: [&str; 9] = [
        "clusterName",
        "creationTimestamp",
        "generation",
        "managedFields",
        "name",
        "namespace",
        "resourceVersion",
        "selfLink",
        "uid",
    ];
    let mut set = FieldSet::of_fields(&[&["apiVersion"], &["kind"], &["metadata"]]);
    for name in METADATA {
        set.insert(&[super::PathElement::field("metadata"), super::PathElement::field(name)]);
    }
    set
}

/// Rolls the oldest updates into one entry per version until few enough are left. Upstream: capManagersManager.
fn cap(managed: &mut ManagedFields) {
    let mut count = managed.0.iter().filter(|entry| entry.operation == Operation::Update).count();
    if count <= MAX_UPDATERS {
        return;
    }
    let (mut updates, mut kept): (Vec<ManagedEntry>, Vec<ManagedEntry>) =
        std::mem::take(&mut managed.0).into_iter().partition(|entry| entry.operation == Operation::Update);
    updates.sort_by(|a, b| (&a.time, &a.manager, &a.version).cmp(&(&b.time, &b.manager, &b.version)));
    let mut first_of: HashMap<String, usize> = HashMap::new();
    let mut out: Vec<ManagedEntry> = Vec::new();
    for mut entry in updates {
        if count <= MAX_UPDATERS {
            out.push(entry);
            continue;
        }
        match first_of.get(&entry.version) {
            Some(at) => {
                let bucket = &mut out[*at];
                bucket.manager = ANCIENT_CHANGES.to_owned();
                bucket.subresource = String::new();
                bucket.fields.union(std::mem::take(&mut entry.fields));
                bucket.time = entry.time;
                count -= 1;
            }
            None => {
                first_of.insert(entry.version.clone(), out.len());
                out.push(entry);
            }
        }
    }
    kept.append(&mut out);
    managed.0 = kept;
}
