//! `Object`: the one in-memory form of a stored object.

use std::cell::Cell;
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;

use crate::value::write_string;
use crate::{GroupVersion, GroupVersionKind, ObjectKey, Value};

/// An object: its canonical JSON without `metadata.resourceVersion`, its revision, and what is asked for most. Shared behind an
/// `Arc`, never changed: an edit goes through [`Object::to_value`] and makes another.
#[derive(Clone)]
pub struct Object {
    body: Bytes,
    /// Where `,"resourceVersion":"…"` belongs.
    splice: u32,
    metadata: Range<u32>,
    /// The value of `metadata.managedFields`; empty where there is none.
    managed: Range<u32>,
    revision: u64,
    meta: Arc<Meta>,
}

/// What is read out of the body once.
#[derive(Debug, Default, PartialEq, Eq)]
struct Meta {
    gvk: Arc<GroupVersionKind>,
    key: ObjectKey,
    uid: String,
    labels: Arc<[(String, String)]>,
    owners: Arc<[OwnerReference]>,
    deletion_timestamp: Option<String>,
    generation: i64,
    finalizers: bool,
    fields: Vec<(&'static str, String)>,
}

/// An entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnerReference {
    pub api_version: String,
    pub kind: String,
    pub name: String,
    pub uid: String,
    pub controller: bool,
    pub block_owner_deletion: bool,
}

/// Why a value is no object.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ObjectError {
    #[error("object has no metadata")]
    NoMetadata,
    #[error("body is not JSON")]
    Json(#[from] crate::ParseError),
    #[error("resourceVersion {0:?} is not a number")]
    Revision(String),
}

impl Object {
    /// Encodes `value` (a `resourceVersion` in it is left out) as the object at `revision`; 0 means not stored.
    pub fn new(value: &Value, revision: u64) -> Result<Object, ObjectError> {
        Object::with_fields(value, revision, Vec::new())
    }

