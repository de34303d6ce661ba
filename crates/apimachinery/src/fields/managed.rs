//! `metadata.managedFields`: who manages what.

use serde::Deserialize;

use super::{FieldSet, PathElement};
use crate::Value;
use crate::value::write_string;

/// The entries of `metadata.managedFields`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ManagedFields(pub Vec<ManagedEntry>);

/// What one manager manages by one operation.
#[derive(Clone, Debug, PartialEq)]
pub struct ManagedEntry {
    pub manager: String,
    pub operation: Operation,
    /// The `apiVersion` in which `fields` are named.
    pub version: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// RFC 3339.
    pub time: Option<String>,
    pub fields: FieldSet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Apply,
    Update,
}

/// Why entries can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManagedError {
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    Version,
    #[error("missing fieldsType in managed fields entry {0}")]
    NoType(usize),
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    Type(String, usize),
    #[error("error decoding set: {0}")]
    Fields(String),
}

/// An entry as JSON has it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Wire {
    manager: String,
    operation: String,
    api_version: String,
    subresource: String,
    time: Option<String>,
    #[serde(rename = "fieldsV1")]
    fields: FieldSet,
}

impl ManagedFields {
    /// Reads what [`ManagedFields::to_json`] wrote; what can't be read is none.
    pub fn stored(json: &[u8]) -> ManagedFields {
        if json.is_empty() {
            return ManagedFields::default();
        }
        let wires: Vec<Wire> = sonic_rs::from_slice(json).unwrap_or_default();
        let entries = wires.into_iter().map(|wire| ManagedEntry {
            manager: wire.manager,
            operation: if wire.operation == "Apply" { Operation::Apply } else { Operation::Update },
            version: wire.api_version,
            subresource: wire.subresource,
            time: wire.time,
            fields: wire.fields,
        });
        ManagedFields(entries.collect())
    }

    /// Reads what a client sent.
    pub fn parse(value: &Value) -> Result<ManagedFields, ManagedError> {
        let mut managed = ManagedFields::default();
        for (index, entry) in value.as_array().into_iter().flatten().enumerate() {
            let text = |key: &str| entry.str_at(&[key]).unwrap_or_default().to_owned();
            let operation = match text("operation").as_str() {
                "Apply" => Operation::Apply,
                "Update" => Operation::Update,
                _ => return Err(ManagedError::Operation),
            };
            let version = text("apiVersion");
            if version.is_empty() {
                return Err(ManagedError::Version);
            }
            match text("fieldsType").as_str() {
                "FieldsV1" => {}
                "" => return Err(ManagedError::NoType(index)),
                other => return Err(ManagedError::Type(other.to_owned(), index)),
            }
            let fields = match entry.get("fieldsV1").filter(|fields| !fields.is_null()) {
                Some(fields) => FieldSet::parse(fields).map_err(ManagedError::Fields)?,
                None => FieldSet::default(),
            };
            let (manager, subresource, time) = (text("manager"), text("subresource"), entry.str_at(&["time"]));
            let entry =
                ManagedEntry { manager, operation, version, subresource, time: time.map(str::to_owned), fields };
            match managed.find(&entry) {
                Some(at) => managed.0[at] = entry,
                None => managed.0.push(entry),
            }
        }
        Ok(managed)
    }

    /// Whether a client asks to forget all managers: an empty list, or one empty entry.
    pub fn is_reset(value: &Value) -> bool {
        match value.as_array().map(Vec::as_slice) {
            Some([]) => true,
            Some([one]) => one.as_object().is_some_and(|entry| entry.iter().all(|(_, value)| value.is_null())),
            _ => false,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the entry is that stands for the same manager and operation as `entry`.
    pub(super) fn find(&self, entry: &ManagedEntry) -> Option<usize> {
        self.0.iter().position(|known| known.is_of(entry))
    }

    /// Brings the entries into upstream's order.
    pub(super) fn sort(&mut self) {
        fn rank(entry: &ManagedEntry) -> (Operation, Option<&str>, &str, &str, &str) {
            (entry.operation, entry.time.as_deref(), &entry.manager, &entry.version, &entry.subresource)
        }
        self.0.sort_by(|a, b| rank(a).cmp(&rank(b)));
    }

    /// The entries as the list in `metadata`, canonical; nothing for none.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if self.is_empty() {
            return out;
        }
        for entry in &self.0 {
            out.push(if out.is_empty() { b'[' } else { b',' });
            entry.write_json(&mut out);
        }
        out.push(b']');
        out
    }

    /// Whether both say the same at perhaps other times.
    pub fn is_same_but_times(&self, other: &ManagedFields) -> bool {
        let same = |a: &ManagedEntry, b: &ManagedEntry| a.is_of(b) && a.version == b.version && a.fields == b.fields;
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| same(a, b))
    }
}

impl ManagedEntry {
    /// The same manager by the same operation. An applier stays itself in whatever version it applies.
    pub(super) fn is_of(&self, other: &ManagedEntry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.version == other.version)
    }

    pub(super) fn has(&self, path: &[PathElement]) -> bool {
        self.fields.has(path)
    }

    fn write_json(&self, out: &mut Vec<u8>) {
        let member = |out: &mut Vec<u8>, key: &str, text: &str| {
            out.extend_from_slice(key.as_bytes());
            write_string(text, out);
        };
        member(out, "{\"apiVersion\":", &self.version);
        out.extend_from_slice(b",\"fieldsType\":\"FieldsV1\",\"fieldsV1\":");
        self.fields.write_json(out);
        if !self.manager.is_empty() {
            member(out, ",\"manager\":", &self.manager);
        }
        member(out, ",\"operation\":", if self.operation == Operation::Apply { "Apply" } else { "Update" });
        if !self.subresource.is_empty() {
            member(out, ",\"subresource\":", &self.subresource);
        }
        if let Some(time) = &self.time {
            member(out, ",\"time\":", time);
        }
        out.push(b'}');
    }
}
