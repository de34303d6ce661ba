//! `scale`: who manages the replica count, told of the scale and of the object it is the scale of.

use super::managed::{ManagedEntry, ManagedFields};
use super::{FieldSet, PathElement};
use crate::Key;

const SCALE: &str = "autoscaling/v1";

/// Where an object's versions have their replica count. Upstream: ScaleHandler.
pub struct ScaleFields<'a> {
    /// The object's `apiVersion`.
    pub version: &'a str,
    /// Other versions that have it in the same place.
    pub versions: &'a [&'a str],
    pub path: &'a [Key],
}

impl ScaleFields<'_> {
    fn knows(&self, version: &str) -> bool {
        self.version == version || self.versions.contains(&version)
    }

    fn path(&self) -> Vec<PathElement> {
        self.path.iter().map(|name| PathElement::Field(name.clone())).collect()
    }

    /// Of the object's managers those of its replica count, as managers of the scale.
    pub fn of_object(&self, managed: &ManagedFields) -> ManagedFields {
        let path = self.path();
        let entries = managed.0.iter().filter(|entry| self.knows(&entry.version) && entry.has(&path));
        let entries = entries.map(|entry| ManagedEntry {
            version: SCALE.to_owned(),
            fields: FieldSet::of_fields(&[&["spec", "replicas"]]),
            ..entry.clone()
        });
        ManagedFields(entries.collect())
    }

    /// The object's managers after those of its scale have become `scale`.
    pub fn to_object(&self, managed: ManagedFields, mut scale: ManagedFields) -> ManagedFields {
        let path = self.path();
        // Upstream looks for the time of what is new among what was there.
        for entry in &mut scale.0 {
            let known = managed.0.iter().find(|known| known.is_of(entry));
            entry.time = known.and_then(|known| known.time.clone());
        }
        let mut kept = ManagedFields::default();
        for mut entry in managed.0 {
            if !self.knows(&entry.version) {
                continue;
            }
            if entry.has(&path) {
                let is_same = |known: &ManagedEntry| {
                    (&known.manager, known.operation, &known.subresource)
                        == (&entry.manager, entry.operation, &entry.subresource)
                };
                match scale.0.iter().position(is_same) {
                    Some(at) => drop(scale.0.remove(at)),
                    None => {
                        let mut taken = FieldSet::default();
                        taken.insert(&path);
                        entry.fields.subtract(&taken);
                    }
                }
            }
            if !entry.fields.is_empty() {
                kept.0.push(entry);
            }
        }
        let counted = [PathElement::field("spec"), PathElement::field("replicas")];
        for entry in scale.0.into_iter().filter(|entry| entry.has(&counted)) {
            let mut fields = FieldSet::default();
            fields.insert(&path);
            kept.0.push(ManagedEntry { version: self.version.to_owned(), fields, ..entry });
        }
        kept.sort();
        kept
    }
}
