//! Pods that were promised a node on which room is being made.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::pod::PodInfo;

/// Who was promised which node.
#[derive(Debug, Default)]
pub struct Nominator {
    by_node: Mutex<HashMap<String, Vec<Arc<PodInfo>>>>,
    /// Asked for each node of each attempt, so without the lock.
    count: AtomicUsize,
}

impl Nominator {
    /// Whether anybody was promised anything.
    pub fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Promises the node to the pod, in place of what it was promised before.
    pub fn set(&self, pod: Arc<PodInfo>, node: &str) {
        let mut nodes = self.by_node.lock();
        forget(&mut nodes, &pod.uid);
        if !node.is_empty() {
            nodes.entry(node.to_owned()).or_default().push(pod);
        }
        self.recount(&nodes);
    }

    /// Takes in a new state of a pod; its promise stays, or is what its status says.
    pub fn refresh(&self, pod: &Arc<PodInfo>) {
        let node = if pod.nominated.is_empty() { self.node_of(&pod.uid) } else { Some(pod.nominated.clone()) };
        if let Some(node) = node {
            self.set(pod.clone(), &node);
        }
    }

    pub fn remove(&self, uid: &str) {
        if self.any() {
            let mut nodes = self.by_node.lock();
            forget(&mut nodes, uid);
            self.recount(&nodes);
        }
    }

    fn recount(&self, nodes: &HashMap<String, Vec<Arc<PodInfo>>>) {
        self.count.store(nodes.values().map(Vec::len).sum(), Ordering::Release);
    }

    fn node_of(&self, uid: &str) -> Option<String> {
        let nodes = self.by_node.lock();
        nodes.iter().find(|(_, pods)| pods.iter().any(|pod| pod.uid == uid)).map(|(node, _)| node.clone())
    }

    /// Pods that were promised the node and that `pod` must not push aside.
    pub fn outranking(&self, node: &str, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        self.on(node, |other| other.priority >= pod.priority && other.uid != pod.uid)
    }

    /// Less important pods that were promised the node.
    pub fn outranked(&self, node: &str, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        self.on(node, |other| other.priority < pod.priority)
    }

    fn on(&self, node: &str, keep: impl Fn(&PodInfo) -> bool) -> Vec<Arc<PodInfo>> {
        let nodes = self.by_node.lock();
        nodes.get(node).into_iter().flatten().filter(|pod| keep(pod)).cloned().collect()
    }
}

fn forget(nodes: &mut HashMap<String, Vec<Arc<PodInfo>>>, uid: &str) {
    nodes.retain(|_, pods| {
        pods.retain(|pod| pod.uid != uid);
        !pods.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn promises_follow_the_pod() {
        let pod = |uid: &str, priority| Arc::new(PodInfo { uid: uid.into(), priority, ..PodInfo::default() });
        let nominator = Nominator::default();
        nominator.set(pod("a", 5), "n1");
        nominator.set(pod("b", 1), "n1");
        let uids = |pods: Vec<Arc<PodInfo>>| pods.iter().map(|pod| pod.uid.clone()).collect::<Vec<_>>();
        assert_eq!(uids(nominator.outranking("n1", &pod("c", 3))), ["a"]);
        assert_eq!(uids(nominator.outranked("n1", &pod("c", 3))), ["b"]);
        assert_eq!(uids(nominator.outranking("n1", &pod("a", 5))), [""; 0]);
        nominator.refresh(&pod("a", 2));
        assert_eq!(uids(nominator.outranking("n1", &pod("c", 3))), [""; 0]);
        nominator.set(pod("a", 5), "n2");
        assert!(nominator.outranking("n1", &pod("c", 3)).is_empty());
        nominator.remove("a");
        nominator.remove("b");
        assert!(!nominator.any());
    }
}
