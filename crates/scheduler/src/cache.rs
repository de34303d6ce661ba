//! The scheduler's picture of the nodes: what the informers tell, plus pods it has placed and not yet seen placed.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use rules::NodeLabels;

use crate::node::{Common, NodeInfo};
use crate::pod::PodInfo;

/// All nodes, and where each pod is. Remembers what changed since a snapshot was taken.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<Arc<str>, Arc<NodeInfo>>,
    common: Common,
    places: HashMap<String, Place>,
    /// Pods on nodes that aren't known.
    homeless: HashMap<String, Arc<PodInfo>>,
    /// Names of nodes that changed, came or went.
    dirty: HashSet<Arc<str>>,
    /// Slots of nodes that went.
    free: Vec<u32>,
    slots: u32,
    /// Somebody asks for nodes as the API tells them.
    whole_nodes: bool,
}

/// Room for so many names of changed nodes is always kept.
const DIRTY: usize = 64;

/// Where a pod is, also on a node that isn't known (yet).
#[derive(Debug)]
struct Place {
    node: Arc<str>,
    /// Not seen there yet.
    assumed: bool,
}

impl Cache {
    /// `whole_nodes`: [`NodeInfo::whole`] is to be there.
    pub fn new(whole_nodes: bool) -> Cache {
        Cache { whole_nodes, ..Cache::default() }
    }

    #[cfg(test)]
    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name)
    }

    /// Takes in a node's new state; returns what was known of it before, and what is now.
    pub fn set_node(&mut self, node: Node) -> (Option<Arc<NodeInfo>>, Arc<NodeInfo>) {
        let old = self.nodes.get(node.name()).cloned();
        let mut info = match &old {
            Some(old) => NodeInfo::clone(old),
            None => NodeInfo::in_slot(self.free_slot()),
        };
        info.set(&node, &mut self.common);
        if self.whole_nodes {
            info.keep_whole(node);
        }
        let name = info.shared_name().clone();
        if old.is_none() {
            let here = |uid: &String| self.places.get(uid).is_some_and(|place| place.node == name);
            let mut uids: Vec<String> = self.homeless.keys().filter(|uid| here(uid)).cloned().collect();
            uids.sort_unstable();
            for pod in uids.iter().filter_map(|uid| self.homeless.remove(uid)) {
                info.add(pod);
            }
        }
        let info = Arc::new(info);
        self.nodes.insert(name.clone(), info.clone());
        self.dirty.insert(name);
        (old, info)
    }

    fn free_slot(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Forgets a node; its pods stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) -> Option<Arc<NodeInfo>> {
        let info = self.nodes.remove(name)?;
        self.free.push(info.slot);
        self.homeless.extend(info.pods().iter().map(|pod| (pod.uid.clone(), pod.clone())));
        self.dirty.insert(info.shared_name().clone());
        Some(info)
    }

    /// Takes a node's resources for a pod that is about to be bound there.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.put(pod, node, true);
    }

    /// Puts a pod where it was seen.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.put(pod, node, false);
    }

    fn put(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        if self.places.get(&pod.uid).is_some_and(|place| *place.node != *node) {
            self.remove(&pod.uid);
        }
        let known = self.nodes.get_mut(node);
        let name = known.as_ref().map_or_else(|| Arc::from(node), |info| info.shared_name().clone());
        self.places.insert(pod.uid.clone(), Place { node: name.clone(), assumed });
        match known {
            Some(info) => {
                Arc::make_mut(info).add(pod);
                self.dirty.insert(name);
            }
            None => drop(self.homeless.insert(pod.uid.clone(), pod)),
        }
    }

    /// An assumed pod was seen where it was assumed: nothing else changes. False: it isn't assumed there.
    pub fn confirm(&mut self, uid: &str, node: &str) -> bool {
        match self.places.get_mut(uid) {
            Some(place) if *place.node == *node => {
                place.assumed = false;
                true
            }
            _ => false,
        }
    }

    /// Takes a pod off its node: gone, ended, or not bound after all.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.places.remove(uid)?.node;
        match self.nodes.get_mut(&node) {
            Some(info) => {
                self.dirty.insert(node);
                Arc::make_mut(info).remove(uid)
            }
            None => self.homeless.remove(uid),
        }
    }

    /// Takes back what [`Cache::assume`] did, unless the pod was seen meanwhile.
    pub fn forget(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        self.places.get(uid).filter(|place| place.assumed)?;
        self.remove(uid)
    }

    /// The pod's state as it is on its node.
    pub fn pod(&self, uid: &str) -> Option<&Arc<PodInfo>> {
        let place = self.places.get(uid)?;
        match self.nodes.get(&place.node) {
            Some(info) => info.pod(uid),
            None => self.homeless.get(uid),
        }
    }

    /// The pods on nodes, known or not.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.nodes.values().flat_map(|node| node.pods()).chain(self.homeless.values())
    }

    /// The names of all nodes.
    pub fn node_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.nodes.keys()
    }

    /// The node where the pod is.
    pub fn placed(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(|place| &*place.node)
    }

    /// The nodes that changed since this was called last, sorted by name; `None`: gone.
    pub fn changes(&mut self) -> Vec<(Arc<str>, Option<Arc<NodeInfo>>)> {
        let mut names: Vec<Arc<str>> = self.dirty.drain().collect();
        // What the first list needed, what comes later doesn't; emptying it would take as long as if it were full.
        self.dirty.shrink_to(DIRTY);
        names.sort_unstable();
        names.into_iter().map(|name| (self.nodes.get(&name).cloned(), name)).map(|(node, name)| (name, node)).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::tests::pod;

    fn node(name: &str) -> Node {
        serde_json::from_value(json!({"metadata": {"name": name}, "status": {"allocatable": {"cpu": "4"}}})).unwrap()
    }

    fn asking(cpu: &str) -> Arc<PodInfo> {
        Arc::new(pod(json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})))
    }

    #[test]
    fn requests_follow_the_pods() {
        let mut cache = Cache::default();
        cache.place(asking("1"), "n1");
        let (old, now) = cache.set_node(node("n1"));
        assert!(old.is_none());
        assert_eq!(now.requested().milli_cpu, 1000);
        cache.place(asking("2"), "n1");
        let requested = |cache: &Cache, node: &str| cache.node(node).unwrap().requested().milli_cpu;
        assert_eq!(requested(&cache, "n1"), 2000);
        cache.set_node(node("n2"));
        cache.place(asking("2"), "n2");
        assert_eq!((requested(&cache, "n1"), requested(&cache, "n2")), (0, 2000));
        cache.remove_node("n2");
        cache.set_node(node("n2"));
        assert_eq!(requested(&cache, "n2"), 2000);
        cache.remove("u");
        assert_eq!((requested(&cache, "n2"), cache.placed("u")), (0, None));
    }

    #[test]
    fn only_assumed_pods_are_forgotten() {
        let mut cache = Cache::default();
        cache.set_node(node("n1"));
        cache.assume(asking("1"), "n1");
        assert!(cache.forget("u").is_some());
        cache.assume(asking("1"), "n1");
        assert!(cache.confirm("u", "n1") && !cache.confirm("u", "n2"));
        assert!(cache.forget("u").is_none());
        let names = |changes: Vec<(Arc<str>, Option<Arc<NodeInfo>>)>| changes.len();
        assert_eq!((names(cache.changes()), names(cache.changes())), (1, 0));
    }
}