    /// Like [`Object::new`], with the values of the kind's selectable fields (`spec.nodeName`).
    pub fn with_fields(
        value: &Value,
        revision: u64,
        fields: Vec<(&'static str, String)>,
    ) -> Result<Object, ObjectError> {
        Object::with_managed_fields(value, &[], revision, fields)
    }

    /// Like [`Object::with_fields`]; `managed`, canonical JSON, becomes `metadata.managedFields` where `value` has none.
    pub fn with_managed_fields(
        value: &Value,
        managed: &[u8],
        revision: u64,
        fields: Vec<(&'static str, String)>,
    ) -> Result<Object, ObjectError> {
        let root = value.as_object().ok_or(ObjectError::NoMetadata)?;
        let metadata = root.get("metadata").filter(|m| m.as_object().is_some()).ok_or(ObjectError::NoMetadata)?;
        let (mut splice, mut span, mut manages) = (0, 0..0, 0..0);
        let body = written(|body| {
            for (i, (key, member)) in root.iter().enumerate() {
                body.push(if i == 0 { b'{' } else { b',' });
                write_string(key, body);
                body.push(b':');
                if key == "metadata" {
                    let start = body.len();
                    (splice, manages) = write_metadata(metadata, managed, body);
                    span = start as u32..body.len() as u32;
                } else {
                    member.write_json(body);
                }
            }
            body.push(b'}');
        });
        let meta = Arc::new(Meta::read(value, metadata, fields));
        Ok(Object { body, splice: splice as u32, metadata: span, managed: manages, revision, meta })
    }

    /// Reads a server's answer: JSON with its `resourceVersion`.
    pub fn parse(json: &[u8]) -> Result<Object, ObjectError> {
        Object::from_answer(&Value::parse_canonical(json)?)
    }

    /// Like [`Object::new`] with the revision that `value` itself names.
    pub fn from_answer(value: &Value) -> Result<Object, ObjectError> {
        let revision = match value.str_at(&["metadata", "resourceVersion"]) {
            None | Some("") => 0,
            Some(text) => text.parse().map_err(|_| ObjectError::Revision(text.to_owned()))?,
        };
        Object::new(value, revision)
    }

    /// The same body at another revision: how a commit and a deletion event are told.
    pub fn at_revision(&self, revision: u64) -> Object {
        Object { revision, ..self.clone() }
    }

    /// Keeps what is extracted of this object together with `other`, as far as they are equal: of many objects made alike, and of one that
    /// changes, most is. Does nothing to an object that has copies.
    pub fn share_with(&mut self, other: &Object) {
        if self.meta == other.meta {
            self.meta = other.meta.clone();
        } else if let Some(meta) = Arc::get_mut(&mut self.meta) {
            share(&mut meta.gvk, &other.meta.gvk);
            share(&mut meta.labels, &other.meta.labels);
            share(&mut meta.owners, &other.meta.owners);
        }
    }

    /// Canonical JSON without `resourceVersion`: what is stored.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Appends the object's JSON with its `resourceVersion`.
    pub fn write_json(&self, out: &mut Vec<u8>) {
        let (head, tail) = self.body.split_at(self.splice as usize);
        out.reserve(self.body.len() + 48);
        out.extend_from_slice(head);
        self.write_revision(out);
        out.extend_from_slice(tail);
    }

    /// The three pieces of the object's JSON: body before the revision, the revision's member, body after it.
    pub fn json_parts(&self) -> [Bytes; 3] {
        let mut revision = Vec::with_capacity(48);
        self.write_revision(&mut revision);
        [self.body.slice(..self.splice as usize), revision.into(), self.body.slice(self.splice as usize..)]
    }

    fn write_revision(&self, out: &mut Vec<u8>) {
        if self.revision != 0 {
            let comma = if self.body[self.splice as usize - 1] == b'{' { "" } else { "," };
            write!(out, "{comma}\"resourceVersion\":\"{}\"", self.revision).expect("writing to memory does not fail");
            if comma.is_empty() && self.body[self.splice as usize] != b'}' {
                out.push(b',');
            }
        }
    }

    /// The object's JSON with its `resourceVersion`.
    pub fn to_json(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_json(&mut out);
        out
    }

    /// The object's `metadata` as canonical JSON without `resourceVersion`.
    pub fn metadata_json(&self) -> &[u8] {
        &self.body[self.metadata.start as usize..self.metadata.end as usize]
    }

    /// A copy to edit, with `metadata.resourceVersion`.
    pub fn to_value(&self) -> Value {
        let mut value = Value::parse_canonical(&self.body).expect("a body is JSON that we encoded");
        if self.revision != 0 {
            value.set(&["metadata", "resourceVersion"], self.revision.to_string());
        }
        value
    }

    /// A copy to edit like [`Object::to_value`], without `metadata.managedFields`: those are long, and kept as they are.
    pub fn to_unmanaged_value(&self) -> Value {
        if self.managed.is_empty() {
            return self.to_value();
        }
        let around = self.around_managed_fields();
        let mut value = Value::parse_canonical(&[&self.body[..around.start], &self.body[around.end..]].concat())
            .expect("a body without one of its members is JSON");
        if self.revision != 0 {
            value.set(&["metadata", "resourceVersion"], self.revision.to_string());
        }
        value
    }

    /// What must go for `metadata.managedFields` to go: the member, and one of the commas around it.
    fn around_managed_fields(&self) -> Range<usize> {
        const KEY: usize = "\"managedFields\":".len();
        let (start, end) = (self.managed.start as usize - KEY, self.managed.end as usize);
        if self.body[start - 1] == b',' {
            start - 1..end
        } else if self.body[end] == b',' {
            start..end + 1
        } else {
            start..end
        }
    }

    /// The value of `metadata.managedFields` as canonical JSON; empty where there is none.
    pub fn managed_fields(&self) -> &[u8] {
        &self.body[self.managed.start as usize..self.managed.end as usize]
    }

    /// Decodes into a typed view (tens of microseconds: keep the result, or read what is extracted), which says nothing of
    /// managed fields.
    pub fn view<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let mut json = self.to_json();
        if !self.managed.is_empty() {
            // They lie before the revision, so nothing has moved; with nothing between them the comma is the revision's.
            let around = self.around_managed_fields();
            let lone = json[around.start - 1] == b'{' && json[around.end] == b',';
            json.drain(around.start..around.end + usize::from(lone));
        }
        crate::value::view(&json)
    }

    pub fn gvk(&self) -> &GroupVersionKind {
        &self.meta.gvk
    }

    pub fn kind(&self) -> &str {
        &self.meta.gvk.kind
    }

    pub fn key(&self) -> &ObjectKey {
        &self.meta.key
    }

    pub fn name(&self) -> &str {
        &self.meta.key.name
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        &self.meta.key.namespace
    }

    pub fn uid(&self) -> &str {
        &self.meta.uid
    }

    pub fn revision(&self) -> u64 {
        self.revision
    }

    pub fn generation(&self) -> i64 {
        self.meta.generation
    }

    pub fn labels(&self) -> &[(String, String)] {
        &self.meta.labels
    }

    pub fn label(&self, key: &str) -> Option<&str> {
        self.meta.labels.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str())
    }

