//! What controllers share about objects: owner references, conditions, times, status writes.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::{Object, OwnerReference, Value};
use client::{Client, Error, Resource};
use env::Env;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The index of objects by the uid of their controller; those without one are under [`orphans_of`] their namespace.
pub(crate) const CONTROLLER_INDEX: &str = "controller";

/// For [`CONTROLLER_INDEX`].
pub(crate) fn by_controller(object: &Object) -> Vec<String> {
    vec![object.controller().map_or_else(|| orphans_of(object.namespace()), |owner| owner.uid.clone())]
}

pub(crate) fn orphans_of(namespace: &str) -> String {
    format!("orphans/{namespace}")
}

/// The owner reference that makes `owner` the controller.
pub(crate) fn controller_reference(owner: &Object) -> Value {
    let mut reference = Value::object();
    reference.set(&["apiVersion"], owner.gvk().api_version());
    reference.set(&["kind"], owner.kind());
    reference.set(&["name"], owner.name());
    reference.set(&["uid"], owner.uid());
    reference.set(&["controller"], true);
    reference.set(&["blockOwnerDeletion"], true);
    reference
}

/// Whether `reference` makes `owner` the controller.
pub(crate) fn is_controller(reference: Option<&OwnerReference>, owner: &Object) -> bool {
    reference.is_some_and(|reference| reference.uid == owner.uid())
}

/// The beginning of `text`, of at most so many bytes.
pub(crate) fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// Now, as objects carry times.
pub(crate) fn now(env: &Env) -> String {
    seconds(env.now())
}

pub(crate) fn seconds(time: Timestamp) -> String {
    format!("{time:.0}")
}

