//! Giving ReplicaSets their size. Upstream: sync.go scale.

use apimachinery::Value;
use client::ReconcileError;

use super::Rollout;
use super::history::size_annotations;
use super::view::{Deployment, ReplicaSet};

impl Rollout<'_> {
    /// Whether the new set was given another size.
    pub(super) async fn scale_new(&mut self, size: i64) -> Result<bool, ReconcileError> {
        let Some(set) = self.new.as_ref().filter(|set| set.replicas != size) else { return Ok(false) };
        self.new = Some(self.scale_set(set, size).await?);
        Ok(true)
    }

    /// Whether the old set was given another size.
    pub(super) async fn scale_old(&mut self, i: usize, size: i64) -> Result<bool, ReconcileError> {
        if self.old[i].replicas == size {
            return Ok(false);
        }
        self.old[i] = self.scale_set(&self.old[i], size).await?;
        Ok(true)
    }

    /// Writes size and size annotations.
    async fn scale_set(&self, set: &ReplicaSet, size: i64) -> Result<ReplicaSet, ReconcileError> {
        let mut patch = Value::object();
        for (name, value) in size_annotations(&self.deployment) {
            if set.annotations.get(&name) != Some(&value) {
                patch.set(&["metadata", "annotations", &name], value);
            }
        }
        if set.replicas != size {
            patch.set(&["spec", "replicas"], size);
        }
        if patch.as_object().is_some_and(|patch| patch.is_empty()) {
            return Ok(set.clone());
        }
        let scaled = self.patch_set(set, patch).await?;
        if set.replicas != size {
            let way = if size > set.replicas { "up" } else { "down" };
            let message = format!("Scaled {way} replica set {} from {} to {size}", set.name(), set.replicas);
            self.events.normal(&self.deployment.object, "ScalingReplicaSet", message);
        }
        Ok(scaled)
    }

    /// Shares the Deployment's size out among the sets as they are, without rolling on.
    pub(super) async fn scale(&mut self) -> Result<(), ReconcileError> {
        let wanted = self.deployment.spec.replicas;
        match self.only_active() {
            Active::One(position) => {
                let set = self.at(position);
                if set.replicas != wanted {
                    let scaled = self.scale_set(set, wanted).await?;
                    *self.at_mut(position) = scaled;
                }
                return Ok(());
            }
            Active::None => return Ok(()),
            Active::Several => {}
        }
        let saturated = self.new.as_ref().is_some_and(|new| {
            new.replicas == wanted && new.desired() == Some(wanted) && new.status.available_replicas == wanted
        });
        if saturated {
            for i in 0..self.old.len() {
                self.scale_old(i, 0).await?;
            }
            return Ok(());
        }
        if self.deployment.is_rolling() {
            self.scale_in_proportion().await?;
        }
        Ok(())
    }

    async fn scale_in_proportion(&mut self) -> Result<(), ReconcileError> {
        let wanted = self.deployment.spec.replicas;
        let mut positions: Vec<Position> = self.positions().filter(|p| self.at(*p).replicas > 0).collect();
        let total: i64 = positions.iter().map(|p| self.at(*p).replicas).sum();
        let allowed = if wanted > 0 { wanted + self.deployment.max_surge() } else { 0 };
        let change = allowed - total;
        // The largest first; of the same size the newer first when growing, the older first when shrinking.
        positions.sort_by(|a, b| {
            let (a, b) = (self.at(*a), self.at(*b));
            let by_age = a.created.cmp(&b.created).then_with(|| a.name().cmp(b.name()));
            b.replicas.cmp(&a.replicas).then(if change > 0 { by_age.reverse() } else { by_age })
        });
        let sets: Vec<&ReplicaSet> = positions.iter().map(|p| self.at(*p)).collect();
        let sizes = share_out(&self.deployment, &sets, change);
        for (position, size) in positions.into_iter().zip(sizes) {
            let scaled = self.scale_set(self.at(position), size).await?;
            *self.at_mut(position) = scaled;
        }
        Ok(())
    }

    fn only_active(&self) -> Active {
        let active: Vec<Position> = self.positions().filter(|p| self.at(*p).replicas > 0).collect();
        match *active {
            [] if self.new.is_some() => Active::One(Position::New),
            // Old ones are sorted by age: the last is the latest.
            [] if !self.old.is_empty() => Active::One(Position::Old(self.old.len() - 1)),
            [] => Active::None,
            [one] => Active::One(one),
            _ => Active::Several,
        }
    }

    fn positions(&self) -> impl Iterator<Item = Position> + use<> {
        (0..self.old.len()).map(Position::Old).chain(self.new.as_ref().map(|_| Position::New))
    }

    fn at(&self, position: Position) -> &ReplicaSet {
        match position {
            Position::Old(i) => &self.old[i],
            Position::New => self.new.as_ref().expect("a position of what is there"),
        }
    }

    fn at_mut(&mut self, position: Position) -> &mut ReplicaSet {
        match position {
            Position::Old(i) => &mut self.old[i],
            Position::New => self.new.as_mut().expect("a position of what is there"),
        }
    }
}

