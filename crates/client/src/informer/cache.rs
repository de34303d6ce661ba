//! The objects an informer knows, by key and by indices.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use apimachinery::{Object, ObjectKey};

use super::Event;
use crate::keyed::{Keyed, KeyedSet};

#[derive(Default)]
pub(super) struct Cache {
    objects: KeyedSet<ObjectKey, Object>,
    indices: Vec<Index>,
}

struct Index {
    name: &'static str,
    values: fn(&Object) -> Vec<String>,
    entries: BTreeMap<String, KeyedSet<ObjectKey, Object>>,
}

impl Keyed<ObjectKey> for Object {
    fn key(&self) -> &ObjectKey {
        Object::key(self)
    }
}

impl Cache {
    pub(super) fn get(&self, key: &ObjectKey) -> Option<Arc<Object>> {
        self.objects.get(key).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn list(&self, namespace: &str) -> Vec<Arc<Object>> {
        if namespace.is_empty() {
            return self.objects.iter().cloned().collect();
        }
        let first = ObjectKey::new(namespace, "");
        let here = |object: &&Arc<Object>| object.namespace() == namespace;
        self.objects.iter_from(&first).take_while(here).cloned().collect()
    }

    pub(super) fn by_index(&self, name: &str, value: &str) -> Vec<Arc<Object>> {
        let index = self.indices.iter().find(|index| index.name == name);
        let entries = index.unwrap_or_else(|| panic!("no index {name:?} was added")).entries.get(value);
        entries.into_iter().flat_map(KeyedSet::iter).cloned().collect()
    }

    pub(super) fn add_index(&mut self, name: &'static str, values: fn(&Object) -> Vec<String>) {
        if self.indices.iter().any(|index| index.name == name) {
            return;
        }
        let mut index = Index { name, values, entries: BTreeMap::new() };
        self.objects.iter().for_each(|object| index.add(object));
        self.indices.push(index);
    }

    /// Takes over the object's newest state. Two events when it replaced another of the same name; none when it is not new.
    pub(super) fn put(&mut self, new: Arc<Object>) -> Vec<Event> {
        let new = self.with_shared_parts(new);
        let Some(old) = self.get(new.key()) else {
            self.insert(new.clone());
            return vec![Event::Added(new)];
        };
        if old.uid() != new.uid() {
            self.forget(&old);
            self.insert(new.clone());
            return vec![Event::Deleted(old), Event::Added(new)];
        }
        if old.revision() >= new.revision() {
            return Vec::new();
        }
        self.indices.iter_mut().for_each(|index| index.update(&old, &new));
        self.objects.put(new.clone());
        vec![Event::Modified { old, new }]
    }

    pub(super) fn remove(&mut self, last: Arc<Object>) -> Option<Event> {
        let known = self.get(last.key()).filter(|known| known.uid() == last.uid())?;
        self.forget(&known);
        Some(Event::Deleted(last))
    }

    /// Takes over a complete list.
    pub(super) fn replace(&mut self, items: Vec<Arc<Object>>) -> Vec<Event> {
        let kept: BTreeSet<&ObjectKey> = items.iter().map(|object| object.key()).collect();
        let gone: Vec<_> = self.objects.iter().filter(|object| !kept.contains(object.key())).cloned().collect();
        drop(kept); // parts are shared of what nobody else has
        let mut events = Vec::with_capacity(gone.len() + items.len());
        for object in gone {
            self.forget(&object);
            events.push(Event::Deleted(object));
        }
        for object in items {
            // A list may be older than an event seen before it; a list of a restored store may not.
            events.extend(self.put(object));
        }
        events
    }

    /// The object, with what it has in common with its older state, or with the object before it: a set's pods have names that follow each other.
    /// One that is a server's in this process is left as it is.
    fn with_shared_parts(&self, mut object: Arc<Object>) -> Arc<Object> {
        let like = self.objects.last_up_to(object.key()).cloned();
        if let (Some(like), Some(object)) = (like, Arc::get_mut(&mut object)) {
            object.share_with(&like);
        }
        object
    }

    fn insert(&mut self, object: Arc<Object>) {
        self.indices.iter_mut().for_each(|index| index.add(&object));
        self.objects.put(object);
    }

    fn forget(&mut self, object: &Arc<Object>) {
        self.indices.iter_mut().for_each(|index| index.remove(object));
        self.objects.remove(object.key());
    }
}

impl Index {
    fn add(&mut self, object: &Arc<Object>) {
        (self.values)(object).into_iter().for_each(|value| self.enter(value, object));
    }

