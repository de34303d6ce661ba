//! Who owns whom: of every object only what the collector asks for, so that a hundred thousand of them fit into little.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use apimachinery::{Object, ObjectKey, OwnerReference};
use client::{ApiResource, Keyed, KeyedSet, Resource};
use parking_lot::RwLock;

use super::{FOREGROUND, ORPHAN, defines_kinds, has_finalizer};

/// Plural and group.
pub(super) type Identity = (String, String);

/// An object to look at.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Item {
    pub resource: Arc<Identity>,
    pub key: ObjectKey,
    pub uid: String,
}

/// What is known of an object.
#[derive(Debug)]
pub(super) struct Node {
    pub item: Arc<Item>,
    revision: AtomicU64,
    pub owners: Box<[Arc<OwnerReference>]>,
    pub deleting: bool,
    pub foreground: bool,
    pub orphan: bool,
}

/// What became of an object.
#[derive(Debug)]
pub(super) enum Change {
    Added(Arc<Node>),
    Modified {
        old: Arc<Node>,
        new: Arc<Node>,
    },
    Deleted(Arc<Node>),
    /// What names an owner and the owner were both seen, in different namespaces.
    Abroad {
        dependent: Arc<Node>,
        owner: Arc<OwnerReference>,
    },
}

/// Every object of the followed resources.
#[derive(Default)]
pub(super) struct Graph(RwLock<State>);

#[derive(Default)]
struct State {
    kinds: BTreeMap<Arc<Identity>, Kind>,
    /// By their uids.
    items: KeyedSet<str, Item>,
    /// By the uid of their owner, which need not be there.
    dependents: BTreeMap<String, Dependents>,
}

struct Kind {
    resource: Resource,
    kind: String,
    /// Those that objects may be named in.
    versions: Vec<String>,
    /// Whether somebody tells of its objects.
    followed: bool,
    nodes: KeyedSet<ObjectKey, Node>,
}

#[derive(Default)]
struct Dependents {
    nodes: BTreeMap<Arc<Item>, Arc<Node>>,
    /// References in these words, which most dependents share.
    references: Vec<Arc<OwnerReference>>,
}

/// Wordings of one owner's references that are looked through for one to share.
const WORDINGS: usize = 4;

impl Node {
    pub(super) fn of(item: Arc<Item>, object: &Object) -> Node {
        Node {
            item,
            revision: object.revision().into(),
            owners: object.owners().iter().cloned().map(Arc::new).collect(),
            deleting: object.is_deleting(),
            foreground: has_finalizer(object, FOREGROUND),
            orphan: has_finalizer(object, ORPHAN),
        }
    }

    /// The newest that is known.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }

    /// Whether `newer` is judged as this was: so it is with most changes of most objects.
    fn stands_for(&self, newer: &Object) -> bool {
        let plain = !self.deleting && !self.foreground && !self.orphan;
        plain
            && !newer.is_deleting()
            && !newer.has_finalizers()
            && self.owners.iter().map(|owner| &**owner).eq(newer.owners())
    }

    /// Whether what was found out about this holds for the object as it is now.
    pub(super) fn is_judged_as(&self, now: &Object) -> bool {
        let now = Node::of(self.item.clone(), now);
        (self.deleting, self.foreground, self.orphan, &self.owners)
            == (now.deleting, now.foreground, now.orphan, &now.owners)
    }

    /// Whether the object is being deleted after its dependents.
    pub(super) fn waits_for_dependents(&self) -> bool {
        self.deleting && self.foreground
    }
}

impl Graph {
    /// Makes a resource known, or known anew: what was known of its objects stays.
    pub(super) fn add(&self, identity: &Arc<Identity>, api: &ApiResource, followed: bool) {
        let kinds = &mut self.0.write().kinds;
        let nodes = kinds.remove(identity).map(|known| known.nodes).unwrap_or_default();
        let (resource, kind, versions) = (api.resource.clone(), api.kind.clone(), api.versions.clone());
        kinds.insert(identity.clone(), Kind { resource, kind, versions, followed, nodes });
    }

    pub(super) fn retain(&self, keep: impl Fn(&Identity) -> bool) {
        let state = &mut *self.0.write();
        let gone: Vec<Arc<Identity>> = state.kinds.keys().filter(|identity| !keep(identity)).cloned().collect();
        for kind in gone.iter().filter_map(|identity| state.kinds.remove(identity)) {
            for node in kind.nodes.iter() {
                state.items.remove(&node.item.uid);
                unlink(&mut state.dependents, node);
            }
        }
    }

