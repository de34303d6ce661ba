//! Recreate: all old pods go before the first new one comes. Upstream: recreate.go.

use client::{ReconcileError, Requeue};

use super::Rollout;
use crate::meta::CONTROLLER_INDEX;

impl Rollout<'_> {
    pub(super) async fn recreate(&mut self) -> Result<Requeue, ReconcileError> {
        self.find_new_replica_set().await?;
        let mut shrunk = false;
        for i in 0..self.old.len() {
            shrunk |= self.scale_old(i, 0).await?;
        }
        if shrunk || self.old_pods_run() {
            return self.write_rollout_status().await;
        }
        self.ensure_new_replica_set().await?;
        self.scale_new(self.deployment.spec.replicas).await?;
        if self.is_complete(&self.deployment.status) {
            self.clean_up().await?;
        }
        self.write_rollout_status().await
    }

    /// Whether a pod of an old set has not ended, or an old set says it has pods.
    fn old_pods_run(&self) -> bool {
        if self.old.iter().any(|set| set.status.replicas > 0) {
            return true;
        }
        let mut pods = self.old.iter().flat_map(|set| self.pods.by_index(CONTROLLER_INDEX, set.object.uid()));
        pods.any(|pod| {
            let value = pod.to_value();
            !matches!(value.str_at(&["status", "phase"]), Some("Succeeded" | "Failed"))
        })
    }
}
