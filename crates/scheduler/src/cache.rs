//! The scheduler's picture of the nodes: what the informers tell, plus pods it has placed and not yet seen placed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Taint};
use rules::Resources;

use crate::framework::PodInfo;

/// A node and the pods on it.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    node: Arc<Node>,
    allocatable: Resources,
    requested: Resources,
    /// Like `requested`, with least amounts for pods that request nothing.
    scored_requests: Resources,
    pods: HashMap<String, Arc<PodInfo>>,
}

impl NodeInfo {
    pub fn new(node: Node) -> NodeInfo {
        NodeInfo { allocatable: rules::allocatable(&node), node: Arc::new(node), ..NodeInfo::default() }
    }

    pub fn node(&self) -> &Node {
        &self.node
    }

    pub fn name(&self) -> &str {
        self.node.metadata.name.as_deref().unwrap_or_default()
    }

    pub fn taints(&self) -> &[Taint] {
        self.node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
    }

    pub fn unschedulable(&self) -> bool {
        self.node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or_default()
    }

    pub fn allocatable(&self) -> &Resources {
        &self.allocatable
    }

    pub fn requested(&self) -> &Resources {
        &self.requested
    }

    pub fn scored_requests(&self) -> &Resources {
        &self.scored_requests
    }

    pub fn pods(&self) -> impl Iterator<Item = &Arc<PodInfo>> {
        self.pods.values()
    }

    /// Puts the pod on this node, in place of an earlier state of it.
    pub fn add(&mut self, pod: Arc<PodInfo>) {
        self.remove(&pod.uid.clone());
        self.requested.add(&pod.requests);
        self.scored_requests.add(&pod.scored_requests);
        self.pods.insert(pod.uid.clone(), pod);
    }

    /// Takes the pod off this node.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let pod = self.pods.remove(uid)?;
        self.requested.subtract(&pod.requests);
        self.scored_requests.subtract(&pod.scored_requests);
        Some(pod)
    }
}

/// All nodes, and where each pod is.
#[derive(Debug, Default)]
pub struct Cache {
    nodes: BTreeMap<String, Arc<NodeInfo>>,
    /// Node by pod uid, for pods on nodes that aren't known (yet) too.
    places: HashMap<String, String>,
    /// Pods on nodes that aren't known.
    homeless: HashMap<String, Arc<PodInfo>>,
}

impl Cache {
    pub fn nodes(&self) -> impl ExactSizeIterator<Item = &Arc<NodeInfo>> {
        self.nodes.values()
    }

    #[cfg(test)]
    fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.nodes.get(name)
    }

    /// Takes in a node's new state; returns what was known of it before, and what is now.
    pub fn set_node(&mut self, node: Node) -> (Option<Arc<NodeInfo>>, Arc<NodeInfo>) {
        let mut info = NodeInfo::new(node);
        let name = info.name().to_owned();
        let old = self.nodes.get(&name).cloned();
        match &old {
            Some(old) => {
                info.pods.clone_from(&old.pods);
                info.requested.clone_from(&old.requested);
                info.scored_requests.clone_from(&old.scored_requests);
            }
            None => {
                let here = |uid: &String| self.places.get(uid) == Some(&name);
                let uids: Vec<String> = self.homeless.keys().filter(|uid| here(uid)).cloned().collect();
                for pod in uids.iter().filter_map(|uid| self.homeless.remove(uid)) {
                    info.add(pod);
                }
            }
        }
        let info = Arc::new(info);
        self.nodes.insert(name, info.clone());
        (old, info)
    }

    /// Forgets a node; its pods stay known until they are gone themselves.
    pub fn remove_node(&mut self, name: &str) {
        if let Some(info) = self.nodes.remove(name) {
            self.homeless.extend(info.pods.iter().map(|(uid, pod)| (uid.clone(), pod.clone())));
        }
    }

    /// Puts a pod on a node: seen there, or about to be bound there.
    pub fn place(&mut self, pod: Arc<PodInfo>, node: &str) {
        if self.places.get(&pod.uid).is_some_and(|place| place != node) {
            self.remove(&pod.uid);
        }
        self.places.insert(pod.uid.clone(), node.to_owned());
        match self.nodes.get_mut(node) {
            Some(info) => Arc::make_mut(info).add(pod),
            None => drop(self.homeless.insert(pod.uid.clone(), pod)),
        }
    }

    /// Takes a pod off its node: gone, ended, or not bound after all.
    pub fn remove(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let node = self.places.remove(uid)?;
        match self.nodes.get_mut(&node) {
            Some(info) => Arc::make_mut(info).remove(uid),
            None => self.homeless.remove(uid),
        }
    }

    pub fn placed(&self, uid: &str) -> Option<&str> {
        self.places.get(uid).map(String::as_str)
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
}