    pub fn owners(&self) -> &[OwnerReference] {
        &self.meta.owners
    }

    /// The owner that manages this object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.meta.owners.iter().find(|owner| owner.controller)
    }

    pub fn deletion_timestamp(&self) -> Option<&str> {
        self.meta.deletion_timestamp.as_deref()
    }

    pub fn is_deleting(&self) -> bool {
        self.meta.deletion_timestamp.is_some()
    }

    pub fn has_finalizers(&self) -> bool {
        self.meta.finalizers
    }

    /// A selectable field's value, as given to [`Object::with_fields`]; `metadata.name` and `metadata.namespace` always.
    pub fn field(&self, path: &str) -> Option<&str> {
        match path {
            "metadata.name" => Some(self.name()),
            "metadata.namespace" => Some(self.namespace()),
            _ => self.meta.fields.iter().find(|(p, _)| *p == path).map(|(_, value)| value.as_str()),
        }
    }

    /// Bytes of memory this object holds, roughly.
    pub fn size(&self) -> usize {
        self.body.len() + size_of::<Object>() + size_of::<Meta>() + 256
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}@{}", self.meta.gvk.kind, self.meta.key, self.revision)
    }
}

fn share<T: PartialEq + ?Sized>(mine: &mut Arc<T>, other: &Arc<T>) {
    if mine == other {
        *mine = other.clone();
    }
}

impl Meta {
    fn read(value: &Value, metadata: &Value, fields: Vec<(&'static str, String)>) -> Meta {
        let text = |of: &Value, key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let flag = |of: &Value, key: &str| of.get(key).and_then(Value::as_bool).unwrap_or_default();
        let gv: GroupVersion = text(value, "apiVersion").parse().unwrap_or_else(|never| match never {});
        let labels = metadata.get("labels").and_then(Value::as_object).map(|labels| {
            labels.iter().filter_map(|(k, v)| Some((k.to_owned(), v.as_str()?.to_owned()))).collect::<Vec<_>>()
        });
        let owners = metadata.items_at(&["ownerReferences"]).iter().map(|owner| OwnerReference {
            api_version: text(owner, "apiVersion"),
            kind: text(owner, "kind"),
            name: text(owner, "name"),
            uid: text(owner, "uid"),
            controller: flag(owner, "controller"),
            block_owner_deletion: flag(owner, "blockOwnerDeletion"),
        });
        Meta {
            gvk: Arc::new(gv.kind(text(value, "kind"))),
            key: ObjectKey::new(text(metadata, "namespace"), text(metadata, "name")),
            uid: text(metadata, "uid"),
            labels: labels.unwrap_or_default().into(),
            owners: owners.collect(),
            deletion_timestamp: metadata.str_at(&["deletionTimestamp"]).map(str::to_owned),
            generation: metadata.i64_at(&["generation"]).unwrap_or_default(),
            finalizers: !metadata.items_at(&["finalizers"]).is_empty(),
            fields,
        }
    }
}

/// What `write` writes, without room to spare: many are kept. Each thread keeps the buffer that it is written in.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    /// A larger buffer isn't kept.
    const LARGE: usize = 1 << 20;
    thread_local! {
        static BUFFER: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    }
    let mut buffer = BUFFER.take();
    buffer.clear();
    write(&mut buffer);
    let body = Bytes::copy_from_slice(&buffer);
    if buffer.capacity() <= LARGE {
        BUFFER.set(buffer);
    }
    body
}

