//! The fake server's objects and their history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status, Value};
use env::Env;

use super::target::Target;
use crate::{Resource, WatchEvent};

#[derive(Default)]
pub(super) struct World {
    revision: u64,
    compacted: u64,
    objects: BTreeMap<Collection, BTreeMap<ObjectKey, Arc<Object>>>,
    history: BTreeMap<Collection, Vec<Change>>,
    /// Plurals of what changed since somebody asked.
    changed: BTreeSet<String>,
    served: Vec<(Resource, String)>,
}

/// Group and plural.
type Collection = (String, String);

struct Change {
    revision: u64,
    before: Option<Arc<Object>>,
    event: WatchEvent,
}

impl World {
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn served(&self) -> impl Iterator<Item = (&Resource, &str)> {
        self.served.iter().map(|(resource, kind)| (resource, kind.as_str()))
    }

    pub(super) fn serve(&mut self, resource: &Resource, kind: &str) {
        self.served.push((resource.clone(), kind.to_owned()));
    }

    pub(super) fn unserve(&mut self, resource: &Resource) {
        self.served.retain(|(served, _)| served != resource);
    }

    pub(super) fn compact(&mut self) {
        self.revision += 1;
        self.compacted = self.revision;
        self.history.clear();
    }

    pub(super) fn covers(&self, revision: u64) -> bool {
        revision >= self.compacted
    }

    pub(super) fn get(&self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.get(&collection(resource))?.get(key).cloned()
    }

    pub(super) fn list(&self, resource: &Resource) -> Vec<Arc<Object>> {
        self.objects.get(&collection(resource)).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(super) fn history(&self, resource: &Resource, from: u64) -> Vec<(u64, Option<Arc<Object>>, WatchEvent)> {
        let Some(history) = self.history.get(&collection(resource)) else { return Vec::new() };
        let first = history.partition_point(|change| change.revision <= from);
        history[first..].iter().map(|change| (change.revision, change.before.clone(), change.event.clone())).collect()
    }

    /// Plurals of what changed since this was asked last.
    pub(super) fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    fn note(&mut self, collection: Collection, before: Option<Arc<Object>>, event: WatchEvent) {
        self.changed.insert(collection.1.clone());
        self.history.entry(collection).or_default().push(Change { revision: self.revision, before, event });
    }

    pub(super) fn put(&mut self, env: &Env, resource: &Resource, mut value: Value) -> Arc<Object> {
        if value.str_at(&["metadata", "uid"]).is_none() {
            value.set(&["metadata", "uid"], env.uuid());
        }
        if value.str_at(&["metadata", "creationTimestamp"]).is_none() {
            value.set(&["metadata", "creationTimestamp"], now(env));
        }
        self.revision += 1;
        let object = Arc::new(Object::new(&value, self.revision).expect("test objects have metadata"));
        let collection = collection(resource);
        let before = self.objects.entry(collection.clone()).or_default().insert(object.key().clone(), object.clone());
        let event = match before {
            None => WatchEvent::Added(object.clone()),
            Some(_) => WatchEvent::Modified(object.clone()),
        };
        self.note(collection, before, event);
        object
    }

    pub(super) fn remove(&mut self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Object>> {
        let collection = collection(resource);
        let last = self.objects.get_mut(&collection)?.remove(key)?;
        self.revision += 1;
        let event = WatchEvent::Deleted(Arc::new(last.at_revision(self.revision)));
        self.note(collection, Some(last.clone()), event);
        Some(last)
    }

    pub(super) fn find(&self, target: &Target) -> Result<Arc<Object>, Status> {
        let missing = || Status::not_found(&target.resource().group_resource(), &target.name);
        self.get(&target.resource(), &target.key()).ok_or_else(missing)
    }

    pub(super) fn create(&mut self, env: &Env, target: &Target, mut body: Value) -> Result<Arc<Object>, Status> {
        let name = body.str_at(&["metadata", "name"]).unwrap_or_default();
        if name.is_empty() {
            let generated =
                body.str_at(&["metadata", "generateName"]).map(|prefix| prefix.to_owned() + &env.name_suffix(5));
            body.set(
                &["metadata", "name"],
                generated.ok_or_else(|| Status::bad_request("name or generateName is required"))?,
            );
        }
        if !target.namespace.is_empty() {
            body.set(&["metadata", "namespace"], &target.namespace);
        }
        body.remove(&["metadata", "uid"]);
        body.remove(&["metadata", "resourceVersion"]);
        if body.get("spec").is_some() {
            body.set(&["metadata", "generation"], 1);
        }
        let resource = target.resource();
        let name = body.str_at(&["metadata", "name"]).unwrap_or_default();
        if self.get(&resource, &ObjectKey::new(&*target.namespace, name)).is_some() {
            return Err(Status::already_exists(&resource.group_resource(), name));
        }
        Ok(self.put(env, &resource, body))
    }

    pub(super) fn update(&mut self, env: &Env, target: &Target, mut body: Value) -> Result<Arc<Object>, Status> {
        let current = self.find(target)?;
        let resource = target.resource();
        let asked = body.str_at(&["metadata", "resourceVersion"]).unwrap_or_default();
        let asked_uid = body.str_at(&["metadata", "uid"]).unwrap_or_default();
        if !asked.is_empty() && asked != current.revision().to_string()
            || !asked_uid.is_empty() && asked_uid != current.uid()
        {
            return Err(Status::modified(&resource.group_resource(), &target.name));
        }
        let old = current.to_value();
        // A subresource changes its own part; a plain update leaves the status alone where there is one.
        let take = |into: &mut Value, from: &Value, field: &str| match from.get(field) {
            Some(part) => into.set(&[field], part),
            None => drop(into.remove(&[field])),
        };
        match target.subresource.as_str() {
            "status" => {
                let mut kept = old.clone();
                take(&mut kept, &body, "status");
                // Of the metadata, annotations may change with the status.
                match body.at(&["metadata", "annotations"]) {
                    Some(annotations) => kept.set(&["metadata", "annotations"], annotations),
                    None => drop(kept.remove(&["metadata", "annotations"])),
                }
                body = kept;
            }
            "scale" => {
                let replicas = body.i64_at(&["spec", "replicas"]).unwrap_or_default();
                body = old.clone();
                body.set(&["spec", "replicas"], replicas);
            }
            "finalize" => {}
            _ if old.get("status").is_some() => take(&mut body, &old, "status"),
            _ => {}
        }
        for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds"] {
            match old.at(&["metadata", field]) {
                Some(value) => body.set(&["metadata", field], value),
                None => drop(body.remove(&["metadata", field])),
            }
        }
        if old.get("spec") != body.get("spec") {
            body.set(&["metadata", "generation"], current.generation() + 1);
        }
        body.set(&["metadata", "resourceVersion"], current.revision().to_string());
        if body == old {
            return Ok(current);
        }
        let updated = self.put(env, &resource, body);
        if updated.is_deleting() && !updated.has_finalizers() && !self.lingers(&updated) {
            self.remove(&resource, updated.key());
        }
        Ok(updated)
    }

    pub(super) fn delete(&mut self, env: &Env, target: &Target, options: &Value) -> Result<Arc<Object>, Status> {
        let current = self.find(target)?;
        let resource = target.resource();
        let wanted = options.str_at(&["preconditions", "uid"]).unwrap_or_default();
        if !wanted.is_empty() && wanted != current.uid() {
            let why =
                format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {}", current.uid());
            return Err(Status::conflict(&resource.group_resource(), &target.name, &why));
        }
        let wanted = options.str_at(&["preconditions", "resourceVersion"]).unwrap_or_default();
        let found = current.revision().to_string();
        if !wanted.is_empty() && wanted != found {
            let why = format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {found}"
            );
            return Err(Status::conflict(&resource.group_resource(), &target.name, &why));
        }
        let mut value = current.to_value();
        let finalizer = match options.str_at(&["propagationPolicy"]) {
            Some("Foreground") => Some("foregroundDeletion"),
            Some("Orphan") => Some("orphan"),
            _ => None,
        };
        if let Some(finalizer) = finalizer {
            let mut finalizers = value.items_at(&["metadata", "finalizers"]).to_vec();
            if !finalizers.iter().any(|known| known.as_str() == Some(finalizer)) {
                finalizers.push(finalizer.into());
                value.set(&["metadata", "finalizers"], Value::Array(finalizers));
            }
        }
        let default = value.i64_at(&["spec", "terminationGracePeriodSeconds"]).unwrap_or(30);
        let grace = match resource.plural.as_ref() {
            "pods" if value.str_at(&["spec", "nodeName"]).is_some() => {
                options.i64_at(&["gracePeriodSeconds"]).unwrap_or(default)
            }
            _ => 0,
        };
        let waits =
            !value.items_at(&["metadata", "finalizers"]).is_empty() || resource.plural == "namespaces" || grace > 0;
        if !waits {
            self.remove(&resource, current.key());
            return Ok(current);
        }
        if !current.is_deleting() {
            value.set(&["metadata", "deletionTimestamp"], now(env));
        }
        value.set(&["metadata", "deletionGracePeriodSeconds"], grace);
        if value == current.to_value() {
            return Ok(current);
        }
        Ok(self.put(env, &resource, value))
    }

