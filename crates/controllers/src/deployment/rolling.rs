//! RollingUpdate: up with the new, down with the old, within the limits. Upstream: rolling.go.

use client::{ReconcileError, Requeue};

use super::Rollout;

impl Rollout<'_> {
    pub(super) async fn roll(&mut self) -> Result<Requeue, ReconcileError> {
        self.ensure_new_replica_set().await?;
        if !self.grow_new().await? && !self.shrink_old().await? && self.is_complete(&self.deployment.status) {
            self.clean_up().await?;
        }
        self.write_rollout_status().await
    }

    /// Whether the new set was given another size.
    async fn grow_new(&mut self) -> Result<bool, ReconcileError> {
        let Some(new) = self.new.clone() else { return Ok(false) };
        let wanted = self.deployment.spec.replicas;
        let size = if new.replicas > wanted { wanted } else { self.new_set_size(new.replicas) };
        self.scale_new(size).await
    }

    /// Whether an old set was given another size. What sets that are to have no pods any more still say of theirs counts for nothing.
    async fn shrink_old(&mut self) -> Result<bool, ReconcileError> {
        let active: Vec<usize> = (0..self.old.len()).filter(|i| self.old[*i].replicas > 0).collect();
        if active.is_empty() {
            return Ok(false);
        }
        let min_available = self.deployment.spec.replicas - self.deployment.max_unavailable();
        let total: i64 = self.all().map(|set| set.replicas).sum();
        let new_unavailable = self.new.as_ref().map_or(0, |new| new.replicas - new.status.available_replicas);
        let room = total - min_available - new_unavailable;
        if room <= 0 {
            return Ok(false);
        }
        // Pods that serve nobody go first: they would never make room for new ones.
        let Some(unhealthy) = self.shrink_unhealthy(&active, room).await? else { return Ok(false) };
        let healthy = self.shrink_healthy(&active, min_available).await?;
        Ok(unhealthy + healthy > 0)
    }

    /// How many pods fewer; `None` when a set says that more are available than it is to have: it has not taken notice of its size yet,
    /// and what is available in truth is not known before.
    async fn shrink_unhealthy(&mut self, active: &[usize], limit: i64) -> Result<Option<i64>, ReconcileError> {
        let mut removed = 0;
        for &i in active {
            if removed >= limit {
                break;
            }
            let set = &self.old[i];
            let unavailable = set.replicas - set.status.available_replicas;
            if unavailable < 0 {
                return Ok(None);
            }
            let surplus = unavailable.min(limit - removed);
            self.scale_old(i, set.replicas - surplus).await?;
            removed += surplus;
        }
        Ok(Some(removed))
    }

    async fn shrink_healthy(&mut self, active: &[usize], min_available: i64) -> Result<i64, ReconcileError> {
        let counted = active.iter().map(|&i| &self.old[i]).chain(&self.new);
        let limit = counted.map(|set| set.status.available_replicas).sum::<i64>() - min_available;
        let mut removed = 0;
        for &i in active {
            let surplus = self.old[i].replicas.min(limit - removed);
            if surplus <= 0 {
                continue;
            }
            self.scale_old(i, self.old[i].replicas - surplus).await?;
            removed += surplus;
        }
        Ok(removed)
    }
}