/// The time that an object carries; absent and unreadable ones are the beginning of time.
pub(crate) fn time(text: Option<&str>) -> Timestamp {
    text.and_then(|text| text.parse().ok()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// How long it is from one time to another; nothing if that is not later.
pub(crate) fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// The object's `metadata.creationTimestamp`.
pub(crate) fn created(object: &Object) -> Timestamp {
    time(metadata(object).str_at(&["creationTimestamp"]))
}

/// The object's metadata, to look into.
pub(crate) fn metadata(object: &Object) -> Value {
    Value::parse(object.metadata_json()).unwrap_or_default()
}

/// A condition of a status.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Condition {
    pub r#type: String,
    pub status: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_update_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_transition_time: Option<String>,
}

impl Condition {
    pub(crate) fn new(r#type: &str, status: &str, reason: &str, message: impl Into<String>) -> Condition {
        Condition {
            r#type: r#type.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            ..Condition::default()
        }
    }

    pub(crate) fn find<'a>(conditions: &'a [Condition], r#type: &str) -> Option<&'a Condition> {
        conditions.iter().find(|condition| condition.r#type == r#type)
    }
}

/// Writes the members of `fields` (null: not there) over the status that is this controller's alone to write, unless they are
/// there already. Where the object is newer than `object`, they go over its newest state.
pub(crate) async fn write_status(
    client: &Client,
    resource: &Resource,
    object: &Arc<Object>,
    fields: Value,
) -> Result<(), Error> {
    let (mut current, mut retries) = (object.clone(), RETRIES);
    while let Some(told) = with_status(&current, &fields) {
        match client.update_status_brief(resource, &told).await {
            Err(error) if error.is_conflict() && retries > 0 => {
                current = newest(client, resource, object, error).await?;
                retries -= 1;
            }
            result => return result.map(drop),
        }
    }
    Ok(())
}

/// The same, for whoever goes on with the object as it is then.
pub(crate) async fn written_status(
    client: &Client,
    resource: &Resource,
    object: &Arc<Object>,
    fields: Value,
) -> Result<Arc<Object>, Error> {
    let (mut current, mut retries) = (object.clone(), RETRIES);
    loop {
        match write_status_at(client, resource, &current, &fields).await {
            Err(error) if error.is_conflict() && retries > 0 => {
                current = newest(client, resource, object, error).await?;
                retries -= 1;
            }
            result => return result,
        }
    }
}

/// Like [`written_status`], only at the revision of `object`: for a status that others write too.
pub(crate) async fn write_status_at(
    client: &Client,
    resource: &Resource,
    object: &Arc<Object>,
    fields: &Value,
) -> Result<Arc<Object>, Error> {
    match with_status(object, fields) {
        Some(told) => client.update_status(resource, &told).await,
        None => Ok(object.clone()),
    }
}

/// The object as it is after a conflict, which stays one if it is another of the same name.
async fn newest(client: &Client, resource: &Resource, object: &Object, conflict: Error) -> Result<Arc<Object>, Error> {
    let newest = client.get(resource, object.key()).await?;
    if newest.uid() == object.uid() { Ok(newest) } else { Err(conflict) }
}

/// The object with `fields` in its status, null ones taken out; `None` if it says all this.
fn with_status(object: &Object, fields: &Value) -> Option<Value> {
    let mut told = object.to_value();
    set_status(&mut told, fields).then_some(told)
}

/// Puts `fields` into the status of `object`, null ones are taken out; whether that changes it.
pub(crate) fn set_status(object: &mut Value, fields: &Value) -> bool {
    let mut changed = false;
    for (name, field) in fields.as_object().into_iter().flat_map(|fields| fields.iter()) {
        let path = ["status", name];
        if field.is_null() {
            changed |= object.remove(&path).is_some();
        } else if object.at(&path) != Some(field) {
            object.set(&path, field);
            changed = true;
        }
    }
    changed
}

/// How often a write is made again that met a newer object.
const RETRIES: usize = 3;

/// A number that is left out when it is 0, as upstream's status counters are.
pub(crate) fn count(n: i64) -> Value {
    if n == 0 { Value::Null } else { n.into() }
}

/// The default of numbers that are 1 unless said otherwise.
pub(crate) fn one() -> i64 {
    1
}

/// A list that is left out when it is empty.
pub(crate) fn list<T: Serialize>(items: &[T]) -> Value {
    if items.is_empty() {
        return Value::Null;
    }
    Value::from_serialize(&items).expect("views are plain data")
}

/// A number, or a percentage of `total`.
pub(crate) fn scaled(value: &Value, total: i64, round: fn(f64) -> f64) -> i64 {
    match value {
        Value::String(text) => {
            let percent: i64 = text.strip_suffix('%').and_then(|digits| digits.parse().ok()).unwrap_or_default();
            round(percent as f64 * total as f64 / 100.0) as i64
        }
        value => value.as_i64().unwrap_or_default(),
    }
}

/// `key` of the object's annotations.
pub(crate) fn annotation(object: &Object, key: &str) -> Option<String> {
    metadata(object).str_at(&["annotations", key]).map(str::to_owned)
}

/// The index of pods by the node they are bound to.
pub(crate) const NODE_INDEX: &str = "node";

/// For [`NODE_INDEX`].
pub(crate) fn by_node(pod: &Object) -> Vec<String> {
    node_of(pod).into_iter().collect()
}

/// What is read of an object by several handlers and indices, without managed fields: of the last few objects of each thread the parsed
/// form is kept, for a change of a pod is looked at by a dozen controllers in a row.
pub(crate) fn parsed(object: &Object) -> Arc<Value> {
    const KEPT: usize = 4;
    thread_local! {
        /// The object holds its body, so that the body's address is no other's.
        static LAST: RefCell<VecDeque<(Object, Arc<Value>)>> = const { RefCell::new(VecDeque::new()) };
    }
    let same =
        |other: &Object| other.revision() == object.revision() && std::ptr::eq(&**other.body(), &**object.body());
    LAST.with_borrow_mut(|last| {
        if let Some((_, value)) = last.iter().find(|(other, _)| same(other)) {
            return value.clone();
        }
        let value = Arc::new(object.to_unmanaged_value());
        last.truncate(KEPT - 1);
        last.push_front((object.clone(), value.clone()));
        value
    })
}

/// Whether the object's body has `word` in it, for what few objects have: the others need not be parsed.
pub(crate) fn mentions(object: &Object, word: &str) -> bool {
    std::str::from_utf8(object.body()).is_ok_and(|body| body.contains(word))
}

/// The node that the pod is bound to.
pub(crate) fn node_of(pod: &Object) -> Option<String> {
    let node = match pod.field("spec.nodeName") {
        Some(node) => Some(node.to_owned()),
        None => parsed(pod).str_at(&["spec", "nodeName"]).map(str::to_owned),
    };
    node.filter(|node| !node.is_empty())
}