    pub(super) fn delete_collection(&mut self, env: &Env, target: &Target, options: &Value) {
        for object in self.list(&target.resource()).iter().filter(|object| object.namespace() == target.namespace) {
            let one = Target { name: object.name().to_owned(), ..target.clone() };
            drop(self.delete(env, &one, options));
        }
    }

    pub(super) fn subresource(&mut self, env: &Env, target: &Target, body: Value) -> Result<Status, Status> {
        let current = self.find(target)?;
        match target.subresource.as_str() {
            "binding" => {
                let mut value = current.to_value();
                value.set(&["spec", "nodeName"], body.str_at(&["target", "name"]).unwrap_or_default());
                self.put(env, &target.resource(), value);
            }
            "eviction" => {
                let options = body.get("deleteOptions").cloned().unwrap_or_else(Value::object);
                self.delete(env, target, &options)?;
            }
            _ => return Err(Status::not_found(&target.resource().group_resource(), &target.name)),
        }
        Ok(Status::new(201, apimachinery::Reason::Unknown, ""))
    }

    /// A pod waits for its kubelet.
    fn lingers(&self, object: &Object) -> bool {
        object.to_value().i64_at(&["metadata", "deletionGracePeriodSeconds"]).unwrap_or_default() > 0
            || object.kind() == "Namespace" && !object.to_value().items_at(&["spec", "finalizers"]).is_empty()
    }
}

fn collection(resource: &Resource) -> Collection {
    (resource.group.to_string(), resource.plural.to_string())
}

fn now(env: &Env) -> String {
    format!("{:.0}", env.now())
}