#[derive(Clone, Copy)]
enum Position {
    Old(usize),
    New,
}

enum Active {
    None,
    One(Position),
    Several,
}

/// New sizes of `sets` (sorted, the first takes what rounding leaves) that sum up to `change` more.
fn share_out(deployment: &Deployment, sets: &[&ReplicaSet], change: i64) -> Vec<i64> {
    let mut added = 0;
    let mut sizes: Vec<i64> = Vec::with_capacity(sets.len());
    for set in sets {
        let left = change - added;
        let part = if set.replicas == 0 || left == 0 { 0 } else { fraction(deployment, set) };
        let part = if change > 0 { part.min(left) } else { part.max(left) };
        sizes.push(set.replicas + part);
        added += part;
    }
    if change != 0
        && let Some(first) = sizes.first_mut()
    {
        *first = (*first + change - added).max(0);
    }
    sizes
}

/// What the set's size becomes by rule of three, less its present one.
fn fraction(deployment: &Deployment, set: &ReplicaSet) -> i64 {
    if deployment.spec.replicas == 0 {
        return -set.replicas;
    }
    let allowed = deployment.spec.replicas + deployment.max_surge();
    let before = set.max_replicas().filter(|n| *n != 0).unwrap_or(deployment.status.replicas);
    if before == 0 {
        return 0;
    }
    ((set.replicas * allowed) as f64 / before as f64).round() as i64 - set.replicas
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::Object;

    use super::*;

    #[test]
    fn size_is_shared_out_in_proportion() {
        // The Deployment's size now and before, the sets' sizes, and what they become. Surge is 0.
        let check = |size: i64, before: i64, sets: &[i64], expect: &[i64]| {
            let json = format!(
                r#"{{"metadata":{{"name":"d"}},"spec":{{"replicas":{size},"selector":{{}},"template":{{}},"strategy":
                    {{"type":"RollingUpdate","rollingUpdate":{{"maxSurge":0,"maxUnavailable":1}}}}}},"status":{{"replicas":{before}}}}}"#
            );
            let deployment = Deployment::read(&Arc::new(Object::parse(json.as_bytes()).unwrap())).unwrap();
            let sets: Vec<ReplicaSet> = sets
                .iter()
                .map(|n| {
                    let json = format!(
                        r#"{{"metadata":{{"name":"r","annotations":{{"deployment.kubernetes.io/max-replicas":"{before}"}}}},"spec":{{"replicas":{n}}}}}"#
                    );
                    ReplicaSet::read(Arc::new(Object::parse(json.as_bytes()).unwrap())).unwrap()
                })
                .collect();
            let total: i64 = sets.iter().map(|set| set.replicas).sum();
            let sets: Vec<&ReplicaSet> = sets.iter().collect();
            assert_eq!(share_out(&deployment, &sets, size - total), expect);
        };
        check(12, 10, &[10], &[12]);
        check(20, 10, &[5, 5], &[10, 10]);
        check(5, 10, &[8, 2], &[4, 1]);
        check(11, 10, &[4, 3, 3], &[5, 3, 3]);
        check(0, 10, &[4, 3, 3], &[0, 0, 0]);
        check(10, 10, &[4, 3, 3], &[4, 3, 3]);
    }
}