    /// Takes over the object's newest state. Two changes when it replaced another of the same name; none when it is not new.
    pub(super) fn put(&self, identity: &Arc<Identity>, object: &Object) -> Vec<Change> {
        let state = &mut *self.0.write();
        let State { kinds, items, dependents } = state;
        let Some(kind) = kinds.get_mut(identity) else { return Vec::new() };
        let old = kind.nodes.get(object.key()).cloned();
        let same = old.clone().filter(|old| old.item.uid == object.uid());
        if let Some(old) = &same {
            if old.revision() >= object.revision() {
                return Vec::new();
            }
            if old.stands_for(object) && !defines_kinds(identity) {
                old.revision.store(object.revision(), Ordering::Relaxed);
                return Vec::new();
            }
        }
        if let Some(old) = &old {
            kind.nodes.remove(object.key());
            items.remove(&old.item.uid);
            unlink(dependents, old);
        }
        let item = same.as_ref().map(|old| old.item.clone());
        let item = item.unwrap_or_else(|| {
            Arc::new(Item { resource: identity.clone(), key: object.key().clone(), uid: object.uid().to_owned() })
        });
        let new = link(dependents, Node::of(item, object));
        kind.nodes.put(new.clone());
        items.put(new.item.clone());
        let abroad = state.abroad(&new, same.as_deref());
        let mut changes = match (same, old) {
            (Some(old), _) => vec![Change::Modified { old, new }],
            (None, Some(old)) => vec![Change::Deleted(old), Change::Added(new)],
            (None, None) => vec![Change::Added(new)],
        };
        changes.extend(abroad);
        changes
    }

    pub(super) fn remove(&self, identity: &Arc<Identity>, key: &ObjectKey, uid: &str) -> Option<Change> {
        let State { kinds, items, dependents } = &mut *self.0.write();
        let kind = kinds.get_mut(identity)?;
        let node = kind.nodes.get(key).filter(|node| node.item.uid == uid)?.clone();
        kind.nodes.remove(key);
        items.remove(uid);
        unlink(dependents, &node);
        Some(Change::Deleted(node))
    }

    /// Takes over a complete list.
    pub(super) fn replace(&self, identity: &Arc<Identity>, objects: &[Arc<Object>]) -> Vec<Change> {
        let kept: BTreeSet<&ObjectKey> = objects.iter().map(|object| object.key()).collect();
        let gone: Vec<Arc<Item>> = {
            let state = self.0.read();
            let nodes = state.kinds.get(identity).into_iter().flat_map(|kind| kind.nodes.iter());
            nodes.map(|node| &node.item).filter(|item| !kept.contains(&item.key)).cloned().collect()
        };
        let mut changes: Vec<_> = gone.iter().filter_map(|item| self.remove(identity, &item.key, &item.uid)).collect();
        changes.extend(objects.iter().flat_map(|object| self.put(identity, object)));
        changes
    }

    pub(super) fn resource(&self, identity: &Identity) -> Option<Resource> {
        self.0.read().kinds.get(identity).map(|kind| kind.resource.clone())
    }

    /// The resource and the kind's name.
    pub(super) fn kind(&self, identity: &Identity) -> Option<(Resource, String)> {
        self.0.read().kinds.get(identity).map(|kind| (kind.resource.clone(), kind.kind.clone()))
    }

    pub(super) fn is_followed(&self, identity: &Identity) -> bool {
        self.0.read().kinds.get(identity).is_some_and(|kind| kind.followed)
    }

    pub(super) fn known(&self, item: &Item) -> Option<Arc<Node>> {
        self.0.read().known(item)
    }

    /// The object of this uid, by whatever name it was asked for.
    pub(super) fn of_uid(&self, uid: &str) -> Option<Arc<Node>> {
        let state = self.0.read();
        state.known(state.items.get(uid)?)
    }

    /// The objects that name `uid` as an owner.
    pub(super) fn dependents(&self, uid: &str) -> Vec<Arc<Node>> {
        let state = self.0.read();
        state.dependents.get(uid).into_iter().flat_map(|of_uid| of_uid.nodes.values().cloned()).collect()
    }

