//! `metadata`: what the server fills in, keeps and takes away.

use apimachinery::{Map, Status, Value};
use env::Env;
use jiff::Timestamp;

use super::Storage;

/// RFC 3339 in whole seconds, as `metadata` has it.
pub(crate) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Takes away what only the server says, before it is asked who says what. Upstream: rest.WipeObjectMetaSystemFields.
pub(super) fn wipe(new: &mut Value) {
    let metadata = metadata(new);
    for key in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "uid"] {
        metadata.remove(key);
    }
}

/// Completes a new object's metadata; its name is settled.
pub(super) fn begin(env: &Env, storage: &Storage, new: &mut Value) {
    let metadata = metadata(new);
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "managedFields"] {
        metadata.remove(key);
    }
    metadata.insert("uid", env.uuid());
    metadata.insert("creationTimestamp", timestamp(env.now()));
    if storage.strategy.has_generation() {
        metadata.insert("generation", 1);
    }
}

/// Refuses a revision given with a new object: only once all others have judged it, and only where it is stored. Upstream: storage/etcd3.
pub(super) fn refuse_revision(new: &mut Value, dry_run: bool) -> Result<(), Status> {
    match metadata(new).remove("resourceVersion") {
        Some(revision) if !dry_run && revision.as_str().is_some_and(|revision| !revision.is_empty()) => {
            let message = "resourceVersion should not be set on objects to be created";
            Err(Status::new(500, apimachinery::Reason::Unknown, message))
        }
        _ => Ok(()),
    }
}

/// Leaves one of each owner, and says which were given again. Upstream: dedupOwnerReferencesAndAddWarning.
pub(super) fn deduplicate_owners(new: &mut Value) -> Option<String> {
    let owners = new.items_at(&["metadata", "ownerReferences"]);
    let again: Vec<usize> = (1..owners.len()).filter(|i| owners[..*i].contains(&owners[*i])).collect();
    if again.is_empty() {
        return None;
    }
    let uids: Vec<&str> = again.iter().filter_map(|i| owners[*i].str_at(&["uid"])).collect();
    let warning = format!(
        ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject \
         such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
        uids.join(", ")
    );
    let kept = owners.iter().enumerate().filter(|(i, _)| !again.contains(i)).map(|(_, owner)| owner.clone());
    let kept: Vec<Value> = kept.collect();
    new.set(&["metadata", "ownerReferences"], kept);
    Some(warning)
}

/// Puts back what no update may change, where the client left it out.
pub(super) fn carry_over(new: &mut Value, old: &Value) {
    let metadata = metadata(new);
    for key in ["selfLink", "managedFields"] {
        metadata.remove(key);
    }
    let empty = |value: Option<&Value>| value.is_none_or(|value| value.is_null() || value.as_str() == Some(""));
    carry(metadata, old, "creationTimestamp");
    for key in ["uid", "namespace"] {
        if empty(metadata.get(key)) {
            carry(metadata, old, key);
        }
    }
    // A deletion that began is neither undone nor changed by an update; only a DELETE begins one.
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds"] {
        if old.at(&["metadata", "deletionTimestamp"]).is_some() || empty(metadata.get(key)) {
            carry(metadata, old, key);
        }
    }
    carry(metadata, old, "generation");
    if empty(metadata.get("resourceVersion")) {
        carry(metadata, old, "resourceVersion");
    }
}

/// Counts a change of anything but `metadata` and `status`.
pub(super) fn count_generation(storage: &Storage, new: &mut Value, old: &Value) {
    if !storage.strategy.has_generation() {
        return;
    }
    let with_status = storage.strategy.counts_status();
    if !desired(new, with_status).eq(desired(old, with_status)) {
        raise_generation(new);
    }
}

/// The members whose changes count.
fn desired(value: &Value, with_status: bool) -> impl Iterator<Item = (&str, &Value)> {
    let counts = move |key: &str| match key {
        "metadata" | "apiVersion" | "kind" => false,
        "status" => with_status,
        _ => true,
    };
    value.as_object().into_iter().flat_map(Map::iter).filter(move |(key, _)| counts(key))
}

/// Adds one to `metadata.generation` where it is kept.
pub(super) fn raise_generation(value: &mut Value) {
    let generation = value.i64_at(&["metadata", "generation"]).unwrap_or_default();
    if generation > 0 {
        value.set(&["metadata", "generation"], generation + 1);
    }
}

fn metadata(value: &mut Value) -> &mut apimachinery::Map {
    value.make_object().entry("metadata").make_object()
}

fn carry(metadata: &mut apimachinery::Map, old: &Value, key: &str) {
    match old.at(&["metadata", key]) {
        Some(value) => drop(metadata.insert(key.to_owned(), value)),
        None => drop(metadata.remove(key)),
    }
}
