//! How long a kubelet may use Secrets and ConfigMaps without asking again grows with the cluster, and each node says so. Upstream:
//! pkg/controller/ttl.

use apimachinery::{ObjectKey, Value};
use client::{
    Controller, Event, IgnoreNotFound, Informer, PatchKind, ReconcileContext, ReconcileError, Requeue, Watch, resources,
};
use parking_lot::Mutex;

use crate::Setup;
use crate::meta::annotation;

const ANNOTATION: &str = "node.alpha.kubernetes.io/ttl";

/// From how many nodes down, and up to how many, a cluster has this many seconds: the ranges overlap, so that a node that comes and goes
/// changes nothing.
const STEPS: [(usize, usize, u32); 5] =
    [(0, 100, 0), (90, 500, 15), (450, 1000, 30), (900, 2000, 60), (1800, usize::MAX, 300)];

pub(crate) struct NodeTtl {
    nodes: Informer,
    step: Mutex<usize>,
}

impl NodeTtl {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        NodeTtl { nodes: setup.informers.of(&resources::NODES), step: Mutex::default() }
    }
}

/// The step of a cluster of this many nodes that had `step` before.
fn next(mut step: usize, nodes: usize) -> usize {
    while nodes > STEPS[step].1 {
        step += 1;
    }
    while nodes < STEPS[step].0 {
        step -= 1;
    }
    step
}

impl Controller for NodeTtl {
    fn name(&self) -> &'static str {
        "ttl-controller"
    }

    /// A node that comes or goes moves the others only where a step is passed.
    fn watches(&self) -> Vec<Watch> {
        let nodes = self.nodes.clone();
        let keys = move |event: &Event| {
            let is_edge =
                |count: usize| STEPS.iter().any(|(from, to, _)| count + 1 == *from || count == to.saturating_add(1));
            if !matches!(event, Event::Modified { .. }) && is_edge(nodes.len()) {
                return nodes.list("").iter().map(|node| node.key().clone()).collect();
            }
            vec![event.object().key().clone()]
        };
        vec![Watch::new(self.nodes.clone(), keys)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(node) = self.nodes.get(key) else { return Ok(Requeue::No) };
        let seconds = {
            let mut step = self.step.lock();
            *step = next(*step, self.nodes.len());
            STEPS[*step].2.to_string()
        };
        // A number that is there is changed by size alone; what is none is put right.
        if annotation(&node, ANNOTATION).is_some_and(|now| now == seconds) {
            return Ok(Requeue::No);
        }
        let mut patch = Value::object();
        patch.set(&["metadata", "annotations", ANNOTATION], seconds);
        ctx.client().patch(&resources::NODES, key, PatchKind::Merge, &patch).await.ignore_not_found()?;
        Ok(Requeue::No)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_sticky() {
        let check = |step, nodes, expect| assert_eq!(next(step, nodes), expect, "{step} {nodes}");
        check(0, 100, 0);
        check(0, 101, 1);
        check(1, 95, 1);
        check(1, 89, 0);
        check(0, 5000, 4);
        check(4, 1800, 4);
        check(4, 3, 0);
    }
}
