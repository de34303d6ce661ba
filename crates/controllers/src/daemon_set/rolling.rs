//! The rollout: which old pods may go now, and which nodes may have a new one beside the old.

use super::Sync;
use super::manage::Plan;
use super::view::Daemon;

/// The pods of one node, those that are going left out. More than one of a kind is not sorted out yet.
enum OnNode<'a> {
    Pair { new: Option<&'a Daemon>, old: Option<&'a Daemon> },
    Crowd,
}

impl Sync<'_> {
    pub(super) fn roll(&self) -> Plan<'_> {
        let wanted = self.concerned_nodes().1;
        match self.set.limits(wanted) {
            (0, unavailable) => self.replace(unavailable),
            (surge, _) => self.surge(surge),
        }
    }

    fn on_node<'s>(&'s self, pods: &'s [Daemon]) -> OnNode<'s> {
        let (mut new, mut old) = (None, None);
        for pod in pods.iter().filter(|pod| !pod.is_going()) {
            let place = if pod.is_updated(self.set, &self.hash) { &mut new } else { &mut old };
            if place.replace(pod).is_some() {
                return OnNode::Crowd;
            }
        }
        OnNode::Pair { new, old }
    }

    fn is_available(&self, pod: &Daemon) -> bool {
        pod.is_available(self.set.min_ready(), self.now)
    }

    /// Old pods that are not available go at once, others as long as not too many are missing.
    fn replace(&self, limit: usize) -> Plan<'_> {
        let (mut unavailable, mut candidates) = (0, Vec::new());
        let mut plan = Plan::default();
        for node in self.concerned_nodes().0 {
            let pods = self.pods.get(node).map(Vec::as_slice).unwrap_or_default();
            match self.on_node(pods) {
                OnNode::Pair { new: None, old: Some(old) } if self.is_available(old) => {
                    if unavailable < limit {
                        candidates.push(old);
                    }
                }
                OnNode::Pair { new: None, old: Some(old) } => {
                    plan.delete.push(old);
                    unavailable += 1;
                }
                OnNode::Pair { new: Some(new), old: None } => unavailable += usize::from(!self.is_available(new)),
                OnNode::Pair { .. } | OnNode::Crowd => unavailable += 1,
            }
        }
        plan.delete.extend(candidates.into_iter().take(limit.saturating_sub(unavailable)));
        plan
    }

    /// Nodes whose old pod is not available get a new one at once, others as long as not too many have two. On nodes that no longer
    /// suit, the old pod stays until enough others are available.
    fn surge(&self, limit: usize) -> Plan<'_> {
        let (mut surging, mut available) = (0, 0);
        let (mut candidates, mut elsewhere) = (Vec::new(), Vec::new());
        let mut plan = Plan::default();
        let (nodes, wanted) = self.concerned_nodes();
        for node in nodes {
            let pods = self.pods.get(node).map(Vec::as_slice).unwrap_or_default();
            let OnNode::Pair { new, old } = self.on_node(pods) else {
                surging += 1;
                continue;
            };
            available += usize::from(old.or(new).is_some_and(|pod| self.is_available(pod)));
            let Some(old) = old else { continue };
            match new {
                Some(new) if self.is_available(new) => plan.delete.push(old),
                Some(_) => surging += 1,
                None => match (self.suits(node), self.is_available(old)) {
                    (true, false) => plan.create.push(node.to_owned()),
                    (true, true) if surging < limit => candidates.push(node.to_owned()),
                    (true, true) => {}
                    (false, false) => plan.delete.push(old),
                    (false, true) => elsewhere.push(old),
                },
            }
        }
        plan.delete.extend(elsewhere.into_iter().take(available.saturating_sub(wanted)));
        plan.create.extend(candidates.into_iter().take(limit.saturating_sub(surging)));
        plan
    }

    fn suits(&self, node: &str) -> bool {
        let known = self.nodes.iter().find(|known| known.metadata.name.as_deref() == Some(node));
        known.is_some_and(|node| self.set.fits(node).0)
    }
}
