//! ControllerRevisions: the templates that a StatefulSet or DaemonSet had. Upstream: pkg/controller/history.
//!
//! A revision's data is a strategic merge patch that puts its template back; `kubectl rollout` reads and compares it.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use client::{Client, DeleteOptions, Error, IgnoreNotFound, resources};
use jiff::Timestamp;

use crate::meta::{controller_reference, created, cut, metadata};

/// Letters and digits that spell no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// What is left of an owner's name before the hash.
const MAX_PREFIX: usize = 223;

/// A ControllerRevision.
#[derive(Clone, Debug)]
pub(crate) struct Revision {
    pub object: Arc<Object>,
    pub number: i64,
    pub data: Value,
    created: Timestamp,
}

/// What a revision that is to be made has in it.
pub(crate) struct Draft<'a> {
    pub owner: &'a Object,
    pub template: &'a Value,
    pub number: i64,
    /// The label that carries the hash.
    pub hash_label: &'static str,
    /// As the owner's status has them. The label's hash is made with these, also when the name's needs more.
    pub collisions: Option<i64>,
}

/// Whether a revision of that name was there already.
pub(crate) enum Made {
    /// It was made, or was there with the same data.
    Revision(Revision),
    /// Another template's revision has that name.
    Collision(Error),
}

impl Revision {
    pub(crate) fn read(object: Arc<Object>) -> Revision {
        let mut value = object.to_value();
        Revision {
            number: value.i64_at(&["revision"]).unwrap_or_default(),
            data: value.remove(&["data"]).unwrap_or_default(),
            created: created(&object),
            object,
        }
    }

    pub(crate) fn name(&self) -> &str {
        self.object.name()
    }

    /// The template that it puts back over `current`. Whoever writes revisions by hand may have written any patch.
    pub(crate) fn template(&self, current: &Value) -> Value {
        let Some(own) = self.data.at(&["spec", "template"]) else { return current.clone() };
        let mut own = own.clone();
        if own.remove(&["$patch"]).as_ref().and_then(Value::as_str) == Some("replace") {
            return own;
        }
        let mut merged = current.clone();
        match apimachinery::patch::merge_patch(&mut merged, own) {
            Ok(()) => merged,
            Err(_) => current.clone(),
        }
    }

    /// Whether `current` stays what it is when the revision is put back over it, in whatever words the revision has it.
    pub(crate) fn puts_back(&self, current: &Value) -> bool {
        meaning(self.template(current)) == meaning(current.clone())
    }
}

/// What a template says: without nulls and empty lists, and metadata that say nothing. Older versions wrote out the template's time,
/// which never is set.
pub(crate) fn meaning(mut template: Value) -> Value {
    template.remove(&["metadata", "creationTimestamp"]);
    prune(&mut template);
    let is_empty = |value: Option<&Value>| value.and_then(Value::as_object).is_some_and(|map| map.is_empty());
    for field in ["labels", "annotations"] {
        if is_empty(template.at(&["metadata", field])) {
            template.remove(&["metadata", field]);
        }
    }
    if is_empty(template.get("metadata")) {
        template.remove(&["metadata"]);
    }
    template
}

/// Takes away nulls and empty lists.
fn prune(value: &mut Value) {
    let says_nothing = |value: &Value| value.is_null() || value.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(map) => map.retain(|_, member| {
            prune(member);
            !says_nothing(member)
        }),
        Value::Array(items) => items.iter_mut().for_each(prune),
        _ => {}
    }
}

/// Oldest first: by number, then by age, then by name.
pub(crate) fn sort(revisions: &mut [Revision]) {
    revisions.sort_by(|a, b| (a.number, a.created, a.name()).cmp(&(b.number, b.created, b.name())));
}

/// The patch that puts `template` back.
pub(crate) fn patch_of(template: &Value) -> Value {
    let mut template = template.clone();
    template.set(&["$patch"], "replace");
    let mut patch = Value::object();
    patch.set(&["spec", "template"], template);
    patch
}

/// The hash of a revision's data; `collisions` makes another after two hashed alike. The same as upstream's.
pub(crate) fn hash(data: &Value, collisions: Option<i64>) -> String {
    let mut bytes = escaped(&data.to_json());
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(collisions.to_string().as_bytes());
    }
    // FNV-1.
    let sum = bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| sum.wrapping_mul(0x0100_0193) ^ u32::from(*byte));
    sum.to_string().bytes().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char).collect()
}

/// JSON as Go writes it: what HTML would misread is escaped. These characters occur within strings only.
fn escaped(json: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len());
    let mut rest = json;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'<' => out.extend_from_slice(b"\\u003c"),
            b'>' => out.extend_from_slice(b"\\u003e"),
            b'&' => out.extend_from_slice(b"\\u0026"),
            // U+2028 and U+2029, which end lines in JavaScript.
            0xe2 if tail.starts_with(&[0x80, 0xa8]) || tail.starts_with(&[0x80, 0xa9]) => {
                out.extend_from_slice(if tail[1] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                rest = &tail[2..];
            }
            byte => out.push(byte),
        }
    }
    out
}

fn name(owner: &str, hash: &str) -> String {
    format!("{}-{hash}", cut(owner, MAX_PREFIX))
}

