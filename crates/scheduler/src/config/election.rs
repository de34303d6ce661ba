//! `leaderElection`: several schedulers of which one schedules.

use apimachinery::ObjectKey;
use client::LeaderElection;
use serde::Deserialize;

use super::fields::{duration, seconds};

/// A term must be renewed this many times faster than it ends.
const JITTER: f64 = 1.2;

/// As it is written. Unlike upstream's, one that says nothing elects nobody: a cluster of one process needs no lease.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ElectionSpec {
    leader_elect: bool,
    lease_duration: String,
    renew_deadline: String,
    retry_period: String,
    resource_lock: String,
    resource_name: String,
    resource_namespace: String,
}

impl Default for ElectionSpec {
    fn default() -> ElectionSpec {
        ElectionSpec {
            leader_elect: false,
            lease_duration: "15s".into(),
            renew_deadline: "10s".into(),
            retry_period: "2s".into(),
            resource_lock: "leases".into(),
            resource_name: "kube-scheduler".into(),
            resource_namespace: "kube-system".into(),
        }
    }
}

impl ElectionSpec {
    pub(super) fn mistakes(&self) -> Vec<String> {
        if !self.leader_elect {
            return Vec::new();
        }
        let mut errors = Vec::new();
        let mut invalid = |field: &str, value: &str, why: &str| {
            errors.push(format!("leaderElection.{field}: Invalid value: {value:?}: {why}"));
        };
        let of = |text: &str| seconds(text).unwrap_or_default();
        let (lease, renew, retry) = (of(&self.lease_duration), of(&self.renew_deadline), of(&self.retry_period));
        let positive = "must be greater than zero";
        if lease <= 0.0 {
            invalid("leaseDuration", &self.lease_duration, positive);
        }
        if renew <= 0.0 {
            invalid("renewDeadline", &self.renew_deadline, positive);
        }
        if retry <= 0.0 {
            invalid("retryPeriod", &self.retry_period, positive);
        }
        if lease.min(renew).min(retry) > 0.0 {
            if lease <= renew {
                invalid("leaseDuration", &self.lease_duration, "must be greater than `RenewDeadline`");
            } else if renew <= retry * JITTER {
                invalid("renewDeadline", &self.renew_deadline, "must be greater than retryPeriod*JitterFactor");
            }
        }
        if self.resource_lock != "leases" {
            invalid("resourceLock", &self.resource_lock, "resourceLock value must be \"leases\"");
        }
        for (field, value) in [("resourceName", &self.resource_name), ("resourceNamespace", &self.resource_namespace)] {
            if value.is_empty() {
                errors.push(format!("leaderElection.{field}: Required value"));
            }
        }
        errors
    }

    pub(super) fn election(&self, identity: String) -> Option<LeaderElection> {
        let lease = ObjectKey::new(self.resource_namespace.clone(), self.resource_name.clone());
        let default = LeaderElection::new(lease, identity);
        self.leader_elect.then(|| LeaderElection {
            lease_duration: duration(&self.lease_duration).unwrap_or(default.lease_duration),
            renew_deadline: duration(&self.renew_deadline).unwrap_or(default.renew_deadline),
            retry_period: duration(&self.retry_period).unwrap_or(default.retry_period),
            ..default
        })
    }
}