    /// Most changes of an object change nothing that it is found under.
    fn update(&mut self, old: &Arc<Object>, new: &Arc<Object>) {
        let values = (self.values)(new);
        (self.values)(old).iter().filter(|value| !values.contains(value)).for_each(|value| self.leave(value, old));
        values.into_iter().for_each(|value| self.enter(value, new));
    }

    fn remove(&mut self, object: &Arc<Object>) {
        (self.values)(object).iter().for_each(|value| self.leave(value, object));
    }

    fn enter(&mut self, value: String, object: &Arc<Object>) {
        self.entries.entry(value).or_default().put(object.clone());
    }

    fn leave(&mut self, value: &str, object: &Arc<Object>) {
        if let Some(entries) = self.entries.get_mut(value) {
            entries.remove(object.key());
            if entries.is_empty() {
                self.entries.remove(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(namespace: &str, name: &str, uid: &str, revision: u64) -> Arc<Object> {
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"{namespace}","uid":"{uid}","resourceVersion":"{revision}"}}}}"#
        );
        Arc::new(Object::parse(json.as_bytes()).unwrap())
    }

    fn told(events: &[Event]) -> Vec<String> {
        let kind = |event: &Event| match event {
            Event::Added(_) => "+",
            Event::Modified { .. } => "~",
            Event::Deleted(_) => "-",
        };
        events.iter().map(|event| format!("{}{}", kind(event), event.object().name())).collect()
    }

    #[test]
    fn a_list_is_told_as_the_difference() {
        let mut cache = Cache::default();
        let first = [object("n", "a", "1", 1), object("n", "b", "2", 2), object("m", "c", "3", 3)];
        assert_eq!(told(&cache.replace(first.to_vec())), ["+a", "+b", "+c"]);
        let second = vec![object("n", "a", "1", 1), object("n", "b", "9", 7), object("m", "d", "4", 8)];
        assert_eq!(told(&cache.replace(second)), ["-c", "-b", "+b", "+d"]);
        assert_eq!(cache.list("n").len(), 2);
        assert_eq!(cache.list("").len(), 3);
    }

    #[test]
    fn indices_follow_changes() {
        let mut cache = Cache::default();
        cache.put(object("n", "a", "1", 1));
        cache.add_index("uid", |object| vec![object.uid().to_owned()]);
        cache.put(object("n", "b", "1", 2));
        assert_eq!(cache.by_index("uid", "1").len(), 2);
        assert!(cache.put(object("n", "a", "1", 1)).is_empty());
        cache.put(object("n", "a", "2", 3));
        assert_eq!((cache.by_index("uid", "1").len(), cache.by_index("uid", "2").len()), (1, 1));
        assert!(cache.remove(object("n", "a", "old", 4)).is_none());
        assert!(cache.remove(object("n", "a", "2", 5)).is_some());
        assert!(cache.by_index("uid", "2").is_empty());
    }
    #[test]
    fn objects_made_alike_share_what_is_read_of_them() {
        let pod = |name: &str, revision: u64, phase: &str| {
            let json = format!(
                r#"{{"kind":"Pod","metadata":{{"labels":{{"app":"web"}},"name":"{name}","namespace":"n","resourceVersion":"{revision}","uid":"{name}"}},"status":"{phase}"}}"#
            );
            Arc::new(Object::parse(json.as_bytes()).unwrap())
        };
        let mut cache = Cache::default();
        cache.replace(vec![pod("web-a", 1, ""), pod("web-b", 2, "")]);
        cache.put(pod("web-b", 3, "Running"));
        let theirs = pod("web-c", 4, "");
        cache.put(theirs.clone());
        let labels: Vec<_> = cache.list("n").iter().map(|pod| pod.labels().as_ptr()).collect();
        assert!(labels[0] == labels[1] && labels[1] != labels[2]);
        assert!(Arc::ptr_eq(&cache.list("n")[2], &theirs));
    }
}