    /// Where the owner of `dependent` is to be found; `None` if its kind is not served in that version.
    pub(super) fn place(&self, dependent: &Node, owner: &OwnerReference) -> Option<(Resource, Item)> {
        let state = self.0.read();
        let (item, kind) = state.place(dependent, owner)?;
        Some((kind.resource.clone(), item))
    }

    /// The owner, if it is there.
    pub(super) fn owner(&self, dependent: &Node, owner: &OwnerReference) -> Option<Arc<Node>> {
        let state = self.0.read();
        let (item, _) = state.place(dependent, owner)?;
        state.known(&item)
    }
}

impl State {
    fn known(&self, item: &Item) -> Option<Arc<Node>> {
        let known = self.kinds.get(&item.resource)?.nodes.get(&item.key)?;
        Some(known.clone()).filter(|node| node.item.uid == item.uid)
    }

    /// Who, as `node` takes the place of `old`, turns out to name an owner in another namespace: it itself, or who names it.
    fn abroad(&self, node: &Arc<Node>, old: Option<&Node>) -> Vec<Change> {
        let named_before =
            |owner: &OwnerReference| old.is_some_and(|old| old.owners.iter().any(|o| o.uid == owner.uid));
        let is_abroad = |owner: &OwnerReference| {
            let item = self.items.get(&owner.uid);
            item.is_some_and(|item| is_namespaced(item) && item.key.namespace != node.item.key.namespace)
        };
        // One of its owners suffices to make it known.
        let its = node.owners.iter().find(|owner| !named_before(owner) && is_abroad(owner));
        let its = its.map(|owner| Change::Abroad { dependent: node.clone(), owner: owner.clone() });
        let of_node = self.dependents.get(&node.item.uid).filter(|_| old.is_none() && is_namespaced(&node.item));
        let others = of_node.into_iter().flat_map(|of_node| of_node.nodes.values());
        let others = others.filter(|dependent| dependent.item.key.namespace != node.item.key.namespace);
        let told = others.filter_map(|dependent| {
            let owner = dependent.owners.iter().find(|owner| owner.uid == node.item.uid)?.clone();
            Some(Change::Abroad { dependent: dependent.clone(), owner })
        });
        its.into_iter().chain(told).collect()
    }

    fn place(&self, dependent: &Node, owner: &OwnerReference) -> Option<(Item, &Kind)> {
        let (group, version) = owner.api_version.split_once('/').unwrap_or(("", &owner.api_version));
        let is_meant = |id: &Identity, kind: &Kind| {
            id.1 == group && kind.kind == owner.kind && kind.versions.iter().any(|served| served == version)
        };
        let (identity, kind) = self.kinds.iter().find(|(id, kind)| is_meant(id, kind))?;
        let namespace = if kind.resource.namespaced { &*dependent.item.key.namespace } else { "" };
        let key = ObjectKey::new(namespace, &*owner.name);
        Some((Item { resource: identity.clone(), key, uid: owner.uid.clone() }, kind))
    }
}

/// Enters the node under its owners.
fn link(dependents: &mut BTreeMap<String, Dependents>, mut node: Node) -> Arc<Node> {
    for owner in &mut node.owners {
        let known = &mut dependents.entry(owner.uid.clone()).or_default().references;
        match known.iter().find(|known| *known == owner) {
            Some(same) => *owner = same.clone(),
            None if known.len() < WORDINGS => known.push(owner.clone()),
            None => {}
        }
    }
    let node = Arc::new(node);
    for owner in &node.owners {
        if let Some(of_owner) = dependents.get_mut(&owner.uid) {
            of_owner.nodes.insert(node.item.clone(), node.clone());
        }
    }
    node
}

fn unlink(dependents: &mut BTreeMap<String, Dependents>, node: &Node) {
    for owner in &node.owners {
        let Some(of_owner) = dependents.get_mut(&owner.uid) else { continue };
        of_owner.nodes.remove(&node.item);
        if of_owner.nodes.is_empty() {
            dependents.remove(&owner.uid);
        }
    }
}

fn is_namespaced(item: &Item) -> bool {
    !item.key.namespace.is_empty()
}

impl Keyed<str> for Item {
    fn key(&self) -> &str {
        &self.uid
    }
}

