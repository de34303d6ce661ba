//! Pods that were promised a node on which room is being made.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::pod::PodInfo;

/// Who was promised which node.
#[derive(Debug, Default)]
pub struct Nominator(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    promises: Arc<Promises>,
    /// The node that each pod was promised, by the pod's uid.
    nodes: HashMap<String, String>,
}

/// What was promised at one time: what an attempt goes by, which asks for each node.
#[derive(Clone, Debug, Default)]
pub struct Promises(HashMap<String, Vec<Arc<PodInfo>>>);

impl Nominator {
    /// What is promised now.
    pub fn promises(&self) -> Arc<Promises> {
        self.0.lock().promises.clone()
    }

    /// Promises the node to the pod, in place of what it was promised before.
    pub fn set(&self, pod: Arc<PodInfo>, node: &str) {
        self.0.lock().set(pod, node);
    }

    /// Takes in a new state of a pod. Its promise is what its status says; one that isn't written yet stays, one that was and isn't any more is none.
    pub fn refresh(&self, pod: &Arc<PodInfo>) {
        let mut state = self.0.lock();
        let node = if pod.nominated.is_empty() { state.unwritten(&pod.uid) } else { pod.nominated.clone() };
        state.set(pod.clone(), &node);
    }

    pub fn remove(&self, uid: &str) {
        self.0.lock().forget(uid);
    }
}

impl State {
    fn set(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.forget(&pod.uid);
        if !node.is_empty() {
            self.nodes.insert(pod.uid.clone(), node.to_owned());
            Arc::make_mut(&mut self.promises).0.entry(node.to_owned()).or_default().push(pod);
        }
    }

    /// The node that the pod was promised, if its status didn't say so; else empty.
    fn unwritten(&self, uid: &str) -> String {
        let Some(node) = self.nodes.get(uid) else { return String::new() };
        let mut promised = self.promises.0.get(node).into_iter().flatten();
        let written = promised.any(|pod| pod.uid == uid && !pod.nominated.is_empty());
        if written { String::new() } else { node.clone() }
    }

    fn forget(&mut self, uid: &str) {
        let Some(node) = self.nodes.remove(uid) else { return };
        let promises = &mut Arc::make_mut(&mut self.promises).0;
        if let Some(pods) = promises.get_mut(&node) {
            pods.retain(|pod| pod.uid != uid);
            if pods.is_empty() {
                promises.remove(&node);
            }
        }
    }
}

impl Promises {
    /// Pods that were promised the node and that `pod` must not push aside.
    pub fn outranking(&self, node: &str, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        self.on(node, |other| other.priority >= pod.priority && other.uid != pod.uid)
    }

    /// Less important pods that were promised the node.
    pub fn outranked(&self, node: &str, pod: &PodInfo) -> Vec<Arc<PodInfo>> {
        self.on(node, |other| other.priority < pod.priority)
    }

    fn on(&self, node: &str, keep: impl Fn(&PodInfo) -> bool) -> Vec<Arc<PodInfo>> {
        if self.0.is_empty() {
            return Vec::new();
        }
        self.0.get(node).into_iter().flatten().filter(|pod| keep(pod)).cloned().collect()
    }
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
        assert_eq!(uids(nominator.promises().outranking("n1", &pod("c", 3))), ["a"]);
        assert_eq!(uids(nominator.promises().outranked("n1", &pod("c", 3))), ["b"]);
        assert_eq!(uids(nominator.promises().outranking("n1", &pod("a", 5))), [""; 0]);
        nominator.refresh(&pod("a", 2));
        assert_eq!(uids(nominator.promises().outranking("n1", &pod("c", 3))), [""; 0]);
        // What the status said and somebody took back.
        let told = PodInfo { uid: "a".into(), priority: 5, nominated: "n1".into(), ..PodInfo::default() };
        nominator.refresh(&Arc::new(told));
        assert_eq!(uids(nominator.promises().outranking("n1", &pod("c", 3))), ["a"]);
        nominator.refresh(&pod("a", 5));
        assert_eq!(uids(nominator.promises().outranking("n1", &pod("c", 3))), [""; 0]);
        nominator.set(pod("a", 5), "n2");
        assert!(nominator.promises().outranking("n1", &pod("c", 3)).is_empty());
        nominator.remove("a");
        nominator.remove("b");
        assert!(nominator.promises().0.is_empty());
    }
}