/// Writes `metadata` without `resourceVersion` and with `managed` where it has no `managedFields`. Returns the offset in `body`
/// where the revision belongs, and the range of the managed fields.
fn write_metadata(metadata: &Value, managed: &[u8], body: &mut Vec<u8>) -> (usize, Range<u32>) {
    const MANAGED: &str = "managedFields";
    body.push(b'{');
    let mut splice = body.len();
    let mut span = 0..0;
    let mut given = (!managed.is_empty()).then_some(managed);
    let mut member = |key: &str, body: &mut Vec<u8>, write: &dyn Fn(&mut Vec<u8>)| {
        if body.last() != Some(&b'{') {
            body.push(b',');
        }
        write_string(key, body);
        body.push(b':');
        let start = body.len() as u32;
        write(body);
        if key == MANAGED {
            span = start..body.len() as u32;
        }
        if key < "resourceVersion" {
            splice = body.len();
        }
    };
    let members = metadata.as_object().into_iter().flat_map(|map| map.iter());
    for (key, value) in members.filter(|(key, _)| *key != "resourceVersion") {
        if key >= MANAGED
            && let Some(managed) = given.take()
            && key != MANAGED
        {
            member(MANAGED, body, &|body| body.extend_from_slice(managed));
        }
        member(key, body, &|body| value.write_json(body));
    }
    if let Some(managed) = given {
        member(MANAGED, body, &|body| body.extend_from_slice(managed));
    }
    body.push(b'}');
    (splice, span)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(json: &str, revision: u64) -> Object {
        Object::new(&Value::parse(json.as_bytes()).unwrap(), revision).unwrap()
    }

    #[test]
    fn the_revision_is_spliced_into_its_place() {
        let check = |metadata: &str, expect: &str| {
            let json = format!(r#"{{"kind":"Pod","metadata":{metadata}}}"#);
            let spliced = String::from_utf8(object(&json, 42).to_json()).unwrap();
            assert_eq!(spliced, format!(r#"{{"kind":"Pod","metadata":{expect}}}"#));
            assert!(Value::parse(spliced.as_bytes()).is_ok());
        };
        check(r#"{"name":"a","uid":"u"}"#, r#"{"name":"a","resourceVersion":"42","uid":"u"}"#);
        check(r#"{"name":"a","resourceVersion":"7"}"#, r#"{"name":"a","resourceVersion":"42"}"#);
        check(r#"{"uid":"u"}"#, r#"{"resourceVersion":"42","uid":"u"}"#);
        check("{}", r#"{"resourceVersion":"42"}"#);
        assert_eq!(object(r#"{"metadata":{"name":"a"}}"#, 0).to_json(), br#"{"metadata":{"name":"a"}}"#);
    }

    #[test]
    fn what_is_asked_for_most_is_extracted() {
        let pod = object(
            r#"{"apiVersion":"apps/v1","kind":"X","metadata":{"name":"a","namespace":"n","uid":"u","labels":{"k":"v"},"generation":3,
                "ownerReferences":[{"uid":"o","controller":true,"kind":"K","name":"o","apiVersion":"v1"}],"deletionTimestamp":"t"}}"#,
            5,
        );
        assert_eq!((pod.gvk().group.as_str(), pod.name(), pod.namespace(), pod.uid()), ("apps", "a", "n", "u"));
        assert_eq!((pod.label("k"), pod.generation(), pod.is_deleting()), (Some("v"), 3, true));
        assert_eq!(pod.controller().unwrap().uid, "o");
        assert_eq!(Object::parse(&pod.to_json()).unwrap().revision(), 5);
        assert_eq!(pod.to_value().str_at(&["metadata", "resourceVersion"]), Some("5"));
    }

    #[test]
    fn managed_fields_are_kept_apart() {
        let check = |metadata: &str| {
            let value = Value::parse(format!(r#"{{"kind":"Pod","metadata":{metadata}}}"#).as_bytes()).unwrap();
            let managed = br#"[{"manager":"a"}]"#;
            let object = Object::with_managed_fields(&value, managed, 7, Vec::new()).unwrap();
            assert_eq!(object.managed_fields(), managed);
            let mut whole = value.clone();
            whole.set(&["metadata", "managedFields"], Value::parse(managed).unwrap());
            assert_eq!(object.body(), Object::new(&whole, 7).unwrap().body());
            assert_eq!(Object::new(&whole, 7).unwrap().managed_fields(), managed);
            whole.set(&["metadata", "resourceVersion"], "7");
            assert_eq!(object.to_value(), whole);
            whole.remove(&["metadata", "managedFields"]);
            assert_eq!(object.to_unmanaged_value(), whole);
            let view: serde_json::Value = object.view().unwrap();
            assert_eq!(view.to_string(), whole.to_string());
        };
        for metadata in [r#"{"labels":{"a":"b"},"name":"a","uid":"u"}"#, r#"{"name":"a"}"#, r#"{"labels":{}}"#, "{}"] {
            check(metadata);
        }
        assert_eq!(object(r#"{"metadata":{"name":"a"}}"#, 0).managed_fields(), b"");
    }

    #[test]
    fn an_object_has_metadata() {
        assert_eq!(Object::parse(b"{}").unwrap_err(), ObjectError::NoMetadata);
        assert_eq!(Object::parse(b"[]").unwrap_err(), ObjectError::NoMetadata);
    }
}