impl Draft<'_> {
    /// Makes the revision; its name ends in the hash of its data and `collisions`.
    pub(crate) async fn make(&self, client: &Client, collisions: Option<i64>) -> Result<Made, Error> {
        let data = patch_of(self.template);
        let name = name(self.owner.name(), &hash(&data, collisions));
        let mut body = Value::object();
        body.set(&["apiVersion"], "apps/v1");
        body.set(&["kind"], "ControllerRevision");
        body.set(&["metadata", "name"], &name);
        body.set(&["metadata", "namespace"], self.owner.namespace());
        if let Some(labels) = self.template.at(&["metadata", "labels"]) {
            body.set(&["metadata", "labels"], labels);
        }
        body.set(&["metadata", "labels", self.hash_label], hash(&data, self.collisions));
        if let Some(annotations) = metadata(self.owner).get("annotations") {
            body.set(&["metadata", "annotations"], annotations);
        }
        body.set(&["metadata", "ownerReferences"], vec![controller_reference(self.owner)]);
        body.set(&["data"], &data);
        body.set(&["revision"], self.number);
        match client.create(&resources::CONTROLLER_REVISIONS, &body).await {
            Ok(object) => Ok(Made::Revision(Revision::read(object))),
            Err(error) if error.is_already_exists() => {
                let key = ObjectKey::new(self.owner.namespace(), name);
                let existing = Revision::read(client.get(&resources::CONTROLLER_REVISIONS, &key).await?);
                Ok(if existing.data == data { Made::Revision(existing) } else { Made::Collision(error) })
            }
            Err(error) => Err(error),
        }
    }
}

/// Gives the revision another number: it becomes the newest again.
pub(crate) async fn renumber(client: &Client, revision: &Revision, number: i64) -> Result<Revision, Error> {
    if revision.number == number {
        return Ok(revision.clone());
    }
    let mut value = revision.object.to_value();
    value.set(&["revision"], number);
    client.update(&resources::CONTROLLER_REVISIONS, &value).await.map(Revision::read)
}

/// Deletes the revision if it is still there.
pub(crate) async fn delete(client: &Client, revision: &Revision) -> Result<(), Error> {
    let options = DeleteOptions::uid(revision.object.uid());
    client.delete(&resources::CONTROLLER_REVISIONS, revision.object.key(), &options).await.ignore_not_found()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(json: &str) -> Value {
        Value::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn hashes_are_upstreams() {
        let check = |json: &str, collisions, expect: &str| assert_eq!(hash(&value(json), collisions), expect);
        // FNV-1 of nothing but `{}` and of `{}0`, computed by Go's hash/fnv.
        check("{}", None, &encoded(fnv1(b"{}")));
        check("{}", Some(0), &encoded(fnv1(b"{}0")));
        check(r#"{"a":"<&>"}"#, None, &encoded(fnv1(br#"{"a":"\u003c\u0026\u003e"}"#)));
    }

    fn fnv1(bytes: &[u8]) -> u32 {
        let mut sum = 2_166_136_261_u32;
        for byte in bytes {
            sum = sum.wrapping_mul(16_777_619);
            sum ^= u32::from(*byte);
        }
        sum
    }

    fn encoded(sum: u32) -> String {
        sum.to_string().bytes().map(|b| ALPHABET[usize::from(b) % 27] as char).collect()
    }

    #[test]
    fn a_revision_puts_its_template_back() {
        let check = |data: &str, current: &str, expect: &str| {
            let json = format!(r#"{{"metadata":{{"name":"r"}},"revision":1,"data":{data}}}"#);
            let revision = Revision::read(Arc::new(Object::parse(json.as_bytes()).unwrap()));
            assert_eq!(revision.template(&value(current)), value(expect), "{data}");
        };
        let template = value(r#"{"metadata":{"labels":{"a":"b"}},"spec":{}}"#);
        let data = patch_of(&template);
        check(&data.to_string(), r#"{"spec":{"x":1}}"#, &template.to_string());
        // Edited by hand.
        check("{}", r#"{"spec":{"x":1}}"#, r#"{"spec":{"x":1}}"#);
        check(r#"{"spec":{"template":{"spec":{"y":2}}}}"#, r#"{"spec":{"x":1}}"#, r#"{"spec":{"x":1,"y":2}}"#);
    }

    #[test]
    fn a_revision_in_other_words_is_the_same() {
        let current = r#"{"metadata":{"labels":{"a":"b"}},"spec":{"x":1}}"#;
        let check = |data: &str, expect: bool| {
            let json = format!(r#"{{"metadata":{{"name":"r"}},"revision":1,"data":{data}}}"#);
            let revision = Revision::read(Arc::new(Object::parse(json.as_bytes()).unwrap()));
            assert_eq!(revision.puts_back(&value(current)), expect, "{data}");
        };
        let of = |template: &str| format!(r#"{{"spec":{{"template":{template}}}}}"#);
        let older = r#"{"$patch":"replace","metadata":{"creationTimestamp":null,"labels":{"a":"b"}},"spec":{"x":1,"volumes":[]}}"#;
        check(&of(older), true);
        check(&of(r#"{"$patch":"replace","metadata":{"labels":{"a":"b"}},"spec":{}}"#), false);
        check(&of(r#"{"spec":{"x":1}}"#), true);
        check(&of(r#"{"spec":{"x":2}}"#), false);
        check(r#"{"spec":{"replicas":99}}"#, true);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!(name("web", "abc"), "web-abc");
        assert_eq!(name(&"x".repeat(300), "abc").len(), MAX_PREFIX + 4);
    }
}