impl Keyed<ObjectKey> for Node {
    fn key(&self) -> &ObjectKey {
        &self.item.key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(name: &str, uid: &str, revision: u64, owners: &[&str]) -> Object {
        let reference = |uid: &&str| format!(r#"{{"apiVersion":"v1","kind":"ConfigMap","name":"o","uid":"{uid}"}}"#);
        let owners: Vec<String> = owners.iter().map(reference).collect();
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"{uid}","resourceVersion":"{revision}","ownerReferences":[{}]}}}}"#,
            owners.join(",")
        );
        Object::parse(json.as_bytes()).unwrap()
    }

    fn config_maps() -> ApiResource {
        ApiResource {
            resource: client::resources::CONFIG_MAPS,
            kind: "ConfigMap".to_owned(),
            versions: vec!["v1".to_owned()],
            verbs: Vec::new(),
        }
    }

    fn told(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| match change {
            Change::Added(node) => format!("+{}", node.item.uid),
            Change::Modified { new, .. } => format!("~{}", new.item.uid),
            Change::Deleted(node) => format!("-{}", node.item.uid),
            Change::Abroad { dependent, owner } => format!("{} names {}", dependent.item.uid, owner.uid),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn the_graph_follows_changes() {
        let (graph, identity) = (Graph::default(), Arc::new(("configmaps".to_owned(), String::new())));
        graph.add(&identity, &config_maps(), true);
        let check = |changes: Vec<Change>, expect: &[&str], of_a: &[&str], of_b: &[&str]| {
            assert_eq!(told(&changes), expect);
            for (uid, expect) in [("a", of_a), ("b", of_b)] {
                let names: Vec<_> = graph.dependents(uid).iter().map(|node| node.item.key.name.clone()).collect();
                assert_eq!(names, expect, "dependents of {uid}");
            }
        };
        check(graph.put(&identity, &object("x", "1", 1, &["a"])), &["+1"], &["x"], &[]);
        check(graph.put(&identity, &object("y", "2", 2, &["a", "b"])), &["+2"], &["x", "y"], &["y"]);
        check(graph.put(&identity, &object("y", "2", 2, &[])), &[], &["x", "y"], &["y"]);
        check(graph.put(&identity, &object("y", "2", 3, &["b"])), &["~2"], &["x"], &["y"]);
        check(graph.put(&identity, &object("y", "2", 4, &["b"])), &[], &["x"], &["y"]);
        assert_eq!(graph.dependents("b")[0].revision(), 4);
        check(graph.put(&identity, &object("x", "3", 5, &["b"])), &["-1", "+3"], &[], &["x", "y"]);
        check(graph.remove(&identity, &ObjectKey::new("n", "x"), "1").into_iter().collect(), &[], &[], &["x", "y"]);
        let list = [Arc::new(object("z", "4", 5, &["a"])), Arc::new(object("y", "2", 3, &["b"]))];
        check(graph.replace(&identity, &list), &["-3", "+4"], &["z"], &["y"]);
        graph.retain(|_| false);
        check(Vec::new(), &[], &[], &[]);
    }

    #[test]
    fn owners_of_other_namespaces_are_found_out_once() {
        let (graph, identity) = (Graph::default(), Arc::new(("configmaps".to_owned(), String::new())));
        graph.add(&identity, &config_maps(), true);
        let elsewhere =
            Object::parse(br#"{"metadata":{"name":"o","namespace":"far","uid":"o","resourceVersion":"2"}}"#).unwrap();
        assert_eq!(told(&graph.put(&identity, &object("before", "1", 1, &["o"]))), ["+1"]);
        assert_eq!(told(&graph.put(&identity, &elsewhere)), ["+o", "1 names o"]);
        assert_eq!(told(&graph.put(&identity, &object("after", "2", 3, &["gone", "o"]))), ["+2", "2 names o"]);
        assert_eq!(told(&graph.put(&identity, &object("after", "2", 4, &["o"]))), ["~2"]);
        graph.remove(&identity, elsewhere.key(), "o");
        assert_eq!(told(&graph.put(&identity, &object("late", "3", 5, &["o"]))), ["+3"]);
    }

    #[test]
    fn references_in_the_same_words_are_kept_once() {
        let (graph, identity) = (Graph::default(), Arc::new(("configmaps".to_owned(), String::new())));
        graph.add(&identity, &config_maps(), true);
        for name in ["x", "y"] {
            graph.put(&identity, &object(name, name, 1, &["a"]));
        }
        let [x, y] = &*graph.dependents("a") else { panic!("two dependents") };
        assert!(Arc::ptr_eq(&x.owners[0], &y.owners[0]));
    }
}
